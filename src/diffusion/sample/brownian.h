/* brownian.h - the noise of the SDE samplers: increments of one Brownian motion over sigma.
 *
 * The motion is determined by its seed and its range alone, so any increment can be had at any time, in any order: a
 * step that asks twice within the same interval gets parts that fit together, and a resumed run goes on as before.
 * Values are those of torchsde's BrownianTree as k-diffusion uses it: a dyadic tree of Brownian bridges down to 1e-6,
 * whose nodes take their seeds from numpy's SeedSequence. Kidger et al., "Efficient and accurate gradients for neural
 * SDEs" (2021), the Brownian interval. */
#ifndef MYSTI_DIFFUSION_SAMPLE_BROWNIAN_H
#define MYSTI_DIFFUSION_SAMPLE_BROWNIAN_H

#include "diffusion/sample/rng.h"

/* Zero is none. */
typedef struct brownian {
    rng_kind kind; /* of the noise at each node */
    uint64_t seed;
    size_t n;
    double low, high;           /* the range of sigma */
    double *end, *at;           /* [n] each, owned: the motion at the last two sigmas that were asked for, */
    double end_sigma, at_sigma; /* these; < 0: none */
    double *node;               /* [n] owned, holds nothing between calls; so does */
    float *draw;                /* [n] owned */
} brownian;

void brownian_open(brownian *b, rng_kind kind, uint64_t seed, size_t n, float low, float high);
void brownian_close(brownian *b); /* a zeroed one is fine */

/* out: [n] normal values: the motion's increment on the way from one sigma of the range down to another, divided by the
 * root of their distance. from > to. */
void brownian_noise(brownian *b, float from, float to, float *out);

/* numpy.random.SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(1): key: [count], may be empty. */
uint32_t brownian_node_seed(uint64_t entropy, const uint64_t *key, int count);

#endif
