/* sampling.c - see sampling.h. */
#include "llm/sampling.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>

enum { PENALTY_WINDOW = 64 };

struct sampling {
    struct llama_sampler *chain;
    int n_vocab;
    llama_token_data *candidates; /* [n_vocab] */
    uint64_t seed;
    uint64_t index; /* of the token being drawn */
};

/* SplitMix64's output function. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

double sampling_uniform(uint64_t seed, uint64_t index) {
    const uint64_t gamma = 0x9E3779B97F4A7C15u;
    uint64_t state = mix(seed + gamma); /* neighbouring seeds must not give shifted copies of one stream */
    return (double)(mix(state + gamma * (index + 1)) >> 11) * 0x1p-53;
}

static const char *draw_name(const struct llama_sampler *smpl) {
    (void)smpl;
    return "draw";
}

/* Inverse transform over softmax(logits), in the order of the candidates. */
static void draw_apply(struct llama_sampler *smpl, llama_token_data_array *c) {
    const sampling *s = smpl->ctx;
    float top = -INFINITY;
    for (size_t i = 0; i < c->size; i++) top = fmaxf(top, c->data[i].logit);
    double total = 0;
    for (size_t i = 0; i < c->size; i++) {
        c->data[i].p = expf(c->data[i].logit - top);
        total += (double)c->data[i].p;
    }
    double rest = sampling_uniform(s->seed, s->index) * total;
    c->selected = -1;
    for (size_t i = 0; i < c->size; i++) {
        if (c->data[i].p <= 0) continue;
        c->selected = (int64_t)i; /* rounding may leave a crumb of `rest`: then it is the last possible one */
        rest -= (double)c->data[i].p;
        if (rest < 0) break;
    }
}

static struct llama_sampler_i draw_interface = {.name = draw_name, .apply = draw_apply};

static void add_bans(struct llama_sampler *chain, int n_vocab, const llama_token *never, size_t count) {
    if (!count) return;
    llama_logit_bias *bias = mem_alloc(count, sizeof *bias);
    for (size_t i = 0; i < count; i++) bias[i] = (llama_logit_bias){.token = never[i], .bias = -INFINITY};
    llama_sampler_chain_add(chain, llama_sampler_init_logit_bias(n_vocab, (int32_t)count, bias));
    free(bias);
}

sampling *sampling_open(const llm_request *r, int n_vocab, const llama_token *never, size_t never_count) {
    sampling *s = mem_alloc(1, sizeof *s);
    s->n_vocab = n_vocab;
    s->seed = r->seed;
    s->candidates = mem_alloc((size_t)n_vocab, sizeof *s->candidates);
    struct llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    s->chain = llama_sampler_chain_init(params);
    add_bans(s->chain, n_vocab, never, never_count);
    llama_sampler_chain_add(s->chain, llama_sampler_init_penalties(n_vocab, PENALTY_WINDOW, r->repeat_penalty,
                                                                   r->frequency_penalty, r->presence_penalty));
    if (r->temperature <= 0) {
        llama_sampler_chain_add(s->chain, llama_sampler_init_greedy());
        return s;
    }
    llama_sampler_chain_add(s->chain, llama_sampler_init_top_k(r->top_k));
    llama_sampler_chain_add(s->chain, llama_sampler_init_top_p(r->top_p, 1));
    llama_sampler_chain_add(s->chain, llama_sampler_init_min_p(r->min_p, 1));
    llama_sampler_chain_add(s->chain, llama_sampler_init_temp(r->temperature));
    llama_sampler_chain_add(s->chain, llama_sampler_init(&draw_interface, s));
    return s;
}

void sampling_close(sampling *s) {
    if (!s) return;
    llama_sampler_free(s->chain);
    free(s->candidates);
    free(s);
}

void sampling_accept(sampling *s, llama_token token) {
    llama_sampler_accept(s->chain, token);
}

llama_token sampling_pick(sampling *s, const float *logits, uint64_t index) {
    for (int i = 0; i < s->n_vocab; i++) s->candidates[i] = (llama_token_data){.id = i, .logit = logits[i]};
    llama_token_data_array c = {.data = s->candidates, .size = (size_t)s->n_vocab, .selected = -1};
    s->index = index;
    llama_sampler_apply(s->chain, &c);
    if (c.selected < 0 || !isfinite(c.data[c.selected].logit)) return -1;
    return c.data[c.selected].id;
}
