/* start_noise.h - the noise that a picture starts from, with A1111's variations: mixed with that of another seed, and
 * as it was at another size. */
#ifndef MYSTI_DIFFUSION_SAMPLE_START_NOISE_H
#define MYSTI_DIFFUSION_SAMPLE_START_NOISE_H

#include "diffusion/sample/rng.h"

typedef struct start_noise {
    rng_kind kind;
    uint64_t seed;
    int channels, rows, columns; /* of the latent */

    uint64_t subseed;
    float strength; /* 0: the seed's noise; 1: the subseed's; between them on a great circle */

    /* The latent's size for which the noise is made; its middle is put into the middle of the seed's noise at the real
     * size. 0: the same. */
    int from_rows, from_columns;
} start_noise;

/* out: [channels, rows, columns] */
void start_noise_make(const start_noise *o, float *out);

#endif
