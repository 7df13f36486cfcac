/* task.h - a submitted request: checked, copied, its prompt turned into tokens. */
#ifndef MYSTI_LLM_TASK_H
#define MYSTI_LLM_TASK_H

#include "llm/model.h"
#include "llm/sampling.h"
#include "llm/text_out.h"

typedef struct llm_task {
    uint64_t id;
    llm_sink sink;
    llama_token *prompt; /* [prompt_count] */
    size_t prompt_count;
    llama_token *resume; /* [resume_count] */
    size_t resume_count;
    size_t most; /* tokens the answer may have: max_tokens and what fits behind the prompt */
    sampling *sampling;
    text_out text;
    struct llm_task *next; /* in the queue */
} llm_task;

/* NULL with ERR_INVALID or ERR_TOO_LARGE. */
llm_task *llm_task_create(const llm_model *m, const llm_request *r, const llm_sink *sink, uint64_t id, err *e);
void llm_task_free(llm_task *t); /* NULL is fine */

#endif
