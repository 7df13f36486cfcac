/* latent.h - a block of latents (or of any planes) in host memory. */
#ifndef MYSTI_DIFFUSION_LATENT_H
#define MYSTI_DIFFUSION_LATENT_H

#include <stddef.h>

/* [n, c, h, w] floats, w fastest. Whoever made it says who owns `data`. */
typedef struct latent {
    int n, c, h, w;
    float *data;
} latent;

static inline size_t latent_size(const latent *l) {
    return (size_t)l->n * (size_t)l->c * (size_t)l->h * (size_t)l->w;
}

#endif
