/* generate.c - from parameters to pictures: encode the prompts, sample, decode, one picture after the other.
 *
 * Pictures of a batch are made one by one: each has its own seed and is the same as when made alone, memory does not
 * grow with the batch, and the first one is seen early. Between phases the parts that are done give their memory back:
 * the compute buffer to the allocator, the mapped weights to the system's file cache. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/checkpoint.h"
#include "diffusion/engine.h"
#include "diffusion/memory.h"
#include "diffusion/preview.h"
#include "diffusion/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    diffusion *d;
    request r;
    const diffusion_events *events; /* may be NULL */
    diffusion_progress at;

    const context *positive, *negative; /* borrowed from d->contexts; negative NULL when guidance is off */
    float *start;                       /* [c, h, w] the initial picture's latents, or NULL */
    float *sigmas;                      /* [all steps + 1] */
    float *pair;                        /* [4 n] both prompts' inputs and outputs, for backends that batch them */

    guidance guide;
    rng noise;
    sampler_run run;
    sampler_state state;

    checkpoint_scope scope;
    int64_t checkpoint_ms;  /* when the last one was written */
    bool checkpoint_failed; /* the last one could not be */
} job;

static latent as_latent(const job *j, float *data) {
    return (latent){.n = 1, .c = j->r.channels, .h = j->r.rows, .w = j->r.columns, .data = data};
}

static void tell(job *j, diffusion_phase phase, int step, int steps) {
    j->at.phase = phase;
    j->at.step = step;
    j->at.steps = steps;
    events_progress(j->events, &j->at);
}

static bool check_cancel(const job *j, err *e) {
    return !events_cancelled(j->events) || err_set(e, ERR_CANCELLED, "cancelled");
}

static bool backend_cancel(void *ctx) {
    const job *j = ctx;
    return events_cancelled(j->events);
}

/* ---- encoding --------------------------------------------------------------------------------------------------- */

static bool encode_prompts(job *j, err *e) {
    int skip = j->r.params->clip_skip;
    j->positive = context_get(&j->d->contexts, j->d->clip, j->r.prompt, skip, e);
    if (!j->positive) return err_wrap(e, "prompt");
    if (j->r.params->cfg_scale == 1.0f) return true;
    j->negative = context_get(&j->d->contexts, j->d->clip, j->r.negative, skip, e);
    return j->negative || err_wrap(e, "negative_prompt");
}

/* RGB bytes -> planes in -1..1. */
static float *to_planes(const image *img) {
    size_t n = (size_t)img->width * (size_t)img->height;
    float *planes = mem_alloc(3 * n, sizeof(float));
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < 3; c++) planes[c * n + i] = (float)img->px[3 * i + c] / 127.5f - 1.0f;
    }
    return planes;
}

static bool fit_picture(const job *j, image *out, err *e) {
    image rgb = {0};
    bool ok = image_convert(&rgb, j->r.params->init, 3, 255) && image_crop_to_fit(out, &rgb, j->r.width, j->r.height);
    image_free(&rgb);
    return ok || err_set(e, ERR_INVALID, "init_image: cannot be scaled to %dx%d", j->r.width, j->r.height);
}

static void on_encode_tile(void *ctx, int done, int tiles) {
    tell(ctx, DIFFUSION_ENCODING, done, tiles);
}

static bool encode_picture(job *j, err *e) {
    if (!j->r.params->init) return true;
    image fitted = {0};
    if (!fit_picture(j, &fitted, e)) return false;
    float *planes = to_planes(&fitted);
    image_free(&fitted);
    j->start = mem_alloc(request_values(&j->r), sizeof(float));
    latent z = as_latent(j, j->start);
    vae_tile_limit(j->d->vae, memory_choose_tile(j->d, &j->r));
    bool ok = vae_encode(j->d->vae, planes, j->r.width, j->r.height, NULL, &z, on_encode_tile, j, e);
    free(planes);
    return ok || err_wrap(e, "init_image");
}

static bool encode(job *j, err *e) {
    tell(j, DIFFUSION_ENCODING, 0, 0);
    bool ok = encode_prompts(j, e) && check_cancel(j, e) && encode_picture(j, e);
    weights_release(j->d->weights, TEXT_WEIGHTS);
    backend_trim(j->d->backend);
    return ok && check_cancel(j, e);
}

/* ---- sampling --------------------------------------------------------------------------------------------------- */

static bool predict_one(const job *j, const float *x, float timestep, const context *c, float *out, err *e) {
    unet_input in = {.x = x,
                     .n = 1,
                     .h = j->r.rows,
                     .w = j->r.columns,
                     .timesteps = &timestep,
                     .context = c->data,
                     .tokens = c->tokens};
    return unet_eval(j->d->unet, &in, out, e);
}

/* Both prompts in one pass: an accelerator is as quick with two as with one. */
static bool predict_pair(job *j, const float *x, float timestep, float *positive, float *negative, err *e) {
    size_t n = request_values(&j->r);
    size_t text = (size_t)j->positive->tokens * (size_t)clip_dim(j->d->clip);
    float *xs = j->pair, *outs = j->pair + 2 * n;
    float *contexts = mem_alloc(2 * text, sizeof(float));
    memcpy(xs, x, n * sizeof(float));
    memcpy(xs + n, x, n * sizeof(float));
    memcpy(contexts, j->positive->data, text * sizeof(float));
    memcpy(contexts + text, j->negative->data, text * sizeof(float));
    const float timesteps[2] = {timestep, timestep};
    unet_input in = {.x = xs,
                     .n = 2,
                     .h = j->r.rows,
                     .w = j->r.columns,
                     .timesteps = timesteps,
                     .context = contexts,
                     .tokens = j->positive->tokens};
    bool ok = unet_eval(j->d->unet, &in, outs, e);
    free(contexts);
    memcpy(positive, outs, n * sizeof(float));
    memcpy(negative, outs + n, n * sizeof(float));
    return ok;
}

static bool predict(void *ctx, const float *x, float timestep, float *positive, float *negative, err *e) {
    job *j = ctx;
    if (!check_cancel(j, e)) return false;
    if (negative && j->pair && j->positive->tokens == j->negative->tokens) {
        return predict_pair(j, x, timestep, positive, negative, e);
    }
    return predict_one(j, x, timestep, j->positive, positive, e) &&
           (!negative || predict_one(j, x, timestep, j->negative, negative, e));
}

static void show_preview(job *j, const sampler_state *s) {
    int every = j->r.params->preview_every;
    if (!j->events || !j->events->preview || every <= 0 || s->step % every != 0) return;
    image small;
    latent z = as_latent(j, s->denoised);
    if (preview_render(&z, &small)) j->events->preview(j->events->ctx, &j->at, &small);
    image_free(&small);
}

/* A checkpoint that cannot be written is no reason to stop the picture: the one before stays, and the next step that is
 * due tries again, for there may be room on the disk by then. */
static void write_checkpoint(job *j, const sampler_state *s) {
    const char *path = j->r.params->checkpoint;
    err e;
    if (!path) return;
    bool ok = checkpoint_save(path, &j->scope, j->at.image, s, &e);
    if (!ok && !j->checkpoint_failed) log_warn("diffusion", "no checkpoint for now: %s", e.msg);
    j->checkpoint_failed = !ok;
    j->checkpoint_ms = clock_mono_ms();
}

static bool on_step(void *ctx, const sampler_state *s, err *e) {
    job *j = ctx;
    tell(j, DIFFUSION_SAMPLING, s->step, j->run.steps);
    show_preview(j, s);
    if (clock_mono_ms() - j->checkpoint_ms >= j->r.params->checkpoint_ms) write_checkpoint(j, s);
    return check_cancel(j, e);
}

/* Noise at the first sigma, on top of the initial picture when there is one. */
static void start_state(job *j) {
    sampler_state *s = &j->state;
    s->step = 0;
    s->call = 1;
    rng_normal(&j->noise, 0, s->x);
    for (size_t i = 0; i < s->n; i++) s->x[i] = s->x[i] * j->run.sigmas[0] + (j->start ? j->start[i] : 0.0f);
}

static bool sample(job *j, err *e) {
    rng_init(&j->noise, j->r.rng, j->r.params->seed + (uint64_t)j->at.image, j->state.n);
    if (j->state.step == 0) start_state(j);
    tell(j, DIFFUSION_SAMPLING, j->state.step, j->run.steps);
    return sampler_sample(j->r.sampler, &j->run, &j->state, e);
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static bool to_image(const float *planes, int width, int height, image *out, err *e) {
    if (!image_alloc(out, width, height, 3)) return err_set(e, ERR_TOO_LARGE, "a picture of %dx%d", width, height);
    size_t n = (size_t)width * (size_t)height;
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < 3; c++) {
            float v = (planes[c * n + i] + 1.0f) * 127.5f;
            out->px[3 * i + c] = (unsigned char)lrintf(fminf(fmaxf(v, 0.0f), 255.0f));
        }
    }
    return true;
}

static void on_decode_tile(void *ctx, int done, int tiles) {
    tell(ctx, DIFFUSION_DECODING, done, tiles);
}

static bool decode(job *j, image *out, err *e) {
    diffusion *d = j->d;
    backend_trim(d->backend);
    weights_release(d->weights, UNET_WEIGHTS);
    vae_tile_limit(d->vae, memory_choose_tile(d, &j->r));
    tell(j, DIFFUSION_DECODING, 0, 0);
    float *planes = mem_alloc(3 * (size_t)j->r.width * (size_t)j->r.height, sizeof(float));
    latent z = as_latent(j, j->state.x);
    bool ok = vae_decode(d->vae, &z, planes, on_decode_tile, j, e) && to_image(planes, j->r.width, j->r.height, out, e);
    free(planes);
    backend_trim(d->backend);
    return ok;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static void job_open(job *j) {
    const diffusion_params *p = j->r.params;
    size_t n = request_values(&j->r);
    j->at.images = p->batch;
    j->sigmas = mem_alloc((size_t)p->steps + 1, sizeof(float));
    schedule_sigmas(j->r.schedule, &j->d->table, p->steps, j->sigmas);
    if (!backend_is_cpu(j->d->backend)) j->pair = mem_alloc(4 * n, sizeof(float));
    j->guide = (guidance){.table = &j->d->table,
                          .predicts = j->d->predicts,
                          .scale = p->cfg_scale,
                          .n = n,
                          .scratch = mem_alloc(3 * n, sizeof(float)),
                          .ctx = j,
                          .predict = predict};
    j->run = (sampler_run){.sigmas = j->sigmas + j->r.skipped,
                           .steps = j->r.steps,
                           .eta = p->eta,
                           .noise = &j->noise,
                           .ctx = &j->guide,
                           .denoise = guidance_denoise,
                           .step_ctx = j,
                           .step_done = on_step};
    sampler_state_init(&j->state, n);
    j->scope = (checkpoint_scope){.key = request_key(j->d, &j->r), .pictures = p->batch, .steps = j->r.steps};
    j->checkpoint_ms = clock_mono_ms();
}

static void job_close(job *j) {
    free(j->start);
    free(j->sigmas);
    free(j->pair);
    free(j->guide.scratch);
    sampler_state_free(&j->state);
}

static bool deliver(job *j, const image *picture, err *e) {
    if (!j->events || !j->events->picture) return true;
    return j->events->picture(j->events->ctx, j->at.image, j->r.params->seed + (uint64_t)j->at.image, picture, e);
}

static bool make_picture(job *j, err *e) {
    image picture = {0};
    bool ok =
        sample(j, e) && check_cancel(j, e) && decode(j, &picture, e) && check_cancel(j, e) && deliver(j, &picture, e);
    image_free(&picture);
    return ok;
}

static bool make_pictures(job *j, diffusion_result *result, err *e) {
    const diffusion_params *p = j->r.params;
    if (p->checkpoint && checkpoint_load(p->checkpoint, &j->scope, &j->at.image, &j->state)) {
        result->resumed_picture = j->at.image;
        result->resumed_step = j->state.step;
    }
    while (j->at.image < p->batch) {
        if (!make_picture(j, e)) return false;
        result->pictures++;
        j->at.image++;
        j->state.step = 0; /* the next one starts from its own noise */
        j->state.call = 1;
        if (j->at.image < p->batch) write_checkpoint(j, &j->state);
    }
    if (p->checkpoint) checkpoint_remove(p->checkpoint);
    return true;
}

bool diffusion_generate(diffusion *d, const diffusion_params *p, const diffusion_events *events,
                        diffusion_result *result, err *e) {
    diffusion_result unused;
    if (!result) result = &unused;
    *result = (diffusion_result){0};
    job j = {.d = d, .events = events};
    if (!request_resolve(d, p, &j.r, e) || !memory_check_request(d, &j.r, e)) return false;
    backend_set_cancel(d->backend, backend_cancel, &j);
    job_open(&j);
    err why = {0};
    bool ok = encode(&j, &why) && make_pictures(&j, result, &why);
    if (why.code == ERR_CANCELLED) err_set(&why, ERR_CANCELLED, "cancelled"); /* wherever it was noticed */
    if (!ok && e) *e = why;
    job_close(&j);
    backend_set_cancel(d->backend, NULL, NULL);
    backend_trim(d->backend);
    return ok;
}
