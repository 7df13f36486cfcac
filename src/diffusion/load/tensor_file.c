/* tensor_file.c - see tensor_file.h. */
#include "diffusion/load/tensor_file.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/gguf.h"
#include "diffusion/load/safetensors.h"
#include "diffusion/load/torch_file.h"

#include <stdlib.h>
#include <string.h>

struct tensor_file {
    char *path;
    file_map map;              /* data == NULL when the bytes are the caller's */
    const unsigned char *data; /* NULL when only the header was read */
    uint64_t size;
    tensor_format format;
    tensor_table table;
};

static bool read_header(tensor_file *f, tensor_input *in, err *e) {
    if (gguf_is(in->data, in->len)) {
        f->format = TENSOR_FORMAT_GGUF;
        return gguf_read(&f->table, in, e);
    }
    if (safetensors_is(in->data, in->len)) {
        f->format = TENSOR_FORMAT_SAFETENSORS;
        return safetensors_read(&f->table, in, e);
    }
    if (torch_file_is(in->data, in->len)) {
        f->format = TENSOR_FORMAT_TORCH;
        return torch_file_read(&f->table, in, e);
    }
    return err_set(e, ERR_FORMAT, "neither a safetensors, a GGUF nor a PyTorch file");
}

static tensor_file *fail_open(tensor_file *f, err *e) {
    err_wrap(e, "'%.60s'", path_base(f->path));
    tensor_file_close(f);
    return NULL;
}

static tensor_file *open_bytes(tensor_file *f, err *e) {
    tensor_input in = {.data = f->data, .len = (size_t)f->size, .file_size = f->size};
    return read_header(f, &in, e) ? f : fail_open(f, e);
}

tensor_file *tensor_file_open(const char *path, err *e) {
    tensor_file *f = mem_alloc(1, sizeof *f);
    f->path = str_dup(path);
    if (!file_map_open(&f->map, path, e)) {
        tensor_file_close(f);
        return NULL;
    }
    f->data = f->map.data;
    f->size = f->map.size;
    return open_bytes(f, e);
}

/* Headers are some hundred kilobytes, or a few megabytes where a tokenizer is in them. */
enum { HEADER_FIRST = 256 << 10, HEADER_MOST = 128 << 20 };

static bool read_some(const char *path, size_t most, buf *out, uint64_t *size, err *e) {
    file_info info;
    buf_clear(out);
    if (!file_read_part(path, 0, most, out, e) || !file_stat(path, &info, e)) return false;
    *size = (uint64_t)info.size;
    return out->len <= *size || err_set(e, ERR_IO, "'%.150s' is being changed", path);
}

tensor_file *tensor_file_open_header(const char *path, err *e) {
    tensor_file *f = mem_alloc(1, sizeof *f);
    f->path = str_dup(path);
    buf start;
    buf_init(&start, HEADER_MOST);
    bool is_read = true, ok = false, again = true;
    for (size_t most = HEADER_FIRST; again && most <= HEADER_MOST; most *= 8) {
        is_read = read_some(path, most, &start, &f->size, e);
        if (!is_read) break;
        tensor_input in = {
            .data = (const unsigned char *)start.data, .len = start.len, .file_size = f->size, .path = path};
        tensor_table_free(&f->table);
        ok = read_header(f, &in, e);
        again = in.wants_more;
    }
    buf_free(&start);
    if (ok) return f;
    if (is_read) return fail_open(f, e);
    tensor_file_close(f); /* that message names the file already */
    return NULL;
}

tensor_file *tensor_file_open_memory(const char *name, const void *data, size_t size, err *e) {
    tensor_file *f = mem_alloc(1, sizeof *f);
    f->path = str_dup(name);
    f->data = data;
    f->size = size;
    return open_bytes(f, e);
}

void tensor_file_close(tensor_file *f) {
    if (!f) return;
    tensor_table_free(&f->table);
    file_map_close(&f->map);
    free(f->path);
    free(f);
}

const char *tensor_file_path(const tensor_file *f) {
    return f->path;
}

tensor_format tensor_file_format(const tensor_file *f) {
    return f->format;
}

uint64_t tensor_file_size(const tensor_file *f) {
    return f->size;
}

size_t tensor_file_count(const tensor_file *f) {
    return f->table.count;
}

const tensor_info *tensor_file_at(const tensor_file *f, size_t index) {
    return &f->table.tensors[index];
}

const tensor_info *tensor_file_find(const tensor_file *f, const char *name) {
    size_t i;
    return name_index_get(&f->table.by_name, name, &i) ? &f->table.tensors[i] : NULL;
}

const void *tensor_file_data(const tensor_file *f, const tensor_info *t) {
    return f->data ? f->data + t->offset : NULL;
}

bool tensor_file_read(const tensor_file *f, const tensor_info *t, void *out, size_t len, err *e) {
    if (len > t->nbytes) return err_set(e, ERR_INVALID, "tensor '%.100s' has %zu bytes", t->name, (size_t)t->nbytes);
    if (f->data) {
        memcpy(out, f->data + t->offset, len);
        return true;
    }
    buf part;
    buf_init(&part, len + 1);
    bool ok = file_read_part(f->path, t->offset, len, &part, e);
    if (ok && part.len < len) ok = err_set(e, ERR_IO, "'%.150s' is being changed", f->path);
    if (ok && len) memcpy(out, part.data, len);
    buf_free(&part);
    return ok;
}

const void *tensor_file_base(const tensor_file *f) {
    return f->data;
}

void tensor_file_release(const tensor_file *f, uint64_t offset, uint64_t len) {
    file_map_release(&f->map, (size_t)offset, (size_t)len);
}

void tensor_file_copy(const tensor_file *f, uint64_t offset, uint64_t len, void *to) {
    if (f->map.data)
        file_map_copy(&f->map, (size_t)offset, (size_t)len, to);
    else
        memcpy(to, f->data + offset, (size_t)len);
}

static const meta_value *find_meta(const tensor_file *f, const char *key) {
    size_t i;
    return name_index_get(&f->table.meta_by_key, key, &i) ? &f->table.meta[i] : NULL;
}

bool tensor_file_meta_str(const tensor_file *f, const char *key, const char **out) {
    const meta_value *v = find_meta(f, key);
    if (!v || v->kind != META_STR) return false;
    *out = v->u.str;
    return true;
}

bool tensor_file_meta_i64(const tensor_file *f, const char *key, int64_t *out) {
    const meta_value *v = find_meta(f, key);
    if (!v || v->kind != META_INT) return false;
    *out = v->u.i;
    return true;
}

bool tensor_file_meta_f64(const tensor_file *f, const char *key, double *out) {
    const meta_value *v = find_meta(f, key);
    if (!v || (v->kind != META_FLOAT && v->kind != META_INT)) return false;
    *out = v->kind == META_FLOAT ? v->u.f : (double)v->u.i;
    return true;
}

bool tensor_file_meta_bool(const tensor_file *f, const char *key, bool *out) {
    const meta_value *v = find_meta(f, key);
    if (!v || v->kind != META_BOOL) return false;
    *out = v->u.i != 0;
    return true;
}

bool tensor_file_meta_array_len(const tensor_file *f, const char *key, uint64_t *out) {
    const meta_value *v = find_meta(f, key);
    if (!v || v->kind != META_ARRAY) return false;
    *out = v->u.len;
    return true;
}
