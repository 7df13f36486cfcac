/* engine.c - requests to slots, slots to batches. What a request is stands in task.c, what a slot does in slot.c. */
#include "llm/engine.h"
#include "base/str.h"
#include "llm/embed.h"
#include "llm/slot.h"

#include <stdlib.h>
#include <string.h>

struct llm_engine {
    llm_model model;
    llm_hooks hooks;
    struct llama_batch batch;
    slot *slots;             /* [model.info.slots] */
    llm_task *first, **last; /* waiting, in order */
    embedder *embedder;      /* NULL until it is needed */
    uint64_t last_id, steps;
};

llm_request llm_request_default(void) {
    return (llm_request){
        .max_tokens = -1, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1};
}

const char *llm_finish_name(llm_finish f) {
    static const char *const names[] = {"stop", "length", "cancelled"};
    return names[f];
}

llm_engine *llm_engine_open(const char *path, const llm_options *o, const llm_hooks *hooks, err *e) {
    llm_engine *m = mem_alloc(1, sizeof *m);
    m->last = &m->first;
    if (hooks) m->hooks = *hooks;
    if (!llm_model_open(&m->model, path, o, &m->hooks, e)) {
        free(m);
        return NULL;
    }
    const llm_info *info = &m->model.info;
    m->batch = llama_batch_init(m->model.chunk > info->slots ? m->model.chunk : info->slots, 0, 1);
    m->slots = mem_alloc((size_t)info->slots, sizeof *m->slots);
    for (int i = 0; i < info->slots; i++) slot_init(&m->slots[i], i, info->n_ctx);
    return m;
}

const llm_info *llm_engine_describe(const llm_engine *m) {
    return &m->model.info;
}

bool llm_engine_tokenize(const llm_engine *m, const char *text, bool add_special, int32_t **tokens, size_t *count,
                         err *e) {
    return llm_model_tokenize(&m->model, text, add_special, tokens, count, e);
}

/* ---- requests ---- */

uint64_t llm_engine_submit(llm_engine *m, const llm_request *r, const llm_sink *sink, err *e) {
    if (!m->model.info.generates) {
        err_set(e, ERR_UNSUPPORTED, "the model makes embeddings, and no text");
        return 0;
    }
    llm_task *t = llm_task_create(&m->model, r, sink, m->last_id + 1, e);
    if (!t) return 0;
    *m->last = t;
    m->last = &t->next;
    return ++m->last_id;
}

uint64_t llm_engine_embed(llm_engine *m, const llm_embed_request *r, const llm_embed_sink *sink, err *e) {
    if (!m->embedder) m->embedder = embedder_open(&m->model, &m->hooks, e);
    if (!m->embedder || !embedder_submit(m->embedder, r, sink, m->last_id + 1, e)) return 0;
    return ++m->last_id;
}

static llm_task *take_first(llm_engine *m) {
    llm_task *t = m->first;
    m->first = t->next;
    if (!m->first) m->last = &m->first;
    t->next = NULL;
    return t;
}

/* Takes a waiting task out of the queue, or NULL. */
static llm_task *take_waiting(llm_engine *m, uint64_t id) {
    for (llm_task **at = &m->first; *at; at = &(*at)->next) {
        if ((*at)->id != id) continue;
        llm_task *t = *at;
        *at = t->next;
        if (!*at) m->last = at;
        return t;
    }
    return NULL;
}

void llm_engine_cancel(llm_engine *m, uint64_t id) {
    for (int i = 0; i < m->model.info.slots; i++) {
        if (m->slots[i].task && m->slots[i].task->id == id) {
            slot_finish(&m->slots[i], LLM_CANCELLED);
            return;
        }
    }
    if (m->embedder) embedder_cancel(m->embedder, id);
    llm_task *t = take_waiting(m, id);
    if (!t) return;
    llm_usage none = {.prompt_tokens = (int)t->prompt_count};
    if (t->sink.done) t->sink.done(t->sink.ctx, LLM_CANCELLED, &none);
    llm_task_free(t);
}

void llm_engine_close(llm_engine *m, const err *why) {
    if (!m) return;
    err closed;
    err_set(&closed, ERR_CANCELLED, "the model was unloaded");
    if (!why) why = &closed;
    for (int i = 0; i < m->model.info.slots; i++) {
        if (m->slots[i].task) slot_fail(&m->slots[i], &m->model, why);
        slot_free(&m->slots[i]);
    }
    while (m->first) {
        llm_task *t = take_first(m);
        if (t->sink.failed) t->sink.failed(t->sink.ctx, why);
        llm_task_free(t);
    }
    embedder_close(m->embedder, why);
    free(m->slots);
    llama_batch_free(m->batch);
    llm_model_close(&m->model);
    free(m);
}

llm_load llm_engine_load(const llm_engine *m) {
    llm_load load = {0};
    for (int i = 0; i < m->model.info.slots; i++) load.running += m->slots[i].task != NULL;
    for (const llm_task *t = m->first; t; t = t->next) load.waiting++;
    if (m->embedder) load.waiting += embedder_waiting(m->embedder);
    return load;
}

/* ---- a step ---- */

/* The free slot that saves most of the prompt; among equals the one whose cache was left longest ago. */
static slot *free_slot(llm_engine *m, const llm_task *t) {
    slot *best = NULL;
    size_t best_saved = 0;
    for (int i = 0; i < m->model.info.slots; i++) {
        slot *s = &m->slots[i];
        if (s->task) continue;
        size_t saved = slot_reusable(s, &m->model, t);
        if (best && (saved < best_saved || (saved == best_saved && s->last_used >= best->last_used))) continue;
        best = s;
        best_saved = saved;
    }
    return best;
}

static bool fill_slots(llm_engine *m) {
    bool any = false;
    slot *s;
    while (m->first && (s = free_slot(m, m->first))) { /* without slots none is ever queued */
        slot_begin(s, &m->model, take_first(m));
        s->order = ++m->steps;
        any = true;
    }
    return any;
}

static void add_to_batch(struct llama_batch *b, llama_token token, size_t pos, llama_seq_id seq, bool logits) {
    int i = b->n_tokens++;
    b->token[i] = token;
    b->pos[i] = (llama_pos)pos;
    b->n_seq_id[i] = 1;
    b->seq_id[i][0] = seq;
    b->logits[i] = logits;
}

static bool decode(llm_engine *m, err *e) {
    int rc = llama_decode(m->model.ctx, m->batch);
    if (rc == 0) return true;
    if (rc == 2) return err_set(e, ERR_CANCELLED, "the computation was stopped");
    if (rc == 1) return err_set(e, ERR_MEMORY, "the context has no room for %d more tokens", (int)m->batch.n_tokens);
    return err_set(e, ERR_DEVICE, "the computation failed (%d)", rc);
}

/* One token for each slot that generates. */
static bool generate(llm_engine *m) {
    slot *who[LLM_SLOTS_MAX];
    m->batch.n_tokens = 0;
    for (int i = 0; i < m->model.info.slots; i++) {
        slot *s = &m->slots[i];
        if (!slot_generates(s)) continue;
        who[m->batch.n_tokens] = s;
        add_to_batch(&m->batch, s->next, s->used, s->seq, true);
    }
    int n = m->batch.n_tokens;
    if (!n) return false;
    err e;
    bool ok = decode(m, &e);
    for (int i = 0; i < n; i++) {
        slot *s = who[i];
        if (!ok) {
            slot_fail(s, &m->model, &e);
            continue;
        }
        s->cells[s->used++] = s->next;
        s->last_used = ++m->steps;
        slot_advance(s, &m->model, llama_get_logits_ith(m->model.ctx, i));
    }
    return true;
}

static slot *oldest_reader(llm_engine *m) {
    slot *best = NULL;
    for (int i = 0; i < m->model.info.slots; i++) {
        slot *s = &m->slots[i];
        if (slot_reads_prompt(s) && (!best || s->order < best->order)) best = s;
    }
    return best;
}

/* One chunk of the oldest prompt that is not yet read. Chunks begin at multiples of the chunk length. */
static bool read_prompt(llm_engine *m) {
    slot *s = oldest_reader(m);
    if (!s) return false;
    const llm_task *t = s->task;
    size_t end = s->used + (size_t)m->model.chunk;
    if (end > t->prompt_count) end = t->prompt_count;
    bool last = end == t->prompt_count;
    m->batch.n_tokens = 0;
    for (size_t i = s->used; i < end; i++) add_to_batch(&m->batch, t->prompt[i], i, s->seq, last && i + 1 == end);
    err e;
    if (!decode(m, &e)) {
        slot_fail(s, &m->model, &e);
        return true;
    }
    memcpy(s->cells + s->used, t->prompt + s->used, (end - s->used) * sizeof *s->cells);
    s->used = s->exact = end;
    s->last_used = ++m->steps;
    if (last) slot_advance(s, &m->model, llama_get_logits_ith(m->model.ctx, m->batch.n_tokens - 1));
    return true;
}

bool llm_engine_step(llm_engine *m) {
    bool any = fill_slots(m);
    any |= generate(m);
    any |= read_prompt(m);
    if (m->embedder) any |= embedder_step(m->embedder);
    return any;
}
