/* http_multipart.c - see http_multipart.h. Grammar: RFC 2046, 5.1.1, and RFC 7578; only CRLF ends a line. */
#include "net/http_multipart.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { BOUNDARY_MAX = 70, HEAD_MAX = 8192 };

struct http_multipart {
    http_part parts[HTTP_PARTS_MAX]; /* name, filename, content_type are owned */
    size_t count;
};

/* What is still to be read. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static const char *find(cursor c, const char *what, size_t len) {
    while ((size_t)(c.end - c.at) >= len) {
        const char *hit = memchr(c.at, what[0], (size_t)(c.end - c.at) - len + 1);
        if (!hit) return NULL;
        if (memcmp(hit, what, len) == 0) return hit;
        c.at = hit + 1;
    }
    return NULL;
}

static bool starts(cursor c, const char *what, size_t len) {
    return (size_t)(c.end - c.at) >= len && memcmp(c.at, what, len) == 0;
}

static bool istarts(const char *s, const char *prefix) {
    char *head = str_ndup(s, strnlen(s, strlen(prefix)));
    bool same = str_ieq(head, prefix);
    free(head);
    return same;
}

/* A quoted string with backslash escapes, or a token; *at moves behind it. NULL when the quote never ends. */
static char *read_value(const char **at) {
    const char *s = *at;
    if (*s != '"') {
        size_t n = strcspn(s, "; \t");
        *at = s + n;
        return str_ndup(s, n);
    }
    char *out = mem_alloc(strlen(s) + 1, 1), *to = out;
    for (s++; *s && *s != '"'; s++) {
        if (s[0] == '\\' && (s[1] == '"' || s[1] == '\\')) s++; /* others are file names of Windows */
        *to++ = *s;
    }
    if (*s == '"') {
        *at = s + 1;
        return out;
    }
    free(out);
    return NULL;
}

/* Parameter `name` of a header value "type; a=b; c=\"d\"", to be freed; NULL when not there. */
static char *read_param(const char *value, const char *name) {
    size_t want = strlen(name);
    const char *at = value + strcspn(value, ";");
    while (*at == ';') {
        at += 1 + strspn(at + 1, " \t");
        size_t n = strcspn(at, "=;");
        bool found = n == want && istarts(at, name);
        at += n;
        if (*at != '=') continue;
        at++;
        char *v = read_value(&at);
        if (!v || found) return v;
        free(v);
        at += strspn(at, " \t");
    }
    return NULL;
}

static char *read_boundary(const char *content_type, err *e) {
    if (!content_type || !istarts(content_type, "multipart/form-data")) {
        err_set(e, ERR_UNSUPPORTED, "the content type is not multipart/form-data");
        return NULL;
    }
    char *boundary = read_param(content_type, "boundary");
    size_t n = boundary ? strlen(boundary) : 0;
    if (n && n <= BOUNDARY_MAX && !strpbrk(boundary, "\r\n")) {
        char *line = str_fmt("\r\n--%s", boundary);
        free(boundary);
        return line;
    }
    free(boundary);
    err_set(e, ERR_FORMAT, "multipart: no usable boundary");
    return NULL;
}

static bool read_header(http_part *part, const char *line, err *e) {
    if (istarts(line, "content-disposition:")) {
        const char *value = line + strlen("content-disposition:");
        value += strspn(value, " \t");
        if (part->name || part->filename || !istarts(value, "form-data"))
            return err_set(e, ERR_FORMAT, "multipart: bad Content-Disposition");
        part->name = read_param(value, "name");
        part->filename = read_param(value, "filename");
    } else if (istarts(line, "content-type:") && !part->content_type) {
        const char *value = line + strlen("content-type:");
        part->content_type = str_dup(value + strspn(value, " \t"));
    } else if (istarts(line, "content-transfer-encoding:")) {
        return err_set(e, ERR_UNSUPPORTED, "multipart: Content-Transfer-Encoding is not supported");
    }
    return true;
}

static bool read_part_head(cursor *c, http_part *part, err *e) {
    cursor limited = *c;
    if (limited.end - limited.at > HEAD_MAX) limited.end = limited.at + HEAD_MAX;
    for (;;) {
        const char *eol = find(limited, "\r\n", 2);
        if (!eol) {
            bool cut = limited.end != c->end;
            return err_set(e, cut ? ERR_TOO_LARGE : ERR_FORMAT, "multipart: the head of a part does not end");
        }
        size_t n = (size_t)(eol - limited.at);
        c->at = eol + 2;
        if (n == 0) break;
        if (memchr(limited.at, 0, n)) return err_set(e, ERR_FORMAT, "multipart: NUL in the head of a part");
        char *line = str_ndup(limited.at, n);
        bool ok = read_header(part, line, e);
        free(line);
        if (!ok) return false;
        limited.at = c->at;
    }
    return part->name || err_set(e, ERR_FORMAT, "multipart: a part has no name");
}

/* Behind a boundary: "--" ends the body, a line end begins a part. */
static bool at_part(cursor *c, bool *last, err *e) {
    *last = starts(*c, "--", 2);
    if (*last) return true;
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t')) c->at++;
    if (!starts(*c, "\r\n", 2)) return err_set(e, ERR_FORMAT, "multipart: text behind a boundary");
    c->at += 2;
    return true;
}

static bool read_part(http_multipart *m, cursor *c, const char *boundary, err *e) {
    if (m->count == HTTP_PARTS_MAX) return err_set(e, ERR_TOO_LARGE, "multipart: more than %d parts", HTTP_PARTS_MAX);
    http_part *part = &m->parts[m->count++];
    if (!read_part_head(c, part, e)) return false;
    cursor from_line_end = {c->at - 2, c->end}; /* an empty part: its boundary's CRLF is the head's */
    const char *end = find(from_line_end, boundary, strlen(boundary));
    if (!end) return err_set(e, ERR_FORMAT, "multipart: a part does not end");
    part->data = c->at;
    part->len = end > c->at ? (size_t)(end - c->at) : 0;
    c->at = end + strlen(boundary);
    return true;
}

static bool read_parts(http_multipart *m, cursor c, const char *boundary, err *e) {
    const char *first = boundary + 2; /* the first one needs no line end before it */
    if (starts(c, first, strlen(first))) {
        c.at += strlen(first);
    } else {
        const char *at = find(c, boundary, strlen(boundary));
        if (!at) return err_set(e, ERR_FORMAT, "multipart: the boundary is not there");
        c.at = at + strlen(boundary);
    }
    for (bool last = false;;) {
        if (!at_part(&c, &last, e)) return false;
        if (last) return true;
        if (!read_part(m, &c, boundary, e)) return false;
    }
}

http_multipart *http_multipart_parse(const char *content_type, const char *body, size_t len, err *e) {
    char *boundary = read_boundary(content_type, e);
    if (!boundary) return NULL;
    http_multipart *m = mem_alloc(1, sizeof *m);
    bool ok = read_parts(m, (cursor){body, body + len}, boundary, e);
    free(boundary);
    if (ok) return m;
    http_multipart_free(m);
    return NULL;
}

void http_multipart_free(http_multipart *m) {
    if (!m) return;
    for (size_t i = 0; i < m->count; i++) {
        free((char *)(uintptr_t)m->parts[i].name);
        free((char *)(uintptr_t)m->parts[i].filename);
        free((char *)(uintptr_t)m->parts[i].content_type);
    }
    free(m);
}

size_t http_multipart_count(const http_multipart *m) {
    return m->count;
}

const http_part *http_multipart_part(const http_multipart *m, size_t index) {
    return index < m->count ? &m->parts[index] : NULL;
}

const http_part *http_multipart_find(const http_multipart *m, const char *name) {
    for (size_t i = 0; i < m->count; i++)
        if (str_eq(m->parts[i].name, name)) return &m->parts[i];
    return NULL;
}

char *http_multipart_text(const http_multipart *m, const char *name) {
    const http_part *part = http_multipart_find(m, name);
    if (!part || !str_is_utf8(part->data, part->len) || memchr(part->data, 0, part->len)) return NULL;
    return str_ndup(part->data, part->len);
}
