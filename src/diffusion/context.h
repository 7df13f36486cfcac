/* context.h - prompts as the UNet attends to them, kept from one call to the next: most calls repeat a prompt. */
#ifndef MYSTI_DIFFUSION_CONTEXT_H
#define MYSTI_DIFFUSION_CONTEXT_H

#include "base/err.h"
#include "diffusion/text/clip.h"

enum { CONTEXT_CACHE = 8 };

typedef struct context {
    char *text; /* NULL: a free place */
    int skip;
    int tokens;        /* 77 for each chunk */
    float *data;       /* [tokens, dim] */
    unsigned last_use; /* the cache's clock */
} context;

/* Zero is an empty cache. Owns its entries. */
typedef struct context_cache {
    context entries[CONTEXT_CACHE];
    unsigned clock;
} context_cache;

/* The prompt, encoded with this clip skip; borrowed from the cache until CONTEXT_CACHE - 1 other prompts were asked
 * for. NULL on failure. */
const context *context_get(context_cache *cache, clip *encoder, const char *text, int skip, err *e);

void context_cache_free(context_cache *cache);

#endif
