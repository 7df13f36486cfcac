/* container.c - see container.h. */
#include "diffusion/image/container.h"
#include "diffusion/image/codecs.h"

#include <stdint.h>
#include <string.h>

enum { PNG_SIGNATURE = 8, PNG_OVERHEAD = 12, RIFF_HEAD = 12 };

static uint32_t be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t le32(const unsigned char *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* Some writers keep JPEG's marker in front of the TIFF header in other files too. */
static bytes_view without_marker(bytes_view v) {
    if (v.len >= 6 && memcmp(v.data, "Exif\0\0", 6) == 0) return (bytes_view){v.data + 6, v.len - 6};
    return v;
}

/* Moves *pos to the next chunk of a PNG; false at the end. */
static bool next_png_chunk(bytes_view file, size_t *pos, const char **type, bytes_view *body) {
    if (*pos > file.len || file.len - *pos < PNG_OVERHEAD) return false;
    const unsigned char *p = file.data + *pos;
    size_t len = be32(p);
    if (len > file.len - *pos - PNG_OVERHEAD) return false;
    *type = (const char *)p + 4;
    *body = (bytes_view){p + 8, len};
    *pos += PNG_OVERHEAD + len;
    return true;
}

static bool find_png_exif(bytes_view file, bytes_view *out) {
    const char *type;
    for (size_t pos = PNG_SIGNATURE; next_png_chunk(file, &pos, &type, out);)
        if (memcmp(type, "eXIf", 4) == 0) return true;
    return false;
}

/* Markers with lengths up to the start of the scan; padding 0xff bytes are allowed. */
static bool find_jpeg_exif(bytes_view file, bytes_view *out) {
    size_t pos = 2;
    while (pos + 4 <= file.len && file.data[pos] == 0xff) {
        unsigned marker = file.data[pos + 1];
        if (marker == 0xff) {
            pos++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) return false;
        size_t len = (size_t)file.data[pos + 2] << 8 | file.data[pos + 3];
        if (len < 2 || len > file.len - pos - 2) return false;
        *out = (bytes_view){file.data + pos + 4, len - 2};
        if (marker == 0xe1 && out->len >= 6 && memcmp(out->data, "Exif\0\0", 6) == 0) return true;
        pos += 2 + len;
    }
    return false;
}

static bool find_webp_exif(bytes_view file, bytes_view *out) {
    size_t pos = RIFF_HEAD;
    while (file.len >= 8 && pos <= file.len - 8) {
        size_t len = le32(file.data + pos + 4);
        if (len > file.len - pos - 8) return false;
        *out = (bytes_view){file.data + pos + 8, len};
        if (memcmp(file.data + pos, "EXIF", 4) == 0) return true;
        pos += 8 + len + (len & 1);
    }
    return false;
}

bool container_find_exif(const void *file, size_t len, bytes_view *tiff) {
    bytes_view whole = {file, len};
    bool found = false;
    switch (image_format_of(file, len)) {
    case IMAGE_PNG:
        found = find_png_exif(whole, tiff);
        break;
    case IMAGE_JPEG:
        found = find_jpeg_exif(whole, tiff);
        break;
    case IMAGE_WEBP:
        found = find_webp_exif(whole, tiff);
        break;
    case IMAGE_UNKNOWN:
        break;
    }
    if (found) *tiff = without_marker(*tiff);
    return found;
}

/* Past one NUL-terminated field. */
static bool skip_field(bytes_view *v) {
    const unsigned char *end = memchr(v->data, 0, v->len);
    if (!end) return false;
    v->len -= (size_t)(end - v->data) + 1;
    v->data = end + 1;
    return true;
}

/* iTXt: keyword, compressed?, method, language, translated keyword, text. */
static bool itxt_text(bytes_view *v) {
    if (v->len < 2 || v->data[0] != 0) return false;
    *v = (bytes_view){v->data + 2, v->len - 2};
    return skip_field(v) && skip_field(v);
}

bool container_find_png_text(const void *file, size_t len, const char *keyword, bytes_view *text, bool *is_utf8) {
    bytes_view whole = {file, len}, body;
    const char *type;
    for (size_t pos = PNG_SIGNATURE; next_png_chunk(whole, &pos, &type, &body);) {
        bool is_itxt = memcmp(type, "iTXt", 4) == 0;
        if (!is_itxt && memcmp(type, "tEXt", 4) != 0) continue;
        *text = body;
        if (!skip_field(text) || strcmp((const char *)body.data, keyword) != 0) continue;
        if (is_itxt && !itxt_text(text)) continue;
        *is_utf8 = is_itxt;
        return true;
    }
    return false;
}
