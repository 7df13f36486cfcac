/* exif.c - see exif.h.
 * TIFF 6.0: a header (byte order, 42, offset of the first directory); a directory is a count and 12-byte entries (tag,
 * type, count, value or its offset). All offsets count from the header. */
#include "diffusion/image/exif.h"

#include <stdint.h>
#include <string.h>

enum {
    TAG_ORIENTATION = 0x0112,
    TAG_EXIF_DIRECTORY = 0x8769,
    TAG_USER_COMMENT = 0x9286,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_UNDEFINED = 7,
    ENTRY_BYTES = 12,
    CODE_BYTES = 8, /* the name of the character code in front of a comment */
};

typedef struct tiff_view {
    const unsigned char *data;
    size_t len;
    bool big;
} tiff_view;

/* 0 beyond the end. */
static uint32_t get(const tiff_view *t, size_t at, int bytes) {
    if (at > t->len || (size_t)bytes > t->len - at) return 0;
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | t->data[at + (size_t)(t->big ? i : bytes - 1 - i)];
    return v;
}

static bool open_tiff(tiff_view *t, const void *tiff, size_t len) {
    *t = (tiff_view){.data = tiff, .len = len};
    if (len < 8) return false;
    t->big = t->data[0] == 'M';
    return (t->data[0] == 'M' || t->data[0] == 'I') && t->data[1] == t->data[0] && get(t, 2, 2) == 42;
}

/* The place of the entry with this tag in the directory at `dir`; 0 when missing. */
static size_t find_entry(const tiff_view *t, size_t dir, uint32_t tag) {
    uint32_t count = get(t, dir, 2);
    for (uint32_t i = 0; i < count; i++) {
        size_t entry = dir + 2 + (size_t)i * ENTRY_BYTES;
        if (entry > t->len || t->len - entry < ENTRY_BYTES) return 0;
        if (get(t, entry, 2) == tag) return entry;
    }
    return 0;
}

int exif_orientation(const void *tiff, size_t len) {
    tiff_view t;
    if (!open_tiff(&t, tiff, len)) return 1;
    size_t entry = find_entry(&t, get(&t, 4, 4), TAG_ORIENTATION);
    if (!entry || get(&t, entry + 2, 2) != TYPE_SHORT) return 1;
    uint32_t v = get(&t, entry + 8, 2);
    return v >= 1 && v <= 8 ? (int)v : 1;
}

/* --- UTF-16 --- */

static void put_utf8(buf *out, uint32_t c) {
    if (c < 0x80) {
        buf_putc(out, (char)c);
    } else if (c < 0x800) {
        buf_putc(out, (char)(0xc0 | c >> 6));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_putc(out, (char)(0xe0 | c >> 12));
        buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    } else {
        buf_putc(out, (char)(0xf0 | c >> 18));
        buf_putc(out, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    }
}

/* Programs disagree about the byte order, and few write a mark: in text that is mostly ASCII the zeros tell. */
static bool is_big_endian(const unsigned char *p, size_t len) {
    size_t even = 0, odd = 0;
    for (size_t i = 0; i + 1 < len; i += 2) {
        even += p[i] == 0;
        odd += p[i + 1] == 0;
    }
    return even >= odd;
}

static void utf16_to_utf8(buf *out, const unsigned char *p, size_t len) {
    bool has_mark = len >= 2 && ((p[0] == 0xfe && p[1] == 0xff) || (p[0] == 0xff && p[1] == 0xfe));
    bool big = has_mark ? p[0] == 0xfe : is_big_endian(p, len);
    for (size_t i = has_mark ? 2 : 0; i + 1 < len; i += 2) {
        uint32_t c = big ? (uint32_t)p[i] << 8 | p[i + 1] : (uint32_t)p[i + 1] << 8 | p[i];
        if (c == 0) break;
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < len) {
            uint32_t low = big ? (uint32_t)p[i + 2] << 8 | p[i + 3] : (uint32_t)p[i + 3] << 8 | p[i + 2];
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        put_utf8(out, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    }
}

bool exif_read_comment(buf *out, const void *tiff, size_t len) {
    tiff_view t;
    if (!open_tiff(&t, tiff, len)) return false;
    size_t exif = find_entry(&t, get(&t, 4, 4), TAG_EXIF_DIRECTORY);
    size_t entry = exif ? find_entry(&t, get(&t, exif + 8, 4), TAG_USER_COMMENT) : 0;
    if (!entry || get(&t, entry + 2, 2) != TYPE_UNDEFINED) return false;
    size_t count = get(&t, entry + 4, 4), at = get(&t, entry + 8, 4);
    if (count <= CODE_BYTES || at > len || count > len - at) return false;
    const unsigned char *p = t.data + at;
    size_t n = count - CODE_BYTES;
    if (memcmp(p, "UNICODE", CODE_BYTES) == 0) {
        utf16_to_utf8(out, p + CODE_BYTES, n);
        return true;
    }
    const unsigned char *end = memchr(p + CODE_BYTES, 0, n); /* ASCII, or no code given */
    buf_append(out, p + CODE_BYTES, end ? (size_t)(end - p - CODE_BYTES) : n);
    return true;
}

/* --- writing --- */

static void put(buf *out, uint32_t v, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) buf_putc(out, (char)(v >> (8 * i) & 0xff));
}

static void put_entry(buf *out, uint32_t tag, uint32_t type, uint32_t count, uint32_t value) {
    put(out, tag, 2);
    put(out, type, 2);
    put(out, count, 4);
    put(out, value, 4);
}

/* The next character of valid or invalid UTF-8; never past the NUL. */
static uint32_t next_char(const unsigned char **p) {
    uint32_t c = *(*p)++;
    int more = c >= 0xf0 && c < 0xf5 ? 3 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xc2 && c < 0xe0 ? 1 : 0;
    if (c >= 0x80 && !more) return 0xfffd;
    c &= more == 3 ? 0x07 : more == 2 ? 0x0f : more == 1 ? 0x1f : 0x7f;
    for (; more; more--) {
        if ((**p & 0xc0) != 0x80) return 0xfffd;
        c = c << 6 | (*(*p)++ & 0x3f);
    }
    return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0xfffd : c;
}

static void put_utf16(buf *out, const char *text, size_t max) {
    const unsigned char *p = (const unsigned char *)text;
    size_t start = out->len;
    while (*p) {
        uint32_t c = next_char(&p);
        if (out->len - start + (c >= 0x10000 ? 4 : 2) > max) return;
        if (c >= 0x10000) {
            put(out, 0xd800 + ((c - 0x10000) >> 10), 2);
            put(out, 0xdc00 + ((c - 0x10000) & 0x3ff), 2);
        } else {
            put(out, c, 2);
        }
    }
}

void exif_write_comment(buf *out, const char *text, size_t max) {
    enum { FIRST = 8, SECOND = FIRST + 2 + ENTRY_BYTES + 4, DATA = SECOND + 2 + ENTRY_BYTES + 4 };
    buf comment;
    buf_init(&comment, max);
    buf_append(&comment, "UNICODE", CODE_BYTES);
    if (max > DATA + CODE_BYTES) put_utf16(&comment, text, max - DATA - CODE_BYTES);
    buf_append(out, "MM\0*", 4);
    put(out, FIRST, 4);
    put(out, 1, 2);
    put_entry(out, TAG_EXIF_DIRECTORY, TYPE_LONG, 1, SECOND);
    put(out, 0, 4); /* no further directory */
    put(out, 1, 2);
    put_entry(out, TAG_USER_COMMENT, TYPE_UNDEFINED, (uint32_t)comment.len, DATA);
    put(out, 0, 4);
    buf_append(out, comment.data, comment.len);
    buf_free(&comment);
}
