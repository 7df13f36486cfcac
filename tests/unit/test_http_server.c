/* A real server on a free port against raw bytes: framing, order, limits, timeouts, backpressure, clients that leave.
 */
#include "http_test.h"
#include "base/str.h"
#include "net/http_server.h"
#include "net/net.h"

#define H "Host: h\r\n"

static http_server *server;
static int port;
static http_req *held;        /* a request that the test answers itself */
static int handled, closes;   /* handler calls, on_close calls */
static bool done;             /* the server is closed */
static size_t to_write, sent; /* /big */

static void count_close(void *ctx, http_req *req) {
    (void)ctx;
    (void)req;
    closes++;
    held = NULL;
}

static void write_more(void *ctx, http_req *req) {
    static char block[16 * 1024];
    memset(block, 'x', sizeof block);
    (void)ctx;
    bool more = true;
    while (more && sent < to_write) {
        more = http_reply_write(req, block, sizeof block);
        sent += sizeof block;
    }
    if (sent < to_write)
        http_req_on_drain(req, write_more, NULL);
    else
        http_reply_end(req);
}

static void reply_echo(http_req *req) {
    size_t len;
    const char *body = http_req_body(req, &len);
    http_reply(req, 200, "text/plain", body, len);
}

static void reply_facts(http_req *req) {
    const char *q = http_req_query(req, "q");
    char *text = str_fmt("%s %s q=%s h=%s peer=%s", http_req_method(req), http_req_path(req), q ? q : "-",
                         http_req_header(req, "X-Test") ? http_req_header(req, "X-Test") : "-", http_req_peer(req));
    assert_false(http_header_add(req, "X-Bad", "a\r\nSet-Cookie: b"));
    assert_false(http_header_add(req, "X Bad", "a"));
    assert_true(http_header_add(req, "X-Good", "yes"));
    http_reply(req, 200, "text/plain", text, strlen(text));
    free(text);
}

static void handler(void *ctx, http_req *req) {
    (void)ctx;
    handled++;
    const char *path = http_req_path(req);
    if (str_eq(path, "/echo") || str_eq(path, "/large")) {
        reply_echo(req);
    } else if (str_eq(path, "/held")) {
        held = req;
    } else if (str_eq(path, "/watched")) {
        held = req;
        http_req_on_close(req, count_close, NULL);
    } else if (str_eq(path, "/stream")) {
        http_reply_begin(req, 200, "text/plain");
        http_reply_write(req, "one", 3);
        http_reply_write(req, "", 0);
        http_reply_write(req, "three", 5);
        http_reply_end(req);
    } else if (str_eq(path, "/short")) {
        http_reply_begin_length(req, 200, "text/plain", 10);
        http_reply_write(req, "five!", 5);
        http_reply_end(req);
    } else if (str_eq(path, "/big")) {
        http_reply_begin(req, 200, NULL);
        write_more(NULL, req);
    } else if (str_eq(path, "/nothing")) {
        http_reply(req, 204, NULL, NULL, 0);
    } else if (str_eq(path, "/twice")) {
        http_reply_begin(req, 200, NULL);
        http_reply_error(req, 500, NULL, NULL, "too late");
    } else {
        reply_facts(req);
    }
}

static void on_headers(void *ctx, http_req *req) {
    (void)ctx;
    const char *path = http_req_path(req);
    if (str_eq(path, "/large")) http_req_limit_body(req, 4 << 20);
    if (str_eq(path, "/bodywatch")) http_req_on_close(req, count_close, NULL);
    if (str_eq(path, "/forbidden")) http_reply_error(req, 403, "no_entry", "where", "not %s", "here");
}

static void start(http_server_opts opts) {
    loop_open();
    opts.handler = handler;
    opts.on_headers = on_headers;
    err e;
    server = http_server_listen(&loop, &opts, &e);
    if (!server) fail_msg("%s", e.msg);
    port = http_server_port(server);
    held = NULL;
    handled = closes = 0;
    sent = 0;
    done = false;
}

static void on_done(void *ctx) {
    (void)ctx;
    done = true;
}

static void stop(void) {
    http_server_close(server, 0, on_done, NULL);
    WAIT(done);
    loop_close();
}

/* Sends a request that ends the connection, and wants these words in the answer. */
static void expect(const char *request, const char *status_line, const char *body) {
    raw_client c;
    raw_exchange(&c, port, request);
    if (!str_starts(buf_str(&c.in), status_line) || !raw_has(&c, body))
        fail_msg("%s\n--- wanted %s ... %s, got:\n%s", request, status_line, body, buf_str(&c.in));
    raw_close(&c);
}

static void test_refusals(void **state) {
    (void)state;
    start((http_server_opts){.max_header = 2000});
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "400"},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "400"},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "501"},
        {"GET / HTTP/1.1\n\n", "400"},
        {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" H H "\r\n", "400"},
        {"GET nowhere HTTP/1.1\r\n" H "\r\n", "400"},
        {"GET /../etc/passwd HTTP/1.1\r\n" H "\r\n", "400"},
        {"GET /%00 HTTP/1.1\r\n" H "\r\n", "400"},
        {"GET * HTTP/1.1\r\n" H "\r\n", "400"},
        {"GET http://other/ HTTP/1.1\r\n" H "\r\n", "400"},
        {"CONNECT h:1 HTTP/1.1\r\n" H "\r\n", "501"},
        {"PROPFIND / HTTP/1.1\r\n" H "\r\n", "501"},
        {"BREW / HTTP/1.1\r\n" H "\r\n", "501"},
        {"GET / HTTP/2.0\r\n" H "\r\n", "505"},
        {"GET / HTTP/1.1\r\n" H "Expect: miracles\r\n\r\n", "417"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *line = str_fmt("HTTP/1.1 %s ", cases[i].status);
        expect(cases[i].request, line, "{\"error\":{\"message\":");
        free(line);
    }
    char *large = str_fmt("GET / HTTP/1.1\r\n" H "X: %02000d\r\n\r\n", 0);
    expect(large, "HTTP/1.1 431 ", "Connection: close\r\n");
    free(large);
    assert_int_equal(handled, 0);
    stop();
}

static void test_facts(void **state) {
    (void)state;
    start((http_server_opts){0});
    expect("GET /a%20b/../c?q=x+y HTTP/1.1\r\n" H "X-Test: v\r\nConnection: close\r\n\r\n",
           "HTTP/1.1 200 OK\r\nDate: ", "GET /c q=x y h=v peer=127.0.0.1");
    expect("GET http://H/x HTTP/1.1\r\n" H "Connection: close\r\n\r\n", "HTTP/1.1 200 ", "X-Good: yes\r\n");
    expect(
        "GET /forbidden HTTP/1.1\r\n" H "Connection: close\r\n\r\n", "HTTP/1.1 403 ",
        "{\"error\":{\"message\":\"not here\",\"type\":\"permission_error\",\"code\":\"no_entry\",\"param\":\"where\"}}");
    stop();
}

static void test_keep_alive(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc");
    WAIT(raw_has(&c, "abc"));
    raw_send(&c, "GET /forbidden HTTP/1.1\r\n" H "\r\n"); /* an answer at headers keeps the connection, too */
    WAIT(raw_has(&c, "not here"));
    assert_false(raw_has(&c, "Connection: close"));
    raw_send(&c, "GET /last HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    WAIT(c.ended);
    assert_true(raw_has(&c, "Connection: close"));
    assert_true(raw_has(&c, "GET /last"));
    raw_close(&c);
    expect("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", "Connection: close\r\n");
    raw_open(&c, port);
    raw_send(&c, "GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    WAIT(raw_has(&c, "GET /one"));
    assert_true(raw_has(&c, "Connection: keep-alive\r\n"));
    raw_send(&c, "GET /two HTTP/1.0\r\n\r\n");
    WAIT(c.ended);
    assert_true(raw_has(&c, "GET /two"));
    raw_close(&c);
    stop();
}

static void test_pipelining_in_order(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /a HTTP/1.1\r\n" H "\r\nGET /held HTTP/1.1\r\n" H "\r\nPOST /echo HTTP/1.1\r\n" H
                 "Content-Length: 4\r\n\r\nlastGET /b HTTP/1.1\r\n" H "\r\n");
    WAIT(held && raw_has(&c, "GET /a"));
    assert_int_equal(handled, 2); /* the third waits */
    http_reply(held, 200, "text/plain", "second", 6);
    assert_int_equal(handled, 2); /* and is not handled inside http_reply() */
    WAIT(raw_has(&c, "GET /b"));
    const char *all = c.in.data;
    assert_true(strstr(all, "GET /a") < strstr(all, "second"));
    assert_true(strstr(all, "second") < strstr(all, "last"));
    assert_true(strstr(all, "last") < strstr(all, "GET /b"));
    raw_close(&c);
    stop();
}

static void test_half_closed_client_gets_its_answers(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /a HTTP/1.1\r\n" H "\r\nGET /b HTTP/1.1\r\n" H "\r\n");
    uv_shutdown(&c.shutdown, (uv_stream_t *)&c.tcp, NULL);
    WAIT(c.ended);
    assert_true(raw_has(&c, "GET /a") && raw_has(&c, "GET /b"));
    raw_close(&c);
    stop();
}

static void test_answers_without_body(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_exchange(&c, port, "HEAD /echo HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    assert_true(raw_has(&c, "Content-Length: 0\r\n"));
    assert_true(str_ends(c.in.data, "\r\n\r\n"));
    raw_close(&c);
    raw_exchange(&c, port, "HEAD /facts HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    assert_true(raw_has(&c, "Content-Length: "));
    assert_false(raw_has(&c, "/facts"));
    raw_close(&c);
    raw_exchange(&c, port, "HEAD /stream HTTP/1.1\r\n" H "\r\nGET /nothing HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    assert_false(raw_has(&c, "one"));
    assert_true(raw_has(&c, "HTTP/1.1 204 No Content\r\n"));
    assert_false(raw_has(&c, "Content-Length"));
    assert_true(str_ends(c.in.data, "\r\n\r\n"));
    raw_close(&c);
    stop();
}

static void test_streams(void **state) {
    (void)state;
    start((http_server_opts){0});
    expect("GET /stream HTTP/1.1\r\n" H "Connection: close\r\n\r\n", "HTTP/1.1 200 ",
           "\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
    raw_client c;
    raw_exchange(&c, port, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_false(raw_has(&c, "chunked"));
    assert_true(str_ends(c.in.data, "\r\n\r\nonethree"));
    raw_close(&c);
    raw_exchange(&c, port, "GET /short HTTP/1.1\r\n" H "\r\n"); /* promised ten bytes: cut, so that it shows */
    assert_true(str_ends(c.in.data, "five!"));
    raw_close(&c);
    raw_exchange(&c, port, "GET /twice HTTP/1.1\r\n" H "\r\n");
    assert_false(raw_has(&c, "\r\n0\r\n"));
    raw_close(&c);
    stop();
}

static void test_expect_continue(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    WAIT(raw_has(&c, "HTTP/1.1 100 Continue\r\n\r\n"));
    raw_send(&c, "body");
    WAIT(raw_has(&c, "HTTP/1.1 200 ") && raw_has(&c, "body"));
    raw_close(&c);
    expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", "HTTP/1.1 413 ", "");
    expect("POST /forbidden HTTP/1.1\r\n" H "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", "HTTP/1.1 403 ", "");
    stop();
}

static void test_body_limits(void **state) {
    (void)state;
    start((http_server_opts){.max_body = 1000});
    expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", "HTTP/1.1 413 ", "content_too_large");
    char *chunked =
        str_fmt("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3e8\r\n%01000d\r\n1\r\na\r\n", 0);
    expect(chunked, "HTTP/1.1 413 ", "content_too_large");
    free(chunked);
    char *fits = str_fmt("POST /echo HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 1000\r\n\r\n%01000d", 0);
    expect(fits, "HTTP/1.1 200 ", "");
    free(fits);
    buf large;
    buf_init(&large, 8 << 20);
    buf_puts(&large, "POST /large HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 3145728\r\n\r\n");
    for (int i = 0; i < 3145728; i++) buf_putc(&large, (char)('a' + i % 26));
    raw_client c;
    raw_open(&c, port);
    raw_send_bytes(&c, large.data, large.len);
    WAIT(c.ended);
    assert_true(str_starts(c.in.data, "HTTP/1.1 200 "));
    assert_memory_equal(c.in.data + c.in.len - 3145728, large.data + large.len - 3145728, 3145728);
    raw_close(&c);
    /* Refused at once, and the answer arrives though the client goes on sending. */
    memcpy(large.data, "POST /echo_ ", 12);
    raw_open(&c, port);
    raw_send_bytes(&c, large.data, large.len);
    WAIT(c.ended);
    assert_true(str_starts(c.in.data, "HTTP/1.1 413 "));
    raw_close(&c);
    buf_free(&large);
    stop();
}

static void test_timeouts(void **state) {
    (void)state;
    start((http_server_opts){.header_timeout_ms = 30, .body_timeout_ms = 30, .keep_alive_ms = 30});
    expect("GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 ", "invalid_request_error");
    expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc", "HTTP/1.1 408 ", "");
    raw_client c;
    raw_exchange(&c, port, "GET / HTTP/1.1\r\n" H "\r\n"); /* closed when idle, without another word */
    assert_int_equal(raw_count(&c, "HTTP/1.1 "), 1);
    raw_close(&c);
    raw_open(&c, port);
    WAIT(c.ended);
    assert_int_equal(c.in.len, 0);
    raw_close(&c);
    expect("POST /bodywatch HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc", "HTTP/1.1 408 ", "");
    assert_int_equal(closes, 1);
    stop();
}

static void test_slow_sender_with_steady_drip(void **state) {
    (void)state;
    start((http_server_opts){.body_timeout_ms = 100});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\n");
    while (!c.ended) { /* a byte now and then keeps the pause short, yet the whole is too slow */
        raw_send(&c, "a");
        uv_sleep(5);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(str_starts(c.in.data, "HTTP/1.1 408 "));
    raw_close(&c);
    stop();
}

static void test_client_that_leaves_is_noticed(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /watched HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    raw_close(&c);
    WAIT(closes == 1);
    raw_open(&c, port); /* the same in the middle of an answer that is silent */
    raw_send(&c, "GET /watched HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    http_reply_begin(held, 200, "text/plain");
    http_reply_write(held, "a", 1);
    WAIT(raw_has(&c, "1\r\na\r\n"));
    raw_close(&c);
    WAIT(closes == 2);
    raw_open(&c, port); /* while the body arrives */
    raw_send(&c, "POST /bodywatch HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc");
    uv_run(&loop, UV_RUN_NOWAIT);
    WAIT(http_server_connections(server) == 1);
    raw_close(&c);
    WAIT(closes == 3);
    raw_open(&c, port); /* the same with nobody who asked to be told */
    raw_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc");
    raw_close(&c);
    WAIT(http_server_connections(server) == 0);
    stop();
}

static void test_late_answers_go_nowhere(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /held?q=1 HTTP/1.1\r\n" H "X-Test: still here\r\n\r\n");
    WAIT(held);
    raw_close(&c);
    WAIT(http_server_connections(server) == 0);
    assert_string_equal(http_req_header(held, "x-test"), "still here");
    assert_string_equal(http_req_query(held, "q"), "1");
    http_reply_begin(held, 200, NULL);
    assert_true(http_reply_write(held, "x", 1));
    assert_int_equal(http_reply_queued(held), 0);
    http_reply_end(held);
    stop();
}

static void test_abort_cuts_the_answer(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /watched HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    http_reply_begin(held, 200, NULL);
    http_reply_abort(held);
    WAIT(c.ended);
    assert_int_equal(closes, 0);
    assert_false(raw_has(&c, "\r\n0\r\n"));
    raw_close(&c);
    stop();
}

static void test_backpressure(void **state) {
    (void)state;
    start((http_server_opts){0});
    to_write = 32 << 20;
    raw_client c;
    raw_open(&c, port);
    uv_read_stop((uv_stream_t *)&c.tcp);
    raw_send(&c, "GET /big HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    WAIT(handled == 1);
    for (int i = 0; i < 50; i++) uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(sent < to_write); /* the kernel's buffers are full, and the handler stopped */
    raw_start_reading(&c);
    WAIT(c.ended);
    assert_int_equal(sent, to_write);
    assert_true(c.in.len > to_write);
    assert_true(str_ends(c.in.data, "\r\n0\r\n\r\n"));
    raw_close(&c);
    stop();
}

/* Each answer is small, the client never reads: handling must stop, and go on when it reads. */
static void test_pipelining_without_reading(void **state) {
    (void)state;
    start((http_server_opts){.max_body = 8 << 20});
    buf flood;
    buf_init(&flood, 64 << 20);
    enum { REQUESTS = 2000, BODY = 10000 };
    char *one = str_fmt("POST /echo HTTP/1.1\r\n" H "Content-Length: %d\r\n\r\n%0*d", BODY, BODY, 0);
    for (int i = 0; i < REQUESTS; i++) buf_puts(&flood, one);
    raw_client c;
    raw_open(&c, port);
    uv_read_stop((uv_stream_t *)&c.tcp);
    raw_send_bytes(&c, flood.data, flood.len);
    int before = -1;
    while (handled != before) {
        before = handled;
        for (int i = 0; i < 20; i++) uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(handled > 0 && handled < REQUESTS);
    raw_start_reading(&c);
    WAIT(handled == REQUESTS);
    size_t head = (size_t)(strstr(c.in.data, "\r\n\r\n") + 4 - c.in.data);
    WAIT(c.in.len >= REQUESTS * (head + BODY));
    assert_int_equal(raw_count(&c, "HTTP/1.1 200 OK"), REQUESTS);
    raw_close(&c);
    free(one);
    buf_free(&flood);
    stop();
}

static void test_client_that_does_not_read_is_dropped(void **state) {
    (void)state;
    start((http_server_opts){.send_timeout_ms = 50});
    to_write = 1 << 30;
    raw_client c;
    raw_open(&c, port);
    uv_read_stop((uv_stream_t *)&c.tcp);
    raw_send(&c, "GET /watched HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    http_reply_begin(held, 200, NULL);
    char block[4096] = "";
    while (http_reply_write(held, block, sizeof block)) continue;
    WAIT(closes == 1);
    raw_close(&c);
    stop();
}

static void test_graceful_close(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client idle, busy;
    raw_open(&idle, port);
    raw_open(&busy, port);
    raw_send(&busy, "GET /held HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    http_server_close(server, 60000, on_done, NULL);
    WAIT(idle.ended);
    assert_false(done);
    http_reply(held, 200, NULL, "bye", 3);
    WAIT(raw_has(&busy, "bye") && busy.ended);
    assert_true(raw_has(&busy, "Connection: close"));
    raw_close(&busy);
    raw_close(&idle);
    WAIT(done);
    loop_close();
}

static void test_close_cuts_after_grace(void **state) {
    (void)state;
    start((http_server_opts){0});
    raw_client c;
    raw_open(&c, port);
    raw_send(&c, "GET /watched HTTP/1.1\r\n" H "\r\n");
    WAIT(held);
    http_server_close(server, 10, on_done, NULL);
    WAIT(done);
    assert_int_equal(closes, 1);
    raw_close(&c);
    loop_close();
}

static void test_port_taken(void **state) {
    (void)state;
    start((http_server_opts){0});
    err e;
    assert_null(http_server_listen(&loop, &(http_server_opts){.port = port, .handler = handler}, &e));
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_non_null(strstr(e.msg, "taken"));
    assert_null(http_server_listen(&loop, &(http_server_opts){.ip = "localhost", .handler = handler}, &e));
    assert_int_equal(e.code, ERR_INVALID);
    stop();
}

static void test_too_many_connections(void **state) {
    (void)state;
    start((http_server_opts){.max_connections = 2});
    raw_client a, b, c;
    raw_open(&a, port);
    raw_open(&b, port);
    raw_open(&c, port);
    WAIT(c.ended);
    assert_true(str_starts(c.in.data, "HTTP/1.1 503 "));
    assert_true(raw_has(&c, "Retry-After: "));
    raw_close(&c);
    raw_close(&b);
    WAIT(http_server_connections(server) == 1);
    raw_open(&b, port);
    raw_send(&b, "GET /again HTTP/1.1\r\n" H "\r\n");
    WAIT(raw_has(&b, "GET /again"));
    raw_close(&a);
    raw_close(&b);
    stop();
}

int main(void) {
    net_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_pipelining_in_order),
        cmocka_unit_test(test_half_closed_client_gets_its_answers),
        cmocka_unit_test(test_answers_without_body),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_slow_sender_with_steady_drip),
        cmocka_unit_test(test_client_that_leaves_is_noticed),
        cmocka_unit_test(test_late_answers_go_nowhere),
        cmocka_unit_test(test_abort_cuts_the_answer),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_pipelining_without_reading),
        cmocka_unit_test(test_client_that_does_not_read_is_dropped),
        cmocka_unit_test(test_graceful_close),
        cmocka_unit_test(test_close_cuts_after_grace),
        cmocka_unit_test(test_port_taken),
        cmocka_unit_test(test_too_many_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
