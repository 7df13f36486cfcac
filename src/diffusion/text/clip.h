/* clip.h - the CLIP text encoder: tokens to the context that the UNet attends to.
 * Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision"; the text tower of
 * CLIP ViT-L/14 for Stable Diffusion 1.x. Width and depth are the tensors'; a head has 64 channels (a narrower
 * encoder has one head).
 * Borrows weights and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_CLIP_H
#define MYSTI_DIFFUSION_CLIP_H

#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/text/prompt.h"

typedef struct clip clip;

/* Declares the encoder's tensors in `w` (names below "cond_stage_model.transformer.text_model."); they need to be
 * committed before the first clip_encode(). NULL on failure, with the reason in `e`. */
clip *clip_open(weights *w, backend *b, err *e);
void clip_close(clip *c); /* NULL is fine */

int clip_dim(const clip *c);    /* width of the context */
int clip_layers(const clip *c); /* so clip skip is 1..layers */

/* Encodes every chunk of p and applies its attention weights.
 * skip: 1 takes the last layer's output, 2 the one before, and so on (clamped to the depth); the final layer norm is
 * applied to it in any case, as A1111 does. out: [p->chunks * 77, dim], caller's. */
bool clip_encode(clip *c, const prompt *p, int skip, float *out, err *e);

#endif
