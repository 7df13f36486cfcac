/* winograd.h - the transforms of Winograd's way for 3x3 kernels (Lavin & Gray 2016), along one side of a tile, of many
 * tiles or channels at once: for tiles of 2x2 pixels, F(2x2, 3x3), and of 4x4, F(4x4, 3x3). A tile is made from one
 * of two pixels more on each side. */
#ifndef MYSTI_DIFFUSION_CPU_WINOGRAD_H
#define MYSTI_DIFFUSION_CPU_WINOGRAD_H

#include "diffusion/cpu/isa.h"

/* B^T: of the input. */
ALWAYS_INLINE void input_transform2(const vec d[4], vec o[4]) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[1] - d[3];
}
ALWAYS_INLINE void input_transform4(const vec d[6], vec o[6]) {
    const vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    o[0] = 4 * d[0] - 5 * d[2] + d[4];
    o[1] = a + b;
    o[2] = a - b;
    o[3] = c + e;
    o[4] = c - e;
    o[5] = 4 * d[1] - 5 * d[3] + d[5];
}

/* G: of the kernel. */
ALWAYS_INLINE void kernel_transform2(vec g0, vec g1, vec g2, vec o[4]) {
    const vec outer = 0.5f * (g0 + g2), middle = 0.5f * g1;
    o[0] = g0;
    o[1] = outer + middle;
    o[2] = outer - middle;
    o[3] = g2;
}
ALWAYS_INLINE void kernel_transform4(vec g0, vec g1, vec g2, vec o[6]) {
    const vec outer = (g0 + g2) * (1.0f / 6), middle = g1 * (1.0f / 6);
    const vec even = g0 * (1.0f / 24) + g2 * (1.0f / 6), odd = g1 * (1.0f / 12);
    o[0] = g0 * 0.25f;
    o[1] = -outer - middle;
    o[2] = middle - outer;
    o[3] = even + odd;
    o[4] = even - odd;
    o[5] = g2;
}

/* A^T: of the sums. */
ALWAYS_INLINE void output_transform2(const vec m[4], vec y[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
}
ALWAYS_INLINE void output_transform4(const vec m[6], vec y[4]) {
    const vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * d;
    y[2] = a + 4 * c;
    y[3] = b + 8 * d + m[5];
}

#endif
