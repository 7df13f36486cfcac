/* engine.h - text generation with libllama: one model, several requests at once.
 *
 * An engine belongs to one thread, which opens it, submits, steps and closes; nothing here locks. It never waits:
 * llm_engine_step() does a bounded piece of work for all requests in hand and tells what came of it by callbacks.
 *
 * Slots. The engine has `slots` places for running requests; more wait in order. Each slot is a sequence with a
 * key/value cache of its own, of n_ctx tokens: no request can take another one's room, and what one computes does not
 * depend on where its neighbours lie. Memory: slots * n_ctx * (K + V) of the model, taken at open; when that does not
 * fit, the engine opens with fewer slots and says so.
 *
 * A step is one batch with the next token of every slot that is generating, and then one chunk (LLM_CHUNK tokens) of
 * the oldest prompt that is not yet read. So a long prompt delays the streams beside it by one chunk at a time.
 *
 * Repeatable. Prompts are always computed in the same chunks, counted from position 0 and never mixed with other slots,
 * and only whole chunks of an earlier prompt are reused: what is in the cache is, bit by bit, what a fresh engine would
 * compute. The random draw depends on (seed, index of the token) alone. `resume` tokens are replayed one at a time, as
 * they were made. So a request that runs alone gives the same text every time, also when it was taken up again
 * in another process; replaying costs what making the tokens cost. When several slots generate at once, the kernels add
 * up in another order than for one, and a token that wins by less than that rounding may differ. */
#ifndef MYSTI_LLM_ENGINE_H
#define MYSTI_LLM_ENGINE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct llm_engine llm_engine;

enum {
    LLM_CHUNK = 32,                  /* prompt tokens per step on the CPU */
    LLM_CHUNK_DEVICE = 512,          /* the same when layers are offloaded to a device */
    LLM_BYTES_PER_THREAD = 32 << 20, /* read in a few milliseconds: below that, waiting for each other costs more */
    LLM_SLOTS_MAX = 64,
    LLM_STOPS_MAX = 16,
    LLM_CTX_DEFAULT_MAX = 8192, /* n_ctx 0 is the trained length, but not more than this */
};

typedef struct llm_options {
    int n_ctx;        /* tokens per slot; 0: see LLM_CTX_DEFAULT_MAX */
    int n_gpu_layers; /* -1: all */
    int threads;      /* 0: one per core, but no more than there is work for: one per LLM_BYTES_PER_THREAD of weights */
    int max_threads;  /* for that case; 0: no limit */
    int slots;        /* 1..LLM_SLOTS_MAX */
} llm_options;

/* Called on the engine's thread, often, in the middle of long work; false gives it up. */
typedef struct llm_hooks {
    bool (*loading)(void *ctx, float done); /* 0..1; given up: open fails with ERR_CANCELLED */
    bool (*computing)(void *ctx);           /* given up: the requests of that step end with ERR_CANCELLED */
    void *ctx;
} llm_hooks;

typedef struct llm_info {
    char architecture[64];
    char description[128];
    uint64_t parameters;
    uint64_t weights_bytes;
    int n_ctx;
    int n_ctx_train;
    bool generates; /* false: it makes embeddings only, and has no slots */
    int slots;
    int threads;
    bool chat_template; /* the model brings one; without it ChatML is used */
} llm_info;

/* Opens a GGUF file. ERR_NOT_FOUND, ERR_FORMAT, ERR_UNSUPPORTED (neither text nor embeddings), ERR_MEMORY (with the
 * figures), ERR_CANCELLED. The hooks may be NULL, and their ctx must outlive the engine. */
llm_engine *llm_engine_open(const char *path, const llm_options *o, const llm_hooks *hooks, err *e);

/* Requests in hand end with `why` (NULL: ERR_CANCELLED). NULL is fine. */
void llm_engine_close(llm_engine *m, const err *why);

const llm_info *llm_engine_describe(const llm_engine *m);

/* *tokens is freed with free(). */
bool llm_engine_tokenize(const llm_engine *m, const char *text, bool add_special, int32_t **tokens, size_t *count,
                         err *e);

typedef struct llm_message {
    const char *role; /* system, developer (the same), user, assistant */
    const char *content;
} llm_message;

typedef struct llm_request {
    const llm_message *messages; /* rendered by the model's chat template; or NULL and `prompt` */
    size_t message_count;
    const char *prompt;

    int max_tokens;    /* -1: up to the context */
    float temperature; /* 0: always the likeliest token */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    float repeat_penalty, presence_penalty,
        frequency_penalty; /* over the last 64 tokens, prompt included; 1, 0, 0: off */
    uint64_t seed;
    const char *const *stop; /* text is cut before the first of them */
    size_t stop_count;
    bool ignore_eos;
    const int32_t *resume; /* tokens of the answer that exist already: replayed, counted, not reported again */
    size_t resume_count;
} llm_request;

/* What a request without wishes gets: the protocol's defaults. */
llm_request llm_request_default(void);

typedef enum llm_finish { LLM_STOP, LLM_LENGTH, LLM_CANCELLED } llm_finish;
const char *llm_finish_name(llm_finish f); /* "stop", "length", "cancelled" */

typedef struct llm_usage {
    int prompt_tokens;
    int cached_tokens;     /* of the prompt, not computed again */
    int completion_tokens; /* resumed ones included; the end-of-turn token is not */
    double prompt_ms, predict_ms;
} llm_usage;

/* What becomes of a request: started once, tokens any number of times, then exactly one of done and failed, after which
 * its id means nothing. All are called from llm_engine_step, _cancel or _close. A callback must not call the engine. */
typedef struct llm_sink {
    void (*started)(void *ctx, const llm_usage *u);
    /* New tokens and the text they complete: whole UTF-8 characters, nothing of a stop string; count may be 0 for text
     * that was held back, text may be "" for tokens that were cut off. */
    void (*tokens)(void *ctx, const int32_t *ids, size_t count, const char *text, size_t len);
    void (*done)(void *ctx, llm_finish why, const llm_usage *u);
    void (*failed)(void *ctx, const err *e);
    bool (*ready)(void *ctx); /* false: the reader is behind; the slot sits this step out. May be NULL. */
    void *ctx;
} llm_sink;

/* Copies the request and queues it. Returns its id, or 0: ERR_INVALID, ERR_TOO_LARGE when the prompt does not fit, or
 * ERR_UNSUPPORTED when the model makes no text. */
uint64_t llm_engine_submit(llm_engine *m, const llm_request *r, const llm_sink *sink, err *e);

/* ---- embeddings: one vector for each text ---- */

typedef struct llm_embed_input {
    const char *text;      /* or NULL and tokens, taken as they are */
    const int32_t *tokens; /* [token_count] */
    size_t token_count;
} llm_embed_input;

typedef struct llm_embed_request {
    const llm_embed_input *inputs; /* [count] */
    size_t count;
    int dimensions; /* how many numbers of each vector are kept; 0: all */
} llm_embed_request;

/* Each vector once, in order, then exactly one of done and failed. As llm_sink otherwise. */
typedef struct llm_embed_sink {
    void (*vector)(void *ctx, size_t index, const float *v, int n); /* of length 1 */
    void (*done)(void *ctx, int prompt_tokens);
    void (*failed)(void *ctx, const err *e);
    void *ctx;
} llm_embed_sink;

/* As llm_engine_submit(); a text that is too long is ERR_TOO_LARGE. They are computed beside what the slots do, one
 * chunk in each step; every text is computed by itself, so that its vector does not depend on the others'. */
uint64_t llm_engine_embed(llm_engine *m, const llm_embed_request *r, const llm_embed_sink *sink, err *e);

/* Ends the request at once (done, LLM_CANCELLED; embeddings fail with ERR_CANCELLED) and frees its slot. An id that has
 * ended is fine. */
void llm_engine_cancel(llm_engine *m, uint64_t id);

/* One step. False when there was nothing to do: no request, or none whose reader is ready. */
bool llm_engine_step(llm_engine *m);

typedef struct llm_load {
    int running, waiting;
} llm_load;
llm_load llm_engine_load(const llm_engine *m);

#endif
