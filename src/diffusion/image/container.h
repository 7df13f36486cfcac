/* container.h - finds blocks in PNG, JPEG and WebP files without decoding them. All results point into the file. */
#ifndef MYSTI_DIFFUSION_IMAGE_CONTAINER_H
#define MYSTI_DIFFUSION_IMAGE_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bytes_view {
    const unsigned char *data;
    size_t len;
} bytes_view;

/* The EXIF block (TIFF) of any of the three formats. */
bool container_find_exif(const void *file, size_t len, bytes_view *tiff);

/* A PNG's text under `keyword`: Latin-1 (tEXt), or UTF-8 (uncompressed iTXt). */
bool container_find_png_text(const void *file, size_t len, const char *keyword, bytes_view *text, bool *is_utf8);

#endif
