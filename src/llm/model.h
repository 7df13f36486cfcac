/* model.h - an opened model: weights, context with its cache, vocabulary, compute threads. */
#ifndef MYSTI_LLM_MODEL_H
#define MYSTI_LLM_MODEL_H

#include "base/buf.h"
#include "llm/engine.h"

#include <ggml-cpu.h>
#include <llama.h>

typedef struct llm_model {
    struct llama_model *weights;
    struct llama_context *ctx;       /* NULL when it generates nothing */
    const struct llama_vocab *vocab; /* the weights' */
    struct ggml_threadpool *pool;    /* sleeps between steps; NULL: the backend makes threads as it needs them */
    const char *chat_template;       /* the weights', or the name of a built-in one */
    llama_token *end_tokens;         /* end of turn, end of text: [end_count] */
    size_t end_count;
    int n_vocab;
    int n_swa; /* sliding window in tokens, 0: none */
    int chunk; /* prompt tokens per batch */
    llm_info info;
} llm_model;

/* As llm_engine_open. The hooks are borrowed as long as the model is open. */
bool llm_model_open(llm_model *m, const char *path, const llm_options *o, const llm_hooks *hooks, err *e);
void llm_model_close(llm_model *m);

/* A number from the file's metadata, by its name below the architecture's; `otherwise` when it is not there. */
uint64_t llm_model_meta_number(const llm_model *m, const char *name, uint64_t otherwise);

/* A further context on the same weights, for embeddings of one text of n_ctx tokens, which is given in batches of
 * n_batch; pooled as the model says. Freed with llama_free(). NULL: ERR_MEMORY, ERR_UNSUPPORTED. */
struct llama_context *llm_model_embedding_context(const llm_model *m, int n_ctx, int n_batch, const llm_hooks *hooks,
                                                  err *e);

/* Tokens of a text; special: names of special tokens in it stand for the tokens. *tokens is freed with free(). */
bool llm_model_tokenize(const llm_model *m, const char *text, bool add_special, llama_token **tokens, size_t *count,
                        err *e);

/* Appends the bytes of a token; special tokens have none. */
void llm_model_piece(const llm_model *m, llama_token token, buf *out);

#endif
