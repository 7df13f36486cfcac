/* worker_dummy.c - a worker whose "engine" counts, waits, floods, fails and crashes on request, for the tests.
 * With DUMMY_INIT=hang its engine never becomes ready; with DUMMY_INIT=fail its initialisation fails; with
 * DUMMY_MEMORY=hang it never comes back from looking at its memory when it has nothing to do. */
#include "worker/worker.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/str.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 4, LINE_BYTES = 1024 };

/* A request that engine_step works on, a line at a time. */
typedef struct slot {
    worker_job *job;
    int next, count;
} slot;

typedef struct dummy {
    worker *w;
    slot slots[SLOTS];
} dummy;

/* What a job's function gets. */
typedef struct work {
    dummy *d;
    int count;
    char *text;
} work;

static void free_work(void *arg) {
    work *k = arg;
    free(k->text);
    free(k);
}

static void nap(void) {
    usleep(1000);
}

/* {"n": 7, "pad": "xxxx..."} of about LINE_BYTES */
static void numbered_line(int n, char out[LINE_BYTES + 64]) {
    char pad[LINE_BYTES - 32];
    memset(pad, 'x', sizeof pad - 1);
    pad[sizeof pad - 1] = 0;
    snprintf(out, LINE_BYTES + 64, "{\"event\":\"line\",\"n\":%d,\"pad\":\"%s\"}", n, pad);
}

static void done(worker_job *job) {
    static const char line[] = "{\"event\":\"done\"}";
    worker_job_done(job, line, sizeof line - 1);
}

static void fail_cancelled(worker_job *job) {
    err e = {0};
    err_set(&e, ERR_CANCELLED, "cancelled");
    worker_job_fail(job, &e);
}

/* ---- engine thread ----------------------------------------------------------------------------------------- */

static void run_echo(worker_job *job, void *arg) {
    work *k = arg;
    worker_job_reply(job, 200, k->text, strlen(k->text));
}

static void run_spin(worker_job *job, void *arg) {
    work *k = arg;
    for (int step = 1; !worker_job_cancelled(job); step++) {
        worker_progress(k->d->w, "spinning", step, 1000000);
        nap();
    }
    fail_cancelled(job);
}

/* Begins a stream, then ends only when cancelled, with a proper last line. */
static void run_tail(worker_job *job, void *arg) {
    worker_job_line(job, "{\"event\":\"start\"}", 17);
    run_spin(job, arg);
}

static void run_deaf(worker_job *job, void *arg) {
    (void)job;
    work *k = arg;
    for (;;) {
        worker_alive(k->d->w);
        nap();
    }
}

static void run_flood(worker_job *job, void *arg) {
    work *k = arg;
    char line[LINE_BYTES + 64];
    int n = 0;
    for (; k->count == 0 || n < k->count; n++) {
        numbered_line(n, line);
        if (!worker_job_line(job, line, strlen(line))) break;
        worker_progress(k->d->w, "flooding", n, 0);
    }
    if (worker_job_cancelled(job))
        fail_cancelled(job);
    else
        done(job);
}

static void run_previews(worker_job *job, void *arg) {
    work *k = arg;
    char line[LINE_BYTES + 64];
    for (int n = 0; n < k->count; n++) {
        numbered_line(n, line);
        worker_job_latest(job, line, strlen(line));
    }
    done(job);
}

static void run_fail(worker_job *job, void *arg) {
    work *k = arg;
    err e = {0};
    err_set(&e, ERR_MEMORY, "needs 12 GB, \"has\" 8");
    for (int n = 0; n < k->count; n++) worker_job_line(job, "{\"event\":\"line\"}", 16);
    worker_job_fail(job, &e);
}

static void run_load(worker_job *job, void *arg) {
    work *k = arg;
    worker_set_activity(k->d->w, WORKER_LOADING);
    while (!worker_job_cancelled(job)) {
        worker_alive(k->d->w);
        nap();
    }
    worker_set_model(k->d->w, "/models/half.gguf");
    fail_cancelled(job);
}

static void run_crash(worker_job *job, void *arg) {
    (void)job;
    work *k = arg;
    worker_set_model(k->d->w, "/models/bad.gguf");
    if (str_eq(k->text, "abort")) abort();
    if (str_eq(k->text, "raise")) raise(SIGFPE);
    volatile uintptr_t nowhere = 16;
    *(volatile int *)nowhere = 1;
}

static void run_slot(worker_job *job, void *arg) {
    work *k = arg;
    for (int i = 0; i < SLOTS; i++) {
        if (k->d->slots[i].job) continue;
        k->d->slots[i] = (slot){.job = job, .count = k->count};
        return;
    }
    err e = {0};
    err_set(&e, ERR_BUSY, "no slot is free");
    worker_job_fail(job, &e);
}

static bool step_slot(slot *s) {
    if (worker_job_cancelled(s->job)) {
        fail_cancelled(s->job);
        *s = (slot){0};
        return false;
    }
    if (s->count > 0 && s->next == s->count) {
        done(s->job);
        *s = (slot){0};
        return false;
    }
    char line[LINE_BYTES + 64];
    numbered_line(s->next, line);
    if (worker_job_room(s->job) < sizeof line) return false; /* wait for the reader, not for a second of time */
    s->next++;
    return worker_job_line(s->job, line, strlen(line));
}

static bool engine_step(void *ctx) {
    dummy *d = ctx;
    bool working = false;
    for (int i = 0; i < SLOTS; i++)
        if (d->slots[i].job && step_slot(&d->slots[i])) working = true;
    return working;
}

static bool engine_init(void *ctx, err *e) {
    (void)ctx;
    const char *mode = getenv("DUMMY_INIT");
    if (str_eq(mode, "fail")) return err_set(e, ERR_DEVICE, "no device today");
    while (str_eq(mode, "hang")) nap();
    return true;
}

static void engine_fini(void *ctx) {
    (void)ctx;
    log_info("dummy", "engine ended");
}

static size_t memory(void *ctx, worker_memory *out, size_t cap) {
    (void)ctx;
    static int asked;
    if (cap == 0) return 0;
    if (str_eq(getenv("DUMMY_MEMORY"), "hang") && asked++) {
        log_info("dummy", "hanging");
        for (;;) nap();
    }
    str_copy(out[0].device, sizeof out[0].device, "DUMMY");
    out[0].total = 1000;
    out[0].free = 900;
    return 1;
}

/* ---- loop thread ------------------------------------------------------------------------------------------- */

static int start(void *ctx, worker *w) {
    dummy *d = ctx;
    d->w = w;
    return -1;
}

static void submit(dummy *d, http_req *req, void (*run)(worker_job *job, void *arg)) {
    work *k = mem_alloc(1, sizeof *k);
    const char *count = http_req_query(req, "count"), *id = http_req_query(req, "id");
    k->d = d;
    k->count = count ? atoi(count) : 0;
    k->text = str_dup(http_req_body(req, NULL));
    char *job = str_dup(id);
    worker_submit(d->w, req, job, run, k, free_work);
    free(job);
}

static void on_echo(void *ctx, http_req *req) {
    submit(ctx, req, run_echo);
}
static void on_spin(void *ctx, http_req *req) {
    submit(ctx, req, run_spin);
}
static void on_tail(void *ctx, http_req *req) {
    submit(ctx, req, run_tail);
}
static void on_deaf(void *ctx, http_req *req) {
    submit(ctx, req, run_deaf);
}
static void on_flood(void *ctx, http_req *req) {
    submit(ctx, req, run_flood);
}
static void on_previews(void *ctx, http_req *req) {
    submit(ctx, req, run_previews);
}
static void on_fail(void *ctx, http_req *req) {
    submit(ctx, req, run_fail);
}
static void on_load(void *ctx, http_req *req) {
    submit(ctx, req, run_load);
}
static void on_crash(void *ctx, http_req *req) {
    submit(ctx, req, run_crash);
}
static void on_slot(void *ctx, http_req *req) {
    submit(ctx, req, run_slot);
}

int main(int argc, char **argv) {
    static const http_route routes[] = {
        {"POST", "/internal/echo", on_echo, 0},   {"POST", "/internal/spin", on_spin, 0},
        {"POST", "/internal/tail", on_tail, 0},   {"POST", "/internal/deaf", on_deaf, 0},
        {"POST", "/internal/flood", on_flood, 0}, {"POST", "/internal/previews", on_previews, 0},
        {"POST", "/internal/fail", on_fail, 0},   {"POST", "/internal/load", on_load, 0},
        {"POST", "/internal/crash", on_crash, 0}, {"POST", "/internal/slot", on_slot, 0},
    };
    dummy d = {0};
    worker_service s = {.program = "worker_dummy",
                        .name = "dummy",
                        .routes = routes,
                        .route_count = sizeof routes / sizeof routes[0],
                        .start = start,
                        .engine_init = engine_init,
                        .engine_step = engine_step,
                        .engine_fini = engine_fini,
                        .memory = memory,
                        .ctx = &d};
    return worker_run(argc, argv, &s);
}
