/* prompt.c - see prompt.h. First the text is cut into spans of one weight each, then the spans' tokens are dealt out to
 * chunks. The rules are those that A1111's users know, read from its behaviour. */
#include "diffusion/text/prompt.h"

#include "base/buf.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BODY = PROMPT_CHUNK - 2, COMMA = 267, BACKTRACK = 20, MAX_SPANS = 4096, MAX_DEPTH = 1024 };
static const float step_up = 1.1f, weight_max = 1e6f;

const char *const prompt_emphasis_names[] = {"a1111", "comfy", "none", NULL};

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

bool prompt_is_word(const char *text, const char *p, size_t len) {
    return !word_char(p[len]) && (p == text || !word_char(p[-1]));
}

static bool is_break(const char *text, const char *p) {
    return strncmp(p, "BREAK", 5) == 0 && prompt_is_word(text, p, 5);
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
    const prompt_words *words; /* or NULL */
    int32_t tokens[BODY];      /* of the chunk at hand */
    float weights[BODY];
    int count;
    int after_comma; /* tokens up to and including the last comma; 0 without one */
    bool full;
} dealer;

/* Room for one chunk more; returns where it begins. It is an empty one: BOS, then EOS. */
static size_t add_chunk(prompt *p) {
    const size_t at = (size_t)p->chunks++ * PROMPT_CHUNK, size = at + PROMPT_CHUNK;
    p->tokens = mem_resize(p->tokens, size * sizeof *p->tokens);
    p->weights = mem_resize(p->weights, size * sizeof *p->weights);
    for (size_t i = at; i < size; i++) {
        p->tokens[i] = i == at ? TOK_CLIP_BOS : TOK_CLIP_EOS;
        p->weights[i] = 1.0f;
    }
    return at;
}

/* Closes the chunk with its first `keep` tokens; the rest begins the next one. */
static void close_chunk(dealer *d, int keep) {
    if (d->p->chunks == PROMPT_MAX_CHUNKS) {
        d->full = true;
        return;
    }
    const size_t body = add_chunk(d->p) + 1;
    memcpy(d->p->tokens + body, d->tokens, (size_t)keep * sizeof *d->tokens);
    memcpy(d->p->weights + body, d->weights, (size_t)keep * sizeof *d->weights);
    d->count -= keep;
    memmove(d->tokens, d->tokens + keep, (size_t)d->count * sizeof *d->tokens);
    memmove(d->weights, d->weights + keep, (size_t)d->count * sizeof *d->weights);
    d->after_comma = 0;
}

/* Before a token. */
static void make_room(dealer *d, int32_t token) {
    if (d->count < BODY) return;
    const bool near = d->after_comma && d->count - d->after_comma < BACKTRACK; /* the comma counts */
    close_chunk(d, near && token != COMMA ? d->after_comma : d->count);
}

static void put_token(dealer *d, int32_t token, float weight) {
    d->tokens[d->count] = token;
    d->weights[d->count++] = weight;
    if (token == COMMA) d->after_comma = d->count;
}

static const int32_t comfy_prefix[] = {19703, 796, 281}; /* "embedding:" */
enum { COMFY_PREFIX = sizeof comfy_prefix / sizeof *comfy_prefix };

static bool starts_with(const int32_t *tokens, size_t n, const int32_t *start, size_t count) {
    return count <= n && memcmp(tokens, start, count * sizeof *start) == 0;
}

/* The word whose name these tokens begin with, or NULL. */
static const prompt_word *find_word(const prompt_words *words, const int32_t *tokens, size_t n) {
    for (size_t i = 0; words && i < words->count; i++)
        if (starts_with(tokens, n, words->items[i].tokens, words->items[i].count)) return &words->items[i];
    return NULL;
}

/* Likewise, with or without the prefix; *taken: the tokens that stand for it. */
static const prompt_word *take_word(const prompt_words *words, const int32_t *tokens, size_t n, size_t *taken) {
    const bool prefixed = starts_with(tokens, n, comfy_prefix, COMFY_PREFIX);
    const prompt_word *w = prefixed ? find_word(words, tokens + COMFY_PREFIX, n - COMFY_PREFIX) : NULL;
    const size_t before = w ? COMFY_PREFIX : 0;
    if (!w) w = find_word(words, tokens, n);
    *taken = w ? before + w->count : 1;
    return w;
}

static void put_word(dealer *d, const prompt_word *w, float weight) {
    if (d->count + w->vectors > BODY) close_chunk(d, d->count);
    for (int i = 0; i < w->vectors && !d->full; i++) put_token(d, PROMPT_LEARNED + w->first + i, weight);
}

static void deal_tokens(dealer *d, const int32_t *tokens, size_t n, float weight) {
    for (size_t i = 0, taken; i < n && !d->full; i += taken) {
        const prompt_word *w = take_word(d->words, tokens + i, n - i, &taken);
        make_room(d, tokens[i]);
        if (d->full) return;
        if (w)
            put_word(d, w, weight);
        else
            put_token(d, tokens[i], weight);
    }
}

static void deal_span(dealer *d, const spans *s, const span *item) {
    if (item->is_break) {
        close_chunk(d, d->count);
        return;
    }
    const size_t len = item->to - item->from, max = len * 3;
    int32_t *tokens = mem_alloc(max + 1, sizeof *tokens);
    const size_t n = tok_clip_encode(buf_str(&s->text) + item->from, len, tokens, max);
    deal_tokens(d, tokens, n, item->weight);
    free(tokens);
}

/* Brackets multiply: without a limit, deep ones would give what is no number any more. */
static bool within(const prompt *p) {
    for (size_t i = 0; i < (size_t)p->chunks * PROMPT_CHUNK; i++)
        if (!(fabsf(p->weights[i]) <= weight_max)) return false;
    return true;
}

bool prompt_parse(prompt *p, const char *text, const prompt_words *words, err *e) {
    if (strlen(text) > PROMPT_MAX_BYTES)
        return err_set(e, ERR_TOO_LARGE, "the prompt is longer than %d bytes", PROMPT_MAX_BYTES);
    prompt out = {0};
    spans *s = mem_alloc(1, sizeof *s);
    s->items = mem_alloc(MAX_SPANS, sizeof *s->items);
    buf_init(&s->text, PROMPT_MAX_BYTES);
    dealer d = {.p = &out, .words = words};
    cut_spans(s, text);
    join_spans(s);
    for (size_t i = 0; i < s->count && !d.full; i++) deal_span(&d, s, &s->items[i]);
    if (d.count || !out.chunks) close_chunk(&d, d.count);
    const bool wild = !within(&out);
    const bool ok = !s->full && !d.full && !wild;
    if (!s->full && d.full)
        err_set(e, ERR_TOO_LARGE, "the prompt has more than %d tokens", PROMPT_MAX_CHUNKS * BODY);
    else if (s->full)
        err_set(e, ERR_TOO_LARGE, "the prompt has too many brackets");
    else if (wild)
        err_set(e, ERR_INVALID, "an attention weight is beyond %g", (double)weight_max);
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

bool prompt_equal(const prompt *a, const prompt *b) {
    const size_t n = (size_t)a->chunks * PROMPT_CHUNK;
    return a->chunks == b->chunks && a->emphasis == b->emphasis &&
           memcmp(a->tokens, b->tokens, n * sizeof *a->tokens) == 0 &&
           memcmp(a->weights, b->weights, n * sizeof *a->weights) == 0;
}

void prompt_copy(prompt *to, const prompt *p, int chunks) {
    const size_t n = (size_t)p->chunks * PROMPT_CHUNK;
    prompt copy = {.emphasis = p->emphasis};
    while (copy.chunks < p->chunks || copy.chunks < chunks) add_chunk(&copy);
    memcpy(copy.tokens, p->tokens, n * sizeof *p->tokens);
    memcpy(copy.weights, p->weights, n * sizeof *p->weights);
    *to = copy;
}

/* --- Emphasis ---------------------------------------------------------------------------------------------------- */

static double mean_of(const float *z, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)z[i];
    return sum / (double)count;
}

static bool is_plain(const float *weights, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (weights[i] != 1.0f) return false;
    return true;
}

bool prompt_needs_empty(const prompt *p) {
    return p->emphasis == PROMPT_EMPHASIS_COMFY && !is_plain(p->weights, (size_t)p->chunks * PROMPT_CHUNK);
}

static void multiply_rows(const float *weights, float *z, size_t dim) {
    const size_t count = PROMPT_CHUNK * dim;
    const double before = mean_of(z, count);
    for (size_t i = 0; i < count; i++) z[i] *= weights[i / dim];
    const double after = mean_of(z, count);
    if (after == 0) return;
    const float scale = (float)(before / after);
    for (size_t i = 0; i < count; i++) z[i] *= scale;
}

static void move_rows(const float *weights, float *z, const float *empty, size_t dim) {
    for (size_t i = 0; i < PROMPT_CHUNK * dim; i++)
        if (weights[i / dim] != 1.0f) z[i] = (z[i] - empty[i]) * weights[i / dim] + empty[i];
}

void prompt_emphasize(const prompt *p, int chunk, float *z, const float *empty, int dim) {
    const float *weights = p->weights + (size_t)chunk * PROMPT_CHUNK;
    if (p->emphasis == PROMPT_EMPHASIS_NONE || is_plain(weights, PROMPT_CHUNK)) return;
    if (p->emphasis == PROMPT_EMPHASIS_COMFY)
        move_rows(weights, z, empty, (size_t)dim);
    else
        multiply_rows(weights, z, (size_t)dim);
}
