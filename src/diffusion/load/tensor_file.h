/* tensor_file.h - one opened model file, whatever its format: its tensors and its metadata.
 *
 * The file is memory-mapped and stays so until it is closed; opening reads the header only, never the weights. Model
 * files come from strangers: every length, offset, shape and type is checked before it is believed, and what is wrong
 * is an ERR_FORMAT that names the tensor or key. Safe to read from several threads once open. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_FILE_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_FILE_H

#include "base/err.h"
#include "diffusion/load/tensor_type.h"

typedef struct tensor_file tensor_file;

typedef enum tensor_format { TENSOR_FORMAT_SAFETENSORS, TENSOR_FORMAT_GGUF, TENSOR_FORMAT_TORCH } tensor_format;

/* Borrowed from the file; tensors of a PyTorch file may share their bytes. A tensor of more than four dimensions has
 * the outermost ones merged into ne[3]. */
typedef struct tensor_info {
    const char *name;
    tensor_type type;
    int n_dims;      /* 0 (scalar) .. 4 */
    int64_t ne[4];   /* ggml's order: ne[0] varies fastest (PyTorch's shape backwards); 1 beyond n_dims */
    uint64_t offset; /* of the first byte, from the start of the file */
    uint64_t nbytes;
} tensor_info;

/* NULL on failure. The pickle in a .ckpt or .pt is read as data and never run; what would have to be run is an
 * ERR_UNSUPPORTED that names it. */
tensor_file *tensor_file_open(const char *path, err *e);

/* Reads the header into memory and maps nothing: for looking at files that others may be writing or truncating at this
 * moment (touching a mapping beyond a file's new end kills the process). There is no data to get. */
tensor_file *tensor_file_open_header(const char *path, err *e);

/* As tensor_file_open, over bytes in memory, borrowed until close; `name` is what messages call it. */
tensor_file *tensor_file_open_memory(const char *name, const void *data, size_t size, err *e);

void tensor_file_close(tensor_file *f); /* NULL is fine */

const char *tensor_file_path(const tensor_file *f);
tensor_format tensor_file_format(const tensor_file *f);
uint64_t tensor_file_size(const tensor_file *f); /* of the whole file, bytes */

/* Tensors in file order; by name (NULL when there is none). */
size_t tensor_file_count(const tensor_file *f);
const tensor_info *tensor_file_at(const tensor_file *f, size_t index);
const tensor_info *tensor_file_find(const tensor_file *f, const char *name);

/* The mapped bytes: t->nbytes of them, aligned to nothing but what the file happens to give. NULL after
 * tensor_file_open_header(). */
const void *tensor_file_data(const tensor_file *f, const tensor_info *t);

/* Copies the tensor's first `len` bytes; reads them from the file where it was opened for its header only. */
bool tensor_file_read(const tensor_file *f, const tensor_info *t, void *out, size_t len, err *e);

/* The whole mapping (page aligned when opened by path). */
const void *tensor_file_base(const tensor_file *f);

/* The pages that lie wholly in this part of the file leave resident memory; a later access reads them again. */
void tensor_file_release(const tensor_file *f, uint64_t offset, uint64_t len);

/* Copies a part that lies inside the file, as file_map_copy() does. */
void tensor_file_copy(const tensor_file *f, uint64_t offset, uint64_t len, void *to);

/* Metadata: GGUF's key-value pairs, safetensors' "__metadata__" (strings only), text and numbers beside the tensors of
 * a PyTorch file. Each is false, with *out untouched, when the key is missing, of another kind, or out of range.
 * Strings are borrowed, NUL-terminated, and hold no NUL. */
bool tensor_file_meta_str(const tensor_file *f, const char *key, const char **out);
bool tensor_file_meta_i64(const tensor_file *f, const char *key, int64_t *out);
bool tensor_file_meta_f64(const tensor_file *f, const char *key, double *out); /* integers too */
bool tensor_file_meta_bool(const tensor_file *f, const char *key, bool *out);
bool tensor_file_meta_array_len(const tensor_file *f, const char *key, uint64_t *out);

#endif
