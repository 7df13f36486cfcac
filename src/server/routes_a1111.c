/* routes_a1111.c - the lists that clients of AUTOMATIC1111's API ask for, in its shapes. */
#include "server/routes.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/sample/sampler.h"
#include "server/model_lists.h"

#include <stdlib.h>

enum { LIST_JSON_MAX = 16 * 1024 * 1024 };

static void reply(http_req *req, buf *out, char end) {
    buf_putc(out, end);
    routes_reply_json(req, 200, out);
}

static void begin(buf *out, char start) {
    buf_init(out, LIST_JSON_MAX);
    buf_putc(out, start);
}

/* A comma unless the list or object has just been opened. */
static void next(buf *out) {
    const char last = out->data[out->len - 1];
    if (last != '[' && last != '{') buf_putc(out, ',');
}

static void get_samplers(void *ctx, http_req *req) {
    (void)ctx;
    buf out;
    begin(&out, '[');
    for (size_t i = 0; sampler_names[i]; i++) {
        const sampler *s = sampler_find(sampler_names[i], NULL);
        next(&out);
        buf_puts(&out, "{\"name\":");
        json_quote(&out, s->label);
        buf_puts(&out, ",\"aliases\":[");
        json_quote(&out, s->name);
        buf_puts(&out, "],\"options\":{");
        json_write_member(&out, "scheduler", s->schedule);
        buf_puts(&out, "}}");
    }
    reply(req, &out, ']');
}

static void get_schedulers(void *ctx, http_req *req) {
    (void)ctx;
    buf out;
    begin(&out, '[');
    for (size_t i = 0; schedule_names[i]; i++) {
        const schedule *s = schedule_find(schedule_names[i]);
        next(&out);
        buf_putc(&out, '{');
        json_write_member(&out, "name", s->name);
        json_write_member(&out, "label", s->label);
        buf_puts(&out, ",\"aliases\":null,\"default_rho\":-1,\"need_inner_model\":false}");
    }
    reply(req, &out, ']');
}

/* Calls fn for each usable file of a type, with its name. */
static void each(const app *a, const char *type, void (*fn)(const model_entry *, const char *name, void *ctx),
                 void *ctx) {
    for (size_t i = 0; i < models_count(a->models); i++) {
        const model_entry *e = models_at(a->models, i);
        if (!str_eq(e->type, type) || !e->supported) continue;
        char *name = path_stem(e->id);
        fn(e, name, ctx);
        free(name);
    }
}

static void write_lora(const model_entry *e, const char *name, void *ctx) {
    buf *out = ctx;
    next(out);
    buf_putc(out, '{');
    json_write_member(out, "name", name);
    json_write_member(out, "alias", e->alias ? e->alias : name);
    json_write_member(out, "path", e->id);
    buf_puts(out, ",\"metadata\":{}}");
}

static void get_loras(void *ctx, http_req *req) {
    buf out;
    begin(&out, '[');
    each(ctx, "lora", write_lora, &out);
    reply(req, &out, ']');
}

/* --- embeddings: those for the chosen model's family, and the others --- */

typedef struct embedding_list {
    buf *out;
    const char *family; /* NULL: no model is chosen, all are "skipped" */
    bool fitting;
} embedding_list;

static int width_of(const char *family) {
    return str_eq(family, "sd2") ? 1024 : str_eq(family, "sdxl") ? 2048 : str_eq(family, "sdxl-refiner") ? 1280 : 768;
}

static void write_embedding(const model_entry *e, const char *name, void *ctx) {
    const embedding_list *l = ctx;
    if (str_eq(e->family, l->family) != l->fitting) return;
    next(l->out);
    json_quote(l->out, name);
    buf_printf(l->out,
               ":{\"step\":null,\"sd_checkpoint\":null,\"sd_checkpoint_name\":null,\"shape\":%d,\"vectors\":null}",
               width_of(e->family));
}

static void get_embeddings(void *ctx, http_req *req) {
    app *a = ctx;
    buf out;
    const char *id = workers_view(a->workers, WORKER_SD).model_id;
    const model_entry *m = id ? models_find(a->models, id, NULL) : NULL;
    embedding_list l = {.out = &out, .family = m ? m->family : NULL, .fitting = true};
    begin(&out, '{');
    buf_puts(&out, "\"loaded\":{");
    each(a, "embedding", write_embedding, &l);
    l.fitting = false;
    buf_puts(&out, "},\"skipped\":{");
    each(a, "embedding", write_embedding, &l);
    buf_putc(&out, '}');
    reply(req, &out, '}');
}

/* --- upscalers: those that need no file, and the files --- */

static void write_upscaler(buf *out, const char *name, const char *id, int scale) {
    next(out);
    buf_putc(out, '{');
    json_write_member(out, "name", name);
    json_write_member(out, "model_name", id ? name : NULL);
    json_write_member(out, "model_path", id);
    json_write_member(out, "model_url", NULL);
    buf_printf(out, ",\"scale\":%d}", scale);
}

static void write_upscaler_file(const model_entry *e, const char *name, void *ctx) {
    write_upscaler(ctx, name, e->id, model_list_scale(e));
}

static void get_upscalers(void *ctx, http_req *req) {
    buf out;
    begin(&out, '[');
    for (size_t i = 0; upscaler_names[i]; i++) {
        const upscaler *u = upscaler_find(upscaler_names[i]);
        if (u->space != UPSCALE_LATENTS) write_upscaler(&out, u->label, NULL, 4);
    }
    each(ctx, "upscaler", write_upscaler_file, &out);
    reply(req, &out, ']');
}

void routes_a1111(route_list *l) {
    static const http_route routes[] = {
        {"GET", "/sdapi/v1/samplers", get_samplers, 0},   {"GET", "/sdapi/v1/schedulers", get_schedulers, 0},
        {"GET", "/sdapi/v1/loras", get_loras, 0},         {"GET", "/sdapi/v1/embeddings", get_embeddings, 0},
        {"GET", "/sdapi/v1/upscalers", get_upscalers, 0},
    };
    route_list_add(l, routes, sizeof routes / sizeof routes[0]);
}
