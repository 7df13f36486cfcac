/* context.h - prompts as the UNet attends to them, kept from one call to the next: most calls repeat a prompt. */
#ifndef MYSTI_DIFFUSION_CONTEXT_H
#define MYSTI_DIFFUSION_CONTEXT_H

#include "base/err.h"
#include "diffusion/text/text_encoders.h"

#include <stddef.h>
#include <stdint.h>

enum {
    CONTEXT_CACHE_BYTES = 64 << 20, /* what is kept; some 250 prompts of SD 1.x */
    CONTEXT_WORK_BYTES = 512 << 20, /* what one piece of work may use */
};

typedef struct context {
    prompt key; /* tokens and weights; owned */
    int skip;
    int tokens;          /* rows of data: 77 for each chunk, or more: the last one repeated */
    float *data;         /* [tokens, dim]; owned */
    const float *pooled; /* [pooled_dim], the whole text in one vector, behind the rows */
    size_t bytes;
    uint64_t last_use; /* the cache's clock */
} context;

/* Zero is an empty cache. Owns its entries. */
typedef struct context_cache {
    context **entries;
    size_t count, bytes;
    uint64_t clock;
    uint64_t work; /* entries used since then are in use */
} context_cache;

/* Begins a piece of work: what context_get() returns from now on stays until the next one begins. */
void context_cache_begin(context_cache *cache);

/* What encodes, and what the learned tokens of a prompt stand for: the same ones as long as the cache is not freed. */
typedef struct context_source {
    text_encoders *encoders;
    const float *const *learned; /* as in text_encoders_encode() */
} context_source;

/* The prompt, encoded with this clip skip, in at least this many rows; borrowed from the cache. CONTEXT_SILENCE for
 * skip: zeros, whatever the prompt is. NULL on failure: ERR_TOO_LARGE past CONTEXT_WORK_BYTES. */
enum { CONTEXT_SILENCE = 0 };
const context *context_get(context_cache *cache, const context_source *from, const prompt *p, int skip, int tokens,
                           err *e);

void context_cache_free(context_cache *cache); /* empty afterwards */

#endif
