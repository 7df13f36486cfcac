/* Prompts: attention syntax, chunks, emphasis; the tokenizer's edges. */
#include "diffusion/text/prompt.h"

#include "base/buf.h"
#include "base/str.h"
#include "diffusion/text/tok_clip.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Tokens of whole words, from OpenAI's tokenizer. */
enum { A = 320, CAT = 2368, COMMA = 267, OPEN = 263, CLOSE = 264 };

static prompt parsed(const char *text) {
    prompt p;
    err e;
    if (!prompt_parse(&p, text, NULL, &e)) fail_msg("%s: %s", text, e.msg);
    return p;
}

/* Checks the body of the first chunk. */
static void expect(const char *text, int count, const int32_t *tokens, const float *weights) {
    prompt p = parsed(text);
    assert_int_equal(p.tokens[0], TOK_CLIP_BOS);
    for (int i = 0; i < count; i++) {
        assert_int_equal(p.tokens[1 + i], tokens[i]);
        if (fabsf(p.weights[1 + i] - weights[i]) > 1e-4f)
            fail_msg("%s: token %d has weight %g", text, i, (double)p.weights[1 + i]);
    }
    for (int i = count + 1; i < PROMPT_CHUNK; i++) {
        assert_int_equal(p.tokens[i], TOK_CLIP_EOS);
        assert_true(p.weights[i] == 1.0f);
    }
    prompt_free(&p);
}
#define EXPECT(text, tokens, ...)                                                                                      \
    expect(text, (int)(sizeof(int32_t[]){LIST tokens} / sizeof(int32_t)), (int32_t[]){LIST tokens},                    \
           (float[]){__VA_ARGS__})
#define LIST(...) __VA_ARGS__

/* --- learned words --- */

enum { L = PROMPT_LEARNED };

static void expect_words(const char *text, int count, const int32_t *tokens) {
    static int32_t cat[] = {CAT}, a_cat[] = {A, CAT};
    static const prompt_word items[] = {{a_cat, 2, 4, 1}, {cat, 1, 0, 3}};
    prompt p;
    err e;
    if (!prompt_parse(&p, text, &(prompt_words){items, 2}, &e)) fail_msg("%s: %s", text, e.msg);
    for (int i = 0; i < count; i++)
        if (p.tokens[1 + i] != tokens[i]) fail_msg("%s: token %d is %d", text, i, p.tokens[1 + i]);
    assert_int_equal(p.tokens[1 + count], TOK_CLIP_EOS);
    prompt_free(&p);
}
#define EXPECT_WORDS(text, ...)                                                                                        \
    expect_words(text, sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t), (int32_t[]){__VA_ARGS__})

static void test_words_stand_for_vectors(void **state) {
    (void)state;
    EXPECT_WORDS("cat", L, L + 1, L + 2);
    EXPECT_WORDS("CaT, cat", L, L + 1, L + 2, COMMA, L, L + 1, L + 2);
    EXPECT_WORDS("a cat", L + 4); /* the longer name */
    EXPECT_WORDS("a, cat", A, COMMA, L, L + 1, L + 2);
    EXPECT_WORDS("embedding:cat", L, L + 1, L + 2);
    EXPECT_WORDS("a (cat)", A, L, L + 1, L + 2); /* of another weight: not in one piece */
    EXPECT_WORDS("embedding: a", 19703, 796, 281, A);
}

static prompt parsed_words(const char *text, int vectors) {
    static int32_t cat[] = {CAT};
    const prompt_word word = {cat, 1, 0, vectors};
    prompt p;
    err e;
    if (!prompt_parse(&p, text, &(prompt_words){&word, 1}, &e)) fail_msg("%s: %s", text, e.msg);
    return p;
}

/* Text of n words, then `end`. */
static char *many(int n, const char *end) {
    buf b;
    buf_init(&b, 1 << 16);
    for (int i = 0; i < n; i++) buf_puts(&b, "a ");
    buf_puts(&b, end);
    return buf_take(&b, NULL);
}

static void test_vectors_stay_together(void **state) {
    (void)state;
    char *fits = many(71, "(cat:1.5)"), *too_long = many(72, "(cat:1.5) a"), *moved = many(65, ", cat a a a a a a a");
    prompt p = parsed_words(fits, 4);
    assert_int_equal(p.chunks, 1);
    assert_int_equal(p.tokens[72], L);
    assert_true(p.weights[72] == 1.5f && p.weights[75] == 1.5f && p.weights[76] == 1.0f);
    prompt_free(&p);
    p = parsed_words(too_long, 4);
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[73], TOK_CLIP_EOS);
    assert_int_equal(p.tokens[78], L);
    assert_int_equal(p.tokens[81], L + 3);
    assert_int_equal(p.tokens[82], A);
    prompt_free(&p);
    p = parsed_words(moved, 4); /* what stands behind the comma goes along */
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[66], COMMA);
    assert_int_equal(p.tokens[67], TOK_CLIP_EOS);
    assert_int_equal(p.tokens[78], L);
    prompt_free(&p);
    p = parsed_words("cat cat", 75);
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[75], L + 74);
    assert_int_equal(p.tokens[78], L);
    prompt_free(&p);
    free(fits);
    free(too_long);
    free(moved);
}

static void test_weights(void **state) {
    (void)state;
    EXPECT("a cat", (A, CAT), 1, 1);
    EXPECT("a (cat)", (A, CAT), 1, 1.1f);
    EXPECT("a ((cat))", (A, CAT), 1, 1.21f);
    EXPECT("a [cat]", (A, CAT), 1, 1 / 1.1f);
    EXPECT("a (cat:1.3)", (A, CAT), 1, 1.3f);
    EXPECT("a (cat: 0.5 )", (A, CAT), 1, 0.5f);
    EXPECT("(a (cat:1.3):0.5)", (A, CAT), 0.5f, 0.65f);
    EXPECT("(a [cat])", (A, CAT), 1.1f, 1);
}

static void test_brackets_that_do_not_close(void **state) {
    (void)state;
    EXPECT("a (cat", (A, CAT), 1, 1.1f);
    EXPECT("a [cat", (A, CAT), 1, 1 / 1.1f);
    EXPECT("a cat)", (A, CAT, CLOSE), 1, 1, 1);
    EXPECT("a \\(cat\\)", (A, OPEN, CAT, CLOSE), 1, 1, 1, 1);
}

static void test_no_weight_where_there_is_none(void **state) {
    (void)state;
    prompt p = parsed("a (cat:x) b:1.2 (c:1e9)");
    for (int i = 0; i < PROMPT_CHUNK; i++) assert_true(p.weights[i] == 1.0f || fabsf(p.weights[i] - 1.1f) < 1e-5f);
    prompt_free(&p);
}

static void test_break_and_empty(void **state) {
    (void)state;
    prompt p = parsed("");
    assert_int_equal(p.chunks, 1);
    assert_int_equal(p.tokens[1], TOK_CLIP_EOS);
    prompt_free(&p);
    p = parsed("(a BREAK cat:1.5)");
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[1], A);
    assert_int_equal(p.tokens[PROMPT_CHUNK], TOK_CLIP_BOS);
    assert_int_equal(p.tokens[PROMPT_CHUNK + 1], CAT);
    assert_true(p.weights[PROMPT_CHUNK + 1] == 1.5f);
    prompt_free(&p);
    p = parsed("BREAKFAST"); /* a word, not the keyword */
    assert_int_equal(p.chunks, 1);
    prompt_free(&p);
}

/* 75 tokens fill a chunk; the cut goes back to a comma that is near. */
static void test_chunks(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 4096);
    for (int i = 0; i < 75; i++) buf_puts(&b, "cat ");
    prompt p = parsed(buf_str(&b));
    assert_int_equal(p.chunks, 1);
    prompt_free(&p);
    buf_puts(&b, "a");
    p = parsed(buf_str(&b));
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[75], CAT);
    assert_int_equal(p.tokens[PROMPT_CHUNK + 1], A);
    assert_int_equal(p.tokens[PROMPT_CHUNK + 2], TOK_CLIP_EOS);
    prompt_free(&p);
    buf_clear(&b);
    for (int i = 0; i < 60; i++) buf_puts(&b, "cat ");
    buf_puts(&b, ", ");
    for (int i = 0; i < 20; i++) buf_puts(&b, "a ");
    p = parsed(buf_str(&b));
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.tokens[61], COMMA);
    assert_int_equal(p.tokens[62], TOK_CLIP_EOS);
    assert_int_equal(p.tokens[PROMPT_CHUNK + 20], A);
    prompt_free(&p);
    /* Twenty tokens back from the end, the comma counted; not one more. */
    static const struct { int before, kept; } at[] = {{55, 56}, {54, 75}};
    for (size_t k = 0; k < 2; k++) {
        buf_clear(&b);
        for (int i = 0; i < at[k].before; i++) buf_puts(&b, "cat ");
        buf_puts(&b, ", ");
        for (int i = at[k].before + 1; i < 76; i++) buf_puts(&b, "a ");
        p = parsed(buf_str(&b));
        assert_int_equal(p.chunks, 2);
        int kept = 0;
        while (kept < 75 && p.tokens[kept + 1] != TOK_CLIP_EOS) kept++;
        assert_int_equal(kept, at[k].kept);
        prompt_free(&p);
    }
    buf_free(&b);
}

static void test_limits(void **state) {
    (void)state;
    prompt p;
    err e;
    char *text = mem_alloc(PROMPT_MAX_BYTES + 2, 1);
    memset(text, 'x', PROMPT_MAX_BYTES + 1);
    assert_false(prompt_parse(&p, text, NULL, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    memset(text, '(', PROMPT_MAX_BYTES);
    text[PROMPT_MAX_BYTES] = 0;
    assert_false(prompt_parse(&p, text, NULL, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    for (int i = 0; i < PROMPT_MAX_BYTES / 2; i++) memcpy(text + 2 * i, "a ", 2);
    assert_false(prompt_parse(&p, text, NULL, &e)); /* 32768 tokens */
    assert_int_equal(e.code, ERR_TOO_LARGE);
    free(text);
}

/* Brackets in brackets multiply; 1e8 is not meant. */
static void test_weights_have_a_limit(void **state) {
    (void)state;
    prompt p;
    err e;
    assert_false(prompt_parse(&p, "((((a:100):100):100):100)", NULL, &e));
    assert_int_equal(e.code, ERR_INVALID);
    p = parsed("(((a:100):100):0.01)");
    assert_true(fabsf(p.weights[1] - 100.0f) < 0.01f);
    prompt_free(&p);
}

static void test_emphasis_keeps_the_mean(void **state) {
    (void)state;
    prompt p = parsed("a (cat:1.5)");
    float z[PROMPT_CHUNK * 2], plain[PROMPT_CHUNK * 2];
    double before = 0, after = 0;
    for (int i = 0; i < PROMPT_CHUNK * 2; i++) before += (double)(plain[i] = z[i] = 0.5f + (float)(i % 7));
    prompt_emphasize(&p, 0, z, NULL, 2);
    for (int i = 0; i < PROMPT_CHUNK * 2; i++) after += (double)z[i];
    assert_true(fabs(after - before) < 1e-3);
    const float cat = z[4] / plain[4], other = z[2] / plain[2];
    assert_true(fabsf(cat / other - 1.5f) < 1e-4f);
    prompt_free(&p);
    p = parsed("a cat");
    memcpy(z, plain, sizeof z);
    prompt_emphasize(&p, 0, z, NULL, 2);
    assert_memory_equal(z, plain, sizeof z); /* nothing said, nothing touched */
    prompt_free(&p);
}

static void test_emphasis_from_an_empty_text(void **state) {
    (void)state;
    prompt p = parsed("a (cat:1.5)");
    float z[PROMPT_CHUNK], empty[PROMPT_CHUNK];
    for (int i = 0; i < PROMPT_CHUNK; i++) {
        z[i] = 2.0f + (float)(i % 7);
        empty[i] = 1.0f;
    }
    p.emphasis = PROMPT_EMPHASIS_COMFY;
    assert_true(prompt_needs_empty(&p));
    prompt_emphasize(&p, 0, z, empty, 1);
    for (int i = 0; i < PROMPT_CHUNK; i++) {
        const float plain = 2.0f + (float)(i % 7), want = i == 2 ? 1.0f + (plain - 1.0f) * 1.5f : plain;
        assert_true(z[i] == want);
    }
    p.emphasis = PROMPT_EMPHASIS_NONE;
    assert_false(prompt_needs_empty(&p));
    prompt_emphasize(&p, 0, z, NULL, 1);
    assert_true(z[2] == 1.0f + 3.0f * 1.5f); /* as it was */
    prompt_free(&p);
    p = parsed("a cat");
    p.emphasis = PROMPT_EMPHASIS_COMFY;
    assert_false(prompt_needs_empty(&p));
    prompt_free(&p);
}

static void test_tokenizer_edges(void **state) {
    (void)state;
    int32_t t[64];
    assert_int_equal(tok_clip_encode("", 0, t, 64), 0);
    assert_int_equal(tok_clip_encode(" \t\n", 3, t, 64), 0);
    assert_int_equal(tok_clip_encode("A  CaT", 6, t, 64), 2);
    assert_int_equal(t[0], A);
    assert_int_equal(t[1], CAT);
    assert_int_equal(tok_clip_encode("<|EndOfText|>", 13, t, 64), 1);
    assert_int_equal(t[0], TOK_CLIP_EOS);
    /* "\xff" is the same as U+FFFD; a cut-off character, too */
    int32_t want[8], got[8];
    const size_t n = tok_clip_encode("\xEF\xBF\xBD", 3, want, 8);
    assert_int_equal(tok_clip_encode("\xFF", 1, got, 8), n);
    assert_memory_equal(got, want, n * sizeof *got);
    assert_int_equal(tok_clip_encode("\xC3", 1, got, 8), n);
    assert_int_equal(tok_clip_encode("a cat", 5, t, 1), 2); /* counts what does not fit */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_words_stand_for_vectors),
        cmocka_unit_test(test_vectors_stay_together),
        cmocka_unit_test(test_brackets_that_do_not_close),
        cmocka_unit_test(test_no_weight_where_there_is_none),
        cmocka_unit_test(test_break_and_empty),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_weights_have_a_limit),
        cmocka_unit_test(test_emphasis_keeps_the_mean),
        cmocka_unit_test(test_emphasis_from_an_empty_text),
        cmocka_unit_test(test_tokenizer_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
