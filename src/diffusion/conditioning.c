#include "diffusion/conditioning.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int conditioning_calls(const sampler *kind) {
    return kind->traits & SAMPLER_TWICE ? 2 : 1;
}

/* Every text of a plan, tokenized. */
typedef struct tokenized {
    prompt *prompts; /* [plan->text_count] */
    int count;       /* so far */
} tokenized;

static void tokenized_free(tokenized *t) {
    for (int i = 0; i < t->count; i++) prompt_free(&t->prompts[i]);
    free(t->prompts);
}

static bool tokenize(const prompt_plan *plan, const prompt_words *words, prompt_emphasis emphasis, tokenized *out,
                     err *e) {
    out->prompts = mem_alloc((size_t)plan->text_count, sizeof *out->prompts);
    for (; out->count < plan->text_count; out->count++) {
        prompt *p = &out->prompts[out->count];
        if (!prompt_parse(p, plan->texts[out->count], words, e)) return false;
        p->emphasis = emphasis;
    }
    return true;
}

static int most_chunks(const plan_part *part, const tokenized *t) {
    int most = 0;
    for (int i = 0; i < part->count; i++) {
        const int chunks = t->prompts[part->pieces[i].text].chunks;
        if (chunks > most) most = chunks;
    }
    return most;
}

/* --- the label --------------------------------------------------------------------------------------------------- */

/* What the refiner's training pictures were rated: A1111's defaults for what is wanted and what is not. */
static const float high_score = 6.0f, low_score = 2.5f;

enum { LABEL_NUMBERS = 6 };

/* The picture is told to be no crop of a larger one. */
static int label_numbers(family_label kind, const conditioning_use *use, float out[LABEL_NUMBERS]) {
    const float w = (float)use->width, h = (float)use->height, score = use->is_negative ? low_score : high_score;
    const float size[] = {h, w, 0, 0, h, w}, scored[] = {h, w, 0, 0, score};
    if (kind == LABEL_NONE) return 0;
    const bool is_size = kind == LABEL_SIZE;
    memcpy(out, is_size ? size : scored, is_size ? sizeof size : sizeof scored);
    return is_size ? (int)(sizeof size / sizeof *size) : (int)(sizeof scored / sizeof *scored);
}

int conditioning_label_dim(const family *f, int pooled_dim) {
    float numbers[LABEL_NUMBERS];
    const int count = label_numbers(f->label, &(conditioning_use){0}, numbers);
    return count ? pooled_dim + count * LABEL_WIDTH : 0;
}

/* As a timestep is embedded, cosines first (LDM's order). */
static void embed_number(float number, float out[LABEL_WIDTH]) {
    const int half = LABEL_WIDTH / 2;
    for (int i = 0; i < half; i++) {
        const double angle = (double)number * exp(-log(10000.0) * i / half);
        out[i] = (float)cos(angle);
        out[half + i] = (float)sin(angle);
    }
}

/* Owned by the caller; NULL when the model has none. */
static float *make_label(const diffusion *d, const context *text, const conditioning_use *use) {
    float numbers[LABEL_NUMBERS];
    const int pooled = text_encoders_pooled_dim(d->text), count = label_numbers(d->family->label, use, numbers);
    if (!count) return NULL;
    float *label = mem_alloc((size_t)(pooled + count * LABEL_WIDTH), sizeof *label);
    memcpy(label, text->pooled, (size_t)pooled * sizeof *label);
    for (int i = 0; i < count; i++) embed_number(numbers[i], label + pooled + i * LABEL_WIDTH);
    return label;
}

/* --- encoding ---------------------------------------------------------------------------------------------------- */

/* What is to be encoded, and how. */
typedef struct encoding {
    diffusion *d;
    const tokenized *texts;
    const conditioning_use *use;
    int tokens; /* rows of each context */
    int skip;   /* or CONTEXT_SILENCE */
} encoding;

static const context *encode_text(const encoding *n, const prompt *p, int chunks, err *e) {
    prompt padded;
    prompt_copy(&padded, p, chunks);
    const learned_words *words = n->d->words;
    const context_source from = {n->d->text, words ? learned_words_vectors(words) : NULL};
    const context *c = context_get(&n->d->contexts, &from, &padded, n->skip, n->tokens, e);
    prompt_free(&padded);
    return c;
}

static bool encode_part(conditioning *c, int part, const encoding *n, err *e) {
    const plan_part *from = &c->plan.parts[part];
    const int chunks = most_chunks(from, n->texts);
    c->conditions[part] = mem_alloc((size_t)from->count, sizeof *c->conditions[part]);
    for (int i = 0; i < from->count; i++) {
        condition *to = &c->conditions[part][i];
        to->text = encode_text(n, &n->texts->prompts[from->pieces[i].text], chunks, e);
        if (!to->text) return false;
        to->label = make_label(n->d, to->text, n->use);
    }
    return true;
}

/* All that the prompt ever says is nothing at all. */
static bool is_silent(const prompt_plan *plan) {
    for (int i = 0; i < plan->text_count; i++)
        if (!str_empty(plan->texts[i])) return false;
    return true;
}

static bool encode(conditioning *c, diffusion *d, const tokenized *t, const conditioning_use *use, err *e) {
    encoding n = {.d = d, .texts = t, .use = use, .skip = use->skip};
    if (use->is_negative && d->family->is_silence_zero && is_silent(&c->plan)) n.skip = CONTEXT_SILENCE;
    for (int i = 0; i < c->plan.count; i++) {
        const int own = most_chunks(&c->plan.parts[i], t) * PROMPT_CHUNK;
        if (own > n.tokens) n.tokens = own;
    }
    c->conditions = mem_alloc((size_t)c->plan.count, sizeof *c->conditions);
    for (int i = 0; i < c->plan.count; i++)
        if (!encode_part(c, i, &n, e)) return false;
    return true;
}

bool conditioning_open(conditioning *c, diffusion *d, const char *text, const plan_span *span,
                       const conditioning_use *use, err *e) {
    tokenized t = {0};
    *c = (conditioning){0};
    const prompt_words *words = d->words ? learned_words_names(d->words) : NULL;
    const bool ok = prompt_plan_parse(&c->plan, text, span, e) && tokenize(&c->plan, words, use->emphasis, &t, e) &&
                    encode(c, d, &t, use, e);
    tokenized_free(&t);
    if (!ok) conditioning_close(c);
    return ok;
}

static void close_part(const plan_part *part, condition *conditions) {
    for (int i = 0; conditions && i < part->count; i++) free(conditions[i].label);
    free(conditions);
}

void conditioning_close(conditioning *c) {
    for (int i = 0; c->conditions && i < c->plan.count; i++) close_part(&c->plan.parts[i], c->conditions[i]);
    free(c->conditions);
    prompt_plan_free(&c->plan);
    *c = (conditioning){0};
}

const condition *conditioning_at(const conditioning *c, int part, int call) {
    return &c->conditions[part][plan_part_at(&c->plan.parts[part], call)];
}
