/* tensor_table.c - see tensor_table.h. */
#include "diffusion/load/tensor_table.h"
#include "base/file.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void tensor_table_free(tensor_table *t) {
    name_index_free(&t->by_name);
    name_index_free(&t->meta_by_key);
    for (size_t i = 0; i < t->owned_count; i++) free(t->owned[i]);
    free(t->owned);
    free(t->tensors);
    free(t->meta);
    *t = (tensor_table){0};
}

bool tensor_input_part(const tensor_input *in, uint64_t at, size_t len, buf *out, err *e) {
    buf_clear(out);
    if (at > in->file_size || len > in->file_size - at)
        return err_set(e, ERR_FORMAT, "the file ends too soon (is it complete?)");
    if (at <= in->len && len <= in->len - at)
        return len == 0 || buf_append(out, in->data + at, len) || err_set(e, ERR_TOO_LARGE, "%zu bytes", len);
    if (!in->path) return err_set(e, ERR_FORMAT, "the file ends too soon (is it complete?)");
    if (!file_read_part(in->path, at, len, out, e)) return false;
    return out->len == len || err_set(e, ERR_IO, "'%.150s' is being changed", in->path);
}

static void *grow(void *items, size_t count, size_t *cap, size_t size) {
    if (count < *cap) return items;
    *cap = *cap ? *cap * 2 : 64;
    return mem_resize(items, *cap * size);
}

char *tensor_table_keep(tensor_table *t, const void *s, size_t len) {
    if (memchr(s, 0, len) || !str_is_utf8(s, len)) return NULL;
    t->owned = grow(t->owned, t->owned_count, &t->owned_cap, sizeof *t->owned);
    return t->owned[t->owned_count++] = str_ndup(s, len);
}

/* ggml's order, four dimensions, the outermost merged; false when a number does not fit. */
static bool fill_shape(tensor_info *info, const tensor_entry *entry) {
    info->n_dims = (int)(entry->n_dims < 4 ? entry->n_dims : 4);
    for (int i = 0; i < 4; i++) info->ne[i] = 1;
    for (size_t i = 0; i < entry->n_dims; i++) {
        uint64_t d = entry->dims[entry->outer_first ? entry->n_dims - 1 - i : i];
        int64_t *slot = &info->ne[i < 4 ? i : 3];
        if (d > INT64_MAX || (d && *slot > INT64_MAX / (int64_t)d)) return false;
        *slot *= (int64_t)d;
    }
    return true;
}

static bool fill_place(tensor_info *info, const tensor_entry *entry, err *e) {
    int64_t bytes;
    if (!fill_shape(info, entry) || !tensor_type_size(info->type, info->ne, &bytes))
        return err_set(e, ERR_FORMAT,
                       "tensor '%.100s': impossible shape [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                       "] for type %s",
                       info->name, info->ne[3], info->ne[2], info->ne[1], info->ne[0], tensor_type_name(info->type));
    info->nbytes = (uint64_t)bytes;
    uint64_t room = entry->file_size - entry->data_start;
    if (entry->offset > room || info->nbytes > room - entry->offset)
        return err_set(e, ERR_FORMAT,
                       "tensor '%.100s': %" PRIu64 " bytes at %" PRIu64 " lie beyond the file's end (is it complete?)",
                       info->name, info->nbytes, entry->offset);
    info->offset = entry->data_start + entry->offset;
    return true;
}

bool tensor_table_add(tensor_table *t, const tensor_entry *entry, err *e) {
    int shown = (int)(entry->name_len < 100 ? entry->name_len : 100);
    if (t->count >= TENSOR_COUNT_MAX) return err_set(e, ERR_FORMAT, "more than %d tensors", TENSOR_COUNT_MAX);
    if (entry->name_len == 0 || entry->name_len > TENSOR_NAME_MAX)
        return err_set(e, ERR_FORMAT, "tensor %zu: name of %zu bytes", t->count, entry->name_len);
    if (entry->n_dims > TENSOR_DIMS_MAX)
        return err_set(e, ERR_FORMAT, "tensor '%.*s': %zu dimensions", shown, entry->name, entry->n_dims);
    tensor_info info = {.name = tensor_table_keep(t, entry->name, entry->name_len), .type = entry->type};
    if (!info.name) return err_set(e, ERR_FORMAT, "tensor %zu: name is not UTF-8 text", t->count);
    if (!fill_place(&info, entry, e)) return false;
    if (!name_index_put(&t->by_name, info.name, t->count))
        return err_set(e, ERR_FORMAT, "tensor '%.100s' occurs twice", info.name);
    t->tensors = grow(t->tensors, t->count, &t->cap, sizeof *t->tensors);
    t->tensors[t->count++] = info;
    return true;
}

bool tensor_table_add_meta(tensor_table *t, const char *key, size_t key_len, meta_value value, err *e) {
    if (t->meta_count >= TENSOR_META_MAX) return err_set(e, ERR_FORMAT, "more than %d metadata keys", TENSOR_META_MAX);
    const char *kept = tensor_table_keep(t, key, key_len);
    if (!kept) return err_set(e, ERR_FORMAT, "metadata key %zu is not UTF-8 text", t->meta_count);
    if (!name_index_put(&t->meta_by_key, kept, t->meta_count))
        return err_set(e, ERR_FORMAT, "metadata key '%.100s' occurs twice", kept);
    t->meta = grow(t->meta, t->meta_count, &t->meta_cap, sizeof *t->meta);
    t->meta[t->meta_count++] = value;
    return true;
}

void tensor_table_reshape_last(tensor_table *t, const meta_value *shape) {
    tensor_info *info = &t->tensors[t->count - 1];
    int64_t ne[4] = {1, 1, 1, 1}, had = 1, has = 1;
    for (uint64_t i = 0; i < shape->u.shape.n; i++) {
        int64_t *slot = &ne[i < 4 ? i : 3];
        if (*slot > INT64_MAX / shape->u.shape.dims[i]) return;
        *slot *= shape->u.shape.dims[i];
    }
    for (int i = 0; i < 4; i++) {
        had *= info->ne[i]; /* checked when it was added */
        if (has > INT64_MAX / ne[i]) return;
        has *= ne[i];
    }
    if (has != had) return;
    memcpy(info->ne, ne, sizeof ne);
    info->n_dims = (int)(shape->u.shape.n < 4 ? shape->u.shape.n : 4);
}

static int compare_place(const void *a, const void *b) {
    const tensor_info *x = *(const tensor_info *const *)a, *y = *(const tensor_info *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return 0; /* the same place: an overlap in either order */
}

bool tensor_table_check_overlap(const tensor_table *t, err *e) {
    const tensor_info **sorted = mem_alloc(t->count, sizeof *sorted);
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++)
        if (t->tensors[i].nbytes) sorted[n++] = &t->tensors[i];
    qsort(sorted, n, sizeof *sorted, compare_place);
    bool ok = true;
    for (size_t i = 1; i < n && ok; i++)
        if (sorted[i - 1]->offset + sorted[i - 1]->nbytes > sorted[i]->offset)
            ok = err_set(e, ERR_FORMAT, "tensor '%.80s' overlaps tensor '%.80s'", sorted[i]->name, sorted[i - 1]->name);
    free(sorted);
    return ok;
}
