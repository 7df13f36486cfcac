/* prompt.c - see prompt.h. First the text is cut into spans of one weight each, then the spans' tokens are dealt out to
 * chunks. The rules are those that A1111's users know, read from its behaviour. */
#include "diffusion/text/prompt.h"

#include "base/buf.h"
#include "base/str.h"
#include "diffusion/text/tok_clip.h"

#include <stdlib.h>
#include <string.h>

enum { BODY = PROMPT_CHUNK - 2, COMMA = 267, BACKTRACK = 20, MAX_SPANS = 4096, MAX_DEPTH = 1024 };
static const float step_up = 1.1f;

/* --- Spans ------------------------------------------------------------------------------------------------------- */

typedef struct span {
    size_t from, to; /* in spans.text */
    float weight;
    bool is_break; /* BREAK: no text, a new chunk */
} span;

typedef struct spans {
    buf text; /* without brackets and escapes */
    span *items;
    size_t count;
    size_t round[MAX_DEPTH], square[MAX_DEPTH]; /* the first span inside of each bracket that is open */
    size_t rounds, squares;
    bool full;
} spans;

static void add_span(spans *s, size_t from, bool is_break) {
    if (s->count == MAX_SPANS) {
        s->full = true;
        return;
    }
    s->items[s->count++] = (span){from, s->text.len, 1.0f, is_break};
}

static void multiply_from(spans *s, size_t first, float factor) {
    for (size_t i = first; i < s->count; i++) s->items[i].weight *= factor;
}

static bool open_bracket(spans *s, size_t *stack, size_t *depth) {
    if (*depth == MAX_DEPTH) return s->full = true, false;
    stack[(*depth)++] = s->count;
    return true;
}

/* ":1.2)" at p: the number, and the bytes it takes; 0 when there is none. Only plain decimals, no exponents. */
static size_t read_weight(const char *p, float *weight) {
    if (*p != ':') return 0;
    const char *start = p + 1 + strspn(p + 1, " \t\n");
    size_t n = strspn(start, "+-.0123456789");
    const char *end = start + n + strspn(start + n, " \t\n");
    char number[32];
    double value;
    if (!n || n >= sizeof number || *end != ')') return 0;
    memcpy(number, start, n);
    number[n] = 0;
    if (!str_to_f64(number, &value) || value < -100 || value > 100) return 0;
    *weight = (float)value;
    return (size_t)(end - p) + 1;
}

/* Handles a bracket at p: the bytes it takes, 0 when p is no bracket that means something. */
static size_t take_bracket(spans *s, const char *p) {
    float weight;
    size_t n;
    if (*p == '(') return open_bracket(s, s->round, &s->rounds);
    if (*p == '[') return open_bracket(s, s->square, &s->squares);
    if (s->rounds && (n = read_weight(p, &weight)) != 0) {
        multiply_from(s, s->round[--s->rounds], weight);
        return n;
    }
    if (*p == ')' && s->rounds) {
        multiply_from(s, s->round[--s->rounds], step_up);
        return 1;
    }
    if (*p == ']' && s->squares) {
        multiply_from(s, s->square[--s->squares], 1.0f / step_up);
        return 1;
    }
    return 0;
}

static bool word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

static bool is_break(const char *text, const char *p) {
    return strncmp(p, "BREAK", 5) == 0 && !word_char(p[5]) && (p == text || !word_char(p[-1]));
}

/* Plain text up to the next bracket or BREAK, escapes resolved; returns the bytes it takes, at least 1. */
static size_t take_text(spans *s, const char *text, const char *p) {
    const size_t from = s->text.len;
    const char *start = p;
    do {
        if (*p == '\\' && p[1] && strchr("()[]\\", p[1])) p++;
        buf_putc(&s->text, *p++);
    } while (*p && !strchr("()[]:", *p) && !is_break(text, p));
    add_span(s, from, false);
    return (size_t)(p - start);
}

static void cut_spans(spans *s, const char *text) {
    for (const char *p = text; *p && !s->full;) {
        size_t n = take_bracket(s, p);
        if (!n && is_break(text, p)) {
            add_span(s, s->text.len, true);
            n = 5;
        }
        p += n ? n : take_text(s, text, p);
    }
    while (s->rounds) multiply_from(s, s->round[--s->rounds], step_up);
    while (s->squares) multiply_from(s, s->square[--s->squares], 1.0f / step_up);
}

/* Neighbours of equal weight become one span, so that a word is tokenized whole: "in \(parentheses" is one text. */
static void join_spans(spans *s) {
    size_t to = 0;
    for (size_t i = 0; i < s->count; i++) {
        span *last = to ? &s->items[to - 1] : NULL;
        if (last && !last->is_break && !s->items[i].is_break && last->weight == s->items[i].weight)
            last->to = s->items[i].to;
        else
            s->items[to++] = s->items[i];
    }
    s->count = to;
}

/* --- Chunks ------------------------------------------------------------------------------------------------------ */

typedef struct dealer {
    prompt *p;
    int32_t tokens[BODY]; /* of the chunk at hand */
    float weights[BODY];
    int count;
    int after_comma; /* tokens up to and including the last comma; 0 without one */
    bool full;
} dealer;

/* Closes the chunk with its first `keep` tokens; the rest begins the next one. */
static void close_chunk(dealer *d, int keep) {
    if (d->p->chunks == PROMPT_MAX_CHUNKS) {
        d->full = true;
        return;
    }
    const size_t size = (size_t)(d->p->chunks + 1) * PROMPT_CHUNK, at = size - PROMPT_CHUNK;
    d->p->tokens = mem_resize(d->p->tokens, size * sizeof *d->p->tokens);
    d->p->weights = mem_resize(d->p->weights, size * sizeof *d->p->weights);
    for (size_t i = 0; i < PROMPT_CHUNK; i++) {
        const bool body = i >= 1 && i <= (size_t)keep;
        d->p->tokens[at + i] = i == 0 ? TOK_CLIP_BOS : body ? d->tokens[i - 1] : TOK_CLIP_EOS;
        d->p->weights[at + i] = body ? d->weights[i - 1] : 1.0f;
    }
    d->p->chunks++;
    d->count -= keep;
    memmove(d->tokens, d->tokens + keep, (size_t)d->count * sizeof *d->tokens);
    memmove(d->weights, d->weights + keep, (size_t)d->count * sizeof *d->weights);
    d->after_comma = 0;
}

static void deal_token(dealer *d, int32_t token, float weight) {
    if (d->count == BODY) {
        const bool near = d->after_comma && d->count - d->after_comma < BACKTRACK; /* the comma counts */
        close_chunk(d, near && token != COMMA ? d->after_comma : d->count);
        if (d->full) return;
    }
    d->tokens[d->count] = token;
    d->weights[d->count++] = weight;
    if (token == COMMA) d->after_comma = d->count;
}

static void deal_span(dealer *d, const spans *s, const span *item) {
    if (item->is_break) {
        close_chunk(d, d->count);
        return;
    }
    const size_t len = item->to - item->from, max = len * 3;
    int32_t *tokens = mem_alloc(max + 1, sizeof *tokens);
    const size_t n = tok_clip_encode(buf_str(&s->text) + item->from, len, tokens, max);
    for (size_t i = 0; i < n && !d->full; i++) deal_token(d, tokens[i], item->weight);
    free(tokens);
}

bool prompt_parse(prompt *p, const char *text, err *e) {
    if (strlen(text) > PROMPT_MAX_BYTES)
        return err_set(e, ERR_TOO_LARGE, "the prompt is longer than %d bytes", PROMPT_MAX_BYTES);
    prompt out = {0};
    spans *s = mem_alloc(1, sizeof *s);
    s->items = mem_alloc(MAX_SPANS, sizeof *s->items);
    buf_init(&s->text, PROMPT_MAX_BYTES);
    dealer d = {.p = &out};
    cut_spans(s, text);
    join_spans(s);
    for (size_t i = 0; i < s->count && !d.full; i++) deal_span(&d, s, &s->items[i]);
    if (d.count || !out.chunks) close_chunk(&d, d.count);
    const bool ok = !s->full && !d.full;
    if (!s->full && d.full)
        err_set(e, ERR_TOO_LARGE, "the prompt has more than %d tokens", PROMPT_MAX_CHUNKS * BODY);
    else if (!ok)
        err_set(e, ERR_TOO_LARGE, "the prompt has too many brackets");
    buf_free(&s->text);
    free(s->items);
    free(s);
    if (ok)
        *p = out;
    else
        prompt_free(&out);
    return ok;
}

void prompt_free(prompt *p) {
    free(p->tokens);
    free(p->weights);
    *p = (prompt){0};
}

/* --- Emphasis ---------------------------------------------------------------------------------------------------- */

static double mean_of(const float *z, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)z[i];
    return sum / (double)count;
}

void prompt_emphasize(const prompt *p, int chunk, float *z, int dim) {
    const float *weights = p->weights + (size_t)chunk * PROMPT_CHUNK;
    const size_t count = (size_t)PROMPT_CHUNK * (size_t)dim;
    bool plain = true;
    for (int t = 0; t < PROMPT_CHUNK; t++) plain = plain && weights[t] == 1.0f;
    if (plain) return; /* bit for bit what the encoder gave */
    const double before = mean_of(z, count);
    for (size_t i = 0; i < count; i++) z[i] *= weights[i / (size_t)dim];
    const double after = mean_of(z, count);
    if (after == 0) return;
    const float scale = (float)(before / after);
    for (size_t i = 0; i < count; i++) z[i] *= scale;
}
