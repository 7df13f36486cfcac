/* generate.c - POST /internal/generate: runs the engine and turns its events into lines of the stream. */
#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "diffusion/image/metadata.h"
#include "sd/output.h"
#include "sd/service.h"

#include <stdlib.h>

enum { JSON_LINE_MAX = 1 << 20, PREVIEW_QUALITY = 80, INIT_FILE_MAX = 64 << 20 };

typedef struct run {
    sd_service *sd;
    worker_job *job;
    const generate_request *request;
    diffusion_params params; /* the request's, with the initial picture */
    output_target target;
    buf line; /* reused */
    int64_t start_ms, step_ms;
    const char *phase; /* last told */
    int told_pictures; /* image events sent */
} run;

static double seconds_since(int64_t start_ms) {
    return (double)(clock_mono_ms() - start_ms) / 1000.0;
}

static void send_line(run *r) {
    worker_job_line(r->job, buf_str(&r->line), r->line.len);
    buf_clear(&r->line);
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

static void tell_picture(run *r, int index, const output_file *f, const char *parameters) {
    buf *b = &r->line;
    buf_printf(b, "{\"event\":\"image\",\"index\":%d,\"seed\":%llu,\"file\":", index,
               (unsigned long long)(r->params.seed + (uint64_t)index));
    json_quote(b, f->name);
    json_write_member(b, "thumb", f->thumb[0] ? f->thumb : NULL);
    buf_printf(b, ",\"width\":%d,\"height\":%d,\"bytes\":%zu,\"parameters\":", f->width, f->height, f->bytes);
    json_quote(b, parameters);
    buf_putc(b, '}');
    send_line(r);
    r->told_pictures = index + 1;
}

/* A resumed batch: pictures that were saved before the crash are told again; the server may have missed them. */
static void tell_earlier(run *r, int upto) {
    for (int i = r->told_pictures; i < upto; i++) {
        output_file f = {0};
        output_names(&r->target, i, &f);
        char *path = path_join(r->target.dir, f.name), *thumb = path_join(r->target.dir, f.thumb);
        if (!path_exists(thumb)) f.thumb[0] = 0;
        image_format format;
        buf file, text;
        buf_init(&file, INIT_FILE_MAX);
        buf_init(&text, 128 * 1024);
        if (file_read(path, &file, NULL) && image_probe(file.data, file.len, &f.width, &f.height, &format, NULL)) {
            f.bytes = file.len;
            metadata_read(&text, file.data, file.len, NULL);
            tell_picture(r, i, &f, buf_str(&text));
        }
        buf_free(&text);
        buf_free(&file);
        free(thumb);
        free(path);
    }
}

static bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    run *r = ctx;
    output_origin origin = {.params = &r->params,
                            .width = picture->width,
                            .height = picture->height,
                            .seed = seed,
                            .model = r->request->model_name};
    output_file f;
    buf text;
    tell_phase(r, "saving");
    worker_progress(r->sd->worker, "saving", 0, 0);
    buf_init(&text, 256 * 1024);
    output_parameters(&origin, &text);
    bool ok = output_write(&r->target, index, picture, buf_str(&text), &f, e);
    if (ok) tell_picture(r, index, &f, buf_str(&text));
    buf_free(&text);
    return ok;
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static void on_progress(void *ctx, const diffusion_progress *p) {
    run *r = ctx;
    int64_t now = clock_mono_ms();
    worker_progress(r->sd->worker, diffusion_phase_name(p->phase), p->step, p->steps);
    if (r->told_pictures < p->image) tell_earlier(r, p->image);
    bool begins = tell_phase(r, diffusion_phase_name(p->phase));
    if (p->phase == DIFFUSION_SAMPLING && !begins) { /* it may begin at a later step, of a checkpoint */
        buf_printf(&r->line,
                   "{\"event\":\"progress\",\"phase\":\"sampling\",\"step\":%d,\"steps\":%d,\"image\":%d,"
                   "\"images\":%d,\"step_ms\":%lld,\"time\":%.3f}",
                   p->step, p->steps, p->image, p->images, (long long)(now - r->step_ms), seconds_since(r->start_ms));
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

static bool read_init(const char *path, image *out, err *e) {
    buf file;
    buf_init(&file, INIT_FILE_MAX);
    bool ok = file_read(path, &file, e) && image_decode(out, file.data, file.len, IMAGE_ALPHA_ON_WHITE, NULL, e);
    buf_free(&file);
    return ok || err_wrap(e, "init_image");
}

static bool generate(run *r, diffusion_result *result, err *e) {
    diffusion *d = r->sd->model.engine;
    if (!d) return err_set(e, ERR_CONFLICT, "no image model is loaded");
    image init = {0};
    if (r->request->init_image) {
        if (!read_init(r->request->init_image, &init, e)) return false;
        r->params.init = &init;
    }
    diffusion_events events = {
        .ctx = r, .progress = on_progress, .preview = on_preview, .picture = on_picture, .should_cancel = on_poll};
    bool ok = diffusion_generate(d, &r->params, &events, result, e);
    image_free(&init);
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
