/* image.h - pictures in memory: 8 bits per channel, rows from top to bottom without padding. */
#ifndef MYSTI_DIFFUSION_IMAGE_IMAGE_H
#define MYSTI_DIFFUSION_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct image {
    int width, height;
    int channels;      /* 1 gray, 3 RGB, 4 RGBA (not premultiplied) */
    unsigned char *px; /* owned: width * height * channels bytes; NULL in an empty image */
} image;

enum { IMAGE_SIDE_MAX = 16384 };

/* Black (and transparent). False, leaving an empty image, unless 1 <= width, height <= IMAGE_SIDE_MAX and channels is
 * 1, 3 or 4. */
bool image_alloc(image *img, int width, int height, int channels);
void image_free(image *img); /* becomes empty; fine on an empty (zeroed) image */
bool image_copy(image *dst, const image *src);

size_t image_bytes(const image *img);

/* Gray, RGB or RGBA from any of them. Dropping alpha lays the picture on `background` (0..255 gray). */
bool image_convert(image *dst, const image *src, int channels, int background);

/* Resampled with an antialiased Lanczos-3 filter (as Pillow does): sharp enlarging, no moire when reducing. Colours
 * under transparent pixels do not bleed. */
bool image_resize(image *dst, const image *src, int width, int height);

/* The part w x h at (x, y), which must lie inside. */
bool image_crop(image *dst, const image *src, int x, int y, int w, int h);

/* Fills width x height: scaled so that it covers, then cropped around the centre. */
bool image_crop_to_fit(image *dst, const image *src, int width, int height);

/* In place: the EXIF orientation (1..8) is undone. */
bool image_orient(image *img, int orientation);

#endif
