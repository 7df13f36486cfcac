#include "diffusion/text/text_encoders.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

struct text_encoders {
    clip **parts; /* owned */
    int count;
    int dim, pooled_dim;
};

text_encoders *text_encoders_open(weights *w, backend *b, const clip_form *const *forms, int count, err *e) {
    text_encoders *t = mem_alloc(1, sizeof *t);
    t->parts = mem_alloc((size_t)count, sizeof *t->parts);
    for (; t->count < count; t->count++) {
        clip *c = clip_open(w, b, forms[t->count], e);
        if (!c) {
            err_wrap(e, "%s", forms[t->count]->option);
            text_encoders_close(t);
            return NULL;
        }
        t->parts[t->count] = c;
        t->dim += clip_dim(c);
        t->pooled_dim += clip_pooled_dim(c);
    }
    return t;
}

void text_encoders_close(text_encoders *t) {
    if (!t) return;
    for (int i = 0; i < t->count; i++) clip_close(t->parts[i]);
    free(t->parts);
    free(t);
}

int text_encoders_count(const text_encoders *t) {
    return t->count;
}

const clip *text_encoders_at(const text_encoders *t, int i) {
    return t->parts[i];
}

int text_encoders_dim(const text_encoders *t) {
    return t->dim;
}

int text_encoders_pooled_dim(const text_encoders *t) {
    return t->pooled_dim;
}

/* One encoder's columns, beginning at `column`. */
static bool encode_columns(const text_encoders *t, int index, const prompt *p, const float *learned, int skip,
                           float *rows, size_t column, float *pooled, err *e) {
    clip *c = t->parts[index];
    const size_t count = (size_t)p->chunks * PROMPT_CHUNK, own = (size_t)clip_dim(c), dim = (size_t)t->dim;
    if (own == dim) return clip_encode(c, p, learned, skip, rows, pooled, e);
    float *part = mem_alloc(count * own, sizeof *part);
    const bool ok = clip_encode(c, p, learned, skip, part, pooled, e);
    for (size_t i = 0; ok && i < count; i++) memcpy(rows + i * dim + column, part + i * own, own * sizeof *part);
    free(part);
    return ok;
}

bool text_encoders_encode(text_encoders *t, const prompt *p, const float *const *learned, int skip, float *rows,
                          float *pooled, err *e) {
    size_t column = 0;
    for (int i = 0; i < t->count; i++) {
        if (!encode_columns(t, i, p, learned ? learned[i] : NULL, skip, rows, column, pooled, e)) return false;
        column += (size_t)clip_dim(t->parts[i]);
        pooled += clip_pooled_dim(t->parts[i]);
    }
    return true;
}
