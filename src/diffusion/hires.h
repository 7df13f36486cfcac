/* hires.h - hires fix: from what the first pass made to what the second one starts from. Private to the engine. */
#ifndef MYSTI_DIFFUSION_HIRES_H
#define MYSTI_DIFFUSION_HIRES_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Borrows everything. */
typedef struct hires {
    diffusion *d;
    const request *first, *second;
    const float *latents; /* [values] of the first pass */

    void *ctx;
    bool (*decode)(void *ctx, image *out, err *e); /* those latents as a picture; for upscalers that work on pixels */
    vae_progress progress;                         /* while the enlarged picture is encoded */
    diffusion_events events;                       /* while a network enlarges it: its progress, and should_cancel */
} hires;

/* out: [values] of the second pass; the caller's. */
bool hires_enlarge(const hires *h, float *out, err *e);

#endif
