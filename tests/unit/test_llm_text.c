/* Token pieces to text: whole characters only, nothing of a stop string, whatever the token borders. */
#include "base/str.h"
#include "llm/text_out.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct run {
    text_out t;
    buf all;
    bool stopped;
} run;

static void begin(run *r, const char *const *stops, size_t n) {
    *r = (run){0};
    buf_init(&r->all, 1 << 20);
    text_out_init(&r->t, stops, n);
}

static void end(run *r) {
    text_out_free(&r->t);
    buf_free(&r->all);
}

/* Pushes one piece and checks what is shown for it. */
static void push(run *r, const char *piece, const char *expect, bool stop) {
    buf shown;
    buf_init(&shown, 1 << 20);
    bool stopped = text_out_push(&r->t, piece, strlen(piece), &shown);
    assert_string_equal(buf_str(&shown), expect);
    assert_int_equal(stopped, stop);
    buf_free(&shown);
}

static void finish(run *r, const char *expect) {
    buf shown;
    buf_init(&shown, 1 << 20);
    text_out_finish(&r->t, &shown);
    assert_string_equal(buf_str(&shown), expect);
    buf_free(&shown);
    end(r);
}

static void characters_are_put_together(void **state) {
    (void)state;
    run r;
    begin(&r, NULL, 0);
    push(&r, "caf", "caf", false);
    push(&r, "\xC3", "", false);
    push(&r, "\xA9 ", "\xC3\xA9 ", false);
    push(&r, "\xF0\x9F", "", false);
    push(&r, "\x99", "", false);
    push(&r, "\x82", "\xF0\x9F\x99\x82", false);
    finish(&r, "");
}

static void broken_characters_are_replaced(void **state) {
    (void)state;
    run r;
    begin(&r, NULL, 0);
    push(&r, "a\xFFz", "a\xEF\xBF\xBDz", false);
    push(&r, "\xC3", "", false);
    push(&r, "b",
         "\xEF\xBF\xBD"
         "b",
         false); /* what came was not the rest of the character */
    push(&r, "\xE2\x80", "", false);
    finish(&r, ""); /* cut off by the end */
}

static void stops_are_cut_across_pieces(void **state) {
    (void)state;
    const char *stops[] = {"END", "\n\n"};
    run r;
    begin(&r, stops, 2);
    push(&r, "one E", "one ", false);
    push(&r, "N", "", false);
    push(&r, "E", "EN", false); /* ENE: the second E may begin another */
    push(&r, "ND of it", "", true);
    end(&r);
    begin(&r, stops, 2);
    push(&r, "a\n", "a", false);
    push(&r, "b", "\nb", false);
    push(&r, "\n", "", false);
    push(&r, "\nrest", "", true);
    end(&r);
}

static void the_first_stop_wins(void **state) {
    (void)state;
    const char *stops[] = {"later", "x"};
    run r;
    begin(&r, stops, 2);
    push(&r, "ab x later", "ab ", true);
    end(&r);
}

static void what_was_held_is_shown_at_the_end(void **state) {
    (void)state;
    const char *stops[] = {"<|end|>", ""};
    run r;
    begin(&r, stops, 2);
    push(&r, "text <|en", "text ", false);
    finish(&r, "<|en");
}

static void a_stop_may_split_a_character(void **state) {
    (void)state;
    const char *stops[] = {"\xC3\xA9!"};
    run r;
    begin(&r, stops, 1);
    push(&r, "caf\xC3", "caf", false);
    push(&r, "\xA9", "", false);
    push(&r, "?", "\xC3\xA9?", false);
    push(&r, "\xC3\xA9", "", false);
    push(&r, "!!", "", true);
    end(&r);
}

/* Random text in random pieces: what is shown, joined, is the text up to the stop string, and always whole characters.
 */
static void joined_it_is_the_text(void **state) {
    (void)state;
    const char *alphabet[] = {"a", "b", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x99\x82", "ab"};
    const char *stops[] = {"aba", "b\xC3\xA9", "\xE2\x82\xAC\xE2\x82\xAC"};
    unsigned seed = 12345;
    for (int round = 0; round < 2000; round++) {
        buf text, shown;
        buf_init(&text, 4096);
        buf_init(&shown, 4096);
        for (int i = 0; i < 24; i++) {
            seed = seed * 1103515245u + 12345u;
            buf_puts(&text, alphabet[(seed >> 16) % 6]);
        }
        const char *first = NULL;
        for (int i = 0; i < 3; i++) {
            const char *at = strstr(buf_str(&text), stops[i]);
            if (at && (!first || at < first)) first = at;
        }
        text_out t;
        text_out_init(&t, stops, 3);
        bool stopped = false;
        for (size_t at = 0; at < text.len && !stopped;) {
            seed = seed * 1103515245u + 12345u;
            size_t n = 1 + (seed >> 16) % 4;
            if (n > text.len - at) n = text.len - at;
            stopped = text_out_push(&t, text.data + at, n, &shown);
            assert_true(str_is_utf8(buf_str(&shown), shown.len));
            at += n;
        }
        if (!stopped) text_out_finish(&t, &shown);
        size_t expect = first ? (size_t)(first - text.data) : text.len;
        assert_int_equal(stopped, first != NULL);
        assert_int_equal(shown.len, expect);
        assert_memory_equal(buf_str(&shown), text.data, expect);
        text_out_free(&t);
        buf_free(&text);
        buf_free(&shown);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_put_together),
        cmocka_unit_test(broken_characters_are_replaced),
        cmocka_unit_test(stops_are_cut_across_pieces),
        cmocka_unit_test(the_first_stop_wins),
        cmocka_unit_test(what_was_held_is_shown_at_the_end),
        cmocka_unit_test(a_stop_may_split_a_character),
        cmocka_unit_test(joined_it_is_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
