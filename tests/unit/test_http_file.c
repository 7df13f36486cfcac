/* Files over HTTP: types, validators, ranges, names that leave the root, memory of large files. */
#include "http_test.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "net/http_file.h"
#include "net/http_server.h"
#include "net/net.h"

#include <sys/stat.h>
#include <unistd.h>

enum { LARGE = 24 << 20 };

static http_server *server;
static char root[] = "/tmp/mysti_http_file_XXXXXX";
static bool done;
static int files; /* entries made below root */
static char *made[16];

static void handler(void *ctx, http_req *req) {
    (void)ctx;
    const char *path = http_req_path(req) + 1;
    http_file_opts spa = {.fallback = "index.html"};
    http_file_opts fixed = {.cache_control = HTTP_CACHE_IMMUTABLE, .disposition = "attachment"};
    if (str_starts(path, "spa/"))
        http_file_serve(req, root, path + 4, &spa);
    else if (str_starts(path, "fixed/"))
        http_file_serve(req, root, path + 6, &fixed);
    else
        http_file_serve(req, root, http_req_query(req, "name") ? http_req_query(req, "name") : path, NULL);
}

static void make_file(const char *name, const char *data, size_t len) {
    made[files] = path_join(root, name);
    assert_true(file_write_atomic(made[files++], data, len, NULL));
}

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(root)) return 1;
    make_file("index.html", "<html>home", 10);
    make_file("digits.txt", "0123456789", 10);
    make_file("empty.css", "", 0);
    char *large = mem_alloc(1, LARGE);
    for (size_t i = 0; i < LARGE; i++) large[i] = (char)(i >> 8 ^ i);
    make_file("large.bin", large, LARGE);
    free(large);
    char *sub = path_join(root, "sub");
    assert_int_equal(mkdir(sub, 0700), 0);
    make_file("sub/a.json", "{}", 2);
    made[files++] = sub;
    char *link = path_join(root, "outside.txt");
    assert_int_equal(symlink("/etc/hostname", link), 0);
    made[files++] = link;
    char *fifo = path_join(root, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    made[files++] = fifo;
    loop_open();
    server = http_server_listen(&loop, &(http_server_opts){.handler = handler}, NULL);
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
    loop_close();
    while (files--) {
        remove(made[files]);
        free(made[files]);
    }
    char *sub = path_join(root, "sub");
    remove(sub);
    free(sub);
    return rmdir(root);
}

/* Asks, with these extra header lines; wants the status and the words (NULL: any). */
static void ask(raw_client *c, const char *method, const char *target, const char *headers) {
    char *request = str_fmt("%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%s\r\n", method, target, headers);
    raw_exchange(c, http_server_port(server), request);
    free(request);
}

static void expect(const char *target, const char *headers, int status, const char *words, const char *tail) {
    raw_client c;
    ask(&c, "GET", target, headers);
    char *line = str_fmt("HTTP/1.1 %d ", status);
    if (!str_starts(buf_str(&c.in), line) || !raw_has(&c, words) || !str_ends(c.in.data, tail))
        fail_msg("%s %s: got\n%s", target, headers, buf_str(&c.in));
    free(line);
    raw_close(&c);
}

static void test_whole_files(void **state) {
    (void)state;
    expect("/digits.txt", "", 200, "Content-Type: text/plain; charset=utf-8\r\n", "\r\n\r\n0123456789");
    expect("/digits.txt", "", 200, "Cache-Control: no-cache\r\n", "");
    expect("/digits.txt", "", 200, "X-Content-Type-Options: nosniff\r\n", "");
    expect("/", "", 200, "text/html", "<html>home");
    expect("/sub/a.json", "", 200, "application/json", "{}");
    expect("/empty.css", "", 200, "Content-Length: 0\r\n", "\r\n\r\n");
    expect("/fixed/digits.txt", "", 200, "Cache-Control: " HTTP_CACHE_IMMUTABLE "\r\n", "0123456789");
    expect("/fixed/digits.txt", "", 200, "Content-Disposition: attachment\r\n", "");
    raw_client c;
    ask(&c, "HEAD", "/digits.txt", "");
    assert_true(raw_has(&c, "Content-Length: 10\r\n"));
    assert_true(str_ends(c.in.data, "\r\n\r\n"));
    raw_close(&c);
}

static void test_missing(void **state) {
    (void)state;
    expect("/none.txt", "", 404, "not_found_error", "");
    expect("/sub", "", 404, "", "");
    expect("/sub/", "", 404, "", "");
    expect("/outside.txt", "", 404, "", "");
    expect("/fifo", "", 404, "", "");
    expect("/x?name=../../../etc/passwd", "", 404, "", "");
    expect("/x?name=/etc/passwd", "", 404, "", "");
    expect("/x?name=sub/../digits.txt", "", 404, "", "");
    expect("/..%5c..%5cetc/passwd", "", 404, "", "");
    expect("/spa/gallery/7", "", 200, "text/html", "<html>home");
    expect("/spa/gallery.js", "", 404, "", "");
    expect("/spa/digits.txt", "", 200, "text/plain", "0123456789");
}

/* The value of a header in an answer, to be freed. */
static char *header_of(const raw_client *c, const char *name) {
    char *start = str_fmt("\r\n%s: ", name);
    const char *at = strstr(c->in.data, start);
    assert_non_null(at);
    at += strlen(start);
    free(start);
    return str_ndup(at, strcspn(at, "\r"));
}

static void test_validators(void **state) {
    (void)state;
    raw_client c;
    ask(&c, "GET", "/digits.txt", "");
    char *etag = header_of(&c, "ETag"), *date = header_of(&c, "Last-Modified");
    raw_close(&c);
    char *same[] = {str_fmt("If-None-Match: %s\r\n", etag), str_fmt("If-None-Match: \"x\", W/%s\r\n", etag),
                    str_dup("If-None-Match: *\r\n"), str_fmt("If-Modified-Since: %s\r\n", date)};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        expect("/digits.txt", same[i], 304, "ETag: ", "\r\n\r\n");
        free(same[i]);
    }
    expect("/digits.txt", "If-None-Match: \"other\"\r\n", 200, "", "0123456789");
    char *both = str_fmt("If-None-Match: \"other\"\r\nIf-Modified-Since: %s\r\n", date);
    expect("/digits.txt", both, 200, "", "0123456789");
    free(both);
    char *current = str_fmt("Range: bytes=2-3\r\nIf-Range: %s\r\n", etag);
    expect("/digits.txt", current, 206, "", "\r\n\r\n23");
    free(current);
    expect("/digits.txt", "Range: bytes=2-3\r\nIf-Range: \"other\"\r\n", 200, "", "0123456789");
    free(etag);
    free(date);
}

static void test_ranges(void **state) {
    (void)state;
    static const struct {
        const char *range;
        int status;
        const char *content_range, *tail;
    } cases[] = {
        {"bytes=0-0", 206, "Content-Range: bytes 0-0/10\r\n", "\r\n\r\n0"},
        {"bytes=2-5", 206, "Content-Range: bytes 2-5/10\r\n", "\r\n\r\n2345"},
        {"bytes=7-", 206, "Content-Range: bytes 7-9/10\r\n", "\r\n\r\n789"},
        {"bytes=7-99", 206, "Content-Range: bytes 7-9/10\r\n", "\r\n\r\n789"},
        {"bytes=-3", 206, "Content-Range: bytes 7-9/10\r\n", "\r\n\r\n789"},
        {"bytes=-99", 206, "Content-Range: bytes 0-9/10\r\n", "\r\n\r\n0123456789"},
        {"bytes=9-99999999999999999999999", 206, "Content-Range: bytes 9-9/10\r\n", "\r\n\r\n9"},
        {"bytes=10-", 416, "Content-Range: bytes */10\r\n", ""},
        {"bytes=99999999999999999999999-", 416, "Content-Range: bytes */10\r\n", ""},
        {"bytes=-0", 416, "Content-Range: bytes */10\r\n", ""},
        {"bytes=5-2", 200, "", "0123456789"},
        {"bytes=-", 200, "", "0123456789"},
        {"bytes=a-b", 200, "", "0123456789"},
        {"bytes=1-2,4-5", 200, "", "0123456789"},
        {"items=1-2", 200, "", "0123456789"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *header = str_fmt("Range: %s\r\n", cases[i].range);
        expect("/digits.txt", header, cases[i].status, cases[i].content_range, cases[i].tail);
        free(header);
    }
    expect("/empty.css", "Range: bytes=0-\r\n", 416, "bytes */0", "");
}

static void test_large_file_in_bounded_memory(void **state) {
    (void)state;
    raw_client c;
    raw_open(&c, http_server_port(server));
    uv_read_stop((uv_stream_t *)&c.tcp);
    size_t before, held;
    uv_resident_set_memory(&before);
    raw_send(&c, "GET /large.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        uv_sleep(1);
    }
    uv_resident_set_memory(&held);
    assert_true(held < before + LARGE / 4); /* the reader does not read, so the file is not read further either */
    raw_start_reading(&c);
    WAIT(c.ended);
    const char *body = strstr(c.in.data, "\r\n\r\n") + 4;
    assert_int_equal(c.in.data + c.in.len - body, LARGE);
    size_t wrong = 0;
    for (size_t i = 0; i < LARGE; i++) wrong += body[i] != (char)(i >> 8 ^ i);
    assert_int_equal(wrong, 0);
    raw_close(&c);
}

static void test_client_leaves_in_the_middle(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        raw_client c;
        raw_open(&c, http_server_port(server));
        raw_send(&c, "GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n");
        if (i % 2) WAIT(c.in.len);
        raw_close(&c);
    }
    WAIT(http_server_connections(server) == 0);
}

int main(void) {
    net_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_files),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_validators),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_large_file_in_bounded_memory),
        cmocka_unit_test(test_client_leaves_in_the_middle),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
