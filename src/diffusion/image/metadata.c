/* metadata.c - see metadata.h.
 * The reading rules are those of A1111's own parser: the last line is parameters when it looks like at least three of
 * them; what follows "Negative prompt:" at the start of a line is negative up to there. */
#include "diffusion/image/metadata.h"
#include "base/str.h"
#include "diffusion/image/codecs.h"
#include "diffusion/image/container.h"
#include "diffusion/image/exif.h"
#include "json/json.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 16 << 20 };

static const char NEGATIVE[] = "Negative prompt:";

void metadata_free(metadata *m) {
    for (size_t i = 0; i < m->count; i++) {
        free(m->fields[i].key);
        free(m->fields[i].value);
    }
    free(m->fields);
    free(m->prompt);
    free(m->negative_prompt);
    *m = (metadata){0};
}

static metadata_field *find_field(const metadata *m, const char *key) {
    for (size_t i = 0; i < m->count; i++)
        if (str_ieq(m->fields[i].key, key)) return &m->fields[i];
    return NULL;
}

void metadata_set(metadata *m, const char *key, const char *value) {
    metadata_field *f = find_field(m, key);
    if (f) {
        str_set(&f->value, value);
        return;
    }
    if (m->count == METADATA_FIELDS_MAX) return;
    m->fields = mem_resize(m->fields, (m->count + 1) * sizeof *m->fields);
    m->fields[m->count++] = (metadata_field){.key = str_dup(key), .value = str_dup(value)};
}

void metadata_setf(metadata *m, const char *key, const char *fmt, ...) {
    buf text;
    buf_init(&text, 1 << 16);
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    metadata_set(m, key, buf_str(&text));
    buf_free(&text);
}

const char *metadata_get(const metadata *m, const char *key) {
    const metadata_field *f = find_field(m, key);
    return f ? f->value : NULL;
}

bool metadata_get_i64(const metadata *m, const char *key, int64_t *out) {
    const char *text = metadata_get(m, key);
    return text && str_to_i64(text, out);
}

bool metadata_get_f64(const metadata *m, const char *key, double *out) {
    const char *text = metadata_get(m, key);
    return text && str_to_f64(text, out);
}

bool metadata_get_size(const metadata *m, int *width, int *height) {
    int w, h;
    if (!str_to_size(metadata_get(m, "Size"), &w, &h) || w < 1 || h < 1) return false;
    *width = w;
    *height = h;
    return true;
}

/* --- writing --- */

void metadata_format(const metadata *m, buf *out) {
    buf_puts(out, m->prompt ? m->prompt : "");
    if (!str_empty(m->negative_prompt)) buf_printf(out, "\n%s %s", NEGATIVE, m->negative_prompt);
    for (size_t i = 0; i < m->count; i++) {
        const metadata_field *f = &m->fields[i];
        buf_printf(out, "%s%s: ", i ? ", " : "\n", f->key);
        if (strpbrk(f->value, ",:\n\r\""))
            json_quote(out, f->value);
        else
            buf_puts(out, f->value);
    }
}

/* --- reading --- */

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* The end of a JSON string that starts at s; NULL when it does not end. */
static const char *string_end(const char *s) {
    for (s++; *s && *s != '"'; s++)
        if (*s == '\\' && s[1]) s++;
    return *s ? s + 1 : NULL;
}

static char *unquote(const char *s, size_t len) {
    yyjson_doc *doc = json_parse(s, len, NULL);
    const char *text = doc ? yyjson_get_str(yyjson_doc_get_root(doc)) : NULL;
    char *out = text ? str_dup(text) : str_ndup(s, len);
    if (doc) yyjson_doc_free(doc);
    return out;
}

typedef struct raw_field {
    const char *key, *value;
    size_t key_len, value_len;
    bool is_quoted;
} raw_field;

/* The value at *p, up to a comma or the end; *p moves behind the comma. */
static void take_value(const char **p, raw_field *f) {
    const char *s = *p, *end = *s == '"' ? string_end(s) : NULL;
    f->is_quoted = end && (*end == ',' || !*end);
    if (!f->is_quoted) end = s + strcspn(s, ",");
    f->value = s;
    f->value_len = (size_t)(end - s);
    *p = *end ? end + 1 : end;
}

/* One "Key: value" at or after *p, or false at the end. A stretch that is no key is passed over. */
static bool take_field(const char **p, raw_field *f) {
    while (**p) {
        while (isspace((unsigned char)**p)) ++*p;
        const char *s = *p;
        size_t n = 0;
        if (is_word(*s))
            while (is_word(s[n]) || s[n] == ' ' || s[n] == '-' || s[n] == '/') n++;
        if (n >= 2 && s[n] == ':') {
            f->key = s;
            f->key_len = n;
            *p = s + n + 1;
            while (isspace((unsigned char)**p)) ++*p;
            take_value(p, f);
            return true;
        }
        *p = s + strcspn(s, ",");
        if (**p) ++*p;
    }
    return false;
}

static bool is_parameter_line(const char *line) {
    raw_field f;
    int count = 0;
    while (count < 3 && take_field(&line, &f)) count++;
    return count >= 3;
}

static void read_fields(metadata *m, const char *line) {
    raw_field f;
    while (take_field(&line, &f)) {
        while (!f.is_quoted && f.value_len && isspace((unsigned char)f.value[f.value_len - 1])) f.value_len--;
        char *key = str_ndup(f.key, f.key_len);
        char *value = f.is_quoted ? unquote(f.value, f.value_len) : str_ndup(f.value, f.value_len);
        metadata_set(m, key, value);
        free(key);
        free(value);
    }
}

/* Splits the lines before the parameters into prompt and negative prompt. */
static void read_prompts(metadata *m, char *text) {
    buf prompt, negative;
    buf_init(&prompt, strlen(text) + 1);
    buf_init(&negative, strlen(text) + 1);
    buf *to = &prompt;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        bool starts_negative = to == &prompt && str_starts(line, NEGATIVE);
        if (starts_negative) {
            to = &negative;
            line += strlen(NEGATIVE);
            while (*line == ' ') line++;
        } else if (line != text) {
            buf_putc(to, '\n');
        }
        buf_puts(to, line);
    }
    m->prompt = str_dup(buf_str(&prompt));
    m->negative_prompt = str_dup(buf_str(&negative));
    buf_free(&prompt);
    buf_free(&negative);
}

static void trim_end(char *s) {
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1])) s[--n] = 0;
}

static void drop_carriage_returns(char *s) {
    char *to = s;
    for (; *s; s++)
        if (*s != '\r' || s[1] != '\n') *to++ = *s;
    *to = 0;
}

void metadata_parse(metadata *m, const char *text) {
    char *copy = str_dup(text);
    drop_carriage_returns(copy);
    trim_end(copy);
    char *last = strrchr(copy, '\n');
    char *line = last ? last + 1 : copy;
    if (is_parameter_line(line)) {
        read_fields(m, line);
        *(last ? last : copy) = 0;
    }
    read_prompts(m, copy);
    free(copy);
}

/* --- from files --- */

static void put_latin1(buf *out, bytes_view text) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = text.data[i];
        if (c >= 0x80) buf_putc(out, (char)(0xc0 | c >> 6));
        buf_putc(out, (char)(c < 0x80 ? c : 0x80 | (c & 0x3f)));
    }
}

static bool read_png(buf *out, const void *data, size_t len) {
    bytes_view text;
    bool is_utf8;
    if (!container_find_png_text(data, len, "parameters", &text, &is_utf8)) return false;
    if (is_utf8)
        buf_append(out, text.data, text.len);
    else
        put_latin1(out, text);
    return true;
}

static bool read_text(buf *out, const void *data, size_t len, err *e) {
    bytes_view tiff;
    bool is_png = image_format_of(data, len) == IMAGE_PNG;
    bool found = (is_png && read_png(out, data, len)) ||
                 (container_find_exif(data, len, &tiff) && exif_read_comment(out, tiff.data, tiff.len));
    if (!found) return err_set(e, ERR_NOT_FOUND, "no generation parameters in the picture");
    if (out->full) return err_set(e, ERR_TOO_LARGE, "generation parameters are too long");
    bool is_text = str_is_utf8(buf_str(out), out->len) && strlen(buf_str(out)) == out->len;
    return is_text || err_set(e, ERR_FORMAT, "generation parameters are not UTF-8 text");
}

bool metadata_read(buf *out, const void *data, size_t len, err *e) {
    if (image_format_of(data, len) == IMAGE_UNKNOWN) return err_set(e, ERR_FORMAT, "not a PNG, JPEG or WebP file");
    buf text;
    buf_init(&text, TEXT_MAX);
    bool ok = read_text(&text, data, len, e);
    if (ok && !buf_append(out, buf_str(&text), text.len))
        ok = err_set(e, ERR_TOO_LARGE, "generation parameters are too long");
    buf_free(&text);
    return ok;
}
