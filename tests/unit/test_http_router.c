/* Routing by table through a real server. */
#include "http_test.h"
#include "base/str.h"
#include "net/http_router.h"
#include "net/http_server.h"
#include "net/net.h"

#define H "Host: h\r\nConnection: close\r\n"

static http_server *server;
static http_router *router;
static bool done;

static void reply_name(http_req *req, const char *name) {
    const char *id = http_req_param(req, "id");
    const char *path = http_req_param(req, "path");
    char *text = str_fmt("%s id=%s path=%s", name, id ? id : "-", path ? path : "-");
    http_reply(req, 200, "text/plain", text, strlen(text));
    free(text);
}

static void list(void *ctx, http_req *req) {
    reply_name(req, ctx == &done ? "list" : "wrong ctx");
}

static void one(void *ctx, http_req *req) {
    (void)ctx;
    reply_name(req, "one");
}

static void create(void *ctx, http_req *req) {
    (void)ctx;
    reply_name(req, "create");
}

static void active(void *ctx, http_req *req) {
    (void)ctx;
    reply_name(req, "active");
}

static void file(void *ctx, http_req *req) {
    (void)ctx;
    reply_name(req, "file");
}

static void page(void *ctx, http_req *req) {
    (void)ctx;
    reply_name(req, "page");
}

static const http_route routes[] = {
    {"GET", "/{path...}", page, 0},       {"GET", "/jobs", list, 0},
    {"POST", "/jobs", create, 100},       {"GET", "/jobs/{id}", one, 0},
    {"GET", "/jobs/active", active, 0},   {"DELETE", "/jobs/{id}/events", one, 0},
    {"GET", "/jobs/{id}/events", one, 0}, {"GET", "/files/{path...}", file, 0},
    {"POST", "/only", create, 0},
};

static int setup(void **state) {
    (void)state;
    loop_open();
    router = http_router_new(routes, sizeof routes / sizeof routes[0], &done);
    http_server_opts opts = {.on_headers = http_router_on_headers, .handler = http_router_handle, .ctx = router};
    server = http_server_listen(&loop, &opts, NULL);
    return server == NULL;
}

static void on_done(void *ctx) {
    (void)ctx;
    done = true;
}

static int teardown(void **state) {
    (void)state;
    http_server_close(server, 0, on_done, NULL);
    WAIT(done);
    http_router_free(router);
    loop_close();
    return 0;
}

static void expect(const char *line, const char *status, const char *text) {
    char *request = str_fmt("%s HTTP/1.1\r\n" H "\r\n", line);
    raw_client c;
    raw_exchange(&c, http_server_port(server), request);
    if (!str_starts(buf_str(&c.in) + 9, status) || !raw_has(&c, text)) fail_msg("%s: got\n%s", line, buf_str(&c.in));
    raw_close(&c);
    free(request);
}

static void test_matches(void **state) {
    (void)state;
    expect("GET /jobs", "200", "list id=- path=-");
    expect("GET /jobs?x=/y", "200", "list");
    expect("GET /jobs/17", "200", "one id=17");
    expect("GET /jobs/a%20b%3F", "200", "one id=a b?");
    expect("GET /jobs/active", "200", "active");
    expect("GET /jobs/active/events", "200", "one id=active");
    expect("GET /jobs/17/events", "200", "one id=17");
    expect("GET /files/a/b.png", "200", "file id=- path=a/b.png");
    expect("GET /files/", "200", "file id=- path=");
    expect("GET /files/../jobs", "200", "list");
    expect("GET /", "200", "page");
    expect("GET /jobs/", "200", "page id=- path=jobs/");
    expect("GET /jobs/1/2/3", "200", "page id=- path=jobs/1/2/3");
}

static void test_methods(void **state) {
    (void)state;
    expect("DELETE /jobs", "405", "Allow: GET, HEAD, POST, OPTIONS\r\n");
    expect("DELETE /jobs", "405", "{\"error\":{\"message\":\"DELETE is not allowed here\"");
    expect("GET /only", "405", "Allow: POST, OPTIONS\r\n");
    expect("PUT /jobs/1/events", "405", "Allow: DELETE, GET, HEAD, OPTIONS\r\n");
    expect("OPTIONS /jobs", "204", "Allow: GET, HEAD, POST, OPTIONS\r\n");
    expect("OPTIONS *", "204", "");
    expect("HEAD /jobs", "200", "Content-Length: 16\r\n");
    expect("POST /jobs", "200", "create");
}

static void test_not_found(void **state) {
    (void)state;
    static const http_route few[] = {{"GET", "/a/{id}", one, 0}};
    http_router *r = http_router_new(few, 1, NULL);
    http_server_opts opts = {.on_headers = http_router_on_headers, .handler = http_router_handle, .ctx = r};
    http_server *all = server;
    server = http_server_listen(&loop, &opts, NULL);
    expect("GET /b", "404", "\"type\":\"not_found_error\",\"code\":\"not_found\",\"param\":null}}");
    expect("GET /a", "404", "no such path: /a");
    expect("GET /a/", "404", "");
    expect("GET /a/b/c", "404", "");
    expect("POST /b", "404", "");
    expect("GET /%22quoted%22", "404", "no such path: /\\\"quoted\\\"");
    done = false;
    http_server_close(server, 0, on_done, NULL);
    WAIT(done);
    done = false;
    http_router_free(r);
    server = all;
}

static void test_body_limit_of_a_route(void **state) {
    (void)state;
    raw_client c;
    raw_exchange(&c, http_server_port(server), "POST /jobs HTTP/1.1\r\n" H "Content-Length: 101\r\n\r\n");
    assert_true(str_starts(c.in.data, "HTTP/1.1 413 "));
    raw_close(&c);
    /* A wrong path is refused before its body is sent. */
    raw_exchange(&c, http_server_port(server), "POST /nowhere HTTP/1.1\r\n" H "Content-Length: 101\r\n\r\n");
    assert_true(str_starts(c.in.data, "HTTP/1.1 405 "));
    raw_close(&c);
}

int main(void) {
    net_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_body_limit_of_a_route),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
