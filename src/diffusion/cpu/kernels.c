/* kernels.c - which kernels this processor can run. */
#include "diffusion/cpu/kernels.h"

#include "base/str.h"

#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

extern const cpu_kernels cpu_kernels_plain;
#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512, cpu_kernels_avx512bf16;
extern const cpu_product cpu_product_avx2int8, cpu_product_avx512int8;
#elif defined(__aarch64__)
extern const cpu_product cpu_product_neonint8;
#endif

enum { MOST = 4 };

/* Best first. */
static int available(const cpu_kernels *out[MOST]) {
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw")) {
        if (__builtin_cpu_supports("avx512bf16")) out[n++] = &cpu_kernels_avx512bf16;
        out[n++] = &cpu_kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out[n++] = &cpu_kernels_avx2;
#endif
    out[n++] = &cpu_kernels_plain;
    return n;
}

const cpu_kernels *cpu_kernels_find(const char *name) {
    const cpu_kernels *all[MOST];
    const int n = available(all);
    for (int i = 0; i < n; i++)
        if (str_eq(all[i]->name, name)) return all[i];
    return NULL;
}

const cpu_kernels *cpu_kernels_best(cpu_precision precision) {
    const char *wanted = getenv("MYSTI_CPU");
    const cpu_kernels *named = wanted ? cpu_kernels_find(wanted) : NULL, *all[MOST];
    const bool any = !named || (named->precision == CPU_BF16 && precision == CPU_F32);
    const int n = available(all);
    for (int i = 0; i < n; i++)
        if (all[i]->precision == precision && (any || all[i] == named)) return all[i];
    return NULL;
}

#if defined(__x86_64__)
static bool has_avx_vnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1U << 4;
}

const cpu_product *cpu_int8_product(const cpu_kernels *k) {
    if (k == &cpu_kernels_avx2) return has_avx_vnni() ? &cpu_product_avx2int8 : NULL;
    if (k == &cpu_kernels_plain) return NULL;
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
