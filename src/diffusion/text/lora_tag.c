#include "diffusion/text/lora_tag.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

enum { WORD = 6 }; /* "<lora:" */

/* A tag in the text: [at, at + len), with what stands between "<lora:" and ">". */
typedef struct place {
    const char *at;
    size_t len;
} place;

static bool find_next(const char *text, place *out) {
    for (const char *p = strchr(text, '<'); p; p = strchr(p + 1, '<')) {
        if (!str_starts(p, "<lora:") && !str_starts(p, "<lyco:")) continue;
        const size_t inside = strcspn(p + WORD, ">");
        if (!inside || !p[WORD + inside]) continue;
        *out = (place){p, WORD + inside + 1};
        return true;
    }
    return false;
}

static void trim(char *s) {
    const size_t from = strspn(s, " \t\n");
    size_t len = strlen(s + from);
    while (len && strchr(" \t\n", s[from + len - 1])) len--;
    memmove(s, s + from, len);
    s[len] = 0;
}

static bool wrong(const place *p, const char *what, const char *item, err *e) {
    return err_set(e, ERR_INVALID, "prompt: '%.*s': %s%.60s", (int)(p->len < 120 ? p->len : 120), p->at, what, item);
}

static bool read_weight(const place *p, const char *text, double *out, err *e) {
    double v;
    if (!str_to_f64(text, &v) || !isfinite(v)) return wrong(p, "not a number: ", text, e);
    if (fabs(v) > LORA_WEIGHT_MAX) return wrong(p, "beyond 100 or -100: ", text, e);
    *out = v;
    return true;
}

/* te and unet in the order in which they stand; the UNet's is the text encoder's where it is not said. */
typedef struct weights_said {
    double te, unet;
    bool unet_said;
    int positions;
} weights_said;

static bool read_item(const place *p, char *item, weights_said *w, err *e) {
    char *equals = strchr(item, '=');
    if (equals) {
        *equals = 0;
        trim(item);
        trim(equals + 1);
        if (str_eq(item, "te")) return read_weight(p, equals + 1, &w->te, e);
        if (!str_eq(item, "unet")) return wrong(p, "neither te nor unet: ", item, e);
        w->unet_said = true;
        return read_weight(p, equals + 1, &w->unet, e);
    }
    trim(item);
    switch (w->positions++) {
    case 0:
        return read_weight(p, item, &w->te, e);
    case 1:
        w->unet_said = true;
        return read_weight(p, item, &w->unet, e);
    default:
        return wrong(p, "more than two weights: ", item, e);
    }
}

static bool read_tag(const place *p, lora_tag *out, err *e) {
    char text[1024];
    const size_t len = p->len - WORD - 1;
    if (len >= sizeof text) return wrong(p, "too long", "", e);
    memcpy(text, p->at + WORD, len);
    text[len] = 0;
    weights_said w = {.te = 1};
    char *item = text + strcspn(text, ":");
    while (*item) {
        *item++ = 0;
        char *next = item + strcspn(item, ":");
        const char after = *next;
        *next = 0;
        if (!read_item(p, item, &w, e)) return false;
        *next = after;
        item = next;
    }
    trim(text);
    if (!text[0]) return wrong(p, "no name", "", e);
    if (!str_copy(out->name, sizeof out->name, text)) return wrong(p, "the name is too long", "", e);
    out->te = w.te;
    out->unet = w.unet_said ? w.unet : w.te;
    return true;
}

bool lora_tags_read(const char *text, lora_tag out[LORA_TAGS_MAX], size_t *count, err *e) {
    place p;
    *count = 0;
    for (; find_next(text, &p); text = p.at + p.len) {
        if (*count == LORA_TAGS_MAX) return err_set(e, ERR_INVALID, "prompt: more than %d LoRAs", LORA_TAGS_MAX);
        if (!read_tag(&p, &out[(*count)++], e)) return false;
    }
    return true;
}

char *lora_tags_strip(const char *text) {
    char *out = str_dup(text), *to = out;
    place p;
    for (; find_next(text, &p); text = p.at + p.len) {
        const size_t keep = (size_t)(p.at - text);
        memcpy(to, text, keep);
        to += keep;
    }
    memmove(to, text, strlen(text) + 1);
    return out;
}

void lora_tag_write(const char *name, double te, double unet, buf *out) {
    if (strpbrk(name, ":>")) return;
    buf_printf(out, "<lora:%s:%.9g", name, te);
    if (te < unet || te > unet) buf_printf(out, ":%.9g", unet);
    buf_putc(out, '>');
}
