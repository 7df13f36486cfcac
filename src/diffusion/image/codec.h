/* codec.h - what the codec of each format provides to codecs.c; nothing else includes this. */
#ifndef MYSTI_DIFFUSION_IMAGE_CODEC_H
#define MYSTI_DIFFUSION_IMAGE_CODEC_H

#include "diffusion/image/codecs.h"

/* Each probe reads the header only. Each decode allocates `out` (gray never; RGB, or RGBA when the file has alpha),
 * once the caller has judged the probed size; on failure `out` is left for the caller to free. */
bool png_probe_size(const void *data, size_t len, int *width, int *height, err *e);
bool png_decode_bytes(image *out, const void *data, size_t len, err *e);
bool png_encode_bytes(buf *out, const image *img, const char *parameters, err *e);

bool jpeg_probe_size(const void *data, size_t len, int *width, int *height, err *e);
bool jpeg_decode_bytes(image *out, const void *data, size_t len, err *e);
bool jpeg_encode_bytes(buf *out, const image *img, int quality, const char *parameters, err *e);

bool webp_probe_size(const void *data, size_t len, int *width, int *height, err *e);
bool webp_decode_bytes(image *out, const void *data, size_t len, err *e);
bool webp_encode_bytes(buf *out, const image *img, int quality, const char *parameters, err *e);

#endif
