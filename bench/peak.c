/* peak.c - how many operations a second the vector units of one core do at most: multiply-adds on registers alone, as
 * many of them independent as it takes to keep the units busy. Compiled for this machine's own instruction set. With
 * bfloat16 and 8-bit integers, too, where the machine multiplies them. */
#include "base/clock.h"
#include "diffusion/cpu/int8.h"
#include "diffusion/cpu/kernels.h"

/* VDPBF16PS takes six cycles, and two start in each. */
enum { SUMS = PAIR > 1 ? 16 : 10, ROUNDS = 10 * 1000 * 1000 };

double peak_gflops(cpu_precision precision);

static double gflops(int64_t numbers, int64_t start) {
    return 2.0 * (double)numbers * SUMS * LANES * ROUNDS / (double)(clock_mono_ns() - start);
}

static double peak_of_floats(bool cells) {
    vec sum[SUMS], total = {0};
    for (int i = 0; i < SUMS; i++) sum[i] = (vec){0} + (float)i;
    const vec a = (vec){0} + 0.999f, b = (vec){0} + 0.001f;
    const int64_t start = clock_mono_ns();
    for (int n = 0; n < ROUNDS && !cells; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + b;
    }
    for (int n = 0; n < ROUNDS && cells; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) sum[i] = multiply_cells(sum[i], 0.999f, b);
    }
    const double result = gflops(cells ? PAIR : 1, start);
    for (int i = 0; i < SUMS; i++) total += sum[i];
    return total[0] > 1e30f ? 0 : result; /* never 0: so that the sums are needed */
}

static double peak_of_int8(void) {
    int32s sum[SUMS], total = {0};
    for (int i = 0; i < SUMS; i++) sum[i] = (int32s){0} + i;
    const vec ones = (vec)((int32s){0} + 0x01010101);
    const int64_t start = clock_mono_ns();
    for (int n = 0; n < ROUNDS; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) sum[i] = multiply_bytes(sum[i], 0x01010101, ones);
    }
    const double result = gflops(4, start);
    for (int i = 0; i < SUMS; i++) total += sum[i];
    return total[0] == -1 ? 0 : result; /* never, as above */
}

double peak_gflops(cpu_precision precision) {
    return precision == CPU_INT8 ? peak_of_int8() : peak_of_floats(precision == CPU_BF16);
}
