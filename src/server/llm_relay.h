/* llm_relay.h - text requests between a client and the LLM worker.
 *
 * The server keeps the tokens that it has passed on. When the worker dies in mid-answer, the request is sent again
 * with them, and the same answer goes on with the next token; the client sees a pause. Loop thread only. */
#ifndef MYSTI_SERVER_LLM_RELAY_H
#define MYSTI_SERVER_LLM_RELAY_H

#include "base/buf.h"
#include "net/http_req.h"
#include "server/app.h"

typedef struct llm_relay llm_relay;

enum { LLM_RELAY_MAX = 256 }; /* requests at a time, running and waiting; one more gets 429 */

llm_relay *llm_relay_new(app *a);

/* Answers what is still open with an error. */
void llm_relay_stop(llm_relay *r);

void llm_relay_free(llm_relay *r);

/* Answers are under way. */
bool llm_relay_busy(const llm_relay *r);

/* Appends the ids of the requests that the worker is, or was until it died just now, working at: "chatcmpl-1f,cmpl-2e",
 * the newest first. */
void llm_relay_write_running(const llm_relay *r, buf *out);

/* Handlers for POST /v1/chat/completions, /v1/completions, /v1/prompt/enhance, /v1/embeddings; ctx is the app. */
void llm_relay_chat(void *ctx, http_req *req);
void llm_relay_completion(void *ctx, http_req *req);
void llm_relay_enhance(void *ctx, http_req *req);
void llm_relay_embeddings(void *ctx, http_req *req);

#endif
