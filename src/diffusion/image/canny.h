/* canny.h - the edges of a picture, one pixel wide (Canny 1986), exactly as OpenCV's Canny() with its defaults finds
 * them: it is what ControlNets for edges were trained on. */
#ifndef MYSTI_DIFFUSION_IMAGE_CANNY_H
#define MYSTI_DIFFUSION_IMAGE_CANNY_H

#include "diffusion/image/image.h"

enum { CANNY_THRESHOLD_MAX = 2040 }; /* the largest gradient */

/* out: gray, white edges on black. Nothing is smoothed first.
 *   gradient   Sobel, 3x3, the border repeated; the magnitude is |dx| + |dy|; of several channels the one with the
 * largest magnitude counts, the first of equals thinning   a pixel stays whose magnitude is above `low` and a maximum
 * along the gradient's direction, rounded to 45 degrees: along a row or a column greater than before and at least as
 * great as behind, diagonally greater than both hysteresis those above `high` are edges, and all that are connected to
 * them over 8 neighbours False, with an empty image, when src is empty. */
bool canny(image *out, const image *src, int low, int high);

#endif
