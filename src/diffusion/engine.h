/* engine.h - what an opened model is made of. Private to the files beside it. */
#ifndef MYSTI_DIFFUSION_ENGINE_H
#define MYSTI_DIFFUSION_ENGINE_H

#include "diffusion/context.h"
#include "diffusion/diffusion.h"
#include "diffusion/family.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/taesd.h"
#include "diffusion/model/unet.h"
#include "diffusion/model/vae.h"
#include "diffusion/sample/guidance.h"
#include "diffusion/text/learned_words.h"

/* Canonical prefixes of the parts, for weights_release() and weights_bytes(). */
#define UNET_WEIGHTS "model.diffusion_model."
#define TEXT_WEIGHTS "cond_stage_model."
#define TEXT2_WEIGHTS "conditioner." /* SDXL's second text encoder, the refiner's only one */
#define VAE_WEIGHTS "first_stage_model."

/* Where weights are on a machine whose accelerator has memory of its own; each place needs less of it than the one
 * before. On the CPU all are in the mapped files (PLACE_DEVICE). */
typedef enum place {
    PLACE_DEVICE, /* all on the device */
    PLACE_UNET,   /* the UNet alone, whose steps are many; text encoders and VAE are streamed */
    PLACE_HOST,   /* none: every operation of the device has its weights brought there (backend_handle()) */
} place;

/* A ControlNet that the last request had. */
typedef struct loaded_controlnet {
    struct controlnet *net; /* NULL: none */
    uint64_t key;           /* hash of the file: path, size, time of change */
} loaded_controlnet;

struct diffusion {
    /* All owned, closed in reverse order. */
    backend *backend;
    weights *weights;
    text_encoders *text;
    unet *unet;
    vae *vae;
    taesd *taesd;         /* NULL: none was given */
    learned_words *words; /* textual inversions of the request before; NULL: it had none */
    loaded_controlnet controlnets[DIFFUSION_CONTROLS_MAX];
    struct ip_adapter *ip_adapter; /* of the last request; NULL: it had none */
    uint64_t ip_adapter_key;       /* hash of its file */

    context_cache contexts;
    sigma_table table;
    prediction predicts;
    size_t memory_limit;
    uint64_t identity;  /* hash of the files: path, size, time of change */
    uint64_t lora_key;  /* request.lora_key of what is merged into the weights; 0: nothing */
    bool is_resident;   /* the weights are where they belong (residency.h): */
    place place;        /* that is there */
    place first_place;  /* experience has shown that those before are too much for the device */
    bool lost_loras;    /* ... without what lora_key says: they came back from the files */
    uint64_t words_key; /* request.words_key of `words`; 0: none */
    diffusion_info info;
    const family *family;
};

/* The device that `options` names, computing in the precision they say. NULL on failure. */
backend *options_backend(const diffusion_options *options, err *e);

static inline bool events_cancelled(const diffusion_events *ev) {
    return ev && ev->should_cancel && ev->should_cancel(ev->ctx);
}

static inline void events_progress(const diffusion_events *ev, const diffusion_progress *p) {
    if (ev && ev->progress) ev->progress(ev->ctx, p);
}

#endif
