/* clip.h - one CLIP text encoder: tokens to the context that the UNet attends to.
 * Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision"; Cherti et al. 2022,
 * "Reproducible scaling laws for contrastive language-image learning" (OpenCLIP). Width and depth are the tensors'; a
 * head has 64 channels (a narrower encoder has one head). What is in no tensor is a clip_form.
 * Borrows weights and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_CLIP_H
#define MYSTI_DIFFUSION_CLIP_H

#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/text/prompt.h"

typedef struct clip clip;

/* How a family uses a text encoder. */
typedef struct clip_form {
    const char *prefix; /* of the tensors' names, up to "text_model." */
    const char *option; /* what a user names its file by: "clip_l" */
    bool exact_gelu;    /* else x sigmoid(1.702 x) */
    bool is_plain;      /* the rows are a layer's output as it is; else the final norm is applied to it */
    bool pools;         /* it also says the whole text in one vector */
    int32_t padding;    /* the token behind the end of the text */
    int first_skip;     /* clip skip as the family was trained: a smaller one is the same */
    int cut_layers;     /* a file with this many layers lacks the last one, which is never used; 0: no such files */
} clip_form;

extern const clip_form clip_sd1;    /* CLIP ViT-L/14, its last layer */
extern const clip_form clip_sd2;    /* OpenCLIP ViT-H/14, the layer before its last */
extern const clip_form clip_sdxl_l; /* CLIP ViT-L/14, the layer before its last, not normed */
extern const clip_form clip_sdxl_g; /* OpenCLIP ViT-bigG/14, likewise, and the projected end of the text */

/* Declares the encoder's tensors in `w`; they need to be committed before the first clip_encode(). `form` is borrowed
 * for the encoder's life. NULL on failure, with the reason in `e`. */
clip *clip_open(weights *w, backend *b, const clip_form *form, err *e);
void clip_close(clip *c); /* NULL is fine */

const clip_form *clip_form_of(const clip *c);
int clip_dim(const clip *c);        /* width of the context */
int clip_pooled_dim(const clip *c); /* of the vector of the whole text; 0: there is none */

/* Encodes every chunk of p and applies its attention weights in the way of p->emphasis.
 * learned: [vectors, dim], what the tokens PROMPT_LEARNED and following stand for; NULL when p has none of them.
 * skip: 1 takes the last layer's output, 2 the one before, and so on (clamped to the depth and to the form's
 * first_skip). The final layer norm is applied to any layer, as A1111 does, unless the form is plain.
 * out: [p->chunks * 77, dim]. pooled: [pooled_dim], the last layer at the first chunk's end token, normed and
 * projected, whatever skip and weights are; NULL when it is not wanted. Both are the caller's. */
bool clip_encode(clip *c, const prompt *p, const float *learned, int skip, float *out, float *pooled, err *e);

#endif
