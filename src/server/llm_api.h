/* llm_api.h - OpenAI's text requests and answers as values: from JSON to the worker's request, from the worker's events
 * to chunks and completions. No sockets here. */
#ifndef MYSTI_SERVER_LLM_API_H
#define MYSTI_SERVER_LLM_API_H

#include "json/json.h"

typedef enum llm_shape {
    LLM_CHAT,       /* /v1/chat/completions */
    LLM_COMPLETION, /* /v1/completions */
    LLM_ENHANCE,    /* /v1/prompt/enhance: answers like LLM_CHAT */
    LLM_EMBEDDING,  /* /v1/embeddings; see llm_embeddings.h */
} llm_shape;

typedef struct llm_request {
    llm_shape shape;
    char *model;  /* as the client said it, or NULL */
    char *params; /* members of the worker's request, without the braces: "\"messages\":[...],\"seed\":7,..." */
    bool stream, include_usage;
    bool base64; /* embeddings: not as numbers */
} llm_request;

/* What the Magic Wand asks the model to do. */
extern const char llm_enhance_instruction[];

/* Checks everything; errors name the field. A seed that was not given is drawn here, so that a resumed answer goes on
 * with the same one. On failure nothing is held. */
bool llm_request_read(llm_request *r, llm_shape shape, const json_in *body, err *e);
void llm_request_free(llm_request *r);

/* Appends the worker's request; resume (may be empty) are the tokens that were made before. */
void llm_request_write(const llm_request *r, const char *id, const int32_t *resume, size_t resume_count, buf *out);

/* The head that all parts of an answer share. */
typedef struct llm_head {
    llm_shape shape;
    char id[48];       /* "chatcmpl-..." */
    int64_t created;   /* Unix seconds */
    const char *model; /* id shown to the client; borrowed */
} llm_head;

typedef struct llm_usage {
    int prompt_tokens, completion_tokens;
} llm_usage;

/* SSE events, each appended to `out` with its empty line. */
void llm_write_first_chunk(const llm_head *h, buf *out); /* chat: the role */
void llm_write_text_chunk(const llm_head *h, const char *text, buf *out);
void llm_write_last_chunk(const llm_head *h, const char *finish_reason, buf *out);
void llm_write_usage_chunk(const llm_head *h, const llm_usage *u, buf *out);
void llm_write_error_event(const err *e, buf *out);

/* The whole answer of a request that does not stream. */
void llm_write_completion(const llm_head *h, const char *text, const char *finish_reason, const llm_usage *u, buf *out);

#endif
