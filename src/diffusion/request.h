/* request.h - a caller's parameters, checked and with every name and default resolved. */
#ifndef MYSTI_DIFFUSION_REQUEST_H
#define MYSTI_DIFFUSION_REQUEST_H

#include "diffusion/diffusion.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/text/prompt.h"

/* One pass of sampling over one size; hires fix has a second. */
typedef struct request {
    const diffusion_params *params; /* borrowed */
    const char *prompt, *negative;  /* never NULL; borrowed */
    int width, height;              /* pixels that are sampled */
    int channels, rows, columns;    /* of a latent */
    int tile, tile_overlap;         /* in latents: what the network sees at once, in a side; 0: everything */
    int init_width, init_height;    /* what the initial picture is scaled to, before it is extended; 0 without one */
    const sampler *sampler;
    const schedule *schedule;
    rng_kind rng;
    prompt_emphasis emphasis;
    float eta;                           /* the caller's or the sampler's own */
    int schedule_steps;                  /* sigmas that the schedule is asked for */
    int skipped;                         /* leading ones that image to image leaves out */
    int steps;                           /* to run, per picture */
    int steps_before;                    /* of a first pass */
    int refine_from;                     /* the first step that is the refiner's; `steps`: none is */
    int enlarged_rows, enlarged_columns; /* second pass: what the first one's latents are enlarged to, then cut */
    uint64_t lora_key;                   /* hash of the LoRAs, files and weights; 0: there are none */
    uint64_t control_key;                /* of the ControlNets, likewise, and of their pictures */
    uint64_t ip_adapter_key;             /* of the IP-Adapter and its picture */
    uint64_t words_key;                  /* of the embeddings, names and files; likewise */
} request;

/* Values in a latent. */
static inline size_t request_values(const request *r) {
    return (size_t)r->channels * (size_t)r->rows * (size_t)r->columns;
}

static inline bool request_is_extended(const diffusion_params *p) {
    return p->init && (p->extend.left || p->extend.right || p->extend.top || p->extend.bottom);
}

static inline bool request_has_mask(const diffusion_params *p) {
    return p->init && (p->inpaint.mask || request_is_extended(p));
}

/* What the network sees at once. */
static inline int request_tile_rows(const request *r) {
    return r->tile && r->tile < r->rows ? r->tile : r->rows;
}
static inline int request_tile_columns(const request *r) {
    return r->tile && r->tile < r->columns ? r->tile : r->columns;
}

/* A part of a latent. */
typedef struct region {
    int top, left, rows, columns;
} region;

/* From `count` planes of the request's latents, [rows, columns] each: that part of them. */
void region_cut(const request *r, region t, const float *planes, int count, float *out);

/* There is hires fix. */
static inline bool request_has_second(const diffusion_params *p) {
    return p->hires.width || p->hires.height || p->hires.scale != 0.0f;
}

/* The step after `finished` of them lies whole within this part of the run; a whole number of steps is not missed by
 * rounding. */
static inline bool request_takes_part(float start, float end, int finished, int steps) {
    return (float)finished >= start * (float)steps - 1e-3f && (float)(finished + 1) <= end * (float)steps + 1e-3f;
}

/* Adds a file, as it is now (path, size, time of change), to a key. */
bool request_file_key(const char *path, uint64_t *key, err *e);

/* The errors are those of diffusion_check(). */
bool request_resolve(const diffusion *d, const diffusion_params *p, request *out, err *e);

/* The second pass of a request that has one. */
request request_second(const diffusion *d, const request *first);

/* Hash of all that decides the result, the model's files and the initial picture and the pass included. */
uint64_t request_key(const diffusion *d, const request *r);

#endif
