/* Wildcards and choices: what they say, what stays as it is, and what is refused. */
#include "server/wildcards.h"

#include "base/file.h"
#include "base/path.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROUNDS = 400, MAX = 4000 };

static char folder[] = "/tmp/mysti-test-XXXXXX";
static wildcards *w;

static void put(const char *name, const char *text) {
    char *path = path_join(folder, name), *dir = path_dir(path);
    err e;
    if (!path_make_dirs(dir, &e) || !file_write_atomic(path, text, strlen(text), &e)) fail_msg("%s", e.msg);
    free(dir);
    free(path);
}

/* As after a new request: files are read again. */
static void reopen(void) {
    wildcards_close(w);
    char *first = path_join(folder, "a"), *second = path_join(folder, "b");
    w = wildcards_open((const char *const[]){first, second});
    free(first);
    free(second);
}

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return 1;
    put("a/color.txt", "\xEF\xBB\xBFred\r\n\n  # no colour\n  blue  \ngreen");
    put("a/sub/deep.txt", "very __color__");
    put("a/both.txt", "first");
    put("b/both.txt", "second");
    put("b/other.txt", "{x|y} \\{z\\}");
    put("a/weighted.txt", "0::never\n3::often\n1::seldom\n");
    put("a/loop.txt", "again __loop__");
    put("a/ping.txt", "__pong__");
    put("a/pong.txt", "__ping__");
    put("a/empty.txt", "\n# nothing\n\n");
    put("a/two words.txt", "said");
    put("a/many.txt", "__many2____many2____many2____many2____many2__");
    put("a/many2.txt", "__many3____many3____many3____many3____many3____many3____many3__");
    put("a/many3.txt", "{a|}{b|}{c|}{d|}{e|}{f|}{g|}__many4____many4____many4____many4__");
    put("a/many4.txt", "{a|}{b|}{c|}{d|}{e|}{f|}{g|}{a|}{b|}{c|}{d|}{e|}{f|}{g|}");
    char *path = path_join(folder, "a/binary.txt");
    const bool ok = file_write_atomic(path, "a\0b", 3, NULL);
    free(path);
    reopen();
    return ok ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    wildcards_close(w);
    char *command = str_fmt("rm -rf '%s'", folder);
    const int code = system(command);
    free(command);
    return code;
}

static char *said(const char *text, uint64_t seed) {
    err e;
    char *got = wildcards_resolve(w, text, seed, MAX, &e);
    if (!got) fail_msg("%s: %s", text, e.msg);
    return got;
}

/* All that a text says over many seeds is one of `wanted` (with '/' between), and each of these comes up. */
static void expect(const char *text, const char *wanted) {
    char *list = str_fmt("/%s/", wanted), *seen = str_dup(list);
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        char *got = said(text, seed), *key = str_fmt("/%s/", got), *at = strstr(list, key);
        if (!at) fail_msg("%s: '%s'", text, got);
        seen[at - list + 1] = seen[at - list + 1] == '/' ? '/' : '*';
        free(key);
        free(got);
    }
    for (char *p = list; p[1]; p++)
        if (*p == '/' && p[1] != '/' && seen[p - list + 1] != '*') fail_msg("%s: never '%s'", text, p + 1);
    free(seen);
    free(list);
}

static void test_choices(void **state) {
    (void)state;
    expect("a {red|blue} car", "a red car/a blue car");
    expect("{a|{b|c}} {x|y}", "a x/a y/b x/b y/c x/c y");
    expect("{0::never|often}", "often");
    expect("{2.5::a| 1::b}", "a/b");
    expect("{16:9|4:3}", "16:9/4:3");
    expect("{2$$a|b|c}", "a, b/b, a/a, c/c, a/b, c/c, b");
    expect("{1-2$$a|b}", "a/b/a, b/b, a");
    expect("{2$$ and $$a|b}", "a and b/b and a");
    expect("{9$$a|b}", "a, b/b, a");
    expect("{0-1$$a|a}b", "b/ab");
    expect("{2$$a}", "a");
}

static void test_weights_count(void **state) {
    (void)state;
    int often = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        char *got = said("{3::often|1::seldom}", seed);
        often += str_eq(got, "often");
        free(got);
    }
    assert_in_range(often, 1500 - 100, 1500 + 100); /* five standard deviations */
}

static void test_files(void **state) {
    (void)state;
    expect("__color__", "red/blue/green");
    expect("(__sub/deep__:1.2)", "(very red:1.2)/(very blue:1.2)/(very green:1.2)");
    expect("__both__ __two words__", "first said");
    expect("__other__", "x {z}/y {z}");
    expect("__weighted__", "often/seldom");
    expect("{2$$__color__}", "red, blue/blue, red/red, green/green, red/blue, green/green, blue");
    expect("{__both__|x}", "first/x");
    expect("<lora:{one|two}:{0.5|1}>", "<lora:one:0.5>/<lora:one:1>/<lora:two:0.5>/<lora:two:1>");
}

static void test_what_is_text_stays(void **state) {
    (void)state;
    static const char *const texts[] = {
        "a (red:1.3) [fox] in [snow:woods:0.5] BREAK [a|b] AND \\(x\\)",
        "{masterpiece}, {a {b} c}",
        "open { brace",
        "close } brace { \"a\": 1 }",
        "<lora:my__color__style:0.8> <lyco:x__nothing__y>",
        "__ a __, __, ___, ____, snake_case, a__b",
        "{}",
        "{a$$b}",
        "\\",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *got = said(texts[i], i);
        assert_string_equal(got, texts[i]);
        free(got);
    }
    expect("{[a|b]|c}", "[a|b]/c");
    expect("\\{a|b\\} \\__color__ \\(", "{a|b} __color__ \\(");
    expect("{a\\|b|c}", "a\\|b/c");
    assert_false(wildcards_are_in(texts[0]));
    assert_true(wildcards_are_in("a {b|c}") && wildcards_are_in("__a__"));
}

static void test_seeds(void **state) {
    (void)state;
    const char *text = "{a|b|c|d|e|f|g|h} __color__ {1-5$$a|b|c|d|e|f|g}";
    int others = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        char *one = said(text, seed), *two = said(text, seed), *next = said(text, seed + 1);
        assert_string_equal(one, two);
        others += !str_eq(one, next);
        free(one);
        free(two);
        free(next);
    }
    assert_true(others > 90);
    char *fixed = said(text, 42); /* for good: pictures are made again by their seeds */
    assert_string_equal(fixed, "f red c, a");
    free(fixed);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        int code;
    } rows[] = {
        {"a __colour__", "there is no wildcard '__colour__'; did you mean '__color__'?", ERR_INVALID},
        {"__sub/deap__", "did you mean '__sub/deep__'?", ERR_INVALID},
        {"{__zzzzzzzz__|__zzzzzzzz__}", "'__zzzzzzzz__': no file of that name with .txt in wildcards/", ERR_INVALID},
        {"__../a/color__", "there is no wildcard '__../a/color__'", ERR_INVALID},
        {"__/etc/passwd__", "there is no wildcard", ERR_INVALID},
        {"__loop__", "more than 20 deep in each other, the last is '__loop__'", ERR_INVALID},
        {"__ping__", "more than 20 deep", ERR_INVALID},
        {"__empty__", "'__empty__' has no lines", ERR_INVALID},
        {"__binary__", "wildcard '__binary__': it is not UTF-8 text", ERR_FORMAT},
        {"__many__", "more than 2000 choices", ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        if (wildcards_resolve(w, rows[i].text, i, MAX, &e)) fail_msg("%s", rows[i].text);
        if (e.code != rows[i].code || !strstr(e.msg, rows[i].message))
            fail_msg("%s: %d %s", rows[i].text, e.code, e.msg);
    }
    err e = {0};
    assert_null(wildcards_resolve(w, "{aaaaaa|bbbbbb}", 1, 3, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    char *long_one = mem_alloc(60001, 1);
    memset(long_one, '{', 60000); /* takes a time that grows with its length alone */
    char *got = wildcards_resolve(w, long_one, 1, 80000, &e);
    assert_string_equal(got, long_one);
    free(got);
    free(long_one);
}

static void test_changed_files(void **state) {
    (void)state;
    put("a/changing.txt", "before");
    expect("__changing__", "before");
    put("a/changing.txt", "after");
    expect("__changing__", "before"); /* one request sees one state */
    reopen();
    expect("__changing__", "after");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices),       cmocka_unit_test(test_weights_count),
        cmocka_unit_test(test_files),         cmocka_unit_test(test_what_is_text_stays),
        cmocka_unit_test(test_seeds),         cmocka_unit_test(test_errors),
        cmocka_unit_test(test_changed_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
