/* canvas.h - the initial picture of a request: what of it is sampled, what of that is drawn anew, and how the result
 * goes back into it. Pixels only. Private to the engine.
 *
 * Sizes: `whole` is the result's; `part` is what is sampled (request.width x height): the whole, or with only_masked
 * the enlarged surroundings of the mask. */
#ifndef MYSTI_DIFFUSION_CANVAS_H
#define MYSTI_DIFFUSION_CANVAS_H

#include "diffusion/image/mask.h"
#include "diffusion/request.h"

/* Zero is: no initial picture. Everything is owned. */
typedef struct canvas {
    image whole;        /* RGB */
    image overlay;      /* gray, whole's size: how much of what is made the result shows; empty without a mask */
    image part;         /* RGB, with its fill */
    image mask;         /* gray, part's size: white is drawn anew; empty: everything is */
    mask_region region; /* of `whole`: what `part` shows */
} canvas;

/* r->params->init must be there. ERR_INVALID: a mask without any white. */
bool canvas_open(canvas *c, const request *r, err *e);
void canvas_close(canvas *c);

/* made: RGB, part's size; becomes a picture of whole's size. */
bool canvas_finish(const canvas *c, image *made, err *e);

/* Another picture as it lies on what is sampled: src covers the whole result, out shows the part of request.width x
 * height. Without an initial picture the result is what is sampled (a second pass shows what is left of the first).
 * False when it cannot be scaled. */
bool canvas_show(const canvas *c, const request *r, const image *src, image *out);

#endif
