/* Event streams: wire format, heartbeat, readers that leave or do not read, many idle ones. */
#include "http_test.h"
#include "base/str.h"
#include "net/http_server.h"
#include "net/http_sse.h"
#include "net/net.h"

#define GET "GET /events HTTP/1.1\r\nHost: h\r\n\r\n"

static http_server *server;
static http_sse_opts sse_opts;
static http_sse *last;
static int opened, closes;
static bool done;

static void on_close(void *ctx, http_sse *s) {
    assert_ptr_equal(ctx, &closes);
    if (s == last) last = NULL;
    closes++;
}

static void handler(void *ctx, http_req *req) {
    (void)ctx;
    last = http_sse_begin(req, &sse_opts, on_close, &closes);
    opened++;
}

static void on_done(void *ctx) {
    (void)ctx;
    done = true;
}

static int setup(void **state) {
    (void)state;
    loop_open();
    sse_opts = (http_sse_opts){0};
    last = NULL;
    opened = closes = 0;
    done = false;
    server = http_server_listen(&loop, &(http_server_opts){.handler = handler}, NULL);
    return server == NULL;
}

static int teardown(void **state) {
    (void)state;
    http_server_close(server, 0, on_done, NULL);
    WAIT(done);
    loop_close();
    return 0;
}

static void open_stream(raw_client *c) {
    int before = opened;
    raw_open(c, http_server_port(server));
    raw_send(c, GET);
    WAIT(opened == before + 1);
}

static void test_format(void **state) {
    (void)state;
    static const struct {
        const char *id, *event, *data, *want;
    } cases[] = {
        {NULL, NULL, "x", "data: x\n\n"},
        {"7", "tick", "x", "id: 7\nevent: tick\ndata: x\n\n"},
        {NULL, NULL, "", "data: \n\n"},
        {NULL, NULL, "a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"},
        {NULL, NULL, "a\n", "data: a\ndata: \n\n"},
        {"1\ndata: forged", "e\rid: 9", "x", "id: 1\nevent: e\ndata: x\n\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf out;
        buf_init(&out, 1000);
        http_sse_format(&out, cases[i].id, cases[i].event, cases[i].data);
        assert_string_equal(out.data, cases[i].want);
        buf_free(&out);
    }
}

static void test_stream(void **state) {
    (void)state;
    raw_client c;
    open_stream(&c);
    WAIT(raw_has(&c, "retry: 2000\n\n"));
    assert_true(raw_has(&c, "Content-Type: text/event-stream"));
    assert_true(raw_has(&c, "Cache-Control: no-cache"));
    assert_true(http_sse_send(last, "1", "job", "{\"a\":1}"));
    WAIT(raw_has(&c, "id: 1\nevent: job\ndata: {\"a\":1}\n\n"));
    http_sse_end(last);
    WAIT(raw_has(&c, "\r\n0\r\n\r\n"));
    assert_int_equal(closes, 0);
    raw_close(&c);
}

static void test_head_has_no_stream(void **state) {
    (void)state;
    raw_client c;
    raw_exchange(&c, http_server_port(server), "HEAD /events HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_true(str_ends(c.in.data, "\r\n\r\n"));
    assert_null(last);
    raw_close(&c);
}

static void test_heartbeat(void **state) {
    (void)state;
    sse_opts.heartbeat_ms = 5;
    raw_client c;
    open_stream(&c);
    WAIT(raw_count(&c, ":\n\n") >= 2);
    raw_close(&c);
    WAIT(closes == 1);
}

static void test_reader_that_leaves(void **state) {
    (void)state;
    raw_client c;
    open_stream(&c);
    raw_close(&c);
    WAIT(closes == 1);
    assert_null(last);
}

static void test_reader_that_does_not_read(void **state) {
    (void)state;
    sse_opts.max_queue = 100000;
    raw_client c;
    open_stream(&c);
    uv_read_stop((uv_stream_t *)&c.tcp);
    char *data = str_fmt("%010000d", 0);
    int sent = 0;
    while (http_sse_send(last, NULL, NULL, data)) sent++;
    assert_true(http_sse_queued(last) == 0); /* nothing is kept for it any more */
    assert_false(http_sse_send(last, NULL, NULL, data));
    assert_int_equal(closes, 0); /* not from inside send */
    WAIT(closes == 1);
    assert_true(sent > 10);
    free(data);
    raw_close(&c);
}

static size_t resident_bytes(void) {
    size_t rss = 0;
    assert_int_equal(uv_resident_set_memory(&rss), 0);
    return rss;
}

/* Raw sockets without a reader's buffers, so that what grows is the server's side. */
typedef struct bare_client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
} bare_client;

static void on_bare_connect(uv_connect_t *connect, int status) {
    assert_int_equal(status, 0);
    bare_client *c = connect->handle->data;
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)GET, sizeof GET - 1);
    uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, NULL);
}

static void test_idle_streams_are_small(void **state) {
    (void)state;
    enum { STREAMS = 400 };
    bare_client *clients = mem_alloc(STREAMS, sizeof *clients);
    struct sockaddr_in addr;
    uv_ip4_addr("127.0.0.1", http_server_port(server), &addr);
    raw_client warm;
    open_stream(&warm);
    size_t before = resident_bytes();
    for (int i = 0; i < STREAMS; i++) {
        uv_tcp_init(&loop, &clients[i].tcp);
        clients[i].tcp.data = &clients[i];
        uv_tcp_connect(&clients[i].connect, &clients[i].tcp, (struct sockaddr *)&addr, on_bare_connect);
    }
    WAIT(opened == STREAMS + 1);
    size_t each = (resident_bytes() - before) / STREAMS;
    print_message("one idle event stream: %zu bytes of resident memory\n", each);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(each < 6000);
#endif
    for (int i = 0; i < STREAMS; i++) uv_close((uv_handle_t *)&clients[i].tcp, NULL);
    raw_close(&warm);
    WAIT(closes == STREAMS + 1);
    free(clients);
}

int main(void) {
    net_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_has_no_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heartbeat, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_that_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_that_does_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_streams_are_small, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
