/* tok_clip.h - the byte-level BPE tokenizer of OpenAI's CLIP (49408 tokens), which Stable Diffusion's text encoders
 * use.
 *
 * The vocabulary is a constant table made at build time, so there is nothing to open. Text is UTF-8; bytes that are
 * not become U+FFFD. As in the original, runs of white space are one separator and letters are lower-cased.
 * Different from the original: HTML entities stay as they are written, and mojibake is not repaired (ftfy). */
#ifndef MYSTI_DIFFUSION_TOK_CLIP_H
#define MYSTI_DIFFUSION_TOK_CLIP_H

#include <stddef.h>
#include <stdint.h>

enum { TOK_CLIP_BOS = 49406, TOK_CLIP_EOS = 49407, TOK_CLIP_COUNT = 49408 };

/* Tokenizes len bytes without BOS and EOS. Writes up to `max` tokens to `out` and returns how many there are in all
 * (at most one per byte, more only for U+FFFD replacing a byte: 3 per byte). */
size_t tok_clip_encode(const char *text, size_t len, int32_t *out, size_t max);

/* The token's bytes; *end_of_word tells whether a word ends with it. BOS and EOS give their names. Returns the length,
 * at most `cap` bytes are written. */
size_t tok_clip_bytes(int32_t token, char *out, size_t cap, int *end_of_word);

#endif
