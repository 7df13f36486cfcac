/* The client against our own server, and against a scripted peer that misbehaves. */
#include "http_test.h"
#include "base/str.h"
#include "net/http_client.h"
#include "net/http_lines.h"
#include "net/http_server.h"
#include "net/net.h"

/* ---- what a call brought ---- */

typedef struct result {
    http_client *close_in_done; /* closed from inside on_done, when set */
    http_call *call;
    buf body;
    int status, pieces, ends;
    char type[64];
    bool failed;
    err e;
} result;

static void on_headers(void *ctx, http_call *call) {
    result *r = ctx;
    r->status = http_call_status(call);
    const char *type = http_call_header(call, "content-type");
    str_copy(r->type, sizeof r->type, type ? type : "");
}

static void on_data(void *ctx, const char *data, size_t len) {
    result *r = ctx;
    r->pieces++;
    assert_true(buf_append(&r->body, data, len));
}

static void on_done(void *ctx, const err *e) {
    result *r = ctx;
    r->ends++;
    r->failed = e != NULL;
    if (e) r->e = *e;
    http_client_close(r->close_in_done);
}

static void result_reset(result *r) {
    buf_free(&r->body);
    *r = (result){0};
    buf_init(&r->body, 64 << 20);
}

static void begin(result *r, http_client *c, http_call_opts opts) {
    result_reset(r);
    opts.on_headers = on_headers;
    opts.on_data = on_data;
    opts.on_done = on_done;
    opts.ctx = r;
    err e;
    r->call = http_client_send(c, &opts, &e);
    if (!r->call) fail_msg("%s", e.msg);
    assert_int_equal(r->ends, 0); /* nothing is reported from inside */
}

static void get(result *r, http_client *c, const char *path) {
    begin(r, c, (http_call_opts){.path = path});
    WAIT(r->ends);
}

/* ---- our server ---- */

static http_server *server;
static http_req *held;
static int handled, closes, drains;
static bool closed;

static void count_close(void *ctx, http_req *req) {
    (void)ctx;
    (void)req;
    closes++;
    held = NULL;
}

static void write_more(void *ctx, http_req *req) {
    static char block[16 * 1024];
    (void)ctx;
    drains++;
    while (http_reply_write(req, block, sizeof block)) continue;
    http_req_on_drain(req, write_more, NULL);
}

static void handler(void *ctx, http_req *req) {
    (void)ctx;
    handled++;
    size_t len;
    const char *body = http_req_body(req, &len);
    const char *path = http_req_path(req);
    if (str_eq(path, "/echo")) {
        http_reply(req, 200, http_req_header(req, "Content-Type"), body, len);
    } else if (str_eq(path, "/held")) {
        held = req;
        http_req_on_close(req, count_close, NULL);
    } else if (str_eq(path, "/endless")) {
        http_req_on_close(req, count_close, NULL);
        http_reply_begin(req, 200, NULL);
        write_more(NULL, req);
    } else {
        http_reply_error(req, 404, NULL, NULL, "no %s", path);
    }
}

static http_client *start(void) {
    loop_open();
    handled = closes = drains = 0;
    closed = false;
    held = NULL;
    server = http_server_listen(&loop, &(http_server_opts){.handler = handler, .max_body = 16 << 20}, NULL);
    assert_non_null(server);
    return http_client_new(&loop, "127.0.0.1", http_server_port(server));
}

static void on_closed(void *ctx) {
    (void)ctx;
    closed = true;
}

static void stop(http_client *c, result *r) {
    http_client_close(c);
    http_server_close(server, 0, on_closed, NULL);
    WAIT(closed);
    loop_close();
    buf_free(&r->body);
}

static void test_calls_share_a_connection(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    for (int i = 0; i < 3; i++) {
        http_header type = {"Content-Type", "text/x-test"};
        begin(
            &r, c,
            (http_call_opts){
                .method = "POST", .path = "/echo", .headers = &type, .header_count = 1, .body = "abc", .body_len = 3});
        WAIT(r.ends);
        assert_false(r.failed);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.type, "text/x-test");
        assert_string_equal(r.body.data, "abc");
        assert_int_equal(http_server_connections(server), 1);
    }
    get(&r, c, "/missing?q=1");
    assert_int_equal(r.status, 404);
    assert_non_null(strstr(r.body.data, "no /missing"));
    begin(&r, c, (http_call_opts){.method = "HEAD", .path = "/missing"});
    WAIT(r.ends);
    assert_false(r.failed);
    assert_int_equal(r.body.len, 0);
    get(&r, c, "/missing");
    assert_int_equal(http_server_connections(server), 1);
    assert_int_equal(handled, 6);
    stop(c, &r);
}

static void test_large_bodies_both_ways(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    size_t len = 10 << 20;
    char *big = mem_alloc(1, len);
    for (size_t i = 0; i < len; i++) big[i] = (char)(i * 7 / 3);
    begin(&r, c, (http_call_opts){.method = "POST", .path = "/echo", .body = big, .body_len = len});
    WAIT(r.ends);
    assert_false(r.failed);
    assert_int_equal(r.body.len, len);
    assert_memory_equal(r.body.data, big, len);
    free(big);
    stop(c, &r);
}

static void test_a_stream_comes_piece_by_piece(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    begin(&r, c, (http_call_opts){.path = "/held"});
    WAIT(held);
    http_reply_begin(held, 200, "application/x-ndjson");
    WAIT(r.status == 200);
    http_reply_write(held, "one\n", 4);
    WAIT(r.body.len == 4);
    http_reply_write(held, "two\n", 4);
    WAIT(r.body.len == 8);
    assert_int_equal(r.ends, 0);
    http_reply_end(held);
    WAIT(r.ends);
    assert_false(r.failed);
    assert_int_equal(r.pieces, 2);
    stop(c, &r);
}

static void test_abort_reaches_the_server(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    begin(&r, c, (http_call_opts){.path = "/held"});
    http_call_abort(r.call); /* before it is connected */
    begin(&r, c, (http_call_opts){.path = "/held"});
    WAIT(held);
    http_call_abort(r.call);
    WAIT(closes == 1);
    begin(&r, c, (http_call_opts){.path = "/held"});
    WAIT(held);
    http_reply_begin(held, 200, NULL);
    http_reply_write(held, "x", 1);
    WAIT(r.body.len == 1);
    http_call_abort(r.call);
    WAIT(closes == 2);
    assert_int_equal(r.ends, 0);
    stop(c, &r);
}

static void test_pause_holds_the_server(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    begin(&r, c, (http_call_opts){.path = "/endless"});
    WAIT(r.body.len > 0);
    http_call_pause(r.call);
    for (int i = 0; i < 100; i++) uv_run(&loop, UV_RUN_NOWAIT);
    size_t got = r.body.len;
    int before = drains;
    for (int i = 0; i < 100; i++) uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(r.body.len, got);
    assert_int_equal(drains, before);
    http_call_resume(r.call);
    WAIT(r.body.len > got + (1 << 20));
    http_call_abort(r.call);
    WAIT(closes == 1);
    stop(c, &r);
}

static void test_close_from_inside_done(void **state) {
    (void)state;
    result r = {0}, other = {0};
    http_client *c = start();
    begin(&other, c, (http_call_opts){.path = "/held"});
    begin(&r, c, (http_call_opts){.path = "/missing"});
    r.close_in_done = c;
    WAIT(r.ends && closes == 1);
    assert_int_equal(other.ends, 0);
    buf_free(&other.body);
    stop(NULL, &r);
}

static void test_refused_and_unfit(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    http_server_close(server, 0, on_closed, NULL);
    WAIT(closed);
    get(&r, c, "/echo");
    assert_true(r.failed);
    assert_int_equal(r.e.code, ERR_IO);
    err e;
    static const char *const paths[] = {"", "no-slash", "/a b", "/a\r\nX: y"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        assert_null(http_client_send(c, &(http_call_opts){.path = paths[i]}, &e));
    http_header bad[] = {{"X", "a\r\nY: b"}, {"X Y", "a"}, {"Content-Length", "7"}, {"Host", "x"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_null(http_client_send(c, &(http_call_opts){.path = "/", .headers = &bad[i], .header_count = 1}, &e));
    assert_null(http_client_new(&loop, "localhost", 1));
    http_client_close(c);
    loop_close();
    buf_free(&r.body);
}

static void test_idle_timeout(void **state) {
    (void)state;
    result r = {0};
    http_client *c = start();
    begin(&r, c, (http_call_opts){.path = "/held", .idle_timeout_ms = 30});
    WAIT(r.ends);
    assert_int_equal(r.e.code, ERR_TIMEOUT);
    WAIT(closes == 1);
    stop(c, &r);
}

/* ---- whole answers ---- */

static void on_fetched(void *ctx, int status, const char *body, size_t len, const err *e) {
    result *r = ctx;
    r->ends++;
    r->status = status;
    r->failed = e != NULL;
    if (e) r->e = *e;
    assert_true(buf_append(&r->body, body, len));
}

static void test_fetch(void **state) {
    (void)state;
    result r = {0};
    result_reset(&r);
    http_client *c = start();
    http_call_opts opts = {.method = "POST", .path = "/echo", .body = "0123456789", .body_len = 10};
    assert_non_null(http_client_fetch(c, &opts, 10, on_fetched, &r, NULL));
    WAIT(r.ends);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "0123456789");
    result_reset(&r);
    assert_non_null(http_client_fetch(c, &opts, 9, on_fetched, &r, NULL));
    WAIT(r.ends);
    assert_int_equal(r.e.code, ERR_TOO_LARGE);
    result_reset(&r);
    opts.path = "/held";
    http_call *call = http_client_fetch(c, &opts, 9, on_fetched, &r, NULL);
    WAIT(held);
    http_call_abort(call);
    WAIT(closes == 1);
    assert_int_equal(r.ends, 0);
    stop(c, &r);
}

/* ---- a scripted peer ---- */

enum { PEERS_MAX = 4 };

/* Connection i answers each request with answers[i], and closes if it ends in '$'. */
static struct peer {
    uv_tcp_t tcp;
    buf in;
    char chunk[4096];
    int requests;
} peers[PEERS_MAX];
static uv_tcp_t listener;
static const char *const *answers;
static int accepted;

static void peer_write(struct peer *p, const char *text) {
    size_t n = strlen(text);
    bool close = n && text[n - 1] == '$';
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)text, (unsigned)(n - close));
    if (b.len) assert_int_equal(uv_try_write((uv_stream_t *)&p->tcp, &b, 1), (int)b.len);
    if (close && !uv_is_closing((uv_handle_t *)&p->tcp)) uv_close((uv_handle_t *)&p->tcp, NULL);
}

static void peer_alloc(uv_handle_t *h, size_t want, uv_buf_t *b) {
    (void)want;
    struct peer *p = h->data;
    *b = uv_buf_init(p->chunk, sizeof p->chunk);
}

static void peer_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    struct peer *p = s->data;
    if (n < 0) {
        if (!uv_is_closing((uv_handle_t *)s)) uv_close((uv_handle_t *)s, NULL);
        return;
    }
    buf_append(&p->in, b->base, (size_t)n);
    if (!strstr(buf_str(&p->in), "\r\n\r\n")) return;
    buf_clear(&p->in);
    p->requests++;
    peer_write(p, answers[p - peers]);
}

static void peer_accept(uv_stream_t *s, int status) {
    assert_int_equal(status, 0);
    assert_true(accepted < PEERS_MAX);
    struct peer *p = &peers[accepted++];
    uv_tcp_init(&loop, &p->tcp);
    p->tcp.data = p;
    buf_init(&p->in, 10000);
    uv_accept(s, (uv_stream_t *)&p->tcp);
    uv_read_start((uv_stream_t *)&p->tcp, peer_alloc, peer_read);
}

static http_client *script(const char *const *texts) {
    loop_open();
    memset(peers, 0, sizeof peers);
    accepted = 0;
    answers = texts;
    struct sockaddr_storage addr;
    int len = sizeof addr;
    uv_ip4_addr("127.0.0.1", 0, (struct sockaddr_in *)&addr);
    uv_tcp_init(&loop, &listener);
    uv_tcp_bind(&listener, (struct sockaddr *)&addr, 0);
    assert_int_equal(uv_listen((uv_stream_t *)&listener, 8, peer_accept), 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&addr, &len);
    return http_client_new(&loop, "127.0.0.1", ntohs(((struct sockaddr_in *)&addr)->sin_port));
}

static void script_end(http_client *c, result *r) {
    http_client_close(c);
    uv_close((uv_handle_t *)&listener, NULL);
    for (int i = 0; i < accepted; i++)
        if (!uv_is_closing((uv_handle_t *)&peers[i].tcp)) uv_close((uv_handle_t *)&peers[i].tcp, NULL);
    loop_close();
    for (int i = 0; i < accepted; i++) buf_free(&peers[i].in);
    buf_free(&r->body);
}

static void expect_failure(const char *answer, int code) {
    result r = {0};
    const char *const texts[] = {answer, answer, answer, answer};
    http_client *c = script(texts);
    get(&r, c, "/");
    assert_true(r.failed);
    assert_int_equal(r.e.code, code);
    assert_int_equal(accepted, 1); /* the first use of a connection is not tried again */
    script_end(c, &r);
}

static void test_broken_answers(void **state) {
    (void)state;
    expect_failure("$", ERR_IO);
    expect_failure("HTTP/1.1 200 OK\r\nContent-Le$", ERR_IO);
    expect_failure("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf$", ERR_IO);
    expect_failure("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n$", ERR_IO);
    expect_failure("SSH-2.0-hello\r\n\r\n", ERR_FORMAT);
    expect_failure("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ERR_FORMAT);
    expect_failure("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ERR_FORMAT);
}

static void test_endless_head(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 200000);
    buf_puts(&text, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100; i++) buf_printf(&text, "X%d: %01000d\r\n", i, 0);
    expect_failure(text.data, ERR_TOO_LARGE);
    buf_free(&text);
}

static void test_odd_answers(void **state) {
    (void)state;
    result r = {0};
    static const char *const texts[] = {
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end$",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokGARBAGE",
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nend",
    };
    http_client *c = script(texts);
    get(&r, c, "/");
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "ok");
    uv_close((uv_handle_t *)&peers[0].tcp, NULL);
    for (int i = 0; i < 20; i++) uv_run(&loop, UV_RUN_NOWAIT); /* the idle connection's end is seen */
    get(&r, c, "/");
    assert_false(r.failed);
    assert_string_equal(r.body.data, "until the end");
    get(&r, c, "/");
    assert_false(r.failed);
    assert_string_equal(r.body.data, "ok");
    get(&r, c, "/"); /* on another connection: the last one had spoken out of turn */
    assert_false(r.failed);
    assert_string_equal(r.body.data, "end");
    assert_int_equal(accepted, 4);
    script_end(c, &r);
}

/* The idle connection dies in the moment of the next call: a GET is sent again, a POST is not. */
static void dead_idle_connection(const char *method, bool again) {
    result r = {0};
    static const char *const texts[] = {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                                        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain", "", ""};
    static const char *const dying[] = {"$", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain", "", ""};
    http_client *c = script(texts);
    get(&r, c, "/");
    assert_false(r.failed);
    answers = dying;
    begin(&r, c, (http_call_opts){.method = method, .path = "/"});
    WAIT(r.ends);
    assert_int_equal(r.failed, !again);
    assert_int_equal(accepted, again ? 2 : 1);
    assert_int_equal(peers[0].requests, 2);
    script_end(c, &r);
}

static void test_dead_idle_connection(void **state) {
    (void)state;
    dead_idle_connection("GET", true);
    dead_idle_connection("POST", false);
}

/* ---- lines ---- */

static bool add_line(void *ctx, const char *line, size_t len) {
    assert_int_equal(strlen(line), len);
    buf_printf(ctx, "[%s]", line);
    return !str_eq(line, "stop");
}

static void test_lines(void **state) {
    (void)state;
    static const char text[] = "one\r\n\ntwo\nthree";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        buf out;
        buf_init(&out, 1000);
        http_lines l;
        http_lines_init(&l, 5, add_line, &out);
        err e;
        assert_true(http_lines_feed(&l, text, cut, &e));
        assert_true(http_lines_feed(&l, text + cut, sizeof text - 1 - cut, &e));
        assert_string_equal(out.data, "[one][two]");
        assert_true(http_lines_end(&l, &e));
        assert_true(http_lines_end(&l, &e));
        assert_string_equal(out.data, "[one][two][three]");
        assert_false(http_lines_feed(&l, "abc\nabcdef", 10, &e));
        assert_int_equal(e.code, ERR_TOO_LARGE);
        http_lines_free(&l);
        assert_false(http_lines_feed(&l, "stop\nnever\n", 11, &e));
        assert_int_equal(e.code, ERR_CANCELLED);
        assert_null(strstr(out.data, "never"));
        http_lines_free(&l);
        buf_free(&out);
    }
}

int main(void) {
    net_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_share_a_connection),
        cmocka_unit_test(test_large_bodies_both_ways),
        cmocka_unit_test(test_a_stream_comes_piece_by_piece),
        cmocka_unit_test(test_abort_reaches_the_server),
        cmocka_unit_test(test_pause_holds_the_server),
        cmocka_unit_test(test_close_from_inside_done),
        cmocka_unit_test(test_refused_and_unfit),
        cmocka_unit_test(test_idle_timeout),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_broken_answers),
        cmocka_unit_test(test_endless_head),
        cmocka_unit_test(test_odd_answers),
        cmocka_unit_test(test_dead_idle_connection),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
