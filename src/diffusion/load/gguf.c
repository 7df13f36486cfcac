/* gguf.c - see gguf.h.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays are walked, not kept: a tokenizer's
 * hundred thousand strings are of no use here. */
#include "diffusion/load/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    DIMS_MAX = TENSOR_DIMS_MAX,
    KEY_MAX = 65535,
    ARRAY_DEPTH_MAX = 4,
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 65536
};

typedef enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_COUNT
} value_type;

static const unsigned char VALUE_BYTES[VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Reads forward only; once out of bounds it stays failed and yields zeros, so one check after several reads is enough.
 */
typedef struct cursor {
    const unsigned char *data;
    size_t size, pos;
    bool failed;
} cursor;

static const unsigned char *take(cursor *c, uint64_t len) {
    if (c->failed || len > c->size - c->pos) {
        c->failed = true;
        return NULL;
    }
    const unsigned char *p = c->data + c->pos;
    c->pos += (size_t)len;
    return p;
}

static uint64_t take_le(cursor *c, int bytes) {
    const unsigned char *p = take(c, (uint64_t)bytes);
    uint64_t v = 0;
    for (int i = bytes - 1; p && i >= 0; i--) v = v << 8 | p[i];
    return v;
}

typedef struct text {
    const char *s;
    size_t len;
} text;

static text take_text(cursor *c) {
    uint64_t len = take_le(c, 8);
    const unsigned char *p = take(c, len);
    return p ? (text){(const char *)p, (size_t)len} : (text){"", 0};
}

static bool truncated(err *e) {
    return err_set(e, ERR_FORMAT, "file ends inside the header (is it complete?)");
}

static void skip_strings(cursor *c, uint64_t count) {
    for (uint64_t i = 0; i < count && !c->failed; i++) take_text(c);
}

/* Past one array, whose length is returned. */
static bool skip_array(cursor *c, int depth, uint64_t *len, err *e) {
    uint64_t type = take_le(c, 4);
    *len = take_le(c, 8);
    if (c->failed) return truncated(e);
    if (type >= VALUE_COUNT) return err_set(e, ERR_FORMAT, "array of unknown type %" PRIu64, type);
    if (type == VALUE_STRING) {
        skip_strings(c, *len);
    } else if (type == VALUE_ARRAY) {
        if (depth >= ARRAY_DEPTH_MAX) return err_set(e, ERR_FORMAT, "arrays nested deeper than %d", ARRAY_DEPTH_MAX);
        uint64_t inner;
        for (uint64_t i = 0; i < *len; i++)
            if (!skip_array(c, depth + 1, &inner, e)) return false;
    } else if (*len > UINT64_MAX / VALUE_BYTES[type] || !take(c, *len * VALUE_BYTES[type])) {
        c->failed = true;
    }
    return c->failed ? truncated(e) : true;
}

static double float_of(uint64_t bits, value_type type) {
    if (type == VALUE_F64) {
        double d;
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return (double)f;
}

static meta_value number_of(uint64_t bits, value_type type) {
    meta_value v = {.kind = META_INT};
    switch (type) {
    case VALUE_F32:
    case VALUE_F64:
        v = (meta_value){.kind = META_FLOAT, .u.f = float_of(bits, type)};
        break;
    case VALUE_BOOL:
        v = (meta_value){.kind = META_BOOL, .u.i = bits != 0};
        break;
    case VALUE_I8:
        v.u.i = (int8_t)bits;
        break;
    case VALUE_I16:
        v.u.i = (int16_t)bits;
        break;
    case VALUE_I32:
        v.u.i = (int32_t)bits;
        break;
    case VALUE_U64:
        if (bits > INT64_MAX) v.kind = META_OTHER;
        v.u.i = (int64_t)(bits & INT64_MAX);
        break;
    default:
        v.u.i = (int64_t)bits;
        break;
    }
    return v;
}

static meta_value string_value(tensor_table *t, cursor *c) {
    text s = take_text(c);
    char *kept = s.len <= TENSOR_META_STR_MAX ? tensor_table_keep(t, s.s, s.len) : NULL;
    return kept ? (meta_value){.kind = META_STR, .u.str = kept} : (meta_value){.kind = META_OTHER};
}

/* Where converters of ComfyUI's world keep the shape of a tensor whose rows they made 256 long for quantization: an
 * array of 32- or 64-bit integers, outermost first, under this and the tensor's name. */
static const char ORIG_SHAPE[] = "comfy.gguf.orig_shape.";

/* The array at c, when it is such a shape; anything else is META_ARRAY as ever. */
static bool read_shape(cursor *c, meta_value *v, err *e) {
    cursor at = *c;
    uint64_t type = take_le(&at, 4), n = take_le(&at, 8);
    bool is_wide = type == VALUE_I64 || type == VALUE_U64, is_int = is_wide || type == VALUE_I32 || type == VALUE_U32;
    *v = (meta_value){.kind = META_ARRAY};
    if (!skip_array(c, 1, &v->u.len, e)) return false;
    if (!is_int || n == 0 || n > DIMS_MAX) return true;
    meta_value shape = {.kind = META_SHAPE, .u.shape = {.n = n}};
    for (uint64_t i = 0; i < n; i++) {
        uint64_t d = take_le(&at, is_wide ? 8 : 4);
        if (d == 0 || d > INT32_MAX) return true;
        shape.u.shape.dims[n - 1 - i] = (uint32_t)d;
    }
    *v = shape;
    return true;
}

static bool read_value(tensor_table *t, cursor *c, bool may_be_shape, meta_value *v, err *e) {
    uint64_t type = take_le(c, 4);
    if (c->failed) return truncated(e);
    if (type >= VALUE_COUNT) return err_set(e, ERR_FORMAT, "unknown type %" PRIu64, type);
    if (type == VALUE_ARRAY) {
        if (may_be_shape) return read_shape(c, v, e);
        *v = (meta_value){.kind = META_ARRAY};
        return skip_array(c, 1, &v->u.len, e);
    }
    *v = type == VALUE_STRING ? string_value(t, c) : number_of(take_le(c, VALUE_BYTES[type]), (value_type)type);
    return c->failed ? truncated(e) : true;
}

static bool read_pair(tensor_table *t, cursor *c, err *e) {
    text key = take_text(c);
    if (c->failed) return truncated(e);
    if (key.len == 0 || key.len > KEY_MAX) return err_set(e, ERR_FORMAT, "metadata key of %zu bytes", key.len);
    meta_value v;
    bool may_be_shape = key.len > strlen(ORIG_SHAPE) && memcmp(key.s, ORIG_SHAPE, strlen(ORIG_SHAPE)) == 0;
    if (!read_value(t, c, may_be_shape, &v, e))
        return err_wrap(e, "key '%.*s'", (int)(key.len < 80 ? key.len : 80), key.s);
    return tensor_table_add_meta(t, key.s, key.len, v, e);
}

/* The alignment of data and of each tensor in it. */
static bool read_alignment(const tensor_table *t, uint64_t *out, err *e) {
    size_t i;
    *out = ALIGNMENT_DEFAULT;
    if (!name_index_get(&t->meta_by_key, "general.alignment", &i)) return true;
    const meta_value *v = &t->meta[i];
    int64_t a = v->kind == META_INT ? v->u.i : 0;
    if (a < 1 || a > ALIGNMENT_MAX || (a & (a - 1)) != 0)
        return err_set(e, ERR_FORMAT, "key 'general.alignment': not a power of two up to %d", ALIGNMENT_MAX);
    *out = (uint64_t)a;
    return true;
}

/* A tensor's header as it stands; its place can be judged only when the end of all headers is known. */
typedef struct raw_tensor {
    text name;
    uint64_t dims[DIMS_MAX];
    size_t n_dims;
    uint64_t type, offset;
} raw_tensor;

static bool take_tensor(cursor *c, raw_tensor *raw, err *e) {
    raw->name = take_text(c);
    raw->n_dims = (size_t)take_le(c, 4);
    if (c->failed) return truncated(e);
    int shown = (int)(raw->name.len < 100 ? raw->name.len : 100);
    if (raw->n_dims > DIMS_MAX)
        return err_set(e, ERR_FORMAT, "tensor '%.*s': %zu dimensions", shown, raw->name.s, raw->n_dims);
    for (size_t i = 0; i < raw->n_dims; i++) raw->dims[i] = take_le(c, 8);
    raw->type = take_le(c, 4);
    raw->offset = take_le(c, 8);
    if (c->failed) return truncated(e);
    if (raw->type >= TENSOR_U8 || !tensor_type_is_valid((int64_t)raw->type))
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.*s': unknown type %" PRIu64, shown, raw->name.s, raw->type);
    return true;
}

/* The tensor added last gets the shape that the metadata tell, if they do. */
static void restore_shape(tensor_table *t) {
    char key[sizeof ORIG_SHAPE + TENSOR_NAME_MAX];
    size_t i;
    snprintf(key, sizeof key, "%s%s", ORIG_SHAPE, t->tensors[t->count - 1].name);
    if (name_index_get(&t->meta_by_key, key, &i) && t->meta[i].kind == META_SHAPE)
        tensor_table_reshape_last(t, &t->meta[i]);
}

static bool add_tensor(tensor_table *t, const raw_tensor *raw, uint64_t data_start, uint64_t align, uint64_t size,
                       err *e) {
    if (raw->offset % align != 0)
        return err_set(e, ERR_FORMAT, "tensor '%.*s': offset %" PRIu64 " is not a multiple of %" PRIu64,
                       (int)(raw->name.len < 100 ? raw->name.len : 100), raw->name.s, raw->offset, align);
    tensor_entry entry = {.name = raw->name.s,
                          .name_len = raw->name.len,
                          .type = (tensor_type)raw->type,
                          .dims = raw->dims,
                          .n_dims = raw->n_dims,
                          .data_start = data_start,
                          .offset = raw->offset,
                          .file_size = size};
    if (!tensor_table_add(t, &entry, e)) return false;
    restore_shape(t);
    return true;
}

/* Walks the headers twice: first to find where the data starts, then to place the tensors. */
static bool read_tensors(tensor_table *t, cursor *c, uint64_t count, uint64_t file_size, err *e) {
    cursor again = *c;
    raw_tensor raw;
    uint64_t align;
    for (uint64_t i = 0; i < count; i++)
        if (!take_tensor(c, &raw, e)) return false;
    if (!read_alignment(t, &align, e)) return false;
    uint64_t data_start = (c->pos + align - 1) / align * align;
    if (data_start > file_size) data_start = file_size; /* a file without data may lack the padding */
    for (uint64_t i = 0; i < count; i++)
        if (!take_tensor(&again, &raw, e) || !add_tensor(t, &raw, data_start, align, file_size, e)) return false;
    return tensor_table_check_overlap(t, e);
}

bool gguf_is(const unsigned char *data, size_t size) {
    return size >= 4 && memcmp(data, "GGUF", 4) == 0;
}

static bool read_all(tensor_table *t, cursor *c, uint64_t file_size, err *e) {
    take(c, 4);
    uint64_t version = take_le(c, 4), tensors = take_le(c, 8), pairs = take_le(c, 8);
    if (c->failed) return truncated(e);
    if (version && (version & 0xffff) == 0) return err_set(e, ERR_UNSUPPORTED, "big-endian GGUF is not supported");
    if (version != 2 && version != 3)
        return err_set(e, ERR_UNSUPPORTED, "GGUF version %" PRIu64 " is not supported (2 and 3 are)", version);
    if (tensors > TENSOR_COUNT_MAX || pairs > TENSOR_META_MAX)
        return err_set(e, ERR_FORMAT, "%" PRIu64 " tensors and %" PRIu64 " metadata keys are too many", tensors, pairs);
    for (uint64_t i = 0; i < pairs; i++)
        if (!read_pair(t, c, e)) return false;
    return read_tensors(t, c, tensors, file_size, e);
}

bool gguf_read(tensor_table *t, tensor_input *in, err *e) {
    cursor c = {.data = in->data, .size = in->len};
    bool ok = read_all(t, &c, in->file_size, e);
    in->wants_more = !ok && c.failed && in->len < in->file_size;
    return ok;
}
