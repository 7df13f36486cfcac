/* prompt.h - a prompt as users write it, with AUTOMATIC1111's attention syntax, cut into chunks of tokens.
 *
 *   (x)      attention to x times 1.1          [x]      divided by 1.1
 *   (x:1.3)  times 1.3                         \( \) \[ \]  the characters themselves
 *   BREAK    the rest starts a new chunk       they nest; brackets left open reach to the end
 *
 * A chunk is 77 tokens: BOS, 75 tokens, EOS; short ones are filled up with EOS. A chunk that is full is cut behind the
 * last comma when that is at most 20 tokens back, so that a phrase stays together. */
#ifndef MYSTI_DIFFUSION_PROMPT_H
#define MYSTI_DIFFUSION_PROMPT_H

#include "base/err.h"

#include <stdint.h>

enum { PROMPT_CHUNK = 77, PROMPT_MAX_CHUNKS = 32, PROMPT_MAX_BYTES = 64 * 1024 };

typedef struct prompt {
    int chunks;      /* at least 1, also for an empty prompt */
    int32_t *tokens; /* [chunks * PROMPT_CHUNK], owned */
    float *weights;  /* same shape; 1 where nothing was said */
} prompt;

/* Parses text (UTF-8). ERR_TOO_LARGE past the limits above. p is set on success only; free with prompt_free(). */
bool prompt_parse(prompt *p, const char *text, err *e);
void prompt_free(prompt *p);

/* Multiplies each token's row of z ([77, dim], the encoder's output for chunk `chunk`) by its weight, then scales the
 * chunk so that its mean is what it was (A1111's "original" emphasis). */
void prompt_emphasize(const prompt *p, int chunk, float *z, int dim);

#endif
