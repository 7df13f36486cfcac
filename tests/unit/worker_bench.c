/* worker_bench.c - see worker_bench.h. */
#include "worker_bench.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* ---- the process ------------------------------------------------------------------------------------------- */

static void on_line(void *ctx, bool is_stderr, const char *line) {
    bench *b = ctx;
    static const char listening[] = "listening on port ";
    const char *at = strstr(line, listening);
    if (at && b->port == 0) b->port = atoi(at + strlen(listening));
    if (is_stderr) buf_printf(&b->err_text, "%s\n", line);
}

static void on_exit_event(void *ctx, const proc_exit *how) {
    bench *b = ctx;
    b->exited = true;
    b->how = *how;
}

static void on_keep(uv_timer_t *timer) {
    (void)timer;
}

void bench_init(bench *b) {
    memset(b, 0, sizeof *b);
    b->loop = mem_alloc(1, sizeof *b->loop);
    uv_loop_init(b->loop);
    uv_timer_init(b->loop, &b->keep);
    uv_timer_start(&b->keep, on_keep, 1000, 1000);
    buf_init(&b->err_text, 1 << 20);
}

void bench_spawn(bench *b, const char *const *argv, const char *const *env) {
    const char *all[8] = {"MYSTI_TOKEN=" BENCH_TOKEN};
    for (int i = 0; env && env[i]; i++) all[i + 1] = env[i];
    proc_options o = {.argv = argv, .env = all, .on_line = on_line, .on_exit = on_exit_event, .ctx = b};
    err e = {0};
    proc_close(b->p);
    b->exited = false;
    b->port = 0;
    b->p = proc_spawn(b->loop, &o, &e);
    if (!b->p) fail_msg("%s", e.msg);
}

void bench_turn(bench *b) {
    uv_run(b->loop, UV_RUN_ONCE);
}

void bench_start(bench *b, const char *const *env) {
    bench_init(b);
    bench_spawn(b, (const char *const[]){WORKER_DUMMY, "--port", "0", NULL}, env);
    while (b->port == 0 && !b->exited) bench_turn(b);
    if (b->port == 0) fail_msg("the worker ended: %s", buf_str(&b->err_text));
    b->client = http_client_new(b->loop, "127.0.0.1", b->port);
}

void bench_wait_exit(bench *b) {
    while (!b->exited) bench_turn(b);
}

void bench_free(bench *b) {
    proc_close(b->p);
    if (b->client) http_client_close(b->client);
    uv_close((uv_handle_t *)&b->keep, NULL);
    uv_run(b->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(b->loop), 0);
    free(b->loop);
    buf_free(&b->err_text);
}

/* ---- whole answers ----------------------------------------------------------------------------------------- */

static void on_answer(void *ctx, int status, const char *body, size_t len, const err *e) {
    answer *a = ctx;
    a->done = true;
    a->status = status;
    if (e) a->e = *e;
    if (body) buf_append(&a->body, body, len);
}

http_call *bench_send(bench *b, const char *method, const char *path, const char *token, const char *body,
                      answer *out) {
    http_header headers[2] = {{"Content-Type", "application/json"}, {"X-Mysti-Token", token}};
    memset(out, 0, sizeof *out);
    buf_init(&out->body, 1 << 20);
    http_call_opts o = {.method = method,
                        .path = path,
                        .headers = headers,
                        .header_count = token ? 2 : 1,
                        .body = body,
                        .body_len = body ? strlen(body) : 0};
    err e = {0};
    http_call *call = http_client_fetch(b->client, &o, 1 << 20, on_answer, out, &e);
    if (!call) fail_msg("%s", e.msg);
    return call;
}

void bench_call(bench *b, const char *method, const char *path, const char *token, const char *body, answer *out) {
    bench_send(b, method, path, token, body, out);
    while (!out->done) bench_turn(b);
}

void answer_free(answer *a) {
    buf_free(&a->body);
}

worker_health bench_health(bench *b) {
    answer a;
    worker_health h;
    err e = {0};
    bench_call(b, "GET", "/internal/health", BENCH_TOKEN, NULL, &a);
    if (a.status != 200) fail_msg("health: status %d, %s", a.status, a.e.msg);
    if (!worker_health_parse(buf_str(&a.body), a.body.len, &h, &e)) fail_msg("%s", e.msg);
    answer_free(&a);
    return h;
}

void bench_wait_state(bench *b, worker_activity state, worker_health *h) {
    worker_health now;
    do now = bench_health(b);
    while (now.state != state);
    if (h) *h = now;
}

/* ---- streams ----------------------------------------------------------------------------------------------- */

static bool on_stream_line(void *ctx, const char *line, size_t len) {
    (void)len;
    stream *s = ctx;
    str_copy(s->last, sizeof s->last, line);
    const char *n = strstr(line, "\"n\":");
    if (!n) return true;
    int number = atoi(n + 4);
    if (s->gaps_allowed)
        assert_true(number > s->last_n);
    else
        assert_int_equal(number, s->last_n + 1); /* nothing lost, nothing twice, nothing out of order */
    s->last_n = number;
    s->count++;
    return true;
}

static void on_headers(void *ctx, http_call *call) {
    stream *s = ctx;
    s->status = http_call_status(call);
    const char *type = http_call_header(call, "Content-Type");
    str_copy(s->content_type, sizeof s->content_type, type ? type : "");
}

static void on_data(void *ctx, const char *data, size_t len) {
    stream *s = ctx;
    assert_true(http_lines_feed(&s->lines, data, len, NULL));
}

static void on_done(void *ctx, const err *e) {
    stream *s = ctx;
    s->call = NULL;
    s->done = true;
    s->broken = e != NULL;
}

void stream_open(stream *s, bench *b, const char *path) {
    bool gaps = s->gaps_allowed;
    memset(s, 0, sizeof *s);
    s->gaps_allowed = gaps;
    s->last_n = -1;
    http_lines_init(&s->lines, 1 << 20, on_stream_line, s);
    http_header token = {"X-Mysti-Token", BENCH_TOKEN};
    http_call_opts o = {.method = "POST",
                        .path = path,
                        .headers = &token,
                        .header_count = 1,
                        .on_headers = on_headers,
                        .on_data = on_data,
                        .on_done = on_done,
                        .ctx = s};
    err e = {0};
    s->call = http_client_send(b->client, &o, &e);
    if (!s->call) fail_msg("%s", e.msg);
}

void stream_wait_lines(stream *s, bench *b, int count) {
    while (s->count < count && !s->done) bench_turn(b);
    assert_true(s->count >= count);
}

void stream_wait_done(stream *s, bench *b) {
    while (!s->done) bench_turn(b);
}

void stream_close(stream *s) {
    if (s->call) http_call_abort(s->call);
    s->call = NULL;
    http_lines_free(&s->lines);
}
