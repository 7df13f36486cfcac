/* slot.h - a place for a running request: one sequence of the context's cache, and how far its request is.
 *
 * A slot reads its prompt chunk by chunk, then alternates: its `next` token goes into a batch, and the logits that come
 * back give the one after it. What the cache holds stays behind when the request ends, for a follow-up that begins with
 * the same prompt. */
#ifndef MYSTI_LLM_SLOT_H
#define MYSTI_LLM_SLOT_H

#include "llm/task.h"

typedef struct slot {
    llama_seq_id seq;
    llama_token *cells; /* [n_ctx]: the tokens in the cache */
    size_t used;        /* of them */
    size_t exact;       /* of them, computed as part of a prompt: may be reused */
    uint64_t last_used; /* step number */

    llm_task *task;   /* owned; NULL: free */
    llama_token next; /* to be computed, once the prompt is read */
    size_t made;      /* tokens of the answer, `next` included */
    buf ids;          /* llama_token[]: made, not reported yet */
    buf shown;        /* text to report */
    llm_usage usage;
    int64_t began_ns, answered_ns; /* taken; first logits */
    uint64_t order;                /* of arrival in a slot */
} slot;

void slot_init(slot *s, int seq, int n_ctx);
void slot_free(slot *s); /* no task may be left */

/* How many tokens of the slot's cache `t` could go on from. */
size_t slot_reusable(const slot *s, const llm_model *m, const llm_task *t);

/* Takes the task over and reports its start. */
void slot_begin(slot *s, const llm_model *m, llm_task *t);

static inline bool slot_reads_prompt(const slot *s) {
    return s->task && s->used < s->task->prompt_count;
}

/* Whether a batch may have the slot's next token. */
bool slot_generates(const slot *s);

/* The logits [n_vocab] behind everything computed so far: chooses the next token, reports, and ends the task where it
 * ends. */
void slot_advance(slot *s, const llm_model *m, const float *logits);

void slot_finish(slot *s, llm_finish why);
void slot_fail(slot *s, const llm_model *m, const err *e); /* forgets the cache too, unless it was only cancelled */

#endif
