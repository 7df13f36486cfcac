/* main.c - mysti_server: puts the parts together, starts them, and ends them in order.
 *
 * Start: settings, ports, database, index, queue, workers, and only then the doors open: a client never meets half a
 * server. Stop: streams end, the running job is put back, the doors close, the workers end, the database is closed. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "net/http_server.h"
#include "net/net.h"
#include "server/db.h"
#include "server/events.h"
#include "server/history.h"
#include "server/jobs.h"
#include "server/leftovers.h"
#include "server/llm_relay.h"
#include "server/models.h"
#include "server/routes.h"
#include "server/sd_runner.h"
#include "server/security.h"
#include "server/startup.h"
#include "server/uploads.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LOG_FILE_BYTES = 10 << 20,
    STOP_GRACE_MS = 500,
    STOP_PARTS = 2,
    CONNECTIONS_MAX = 4096,
    CONNECTIONS_MIN = 64,
    FILES_RESERVED = LLM_RELAY_MAX + 128, /* connections to the workers, database, log, pipes */
};

typedef struct program {
    app app;
    uv_loop_t loop;
    uploads uploads;
    route_list routes;
    http_router *router;
    http_server *server;
    uv_signal_t signals[2];
    bool stopping;
    int parts_open; /* of STOP_PARTS: doors, workers */
    char *checkpoint_dir;
} program;

/* ---- requests --------------------------------------------------------------------------------------------------- */

static bool refuse_when_stopping(program *p, http_req *req) {
    if (!p->stopping) return false;
    http_header_add(req, "Retry-After", "5");
    http_reply_error(req, 503, "stopping", NULL, "the server is stopping");
    return true;
}

static void on_headers(void *ctx, http_req *req) {
    program *p = ctx;
    if (refuse_when_stopping(p, req) || !security_check(&p->app.cfg, req)) return;
    http_router_on_headers(p->router, req);
}

static void on_request(void *ctx, http_req *req) {
    program *p = ctx;
    if (refuse_when_stopping(p, req)) return;
    log_debug("http", "%s %s", http_req_method(req), http_req_path(req));
    http_router_handle(p->router, req);
}

/* ---- what the parts tell each other ----------------------------------------------------------------------------- */

static void worker_changed(void *ctx, worker_id id) {
    program *p = ctx;
    if (id == WORKER_SD && p->app.jobs && !p->stopping) jobs_kick(p->app.jobs);
}

static void worker_died(void *ctx, worker_id id, const char *cause) {
    program *p = ctx;
    if (id == WORKER_SD && !p->stopping) sd_runner_worker_died(p->app.runner, cause);
}

static void models_changed(void *ctx) {
    program *p = ctx;
    events_publish(p->app.events, "models", NULL, "{}", 2, 0);
}

static void model_state(void *ctx, const model_entry *m, bool *active, bool *loaded) {
    program *p = ctx;
    *active = *loaded = false;
    for (int id = 0; p->app.workers && id < WORKER_COUNT; id++) {
        worker_view v = workers_view(p->app.workers, (worker_id)id);
        if (!str_eq(v.model_id, m->id) && !str_eq(v.model_id, m->path)) continue;
        *active = true;
        *loaded = v.loaded;
    }
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static void open_log(const config *c) {
    err e = {0};
    if (c->verbose) log_set_level(LOG_DEBUG);
    char *path = path_join(c->data_dir, "mysti.log");
    if (!log_open_file(path, LOG_FILE_BYTES, &e)) log_warn("server", "no log file: %s", e.msg);
    free(path);
}

static bool open_state(program *p, err *e) {
    app *a = &p->app;
    const config *c = &a->cfg;
    char *file = path_join(c->data_dir, "mysti.db");
    a->db = db_open(a->loop, file, e);
    free(file);
    if (!a->db) return false;
    a->events = events_open(a->loop, a->start_id);
    a->history = history_open(a->db, c->output_dir);
    const models_config index = {
        .loop = a->loop, .db = a->db, .dir = c->model_dir, .ctx = p, .changed = models_changed, .state = model_state};
    a->models = models_open(&index, e);
    a->uploads = &p->uploads;
    return a->models && uploads_init(a->uploads, c->data_dir, c->output_dir, e);
}

static bool open_work(program *p, err *e) {
    app *a = &p->app;
    const workers_listener listener = {.ctx = p, .changed = worker_changed, .died = worker_died};
    a->workers = workers_new(a, &listener);
    startup_choose_models(a);
    a->llm = llm_relay_new(a);
    a->runner = sd_runner_new(a);
    p->checkpoint_dir = path_join(a->cfg.data_dir, "checkpoints");
    if (!path_make_dirs(p->checkpoint_dir, e)) return false;
    const jobs_config queue = {.loop = a->loop,
                               .db = a->db,
                               .history = a->history,
                               .events = a->events,
                               .uploads = a->uploads,
                               .output_dir = a->cfg.output_dir,
                               .checkpoint_dir = p->checkpoint_dir,
                               .runner = sd_runner_interface(a->runner)};
    a->jobs = jobs_open(&queue, e);
    if (a->jobs) leftovers_sweep_all(a);
    if (a->jobs) history_check_files(a->history);
    return a->jobs != NULL;
}

/* So many that the server's own files and its connections to the workers always find room: else a crowd of clients
 * would make healthy workers seem dead. */
static int connections_max(void) {
    int files = file_raise_limit(CONNECTIONS_MAX + FILES_RESERVED), most = files - FILES_RESERVED;
    if (most < CONNECTIONS_MAX) log_warn("server", "the system allows %d open files: fewer clients at a time", files);
    return most < CONNECTIONS_MIN ? CONNECTIONS_MIN : most < CONNECTIONS_MAX ? most : CONNECTIONS_MAX;
}

static bool open_doors(program *p, err *e) {
    route_list *l = &p->routes;
    routes_workers(l);
    routes_text(l);
    routes_jobs(l);
    routes_images(l);
    routes_history(l);
    routes_events(l);
    routes_models(l);
    routes_a1111(l);
    routes_misc(l);
    routes_static(l);
    p->router = http_router_new(l->items, l->count, &p->app);
    const http_server_opts opts = {.ip = p->app.cfg.listen_ip,
                                   .port = (int)p->app.cfg.listen_port,
                                   .on_headers = on_headers,
                                   .handler = on_request,
                                   .ctx = p,
                                   .max_connections = connections_max()};
    p->server = http_server_listen(p->app.loop, &opts, e);
    if (!p->server && e->code == ERR_CONFLICT) return startup_port_taken(opts.port, e);
    return p->server != NULL;
}

/* ---- stop ------------------------------------------------------------------------------------------------------- */

static void close_handles(program *p) {
    for (size_t i = 0; i < 2; i++) uv_close((uv_handle_t *)&p->signals[i], NULL);
}

static void close_state(program *p) {
    app *a = &p->app;
    llm_relay_free(a->llm);
    sd_runner_free(a->runner);
    workers_free(a->workers);
    if (a->models) models_close(a->models);
    db_close(a->db); /* what is still queued for the disk is done here */
    if (a->jobs) jobs_free(a->jobs);
    uploads_free(&p->uploads);
    if (a->history) history_close(a->history);
    if (a->events) events_close(a->events);
}

static void part_closed(void *ctx) {
    program *p = ctx;
    if (--p->parts_open > 0) return;
    close_state(p);
    close_handles(p);
}

static void stop(program *p) {
    if (p->stopping) return;
    p->stopping = true;
    p->parts_open = STOP_PARTS;
    log_info("server", "Stopping...");
    llm_relay_stop(p->app.llm);
    jobs_close(p->app.jobs);
    http_server_close(p->server, STOP_GRACE_MS, part_closed, p);
    workers_stop(p->app.workers, part_closed, p);
}

static void on_signal(uv_signal_t *s, int number) {
    program *p = s->data;
    if (p->stopping) _Exit(128 + number); /* asked twice: at once */
    stop(p);
}

/* ---- main ------------------------------------------------------------------------------------------------------- */

static void watch_signals(program *p) {
    const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < 2; i++) {
        uv_signal_init(p->app.loop, &p->signals[i]);
        p->signals[i].data = p;
        uv_signal_start(&p->signals[i], on_signal, numbers[i]);
    }
}

static void say_hello(const program *p) {
    const config *c = &p->app.cfg;
    bool any = str_eq(c->listen_ip, "0.0.0.0") || str_eq(c->listen_ip, "::");
    log_info("server", "Orchestrator listening on http://%s:%d", any ? "localhost" : c->listen_ip,
             http_server_port(p->server));
    log_info("server", "Models: %s  Pictures: %s", c->model_dir, c->output_dir);
}

static int run(program *p) {
    err e = {0};
    uv_loop_init(&p->loop);
    p->app.loop = &p->loop;
    p->app.started_ms = clock_wall_ms();
    unsigned char raw[8];
    file_random(raw, sizeof raw);
    for (size_t i = 0; i < sizeof raw; i++) snprintf(p->app.start_id + 2 * i, 3, "%02x", raw[i]);
    if (!startup_check_ports(&p->app.cfg, &e) || !open_state(p, &e) || !open_work(p, &e) || !open_doors(p, &e)) {
        log_error("server", "%s", e.msg);
        return 1; /* nothing was spawned; the system takes back the rest */
    }
    watch_signals(p);
    say_hello(p);
    workers_start(p->app.workers);
    jobs_kick(p->app.jobs);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    uv_loop_close(&p->loop);
    http_router_free(p->router);
    free(p->routes.items);
    free(p->checkpoint_dir);
    log_info("server", "Stopped.");
    return 0;
}

int main(int argc, char **argv) {
    static program p;
    err e = {0};
    net_init();
    if (!config_load(&p.app.cfg, argc, argv, &e)) {
        fprintf(stderr, "mysti_server: %s\n", e.msg);
        return 2;
    }
    if (p.app.cfg.help)
        config_print_help();
    else if (p.app.cfg.version)
        printf("mysti_server %s\n", MYSTI_VERSION);
    if (p.app.cfg.help || p.app.cfg.version) {
        config_free(&p.app.cfg);
        return 0;
    }
    open_log(&p.app.cfg);
    int rc = run(&p);
    log_close_file();
    config_free(&p.app.cfg);
    return rc;
}
