/* upscale.c - POST /internal/upscale: a picture enlarged; the same lines as for generating one. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "sd/output.h"
#include "sd/service.h"

enum { LINE_MAX_BYTES = 1 << 20, IMAGE_FILE_MAX = 512 << 20, TEXT_MAX_BYTES = 256 << 10 };

typedef struct run {
    sd_service *sd;
    worker_job *job;
    const upscale_request *request;
    buf line, text; /* text: what the picture says of itself */
    int64_t start_ms, step_ms;
    const char *phase; /* last told */
} run;

/* False when nobody listens any more: the job was cancelled. */
static bool send_line(run *r) {
    bool ok = worker_job_line(r->job, buf_str(&r->line), r->line.len);
    buf_clear(&r->line);
    return ok;
}

static void tell_phase(run *r, const char *phase) {
    worker_progress(r->sd->worker, phase, 0, 0);
    if (str_eq(r->phase, phase)) return;
    r->phase = phase;
    buf_printf(&r->line, "{\"event\":\"phase\",\"phase\":\"%s\"}", phase);
    send_line(r);
}

static void on_progress(void *ctx, const diffusion_progress *p) {
    run *r = ctx;
    const int64_t now = clock_mono_ms();
    const char *phase = diffusion_phase_name(p->phase);
    if (!str_eq(r->phase, phase)) tell_phase(r, phase);
    worker_progress(r->sd->worker, phase, p->step, p->steps);
    buf_printf(&r->line,
               "{\"event\":\"progress\",\"phase\":\"%s\",\"step\":%d,\"steps\":%d,\"image\":0,\"images\":1,"
               "\"step_ms\":%lld,\"time\":%.3f}",
               phase, p->step, p->steps, (long long)(p->step ? now - r->step_ms : 0),
               (double)(now - r->start_ms) / 1000);
    send_line(r);
    r->step_ms = now;
}

static bool on_poll(void *ctx) {
    run *r = ctx;
    worker_alive(r->sd->worker);
    return worker_job_cancelled(r->job);
}

static bool read_picture(run *r, image *out, err *e) {
    buf file;
    buf_init(&file, IMAGE_FILE_MAX);
    bool ok =
        file_read(r->request->image, &file, e) && image_decode(out, file.data, file.len, IMAGE_ALPHA_ON_WHITE, NULL, e);
    if (ok) metadata_read(&r->text, file.data, file.len, NULL);
    buf_free(&file);
    return ok || err_wrap(e, "image");
}

/* As A1111 says it, behind what the picture said before. */
static void add_text(run *r, float factor) {
    if (r->text.len) buf_puts(&r->text, ", ");
    buf_printf(&r->text, "Postprocess upscale by: %g, Postprocess upscaler: %s", (double)factor,
               r->request->upscaler_name ? r->request->upscaler_name : "?");
}

static bool tell_picture(run *r, const output_file *f) {
    buf *b = &r->line;
    buf_printf(b, "{\"event\":\"image\",\"index\":0,\"seed\":%lld,\"file\":", (long long)r->request->seed);
    json_quote(b, f->name);
    json_write_member(b, "thumb", f->thumb[0] ? f->thumb : NULL);
    buf_printf(b, ",\"width\":%d,\"height\":%d,\"bytes\":%zu,\"parameters\":", f->width, f->height, f->bytes);
    json_quote(b, buf_str(&r->text));
    buf_putc(b, '}');
    return send_line(r);
}

static bool save(run *r, const output_target *target, const image *picture, err *e) {
    output_file f;
    tell_phase(r, "saving");
    if (!output_write(target, 0, picture, buf_str(&r->text), &f, e)) return false;
    if (tell_picture(r, &f)) return true;
    output_remove(target, &f); /* cancelled meanwhile: no history would list it */
    return err_set(e, ERR_CANCELLED, "cancelled");
}

static bool upscale(run *r, err *e) {
    const upscale_request *q = r->request;
    const output_target target = {
        .dir = q->output_dir, .stem = q->file_stem, .count = 1, .format = q->format, .quality = q->quality};
    image in = {0}, out = {0};
    output_file made;
    if (output_find(&target, 0, &made, &r->text)) { /* the server missed the end of an earlier attempt */
        tell_picture(r, &made);
        return true;
    }
    tell_phase(r, "loading");
    diffusion_upscaler *net = sd_kept_get(&r->sd->upscaler, &sd_kept_upscaler, q->upscaler, &r->sd->model.options, e);
    const diffusion_events events = {.ctx = r, .progress = on_progress, .should_cancel = on_poll};
    const diffusion_upscale_params p = {
        .picture = &in, .factor = q->factor, .tile = q->tile, .checkpoint = q->checkpoint};
    bool ok = net && read_picture(r, &in, e) && diffusion_upscale(net, &p, &events, &out, e);
    if (ok) {
        add_text(r, q->factor > 0 ? q->factor : (float)diffusion_upscaler_scale(net));
        ok = save(r, &target, &out, e);
    }
    image_free(&in);
    image_free(&out);
    return ok;
}

void sd_run_upscale(worker_job *job, void *arg) {
    upscale_job *u = arg;
    const upscale_request *q = &u->request;
    run r = {.sd = u->sd, .job = job, .request = q, .start_ms = clock_mono_ms()};
    r.step_ms = r.start_ms;
    buf_init(&r.line, LINE_MAX_BYTES);
    buf_init(&r.text, TEXT_MAX_BYTES);
    err e = {0};
    if (upscale(&r, &e)) {
        const double seconds = (double)(clock_mono_ms() - r.start_ms) / 1000;
        log_info("sd", "job %s: enlarged in %.1f s", q->job ? q->job : "-", seconds);
        buf_printf(&r.line, "{\"event\":\"done\",\"time\":%.3f,\"resumed_from\":0}", seconds);
        worker_job_done(job, buf_str(&r.line), r.line.len); /* the loop may free the request from here on */
    } else {
        log_write(e.code == ERR_CANCELLED ? LOG_INFO : LOG_ERROR, "sd", "job %s: %s", q->job ? q->job : "-", e.msg);
        worker_job_fail(job, &e);
    }
    buf_free(&r.text);
    buf_free(&r.line);
}
