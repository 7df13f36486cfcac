#include "diffusion/model/layers.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>

enum { NAME = 256, GROUPS = 32 };

layers layers_at(weights *w, const char *prefix, bool *ok, err *e) {
    layers l = {.w = w, .e = e, .ok = ok};
    str_copy(l.prefix, sizeof l.prefix, prefix);
    return l;
}

layers layers_below(const layers *l, const char *fmt, ...) {
    char part[NAME];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(part, sizeof part, fmt, ap);
    va_end(ap);
    layers below = *l;
    snprintf(below.prefix, sizeof below.prefix, "%s%s", l->prefix, part);
    return below;
}

static const char *full_name(const layers *l, const char *name, const char *part, char out[NAME]) {
    snprintf(out, NAME, "%s%s%s", l->prefix, name, part);
    return out;
}

bool layers_has(const layers *l, const char *name) {
    char full[NAME];
    return weights_has(l->w, full_name(l, name, "", full));
}

bool layers_has_any(const layers *l, const char *start) {
    char full[NAME];
    return weights_has_prefix(l->w, full_name(l, start, "", full));
}

int64_t layers_dim(const layers *l, const char *name, int dim) {
    char full[NAME];
    return weights_dim(l->w, full_name(l, name, "", full), dim);
}

int layers_count(const layers *l, const char *name, int max) {
    char full[NAME];
    const int n = weights_count(l->w, full_name(l, name, "", full));
    if (n <= max) return n;
    layers_fail(l, ERR_FORMAT, "more than %d of '%s'", max, full);
    return 0;
}

bool layers_fail(const layers *l, err_code code, const char *fmt, ...) {
    if (!*l->ok) return false; /* the first reason stands */
    char text[NAME];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    *l->ok = false;
    return err_set(l->e, code, "%s", text);
}

static struct ggml_tensor *find(const layers *l, weights_use use, const char *name, const char *part, const int64_t *ne,
                                int n_dims) {
    char full[NAME];
    full_name(l, name, part, full);
    for (int i = 0; i < n_dims; i++)
        if (ne[i] < 1) layers_fail(l, ERR_FORMAT, "tensor '%s' is empty, or one that tells its size is missing", full);
    if (!*l->ok) return NULL;
    struct ggml_tensor *t = weights_tensor_nd(l->w, l->e, use, full, ne, n_dims);
    if (!t) *l->ok = false;
    return t;
}

static struct ggml_tensor *find_vector(const layers *l, const char *name, const char *part, int64_t n) {
    return find(l, WEIGHTS_VECTOR, name, part, &n, 1);
}

layer layer_linear(const layers *l, const char *name, int64_t in, int64_t out) {
    char full[NAME];
    layer y = {find(l, WEIGHTS_MATRIX, name, ".weight", (const int64_t[]){in, out}, 2), NULL};
    if (weights_has(l->w, full_name(l, name, ".bias", full))) y.bias = find_vector(l, name, ".bias", out);
    return y;
}

struct ggml_tensor *layer_matrix(const layers *l, const char *name, int64_t in, int64_t out) {
    return find(l, WEIGHTS_MATRIX, name, "", (const int64_t[]){in, out}, 2);
}

layer layer_conv_plain(const layers *l, const char *name, int64_t kernel, int64_t in, int64_t out) {
    return (layer){find(l, WEIGHTS_CONV, name, ".weight", (const int64_t[]){kernel, kernel, in, out}, 4), NULL};
}

layer layer_conv(const layers *l, const char *name, int64_t kernel, int64_t in, int64_t out) {
    layer y = layer_conv_plain(l, name, kernel, in, out);
    y.bias = find_vector(l, name, ".bias", out);
    return y;
}

layer layer_norm(const layers *l, const char *name, int64_t channels) {
    return (layer){find_vector(l, name, ".weight", channels), find_vector(l, name, ".bias", channels)};
}

struct ggml_tensor *layer_vector(const layers *l, const char *name, int64_t n) {
    return find_vector(l, name, ".weight", n);
}

struct ggml_tensor *layer_parameter(const layers *l, const char *name, int64_t n) {
    return find_vector(l, name, "", n);
}

layer layer_group_norm(const layers *l, const char *name, int64_t channels) {
    if (channels % GROUPS)
        layers_fail(l, ERR_FORMAT, "'%s%s': %lld channels are not a multiple of %d groups", l->prefix, name,
                    (long long)channels, GROUPS);
    return layer_norm(l, name, channels);
}
