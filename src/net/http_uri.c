/* http_uri.c - see http_uri.h. */
#include "net/http_uri.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte that "%XX" stands for, or -1. */
static int percent_value(const char *s, size_t len) {
    if (len < 3) return -1;
    int high = hex_value(s[1]), low = hex_value(s[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool http_uri_decode(buf *out, const char *s, size_t len, bool form) {
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            c = percent_value(s + i, len - i);
            i += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        if (c <= 0 || !buf_putc(out, (char)c)) return false;
    }
    return true;
}

bool http_uri_encode(buf *out, const char *s, bool keep_slash) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) ||
                     (c == '/' && keep_slash);
        if (!(plain ? buf_putc(out, (char)c) : buf_printf(out, "%%%02X", c))) return false;
    }
    return true;
}

static bool has_control(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7F) return true;
    return false;
}

/* RFC 3986, 5.2.4, over decoded bytes in place. `path` begins with '/'. False when it climbs above the root. */
static bool remove_dots(char *path) {
    char *out = path;
    for (const char *in = path; *in;) {
        size_t n = 1 + strcspn(in + 1, "/"); /* "/part" */
        bool last = in[n] == 0;
        if (n == 2 && in[1] == '.') {
            if (last) *out++ = '/';
        } else if (n == 3 && in[1] == '.' && in[2] == '.') {
            if (out == path) return false;
            while (*--out != '/') continue;
            if (last) *out++ = '/';
        } else {
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    *out = 0;
    return true;
}

/* An encoded slash is a slash: clients encode the ids of models in subfolders so. That is safe because it is decoded
 * before dots are removed, and routing and every check look at the result alone. */
static bool parse_path(http_uri *u, const char *s, size_t len, err *e) {
    buf path;
    buf_init(&path, len);
    if (!http_uri_decode(&path, s, len, false)) {
        buf_free(&path);
        return err_set(e, ERR_INVALID, "the path is not well encoded");
    }
    if (has_control(path.data, path.len) || !str_is_utf8(path.data, path.len) || !remove_dots(path.data)) {
        buf_free(&path);
        return err_set(e, ERR_INVALID, "the path is not allowed");
    }
    u->path = buf_take(&path, NULL);
    return true;
}

static size_t skip_scheme(const char *s, size_t len) {
    static const char scheme[] = "http://";
    size_t n = sizeof scheme - 1;
    if (len < n) return 0;
    for (size_t i = 0; i < n; i++)
        if ((s[i] | (i < 4 ? 0x20 : 0)) != scheme[i]) return 0;
    return n;
}

bool http_uri_parse(http_uri *u, const char *target, size_t len, err *e) {
    *u = (http_uri){0};
    if (len == 1 && target[0] == '*') {
        u->path = str_dup("*");
        u->query = str_dup("");
        return true;
    }
    size_t at = skip_scheme(target, len);
    if (at) {
        size_t host = at;
        while (at < len && !strchr("/?#", target[at])) at++;
        u->authority = str_ndup(target + host, at - host);
    }
    size_t end = at;
    while (end < len && target[end] != '?' && target[end] != '#') end++;
    bool ok;
    if (end == at && u->authority)
        ok = parse_path(u, "/", 1, e);
    else if (end == at || target[at] != '/')
        ok = err_set(e, ERR_INVALID, "the request target does not begin with '/'");
    else
        ok = parse_path(u, target + at, end - at, e);
    if (ok && memchr(target, '#', len)) ok = err_set(e, ERR_INVALID, "the request target has a fragment");
    if (!ok) {
        http_uri_free(u);
        return false;
    }
    u->query = end < len ? str_ndup(target + end + 1, len - end - 1) : str_dup("");
    return true;
}

void http_uri_free(http_uri *u) {
    free(u->path);
    free(u->query);
    free(u->authority);
    *u = (http_uri){0};
}

/* Decodes s as form text; NULL when it is not text. */
static char *decode_text(const char *s, size_t len) {
    buf b;
    buf_init(&b, len);
    if (http_uri_decode(&b, s, len, true) && str_is_utf8(buf_str(&b), b.len)) return buf_take(&b, NULL);
    buf_free(&b);
    return NULL;
}

char *http_uri_query(const char *query, const char *name) {
    while (*query) {
        size_t pair = strcspn(query, "&");
        size_t key = strcspn(query, "=&");
        char *k = decode_text(query, key);
        bool found = str_eq(k, name);
        free(k);
        if (found) return key < pair ? decode_text(query + key + 1, pair - key - 1) : str_dup("");
        query += pair + (query[pair] == '&');
    }
    return NULL;
}
