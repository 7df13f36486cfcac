/* mask.h - which part of a picture is drawn anew: a gray picture, white where it is.
 *
 * The steps are those of AUTOMATIC1111's inpainting. Functions that return false could not allocate, or were given
 * pictures that do not fit each other; what they were to fill is empty then. */
#ifndef MYSTI_DIFFUSION_IMAGE_MASK_H
#define MYSTI_DIFFUSION_IMAGE_MASK_H

#include "diffusion/image/image.h"

/* What is transparent, where anything is; otherwise the brightness of `src`. */
bool mask_from_image(image *mask, const image *src);

/* Any pixel of an RGBA picture that is not opaque. */
bool mask_has_transparency(const image *src);

void mask_invert(image *mask);

/* Gaussian of this standard deviation in pixels over 2 * (2.5 sigma) + 1 pixels, mirrored at the borders, rounded to
 * 8 bits after either direction; 0 does nothing. In place. */
void mask_blur(image *mask, float sigma);

/* A part of a picture; it may be empty. */
typedef struct mask_region {
    int x, y, width, height;
} mask_region;

/* The smallest part that holds all that is not black, and `padding` pixels more where there are any. */
mask_region mask_bounds(const image *mask, int padding);

/* Grown to the proportions width : height as far as the picture (of the size of `within`) allows. */
mask_region mask_region_expand(mask_region r, int width, int height, const image *within);

/* Replaces what is white in an RGB picture with colours from around it, blurred more the farther they come. */
void mask_fill(image *picture, const image *mask);

/* `over`: RGB; what `mask` leaves black becomes `under`'s, exactly; in between the two are mixed. All of one size. */
void mask_blend(image *over, const image *under, const image *mask);

#endif
