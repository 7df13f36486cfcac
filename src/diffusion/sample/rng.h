/* rng.h - the normal noise that other tools make from the same seed.
 *
 * A generator stands for the sequence of calls randn(n) made after seeding. Any call of the sequence can be produced
 * without the earlier ones, so a picture can be resumed at any step with the noise it would have had. */
#ifndef MYSTI_DIFFUSION_SAMPLE_RNG_H
#define MYSTI_DIFFUSION_SAMPLE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum rng_kind {
    RNG_CUDA, /* torch.randn on a CUDA device as A1111 emulates it: Philox 4x32-10, call k = counter word 0 */
    RNG_CPU,  /* torch.randn on the CPU: mt19937 */
} rng_kind;

/* False when there is no such name. */
bool rng_kind_from_name(const char *name, rng_kind *out);
extern const char *const rng_names[]; /* in the order of rng_kind, NULL at the end */

/* The 32-bit Mersenne Twister of Matsumoto and Nishimura. */
typedef struct mt19937 {
    uint32_t word[624];
    int used;
} mt19937;

typedef struct rng {
    rng_kind kind;
    uint64_t seed;
    size_t n;       /* values per call; below 2^32 */
    uint32_t next;  /* RNG_CPU: the call that `mt` stands before */
    mt19937 mt;     /* RNG_CPU */
    bool has_spare; /* RNG_CPU, n < 16: the second value of the last pair is still to be used */
    double spare;
} rng;

void rng_init(rng *r, rng_kind kind, uint64_t seed, size_t n);

/* out: [n], what call number `call` (from 0) of randn(n) gives. Calls in rising order cost nothing extra. */
void rng_normal(rng *r, uint32_t call, float *out);

/* The raw Philox 4x32-10 block of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). */
void rng_philox(uint32_t counter[4], const uint32_t key[2]);

#endif
