/* safetensors.c - see safetensors.h.
 * Format: https://github.com/huggingface/safetensors. Stricter than needed to read good files: sizes must equal shape
 * times type, nothing may overlap; laxer in one point: bytes that belong to no tensor do not matter. */
#include "diffusion/load/safetensors.h"
#include "base/str.h"
#include "json/json.h"

#include <inttypes.h>
#include <string.h>

enum { LENGTH_BYTES = 8, HEADER_MAX = 100000000 /* the format's own limit */, DIMS_MAX = 8 };

static uint64_t read_le64(const unsigned char *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

bool safetensors_is(const unsigned char *data, size_t size) {
    return size > LENGTH_BYTES && data[LENGTH_BYTES] == '{';
}

static bool dtype_of(const char *name, tensor_type *out) {
    static const struct {
        const char *name;
        tensor_type type;
    } DTYPES[] = {
        {"F32", TENSOR_F32},         {"F16", TENSOR_F16},         {"BF16", TENSOR_BF16}, {"F64", TENSOR_F64},
        {"F8_E4M3", TENSOR_F8_E4M3}, {"F8_E5M2", TENSOR_F8_E5M2}, {"I8", TENSOR_I8},     {"I16", TENSOR_I16},
        {"I32", TENSOR_I32},         {"I64", TENSOR_I64},         {"U8", TENSOR_U8},     {"U16", TENSOR_U16},
        {"U32", TENSOR_U32},         {"U64", TENSOR_U64},         {"BOOL", TENSOR_BOOL},
    };
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++) {
        if (!str_eq(name, DTYPES[i].name)) continue;
        *out = DTYPES[i].type;
        return true;
    }
    return false;
}

static bool bad_tensor(const char *name, const char *what, err *e) {
    return err_set(e, ERR_FORMAT, "tensor '%.100s': %s", name, what);
}

/* A JSON array of unsigned integers; at most `max` of them. */
static bool read_numbers(yyjson_val *arr, uint64_t *out, size_t max, size_t *count) {
    if (!yyjson_is_arr(arr) || yyjson_arr_size(arr) > max) return false;
    *count = yyjson_arr_size(arr);
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(arr, i, n, item) {
        if (!yyjson_is_uint(item)) return false;
        out[i] = yyjson_get_uint(item);
    }
    return true;
}

static bool read_tensor(tensor_table *t, yyjson_val *key, yyjson_val *val, tensor_entry entry, err *e) {
    entry.name = yyjson_get_str(key);
    entry.name_len = yyjson_get_len(key);
    const char *dtype = yyjson_get_str(yyjson_obj_get(val, "dtype"));
    if (!dtype) return bad_tensor(entry.name, "no dtype", e);
    if (!dtype_of(dtype, &entry.type))
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': unknown dtype '%.30s'", entry.name, dtype);
    uint64_t dims[DIMS_MAX], range[2];
    size_t range_len;
    if (!read_numbers(yyjson_obj_get(val, "shape"), dims, DIMS_MAX, &entry.n_dims))
        return bad_tensor(entry.name, "bad shape", e);
    bool has_range = read_numbers(yyjson_obj_get(val, "data_offsets"), range, 2, &range_len);
    if (!has_range || range_len != 2 || range[0] > range[1]) return bad_tensor(entry.name, "bad data_offsets", e);
    entry.dims = dims;
    entry.offset = range[0];
    if (!tensor_table_add(t, &entry, e)) return false;
    uint64_t nbytes = t->tensors[t->count - 1].nbytes;
    if (nbytes != range[1] - range[0])
        return err_set(e, ERR_FORMAT, "tensor '%.100s': shape needs %" PRIu64 " bytes, data_offsets give %" PRIu64,
                       entry.name, nbytes, range[1] - range[0]);
    return true;
}

static bool read_metadata(tensor_table *t, yyjson_val *obj, err *e) {
    if (!yyjson_is_obj(obj)) return err_set(e, ERR_FORMAT, "__metadata__ is not an object");
    size_t i, n;
    yyjson_val *key, *val;
    yyjson_obj_foreach(obj, i, n, key, val) {
        meta_value value = {.kind = META_OTHER};
        if (yyjson_is_str(val)) value.u.str = tensor_table_keep(t, yyjson_get_str(val), yyjson_get_len(val));
        if (value.u.str) value.kind = META_STR;
        if (!tensor_table_add_meta(t, yyjson_get_str(key), yyjson_get_len(key), value, e)) return false;
    }
    return true;
}

static bool read_entries(tensor_table *t, yyjson_val *root, uint64_t data_start, uint64_t size, err *e) {
    if (!yyjson_is_obj(root)) return err_set(e, ERR_FORMAT, "header is not a JSON object");
    tensor_entry entry = {.outer_first = true, .data_start = data_start, .file_size = size};
    size_t i, n;
    yyjson_val *key, *val;
    yyjson_obj_foreach(root, i, n, key, val) {
        bool ok =
            yyjson_equals_str(key, "__metadata__") ? read_metadata(t, val, e) : read_tensor(t, key, val, entry, e);
        if (!ok) return false;
    }
    return tensor_table_check_overlap(t, e);
}

bool safetensors_read(tensor_table *t, tensor_input *in, err *e) {
    if (in->len < LENGTH_BYTES) return err_set(e, ERR_FORMAT, "file of %zu bytes is no safetensors file", in->len);
    uint64_t len = read_le64(in->data);
    if (len > HEADER_MAX) return err_set(e, ERR_FORMAT, "header of %" PRIu64 " bytes is too long", len);
    if (len > in->file_size - LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "header of %" PRIu64 " bytes does not fit in a file of %" PRIu64, len,
                       in->file_size);
    in->wants_more = len > in->len - LENGTH_BYTES;
    if (in->wants_more) return err_set(e, ERR_FORMAT, "header of %" PRIu64 " bytes is not at hand", len);
    yyjson_doc *doc = json_parse((const char *)in->data + LENGTH_BYTES, (size_t)len, e);
    if (!doc) return err_wrap(e, "safetensors header");
    bool ok = read_entries(t, yyjson_doc_get_root(doc), LENGTH_BYTES + len, in->file_size, e);
    yyjson_doc_free(doc);
    return ok;
}
