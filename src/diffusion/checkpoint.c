#include "diffusion/checkpoint.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "MYSTICKP";
enum { VERSION = 2 };

typedef struct header {
    char magic[8];
    uint32_t version, picture, step, call;
    uint64_t key, n, keeps;
} header;

_Static_assert(sizeof(header) == 48, "the header has no padding");

static size_t file_bytes(const sampler_state *s) {
    return sizeof(header) + (1 + (size_t)s->keeps) * s->n * sizeof(float) + sizeof(uint64_t);
}

bool checkpoint_save(const char *path, const checkpoint_scope *scope, int picture, const sampler_state *s, err *e) {
    header h = {.version = VERSION,
                .picture = (uint32_t)picture,
                .step = (uint32_t)s->step,
                .call = s->call,
                .key = scope->key,
                .n = s->n,
                .keeps = (uint64_t)s->keeps};
    memcpy(h.magic, magic, sizeof magic);
    buf b;
    buf_init(&b, file_bytes(s));
    buf_append(&b, &h, sizeof h);
    buf_append(&b, s->x, s->n * sizeof(float));
    for (int i = 0; i < s->keeps; i++) buf_append(&b, s->past[i], s->n * sizeof(float));
    uint64_t sum = str_hash(b.data, b.len, 0);
    buf_append(&b, &sum, sizeof sum);
    bool ok = file_write_atomic(path, b.data, b.len, e);
    buf_free(&b);
    return ok;
}

static bool is_whole(const buf *b, const header *h, err *e) {
    if (memcmp(h->magic, magic, sizeof magic) != 0) return err_set(e, ERR_FORMAT, "it is no checkpoint");
    if (h->version != VERSION) return err_set(e, ERR_UNSUPPORTED, "it is of format %u", (unsigned)h->version);
    uint64_t sum;
    memcpy(&sum, b->data + b->len - sizeof sum, sizeof sum);
    return sum == str_hash(b->data, b->len - sizeof sum, 0) || err_set(e, ERR_FORMAT, "its checksum is wrong");
}

static bool is_ours(const header *h, const checkpoint_scope *scope, const sampler_state *s, err *e) {
    if (h->key != scope->key || h->n != s->n || h->keeps != (uint64_t)s->keeps)
        return err_set(e, ERR_CONFLICT, "it belongs to other parameters or to another model");
    bool fits = h->picture < (uint32_t)scope->pictures && h->step <= (uint32_t)scope->steps && h->call <= h->step + 1;
    return fits ||
           err_set(e, ERR_FORMAT, "picture %u, step %u are not in the job", (unsigned)h->picture, (unsigned)h->step);
}

static bool read_whole(const char *path, const sampler_state *s, buf *b, err *e) {
    if (!file_read(path, b, e)) return false;
    return b->len == file_bytes(s) || err_set(e, ERR_FORMAT, "it has %zu bytes instead of %zu", b->len, file_bytes(s));
}

bool checkpoint_load(const char *path, const checkpoint_scope *scope, int *picture, sampler_state *s, err *e) {
    buf b;
    buf_init(&b, file_bytes(s));
    header h = {0};
    bool ok = read_whole(path, s, &b, e);
    if (ok) memcpy(&h, b.data, sizeof h);
    ok = ok && is_whole(&b, &h, e) && is_ours(&h, scope, s, e);
    if (ok) {
        *picture = (int)h.picture;
        s->step = (int)h.step;
        s->call = h.call;
        const char *values = b.data + sizeof h;
        memcpy(s->x, values, s->n * sizeof(float));
        for (int i = 0; i < s->keeps; i++) memcpy(s->past[i], values += s->n * sizeof(float), s->n * sizeof(float));
    }
    buf_free(&b);
    return ok;
}

void checkpoint_remove(const char *path) {
    remove(path);
}
