/* test_json.c - typed JSON readers: values, defaults, and errors that name the place. */
#include "json/json.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static yyjson_doc *parse(const char *text) {
    err e = {0};
    yyjson_doc *doc = json_parse(text, strlen(text), &e);
    assert_non_null(doc);
    return doc;
}

static void reads_values_and_keeps_defaults(void **state) {
    (void)state;
    yyjson_doc *doc = parse("{\"s\":\"x\",\"i\":20.0,\"u\":18446744073709551615,\"b\":true,\"f\":1.5,\"n\":null}");
    json_in root = json_root(doc);
    err e = {0};
    const char *s = "default", *none = "default";
    int i = 1, missing = 7;
    uint64_t u = 0;
    bool b = false;
    float f = 0;
    assert_true(json_get_str(&root, "s", &s, &e) && str_eq(s, "x"));
    assert_true(json_get_str(&root, "n", &none, &e) && str_eq(none, "default"));
    assert_true(json_get_int(&root, "i", &i, 1, 200, &e) && i == 20); /* 20.0 is a whole number */
    assert_true(json_get_int(&root, "missing", &missing, 1, 200, &e) && missing == 7);
    assert_true(json_get_u64(&root, "u", &u, &e) && u == UINT64_MAX);
    assert_true(json_get_bool(&root, "b", &b, &e) && b);
    assert_true(json_get_float(&root, "f", &f, 0, 2, &e) && f == 1.5f);
    yyjson_doc_free(doc);
}

static void errors_name_the_place(void **state) {
    (void)state;
    yyjson_doc *doc =
        parse("{\"messages\":[{},{},{\"role\":5}],\"steps\":0,\"big\":1e300,\"frac\":1.5,\"nul\":\"a\\u0000b\"}");
    json_in root = json_root(doc), messages, item;
    err e = {0};
    const char *s = NULL;
    int i = 0;
    assert_true(json_get_arr(&root, "messages", true, &messages, &e));
    item = json_item(&messages, 2);
    assert_false(json_get_str(&item, "role", &s, &e));
    assert_string_equal(e.msg, "messages[2].role: expected string");
    assert_false(json_get_int(&root, "steps", &i, 1, 200, &e));
    assert_string_equal(e.msg, "steps: 0 is not between 1 and 200");
    assert_false(json_get_int(&root, "big", &i, 1, 200, &e));
    assert_false(json_get_int(&root, "frac", &i, 1, 200, &e));
    assert_string_equal(e.msg, "frac: expected whole number");
    assert_false(json_get_str(&root, "nul", &s, &e));
    assert_false(json_need_str(&root, "prompt", &s, &e));
    assert_string_equal(e.msg, "prompt: required");
    assert_false(json_get_obj(&root, "messages", true, &item, &e));
    assert_string_equal(e.msg, "messages: expected object");
    yyjson_doc_free(doc);
}

static void unknown_keys_get_a_hint(void **state) {
    (void)state;
    yyjson_doc *doc = parse("{\"promt\":1}");
    json_in root = json_root(doc);
    const char *known[] = {"prompt", "steps"};
    err e = {0};
    assert_false(json_check_keys(&root, known, 2, &e));
    assert_string_equal(e.msg, "unknown key 'promt'; did you mean 'prompt'?");
    const char *far[] = {"width", "height"};
    assert_false(json_check_keys(&root, far, 2, &e));
    assert_string_equal(e.msg, "unknown key 'promt' beside width, height");
    yyjson_doc_free(doc);
}

static void bad_text_is_refused(void **state) {
    (void)state;
    err e = {0};
    const char *const bad[] = {"", "{", "{\"a\":}", "[1,]", "nope", "{} x", "\"\xFF\""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(json_parse(bad[i], strlen(bad[i]), &e));
        assert_int_equal(e.code, ERR_FORMAT);
    }
    char deep[1000];
    memset(deep, '[', sizeof deep);
    assert_null(json_parse(deep, sizeof deep, &e));
    assert_non_null(strstr(e.msg, "nested deeper"));
    yyjson_doc_free(parse("\"[[[[ in a string \\\" [[[[\""));
}

static void written_strings_are_valid_json(void **state) {
    (void)state;
    buf out;
    buf_init(&out, 1000);
    json_write_error(&out, "t", "c", NULL, "quote \" slash \\ line\n bell \x07 bad \xFF\xC3 good \xC3\xBC");
    err e = {0};
    yyjson_doc *doc = json_parse(out.data, out.len, &e);
    assert_non_null(doc);
    json_in root = json_root(doc), error;
    const char *message = NULL;
    assert_true(json_get_obj(&root, "error", true, &error, &e));
    assert_true(json_need_str(&error, "message", &message, &e));
    assert_string_equal(message, "quote \" slash \\ line\n bell \x07 bad \xEF\xBF\xBD\xEF\xBF\xBD good \xC3\xBC");
    yyjson_doc_free(doc);
    buf_free(&out);
}

static void members_are_separated(void **state) {
    (void)state;
    buf out;
    buf_init(&out, 1000);
    buf_putc(&out, '{');
    json_write_member(&out, "a", "x\"{");
    json_write_member(&out, "b", NULL);
    buf_puts(&out, ",\"c\":{");
    json_write_member(&out, "d", "");
    buf_puts(&out, "}}");
    assert_string_equal(buf_str(&out), "{\"a\":\"x\\\"{\",\"b\":null,\"c\":{\"d\":\"\"}}");
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_and_keeps_defaults), cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(unknown_keys_get_a_hint),         cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(written_strings_are_valid_json),  cmocka_unit_test(members_are_separated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
