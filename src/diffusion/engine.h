/* engine.h - what an opened model is made of. Private to the files beside it. */
#ifndef MYSTI_DIFFUSION_ENGINE_H
#define MYSTI_DIFFUSION_ENGINE_H

#include "diffusion/context.h"
#include "diffusion/diffusion.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/unet.h"
#include "diffusion/model/vae.h"
#include "diffusion/sample/guidance.h"
#include "diffusion/text/clip.h"

/* Canonical prefixes of the parts, for weights_release() and weights_bytes(). */
#define UNET_WEIGHTS "model.diffusion_model."
#define TEXT_WEIGHTS "cond_stage_model."
#define VAE_WEIGHTS "first_stage_model."

struct diffusion {
    /* All owned, closed in reverse order. */
    backend *backend;
    weights *weights;
    clip *clip;
    unet *unet;
    vae *vae;

    context_cache contexts;
    sigma_table table;
    prediction predicts;
    size_t memory_limit;
    uint64_t identity; /* hash of the files: path, size, time of change */
    diffusion_info info;
    char family[32];
};

static inline bool events_cancelled(const diffusion_events *ev) {
    return ev && ev->should_cancel && ev->should_cancel(ev->ctx);
}

static inline void events_progress(const diffusion_events *ev, const diffusion_progress *p) {
    if (ev && ev->progress) ev->progress(ev->ctx, p);
}

#endif
