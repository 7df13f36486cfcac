/* tensor_table.h - what a reader (safetensors, gguf, torch_file) fills and tensor_file hands out. Only those
 * include this. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_TABLE_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_TABLE_H

#include "base/buf.h"
#include "diffusion/load/name_index.h"
#include "diffusion/load/tensor_file.h"

enum {
    TENSOR_COUNT_MAX = 1 << 18,
    TENSOR_NAME_MAX = 1023,
    TENSOR_META_MAX = 1 << 16,
    TENSOR_META_STR_MAX = 64 << 20,
    TENSOR_DIMS_MAX = 8, /* what a file may say; beyond 4 they are merged */
};

/* What a reader works on: the start of a file. */
typedef struct tensor_input {
    const unsigned char *data;
    size_t len; /* bytes at hand, at most file_size */
    uint64_t file_size;
    const char *path; /* where bytes beyond `len` can be read; NULL when all are at hand */
    bool wants_more;  /* set when the header goes on beyond `len` though the file does not end there */
} tensor_input;

/* Fills `out` with exactly these bytes of the file, wherever they are. */
bool tensor_input_part(const tensor_input *in, uint64_t at, size_t len, buf *out, err *e);

typedef enum meta_kind { META_STR, META_INT, META_FLOAT, META_BOOL, META_ARRAY, META_SHAPE, META_OTHER } meta_kind;

typedef struct meta_value {
    meta_kind kind;
    union {
        char *str;    /* owned by the table */
        int64_t i;    /* META_INT, META_BOOL */
        double f;     /* META_FLOAT */
        uint64_t len; /* META_ARRAY: elements */
        struct {
            uint64_t n;
            uint32_t dims[TENSOR_DIMS_MAX]; /* ggml's order, none 0 */
        } shape;                            /* META_SHAPE */
    } u;
} meta_value;

typedef struct tensor_table {
    tensor_info *tensors;
    size_t count, cap;
    name_index by_name;
    meta_value *meta;
    size_t meta_count, meta_cap;
    name_index meta_by_key;
    char **owned; /* the strings behind names and keys */
    size_t owned_count, owned_cap;
} tensor_table;

void tensor_table_free(tensor_table *t);

/* A NUL-terminated copy that lives as long as the table; NULL when the bytes hold a NUL or are not UTF-8. */
char *tensor_table_keep(tensor_table *t, const void *s, size_t len);

/* Adds one tensor after checking name, shape, and place: its bytes must lie in [data_start, file_size). `offset` counts
 * from data_start. dims: n of them, outermost first when `outer_first`. */
typedef struct tensor_entry {
    const char *name;
    size_t name_len;
    tensor_type type;
    const uint64_t *dims;
    size_t n_dims;
    bool outer_first;
    uint64_t data_start, offset, file_size;
} tensor_entry;
bool tensor_table_add(tensor_table *t, const tensor_entry *entry, err *e);

/* Adds one metadata value (takes over value.u.str when it is a string). */
bool tensor_table_add_meta(tensor_table *t, const char *key, size_t key_len, meta_value value, err *e);

/* Gives the tensor added last another shape (META_SHAPE) over the same bytes; its rows then need not be whole blocks of
 * its type. Nothing happens when the shape has another number of elements. */
void tensor_table_reshape_last(tensor_table *t, const meta_value *shape);

/* ERR_FORMAT when two tensors share bytes. */
bool tensor_table_check_overlap(const tensor_table *t, err *e);

#endif
