/* clip_vision.h - CLIP's image encoder, a vision transformer: a picture to what an IP-Adapter reads of it.
 * Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision"; Cherti et al. 2022
 * (OpenCLIP's ViT-H/14 and ViT-bigG/14).
 *
 * A file in the naming of transformers ("vision_model.*", "visual_projection.weight"). Widths, depth, patch and picture
 * size are the tensors'. What is in none: there are 16 heads (12 at a width of 768, as in ViT-B), and the width of
 * ViT-L/14, 1024, means OpenAI's x sigmoid(1.702 x); all others have an exact gelu.
 * Borrows the backend, which must outlive it; owns its weights. */
#ifndef MYSTI_DIFFUSION_CLIP_VISION_H
#define MYSTI_DIFFUSION_CLIP_VISION_H

#include "diffusion/image/image.h"
#include "diffusion/model/backend.h"

typedef struct clip_vision clip_vision;

/* NULL on failure: ERR_NOT_FOUND, ERR_FORMAT, ERR_MEMORY; ERR_UNSUPPORTED when the file holds no such encoder. */
clip_vision *clip_vision_open(const char *path, backend *b, err *e);
void clip_vision_close(clip_vision *v); /* NULL is fine */

typedef struct clip_vision_info {
    int size;      /* of the square picture that it reads, in pixels */
    int tokens;    /* patches and one for the whole */
    int dim;       /* of a token */
    int projected; /* of the vector of the whole picture; 0: the file has no projection */
} clip_vision_info;
clip_vision_info clip_vision_describe(const clip_vision *v);

/* The picture as the encoder takes it, [3, size, size]; free with free(). Its shorter side is scaled to `size`
 * (bicubic, as Pillow does), the middle cut out, and each colour normed by CLIP's mean and deviation. rgb: RGB or RGBA,
 * which is laid on white. NULL when there is too little memory. */
float *clip_vision_planes(const clip_vision *v, const image *rgb);

/* planes: [3, size, size].
 *   projected: [info.projected], the whole picture, normed and projected
 *   hidden:    [tokens, dim], the output of the layer before the last, not normed
 * Either may be NULL; both are the caller's. */
bool clip_vision_encode(clip_vision *v, const float *planes, float *projected, float *hidden, err *e);

#endif
