/* tok_clip.h - the byte-level BPE tokenizer of OpenAI's CLIP (49408 tokens), which Stable Diffusion's text encoders
 * use.
 *
 * The vocabulary is a constant table made at build time, so there is nothing to open. Text is UTF-8; bytes that are
 * not become U+FFFD. As in the original, white space separates, letters are lower-cased, and letters, numbers and the
 * rest are told apart by Unicode's categories. Different from the original: HTML entities stay as they are written, and
 * text is neither normalised nor repaired (ftfy). */
#ifndef MYSTI_DIFFUSION_TOK_CLIP_H
#define MYSTI_DIFFUSION_TOK_CLIP_H

#include <stddef.h>
#include <stdint.h>

enum { TOK_CLIP_BOS = 49406, TOK_CLIP_EOS = 49407, TOK_CLIP_COUNT = 49408 };

/* Tokenizes len bytes without BOS and EOS. Writes up to `max` tokens to `out` and returns how many there are in all: at
 * most three per byte. A word of more than 1024 bytes is cut there, which bounds the time. */
size_t tok_clip_encode(const char *text, size_t len, int32_t *out, size_t max);

#endif
