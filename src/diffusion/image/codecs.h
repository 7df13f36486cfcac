/* codecs.h - PNG, JPEG and WebP, from and to memory.
 *
 * Files to decode come from strangers: size and pixel limits are checked on the header before any pixel is allocated.
 */
#ifndef MYSTI_DIFFUSION_IMAGE_CODECS_H
#define MYSTI_DIFFUSION_IMAGE_CODECS_H

#include "base/buf.h"
#include "base/err.h"
#include "diffusion/image/image.h"

typedef enum image_format { IMAGE_UNKNOWN, IMAGE_PNG, IMAGE_JPEG, IMAGE_WEBP } image_format;

/* By the first bytes; by file name or extension ("x.jpg", ".webp", "png"); the other way ("image/png", ".png"). */
image_format image_format_of(const void *data, size_t len);
image_format image_format_by_name(const char *name);
const char *image_format_mime(image_format f);
const char *image_format_ext(image_format f);

typedef struct image_limits {
    size_t max_bytes;  /* of the file; 0: 64 MiB */
    size_t max_pixels; /* width * height; 0: 64 Mi */
} image_limits;

typedef enum image_alpha { IMAGE_ALPHA_ON_WHITE, IMAGE_ALPHA_KEEP } image_alpha;

/* RGB, or RGBA when alpha is kept and the file has it. Gray, palette and 16-bit files are expanded; CMYK is converted;
 * the EXIF orientation is applied. `limits` may be NULL. ERR_FORMAT, ERR_TOO_LARGE or ERR_UNSUPPORTED. */
bool image_decode(image *out, const void *data, size_t len, image_alpha alpha, const image_limits *limits, err *e);

/* Size without decoding the pixels. */
bool image_probe(const void *data, size_t len, int *width, int *height, image_format *format, err *e);

/* Appends the file to `out` (whose maximum must have room). `parameters` is UTF-8 text to embed as A1111 does, or NULL:
 * PNG tEXt "parameters" (iTXt when not Latin-1), JPEG and WebP EXIF UserComment. quality: 1..100 for JPEG and WebP; a
 * WebP at 100 is lossless; PNG ignores it. JPEG drops alpha onto white. */
bool image_encode(buf *out, const image *img, image_format format, int quality, const char *parameters, err *e);

#endif
