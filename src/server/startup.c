/* startup.c - see startup.h. */
#include "server/startup.h"

#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/model_kind.h"
#include "json/json.h"
#include "proc/proc.h"
#include "server/demo.h"
#include "server/models.h"

#include <stdlib.h>
#include <string.h>

enum { PORT_WAIT_MS = 3000, PORT_POLL_MS = 20 };

/* ---- ports ------------------------------------------------------------------------------------------------------ */

bool startup_port_taken(int port, err *e) {
    char owner[160];
    if (proc_port_owner(port, owner, sizeof owner))
        return err_set(e, ERR_CONFLICT, "port %d is taken by %s", port, owner);
    return err_set(e, ERR_CONFLICT, "port %d is taken by another program", port);
}

/* Binds and lets go: a worker will need it in a moment. */
static bool is_free(const char *ip, int port) {
    uv_loop_t loop;
    uv_tcp_t tcp;
    struct sockaddr_storage addr;
    memset(&addr, 0, sizeof addr);
    bool v4 = uv_ip4_addr(ip, port, (struct sockaddr_in *)&addr) == 0;
    if (!v4 && uv_ip6_addr(ip, port, (struct sockaddr_in6 *)&addr) != 0) return true; /* told by listening itself */
    if (uv_loop_init(&loop) != 0) return true;
    uv_tcp_init(&loop, &tcp);
    int rc = uv_tcp_bind(&tcp, (const struct sockaddr *)&addr, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&tcp, 1, NULL);
    uv_close((uv_handle_t *)&tcp, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return rc != UV_EADDRINUSE;
}

/* Workers of a server that was just killed end by themselves, but may still hold their ports: those are waited for. */
static bool becomes_free(const char *ip, int port) {
    for (int waited = 0; waited < PORT_WAIT_MS; waited += PORT_POLL_MS) {
        if (is_free(ip, port)) return true;
        uv_sleep(PORT_POLL_MS);
    }
    return false;
}

bool startup_check_ports(const config *c, err *e) {
    const char *const ips[] = {c->listen_ip, "127.0.0.1", "127.0.0.1"};
    for (int i = 0; i < 3; i++) {
        int port = (int)c->listen_port + i;
        if (!(i == 0 ? is_free(ips[i], port) : becomes_free(ips[i], port))) return startup_port_taken(port, e);
    }
    return true;
}

/* ---- models of the command line --------------------------------------------------------------------------------- */

/* A name below the model folder (links stay as they are: its id is that name), or any path. */
static char *find_file(const app *a, const char *name, err *e) {
    char *joined = path_join(a->cfg.model_dir, name);
    if (name[0] != '/' && path_exists(joined)) return joined;
    free(joined);
    char *path = path_absolute(name, e);
    if (!path) err_set(e, ERR_NOT_FOUND, "there is no file '%.150s', neither here nor in the model folder", name);
    return path;
}

/* The id of the index where the file is below the model folder, else the path. */
static const char *id_of(const app *a, const char *path) {
    size_t n = strlen(a->cfg.model_dir);
    return str_starts(path, a->cfg.model_dir) && path[n] == '/' ? path + n + 1 : path;
}

static bool add_path(const app *a, buf *out, const char *key, const char *name, err *e) {
    if (!name) return true;
    char *path = find_file(a, name, e);
    if (!path) return err_wrap(e, "--%s", key);
    json_write_member(out, key, path);
    free(path);
    return true;
}

/* --model with a file that is only the diffusion part is meant as --diffusion-model. */
static bool is_diffusion_only(const char *path) {
    model_desc d;
    return model_describe_path(path, &d, NULL) && d.kind == MODEL_DIFFUSION;
}

static bool write_image_body(app *a, buf *out, char **main_path, err *e) {
    const config *c = &a->cfg;
    const char *model = c->model, *diffusion = c->diffusion_model;
    *main_path = find_file(a, model ? model : diffusion, e);
    if (!*main_path) return err_wrap(e, "--%s", model ? "model" : "diffusion-model");
    if (model && !diffusion && is_diffusion_only(*main_path)) {
        if (str_iends(model, ".gguf"))
            log_info("server", "Smart fallback: Moving GGUF from model_path to diffusion_model_path");
        diffusion = model;
        model = NULL;
    }
    buf_putc(out, '{');
    bool ok = add_path(a, out, "model", model, e) && add_path(a, out, "diffusion_model", diffusion, e) &&
              add_path(a, out, "vae", c->vae, e) && add_path(a, out, "clip_l", c->clip_l, e) &&
              add_path(a, out, "clip_g", c->clip_g, e) && add_path(a, out, "t5xxl", c->t5xxl, e) &&
              add_path(a, out, "llm", c->llm, e) && add_path(a, out, "taesd", c->taesd, e);
    buf_putc(out, '}');
    return ok;
}

static bool write_text_body(app *a, buf *out, char **main_path, err *e) {
    const config *c = &a->cfg;
    *main_path = find_file(a, c->llm_model, e);
    if (!*main_path) return err_wrap(e, "--llm-model");
    buf_puts(out, "{\"path\":");
    json_quote(out, *main_path);
    buf_printf(out, ",\"n_ctx\":%lld,\"n_gpu_layers\":%lld,\"threads\":%lld,\"slots\":%lld}", (long long)c->n_ctx,
               (long long)c->n_gpu_layers, (long long)c->llm_threads, (long long)c->llm_slots);
    return true;
}

static void choose(app *a, worker_id id, bool (*write)(app *, buf *, char **, err *)) {
    err e = {0};
    char *path = NULL;
    buf body;
    buf_init(&body, 1 << 16);
    if (write(a, &body, &path, &e)) {
        if (id_of(a, path) == path) models_add(a->models, path);
        workers_choose(a->workers, id, id_of(a, path), buf_str(&body));
    } else {
        log_error("server", "%s", e.msg);
    }
    buf_free(&body);
    free(path);
}

static bool is_asked_for(const config *c) {
    return c->model || c->diffusion_model || c->llm_model;
}

/* Nothing was asked for, nothing is restored, and nothing else is there: as if the demo models had been asked for. */
static void fall_back_to_demo(app *a) {
    config *c = &a->cfg;
    for (int id = 0; id < WORKER_COUNT; id++)
        if (workers_view(a->workers, (worker_id)id).model_id) return;
    if (c->no_demo || is_asked_for(c) || demo_has_rival(c->model_dir)) return;
    demo_find(c->model_dir, &c->model, &c->llm_model);
}

void startup_choose_models(app *a) {
    fall_back_to_demo(a);
    if (a->cfg.model || a->cfg.diffusion_model) choose(a, WORKER_SD, write_image_body);
    if (a->cfg.llm_model) choose(a, WORKER_LLM, write_text_body);
    const char *image = workers_view(a->workers, WORKER_SD).model_id;
    if (demo_is(image) || (!image && demo_is(workers_view(a->workers, WORKER_LLM).model_id)))
        log_info("server", "Starting with the demo models; put your own into %s/", path_base(a->cfg.model_dir));
}
