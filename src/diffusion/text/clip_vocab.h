/* clip_vocab.h - CLIP's merge list as a table; gen_clip_vocab.c makes its contents at build time. */
#ifndef MYSTI_DIFFUSION_CLIP_VOCAB_H
#define MYSTI_DIFFUSION_CLIP_VOCAB_H

#include <stdint.h>

enum { CLIP_MERGES = 49152 - 256 - 2 };

/* Tokens left and right become token 512 + rank; a lower rank is done first. */
typedef struct clip_merge {
    uint16_t left, right, rank;
} clip_merge;

extern const clip_merge clip_merges[CLIP_MERGES]; /* sorted by left, then right */

#endif
