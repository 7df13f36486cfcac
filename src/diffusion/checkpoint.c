#include "diffusion/checkpoint.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "MYSTICKP";
enum { VERSION = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, picture, step, call;
    uint64_t key, n;
} header;

_Static_assert(sizeof(header) == 40, "the header has no padding");

static size_t file_bytes(size_t n) {
    return sizeof(header) + 2 * n * sizeof(float) + sizeof(uint64_t);
}

bool checkpoint_save(const char *path, const checkpoint_scope *scope, int picture, const sampler_state *s, err *e) {
    header h = {.version = VERSION,
                .picture = (uint32_t)picture,
                .step = (uint32_t)s->step,
                .call = s->call,
                .key = scope->key,
                .n = s->n};
    memcpy(h.magic, magic, sizeof magic);
    buf b;
    buf_init(&b, file_bytes(s->n));
    buf_append(&b, &h, sizeof h);
    buf_append(&b, s->x, s->n * sizeof(float));
    buf_append(&b, s->denoised, s->n * sizeof(float));
    uint64_t sum = str_hash(b.data, b.len, 0);
    buf_append(&b, &sum, sizeof sum);
    bool ok = file_write_atomic(path, b.data, b.len, e);
    buf_free(&b);
    return ok;
}

static bool fits(const buf *b, const header *h, const checkpoint_scope *scope) {
    uint64_t sum;
    memcpy(&sum, b->data + b->len - sizeof sum, sizeof sum);
    return memcmp(h->magic, magic, sizeof magic) == 0 && h->version == VERSION && h->key == scope->key &&
           h->picture < (uint32_t)scope->pictures && h->step <= (uint32_t)scope->steps && h->call >= 1 &&
           h->call <= h->step + 1 && sum == str_hash(b->data, b->len - sizeof sum, 0);
}

bool checkpoint_load(const char *path, const checkpoint_scope *scope, int *picture, sampler_state *s) {
    buf b;
    buf_init(&b, file_bytes(s->n));
    header h = {0};
    bool ok = file_read(path, &b, NULL) && b.len == file_bytes(s->n);
    if (ok) memcpy(&h, b.data, sizeof h);
    ok = ok && h.n == s->n && fits(&b, &h, scope);
    if (ok) {
        *picture = (int)h.picture;
        s->step = (int)h.step;
        s->call = h.call;
        memcpy(s->x, b.data + sizeof h, s->n * sizeof(float));
        memcpy(s->denoised, b.data + sizeof h + s->n * sizeof(float), s->n * sizeof(float));
    }
    buf_free(&b);
    return ok;
}

void checkpoint_remove(const char *path) {
    remove(path);
}
