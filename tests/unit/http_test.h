/* http_test.h - for the network tests: a raw client on the test's loop, and waiting for what must happen.
 * Nothing here measures time: WAIT runs the loop until a condition holds, and a watchdog ends a test that hangs. */
#ifndef MYSTI_TESTS_HTTP_TEST_H
#define MYSTI_TESTS_HTTP_TEST_H

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <uv.h>

static uv_loop_t loop;
static uv_timer_t watchdog;

static void on_watchdog(uv_timer_t *t) {
    (void)t;
    fprintf(stderr, "a condition was not met for 30 s\n");
    abort();
}

#define WAIT(condition)                                                                                                \
    do {                                                                                                               \
        uv_timer_start(&watchdog, on_watchdog, 30000, 0);                                                              \
        while (!(condition)) uv_run(&loop, UV_RUN_ONCE);                                                               \
        uv_timer_stop(&watchdog);                                                                                      \
    } while (0)

static void loop_open(void) {
    assert_int_equal(uv_loop_init(&loop), 0);
    uv_timer_init(&loop, &watchdog);
    uv_unref((uv_handle_t *)&watchdog);
}

/* Fails when a handle was left open. */
static void loop_close(void) {
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

typedef struct raw_client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    uv_shutdown_t shutdown;
    buf in;
    char chunk[65536];
    bool connected, written, ended, closed; /* ended: the peer closed or reset */
} raw_client;

static inline void raw_on_connect(uv_connect_t *c, int status) {
    assert_int_equal(status, 0);
    ((raw_client *)c->handle->data)->connected = true;
}

static inline void raw_alloc(uv_handle_t *h, size_t want, uv_buf_t *b) {
    (void)want;
    raw_client *c = h->data;
    *b = uv_buf_init(c->chunk, sizeof c->chunk);
}

static inline void raw_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    raw_client *c = s->data;
    if (n < 0)
        c->ended = true;
    else
        assert_true(buf_append(&c->in, b->base, (size_t)n));
}

static inline void raw_start_reading(raw_client *c) {
    uv_read_start((uv_stream_t *)&c->tcp, raw_alloc, raw_read);
}

static inline void raw_open(raw_client *c, int port) {
    memset(c, 0, sizeof *c);
    buf_init(&c->in, 64 * 1024 * 1024);
    struct sockaddr_in addr;
    uv_ip4_addr("127.0.0.1", port, &addr);
    uv_tcp_init(&loop, &c->tcp);
    c->tcp.data = c;
    uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&addr, raw_on_connect);
    WAIT(c->connected);
    raw_start_reading(c);
}

static inline void raw_on_write(uv_write_t *w, int status) {
    (void)status;
    ((raw_client *)w->handle->data)->written = true;
}

/* `data` must stay until written. */
static inline void raw_send_bytes(raw_client *c, const char *data, size_t len) {
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    c->written = false;
    assert_int_equal(uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, raw_on_write), 0);
}

static inline void raw_send(raw_client *c, const char *text) {
    raw_send_bytes(c, text, strlen(text));
    WAIT(c->written);
}

static inline void raw_on_close(uv_handle_t *h) {
    ((raw_client *)h->data)->closed = true;
}

static inline void raw_close(raw_client *c) {
    uv_close((uv_handle_t *)&c->tcp, raw_on_close);
    WAIT(c->closed);
    buf_free(&c->in);
}

static inline bool raw_has(const raw_client *c, const char *text) {
    return strstr(buf_str(&c->in), text) != NULL;
}

static inline size_t raw_count(const raw_client *c, const char *text) {
    size_t n = 0;
    for (const char *at = buf_str(&c->in); (at = strstr(at, text)) != NULL; at += strlen(text)) n++;
    return n;
}

/* Opens, sends, waits for the server to close; the caller closes. */
static inline void raw_exchange(raw_client *c, int port, const char *request) {
    raw_open(c, port);
    raw_send(c, request);
    WAIT(c->ended);
}

#endif
