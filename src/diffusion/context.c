#include "diffusion/context.h"

#include "base/str.h"

#include <stdlib.h>

static void context_free(context *c) {
    free(c->text);
    free(c->data);
    *c = (context){0};
}

void context_cache_free(context_cache *cache) {
    for (int i = 0; i < CONTEXT_CACHE; i++) context_free(&cache->entries[i]);
}

/* A free place, or that of the entry unused for longest. */
static context *oldest(context_cache *cache) {
    context *found = &cache->entries[0];
    for (int i = 1; i < CONTEXT_CACHE; i++) {
        context *c = &cache->entries[i];
        if (c->last_use < found->last_use) found = c;
    }
    return found;
}

static bool encode(context *c, clip *encoder, err *e) {
    prompt p;
    if (!prompt_parse(&p, c->text, e)) return false;
    c->tokens = p.chunks * PROMPT_CHUNK;
    c->data = mem_alloc((size_t)c->tokens * (size_t)clip_dim(encoder), sizeof(float));
    bool ok = clip_encode(encoder, &p, c->skip, c->data, e);
    prompt_free(&p);
    return ok;
}

const context *context_get(context_cache *cache, clip *encoder, const char *text, int skip, err *e) {
    cache->clock++;
    for (int i = 0; i < CONTEXT_CACHE; i++) {
        context *c = &cache->entries[i];
        if (!c->text || c->skip != skip || !str_eq(c->text, text)) continue;
        c->last_use = cache->clock;
        return c;
    }
    context *c = oldest(cache);
    context_free(c);
    c->text = str_dup(text);
    c->skip = skip;
    c->last_use = cache->clock;
    if (encode(c, encoder, e)) return c;
    context_free(c);
    return NULL;
}
