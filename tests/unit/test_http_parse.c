/* The parser against framing and smuggling cases: each whole, and cut in two at every byte. */
#include "net/http_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define H "Host: h\r\n"

static bool collect_body(void *ctx, const char *data, size_t len) {
    return buf_append(ctx, data, len);
}

/* Feeds one stretch; appends "[METHOD target|body]" per message. False when refused. */
static bool feed(http_parser *p, buf *body, buf *out, const char *data, size_t len) {
    bool again = true;
    while (len || again) {
        size_t used;
        http_parse_result r = http_parse_feed(p, data, len, &used);
        assert_true(used <= len);
        data += used;
        len -= used;
        again = r == HTTP_PARSE_HEAD;
        if (r == HTTP_PARSE_BAD) return false;
        if (r != HTTP_PARSE_DONE) continue;
        buf_printf(out, "[%s %s|%s]", http_parse_method(p), http_parse_target(p), buf_str(body));
        buf_clear(body);
        http_parse_next(p);
    }
    return true;
}

/* The status the input is refused with, or 0; what was read is in `out`. */
static int parse(const char *text, size_t cut, size_t max_head, buf *out) {
    http_parser p;
    buf body;
    buf_init(&body, 100000);
    http_parse_init(&p, HTTP_KIND_REQUEST, max_head, collect_body, &body);
    size_t len = strlen(text);
    bool ok = feed(&p, &body, out, text, cut) && feed(&p, &body, out, text + cut, len - cut);
    int status = p.status;
    assert_int_equal(ok, status == 0);
    http_parse_free(&p);
    buf_free(&body);
    return status;
}

static void test_requests(void **state) {
    (void)state;
    static const struct {
        const char *in;
        int status; /* 0: accepted */
        const char *out;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", 0, "[GET /|]"},
        {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, "[GET /|]"},
        {"GET / HTTP/1.0\r\n\r\n", 0, "[GET /|]"},
        {"POST /a HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", 0, "[POST /a|abc]"},
        {"POST /a HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\nGET /b HTTP/1.1\r\n" H "\r\n", 0, "[POST /a|][GET /b|]"},
        {"POST /a HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n" H "\r\n", 0,
         "[POST /a|abc][GET /b|]"},
        {"POST /a HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\n\r\n", 0,
         "[POST /a|abcde]"},
        {"POST /a HTTP/1.1\r\n" H
         "transfer-encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n",
         0, "[POST /a|a][GET /|]"},
        {"GET / HTTP/1.1\r\n" H "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nGET /b HTTP/1.1\r\n" H "\r\n", 0,
         "[GET /|][GET /b|]"},
        /* two framings of one message */
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4, 4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: +4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: -4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 0x4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4 4\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551620\r\n\r\nabcd", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, ""},
        /* transfer codings */
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
        /* chunks */
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n\r\n", 400, ""},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nabc\r\n0\r\n\r\n", 400, ""},
        /* lines */
        {"GET / HTTP/1.1\n"
         "Host: h\n\n",
         400, ""},
        {"GET / HTTP/1.1\r\nHost: h\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "\n", 400, ""},
        {"GET / HTTP/1.1\rHost: h\r\r", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n " H "\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H ": a\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X\x01: a\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", 400, ""},
        /* hosts */
        {"GET / HTTP/1.1\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H H "\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "host: x\r\n\r\n", 400, ""},
        {"GET / HTTP/1.1\r\n" H "Origin: a\r\nOrigin: b\r\n\r\n", 400, ""},
        /* request lines */
        {"GET /\r\n" H "\r\n", 400, ""},
        {"GET\r\n\r\n", 400, ""},
        {"GET  / HTTP/1.1\r\n" H "\r\n", 0, "[GET /|]"}, /* RFC 9112, 3: may be read by words */
        {"GET / x HTTP/1.1\r\n" H "\r\n", 400, ""},
        {"GET / HTTP/1.1 x\r\n" H "\r\n", 400, ""},
        {"GET /\x01 HTTP/1.1\r\n" H "\r\n", 400, ""},
        {"\x16\x03\x01\x02\x01", 400, ""},
        {"BREW / HTTP/1.1\r\n" H "\r\n", 501, ""},
        {"GET / HTTP/2.0\r\n" H "\r\n", 505, ""},
        {"GET / HTTP/1.2\r\n" H "\r\n", 505, ""},
        {"GET / HTTP/3.1\r\n" H "\r\n", 505, ""},
        {"GET / HTTP/1.10\r\n" H "\r\n", 400, ""},
        {"GET / HTTX/1.1\r\n" H "\r\n", 400, ""},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t cut = 0; cut <= strlen(cases[i].in); cut++) {
            buf out;
            buf_init(&out, 10000);
            int status = parse(cases[i].in, cut, 4096, &out);
            if (status != cases[i].status || strcmp(buf_str(&out), cases[i].out) != 0)
                fail_msg("case %zu cut at %zu: status %d, read '%s'\n%s", i, cut, status, buf_str(&out), cases[i].in);
            buf_free(&out);
        }
    }
}

static void test_nul_in_head(void **state) {
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n";
    http_parser p;
    http_parse_init(&p, HTTP_KIND_REQUEST, 4096, collect_body, NULL);
    size_t used;
    assert_int_equal(http_parse_feed(&p, text, sizeof text - 1, &used), HTTP_PARSE_BAD);
    assert_int_equal(p.status, 400);
    http_parse_free(&p);
}

static void test_head_limit(void **state) {
    (void)state;
    buf in, out;
    buf_init(&in, 100000);
    buf_init(&out, 1000);
    buf_puts(&in, "GET / HTTP/1.1\r\n" H "X: ");
    while (in.len < 1000 - 4) buf_putc(&in, 'a');
    buf_puts(&in, "\r\n\r\n");
    assert_int_equal(parse(in.data, 500, 1000, &out), 0);
    assert_int_equal(parse(in.data, 500, 999, &out), 431);
    assert_int_equal(parse(in.data, 999, 999, &out), 431);

    buf_clear(&in);
    buf_puts(&in, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 200; i++) buf_puts(&in, "a:b\r\n");
    assert_int_equal(parse(in.data, 0, 65536, &out), 431);

    buf_clear(&in); /* what comes behind the head counts too */
    buf_puts(&in, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 300; i++) buf_puts(&in, "1;extension=value\r\na\r\n");
    assert_int_equal(parse(in.data, 0, 1000, &out), 431);

    buf_clear(&in);
    buf_puts(&in, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n");
    for (int i = 0; i < 300; i++) buf_puts(&in, "Trailer: value\r\n");
    assert_int_equal(parse(in.data, 0, 1000, &out), 431);
    buf_free(&in);
    buf_free(&out);
}

static void test_headers(void **state) {
    (void)state;
    static const char text[] = "GET /x HTTP/1.1\r\nHost:h\r\nEmpty:\r\nSpaced: \t a b \t\r\nConnection: close\r\n\r\n";
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        http_parser p;
        http_parse_init(&p, HTTP_KIND_REQUEST, 4096, collect_body, NULL);
        size_t used;
        assert_int_equal(http_parse_feed(&p, text, cut, &used), HTTP_PARSE_MORE);
        assert_int_equal(http_parse_feed(&p, text + cut, sizeof text - 1 - cut, &used), HTTP_PARSE_HEAD);
        assert_string_equal(http_parse_target(&p), "/x");
        assert_string_equal(http_parse_header(&p, "host"), "h");
        assert_string_equal(http_parse_header(&p, "EMPTY"), "");
        assert_string_equal(http_parse_header(&p, "Spaced"), "a b");
        assert_null(http_parse_header(&p, "Space"));
        assert_false(p.keep_alive);
        assert_false(http_parse_has_body(&p));
        assert_int_equal(http_parse_feed(&p, "", 0, &used), HTTP_PARSE_DONE);
        http_parse_free(&p);
    }
}

/* One answer, then the end of the connection; the parts seen. */
static void expect_response(const char *text, bool no_body, bool ok, int status, const char *body, bool keep_alive) {
    http_parser p;
    buf got;
    buf_init(&got, 1000);
    http_parse_init(&p, HTTP_KIND_RESPONSE, 4096, collect_body, &got);
    p.no_body = no_body;
    size_t used, at = 0, len = strlen(text);
    http_parse_result r;
    do {
        r = http_parse_feed(&p, text + at, len - at, &used);
        at += used;
    } while (r == HTTP_PARSE_HEAD);
    if (r == HTTP_PARSE_MORE) r = http_parse_eof(&p);
    assert_int_equal(r, ok ? HTTP_PARSE_DONE : HTTP_PARSE_BAD);
    if (ok) {
        assert_int_equal(http_parse_status(&p), status);
        assert_string_equal(buf_str(&got), body);
        assert_int_equal(p.keep_alive, keep_alive);
    }
    http_parse_free(&p);
    buf_free(&got);
}

static void test_responses(void **state) {
    (void)state;
    expect_response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", false, true, 200, "ab", true);
    expect_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", false, true, 200, "ab",
                    true);
    expect_response("HTTP/1.1 200 OK\r\n\r\nuntil the end", false, true, 200, "until the end", false);
    expect_response("HTTP/1.1 204 No Content\r\n\r\n", false, true, 204, "", true);
    expect_response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true, true, 200, "", true);
    expect_response("HTTP/1.1 100 Continue\r\n\r\n", false, true, 100, "", true);
    expect_response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false, false, 0, "", false);
    expect_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", false, false, 0, "", false);
    expect_response("HTTP/1.1 200 OK\r\nContent-", false, false, 0, "", false);
    expect_response("", false, false, 0, "", false);
    expect_response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", false, false, 0, "", false);
}

static void test_tokens(void **state) {
    (void)state;
    assert_true(http_has_token("close", "close"));
    assert_true(http_has_token("keep-alive , Close", "close"));
    assert_false(http_has_token("closed, not-close", "close"));
    assert_false(http_has_token("", "close"));
    assert_false(http_has_token(NULL, "close"));
    assert_true(http_is_field_name("X-Name"));
    assert_false(http_is_field_name("X Name"));
    assert_false(http_is_field_name(""));
    assert_false(http_is_field_name("X:"));
    assert_true(http_is_field_value("a b\t\xc3\xa9"));
    assert_false(http_is_field_value("a\r\nb"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_nul_in_head), cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_headers),  cmocka_unit_test(test_responses),   cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
