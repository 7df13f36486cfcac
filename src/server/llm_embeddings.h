/* llm_embeddings.h - OpenAI's embeddings: the request that is sent on to the worker, and the answer. No sockets here.
 */
#ifndef MYSTI_SERVER_LLM_EMBEDDINGS_H
#define MYSTI_SERVER_LLM_EMBEDDINGS_H

#include "server/llm_api.h"

enum { EMBEDDINGS_MAX = 2048 }; /* texts in a request */

/* As llm_request_read(), which calls it. */
bool llm_embeddings_read(llm_request *r, const json_in *body, err *e);

/* Appends the item of the answer's `data` that the worker's `embedding` line tells; a comma before all but the first.
 */
bool llm_embeddings_add(const llm_request *r, const json_in *line, buf *items, err *e);

/* The whole answer. */
void llm_embeddings_write(const llm_head *h, const buf *items, const llm_usage *u, buf *out);

#endif
