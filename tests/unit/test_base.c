/* test_base.c - base: errors, buffers, strings, base64, paths, files, arguments, clock. */
#include "base/args.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *temp_dir(void) {
    char *dir = str_fmt("%s/mysti-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void remove_tree(char *dir) {
    char *command = str_fmt("rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(dir);
}

static void err_keeps_cause_and_context(void **state) {
    (void)state;
    err e = {0};
    assert_false(err_set(&e, ERR_FORMAT, "expected %d", 4));
    assert_false(err_wrap(&e, "tensor '%s'", "a.b"));
    assert_string_equal(e.msg, "tensor 'a.b': expected 4");
    assert_int_equal(e.code, ERR_FORMAT);
    assert_false(err_set(&e, ERR_IO, "again: %s", e.msg)); /* its own message as argument */
    assert_string_equal(e.msg, "again: tensor 'a.b': expected 4");
    for (int i = 0; i < 40; i++) err_wrap(&e, "a long context that comes in front, number %d", i);
    assert_non_null(strstr(e.msg, "a long context"));
    assert_int_equal(strlen(e.msg) < sizeof e.msg, 1);
    assert_false(err_set(NULL, ERR_IO, "nobody listens"));
}

static void err_names_go_both_ways(void **state) {
    (void)state;
    for (int code = ERR_NONE; code <= ERR_INTERNAL; code++) assert_int_equal(err_from_name(err_name(code)), code);
    assert_int_equal(err_from_name("no such name"), ERR_INTERNAL);
    assert_string_equal(err_name(-1), "internal");
}

static void buf_stops_at_its_maximum(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 10);
    assert_true(buf_puts(&b, "12345"));
    assert_false(buf_puts(&b, "678901"));
    assert_true(b.full);
    assert_string_equal(buf_str(&b), "12345"); /* nothing of what did not fit */
    assert_true(buf_printf(&b, "%d", 67890));
    assert_int_equal(b.len, 10);
    buf_consume(&b, 3);
    assert_string_equal(buf_str(&b), "4567890");
    size_t len;
    char *bytes = buf_take(&b, &len);
    assert_int_equal(len, 7);
    free(bytes);
    assert_null(buf_reserve(&b, SIZE_MAX)); /* no overflow */
    assert_string_equal(buf_str(&b), "");
    buf_free(&b);
}

static void numbers_are_whole_strings(void **state) {
    (void)state;
    int64_t i;
    uint64_t u;
    double d;
    assert_true(str_to_i64("-42", &i) && i == -42);
    assert_false(str_to_i64("42x", &i));
    assert_false(str_to_i64(" 42", &i));
    assert_false(str_to_i64("", &i));
    assert_false(str_to_i64("9223372036854775808", &i));
    assert_true(str_to_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_false(str_to_u64("-1", &u));
    assert_true(str_to_f64("1.5e3", &d) && d == 1500);
    assert_false(str_to_f64("1.5.3", &d));
}

static void sizes_are_whole(void **state) {
    (void)state;
    int w = 1, h = 2;
    static const char *const bad[] = {NULL,   "",     "512",  "512x", "x512",     "512x512x",
                                      "-8x8", "8x-8", "8x 8", " 8x8", "100000x8", "8,8"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(str_to_size(bad[i], &w, &h));
    assert_true(w == 1 && h == 2);
    assert_true(str_to_size("128x96", &w, &h) && w == 128 && h == 96);
    assert_true(str_to_size("99999*0", &w, &h) && w == 99999 && h == 0);
    assert_true(str_to_size("1X2", &w, &h) && w == 1 && h == 2);
}

static void nearest_name_is_found(void **state) {
    (void)state;
    const char *names[] = {"listen-port", "listen-ip", "model-dir"};
    assert_string_equal(str_nearest("listen-prot", names, 3), "listen-port");
    assert_string_equal(str_nearest("modeldir", names, 3), "model-dir");
    assert_null(str_nearest("zzzzzzzz", names, 3));
}

static void utf8_is_checked(void **state) {
    (void)state;
    assert_true(str_is_utf8("gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80", 11));
    assert_false(str_is_utf8("\xC3", 1));
    assert_false(str_is_utf8("\xC0\x80", 2));         /* overlong */
    assert_false(str_is_utf8("\xED\xA0\x80", 3));     /* surrogate */
    assert_false(str_is_utf8("\xF4\x90\x80\x80", 4)); /* past U+10FFFF */
    assert_int_equal(str_utf8_complete("ab\xF0\x9F\x98", 5), 2);
    assert_int_equal(str_utf8_complete("ab\xC3\xBC", 4), 4);
}

static void base64_round_trip(void **state) {
    (void)state;
    unsigned char data[257];
    file_random(data, sizeof data);
    for (size_t n = 0; n <= sizeof data; n++) {
        buf text, back;
        buf_init(&text, 1024);
        buf_init(&back, 1024);
        assert_true(base64_encode(&text, data, n));
        assert_int_equal(text.len, (n + 2) / 3 * 4);
        assert_true(base64_decode(&back, text.data, text.len));
        assert_int_equal(back.len, n);
        if (n) assert_memory_equal(back.data, data, n);
        buf_free(&text);
        buf_free(&back);
    }
}

static void base64_vectors(void **state) {
    (void)state;
    const char *const pairs[][2] = {
        {"Zm9v", "foo"}, {"Zm9vYg==", "foob"}, {"Zm9vYg", "foob"}, {"Zm9v\r\nYmE=", "fooba"}, {"-_-_", "\xFB\xFF\xBF"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        buf out;
        buf_init(&out, 100);
        assert_true(base64_decode(&out, pairs[i][0], strlen(pairs[i][0])));
        assert_string_equal(buf_str(&out), pairs[i][1]);
        buf_free(&out);
    }
    const char *const bad[] = {"Z", "Zm9v!", "Zm=v", "Zm9v====", "Zm9\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf out;
        buf_init(&out, 100);
        assert_false(base64_decode(&out, bad[i], strlen(bad[i])));
        buf_free(&out);
    }
}

static void names_from_outside_stay_below(void **state) {
    (void)state;
    char *root = temp_dir();
    char *inside = path_join(root, "in"), *file = path_join(inside, "a.txt"), *link = path_join(inside, "out");
    err e = {0};
    assert_true(path_make_dirs(inside, &e));
    assert_true(file_write_atomic(file, "x", 1, &e));
    assert_int_equal(symlink("/etc", link), 0);

    char *found = path_resolve_below(root, "in/a.txt", &e);
    assert_non_null(found);
    free(found);
    const char *const bad[] = {"",     "/etc/passwd",   "../x", "in/../../x", "in/..",
                               "./in", "in/out/passwd", "C:x",  "in\\a.txt",  "in/a\n.txt"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(path_resolve_below(root, bad[i], &e));
        assert_int_equal(e.code, ERR_DENIED);
    }
    assert_null(path_resolve_below(root, NULL, &e));
    assert_null(path_resolve_below(root, "in/none", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(path_is_plain_name("a/b"));
    assert_false(path_is_plain_name(".."));
    assert_true(path_is_plain_name("a..b.png"));
    free(link);
    free(file);
    free(inside);
    remove_tree(root);
}

static void path_parts(void **state) {
    (void)state;
    assert_string_equal(path_ext("a/b.c/d"), "");
    assert_string_equal(path_ext("a/.hidden"), "");
    assert_string_equal(path_ext("a/b.tar.gz"), ".gz");
    char *dir = path_dir("/x"), *stem = path_stem("/a/b.png"), *joined = path_join("a/", "b");
    assert_string_equal(dir, "/");
    assert_string_equal(stem, "b");
    assert_string_equal(joined, "a/b");
    free(dir);
    free(stem);
    free(joined);
}

static void atomic_write_replaces_or_leaves(void **state) {
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "f");
    err e = {0};
    assert_true(file_write_atomic(path, "old", 3, &e));
    assert_true(file_write_atomic(path, "newer", 5, &e));
    buf b;
    buf_init(&b, 100);
    assert_true(file_read(path, &b, &e));
    assert_string_equal(buf_str(&b), "newer");
    buf_free(&b);
    buf_init(&b, 3);
    assert_false(file_read(path, &b, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    buf_free(&b);
    buf_init(&b, 100);
    assert_true(file_read_part(path, 2, 2, &b, &e) && file_read_part(path, 4, 9, &b, &e));
    assert_true(file_read_part(path, UINT64_C(1) << 40, 9, &b, &e));
    assert_string_equal(buf_str(&b), "wer");
    assert_false(file_read_part(dir, 0, 9, &b, &e));
    buf_free(&b);
    char *nowhere = path_join(dir, "none/f");
    assert_false(file_write_atomic(nowhere, "x", 1, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    free(nowhere);
    free(path);
    remove_tree(dir);
}

static void pieces_become_a_file_or_nothing(void **state) {
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "f");
    err e = {0};
    file_out *f = file_out_open(path, &e);
    assert_true(f && file_out_write(f, "half", 4, &e));
    assert_false(path_exists(path));
    file_out_discard(f);
    f = file_out_open(path, &e);
    assert_true(f && file_out_write(f, "first ", 6, &e) && file_out_write(f, "second", 6, &e));
    assert_true(file_out_commit(f, &e));
    buf b;
    buf_init(&b, 100);
    assert_true(file_read(path, &b, &e));
    assert_string_equal(buf_str(&b), "first second");
    buf_free(&b);
    f = file_out_open(dir, &e); /* a folder cannot be replaced */
    assert_true(f && file_out_write(f, "x", 1, &e));
    assert_false(file_out_commit(f, &e));
    file_out_discard(NULL);
    free(path);
    remove_tree(dir);
}

static void mapping_survives_release_and_is_copied(void **state) {
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "f");
    size_t n = 1 << 20;
    unsigned char *data = mem_alloc(n, 1);
    file_random(data, 256);
    memcpy(data + n - 256, data, 256);
    err e = {0};
    assert_true(file_write_atomic(path, data, n, &e));
    file_map m;
    assert_true(file_map_open(&m, path, &e));
    assert_int_equal(m.size, n);
    file_map_release(&m, 100, n - 200);
    file_map_release(&m, n + 5, 10); /* outside: nothing happens */
    assert_memory_equal(m.data, data, n);
    unsigned char *copy = mem_alloc(n, 1);
    file_map_copy(&m, n - 300, 300, copy);
    assert_memory_equal(copy, data + n - 300, 300);
    file_map_copy(&m, 0, n, copy);
    assert_memory_equal(copy, data, n);
    file_map_copy(&m, n, 0, copy); /* nothing */
    free(copy);
    file_map_close(&m);
    assert_false(file_map_open(&m, dir, &e));
    free(data);
    free(path);
    remove_tree(dir);
}

typedef struct options {
    char *name;
    int64_t port;
    bool loud;
} options;

static bool parse(options *o, int argc, const char *const *argv, err *e) {
    const arg_spec specs[] = {
        {"name", 'n', "nm", ARG_STRING, &o->name, "NAME", ""},
        {"port", 'p', NULL, ARG_INT, &o->port, "PORT", ""},
        {"loud", 0, NULL, ARG_FLAG, &o->loud, NULL, ""},
    };
    return args_parse(argc, (char **)(uintptr_t)argv, specs, 3, e);
}

static void arguments_in_every_form(void **state) {
    (void)state;
    options o = {0};
    err e = {0};
    const char *good[] = {"prog", "--name=x=y", "-p", "12", "--loud"};
    assert_true(parse(&o, 5, good, &e));
    assert_string_equal(o.name, "x=y");
    assert_int_equal(o.port, 12);
    assert_true(o.loud);
    const char *alias[] = {"prog", "-nm", "z"};
    assert_true(parse(&o, 3, alias, &e));
    assert_string_equal(o.name, "z");
    const char *bad[][3] = {
        {"prog", "--prot", "1"}, {"prog", "--port", "x"}, {"prog", "stray", NULL}, {"prog", "--port", NULL}};
    const char *why[] = {"did you mean '--port'", "--port: expected a whole number", "unexpected argument 'stray'",
                         "--port needs a value"};
    for (int i = 0; i < 4; i++) {
        assert_false(parse(&o, bad[i][2] ? 3 : 2, bad[i], &e));
        assert_non_null(strstr(e.msg, why[i]));
    }
    free(o.name);
}

static void http_date_is_rfc9110(void **state) {
    (void)state;
    char date[30];
    clock_format_http(784111777000, date);
    assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void log_lines_cannot_be_forged(void **state) {
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "log");
    err e = {0};
    assert_true(log_open_file(path, 1 << 20, &e));
    log_info("test", "a\n[00:00:00.000] [ERROR] [x] forged");
    log_relay("sd", "[01:02:03.004] [WARN] [sd] kept as it is");
    log_relay("sd", "plain");
    log_close_file();
    buf b;
    buf_init(&b, 10000);
    assert_true(file_read(path, &b, &e));
    assert_non_null(strstr(buf_str(&b), "[INFO] [test] a\\x0A[00:00:00.000]"));
    assert_non_null(strstr(buf_str(&b), "\n[01:02:03.004] [WARN] [sd] kept as it is\n"));
    assert_non_null(strstr(buf_str(&b), "[INFO] [sd] plain\n"));
    buf_free(&b);
    free(path);
    remove_tree(dir);
}

static void memory_is_known(void **state) {
    (void)state;
    memory_info m = memory_status();
    assert_true(m.total > 1 << 20);
    assert_true(m.available > 0 && m.available <= m.total);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_keeps_cause_and_context),
        cmocka_unit_test(err_names_go_both_ways),
        cmocka_unit_test(buf_stops_at_its_maximum),
        cmocka_unit_test(numbers_are_whole_strings),
        cmocka_unit_test(sizes_are_whole),
        cmocka_unit_test(nearest_name_is_found),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(base64_round_trip),
        cmocka_unit_test(base64_vectors),
        cmocka_unit_test(names_from_outside_stay_below),
        cmocka_unit_test(path_parts),
        cmocka_unit_test(atomic_write_replaces_or_leaves),
        cmocka_unit_test(pieces_become_a_file_or_nothing),
        cmocka_unit_test(mapping_survives_release_and_is_copied),
        cmocka_unit_test(arguments_in_every_form),
        cmocka_unit_test(http_date_is_rfc9110),
        cmocka_unit_test(memory_is_known),
        cmocka_unit_test(log_lines_cannot_be_forged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
