#include "diffusion/context.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static void context_free(context *c) {
    prompt_free(&c->key);
    free(c->data);
    free(c);
}

void context_cache_free(context_cache *cache) {
    for (size_t i = 0; i < cache->count; i++) context_free(cache->entries[i]);
    free(cache->entries);
    *cache = (context_cache){0};
}

void context_cache_begin(context_cache *cache) {
    cache->work = ++cache->clock;
}

static size_t bytes_in_use(const context_cache *cache) {
    size_t sum = 0;
    for (size_t i = 0; i < cache->count; i++)
        if (cache->entries[i]->last_use >= cache->work) sum += cache->entries[i]->bytes;
    return sum;
}

/* The entry unused for longest goes; false when all are in use. */
static bool drop_oldest(context_cache *cache) {
    size_t at = 0;
    for (size_t i = 1; i < cache->count; i++)
        if (cache->entries[i]->last_use < cache->entries[at]->last_use) at = i;
    if (!cache->count || cache->entries[at]->last_use >= cache->work) return false;
    cache->bytes -= cache->entries[at]->bytes;
    context_free(cache->entries[at]);
    cache->entries[at] = cache->entries[--cache->count];
    return true;
}

static bool fits(const context *c, const prompt *p, int skip, int tokens) {
    return c->skip == skip && c->tokens == tokens && prompt_equal(&c->key, p);
}

static bool encode(context *c, const context_source *from, err *e) {
    const size_t dim = (size_t)text_encoders_dim(from->encoders), rows = (size_t)c->key.chunks * PROMPT_CHUNK;
    float *pooled = c->data + (size_t)c->tokens * dim;
    c->pooled = pooled;
    if (c->skip == CONTEXT_SILENCE) return true; /* fresh memory is zero */
    if (!text_encoders_encode(from->encoders, &c->key, from->learned, c->skip, c->data, pooled, e)) return false;
    for (size_t i = rows; i < (size_t)c->tokens; i++)
        memcpy(c->data + i * dim, c->data + (rows - 1) * dim, dim * sizeof(float));
    return true;
}

static context *add(context_cache *cache, const context_source *from, const prompt *p, int skip, int tokens, err *e) {
    const size_t dim = (size_t)text_encoders_dim(from->encoders);
    const size_t pooled = (size_t)text_encoders_pooled_dim(from->encoders);
    const size_t bytes = ((size_t)tokens * dim + pooled) * sizeof(float);
    if (bytes + bytes_in_use(cache) > CONTEXT_WORK_BYTES) {
        err_set(e, ERR_TOO_LARGE, "all that the prompt says in turn takes more than %d MB", CONTEXT_WORK_BYTES >> 20);
        return NULL;
    }
    context *c = mem_alloc(1, sizeof *c);
    *c = (context){.skip = skip, .tokens = tokens, .bytes = bytes, .data = mem_alloc(bytes, 1)};
    prompt_copy(&c->key, p, p->chunks);
    if (!encode(c, from, e)) {
        context_free(c);
        return NULL;
    }
    while (cache->bytes + bytes > CONTEXT_CACHE_BYTES && drop_oldest(cache)) continue;
    cache->entries = mem_resize(cache->entries, (cache->count + 1) * sizeof *cache->entries);
    cache->entries[cache->count++] = c;
    cache->bytes += bytes;
    return c;
}

const context *context_get(context_cache *cache, const context_source *from, const prompt *p, int skip, int tokens,
                           err *e) {
    const int own = p->chunks * PROMPT_CHUNK;
    if (tokens < own) tokens = own;
    context *c = NULL;
    for (size_t i = 0; i < cache->count && !c; i++)
        if (fits(cache->entries[i], p, skip, tokens)) c = cache->entries[i];
    if (!c) c = add(cache, from, p, skip, tokens, e);
    if (c) c->last_use = ++cache->clock;
    return c;
}
