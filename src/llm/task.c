/* task.c - see task.h. */
#include "llm/task.h"
#include "base/str.h"
#include "llm/chat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool in_range(const char *name, float v, float min, float max, err *e) {
    if (v >= min && v <= max) return true; /* false for NaN */
    return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", name, (double)v, (double)min, (double)max);
}

static bool check_numbers(const llm_request *r, err *e) {
    if (r->max_tokens < -1) return err_set(e, ERR_INVALID, "max_tokens: %d is less than -1", r->max_tokens);
    if (r->top_k < 0) return err_set(e, ERR_INVALID, "top_k: %d is less than 0", r->top_k);
    return in_range("temperature", r->temperature, 0, 100, e) && in_range("top_p", r->top_p, 0, 1, e) &&
           in_range("min_p", r->min_p, 0, 1, e) && in_range("repeat_penalty", r->repeat_penalty, 0.01f, 100, e) &&
           in_range("presence_penalty", r->presence_penalty, -100, 100, e) &&
           in_range("frequency_penalty", r->frequency_penalty, -100, 100, e);
}

static bool check_lists(const llm_model *m, const llm_request *r, err *e) {
    if (!r->messages == !r->prompt) return err_set(e, ERR_INVALID, "exactly one of messages and prompt is required");
    if (r->stop_count > LLM_STOPS_MAX) return err_set(e, ERR_INVALID, "stop: more than %d strings", (int)LLM_STOPS_MAX);
    for (size_t i = 0; i < r->resume_count; i++)
        if (r->resume[i] < 0 || r->resume[i] >= m->n_vocab)
            return err_set(e, ERR_INVALID, "resume[%zu]: %d is not one of the model's %d tokens", i, (int)r->resume[i],
                           m->n_vocab);
    return true;
}

static bool read_prompt(llm_task *t, const llm_model *m, const llm_request *r, err *e) {
    char *chat = NULL;
    if (r->messages && !(chat = chat_render(m->chat_template, r->messages, r->message_count, e))) return false;
    bool ok = llm_model_tokenize(m, chat ? chat : r->prompt, true, &t->prompt, &t->prompt_count, e);
    free(chat);
    if (!ok) return err_wrap(e, "%s", r->messages ? "messages" : "prompt");
    if (t->prompt_count) return true;
    /* An empty text for a model without a beginning-of-text token: there is nothing to go on from. */
    return err_set(e, ERR_INVALID, "the prompt has no tokens");
}

static bool check_room(llm_task *t, const llm_model *m, const llm_request *r, err *e) {
    size_t n_ctx = (size_t)m->info.n_ctx;
    if (t->prompt_count >= n_ctx)
        return err_set(e, ERR_TOO_LARGE, "the prompt has %zu tokens, but the context is %zu tokens long",
                       t->prompt_count, n_ctx);
    t->most = n_ctx - t->prompt_count;
    if (r->max_tokens >= 0 && (size_t)r->max_tokens < t->most) t->most = (size_t)r->max_tokens;
    return true;
}

llm_task *llm_task_create(const llm_model *m, const llm_request *r, const llm_sink *sink, uint64_t id, err *e) {
    llm_task *t = mem_alloc(1, sizeof *t);
    t->id = id;
    t->sink = *sink;
    t->resume_count = r->resume_count;
    text_out_init(&t->text, r->stop, r->stop_count <= LLM_STOPS_MAX ? r->stop_count : 0);
    if (!check_numbers(r, e) || !check_lists(m, r, e) || !read_prompt(t, m, r, e) || !check_room(t, m, r, e)) {
        llm_task_free(t);
        return NULL;
    }
    t->resume = mem_alloc(r->resume_count, sizeof *t->resume);
    if (r->resume_count) memcpy(t->resume, r->resume, r->resume_count * sizeof *t->resume);
    t->sampling = sampling_open(r, m->n_vocab, m->end_tokens, r->ignore_eos ? m->end_count : 0);
    return t;
}

void llm_task_free(llm_task *t) {
    if (!t) return;
    free(t->prompt);
    free(t->resume);
    sampling_close(t->sampling);
    text_out_free(&t->text);
    free(t);
}
