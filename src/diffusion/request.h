/* request.h - a caller's parameters, checked and with every name and default resolved. */
#ifndef MYSTI_DIFFUSION_REQUEST_H
#define MYSTI_DIFFUSION_REQUEST_H

#include "diffusion/diffusion.h"
#include "diffusion/sample/sampler.h"

typedef struct request {
    const diffusion_params *params; /* borrowed */
    const char *prompt, *negative;  /* never NULL; borrowed */
    int width, height;              /* pixels */
    int channels, rows, columns;    /* of a latent */
    const sampler *sampler;
    const schedule *schedule;
    rng_kind rng;
    int skipped; /* leading steps of the schedule that image to image leaves out */
    int steps;   /* to run, per picture */
} request;

/* Values in a latent. */
static inline size_t request_values(const request *r) {
    return (size_t)r->channels * (size_t)r->rows * (size_t)r->columns;
}

/* The errors are those of diffusion_check(). */
bool request_resolve(const diffusion *d, const diffusion_params *p, request *out, err *e);

/* Hash of all that decides the result, the model's files and the initial picture included. */
uint64_t request_key(const diffusion *d, const request *r);

#endif
