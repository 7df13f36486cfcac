/* kernels.c - which kernels this processor can run. */
#include "diffusion/cpu/kernels.h"

#include "base/log.h"
#include "base/str.h"
#include "diffusion/cpu/amx_system.h"
#include "diffusion/cpu/rows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

extern const cpu_kernels cpu_kernels_plain;

static bool is_always_there(void) {
    return true;
}

#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512, cpu_kernels_avx512bf16;
extern const cpu_product cpu_product_avx512int8;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
static bool has_avx512bf16(void) {
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#elif defined(__aarch64__)
extern const cpu_product cpu_product_neonint8;
#endif

#if defined(CPU_HAS_AMX) /* the compiler has */
extern const cpu_kernels cpu_kernels_avx512amx;

static bool amx_works;

static void try_amx(void) {
    err e = {0};
    if (!has_avx512bf16() || !amx_in_processor()) return;
    if (!amx_request(&e))
        log_warn("cpu", "AMX is left out: %s", e.msg);
    else if (!cpu_kernels_multiply_right(&cpu_kernels_avx512amx))
        log_warn("cpu", "AMX is left out: its product of two small matrices is wrong");
    else
        amx_works = true;
}

/* Tried once, and only if it is asked for. */
static bool has_amx(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, try_amx);
    return amx_works;
}
#endif

/* Best first. */
static const struct choice {
    const cpu_kernels *kernels;
    bool (*is_there)(void);
} choices[] = {
#if defined(CPU_HAS_AMX)
    {&cpu_kernels_avx512amx, has_amx},
#endif
#if defined(__x86_64__)
    {&cpu_kernels_avx512bf16, has_avx512bf16}, {&cpu_kernels_avx512, has_avx512}, {&cpu_kernels_avx2, has_avx2},
#endif
    {&cpu_kernels_plain, is_always_there},
};
enum { CHOICES = sizeof choices / sizeof *choices };

const cpu_kernels *cpu_kernels_find(const char *name) {
    for (int i = 0; i < CHOICES; i++)
        if (str_eq(choices[i].kernels->name, name)) return choices[i].is_there() ? choices[i].kernels : NULL;
    return NULL;
}

const cpu_kernels *cpu_kernels_best(cpu_precision precision) {
    const char *wanted = getenv("MYSTI_CPU");
    const cpu_kernels *named = wanted ? cpu_kernels_find(wanted) : NULL;
    const bool any = !named || (named->precision == CPU_BF16 && precision == CPU_F32);
    for (int i = 0; i < CHOICES; i++) {
        const cpu_kernels *k = choices[i].kernels;
        if (k->precision == precision && (any || k == named) && choices[i].is_there()) return k;
    }
    return NULL;
}

#if defined(__x86_64__)
static const cpu_product *avx2_int8_product(void) {
#if defined(CPU_HAS_AVXVNNI) /* the compiler has */
    extern const cpu_product cpu_product_avx2int8;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1U << 4) return &cpu_product_avx2int8;
#endif
    return NULL;
}

const cpu_product *cpu_int8_product(const cpu_kernels *k) {
    if (k == &cpu_kernels_avx2) return avx2_int8_product();
    if (k != &cpu_kernels_avx512 && k != &cpu_kernels_avx512bf16) return NULL; /* AMX does more with bfloat16 */
    return __builtin_cpu_supports("avx512vnni") ? &cpu_product_avx512int8 : NULL;
}
#elif defined(__aarch64__) && defined(__linux__)
const cpu_product *cpu_int8_product(const cpu_kernels *k) {
    (void)k;
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? &cpu_product_neonint8 : NULL;
}
#else
const cpu_product *cpu_int8_product(const cpu_kernels *k) {
    (void)k;
    return NULL;
}
#endif

/* Whole numbers up to 255 to either side: bfloat16 has them, and floats every sum of 100 of their products. */
static void fill_with_whole_numbers(float *x, int64_t count) {
    uint32_t seed = (uint32_t)count;
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u; /* Press et al., Numerical Recipes */
        x[i] = (float)((int)(seed >> 16) % 511 - 255);
    }
}

bool cpu_kernels_multiply_right(const cpu_kernels *k) {
    enum { T = 33, IN = 100, OUT = 50 };
    float x[T * IN], weights[OUT * IN], got[T * OUT], want[T * OUT];
    fill_with_whole_numbers(x, T * IN);
    fill_with_whole_numbers(weights, OUT * IN);
    const cpu_linear in_floats = {.x = x,
                                  .weight = {weights, IN * sizeof *weights, 1, sizeof *weights, NULL},
                                  .y = want,
                                  .t = T,
                                  .in = IN,
                                  .out = OUT};
    cpu_kernels_plain.product->linear(&in_floats, 0, 1);
    const cpu_packing *packing = k->product->packing;
    const int64_t row = packing ? packing->row(IN) : 0;
    cpu_room packed = cpu_room_open(T * row);
    cpu_linear product = in_floats;
    product.y = got;
    if (packing) product.x = packed.floats;
    for (int i = 0; i < T && packing; i++) packing->pack(x + i * IN, IN, packed.floats + i * row);
    k->product->linear(&product, 0, 1);
    cpu_room_close(&packed);
    return memcmp(got, want, sizeof got) == 0;
}
