/* slot.c - see slot.h. */
#include "llm/slot.h"
#include "base/clock.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum { REPORT_MAX = 16 << 20 };

void slot_init(slot *s, int seq, int n_ctx) {
    *s = (slot){.seq = seq, .cells = mem_alloc((size_t)n_ctx, sizeof *s->cells)};
    buf_init(&s->ids, REPORT_MAX);
    buf_init(&s->shown, REPORT_MAX);
}

void slot_free(slot *s) {
    free(s->cells);
    buf_free(&s->ids);
    buf_free(&s->shown);
}

/* Whole chunks only, computed as prompt: their values are then what a fresh slot would compute (see engine.h). At least
 * the last token of the prompt is computed again, for its logits. */
size_t slot_reusable(const slot *s, const llm_model *m, const llm_task *t) {
    size_t limit = s->exact < t->prompt_count - 1 ? s->exact : t->prompt_count - 1;
    size_t same = 0;
    while (same < limit && s->cells[same] == t->prompt[same]) same++;
    return same - same % (size_t)m->chunk;
}

static void forget_cache(slot *s, const llm_model *m) {
    llama_memory_seq_rm(llama_get_memory(m->ctx), s->seq, -1, -1);
    s->used = s->exact = 0;
}

/* Cuts the cache back to `keep` tokens. Recurrent states can't be cut, and a sliding window may have lost what the
 * remaining tokens look back at: then everything goes. */
static void cut_cache(slot *s, const llm_model *m, size_t keep) {
    llama_memory_t mem = llama_get_memory(m->ctx);
    bool window_lost = false;
    if (m->n_swa > 0 && keep > 0) {
        llama_pos first_needed = (llama_pos)keep > m->n_swa ? (llama_pos)keep - m->n_swa : 0;
        window_lost = llama_memory_seq_pos_min(mem, s->seq) > first_needed;
    }
    if (keep == 0 || window_lost || !llama_memory_seq_rm(mem, s->seq, (llama_pos)keep, -1)) {
        forget_cache(s, m);
        return;
    }
    s->used = keep;
    if (s->exact > keep) s->exact = keep;
}

void slot_begin(slot *s, const llm_model *m, llm_task *t) {
    cut_cache(s, m, slot_reusable(s, m, t));
    s->task = t;
    s->made = 0;
    buf_clear(&s->ids);
    buf_clear(&s->shown);
    s->began_ns = s->answered_ns = clock_mono_ns();
    s->usage = (llm_usage){.prompt_tokens = (int)t->prompt_count, .cached_tokens = (int)s->used};
    for (size_t i = 0; i < t->prompt_count; i++) sampling_accept(t->sampling, t->prompt[i]);
    if (t->sink.started) t->sink.started(t->sink.ctx, &s->usage);
}

bool slot_generates(const slot *s) {
    if (!s->task || slot_reads_prompt(s)) return false;
    return !s->task->sink.ready || s->task->sink.ready(s->task->sink.ctx);
}

static void report(slot *s) {
    const llm_sink *sink = &s->task->sink;
    if (sink->tokens)
        sink->tokens(sink->ctx, (const int32_t *)(const void *)s->ids.data, s->ids.len / sizeof(llama_token),
                     buf_str(&s->shown), s->shown.len);
    buf_clear(&s->ids);
    buf_clear(&s->shown);
}

static void release(slot *s) {
    llm_task_free(s->task);
    s->task = NULL;
    if (s->exact > s->used) s->exact = s->used;
}

void slot_finish(slot *s, llm_finish why) {
    llm_task *t = s->task;
    text_out_finish(&t->text, &s->shown); /* nothing is held after a stop string */
    if (s->ids.len || s->shown.len) report(s);
    s->usage.completion_tokens = (int)s->made;
    s->usage.predict_ms = (double)(clock_mono_ns() - s->answered_ns) / 1e6;
    if (t->sink.done) t->sink.done(t->sink.ctx, why, &s->usage);
    release(s);
}

void slot_fail(slot *s, const llm_model *m, const err *e) {
    if (e->code == ERR_CANCELLED)
        cut_cache(s, m, s->used); /* of an interrupted step a part may be there */
    else
        forget_cache(s, m);
    if (s->task->sink.failed) s->task->sink.failed(s->task->sink.ctx, e);
    release(s);
}

/* A token of the answer; true when its text ends with a stop string. Of a replayed token everything is done again, in
 * the same order, but for telling: what it held back is held back again. */
static bool take_token(slot *s, const llm_model *m, llama_token token, bool replayed) {
    llm_task *t = s->task;
    buf piece;
    buf_init(&piece, REPORT_MAX);
    sampling_accept(t->sampling, token);
    llm_model_piece(m, token, &piece);
    buf_append(&s->ids, &token, sizeof token);
    bool stopped = text_out_push(&t->text, buf_str(&piece), piece.len, &s->shown);
    buf_free(&piece);
    s->made++;
    s->next = token;
    if (replayed) {
        buf_clear(&s->ids);
        buf_clear(&s->shown);
    }
    return stopped;
}

void slot_advance(slot *s, const llm_model *m, const float *logits) {
    llm_task *t = s->task;
    if (s->made == 0) {
        s->answered_ns = clock_mono_ns();
        s->usage.prompt_ms = (double)(s->answered_ns - s->began_ns) / 1e6;
    }
    if (s->made >= t->most) {
        slot_finish(s, LLM_LENGTH);
        return;
    }
    bool replayed = s->made < t->resume_count;
    llama_token token = replayed ? t->resume[s->made] : (logits ? sampling_pick(t->sampling, logits, s->made) : -1);
    if (token < 0) {
        err e;
        err_set(&e, ERR_DEVICE, "the model computed something that is not a number");
        slot_fail(s, m, &e);
        return;
    }
    if (llama_vocab_is_eog(m->vocab, token)) {
        slot_finish(s, LLM_STOP);
        return;
    }
    if (take_token(s, m, token, replayed))
        slot_finish(s, LLM_STOP);
    else if (s->made >= t->most)
        slot_finish(s, LLM_LENGTH);
    else if (s->shown.len)
        report(s);
}
