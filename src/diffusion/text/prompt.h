/* prompt.h - a prompt as users write it, with AUTOMATIC1111's attention syntax, cut into chunks of tokens.
 *
 *   (x)      attention to x times 1.1          [x]      divided by 1.1
 *   (x:1.3)  times 1.3                         \( \) \[ \]  the characters themselves
 *   BREAK    the rest starts a new chunk       they nest; brackets left open reach to the end
 *
 * A chunk is 77 tokens: BOS, 75 tokens, EOS; short ones are filled up with EOS. A chunk that is full is cut behind the
 * last comma when that is at most 20 tokens back, so that a phrase stays together.
 *
 * Words may stand for learned vectors (textual inversion): where the tokens of such a name come up, as many as it has
 * vectors are put in their place, in one chunk always. So case and spaces count no more than elsewhere in a prompt. */
#ifndef MYSTI_DIFFUSION_PROMPT_H
#define MYSTI_DIFFUSION_PROMPT_H

#include "base/err.h"
#include "diffusion/text/tok_clip.h"

#include <stddef.h>
#include <stdint.h>

enum { PROMPT_CHUNK = 77, PROMPT_MAX_CHUNKS = 32, PROMPT_MAX_BYTES = 64 * 1024 };

/* What an attention weight does to a token's row of the encoded text. */
typedef enum prompt_emphasis {
    PROMPT_EMPHASIS_A1111, /* multiplies it; then the chunk is scaled so that its mean is what it was ("original") */
    PROMPT_EMPHASIS_COMFY, /* moves it along the line from the same row of an empty text: (z - empty) w + empty */
    PROMPT_EMPHASIS_NONE,  /* nothing */
} prompt_emphasis;

extern const char *const prompt_emphasis_names[]; /* "a1111", "comfy", "none"; in order, NULL at the end */

typedef struct prompt {
    int chunks;      /* at least 1, also for an empty prompt */
    int32_t *tokens; /* [chunks * PROMPT_CHUNK], owned */
    float *weights;  /* same shape; 1 where nothing was said */
    prompt_emphasis emphasis;
} prompt;

/* A name that stands for learned vectors: the prompt then has the tokens PROMPT_LEARNED + first and following. */
enum { PROMPT_LEARNED = TOK_CLIP_COUNT };
typedef struct prompt_word {
    int32_t *tokens; /* [count], at least one: its name's */
    size_t count;
    int first, vectors; /* vectors: 1 .. PROMPT_CHUNK - 2 */
} prompt_word;

/* Where several fit, the first one counts. */
typedef struct prompt_words {
    const prompt_word *items;
    size_t count;
} prompt_words;

/* Parses text (UTF-8). words: NULL: there are none. A name may have ComfyUI's "embedding:" in front. ERR_TOO_LARGE past
 * the limits above, ERR_INVALID for a weight beyond 1e6. p is set on success only; free with prompt_free(). */
bool prompt_parse(prompt *p, const char *text, const prompt_words *words, err *e);
void prompt_free(prompt *p);

bool prompt_equal(const prompt *a, const prompt *b);

/* Copies p and fills it up with empty chunks to at least `chunks`. */
void prompt_copy(prompt *to, const prompt *p, int chunks);

/* Whether the len bytes at p, within text, are a word by themselves: a letter, digit or '_' on neither side. */
bool prompt_is_word(const char *text, const char *p, size_t len);

/* Whether the rows of an empty chunk are needed. */
bool prompt_needs_empty(const prompt *p);

/* Applies the weights to z ([77, dim], the encoder's output for chunk `chunk`). empty: the same of an empty chunk, or
 * NULL when prompt_needs_empty() says so. A chunk without weights stays as it is, bit for bit. */
void prompt_emphasize(const prompt *p, int chunk, float *z, const float *empty, int dim);

#endif
