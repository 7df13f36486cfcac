/* base64.c - see base64.h. */
#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool base64_encode(buf *out, const void *data, size_t len) {
    const unsigned char *p = data;
    char *to = buf_reserve(out, (len + 2) / 3 * 4);
    if (!to) return false;
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        if (i + 1 < len) v |= (uint32_t)p[i + 1] << 8;
        if (i + 2 < len) v |= p[i + 2];
        to[n++] = alphabet[v >> 18];
        to[n++] = alphabet[v >> 12 & 63];
        to[n++] = i + 1 < len ? alphabet[v >> 6 & 63] : '=';
        to[n++] = i + 2 < len ? alphabet[v & 63] : '=';
    }
    out->len += n;
    return true;
}

static int value_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    return -1;
}

bool base64_decode(buf *out, const char *text, size_t len) {
    char *to = buf_reserve(out, len / 4 * 3 + 3);
    if (!to) return false;
    uint32_t acc = 0;
    unsigned bits = 0;
    size_t n = 0, i = 0;
    for (; i < len && text[i] != '='; i++) {
        if (text[i] == '\n' || text[i] == '\r') continue;
        int v = value_of(text[i]);
        if (v < 0) return false;
        acc = acc << 6 | (uint32_t)v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            to[n++] = (char)(acc >> bits & 0xFF);
        }
    }
    if (bits == 6) return false; /* a lone last character */
    for (size_t pads = 0; i < len; i++) {
        if (text[i] == '\n' || text[i] == '\r') continue;
        if (text[i] != '=' || ++pads > 2) return false;
    }
    out->len += n;
    if (out->data) out->data[out->len] = 0;
    return true;
}
