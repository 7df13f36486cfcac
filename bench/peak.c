/* peak.c - how many operations a second the vector units of one core do at most: multiply-adds on registers alone, as
 * many of them independent as it takes to keep the units busy. Compiled for this machine's own instruction set. With
 * bfloat16, too, where the machine multiplies it. */
#include "base/clock.h"
#include "diffusion/cpu/isa.h"

/* VDPBF16PS takes six cycles, and two start in each. */
enum { SUMS = PAIR > 1 ? 16 : 10, ROUNDS = 10 * 1000 * 1000 };

double peak_gflops(bool cells);

double peak_gflops(bool cells) {
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
    const double ns = (double)(clock_mono_ns() - start);
    for (int i = 0; i < SUMS; i++) total += sum[i];
    return total[0] > 1e30f
               ? 0
               : (cells ? PAIR : 1) * 2.0 * SUMS * LANES * ROUNDS / ns; /* never 0: so that the sums are needed */
}
