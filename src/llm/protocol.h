/* protocol.h - the LLM worker's requests and events as JSON; docs/worker-protocol.md is the reference. Pure functions:
 * no sockets, no model. */
#ifndef MYSTI_LLM_PROTOCOL_H
#define MYSTI_LLM_PROTOCOL_H

#include "base/buf.h"
#include "json/json.h"
#include "llm/engine.h"

/* POST /internal/complete. Owns the arrays and the document; the strings in `request` are the document's. */
typedef struct llm_completion {
    yyjson_doc *doc;
    const char *id; /* "" when there is none */
    llm_request request;
    llm_message *messages;
    const char **stops;
    int32_t *resume;
} llm_completion;

bool llm_completion_parse(llm_completion *c, const char *json, size_t len, err *e);
void llm_completion_free(llm_completion *c);

/* POST /internal/embed. Owns the arrays and the document; the texts are the document's. */
typedef struct llm_embedding {
    yyjson_doc *doc;
    const char *id; /* "" when there is none */
    llm_embed_request request;
    llm_embed_input *inputs;
} llm_embedding;

bool llm_embedding_parse(llm_embedding *m, const char *json, size_t len, err *e);
void llm_embedding_free(llm_embedding *m);

/* POST /internal/load. *path is owned by the caller. */
bool llm_load_parse(const char *json, size_t len, char **path, llm_options *o, err *e);

/* POST /internal/tokenize. *text is owned by the caller. */
bool llm_tokenize_parse(const char *json, size_t len, char **text, bool *add_special, err *e);

/* Each appends one JSON object. */
void llm_write_info(buf *out, const llm_info *i); /* the answer to load */
void llm_write_tokens(buf *out, const int32_t *tokens, size_t count);
void llm_write_start(buf *out, const llm_usage *u);
void llm_write_text(buf *out, const int32_t *ids, size_t count, const char *text);
void llm_write_done(buf *out, llm_finish why, const llm_usage *u);
void llm_write_vector(buf *out, size_t index, const float *v, int n);
void llm_write_embedded(buf *out, int prompt_tokens); /* the last line */

/* The error envelope with "loaded" beside it: the path of the model that is still there, or NULL. */
void llm_write_load_error(buf *out, const char *type, const err *e, const char *loaded);

#endif
