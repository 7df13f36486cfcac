/* test_security.c - Host, Origin, content type and key, through a real server on a free port. */
#include "server/security.h"
#include "base/str.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

static uv_loop_t loop;
static http_server *server;
static config settings;

static void on_headers(void *ctx, http_req *req) {
    security_check(ctx, req);
}
static void on_request(void *ctx, http_req *req) {
    (void)ctx;
    http_reply(req, 200, "text/plain", "in", 2);
}

static int start(void **state) {
    (void)state;
    net_init();
    uv_loop_init(&loop);
    settings = (config){.listen_ip = str_dup("127.0.0.1")};
    const http_server_opts opts = {.on_headers = on_headers, .handler = on_request, .ctx = &settings};
    err e = {0};
    server = http_server_listen(&loop, &opts, &e);
    return server ? 0 : -1;
}

static int stop(void **state) {
    (void)state;
    http_server_close(server, 0, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    free(settings.listen_ip);
    return uv_loop_close(&loop);
}

/* Sends raw bytes on a connection of its own and returns the status of the answer. */
static int ask(const char *request) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
    char answer[4096];
    ssize_t n = -1;
    for (int turns = 0; n <= 0 && turns < 10000; turns++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        n = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        if (n < 0) usleep(200);
    }
    close(fd);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(n > 12);
    return atoi(answer + 9);
}

static int ask_with(const char *method, const char *path, const char *headers, const char *body) {
    char *text = str_fmt("%s %s HTTP/1.1\r\n%s\r\n%s", method, path, headers, body);
    int status = ask(text);
    free(text);
    return status;
}

static void foreign_names_are_refused(void **state) {
    (void)state;
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost:1234\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: 127.0.0.1\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: [::1]:1234\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: evil.example\r\n", ""), 403);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost.evil.example\r\n", ""), 403);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: 127.0.0.1.evil.example\r\n", ""), 403);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: 10.0.0.1\r\n", ""), 403);
    assert_int_not_equal(ask_with("GET", "/v1/models", "Host: \r\n", ""), 200);
    settings.allow_host = str_dup("studio.lan, other");
    assert_int_equal(ask_with("GET", "/v1/models", "Host: Studio.LAN:80\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: studio\r\n", ""), 403);
    free(settings.allow_host);
    settings.allow_host = NULL;
}

static void foreign_origins_cannot_act(void **state) {
    (void)state;
    const char *const json = "Host: localhost:1234\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
    const struct {
        const char *origin;
        int status;
    } cases[] = {{"", 200},
                 {"Origin: http://localhost:1234\r\n", 200},
                 {"Origin: http://localhost:9999\r\n", 403},
                 {"Origin: http://evil.example\r\n", 403},
                 {"Origin: null\r\n", 403}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *headers = str_fmt("%s%s", json, cases[i].origin);
        assert_int_equal(ask_with("POST", "/v1/jobs", headers, "{}"), cases[i].status);
        free(headers);
    }
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nOrigin: http://evil.example\r\n", ""), 200);
    assert_int_equal(ask_with("DELETE", "/v1/history/images/1", "Host: localhost\r\nOrigin: null\r\n", ""), 403);
}

static void bodies_are_json_or_uploads(void **state) {
    (void)state;
    const struct {
        const char *type;
        int status;
    } cases[] = {{"Content-Type: application/json; charset=utf-8\r\n", 200},
                 {"Content-Type: multipart/form-data; boundary=x\r\n", 200},
                 {"Content-Type: text/plain\r\n", 415},
                 {"Content-Type: application/x-www-form-urlencoded\r\n", 415},
                 {"", 415}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *headers = str_fmt("Host: localhost\r\nContent-Length: 2\r\n%s", cases[i].type);
        assert_int_equal(ask_with("POST", "/v1/jobs", headers, "{}"), cases[i].status);
        free(headers);
    }
    assert_int_equal(ask_with("POST", "/v1/jobs/j-1/cancel", "Host: localhost\r\n", ""), 200);
}

static void a_key_is_needed_when_set(void **state) {
    (void)state;
    settings.api_key = str_dup("secret");
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\n", ""), 401);
    assert_int_equal(ask_with("GET", "/outputs/a.png", "Host: localhost\r\n", ""), 401);
    assert_int_equal(ask_with("GET", "/", "Host: localhost\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/health", "Host: localhost\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secret\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secre\r\n", ""), 401);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nAuthorization: Bearer secretx\r\n", ""), 401);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nCookie: a=b; mysti_key=secret\r\n", ""), 200);
    assert_int_equal(ask_with("GET", "/v1/models", "Host: localhost\r\nCookie: mysti_key=\r\n", ""), 401);
    assert_int_equal(ask_with("GET", "/sdapi/v1/loras", "Host: localhost\r\n", ""), 401);
    free(settings.api_key);
    settings.api_key = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_names_are_refused),
        cmocka_unit_test(foreign_origins_cannot_act),
        cmocka_unit_test(bodies_are_json_or_uploads),
        cmocka_unit_test(a_key_is_needed_when_set),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
