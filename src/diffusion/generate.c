/* generate.c - from parameters to pictures: encode the prompts, sample, decode, one picture after the other.
 *
 * Pictures of a batch are made one by one: each has its own seed and is the same as when made alone, memory does not
 * grow with the batch, and the first one is seen early. Between phases the parts that are done give their memory back:
 * the compute buffer to the allocator, the mapped weights to the system's file cache. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/checkpoint.h"
#include "diffusion/conditioning.h"
#include "diffusion/controls.h"
#include "diffusion/embeddings.h"
#include "diffusion/engine.h"
#include "diffusion/hires.h"
#include "diffusion/image_prompt.h"
#include "diffusion/loras.h"
#include "diffusion/memory.h"
#include "diffusion/predict.h"
#include "diffusion/preview.h"
#include "diffusion/request.h"
#include "diffusion/residency.h"
#include "diffusion/sample/masked.h"
#include "diffusion/sample/start_noise.h"
#include "diffusion/source.h"
#include "diffusion/text/lora_tag.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A preview's longest side, what is spent on the picture for each one, and the tile (in latents) of the tiny
 * autoencoder. */
enum { PREVIEW_SIDE = 512, PREVIEW_SHARE = 4, TAESD_TILE = 64 };

enum { PASSES_MAX = 2 };

/* What is ready before the first step of any picture; hires fix has a second one. */
typedef struct pass {
    request r;
    conditioning positive, negative;                 /* negative is empty when nothing needs it */
    conditioning refiner_positive, refiner_negative; /* as the refiner is told; empty until it takes over */
    source source;
    controls controls;
    checkpoint_scope scope;
} pass;

typedef struct job {
    diffusion *d;
    const diffusion_params *params;
    const diffusion_events *events; /* may be NULL */
    diffusion_progress at;
    pass passes[PASSES_MAX];
    int pass_count;
    image_prompt image_prompt;

    /* Of the pass that is under way. */
    pass *now;
    float *sigmas;   /* [schedule_steps + 1] */
    float *unguided; /* [values] for samplers that need it, or NULL */
    predictor network;
    guidance guide;
    masked keep;
    rng noise;
    sampler_run run;
    sampler_state state;

    int64_t preview_end_ms, preview_cost_ms; /* of the last one by the tiny autoencoder; 0: none yet */

    int64_t checkpoint_ms;  /* when the last one was written */
    bool checkpoint_failed; /* the last one could not be */

    int tries; /* begun again for lack of memory */
} job;

static latent as_latent(const job *j, float *data) {
    const request *r = &j->now->r;
    return (latent){.n = 1, .c = r->channels, .h = r->rows, .w = r->columns, .data = data};
}

static const request *last_request(const job *j) {
    return &j->passes[j->pass_count - 1].r;
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

/* How closely a model that edits keeps to the picture; 1 for all others, which have none to leave out. */
static float image_scale(const job *j) {
    return j->d->info.edits ? j->params->image_cfg_scale : 1.0f;
}

/* As the model d is told; `positive` and `negative` are the pass's. */
static bool encode_prompts(job *j, diffusion *d, const pass *p, const char *text, conditioning *positive,
                           conditioning *negative, err *e) {
    const diffusion_params *params = j->params;
    const int calls = conditioning_calls(p->r.sampler);
    plan_span span = {.calls = (p->r.steps_before ? p->r.steps : params->steps) * calls,
                      .before = p->r.steps_before * calls};
    span.compose = true;
    conditioning_use use = {
        .skip = params->clip_skip, .emphasis = p->r.emphasis, .width = p->r.width, .height = p->r.height};
    if (!conditioning_open(positive, d, text, &span, &use, e)) return err_wrap(e, "prompt");
    const bool always = positive->plan.count > 1 || (p->r.sampler->traits & SAMPLER_UNGUIDED);
    if (!always && !guidance_needs_negative(params->cfg_scale, image_scale(j))) return true;
    span.compose = false;
    use.is_negative = true;
    return conditioning_open(negative, d, p->r.negative, &span, &use, e) || err_wrap(e, "negative_prompt");
}

static bool encode_texts(job *j, err *e) {
    char *text = lora_tags_strip(j->passes[0].r.prompt);
    bool ok = embeddings_apply(j->d, &j->passes[0].r, e);
    context_cache_begin(&j->d->contexts);
    for (int i = 0; ok && i < j->pass_count; i++) {
        pass *p = &j->passes[i];
        ok = encode_prompts(j, j->d, p, text, &p->positive, &p->negative, e);
    }
    free(text);
    return ok;
}

static void release_texts(diffusion *d) {
    weights_release(d->weights, TEXT_WEIGHTS);
    weights_release(d->weights, TEXT2_WEIGHTS);
    backend_trim(d->backend);
}

static void on_encode_tile(void *ctx, int done, int tiles) {
    tell(ctx, DIFFUSION_ENCODING, done, tiles);
}

static bool encode(job *j, err *e) {
    tell(j, DIFFUSION_ENCODING, 0, 0);
    bool ok = encode_texts(j, e) && check_cancel(j, e) && image_prompt_open(&j->image_prompt, j->d, j->params, e);
    for (int i = 0; ok && i < j->pass_count; i++) {
        pass *p = &j->passes[i];
        ok = source_open(&p->source, j->d, &p->r, on_encode_tile, j, e) &&
             controls_open(&p->controls, j->d, &p->r, &p->source.canvas, e);
    }
    release_texts(j->d);
    return ok && check_cancel(j, e);
}

/* ---- two models -------------------------------------------------------------------------------------------------- */

/* The first one, as it was when the work began. */
static bool bring_first(job *j, err *e) {
    diffusion *d = j->d;
    size_t added;
    return memory_for_networks(d, &j->passes[0].r, &added, e) &&
           residency_bring(d, j->params->refiner.model, last_request(j), added, j->events, e) &&
           loras_apply(d, &j->passes[0].r, j->events, e);
}

static bool encode_for_refiner(job *j, err *e) {
    pass *p = j->now;
    diffusion *f = j->params->refiner.model;
    if (p->refiner_positive.conditions) return true;
    char *text = lora_tags_strip(p->r.prompt);
    tell(j, DIFFUSION_ENCODING, 0, 0);
    const bool known = embeddings_apply(f, &p->r, e);
    context_cache_begin(&f->contexts);
    const bool ok = known && encode_prompts(j, f, p, text, &p->refiner_positive, &p->refiner_negative, e);
    release_texts(f);
    free(text);
    return ok;
}

/* From the first model to the refiner: of the run only the network and what it is told change. */
static bool take_over(job *j, err *e) {
    diffusion *f = j->params->refiner.model;
    pass *p = j->now;
    backend_trim(j->d->backend);
    weights_release(j->d->weights, UNET_WEIGHTS);
    controls_release(j->d);
    if (!residency_bring(f, j->d, &p->r, 0, j->events, e) || !encode_for_refiner(j, e)) return err_wrap(e, "refiner");
    predictor_close(&j->network);
    j->network = (predictor){.d = f,
                             .r = &p->r,
                             .positive = &p->refiner_positive,
                             .negative = &p->refiner_negative,
                             .sigmas = j->sigmas,
                             .calls_per_step = conditioning_calls(p->r.sampler)};
    predictor_open(&j->network);
    j->guide.table = &f->table;
    j->guide.predicts = f->predicts;
    return true;
}

/* The model that makes the next step is there and in use. */
static bool choose_model(job *j, err *e) {
    diffusion *f = j->params->refiner.model;
    if (j->network.d == f || !f) return true;
    if (j->state.step < j->now->r.refine_from) return bring_first(j, e);
    return take_over(j, e);
}

/* ---- sampling --------------------------------------------------------------------------------------------------- */

static bool predict(void *ctx, const float *x, float timestep, const guidance_answers *out, err *e) {
    job *j = ctx;
    return check_cancel(j, e) && predictor_predict(&j->network, x, timestep, out, e);
}

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

/* The real picture, reduced. Costs a pass of the tiny autoencoder, so it is left out until four times as long has been
 * spent on the picture itself. False, with an empty image, when there is none to show now. */
static bool render_tiny(job *j, const latent *z, image *small) {
    const int64_t begin = clock_mono_ms();
    *small = (image){0};
    if (j->preview_end_ms && begin - j->preview_end_ms < PREVIEW_SHARE * j->preview_cost_ms) return false;
    image whole = {0};
    const request *r = &j->now->r;
    const int longest = r->width > r->height ? r->width : r->height;
    float *planes = mem_alloc(3 * (size_t)r->width * (size_t)r->height, sizeof(float));
    bool ok = taesd_decode(j->d->taesd, z, planes, TAESD_TILE, NULL, NULL, NULL) &&
              to_image(planes, r->width, r->height, &whole, NULL);
    free(planes);
    if (ok && longest > PREVIEW_SIDE) {
        const int w = r->width * PREVIEW_SIDE / longest, h = r->height * PREVIEW_SIDE / longest;
        ok = image_resize(small, &whole, w > 0 ? w : 1, h > 0 ? h : 1);
    } else if (ok) {
        *small = whole;
        whole = (image){0};
    }
    image_free(&whole);
    j->preview_end_ms = clock_mono_ms();
    j->preview_cost_ms = j->preview_end_ms - begin;
    return ok;
}

static void show_preview(job *j, const sampler_state *s) {
    int every = j->params->preview_every;
    if (!j->events || !j->events->preview || every <= 0 || s->step % every != 0) return;
    image small;
    latent z = as_latent(j, s->denoised);
    if (j->d->taesd ? render_tiny(j, &z, &small) : preview_render(&z, &small))
        j->events->preview(j->events->ctx, &j->at, &small);
    image_free(&small);
}

/* A checkpoint that cannot be written is no reason to stop the picture: the one before stays, and the next step that is
 * due tries again, for there may be room on the disk by then. */
static void write_checkpoint(job *j, const sampler_state *s) {
    const char *path = j->params->checkpoint;
    err e;
    if (!path) return;
    bool ok = checkpoint_save(path, &j->now->scope, j->at.image, s, &e);
    if (!ok && !j->checkpoint_failed) log_warn("diffusion", "no checkpoint for now: %s", e.msg);
    j->checkpoint_failed = !ok;
    j->checkpoint_ms = clock_mono_ms();
}

/* Steps of both passes are counted on. */
static void tell_step(job *j) {
    const request *last = last_request(j);
    tell(j, DIFFUSION_SAMPLING, j->now->r.steps_before + j->state.step, last->steps_before + last->steps);
}

static bool on_step(void *ctx, const sampler_state *s, err *e) {
    job *j = ctx;
    tell_step(j);
    show_preview(j, s);
    const bool changes = s->step == j->now->r.refine_from && s->step < j->now->r.steps; /* that may take long */
    const bool due = clock_mono_ms() - j->checkpoint_ms >= j->params->checkpoint_ms;
    if (changes || (due && predictor_starts_anew(&j->network, s->step))) write_checkpoint(j, s);
    if (changes && !choose_model(j, e)) return false;
    predictor_step(&j->network, s->step);
    return check_cancel(j, e);
}

/* Noise at the first sigma, on top of the initial picture when there is one. */
static void start_state(job *j) {
    sampler_state *s = &j->state;
    const float *start = j->now->source.start;
    const request *r = &j->now->r;
    const diffusion_sampling *p = &j->params->sampling;
    const int factor = r->height / r->rows;
    const start_noise from = {.kind = r->rng,
                              .seed = diffusion_seed(j->params, j->at.image),
                              .channels = r->channels,
                              .rows = r->rows,
                              .columns = r->columns,
                              .subseed = diffusion_subseed(j->params, j->at.image),
                              .strength = p->subseed_strength,
                              .from_rows = p->seed_from_height / factor,
                              .from_columns = p->seed_from_width / factor};
    s->step = 0;
    s->call = p->noise_seed_delta ? 0 : 1;
    start_noise_make(&from, s->x);
    for (size_t i = 0; i < s->n; i++) s->x[i] = s->x[i] * j->run.sigmas[0] + (start ? start[i] : 0.0f);
}

/* Outside of the mask the denoised latent is known: the initial picture's. */
static void keep_unmasked(job *j) {
    const source *s = &j->now->source;
    const size_t plane = (size_t)j->now->r.rows * (size_t)j->now->r.columns;
    if (!s->mask) return;
    j->keep = (masked){.start = s->start,
                       .mask = s->mask,
                       .plane = plane,
                       .planes = (size_t)j->now->r.channels,
                       .denoise = guidance_denoise,
                       .ctx = &j->guide};
    j->run.denoise = masked_denoise;
    j->run.ctx = &j->keep;
}

static bool sample(job *j, err *e) {
    const uint64_t seed = diffusion_seed(j->params, j->at.image);
    const uint64_t delta = (uint64_t)j->params->sampling.noise_seed_delta;
    rng_init(&j->noise, j->now->r.rng, seed, j->state.n);
    j->run.tree_seed = seed;
    source_begin(&j->now->source, &j->now->r, &j->noise);
    if (delta) rng_init(&j->noise, j->now->r.rng, seed + delta, j->state.n);
    keep_unmasked(j);
    if (j->state.step == 0) start_state(j);
    if (j->state.step < j->run.steps && !choose_model(j, e)) return false;
    predictor_step(&j->network, j->state.step);
    if (j->at.phase != DIFFUSION_SAMPLING) tell_step(j); /* a second pass may go on without a break */
    if (!sampler_sample(j->now->r.sampler, &j->run, &j->state, e)) return false;
    if (j->now->source.mask) masked_mix(&j->keep, j->state.x);
    return true;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static void on_decode_tile(void *ctx, int done, int tiles) {
    tell(ctx, DIFFUSION_DECODING, done, tiles);
}

static bool decode(void *ctx, image *out, err *e) {
    job *j = ctx;
    diffusion *d = j->d;
    const request *r = &j->now->r;
    diffusion *last = j->network.d;
    backend_trim(last->backend);
    weights_release(last->weights, UNET_WEIGHTS);
    controls_release(d);
    if (!bring_first(j, e)) return false;
    vae_tile_limit(d->vae, memory_choose_tile(d, r));
    tell(j, DIFFUSION_DECODING, 0, 0);
    float *planes = mem_alloc(3 * (size_t)r->width * (size_t)r->height, sizeof(float));
    latent z = as_latent(j, j->state.x);
    bool ok = (j->params->tiny_vae ? taesd_decode(d->taesd, &z, planes, TAESD_TILE, on_decode_tile, j, e)
                                   : vae_decode(d->vae, &z, planes, on_decode_tile, j, e)) &&
              to_image(planes, r->width, r->height, out, e);
    free(planes);
    backend_trim(d->backend);
    return ok;
}

/* ---- passes ----------------------------------------------------------------------------------------------------- */

static void pass_end(job *j) {
    free(j->sigmas);
    j->sigmas = NULL;
    free(j->unguided);
    j->unguided = NULL;
    free(j->guide.scratch);
    j->guide = (guidance){0};
    predictor_close(&j->network);
    sampler_state_free(&j->state);
    j->now = NULL;
}

static void pass_begin(job *j, int index) {
    pass *p = &j->passes[index];
    const diffusion_sampling *s = &j->params->sampling;
    const size_t n = request_values(&p->r);
    j->now = p;
    j->sigmas = mem_alloc((size_t)p->r.schedule_steps + 1, sizeof(float));
    sampler_sigmas(p->r.sampler, p->r.schedule, &j->d->table, p->r.schedule_steps, j->sigmas);
    if (p->r.sampler->traits & SAMPLER_UNGUIDED) j->unguided = mem_alloc(n, sizeof(float));
    j->network = (predictor){.d = j->d,
                             .r = &p->r,
                             .positive = &p->positive,
                             .negative = &p->negative,
                             .appended = p->source.appended,
                             .sigmas = j->sigmas,
                             .controls = j->params->control_count ? &p->controls : NULL,
                             .image_prompt = &j->image_prompt,
                             .calls_per_step = conditioning_calls(p->r.sampler)};
    predictor_open(&j->network);
    j->guide = (guidance){.table = &j->d->table,
                          .predicts = j->d->predicts,
                          .scale = j->params->cfg_scale,
                          .image_scale = image_scale(j),
                          .rescale = s->guidance_rescale,
                          .threshold = s->threshold,
                          .limit = s->threshold_limit,
                          .n = n,
                          .scratch = mem_alloc(4 * n, sizeof(float)),
                          .unguided = j->unguided,
                          .ctx = j,
                          .predict = predict};
    j->run = (sampler_run){.sigmas = j->sigmas + p->r.skipped,
                           .steps = p->r.steps,
                           .table = &j->d->table,
                           .eta = p->r.eta,
                           .s_noise = s->s_noise,
                           .churn = s->s_churn,
                           .churn_min = s->s_tmin,
                           .churn_max = s->s_tmax,
                           .unguided = j->unguided,
                           .noise = &j->noise,
                           .ctx = &j->guide,
                           .denoise = guidance_denoise,
                           .step_ctx = j,
                           .step_done = on_step};
    guidance_interval(&j->guide, j->run.sigmas, j->run.steps, s->guidance_start, s->guidance_end);
    sampler_state_init(&j->state, n, p->r.sampler->keeps);
}

static void on_upscale(void *ctx, const diffusion_progress *p) {
    tell(ctx, DIFFUSION_UPSCALING, p->step, p->steps);
}

/* From the first pass to the second, which starts from what the first one made, enlarged. */
static bool go_on_larger(job *j, err *e) {
    pass *next = &j->passes[1];
    float *start = mem_alloc(request_values(&next->r), sizeof(float));
    const hires h = {.d = j->d,
                     .first = &j->now->r,
                     .second = &next->r,
                     .latents = j->state.x,
                     .ctx = j,
                     .decode = decode,
                     .progress = on_encode_tile,
                     .events = {.ctx = j, .progress = on_upscale, .should_cancel = backend_cancel}};
    if (j->params->hires.network) write_checkpoint(j, &j->state); /* enlarging may take as long as the pass did */
    const bool ok = hires_enlarge(&h, start, e);
    pass_end(j);
    pass_begin(j, 1);
    free(next->source.start);
    next->source.start = start;
    return ok;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static bool job_open(job *j, diffusion *d, const diffusion_params *p, err *e) {
    j->d = d;
    j->params = p;
    j->at.images = p->batch;
    j->pass_count = request_has_second(p) ? 2 : 1;
    if (!request_resolve(d, p, &j->passes[0].r, e)) return false;
    if (j->pass_count > 1) j->passes[1].r = request_second(d, &j->passes[0].r);
    diffusion *f = p->refiner.model;
    size_t added;
    if (!memory_for_networks(d, &j->passes[0].r, &added, e)) return false;
    residency_plan(d, f, last_request(j), added);
    if (!memory_check_request(d, f, last_request(j), e) || (f && !memory_check_request(f, d, last_request(j), e)))
        return false;
    for (int i = 0; i < j->pass_count; i++) {
        const request *r = &j->passes[i].r;
        j->passes[i].scope = (checkpoint_scope){.key = request_key(d, r), .pictures = p->batch, .steps = r->steps};
    }
    j->checkpoint_ms = clock_mono_ms();
    return true;
}

static void job_close(job *j) {
    pass_end(j);
    image_prompt_close(&j->image_prompt);
    for (int i = 0; i < j->pass_count; i++) {
        conditioning_close(&j->passes[i].positive);
        conditioning_close(&j->passes[i].negative);
        conditioning_close(&j->passes[i].refiner_positive);
        conditioning_close(&j->passes[i].refiner_negative);
        source_close(&j->passes[i].source);
        controls_close(&j->passes[i].controls);
    }
}

static bool deliver(job *j, const image *picture, err *e) {
    if (!j->events || !j->events->picture) return true;
    return j->events->picture(j->events->ctx, j->at.image, diffusion_seed(j->params, j->at.image), picture, e);
}

static bool make_picture(job *j, err *e) {
    image picture = {0};
    bool ok = sample(j, e) && check_cancel(j, e);
    if (ok && j->now != &j->passes[j->pass_count - 1])
        ok = go_on_larger(j, e) && check_cancel(j, e) && sample(j, e) && check_cancel(j, e);
    ok = ok && decode(j, &picture, e) && canvas_finish(&j->now->source.canvas, &picture, e) && check_cancel(j, e) &&
         deliver(j, &picture, e);
    image_free(&picture);
    return ok;
}

/* Goes on from the checkpoint, where there is one that fits: in the pass that it belongs to. */
static void take_up(job *j, diffusion_result *result) {
    const char *path = j->params->checkpoint;
    for (int i = j->pass_count - 1; i >= 0; i--) {
        err why = {0};
        pass_begin(j, i);
        if (path && checkpoint_load(path, &j->now->scope, &j->at.image, &j->state, &why)) {
            result->resumed_picture = j->at.image;
            result->resumed_step = j->now->r.steps_before + j->state.step;
            log_info("diffusion", "going on from a checkpoint: picture %d, step %d of %d", j->at.image + 1,
                     result->resumed_step, last_request(j)->steps_before + last_request(j)->steps);
            return;
        }
        if (i > 0)
            pass_end(j);
        else if (path && why.code != ERR_NOT_FOUND)
            log_warn("diffusion", "checkpoint '%s' is ignored, and the work begun anew: %s", path, why.msg);
    }
}

static bool make_pictures(job *j, diffusion_result *result, err *e) {
    const diffusion_params *p = j->params;
    take_up(j, result);
    while (j->at.image < p->batch) {
        if (!make_picture(j, e)) return false;
        result->pictures++;
        j->at.image++;
        pass_end(j); /* the next one starts from its own noise */
        pass_begin(j, 0);
        if (j->at.image < p->batch) write_checkpoint(j, &j->state);
    }
    if (p->checkpoint) checkpoint_remove(p->checkpoint);
    return true;
}

/* Both models' computations can be cancelled from now on; NULL: no more, and their scratch memory goes. */
static void watch(job *j, bool (*should_cancel)(void *ctx)) {
    diffusion *const both[] = {j->d, j->params->refiner.model};
    for (int i = 0; i < 2 && both[i]; i++) {
        backend_set_cancel(both[i]->backend, should_cancel, should_cancel ? j : NULL);
        if (!should_cancel) backend_trim(both[i]->backend);
    }
}

static bool work(job *j, diffusion_result *result, err *e) {
    diffusion *d = j->d;
    return bring_first(j, e) && controls_load(d, last_request(j), e) && image_prompt_load(d, j->params, e) &&
           encode(j, e) && make_pictures(j, result, e);
}

/* With less on the device of the model that ran out of memory: from the picture, or its checkpoint. */
static bool begin_again(job *j, const err *why) {
    enum { TRIES = 4 }; /* more than there are rungs */
    diffusion *d = j->d, *f = j->params->refiner.model;
    const bool was_refiner = f && j->network.d == f;
    if (j->tries++ == TRIES || !residency_step_down(was_refiner ? f : d, was_refiner ? d : f, why)) return false;
    job_close(j);
    controls_unload(d);
    image_prompt_unload(d);
    j->network.d = NULL;
    j->at.phase = DIFFUSION_LOADING;
    return true;
}

bool diffusion_generate(diffusion *d, const diffusion_params *p, const diffusion_events *events,
                        diffusion_result *result, err *e) {
    diffusion_result unused;
    if (!result) result = &unused;
    *result = (diffusion_result){0};
    job j = {.events = events};
    if (!job_open(&j, d, p, e)) return false;
    watch(&j, backend_cancel);
    err why = {0};
    bool ok = work(&j, result, &why);
    while (!ok && why.code == ERR_MEMORY && begin_again(&j, &why)) ok = work(&j, result, &why);
    if (why.code == ERR_CANCELLED) err_set(&why, ERR_CANCELLED, "cancelled"); /* wherever it was noticed */
    if (!ok && e) *e = why;
    job_close(&j);
    watch(&j, NULL);
    return ok;
}
