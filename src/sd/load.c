/* load.c - the jobs that change which model is loaded. */
#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "sd/service.h"

typedef struct load_run {
    sd_service *sd;
    worker_job *job;
} load_run;

static void on_progress(void *ctx, const diffusion_progress *p) {
    load_run *run = ctx;
    worker_progress(run->sd->worker, diffusion_phase_name(p->phase), p->step, p->steps);
}

static bool on_poll(void *ctx) {
    load_run *run = ctx;
    worker_alive(run->sd->worker);
    return worker_job_cancelled(run->job);
}

static void write_names(buf *out, const char *key, const char *const *names) {
    buf_printf(out, ",\"%s\":[", key);
    for (int i = 0; names[i]; i++) {
        if (i) buf_putc(out, ',');
        json_quote(out, names[i]);
    }
    buf_putc(out, ']');
}

static void write_model(buf *out, const diffusion_info *i) {
    buf_puts(out, "{\"model\":{\"family\":");
    json_quote(out, i->family);
    buf_puts(out, ",\"type\":");
    json_quote(out, i->weight_type);
    buf_puts(out, ",\"device\":");
    json_quote(out, i->device);
    buf_printf(out, ",\"precision\":\"%s\"", i->precision);
    buf_printf(out, ",\"parameters\":%llu,\"prediction\":\"%s\",\"weights_bytes\":%llu",
               (unsigned long long)i->parameters, i->prediction, (unsigned long long)i->weight_bytes);
    buf_printf(out, ",\"width\":%d,\"height\":%d,\"size_multiple\":%d,\"image_to_image\":%s", i->default_width,
               i->default_height, i->size_multiple, i->can_encode_images ? "true" : "false");
    buf_printf(out, ",\"taesd\":%s", i->has_taesd ? "true" : "false");
    write_names(out, "samplers", diffusion_samplers());
    write_names(out, "schedulers", diffusion_schedules());
    buf_puts(out, "}}");
}

/* The envelope, and beside it what is still loaded. */
static void reply_failure(load_run *run, const err *e) {
    int status = http_status_of(e->code);
    buf b;
    buf_init(&b, 64 * 1024);
    json_write_error(&b, status < 500 ? "invalid_request_error" : "server_error", err_name(e->code), NULL, e->msg);
    b.len--; /* the closing brace */
    buf_puts(&b, ",\"loaded\":");
    const char *path = sd_model_path(&run->sd->model);
    if (path)
        json_quote(&b, path);
    else
        buf_puts(&b, "null");
    buf_putc(&b, '}');
    worker_job_reply(run->job, status, b.data, b.len);
    buf_free(&b);
}

static void reply_loaded(load_run *run) {
    diffusion_info info;
    diffusion_describe(run->sd->model.engine, &info);
    buf b;
    buf_init(&b, 64 * 1024);
    write_model(&b, &info);
    worker_job_reply(run->job, 200, b.data, b.len);
    buf_free(&b);
}

void sd_run_load(worker_job *job, void *arg) {
    load_job *l = arg;
    load_run run = {.sd = l->sd, .job = job};
    diffusion_events events = {.ctx = &run, .progress = on_progress, .should_cancel = on_poll};
    err e = {0};
    int64_t start = clock_mono_ms();
    worker_set_activity(l->sd->worker, WORKER_LOADING);
    sd_kept_free(&l->sd->refiner); /* its memory may be needed */
    bool ok = sd_model_load(&l->sd->model, &l->request.files, l->request.prediction, &events, &e);
    worker_set_model(l->sd->worker, sd_model_path(&l->sd->model));
    if (!ok) {
        log_error("sd", "%s", e.msg);
        reply_failure(&run, &e);
        return;
    }
    log_info("sd", "loaded '%s' in %lld ms", path_base(sd_model_path(&l->sd->model)),
             (long long)(clock_mono_ms() - start));
    reply_loaded(&run);
}

void sd_run_unload(worker_job *job, void *arg) {
    sd_service *sd = arg;
    if (sd->model.engine) log_info("sd", "unloading '%s'", path_base(sd_model_path(&sd->model)));
    sd_model_unload(&sd->model);
    sd_kept_free(&sd->refiner);
    sd_kept_free(&sd->upscaler);
    worker_set_model(sd->worker, NULL);
    worker_job_reply(job, 200, "{}", 2);
}
