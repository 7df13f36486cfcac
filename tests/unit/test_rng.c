/* Noise: published vectors of Philox and mt19937, the values torch gives on CUDA and CPU, and access out of order. */
#include "diffusion/sample/rng.h"
#include "sample_vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Random123's kat_vectors, "philox4x32 10". */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT(kat); i++) {
        uint32_t c[4];
        memcpy(c, kat[i].counter, sizeof c);
        rng_philox(c, kat[i].key);
        assert_memory_equal(c, kat[i].want, sizeof c);
    }
}

/* torch.manual_seed(0); torch.randn(12, device="cuda"), as widely published. */
static void cuda_seed_0(void **state) {
    (void)state;
    static const float want[12] = {-0.92466259f, -0.42534415f, -2.6438457f,  0.14518388f,  -0.12086647f, -0.57972564f,
                                   -0.62285122f, -0.32838709f, -1.07454231f, -0.36314407f, -1.67105067f, 2.26550497f};
    float got[12];
    rng r;
    rng_init(&r, RNG_CUDA, 0, 12);
    rng_normal(&r, 0, got);
    for (int i = 0; i < 12; i++) assert_float_equal(got[i], want[i], 1e-6f);
}

/* `ref` holds calls 0, 1, 2 one behind the other. */
static void check_calls(rng_kind kind, uint64_t seed, size_t n, const double *ref) {
    static const uint32_t order[] = {0, 1, 2, 2, 0, 2, 1};
    float got[64];
    rng r;
    rng_init(&r, kind, seed, n);
    for (size_t k = 0; k < COUNT(order); k++) {
        rng_normal(&r, order[k], got);
        for (size_t i = 0; i < n; i++) assert_float_equal(got[i], (float)ref[order[k] * n + i], 1e-6f);
    }
}

static void cpu_is_torch(void **state) {
    (void)state;
    check_calls(RNG_CPU, 42, 5, ref_cpu_5);   /* pairs, the odd one carried into the next call */
    check_calls(RNG_CPU, 42, 16, ref_cpu_16); /* one block */
    check_calls(RNG_CPU, 42, 37, ref_cpu_37); /* blocks with a tail drawn anew */
}

static void cuda_uses_all_64_bits_of_the_seed(void **state) {
    (void)state;
    check_calls(RNG_CUDA, (1ull << 33) + 7, 8, ref_cuda_8);
}

static void names(void **state) {
    (void)state;
    rng_kind kind;
    assert_true(rng_kind_from_name("CPU", &kind));
    assert_int_equal(kind, RNG_CPU);
    assert_true(rng_kind_from_name("cuda", &kind));
    assert_int_equal(kind, RNG_CUDA);
    assert_true(rng_kind_from_name("NV", &kind));
    assert_int_equal(kind, RNG_CUDA);
    assert_false(rng_kind_from_name("tpu", &kind));
    assert_false(rng_kind_from_name(NULL, &kind));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(cuda_seed_0),
        cmocka_unit_test(cpu_is_torch),
        cmocka_unit_test(cuda_uses_all_64_bits_of_the_seed),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
