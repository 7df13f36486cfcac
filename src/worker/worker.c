/* worker.c - see worker.h. The loop thread's side: options, sockets, the token, and the order of start and end.
 *
 * Start: options, tie to the parent, listen, engine thread; so a worker answers before its engine knows a device.
 * End: no new jobs, cancel those there are, the engine thread ends, answers go out, sockets close. A deadline stands
 * behind all of it, because an engine may be inside a computation that nothing can interrupt. */
#include "worker/worker.h"
#include "base/cpu.h"
#include "base/log.h"
#include "base/str.h"
#include "net/http_server.h"
#include "net/net.h"
#include "proc/proc.h"
#include "worker/crash.h"
#include "worker/engine.h"
#include "worker/parent.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STOP_LIMIT_MS = 1500, CLOSE_GRACE_MS = 250 };

struct worker {
    const worker_service *service;
    uv_loop_t loop;
    parent parent;
    http_server *server;
    http_router *router;
    uv_signal_t sigterm, sigint;
    uv_timer_t deadline;
    uv_async_t engine_ended;
    job_hub hub;
    engine engine;
    worker_state state;
    bool stopping;
    int exit_code;

    int64_t port, threads, parent_pid;
    bool verbose, version, help;
};

static const char health_path[] = "/internal/health";

/* ---- options ----------------------------------------------------------------------------------------------- */

enum { COMMON_ARGS = 6 };

static bool check_options(const worker *w, err *e) {
    if (w->port < 0 || w->port > 65535) return err_set(e, ERR_INVALID, "--port: not between 0 and 65535");
    if (w->threads < 0 || w->threads > 4096) return err_set(e, ERR_INVALID, "--threads: not between 0 and 4096");
    if (w->parent_pid < 0 || w->parent_pid > INT32_MAX) return err_set(e, ERR_INVALID, "--parent-pid: not a process");
    return true;
}

static void print_help(const worker *w, const arg_spec *specs, size_t count) {
    printf("%s %s - started by mysti_server; listens on 127.0.0.1\n\n", w->service->program, MYSTI_VERSION);
    args_print_help(specs, count);
}

/* -1 to go on, else the exit code. */
static int read_options(worker *w, int argc, char **argv) {
    const worker_service *s = w->service;
    const arg_spec common[COMMON_ARGS] = {
        {"port", 'p', NULL, ARG_INT, &w->port, "PORT", "port on 127.0.0.1 (0: a free one)"},
        {"threads", 't', NULL, ARG_INT, &w->threads, "N", "threads for computing (0: as many as there are processors)"},
        {"parent-pid", 0, NULL, ARG_INT, &w->parent_pid, "PID", "end when this process is not the parent any more"},
        {"verbose", 'v', NULL, ARG_FLAG, &w->verbose, NULL, "log more"},
        {"version", 0, NULL, ARG_FLAG, &w->version, NULL, "print the version and end"},
        {"help", 'h', NULL, ARG_FLAG, &w->help, NULL, "print this and end"},
    };
    size_t count = COMMON_ARGS + s->arg_count;
    arg_spec *specs = mem_alloc(count, sizeof *specs);
    memcpy(specs, common, sizeof common);
    if (s->arg_count) memcpy(specs + COMMON_ARGS, s->args, s->arg_count * sizeof *specs);
    err e = {0};
    int code = -1;
    if (!args_parse(argc, argv, specs, count, &e) || !check_options(w, &e)) {
        log_error(s->name, "%s", e.msg);
        code = WORKER_EXIT_USAGE;
    } else if (w->help || w->version) {
        if (w->help) print_help(w, specs, count);
        if (w->version) printf("%s %s\n", s->program, MYSTI_VERSION);
        code = 0;
    }
    free(specs);
    return code;
}

int worker_threads(const worker *w) {
    return w->threads > 0 ? (int)w->threads : cpu_count();
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static bool is_health(const http_req *req) {
    return str_eq(http_req_path(req), health_path);
}

/* Before any body is read. */
static void on_headers(void *ctx, http_req *req) {
    worker *w = ctx;
    if (!parent_token_is(&w->parent, http_req_header(req, "X-Mysti-Token")))
        http_reply_error(req, 403, NULL, NULL, "this port is for mysti_server only");
    else if (!is_health(req))
        http_router_on_headers(w->router, req);
}

static void answer_health(worker *w, http_req *req) {
    if (!str_eq(http_req_method(req), "GET") && !http_req_is_head(req)) {
        http_header_add(req, "Allow", "GET, HEAD");
        http_reply_error(req, 405, NULL, NULL, "%s: only GET", health_path);
        return;
    }
    buf body;
    buf_init(&body, 64 * 1024);
    worker_state_write(&w->state, engine_is_late(&w->engine), &body);
    http_reply(req, 200, "application/json", body.data, body.len);
    buf_free(&body);
}

static void on_request(void *ctx, http_req *req) {
    worker *w = ctx;
    if (is_health(req))
        answer_health(w, req);
    else
        http_router_handle(w->router, req);
}

void worker_submit(worker *w, http_req *req, const char *id, void (*run)(worker_job *job, void *arg), void *arg,
                   void (*free_arg)(void *arg)) {
    http_req_drop_body(req);
    worker_job *job = job_new(&w->hub, req, id, run, arg, free_arg);
    if (engine_queue(&w->engine, job)) return;
    err e = {0};
    if (w->stopping) /* as what is under way: the server asks the next process */
        err_set(&e, ERR_CANCELLED, "the worker is stopping");
    else
        err_set(&e, ERR_BUSY, "too many requests wait already");
    worker_job_fail(job, &e); /* the engine never saw it, so this thread may end it */
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

/* The process ends here and now: nothing of the engine's is torn down while it may be in use. */
static void exit_now(int code) {
    fflush(NULL);
    _Exit(code);
}

static void on_deadline(uv_timer_t *timer) {
    worker *w = timer->data;
    log_warn(w->service->name, "the engine did not stop in time");
    exit_now(w->exit_code);
}

static void stop(worker *w, int exit_code) {
    if (w->stopping) return;
    w->stopping = true;
    w->exit_code = exit_code;
    uv_timer_start(&w->deadline, on_deadline, STOP_LIMIT_MS, 0);
    engine_stop(&w->engine);
    job_cancel_all(&w->hub);
}

static void on_signal(uv_signal_t *handle, int number) {
    worker *w = handle->data;
    log_info(w->service->name, "signal %d: stopping", number);
    stop(w, 0);
}

static void on_parent_gone(void *ctx) {
    worker *w = ctx;
    log_warn(w->service->name, "the server is gone: ending");
    exit_now(0);
}

static void close_handle(uv_handle_t *handle) {
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static void on_server_closed(void *ctx) {
    worker *w = ctx;
    job_flush_all(&w->hub); /* frees what a late request left */
    job_hub_close(&w->hub);
    parent_close(&w->parent);
    close_handle((uv_handle_t *)&w->sigterm);
    close_handle((uv_handle_t *)&w->sigint);
    close_handle((uv_handle_t *)&w->deadline);
    close_handle((uv_handle_t *)&w->engine_ended);
}

static void on_engine_ended(uv_async_t *async) {
    worker *w = async->data;
    bool ok = engine_join(&w->engine);
    if (!ok) exit_now(WORKER_EXIT_ENGINE);
    job_flush_all(&w->hub); /* the last words of the engine */
    http_server_close(w->server, CLOSE_GRACE_MS, on_server_closed, w);
}

/* ---- the start --------------------------------------------------------------------------------------------- */

static void report_port(const worker *w, const err *e) {
    char owner[128];
    if (w->port > 0 && e->code == ERR_CONFLICT && proc_port_owner((int)w->port, owner, sizeof owner))
        log_error(w->service->name, "port %d is taken by %s", (int)w->port, owner);
    else
        log_error(w->service->name, "%s", e->msg);
}

static bool listen_here(worker *w) {
    http_server_opts o = {.ip = "127.0.0.1",
                          .port = (int)w->port,
                          .on_headers = on_headers,
                          .handler = on_request,
                          .ctx = w,
                          .max_connections = 1024};
    err e = {0};
    w->server = http_server_listen(&w->loop, &o, &e);
    if (!w->server) {
        report_port(w, &e);
        return false;
    }
    log_info(w->service->name, "listening on port %d", http_server_port(w->server));
    return true;
}

static void watch_signal(worker *w, uv_signal_t *handle, int number) {
    uv_signal_init(&w->loop, handle);
    handle->data = w;
    uv_signal_start(handle, on_signal, number);
}

static void init_handles(worker *w) {
    uv_timer_init(&w->loop, &w->deadline);
    w->deadline.data = w;
    uv_async_init(&w->loop, &w->engine_ended, on_engine_ended);
    w->engine_ended.data = w;
    watch_signal(w, &w->sigterm, SIGTERM);
    watch_signal(w, &w->sigint, SIGINT);
    engine_init(&w->engine, w->service, &w->state, &w->engine_ended);
    job_hub_init(&w->hub, &w->loop, &w->state, engine_wake, &w->engine);
    w->router = http_router_new(w->service->routes, w->service->route_count, w->service->ctx);
}

/* -1 when the loop can run, else the exit code. What was opened by then is left to the end of the process. */
static int start(worker *w) {
    err e = {0};
    const char *name = w->service->name;
    if (!parent_tie(&w->parent, &w->loop, (int)w->parent_pid, on_parent_gone, w, &e)) {
        log_error(name, "%s", e.msg);
        return WORKER_EXIT_USAGE;
    }
    init_handles(w);
    if (!listen_here(w)) return WORKER_EXIT_PORT;
    if (engine_start(&w->engine, &e)) return -1;
    log_error(name, "%s", e.msg);
    return WORKER_EXIT_ENGINE;
}

static int run(worker *w) {
    uv_loop_init(&w->loop);
    int code = start(w);
    if (code >= 0) exit_now(code);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* until on_server_closed() */
    http_router_free(w->router);
    uv_loop_close(&w->loop);
    engine_free(&w->engine);
    log_info(w->service->name, "stopped");
    return w->exit_code;
}

int worker_run(int argc, char **argv, const worker_service *s) {
    worker *w = mem_alloc(1, sizeof *w);
    w->service = s;
    net_init();
    /* ggml's own answer to a failed assertion is to start a debugger, which delays the end by seconds; crash.h tells
     * as much at once. Before any thread exists, because the environment has no lock. */
    if (!getenv("GGML_NO_BACKTRACE")) uv_os_setenv("GGML_NO_BACKTRACE", "1");
    crash_install(s->program, s->name);
    worker_state_init(&w->state, s->name, MYSTI_VERSION);
    int code = read_options(w, argc, argv);
    if (code < 0) {
        log_set_level(w->verbose ? LOG_DEBUG : LOG_INFO);
        code = s->start ? s->start(s->ctx, w) : -1;
    }
    if (code < 0) code = run(w);
    worker_state_free(&w->state);
    crash_thread_end();
    free(w);
    return code;
}

/* ---- health ------------------------------------------------------------------------------------------------ */

void worker_set_activity(worker *w, worker_activity a) {
    worker_state_activity(&w->state, a);
}

void worker_set_model(worker *w, const char *path) {
    worker_state_model(&w->state, path);
}

void worker_progress(worker *w, const char *phase, int step, int steps) {
    worker_state_progress(&w->state, phase, step, steps);
    engine_refresh_memory(&w->engine, false);
}

void worker_alive(worker *w) {
    worker_state_alive(&w->state);
}
