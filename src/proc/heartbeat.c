/* heartbeat.c - see heartbeat.h. One timer: it waits either for the answer to run out of time or for the next turn. */
#include "proc/heartbeat.h"
#include "base/str.h"
#include "net/http_client.h"
#include "proc/progress.h"

#include <stdlib.h>

enum { ANSWER_MAX_BYTES = 64 * 1024 };

struct heartbeat {
    http_client *client;
    http_call *call; /* outstanding, or NULL */
    uv_timer_t timer;
    uint64_t asked_at;
    char *token; /* owned */
    bool running;
    bool answered; /* since the last restart: `last` is valid */
    worker_health last;
    progress_watch progress;
    void (*on_ok)(void *ctx, const worker_health *h, bool stalled);
    void (*on_miss)(void *ctx, const err *why);
    void *ctx;
};

static void ask(heartbeat *hb);

static void on_turn(uv_timer_t *timer) {
    ask(timer->data);
}

/* The next question comes a full interval after the last one, not after its answer. */
static void wait_for_turn(heartbeat *hb) {
    uint64_t interval = hb->answered ? HEARTBEAT_INTERVAL_MS : HEARTBEAT_STARTING_MS;
    uint64_t passed = uv_now(hb->timer.loop) - hb->asked_at;
    uv_timer_start(&hb->timer, on_turn, passed < interval ? interval - passed : 0, 0);
}

/* The callback comes last: it may stop or close the heartbeat. */
static void missed(heartbeat *hb, const err *why) {
    wait_for_turn(hb);
    if (hb->answered) hb->on_miss(hb->ctx, why);
}

static bool read_answer(heartbeat *hb, int status, const char *body, size_t len, err *e) {
    if (status != 200) return err_set(e, ERR_FORMAT, "health: status %d", status);
    worker_health h;
    if (!worker_health_parse(body, len, &h, e)) return err_wrap(e, "health");
    if (!h.ok) return err_set(e, ERR_FORMAT, "health: the worker says that it is not well");
    hb->last = h;
    hb->answered = true;
    return true;
}

static void on_answer(void *ctx, int status, const char *body, size_t len, const err *e) {
    heartbeat *hb = ctx;
    hb->call = NULL;
    err why = {0};
    if (e || !read_answer(hb, status, body, len, &why)) {
        missed(hb, e ? e : &why);
        return;
    }
    bool stalled = progress_stalled(&hb->progress, &hb->last, (int64_t)uv_now(hb->timer.loop));
    wait_for_turn(hb);
    hb->on_ok(hb->ctx, &hb->last, stalled);
}

static void forget_call(heartbeat *hb) {
    if (hb->call) http_call_abort(hb->call);
    hb->call = NULL;
}

static void on_timeout(uv_timer_t *timer) {
    heartbeat *hb = timer->data;
    forget_call(hb);
    err why = {0};
    err_set(&why, ERR_TIMEOUT, "no answer within %d ms", HEARTBEAT_TIMEOUT_MS);
    missed(hb, &why);
}

static void ask(heartbeat *hb) {
    http_header token = {"X-Mysti-Token", hb->token};
    http_call_opts o = {.path = "/internal/health", .headers = &token, .header_count = 1};
    err e = {0};
    hb->asked_at = uv_now(hb->timer.loop);
    hb->call = http_client_fetch(hb->client, &o, ANSWER_MAX_BYTES, on_answer, hb, &e);
    if (hb->call)
        uv_timer_start(&hb->timer, on_timeout, HEARTBEAT_TIMEOUT_MS, 0);
    else
        missed(hb, &e);
}

heartbeat *heartbeat_open(uv_loop_t *loop, const heartbeat_options *o) {
    heartbeat *hb = mem_alloc(1, sizeof *hb);
    hb->client = http_client_new(loop, "127.0.0.1", o->port);
    hb->on_ok = o->on_ok;
    hb->on_miss = o->on_miss;
    hb->ctx = o->ctx;
    uv_timer_init(loop, &hb->timer);
    hb->timer.data = hb;
    heartbeat_restart(hb, o->token);
    return hb;
}

void heartbeat_restart(heartbeat *hb, const char *token) {
    heartbeat_stop(hb);
    if (token) str_set(&hb->token, token);
    progress_restart(&hb->progress);
    hb->answered = false;
    hb->running = true;
    heartbeat_now(hb);
}

void heartbeat_stop(heartbeat *hb) {
    hb->running = false;
    forget_call(hb);
    uv_timer_stop(&hb->timer);
}

void heartbeat_now(heartbeat *hb) {
    if (hb->running && !hb->call) uv_timer_start(&hb->timer, on_turn, 0, 0);
}

static void on_closed(uv_handle_t *handle) {
    heartbeat *hb = handle->data;
    free(hb->token);
    free(hb);
}

void heartbeat_close(heartbeat *hb) {
    if (!hb) return;
    heartbeat_stop(hb);
    http_client_close(hb->client);
    uv_close((uv_handle_t *)&hb->timer, on_closed);
}

const worker_health *heartbeat_last(const heartbeat *hb) {
    return hb->answered ? &hb->last : NULL;
}
