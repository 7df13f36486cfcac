/* multipart/form-data: well-formed bodies, and what must be refused. */
#include "net/http_multipart.h"
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TYPE "multipart/form-data; boundary=XX"
#define PART(name) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n"

static http_multipart *parse(const char *body) {
    err e = {0};
    http_multipart *m = http_multipart_parse(TYPE, body, strlen(body), &e);
    if (!m) fail_msg("%s", e.msg);
    return m;
}

static void test_form(void **state) {
    (void)state;
    static const char body[] = "--XX\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n"
                               "--XX\r\ncontent-disposition: form-data; filename=\"a;\\\"b.png\"; name=image\r\n"
                               "Content-Type: image/png\r\n\r\n\0\r\n--X\r\nbytes\r\n"
                               "--XX  \r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n"
                               "--XX--\r\nepilogue";
    err e;
    http_multipart *m =
        http_multipart_parse("Multipart/Form-Data; charset=utf-8; boundary=\"XX\"", body, sizeof body - 1, &e);
    assert_non_null(m);
    assert_int_equal(http_multipart_count(m), 3);
    char *prompt = http_multipart_text(m, "prompt");
    assert_string_equal(prompt, "a cat");
    free(prompt);
    const http_part *image = http_multipart_find(m, "image");
    assert_string_equal(image->filename, "a;\"b.png");
    assert_string_equal(image->content_type, "image/png");
    assert_int_equal(image->len, 13);
    assert_memory_equal(image->data, "\0\r\n--X\r\nbytes", 13);
    assert_null(http_multipart_text(m, "image")); /* has a NUL */
    assert_int_equal(http_multipart_part(m, 2)->len, 0);
    assert_null(http_multipart_part(m, 2)->filename);
    assert_null(http_multipart_part(m, 3));
    assert_null(http_multipart_find(m, "other"));
    http_multipart_free(m);
}

static void test_edges(void **state) {
    (void)state;
    http_multipart *m = parse("--XX--");
    assert_int_equal(http_multipart_count(m), 0);
    http_multipart_free(m);
    m = parse("preamble\r\n" PART("a") "1\r\n--XX--\r\n");
    assert_int_equal(http_multipart_count(m), 1);
    http_multipart_free(m);
    m = parse(PART("a") "a --XX not at a line's start\r\n--XX--");
    assert_int_equal(http_multipart_part(m, 0)->len, 28);
    http_multipart_free(m);
    m = parse(PART("a") "--XX--"); /* empty, its boundary directly behind the head */
    assert_int_equal(http_multipart_part(m, 0)->len, 0);
    http_multipart_free(m);
}

static void expect_refusal(const char *type, const char *body, int code) {
    err e = {0};
    http_multipart *m = http_multipart_parse(type, body, strlen(body), &e);
    if (m || e.code != code) fail_msg("'%s' %s: code %d", type ? type : "", body, e.code);
}

static void test_refusals(void **state) {
    (void)state;
    static const char good[] = PART("a") "1\r\n--XX--\r\n";
    expect_refusal(NULL, good, ERR_UNSUPPORTED);
    expect_refusal("application/json", good, ERR_UNSUPPORTED);
    expect_refusal("multipart/form-data", good, ERR_FORMAT);
    expect_refusal("multipart/form-data; boundary=", good, ERR_FORMAT);
    expect_refusal("multipart/form-data; boundary=\"XX", good, ERR_FORMAT);
    expect_refusal("multipart/form-data; boundary=YY", good, ERR_FORMAT);
    expect_refusal("multipart/form-data; xboundary=XX", good, ERR_FORMAT);
    expect_refusal(TYPE, "", ERR_FORMAT);
    expect_refusal(TYPE, "--XX", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\n", ERR_FORMAT);
    expect_refusal(TYPE, PART("a") "no end", ERR_FORMAT);
    expect_refusal(TYPE, PART("a") "1\r\n--XX", ERR_FORMAT);
    expect_refusal(TYPE, PART("a") "1\r\n--XXtext", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\nContent-Disposition: form-data; name=\"a\"\n\n1\n--XX--", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\nContent-Type: text/plain\r\n\r\n1\r\n--XX--", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n--XX--", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n--XX--", ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--XX--", ERR_FORMAT);
    expect_refusal(TYPE,
                   "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; "
                   "name=\"b\"\r\n\r\n1\r\n--XX--",
                   ERR_FORMAT);
    expect_refusal(TYPE, "--XX\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--XX--", ERR_UNSUPPORTED);
}

static void test_limits(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 100000);
    for (int i = 0; i < HTTP_PARTS_MAX; i++) buf_puts(&b, PART("a") "1\r\n");
    size_t fits = b.len;
    buf_puts(&b, "--XX--");
    http_multipart *m = parse(b.data);
    assert_int_equal(http_multipart_count(m), HTTP_PARTS_MAX);
    http_multipart_free(m);
    b.len = fits;
    buf_puts(&b, PART("a") "1\r\n--XX--");
    expect_refusal(TYPE, b.data, ERR_TOO_LARGE);
    buf_clear(&b);
    buf_puts(&b, "--XX\r\n");
    while (b.len < 9000) buf_puts(&b, "X: y\r\n");
    expect_refusal(TYPE, b.data, ERR_TOO_LARGE);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
