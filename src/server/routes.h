/* routes.h - the tables of routes, and what their handlers share. ctx of every handler is the app.
 *
 * A routes_x.c exports one function that appends its table; main.c joins them. Handlers parse and answer; what they
 * ask for is done below, where nothing knows of HTTP. */
#ifndef MYSTI_SERVER_ROUTES_H
#define MYSTI_SERVER_ROUTES_H

#include "json/json.h"
#include "net/http_router.h"
#include "server/app.h"
#include "server/image_request.h"
#include "server/memory_plan.h"
#include "server/models.h"
#include "server/workers.h"

/* A growing table of routes. */
typedef struct route_list {
    http_route *items; /* owned */
    size_t count;
} route_list;

void route_list_add(route_list *l, const http_route *routes, size_t count);

void routes_workers(route_list *l); /* health, load and unload, retry */
void routes_text(route_list *l);    /* chat, completions, enhance */
void routes_jobs(route_list *l);
void routes_images(route_list *l); /* generations, edits, inspect, options */
void routes_history(route_list *l);
void routes_events(route_list *l); /* events, progress */
void routes_models(route_list *l); /* list, one, refresh */
void routes_a1111(route_list *l);  /* lists as A1111's clients know them */
void routes_misc(route_list *l);   /* settings, logs */
void routes_static(route_list *l); /* pictures, the page; last */

/* Parses the body as a JSON object; NULL when it was answered already (400). Freed with yyjson_doc_free(). */
yyjson_doc *routes_body(http_req *req, json_in *root);

/* Answers 400 (or what fits the code); when the message begins with a field ("steps: ..."), that is the `param`. */
void routes_reply_invalid(http_req *req, const err *e);

/* Answers with that status and code. The `param` is the field that the message begins with, else `param` (or NULL). */
void routes_reply_named(http_req *req, int status, const char *code, const char *param, const err *e);

/* Answers 200 with the buffer's JSON, and frees the buffer. */
void routes_reply_json(http_req *req, int status, buf *json);

/* What the database answered: JSON, or why not. `ctx` is the http_req. */
void routes_reply_result(void *ctx, const err *why, const char *json, size_t len);

/* The error envelope of a worker (or of one stream line) as an err. Always false. */
bool routes_read_error(const char *body, size_t len, err *e);

/* An integer of the query; *out stays as it is when it is absent. False when it was answered with 400. */
bool routes_query_int(http_req *req, const char *name, int64_t *out, int64_t min, int64_t max);

/* Answers for a picture that will not be made. */
void routes_reply_refusal(app *a, http_req *req, const image_request_result *r);

/* Free memory as the worker last told it. */
memory_state routes_memory(app *a, worker_id id);

/* Of the files of the model that it has loaded; 0: none. */
int64_t routes_loaded_bytes(app *a, worker_id id);

/* Loads an LLM from the index. `options` may be NULL: n_ctx, n_gpu_layers, slots over the configured ones.
 * fn as for workers_load(). */
void routes_load_llm(app *a, const model_entry *m, const json_in *options, worker_load_fn *fn, void *ctx);

/* Loads an image model from the index, without further components (those of `components`, or NULL). */
void routes_load_image(app *a, const model_entry *m, const json_in *components, worker_load_fn *fn, void *ctx);

#endif
