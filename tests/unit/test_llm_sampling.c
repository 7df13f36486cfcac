/* The counter-based draw and the chain in front of it. */
#include "llm/sampling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

/* From a sequential SplitMix64 in Python, which was checked against its author's published value (seed 1234567 gives
 * 6457827717110365317 first): the stream whose state is the first output for `seed`, top 53 bits. */
static void uniform_is_splitmix_read_at_a_position(void **state) {
    (void)state;
    const struct {
        uint64_t seed;
        double u[4];
    } known[] = {
        {0, {0.6524484863740322, 0.7012121095215252, 0.3871241409757855, 0.656413707073071}},
        {7, {0.7215081806049702, 0.6497043364684557, 0.5493743249193239, 0.6042348053683145}},
        {9007199254740991u, {0.9195882472975374, 0.30178368618427065, 0.6158431595821132, 0.6357997589311389}},
        {UINT64_MAX, {0.3662420901697574, 0.7408050620013817, 0.510562089893682, 0.9269618291063265}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (uint64_t k = 4; k-- > 0;)
            assert_true(sampling_uniform(known[i].seed, k) == known[i].u[k]); /* exact: both have 53 bits */
}

static const float LOGITS[6] = {1.0f, 3.0f, 2.0f, -1.0f, 2.5f, 0.0f};

static llm_request plain(void) {
    llm_request r = llm_request_default();
    r.top_k = 0;
    r.top_p = 1;
    r.min_p = 0;
    r.temperature = 1;
    r.seed = 42;
    return r;
}

static void frequencies_are_the_softmax(void **state) {
    (void)state;
    enum { N = 20000 };
    llm_request r = plain();
    sampling *s = sampling_open(&r, 6, NULL, 0);
    int count[6] = {0};
    for (uint64_t i = 0; i < N; i++) count[sampling_pick(s, LOGITS, i)]++;
    sampling_close(s);
    double total = 0, chi2 = 0;
    for (int i = 0; i < 6; i++) total += exp((double)LOGITS[i]);
    for (int i = 0; i < 6; i++) {
        double expect = N * exp((double)LOGITS[i]) / total;
        chi2 += (count[i] - expect) * (count[i] - expect) / expect;
    }
    assert_true(chi2 < 20.5); /* 5 degrees of freedom: 0.1 % */
}

static void draw_depends_on_seed_and_index_only(void **state) {
    (void)state;
    llm_request r = plain();
    sampling *a = sampling_open(&r, 6, NULL, 0), *b = sampling_open(&r, 6, NULL, 0);
    r.seed = 43;
    sampling *c = sampling_open(&r, 6, NULL, 0);
    llama_token forward[200];
    int differ = 0;
    for (uint64_t i = 0; i < 200; i++) forward[i] = sampling_pick(a, LOGITS, i);
    for (uint64_t i = 200; i-- > 0;) {
        assert_int_equal(sampling_pick(b, LOGITS, i), forward[i]);
        differ += sampling_pick(c, LOGITS, i) != forward[i];
    }
    assert_true(differ > 50);
    sampling_close(a);
    sampling_close(b);
    sampling_close(c);
}

static void the_chain_narrows_the_choice(void **state) {
    (void)state;
    llm_request greedy = plain(), top2 = plain(), nucleus = plain(), minp = plain();
    greedy.temperature = 0;
    top2.top_k = 2;
    nucleus.top_p = 0.5f; /* softmax of 3.0 alone is 0.42: two tokens */
    minp.min_p = 0.5f;    /* exp(2.5 - 3.0) = 0.61 stays, exp(2.0 - 3.0) = 0.37 goes */
    const llm_request *narrow[] = {&top2, &nucleus, &minp};
    sampling *s = sampling_open(&greedy, 6, NULL, 0);
    for (uint64_t i = 0; i < 50; i++) assert_int_equal(sampling_pick(s, LOGITS, i), 1);
    sampling_close(s);
    for (int k = 0; k < 3; k++) {
        int seen[6] = {0};
        s = sampling_open(narrow[k], 6, NULL, 0);
        for (uint64_t i = 0; i < 500; i++) seen[sampling_pick(s, LOGITS, i)]++;
        sampling_close(s);
        assert_true(seen[1] > 0 && seen[4] > 0);
        assert_int_equal(seen[1] + seen[4], 500);
    }
}

static void penalties_and_bans(void **state) {
    (void)state;
    llm_request r = plain();
    r.temperature = 0;
    r.presence_penalty = 1;
    sampling *s = sampling_open(&r, 6, NULL, 0);
    assert_int_equal(sampling_pick(s, LOGITS, 0), 1);
    sampling_accept(s, 1); /* 3.0 - 1 is less than 2.5 */
    assert_int_equal(sampling_pick(s, LOGITS, 1), 4);
    sampling_close(s);
    llama_token never[] = {1, 4};
    r.presence_penalty = 0;
    s = sampling_open(&r, 6, never, 2);
    assert_int_equal(sampling_pick(s, LOGITS, 0), 2);
    sampling_close(s);
}

static void not_a_number_is_noticed(void **state) {
    (void)state;
    float bad[4] = {NAN, NAN, NAN, NAN};
    llm_request r = plain();
    sampling *s = sampling_open(&r, 4, NULL, 0);
    assert_int_equal(sampling_pick(s, bad, 0), -1);
    sampling_close(s);
    r.temperature = 0;
    s = sampling_open(&r, 4, NULL, 0);
    assert_int_equal(sampling_pick(s, bad, 0), -1);
    sampling_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_is_splitmix_read_at_a_position),
        cmocka_unit_test(frequencies_are_the_softmax),
        cmocka_unit_test(draw_depends_on_seed_and_index_only),
        cmocka_unit_test(the_chain_narrows_the_choice),
        cmocka_unit_test(penalties_and_bans),
        cmocka_unit_test(not_a_number_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
