/* generate.c - POST /internal/generate: runs the engine and turns its events into lines of the stream. */
#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/image/mask.h"
#include "sd/output.h"
#include "sd/service.h"

#include <stdlib.h>

enum { JSON_LINE_MAX = 1 << 20, PREVIEW_QUALITY = 80, INIT_FILE_MAX = 64 << 20, TEXT_MAX_BYTES = 256 << 10 };

typedef struct run {
    sd_service *sd;
    worker_job *job;
    const generate_request *request;
    diffusion_params params; /* the request's, with the initial picture; of pictures that differ, the present one's */
    int first;               /* which picture of the job the engine's first one is */
    output_target target;
    buf line; /* reused */
    int64_t start_ms, step_ms;
    const char *phase; /* last told */
    int told_pictures; /* image events sent */
} run;

static double seconds_since(int64_t start_ms) {
    return (double)(clock_mono_ms() - start_ms) / 1000.0;
}

/* False when nobody listens any more: the job was cancelled. */
static bool send_line(run *r) {
    bool ok = worker_job_line(r->job, buf_str(&r->line), r->line.len);
    buf_clear(&r->line);
    return ok;
}

/* False when the phase is the one before. */
static bool tell_phase(run *r, const char *phase) {
    if (r->phase == phase) return false;
    r->phase = phase;
    buf_printf(&r->line, "{\"event\":\"phase\",\"phase\":\"%s\"}", phase);
    send_line(r);
    return true;
}

/* ---- pictures --------------------------------------------------------------------------------------------------- */

static bool tell_picture(run *r, int index, const output_file *f, const char *parameters) {
    buf *b = &r->line;
    buf_printf(b, "{\"event\":\"image\",\"index\":%d,\"seed\":%llu,\"file\":", index,
               (unsigned long long)diffusion_seed(&r->request->params, index));
    json_quote(b, f->name);
    json_write_member(b, "thumb", f->thumb[0] ? f->thumb : NULL);
    buf_printf(b, ",\"width\":%d,\"height\":%d,\"bytes\":%zu,\"parameters\":", f->width, f->height, f->bytes);
    json_quote(b, parameters);
    buf_putc(b, '}');
    r->told_pictures = index + 1;
    return send_line(r);
}

/* A resumed batch: pictures that were saved before the crash are told again; the server may have missed them. */
static void tell_earlier(run *r, int upto) {
    for (int i = r->told_pictures; i < upto; i++) {
        output_file f;
        buf text;
        buf_init(&text, TEXT_MAX_BYTES);
        if (output_find(&r->target, i, &f, &text)) tell_picture(r, i, &f, buf_str(&text));
        buf_free(&text);
    }
}

static bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    run *r = ctx;
    diffusion_info info;
    diffusion_describe(r->sd->model.engine, &info);
    output_origin origin = {.params = &r->params,
                            .edits = info.edits,
                            .width = picture->width,
                            .height = picture->height,
                            .seed = seed,
                            .subseed = diffusion_subseed(&r->params, index),
                            .model = r->request->model_name,
                            .refiner = r->request->refiner};
    output_file f;
    buf text;
    tell_phase(r, "saving");
    worker_progress(r->sd->worker, "saving", 0, 0);
    buf_init(&text, TEXT_MAX_BYTES);
    output_parameters(&origin, &text);
    bool ok = output_write(&r->target, r->first + index, picture, buf_str(&text), &f, e);
    if (ok && !tell_picture(r, r->first + index, &f, buf_str(&text))) {
        output_remove(&r->target, &f); /* cancelled meanwhile: no history would list it */
        ok = err_set(e, ERR_CANCELLED, "cancelled");
    }
    buf_free(&text);
    return ok;
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static void on_progress(void *ctx, const diffusion_progress *p) {
    run *r = ctx;
    int64_t now = clock_mono_ms();
    worker_progress(r->sd->worker, diffusion_phase_name(p->phase), p->step, p->steps);
    const int picture = r->first + p->image;
    if (r->told_pictures < picture) tell_earlier(r, picture);
    bool begins = tell_phase(r, diffusion_phase_name(p->phase));
    if (p->phase == DIFFUSION_SAMPLING && !begins) { /* it may begin at a later step, of a checkpoint */
        buf_printf(&r->line,
                   "{\"event\":\"progress\",\"phase\":\"sampling\",\"step\":%d,\"steps\":%d,\"image\":%d,"
                   "\"images\":%d,\"step_ms\":%lld,\"time\":%.3f}",
                   p->step, p->steps, picture, r->target.count, (long long)(now - r->step_ms),
                   seconds_since(r->start_ms));
        send_line(r);
    }
    r->step_ms = now;
}

static void on_preview(void *ctx, const diffusion_progress *p, const image *small) {
    run *r = ctx;
    buf jpeg;
    buf_init(&jpeg, JSON_LINE_MAX / 2);
    if (image_encode(&jpeg, small, IMAGE_JPEG, PREVIEW_QUALITY, NULL, NULL)) {
        buf_printf(&r->line, "{\"event\":\"preview\",\"step\":%d,\"width\":%d,\"height\":%d,\"jpeg\":\"", p->step,
                   small->width, small->height);
        base64_encode(&r->line, jpeg.data, jpeg.len);
        buf_puts(&r->line, "\"}");
        worker_job_latest(r->job, buf_str(&r->line), r->line.len);
        buf_clear(&r->line);
    }
    buf_free(&jpeg);
}

static bool on_poll(void *ctx) {
    run *r = ctx;
    worker_alive(r->sd->worker);
    return worker_job_cancelled(r->job);
}

/* ---- the job ---------------------------------------------------------------------------------------------------- */

static bool read_picture(const char *path, image *out, err *e) {
    buf file;
    buf_init(&file, INIT_FILE_MAX);
    bool ok = file_read(path, &file, e) && image_decode(out, file.data, file.len, IMAGE_ALPHA_KEEP, NULL, e);
    buf_free(&file);
    return ok;
}

/* The model's own size, where none was asked for: the embedded text tells it. A picture that is extended keeps its own.
 */
static void choose_size(const diffusion *d, diffusion_params *p) {
    diffusion_info info;
    diffusion_describe(d, &info);
    if (p->init) return;
    if (!p->width) p->width = info.default_width;
    if (!p->height) p->height = info.default_height;
}

/* The pictures that the parameters point to; owned. */
typedef struct pictures {
    image init, mask;
    image shown[DIFFUSION_CONTROLS_MAX]; /* to ControlNets */
    image prompt;                        /* of the IP-Adapter */
    diffusion_control controls[DIFFUSION_CONTROLS_MAX];
} pictures;

static void pictures_free(pictures *own) {
    image_free(&own->init);
    image_free(&own->mask);
    image_free(&own->prompt);
    for (int i = 0; i < DIFFUSION_CONTROLS_MAX; i++) image_free(&own->shown[i]);
}

/* "alpha" is no mask where everything is opaque. */
static bool read_mask(const char *path, pictures *own, diffusion_params *p, err *e) {
    if (str_eq(path, "alpha")) {
        if (mask_has_transparency(&own->init)) p->inpaint.mask = &own->init;
        return true;
    }
    p->inpaint.mask = &own->mask;
    return read_picture(path, &own->mask, e);
}

static bool read_control_pictures(const generate_request *q, pictures *own, diffusion_params *p, err *e) {
    for (size_t i = 0; i < p->control_count; i++) {
        if (!read_picture(q->control_images[i], &own->shown[i], e)) return err_wrap(e, "controlnet[%zu].image", i);
        own->controls[i] = q->controls[i];
        own->controls[i].picture = &own->shown[i];
    }
    p->controls = own->controls;
    return true;
}

static bool read_pictures(const generate_request *q, pictures *own, diffusion_params *p, err *e) {
    if (q->init_image) {
        if (!read_picture(q->init_image, &own->init, e)) return err_wrap(e, "init_image");
        p->init = &own->init;
    }
    if (q->mask && !read_mask(q->mask, own, p, e)) return err_wrap(e, "mask");
    if (q->ip_adapter_image && !read_picture(q->ip_adapter_image, &own->prompt, e))
        return err_wrap(e, "ip_adapter.image");
    p->ip_adapter.picture = &own->prompt;
    return read_control_pictures(q, own, p, e);
}

/* A refiner that this job does not use is closed: its memory may be needed. */
static bool open_refiner(run *r, err *e) {
    sd_service *sd = r->sd;
    if (!r->request->refiner) {
        sd_kept_free(&sd->refiner);
        return true;
    }
    r->params.refiner.model = sd_kept_get(&sd->refiner, &sd_kept_refiner, r->request->refiner, &sd->model.options, e);
    return r->params.refiner.model || err_wrap(e, "refiner");
}

/* Whether an earlier attempt has finished it: a job's files have names of their own. */
static bool is_made(const run *r, int index) {
    output_file f;
    buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    const bool made = output_find(&r->target, index, &f, &text);
    buf_free(&text);
    return made;
}

static diffusion_params params_of(const run *r, const diffusion_params *all, int i) {
    const picture_request *q = &r->request->pictures[i];
    diffusion_params p = *all;
    p.prompt = q->prompt;
    p.negative = q->negative;
    p.loras = q->loras;
    p.lora_count = q->lora_count;
    p.seed = diffusion_seed(all, i);
    p.sampling.subseed = diffusion_subseed(all, i);
    p.batch = 1;
    return p;
}

/* Pictures that differ in more than their seed are jobs of one picture to the engine. */
static bool generate_each(run *r, diffusion *d, const diffusion_events *events, diffusion_result *result, err *e) {
    const diffusion_params all = r->params;
    for (; r->first < all.batch; r->first++) {
        diffusion_result one;
        if (is_made(r, r->first)) continue;
        r->params = params_of(r, &all, r->first);
        if (!diffusion_generate(d, &r->params, events, &one, e)) return false;
        result->pictures += one.pictures;
        if (one.resumed_step) result->resumed_step = one.resumed_step;
    }
    tell_earlier(r, all.batch);
    return true;
}

/* The server missed the end of an earlier attempt, or could not write it down: there is nothing left to do. */
static bool are_all_made(const run *r) {
    int made = 0;
    while (made < r->target.count && is_made(r, made)) made++;
    return made == r->target.count;
}

static bool generate(run *r, diffusion_result *result, err *e) {
    diffusion *d = r->sd->model.engine;
    if (!d) return err_set(e, ERR_CONFLICT, "no image model is loaded");
    if (are_all_made(r)) {
        tell_earlier(r, r->target.count);
        return true;
    }
    pictures own = {0};
    diffusion_events events = {
        .ctx = r, .progress = on_progress, .preview = on_preview, .picture = on_picture, .should_cancel = on_poll};
    bool ok = read_pictures(r->request, &own, &r->params, e) && open_refiner(r, e);
    choose_size(d, &r->params);
    if (ok && r->request->pictures)
        ok = generate_each(r, d, &events, result, e);
    else
        ok = ok && diffusion_generate(d, &r->params, &events, result, e);
    pictures_free(&own);
    return ok;
}

void sd_run_generate(worker_job *job, void *arg) {
    generate_job *g = arg;
    const generate_request *q = &g->request;
    run r = {.sd = g->sd, .job = job, .request = q, .params = q->params, .start_ms = clock_mono_ms()};
    r.target = (output_target){.dir = q->output_dir,
                               .stem = q->file_stem,
                               .count = q->params.batch,
                               .format = q->format,
                               .quality = q->quality};
    buf_init(&r.line, JSON_LINE_MAX);
    diffusion_result result = {0};
    err e = {0};
    if (generate(&r, &result, &e)) {
        log_info("sd", "job %s: %d pictures in %.1f s", q->job ? q->job : "-", result.pictures,
                 seconds_since(r.start_ms));
        buf_printf(&r.line, "{\"event\":\"done\",\"time\":%.3f,\"resumed_from\":%d}", seconds_since(r.start_ms),
                   result.resumed_step);
        worker_job_done(job, buf_str(&r.line), r.line.len); /* the loop may free the request from here on */
    } else {
        log_write(e.code == ERR_CANCELLED ? LOG_INFO : LOG_ERROR, "sd", "job %s: %s", q->job ? q->job : "-", e.msg);
        worker_job_fail(job, &e);
    }
    buf_free(&r.line);
}
