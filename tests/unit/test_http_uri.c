/* Request targets: decoding, dot segments, refusals, query values. */
#include "net/http_uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_targets(void **state) {
    (void)state;
    static const struct {
        const char *target, *path, *query; /* path NULL: refused */
    } cases[] = {
        {"/", "/", ""},
        {"/a/b", "/a/b", ""},
        {"/a%20b?x=1&y=%20", "/a b", "x=1&y=%20"},
        {"/a?", "/a", ""},
        {"/a?b?c", "/a", "b?c"},
        {"/a/./b", "/a/b", ""},
        {"/a/../b", "/b", ""},
        {"/a/b/..", "/a/", ""},
        {"/a/.", "/a/", ""},
        {"/..a/b..", "/..a/b..", ""},
        {"/a//b", "/a//b", ""},
        {"/a/", "/a/", ""},
        {"/%2e%2e/a", NULL, NULL},
        {"/..", NULL, NULL},
        {"/a/../../b", NULL, NULL},
        {"/a%2Fb", "/a/b", ""},
        {"/a%2fb", "/a/b", ""},
        {"/a%2f..%2f..%2fb", NULL, NULL},
        {"/a/b%2f..%2Fc", "/a/c", ""},
        {"/%252e%252e/x", "/%2e%2e/x", ""},
        {"/%00", NULL, NULL},
        {"/a%", NULL, NULL},
        {"/a%4", NULL, NULL},
        {"/a%zz", NULL, NULL},
        {"/%0d%0a", NULL, NULL},
        {"/%ff", NULL, NULL},
        {"/%c0%af", NULL, NULL},
        {"/%ed%a0%80", NULL, NULL},
        {"/%c3%a9", "/\xc3\xa9", ""},
        {"", NULL, NULL},
        {"a", NULL, NULL},
        {"?x", NULL, NULL},
        {"/a#b", NULL, NULL},
        {"*", "*", ""},
        {"http://h:1/x?y", "/x", "y"},
        {"HTTP://h", "/", ""},
        {"http://h?q", "/", "q"},
        {"https://h/x", NULL, NULL},
        {"h:443", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        http_uri u;
        err e;
        bool ok = http_uri_parse(&u, cases[i].target, strlen(cases[i].target), &e);
        if (ok != (cases[i].path != NULL)) fail_msg("%s: %s", cases[i].target, ok ? u.path : e.msg);
        if (!ok) {
            assert_int_equal(e.code, ERR_INVALID);
            continue;
        }
        assert_string_equal(u.path, cases[i].path);
        assert_string_equal(u.query, cases[i].query);
        http_uri_free(&u);
    }
}

static void test_authority(void **state) {
    (void)state;
    http_uri u;
    assert_true(http_uri_parse(&u, "http://host:80/x", 16, NULL));
    assert_string_equal(u.authority, "host:80");
    http_uri_free(&u);
}

static void expect_query(const char *query, const char *name, const char *want) {
    char *got = http_uri_query(query, name);
    if (want)
        assert_string_equal(got, want);
    else
        assert_null(got);
    free(got);
}

static void test_query(void **state) {
    (void)state;
    expect_query("a=1&b=2", "b", "2");
    expect_query("a=1&a=2", "a", "1");
    expect_query("ab=1", "a", NULL);
    expect_query("a", "a", "");
    expect_query("a&b=", "b", "");
    expect_query("q=x+y%26z%3D", "q", "x y&z=");
    expect_query("%61=1", "a", "1");
    expect_query("a=%ff", "a", NULL);
    expect_query("a=%0", "a", NULL);
    expect_query("&&a=1", "a", "1");
    expect_query("", "a", NULL);
}

static void test_encode_is_undone_by_decode(void **state) {
    (void)state;
    const char *text = "a b/\xc3\xa9%?&=+~.txt";
    buf coded, plain;
    buf_init(&coded, 200);
    buf_init(&plain, 200);
    assert_true(http_uri_encode(&coded, text, false));
    assert_null(strpbrk(coded.data, "/ ?&=+"));
    assert_true(http_uri_decode(&plain, coded.data, coded.len, true));
    assert_string_equal(plain.data, text);
    buf_free(&coded);
    buf_free(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_authority),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_encode_is_undone_by_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
