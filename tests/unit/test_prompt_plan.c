/* Prompt editing and composition: A1111's documented examples, and what a prompt says call by call. */
#include "diffusion/text/prompt_plan.h"

#include "base/buf.h"
#include "base/str.h"
#include "diffusion/text/prompt.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static prompt_plan planned(const char *text, int calls, int before) {
    prompt_plan p;
    err e;
    const plan_span span = {.calls = calls, .before = before, .compose = true};
    if (!prompt_plan_parse(&p, text, &span, &e)) fail_msg("%s: %s", text, e.msg);
    return p;
}

/* "3:a |10:a b": the pieces of a part, with the last call of each. */
static char *written(const prompt_plan *p, int part) {
    buf b;
    buf_init(&b, 64 * 1024);
    for (int i = 0; i < p->parts[part].count; i++) {
        const plan_piece *piece = &p->parts[part].pieces[i];
        buf_printf(&b, "%s%d:%s", i ? "|" : "", piece->until, p->texts[piece->text]);
    }
    return buf_take(&b, NULL);
}

static void expect(const char *text, int calls, int before, const char *want) {
    prompt_plan p = planned(text, calls, before);
    assert_int_equal(p.count, 1);
    char *got = written(&p, 0);
    if (!str_eq(got, want)) fail_msg("%s\n  expected %s\n  got      %s", text, want, got);
    free(got);
    prompt_plan_free(&p);
}

static void test_editing(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        /* the examples in A1111's parser and its manual */
        {"test", "10:test"},
        {"a [b:3]", "3:a |10:a b"},
        {"a [b: 3]", "3:a |10:a b"},
        {"a [[[b]]:2]", "2:a |10:a [[b]]"},
        {"[(a:2):3]", "3:|10:(a:2)"},
        {"a [b : c : 1] d", "1:a b  d|10:a  c  d"},
        {"a[b:[c:d:2]:1]e", "1:abe|2:ace|10:ade"},
        {"a [unbalanced", "10:a [unbalanced"},
        {"a [b:.5] c", "5:a  c|10:a b c"},
        {"((a][:b:c [d:3]", "3:((a][:b:c |10:((a][:b:c d"},
        /* the three forms, and what may stand in them */
        {"[a:b:3]", "3:a|10:b"},
        {"[a::3]", "3:a|10:"},
        {"[:a:3]", "3:|10:a"},
        {"[::3]", "10:"},
        {"[(red:1.2) fox:[old] wolf:0.3]", "3:(red:1.2) fox|10:[old] wolf"},
        {"([a:b:3]:1.2)", "3:(a:1.2)|10:(b:1.2)"},
        {"[a:3:5]", "5:a|10:3"},
        {"[a\\:b:3]", "3:|10:a\\:b"},
        {"[a:3]]", "3:]|10:a]"},
        {"[x [b:3]", "3:[x |10:[x b"},
        /* where it changes */
        {"[a:b:0]", "10:b"},
        {"[a:b:-3]", "10:b"},
        {"[a:b:0.05]", "10:b"},
        {"[a:b:1.0]", "10:a"},
        {"[a:b:99]", "10:a"},
        {"[a:b:1e0]", "1:a|10:b"},
        {"[a:b:+2]", "2:a|10:b"},
        {"[a:b: .5 ]", "5:a|10:b"},
        /* text all the same */
        {"[a:b:c:3]", "10:[a:b:c:3]"},
        {"[a:b:.]", "10:[a:b:.]"},
        {"[a:b:]", "10:[a:b:]"},
        {"a | b [c:3]", "10:a | b [c:3]"},
        {"(a|b) [c:3]", "10:(a|b) [c:3]"},
        {"[c:3] \\", "10:[c:3] \\"},
        {"16:9", "10:16:9"},
        {"a cat :1.5", "10:a cat :1.5"},
        {"", "10:"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) expect(rows[i][0], 10, 0, rows[i][1]);
    expect("fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][ in "
           "background:0.25] [shoddy:masterful:0.5]",
           100, 0,
           "25:fantasy landscape with a mountain and an oak in foreground shoddy|"
           "50:fantasy landscape with a lake and an oak in foreground in background shoddy|"
           "60:fantasy landscape with a lake and an oak in foreground in background masterful|"
           "75:fantasy landscape with a lake and an oak in background masterful|"
           "100:fantasy landscape with a lake and a christmas tree in background masterful");
}

static void test_turns(void **state) {
    (void)state;
    expect("[a|(b:1.1)]", 4, 0, "1:a|2:(b:1.1)|3:a|4:(b:1.1)");
    expect("[fe|]male", 3, 0, "1:female|2:male|3:female");
    expect("[fe|||]male", 6, 0, "1:female|4:male|5:female|6:male");
    expect("[[a|b]:c:2]", 5, 0, "1:a|2:b|5:c");
    expect("[a|[b|c]]", 4, 0, "1:a|2:c|3:a|4:c");
    expect("[a|[b:c:3]]", 4, 0, "1:a|2:b|3:a|4:c");
    prompt_plan p = planned("[a|b|c]", 200, 0);
    assert_int_equal(p.text_count, 3); /* each is encoded once */
    prompt_plan_free(&p);
}

/* The second pass of a picture in two: A1111 counts numbers on, and shares from 1.0. */
static void test_second_pass(void **state) {
    (void)state;
    expect("a [b:.5] c", 10, 10, "10:a b c");
    expect("a [b:1.5] c", 10, 10, "5:a  c|10:a b c");
    expect("a [b:15] c", 10, 10, "5:a  c|10:a b c");
    expect("[a:b:4]", 8, 10, "8:b");
}

/* `when` is the last call of the first text, counted from 0. */
static void test_calls(void **state) {
    (void)state;
    prompt_plan p = planned("[a:b:3]", 10, 0);
    for (int call = 0; call < 12; call++) {
        const plan_piece *piece = &p.parts[0].pieces[plan_part_at(&p.parts[0], call)];
        assert_string_equal(p.texts[piece->text], call <= 3 ? "a" : "b");
    }
    prompt_plan_free(&p);
}

static void test_composition(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int count;
        const char *parts[3];
        double weights[3];
    } rows[] = {
        {"a cat AND a dog", 2, {"a cat ", " a dog"}, {1, 1}},
        {"a cat :1.2 AND a dog AND a penguin :2.2", 3, {"a cat ", " a dog ", " a penguin "}, {1.2, 1, 2.2}},
        {"a AND b:-.5", 2, {"a ", " b"}, {1, -0.5}},
        {"a AND b : +3. ", 2, {"a ", " b "}, {1, 3}},
        {"a AND [b:c:2] :0.5", 2, {"a ", " [b:c:2] "}, {1, 0.5}},
        {"(a:1.5) AND b:c", 2, {"(a:1.5) ", " b:c"}, {1, 1}},
        {"a AND b :1.2.3", 2, {"a ", " b :1.2.3"}, {1, 1}},
        {"a AND ", 2, {"a ", " "}, {1, 1}},
        {"SAND ANDY B_AND AND", 2, {"SAND ANDY B_AND ", ""}, {1, 1}},
        {"sand and ANDY", 1, {"sand and ANDY"}, {1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        prompt_plan p = planned(rows[i].text, 1, 0);
        if (p.count != rows[i].count) fail_msg("%s: %d parts", rows[i].text, p.count);
        for (int k = 0; k < p.count; k++) {
            const char *text = p.texts[p.parts[k].pieces[0].text];
            const bool edited = strchr(rows[i].parts[k], '[') != NULL; /* in one call, the first text is all there is */
            if (!edited && !str_eq(text, rows[i].parts[k])) fail_msg("%s: part '%s'", rows[i].text, text);
            assert_true(fabs((double)p.parts[k].weight - rows[i].weights[k]) < 1e-6);
        }
        prompt_plan_free(&p);
    }
    prompt_plan p;
    const plan_span negative = {.calls = 5};
    assert_true(prompt_plan_parse(&p, "a AND b :0.5", &negative, NULL));
    assert_int_equal(p.count, 1);
    assert_string_equal(p.texts[0], "a AND b :0.5");
    prompt_plan_free(&p);
}

static void refused(const char *text, err_code code) {
    prompt_plan p;
    err e = {0};
    const plan_span span = {.calls = 20, .compose = true};
    assert_false(prompt_plan_parse(&p, text, &span, &e));
    assert_int_equal(e.code, code);
}

/* Every bracket without a partner is looked at once: these would take for ever otherwise. */
static void test_limits(void **state) {
    (void)state;
    const size_t size = PROMPT_MAX_BYTES;
    char *text = mem_alloc(size + 2, 1);
    memset(text, '[', size + 1);
    refused(text, ERR_TOO_LARGE); /* too long */
    text[size] = 0;
    refused(text, ERR_TOO_LARGE); /* too deep */
    for (size_t i = 0; i < size; i++) text[i] = "[(a)(b)]:"[i % 9];
    text[0] = ']';
    prompt_plan_free(&(prompt_plan[]){planned(text, 20, 0)}[0]);
    for (size_t i = 0; i + 8 <= size; i += 8) memcpy(text + i, "[a|b]) [", 8);
    prompt_plan_free(&(prompt_plan[]){planned(text, 20, 0)}[0]);
    for (size_t i = 0; i + 4 <= size; i += 4) memcpy(text + i, "AND ", 4);
    refused(text, ERR_TOO_LARGE);
    free(text);
    refused("a AND b :1000", ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_editing), cmocka_unit_test(test_turns),       cmocka_unit_test(test_second_pass),
        cmocka_unit_test(test_calls),   cmocka_unit_test(test_composition), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
