/* embed.c - see embed.h. One request at a time, one text of it after the other. */
#include "llm/embed.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct text {
    llama_token *tokens; /* [count] */
    size_t count;
} text;

typedef struct task {
    uint64_t id;
    llm_embed_sink sink;
    text *texts; /* [count] */
    size_t count;
    int dimensions;
    size_t at, used; /* the text at hand, and how many of its tokens are computed */
    int total;       /* tokens of all texts */
    struct task *next;
} task;

struct embedder {
    const llm_model *model;
    struct llama_context *ctx;
    struct llama_batch batch;
    size_t chunk;   /* tokens per batch */
    size_t longest; /* tokens a text may have */
    int width;
    double *sum; /* [width] over the tokens so far, where we pool */
    float *out;  /* [width] */
    task *first, **last;
};

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* Before there is a context that knows it. */
static enum llama_pooling_type pooling_of(const llm_model *m) {
    uint64_t type = llm_model_meta_number(m, "pooling_type", LLAMA_POOLING_TYPE_NONE);
    return type <= LLAMA_POOLING_TYPE_RANK ? (enum llama_pooling_type)type : LLAMA_POOLING_TYPE_NONE;
}

embedder *embedder_open(const llm_model *m, const llm_hooks *hooks, err *e) {
    enum llama_pooling_type pooling = pooling_of(m);
    if (pooling == LLAMA_POOLING_TYPE_RANK) {
        err_set(e, ERR_UNSUPPORTED, "the model rates texts and makes no embeddings");
        return NULL;
    }
    /* Only these two can be told from the last chunk, or from the sum over all of them. */
    bool chunks = m->info.generates && (pooling == LLAMA_POOLING_TYPE_NONE || pooling == LLAMA_POOLING_TYPE_LAST);
    size_t longest = (size_t)m->info.n_ctx;
    if (!chunks && longest > EMBED_WHOLE_MAX) longest = EMBED_WHOLE_MAX;
    size_t chunk = chunks && longest > EMBED_CHUNK ? EMBED_CHUNK : longest;
    struct llama_context *ctx = llm_model_embedding_context(m, (int)longest, (int)chunk, hooks, e);
    if (!ctx) return NULL;
    embedder *em = mem_alloc(1, sizeof *em);
    *em = (embedder){.model = m,
                     .ctx = ctx,
                     .batch = llama_batch_init((int)chunk, 0, 1),
                     .chunk = chunk,
                     .longest = longest,
                     .width = llama_model_n_embd_out(m->weights)};
    em->sum = mem_alloc((size_t)em->width, sizeof *em->sum);
    em->out = mem_alloc((size_t)em->width, sizeof *em->out);
    em->last = &em->first;
    return em;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

static void free_task(task *t) {
    for (size_t i = 0; i < t->count; i++) free(t->texts[i].tokens);
    free(t->texts);
    free(t);
}

static bool copy_tokens(const embedder *em, const llm_embed_input *in, text *out, err *e) {
    for (size_t i = 0; i < in->token_count; i++)
        if (in->tokens[i] < 0 || in->tokens[i] >= em->model->n_vocab)
            return err_set(e, ERR_INVALID, "[%zu]: %d is not one of the model's %d tokens", i, (int)in->tokens[i],
                           em->model->n_vocab);
    out->tokens = mem_alloc(in->token_count, sizeof *out->tokens);
    if (in->token_count) memcpy(out->tokens, in->tokens, in->token_count * sizeof *out->tokens);
    out->count = in->token_count;
    return true;
}

static bool read_text(const embedder *em, const llm_embed_input *in, text *out, err *e) {
    bool ok = in->text ? llm_model_tokenize(em->model, in->text, true, &out->tokens, &out->count, e)
                       : copy_tokens(em, in, out, e);
    if (!ok) return false;
    if (!out->count) return err_set(e, ERR_INVALID, ": it has no tokens");
    if (out->count > em->longest)
        return err_set(e, ERR_TOO_LARGE, ": it has %zu tokens, but the model takes at most %zu", out->count,
                       em->longest);
    return true;
}

bool embedder_submit(embedder *em, const llm_embed_request *r, const llm_embed_sink *sink, uint64_t id, err *e) {
    if (r->dimensions < 0 || r->dimensions > em->width)
        return err_set(e, ERR_INVALID, "dimensions: %d is not between 1 and %d", r->dimensions, em->width);
    task *t = mem_alloc(1, sizeof *t);
    *t = (task){.id = id, .sink = *sink, .dimensions = r->dimensions ? r->dimensions : em->width};
    t->texts = mem_alloc(r->count, sizeof *t->texts);
    for (size_t i = 0; i < r->count; i++) {
        err why = {0};
        t->count = i + 1;
        if (!read_text(em, &r->inputs[i], &t->texts[i], &why)) {
            err_set(e, (err_code)why.code, "input[%zu]%s%s", i, why.msg[0] == '[' || why.msg[0] == ':' ? "" : ": ",
                    why.msg);
            free_task(t);
            return false;
        }
        t->total += (int)t->texts[i].count;
    }
    *em->last = t;
    em->last = &t->next;
    return true;
}

static task *take_first(embedder *em) {
    task *t = em->first;
    em->first = t->next;
    if (!em->first) em->last = &em->first;
    return t;
}

static void fail_task(task *t, const err *why) {
    t->sink.failed(t->sink.ctx, why);
    free_task(t);
}

void embedder_cancel(embedder *em, uint64_t id) {
    err cancelled;
    err_set(&cancelled, ERR_CANCELLED, "cancelled");
    for (task **at = &em->first; *at; at = &(*at)->next) {
        task *t = *at;
        if (t->id != id) continue;
        *at = t->next;
        if (!*at) em->last = at;
        fail_task(t, &cancelled);
        return;
    }
}

int embedder_waiting(const embedder *em) {
    int n = 0;
    for (const task *t = em->first; t; t = t->next) n++;
    return n;
}

void embedder_close(embedder *em, const err *why) {
    if (!em) return;
    while (em->first) fail_task(take_first(em), why);
    llama_batch_free(em->batch);
    llama_free(em->ctx);
    free(em->sum);
    free(em->out);
    free(em);
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

static bool decode(embedder *em, err *e) {
    int rc = llama_decode(em->ctx, em->batch);
    if (rc == 0) return true;
    if (rc == 2) return err_set(e, ERR_CANCELLED, "the computation was stopped");
    return err_set(e, rc == 1 ? ERR_MEMORY : ERR_DEVICE, "the computation failed (%d)", rc);
}

static bool pools_itself(const embedder *em) {
    return llama_pooling_type(em->ctx) != LLAMA_POOLING_TYPE_NONE;
}

static bool add_up(embedder *em, size_t count, err *e) {
    for (size_t i = 0; i < count; i++) {
        const float *v = llama_get_embeddings_ith(em->ctx, (int)i);
        if (!v) return err_set(e, ERR_INTERNAL, "the model gave no vector for token %zu", i);
        for (int k = 0; k < em->width; k++) em->sum[k] += (double)v[k];
    }
    return true;
}

/* Cut to the first n numbers and brought to length 1. */
static bool finish_vector(embedder *em, size_t tokens, int n, err *e) {
    const float *pooled = pools_itself(em) ? llama_get_embeddings_seq(em->ctx, 0) : NULL;
    if (pools_itself(em) && !pooled) return err_set(e, ERR_INTERNAL, "the model gave no vector");
    double square = 0;
    for (int k = 0; k < n; k++) {
        double x = pooled ? (double)pooled[k] : em->sum[k] / (double)tokens;
        em->out[k] = (float)x;
        square += x * x;
    }
    if (!isfinite(square)) return err_set(e, ERR_DEVICE, "the model computed something that is not a number");
    for (int k = 0; square > 0 && k < n; k++) em->out[k] = (float)((double)em->out[k] / sqrt(square));
    return true;
}

static void begin_text(embedder *em) {
    llama_memory_t memory = llama_get_memory(em->ctx);
    if (memory) llama_memory_clear(memory, false);
    memset(em->sum, 0, (size_t)em->width * sizeof *em->sum);
}

static bool compute_chunk(embedder *em, task *t, err *e) {
    const text *x = &t->texts[t->at];
    size_t n = x->count - t->used < em->chunk ? x->count - t->used : em->chunk;
    if (t->used == 0) begin_text(em);
    em->batch.n_tokens = (int)n;
    for (size_t i = 0; i < n; i++) {
        em->batch.token[i] = x->tokens[t->used + i];
        em->batch.pos[i] = (llama_pos)(t->used + i);
        em->batch.n_seq_id[i] = 1;
        em->batch.seq_id[i][0] = 0;
        em->batch.logits[i] = true;
    }
    if (!decode(em, e) || (!pools_itself(em) && !add_up(em, n, e))) return false;
    t->used += n;
    return true;
}

bool embedder_step(embedder *em) {
    task *t = em->first;
    err e = {0};
    if (!t) return false;
    const text *x = &t->texts[t->at];
    bool ok = compute_chunk(em, t, &e);
    if (ok && t->used == x->count) {
        ok = finish_vector(em, x->count, t->dimensions, &e);
        if (ok) t->sink.vector(t->sink.ctx, t->at, em->out, t->dimensions);
        t->at++;
        t->used = 0;
    }
    if (!ok) {
        fail_task(take_first(em), &e);
    } else if (t->at == t->count) {
        take_first(em);
        t->sink.done(t->sink.ctx, t->total);
        free_task(t);
    }
    return true;
}
