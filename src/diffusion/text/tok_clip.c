/* tok_clip.c - see tok_clip.h. Text becomes code points, code points words, words bytes, and bytes are merged pair by
 * pair in the order of the merge list (Sennrich et al. 2016). */
#include "diffusion/text/tok_clip.h"

#include "diffusion/text/clip_vocab.h"
#include "diffusion/text/unicode_tables.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = 1024, NO_MERGE = CLIP_MERGES, FIRST_MERGED = 512, WORD_END = 256 };

/* --- Characters -------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const unsigned char *at, *end;
} reader;

/* The next code point; U+FFFD for a byte that is not UTF-8. */
static uint32_t next_char(reader *r) {
    const unsigned char *p = r->at++;
    if (p[0] < 0x80) return p[0];
    const int more = p[0] >= 0xF0 && p[0] < 0xF5   ? 3
                     : p[0] >= 0xE0 && p[0] < 0xF0 ? 2
                     : p[0] >= 0xC2 && p[0] < 0xE0 ? 1
                                                   : 0;
    if (!more || r->end - p <= more) return 0xFFFD;
    uint32_t c = p[0] & (0x3Fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0xFFFD;
        c = c << 6 | (p[i] & 0x3F);
    }
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 0xFFFD;
    r->at += more;
    return c;
}

static size_t put_utf8(uint32_t c, unsigned char out[4]) {
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    out[0] = (unsigned char)(lead[more] | c >> (6 * more));
    for (int i = 1; i <= more; i++) out[i] = (unsigned char)(0x80 | ((c >> (6 * (more - i))) & 0x3F));
    return (size_t)more + 1;
}

static int compare_range(const void *key, const void *item) {
    const uint32_t c = *(const uint32_t *)key;
    const unicode_range *r = item;
    return c < r->first ? -1 : c > r->last;
}

static bool in_ranges(uint32_t c, const unicode_range *ranges, size_t count) {
    return bsearch(&c, ranges, count, sizeof *ranges, compare_range) != NULL;
}

typedef enum char_class { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER } char_class;

static bool is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static char_class classify(uint32_t c) {
    if (is_space(c)) return CLASS_SPACE;
    if (in_ranges(c, unicode_letters, unicode_letters_count)) return CLASS_LETTER;
    if (in_ranges(c, unicode_numbers, unicode_numbers_count)) return CLASS_NUMBER;
    return CLASS_OTHER;
}

static uint32_t to_lower(uint32_t c) {
    size_t low = 0, high = unicode_lower_count;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        const unicode_lower_run *run = &unicode_lower[mid];
        if (c < run->first)
            high = mid;
        else if (c > run->last)
            low = mid + 1;
        else
            return (c - run->first) % (uint32_t)run->step ? c : (uint32_t)((int32_t)c + run->distance);
    }
    return c;
}

/* --- Merging ----------------------------------------------------------------------------------------------------- */

/* The token of one byte: OpenAI's table lists printable Latin-1 first, then the rest in order. */
static uint16_t byte_token(unsigned char b) {
    if (b >= '!' && b <= '~') return (uint16_t)(b - '!');
    if (b >= 0xA1 && b <= 0xAC) return (uint16_t)(b - 0xA1 + 94);
    if (b >= 0xAE) return (uint16_t)(b - 0xAE + 106);
    if (b <= ' ') return (uint16_t)(b + 188);
    return (uint16_t)(b <= 0xA0 ? b - 0x7F + 221 : 255); /* 0x7F..0xA0, then 0xAD */
}

static int compare_merge(const void *key, const void *item) {
    const clip_merge *a = key, *b = item;
    if (a->left != b->left) return a->left < b->left ? -1 : 1;
    return a->right < b->right ? -1 : a->right > b->right;
}

static uint16_t merge_rank(uint16_t left, uint16_t right) {
    const clip_merge key = {left, right, 0};
    const clip_merge *m = bsearch(&key, clip_merges, CLIP_MERGES, sizeof key, compare_merge);
    return m ? m->rank : NO_MERGE;
}

/* A word being merged: its tokens, and for each the rank of the pair that it begins. */
typedef struct word {
    uint16_t tokens[WORD_MAX], ranks[WORD_MAX];
    size_t count;
} word;

static void rank_pair(word *w, size_t i) {
    w->ranks[i] = i + 1 < w->count ? merge_rank(w->tokens[i], w->tokens[i + 1]) : NO_MERGE;
}

/* Merges every pair of this rank, from left to right. */
static void merge_all(word *w, uint16_t rank) {
    size_t to = 0;
    for (size_t from = 0; from < w->count; from++, to++) {
        const bool merge = w->ranks[from] == rank;
        w->tokens[to] = merge ? (uint16_t)(FIRST_MERGED + rank) : w->tokens[from];
        w->ranks[to] = merge ? rank : w->ranks[from];
        if (merge) from++;
    }
    w->count = to;
    /* Only pairs next to a merged token are new. */
    for (size_t i = 0; i < to; i++)
        if (w->tokens[i] == FIRST_MERGED + rank || (i + 1 < to && w->tokens[i + 1] == FIRST_MERGED + rank))
            rank_pair(w, i);
}

static void merge_word(word *w) {
    for (size_t i = 0; i < w->count; i++) rank_pair(w, i);
    for (;;) {
        uint16_t best = NO_MERGE;
        for (size_t i = 0; i < w->count; i++)
            if (w->ranks[i] < best) best = w->ranks[i];
        if (best == NO_MERGE) return;
        merge_all(w, best);
    }
}

/* --- Words ------------------------------------------------------------------------------------------------------- */

typedef struct output {
    int32_t *tokens;
    size_t max, count;
} output;

static void put_token(output *o, int32_t token) {
    if (o->count < o->max) o->tokens[o->count] = token;
    o->count++;
}

/* Bytes of the word at hand, lower-cased. */
typedef struct pending {
    unsigned char bytes[WORD_MAX];
    size_t count;
} pending;

static void flush_word(pending *p, output *o) {
    if (!p->count) return;
    word w;
    w.count = p->count;
    for (size_t i = 0; i < p->count; i++) w.tokens[i] = byte_token(p->bytes[i]);
    w.tokens[p->count - 1] += WORD_END;
    merge_word(&w);
    for (size_t i = 0; i < w.count; i++) put_token(o, w.tokens[i]);
    p->count = 0;
}

static void put_char(pending *p, uint32_t c, output *o) {
    unsigned char utf8[4];
    const size_t n = put_utf8(c, utf8);
    if (p->count + n > WORD_MAX) flush_word(p, o);
    memcpy(p->bytes + p->count, utf8, n);
    p->count += n;
}

/* Whether a letter of a script with two cases follows; those are all below CJK. (Unicode looks past an apostrophe,
 * too.)
 */
static bool cased_letter_follows(reader r) {
    if (r.at == r.end) return false;
    const uint32_t c = next_char(&r);
    return c < 0x2E80 && classify(c) == CLASS_LETTER;
}

/* The state of the scan: what class the word at hand is of. */
typedef struct scan {
    pending word;
    char_class running;
    output out;
} scan;

static void take_char(scan *s, uint32_t c) {
    const char_class kind = classify(c);
    if (kind != s->running || kind == CLASS_NUMBER) flush_word(&s->word, &s->out);
    if (kind != CLASS_SPACE) put_char(&s->word, c, &s->out);
    s->running = kind;
}

/* One character in lower case, with the two that are no plain mapping: I with dot, and sigma at a word's end. */
static void take_lower(scan *s, uint32_t c, const reader *r) {
    if (c == 0x130) {
        take_char(s, 'i');
        take_char(s, 0x307);
    } else if (c == 0x3A3 && s->running == CLASS_LETTER && !cased_letter_follows(*r)) {
        take_char(s, 0x3C2);
    } else {
        take_char(s, to_lower(c));
    }
}

/* Length of a fixed piece at r: special tokens and English contractions; 0 when there is none. */
static size_t match_piece(const reader *r, int32_t *special) {
    static const struct {
        const char *text;
        int32_t token;
    } pieces[] = {{"<|startoftext|>", TOK_CLIP_BOS},
                  {"<|endoftext|>", TOK_CLIP_EOS},
                  {"'s", 0},
                  {"'t", 0},
                  {"'re", 0},
                  {"'ve", 0},
                  {"'m", 0},
                  {"'ll", 0},
                  {"'d", 0}};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        const size_t n = strlen(pieces[i].text);
        if ((size_t)(r->end - r->at) < n) continue;
        size_t k = 0;
        while (k < n && to_lower(r->at[k]) == (unsigned char)pieces[i].text[k]) k++;
        if (k < n) continue;
        *special = pieces[i].token;
        return n;
    }
    return 0;
}

static void take_piece(scan *s, reader *r, size_t n, int32_t special) {
    flush_word(&s->word, &s->out);
    if (special)
        put_token(&s->out, special);
    else
        for (size_t i = 0; i < n; i++) put_char(&s->word, to_lower(r->at[i]), &s->out);
    flush_word(&s->word, &s->out);
    r->at += n;
    s->running = CLASS_SPACE;
}

/* The original's pattern: pieces | letters+ | one number | others+, white space between them dropped. */
size_t tok_clip_encode(const char *text, size_t len, int32_t *out, size_t max) {
    reader r = {(const unsigned char *)text, (const unsigned char *)text + len};
    scan s = {.running = CLASS_SPACE, .out = {out, max, 0}};
    while (r.at < r.end) {
        int32_t special = 0;
        /* A run of other characters goes on over an apostrophe: pieces begin only where a word may. */
        const size_t n = s.running == CLASS_OTHER ? 0 : match_piece(&r, &special);
        if (n)
            take_piece(&s, &r, n, special);
        else
            take_lower(&s, next_char(&r), &r);
    }
    flush_word(&s.word, &s.out);
    return s.out.count;
}
