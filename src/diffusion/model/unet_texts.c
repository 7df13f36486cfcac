/* unet_texts.c - see unet_texts.h. */
#include "diffusion/model/unet_texts.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES = 8, OTHER_IO = 96, CROSSES_MAX = (GRAPH_IO_MAX - OTHER_IO) / 2 };
static const size_t most_bytes = 128 << 20;

typedef struct entry {
    float *numbers;  /* owned; the text, then keys and values of each cross-attention; NULL: nothing is here */
    unet_keys *keys; /* owned; by number of the cross-attention */
    size_t bytes;
    int n, tokens;
} entry;

struct unet_texts {
    unet *u;
    entry entries[ENTRIES];
    int next; /* the oldest */
    size_t bytes;
};

unet_texts *unet_texts_open(unet *u) {
    unet_texts *t = mem_alloc(1, sizeof *t);
    t->u = u;
    return t;
}

static void drop(unet_texts *t, entry *x) {
    t->bytes -= x->bytes;
    free(x->numbers);
    free(x->keys);
    *x = (entry){0};
}

void unet_texts_close(unet_texts *t) {
    if (!t) return;
    for (int i = 0; i < ENTRIES; i++) drop(t, &t->entries[i]);
    free(t);
}

static size_t text_values(const unet *u, int rows) {
    return (size_t)rows * (size_t)unet_describe(u).context_dim;
}

size_t unet_texts_bytes(const unet *u, int rows) {
    size_t sum = text_values(u, rows);
    for (int i = 0; i < unet_crosses(u); i++) sum += 2 * (size_t)rows * (size_t)unet_cross_channels(u, i);
    return sum * sizeof(float);
}

static bool compute(unet_texts *t, entry *x, const float *context, int n, int tokens, err *e) {
    const int rows = n * tokens, crosses = unet_crosses(t->u);
    *x = (entry){.bytes = unet_texts_bytes(t->u, rows), .n = n, .tokens = tokens};
    x->numbers = mem_alloc(1, x->bytes);
    x->keys = mem_alloc((size_t)crosses + 1, sizeof *x->keys);
    t->bytes += x->bytes;
    memcpy(x->numbers, context, text_values(t->u, rows) * sizeof(float));
    float *at = x->numbers + text_values(t->u, rows);
    for (int i = 0; i < crosses; i++) {
        const int64_t values = rows * unet_cross_channels(t->u, i);
        x->keys[i] = (unet_keys){at, at + values};
        at += 2 * values;
    }
    return unet_make_keys(t->u, context, n, tokens, x->keys, e);
}

bool unet_texts_find(unet_texts *t, const float *context, int n, int tokens, const unet_keys **keys, err *e) {
    const size_t text = text_values(t->u, n * tokens) * sizeof(float), need = unet_texts_bytes(t->u, n * tokens);
    *keys = NULL;
    if (!unet_is_on_cpu(t->u) || unet_crosses(t->u) > CROSSES_MAX || need > most_bytes) return true;
    for (int i = 0; i < ENTRIES; i++) {
        const entry *x = &t->entries[i];
        if (!x->numbers || x->n != n || x->tokens != tokens || memcmp(x->numbers, context, text) != 0) continue;
        *keys = x->keys;
        return true;
    }
    for (int i = 0; t->bytes + need > most_bytes; i++) drop(t, &t->entries[(t->next + i) % ENTRIES]);
    entry *x = &t->entries[t->next];
    t->next = (t->next + 1) % ENTRIES;
    drop(t, x);
    if (!compute(t, x, context, n, tokens, e)) {
        drop(t, x);
        return false;
    }
    *keys = x->keys;
    return true;
}
