/* doubled.h - the kernel of a 3x3 convolution over a picture that is doubled first, each pixel four times. Where one of
 * the four pixels of a result lies (its phase) decides which of the nine places fall on the same pixel of the picture,
 * and their weights are added: four kernels of 2x2 are left, 4/9 of the multiplications. */
#ifndef MYSTI_DIFFUSION_CPU_DOUBLED_H
#define MYSTI_DIFFUSION_CPU_DOUBLED_H

enum { DOUBLED_PHASES = 4, DOUBLED_TAPS = 4, KERNEL = 9 };

/* kernel [3][3] -> out [phases][2][2]; phases: upper left, upper right, lower left, lower right. */
static inline void fold_kernel(const float *kernel, float out[DOUBLED_PHASES * DOUBLED_TAPS]) {
    float rows[4][3]; /* the two of the upper phases, then those of the lower ones */
    for (int x = 0; x < 3; x++) {
        const float top = kernel[x], middle = kernel[3 + x], bottom = kernel[6 + x];
        rows[0][x] = top, rows[1][x] = middle + bottom, rows[2][x] = top + middle, rows[3][x] = bottom;
    }
    for (int i = 0; i < 4; i++) {
        const float left = rows[i][0], middle = rows[i][1], right = rows[i][2];
        float *upper_left = out + i / 2 * 2 * DOUBLED_TAPS + i % 2 * 2, *upper_right = upper_left + DOUBLED_TAPS;
        upper_left[0] = left, upper_left[1] = middle + right;
        upper_right[0] = left + middle, upper_right[1] = right;
    }
}

#endif
