/* embed.h - texts to vectors, piece by piece.
 *
 * Has a context of its own beside the one that generates, made when it is first needed: memory for one sequence of the
 * model's n_ctx. How the vectors of the tokens become one is the model's business (pooling_type in its file); a model
 * that does not say it, as those that are made for text do not, gets their mean. The result has length 1.
 *
 * Models that look in one direction read a text in chunks. Those that look in both, and those that libllama pools
 * itself, have to take it in one piece: there a text is at most EMBED_WHOLE_MAX tokens long. */
#ifndef MYSTI_LLM_EMBED_H
#define MYSTI_LLM_EMBED_H

#include "llm/model.h"

enum { EMBED_WHOLE_MAX = 2048, EMBED_CHUNK = 128 };

typedef struct embedder embedder;

/* Borrows both until it is closed. ERR_UNSUPPORTED, ERR_MEMORY. */
embedder *embedder_open(const llm_model *m, const llm_hooks *hooks, err *e);
void embedder_close(embedder *em, const err *why); /* requests in hand fail with `why`. NULL is fine */

/* As llm_engine_embed(); `id` is the caller's. */
bool embedder_submit(embedder *em, const llm_embed_request *r, const llm_embed_sink *sink, uint64_t id, err *e);
void embedder_cancel(embedder *em, uint64_t id); /* fails it with ERR_CANCELLED; an id that has ended is fine */

/* One chunk of the oldest request. False when there is none. */
bool embedder_step(embedder *em);

int embedder_waiting(const embedder *em);

#endif
