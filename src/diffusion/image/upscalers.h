/* upscalers.h - how hires fix enlarges what its first pass made: the ways that need no model, by name. */
#ifndef MYSTI_DIFFUSION_IMAGE_UPSCALERS_H
#define MYSTI_DIFFUSION_IMAGE_UPSCALERS_H

#include "diffusion/image/image.h"
#include "diffusion/image/resample.h"

typedef enum upscaler_space {
    UPSCALE_LATENTS,        /* with `filter`; nothing is decoded in between */
    UPSCALE_PIXELS_NEAREST, /* of the decoded picture, which is encoded again */
    UPSCALE_PIXELS_LANCZOS,
} upscaler_space;

typedef struct upscaler {
    const char *name;
    const char *label; /* A1111's name */
    upscaler_space space;
    resample_filter filter;
} upscaler;

/* By either name, case ignored; NULL when there is none. */
const upscaler *upscaler_find(const char *name);
extern const char *const upscaler_names[]; /* NULL at the end */

/* For the two that work on pixels. False when it cannot allocate. */
bool upscaler_enlarge(const upscaler *u, const image *small, int width, int height, image *out);

#endif
