/* codecs.c - see codecs.h: formats by name, limits, and what all formats have in common. */
#include "diffusion/image/codecs.h"
#include "base/str.h"
#include "diffusion/image/codec.h"
#include "diffusion/image/container.h"
#include "diffusion/image/exif.h"

#include <string.h>

enum { BYTES_MAX = 64 << 20, PIXELS_MAX = 64 << 20 };

image_format image_format_of(const void *data, size_t len) {
    const unsigned char *p = data;
    if (len >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0) return IMAGE_PNG;
    if (len >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0) return IMAGE_JPEG;
    if (len >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0) return IMAGE_WEBP;
    return IMAGE_UNKNOWN;
}

image_format image_format_by_name(const char *name) {
    const char *dot = strrchr(name, '.'), *ext = dot ? dot + 1 : name;
    if (str_ieq(ext, "png")) return IMAGE_PNG;
    if (str_ieq(ext, "jpg") || str_ieq(ext, "jpeg")) return IMAGE_JPEG;
    return str_ieq(ext, "webp") ? IMAGE_WEBP : IMAGE_UNKNOWN;
}

const char *image_format_mime(image_format f) {
    static const char *const NAMES[] = {"application/octet-stream", "image/png", "image/jpeg", "image/webp"};
    return NAMES[f];
}

const char *image_format_ext(image_format f) {
    static const char *const NAMES[] = {"", ".png", ".jpg", ".webp"};
    return NAMES[f];
}

static bool probe(image_format f, const void *data, size_t len, int *width, int *height, err *e) {
    switch (f) {
    case IMAGE_PNG:
        return png_probe_size(data, len, width, height, e);
    case IMAGE_JPEG:
        return jpeg_probe_size(data, len, width, height, e);
    case IMAGE_WEBP:
        return webp_probe_size(data, len, width, height, e);
    case IMAGE_UNKNOWN:
        break;
    }
    return err_set(e, ERR_FORMAT, "not a PNG, JPEG or WebP picture");
}

bool image_probe(const void *data, size_t len, int *width, int *height, image_format *format, err *e) {
    *format = image_format_of(data, len);
    return probe(*format, data, len, width, height, e);
}

static bool check_limits(image_format f, const void *data, size_t len, const image_limits *limits, err *e) {
    size_t max_bytes = limits && limits->max_bytes ? limits->max_bytes : BYTES_MAX;
    size_t max_pixels = limits && limits->max_pixels ? limits->max_pixels : PIXELS_MAX;
    if (len > max_bytes) return err_set(e, ERR_TOO_LARGE, "picture of %zu bytes; the limit is %zu", len, max_bytes);
    int width, height;
    if (!probe(f, data, len, &width, &height, e)) return false;
    bool fits = width >= 1 && height >= 1 && width <= IMAGE_SIDE_MAX && height <= IMAGE_SIDE_MAX;
    if (!fits || (size_t)width * (size_t)height > max_pixels)
        return err_set(e, ERR_TOO_LARGE, "picture of %dx%d pixels; the limit is %zu", width, height, max_pixels);
    return true;
}

static bool decode(image_format f, image *out, const void *data, size_t len, err *e) {
    switch (f) {
    case IMAGE_PNG:
        return png_decode_bytes(out, data, len, e);
    case IMAGE_JPEG:
        return jpeg_decode_bytes(out, data, len, e);
    case IMAGE_WEBP:
        return webp_decode_bytes(out, data, len, e);
    case IMAGE_UNKNOWN:
        break;
    }
    return err_set(e, ERR_FORMAT, "not a PNG, JPEG or WebP picture");
}

/* In place: alpha laid on white. */
static bool flatten(image *img) {
    image flat;
    if (!image_convert(&flat, img, 3, 255)) return false;
    image_free(img);
    *img = flat;
    return true;
}

bool image_decode(image *out, const void *data, size_t len, image_alpha alpha, const image_limits *limits, err *e) {
    *out = (image){0};
    image_format f = image_format_of(data, len);
    if (!check_limits(f, data, len, limits, e)) return false;
    bool ok = decode(f, out, data, len, e);
    bytes_view tiff;
    int orientation = ok && container_find_exif(data, len, &tiff) ? exif_orientation(tiff.data, tiff.len) : 1;
    if (ok && alpha == IMAGE_ALPHA_ON_WHITE && out->channels == 4)
        ok = flatten(out) || err_set(e, ERR_MEMORY, "no memory");
    if (ok && !image_orient(out, orientation)) ok = err_set(e, ERR_MEMORY, "no memory to turn the picture");
    if (!ok) image_free(out);
    return ok;
}

bool image_encode(buf *out, const image *img, image_format format, int quality, const char *parameters, err *e) {
    quality = quality < 1 ? 1 : quality > 100 ? 100 : quality;
    switch (format) {
    case IMAGE_PNG:
        return png_encode_bytes(out, img, parameters, e);
    case IMAGE_JPEG:
        return jpeg_encode_bytes(out, img, quality, parameters, e);
    case IMAGE_WEBP:
        return webp_encode_bytes(out, img, quality, parameters, e);
    case IMAGE_UNKNOWN:
        break;
    }
    return err_set(e, ERR_INVALID, "no picture format given");
}
