/* resample.h - planes of floats in another size, as torch.nn.functional.interpolate (align_corners=False) makes them.
 */
#ifndef MYSTI_DIFFUSION_IMAGE_RESAMPLE_H
#define MYSTI_DIFFUSION_IMAGE_RESAMPLE_H

typedef enum resample_filter {
    RESAMPLE_NEAREST,
    RESAMPLE_NEAREST_EXACT,
    RESAMPLE_BILINEAR,
    RESAMPLE_BICUBIC, /* a = -0.75 */
    RESAMPLE_BILINEAR_ANTIALIAS,
    RESAMPLE_BICUBIC_ANTIALIAS, /* a = -0.5; the filter is widened when reducing, as Pillow does */
} resample_filter;

typedef struct plane_size {
    int height, width;
} plane_size;

/* in: [planes, from.height, from.width]; out: [planes, to.height, to.width], the caller's. All sides at least 1. */
void resample_planes(const float *in, int planes, plane_size from, float *out, plane_size to, resample_filter filter);

#endif
