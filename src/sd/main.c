/* main.c - mysti_sd_worker: routes, options, and the life of the engine thread. The work is in load.c and generate.c;
 * what it all stands on is src/diffusion. */
#include "base/log.h"
#include "base/str.h"
#include "sd/cli.h"
#include "sd/service.h"

#include <stdio.h>
#include <stdlib.h>

enum { BODY_MAX = 1 << 20 };

/* ---- routes: loop thread ---------------------------------------------------------------------------------------- */

static void free_load(void *arg) {
    load_job *l = arg;
    load_request_free(&l->request);
    free(l);
}

static void route_load(void *ctx, http_req *req) {
    sd_service *sd = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e;
    load_job *l = mem_alloc(1, sizeof *l);
    l->sd = sd;
    if (load_request_read(&l->request, body, len, &e)) {
        worker_submit(sd->worker, req, "load", sd_run_load, l, free_load);
        return;
    }
    free(l);
    http_reply_err(req, &e);
}

static void free_generate(void *arg) {
    generate_job *g = arg;
    generate_request_free(&g->request);
    free(g);
}

static void route_generate(void *ctx, http_req *req) {
    sd_service *sd = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e;
    generate_job *g = mem_alloc(1, sizeof *g);
    g->sd = sd;
    if (generate_request_read(&g->request, body, len, &e)) {
        worker_submit(sd->worker, req, g->request.job, sd_run_generate, g, free_generate);
        return;
    }
    free(g);
    http_reply_err(req, &e);
}

static void free_upscale(void *arg) {
    upscale_job *u = arg;
    upscale_request_free(&u->request);
    free(u);
}

static void route_upscale(void *ctx, http_req *req) {
    sd_service *sd = ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    err e;
    upscale_job *u = mem_alloc(1, sizeof *u);
    u->sd = sd;
    if (upscale_request_read(&u->request, body, len, &e)) {
        worker_submit(sd->worker, req, u->request.job, sd_run_upscale, u, free_upscale);
        return;
    }
    free(u);
    http_reply_err(req, &e);
}

static void route_unload(void *ctx, http_req *req) {
    sd_service *sd = ctx;
    worker_submit(sd->worker, req, "unload", sd_run_unload, sd, NULL);
}

static void write_device(buf *b, const diffusion_device *d) {
    static const char *const types[] = {"cpu", "gpu", "igpu"};
    buf_puts(b, "{\"name\":");
    json_quote(b, d->name);
    buf_puts(b, ",\"description\":");
    json_quote(b, d->description);
    buf_printf(b, ",\"type\":\"%s\",\"total\":%zu,\"free\":%zu}", types[d->type], d->total, d->free);
}

static void route_devices(void *ctx, http_req *req) {
    sd_service *sd = ctx;
    buf b;
    buf_init(&b, 16 * 1024);
    buf_puts(&b, "{\"devices\":[");
    uv_mutex_lock(&sd->lock);
    for (size_t i = 0; i < sd->device_count; i++) {
        if (i) buf_putc(&b, ',');
        write_device(&b, &sd->devices[i]);
    }
    uv_mutex_unlock(&sd->lock);
    buf_puts(&b, "]}");
    http_reply(req, 200, "application/json", b.data, b.len);
    buf_free(&b);
}

static const http_route routes[] = {
    {"POST", "/internal/load", route_load, BODY_MAX},         {"POST", "/internal/unload", route_unload, BODY_MAX},
    {"POST", "/internal/generate", route_generate, BODY_MAX}, {"POST", "/internal/inspect", sd_inspect, BODY_MAX},
    {"GET", "/internal/devices", route_devices, 0},           {"POST", "/internal/upscale", route_upscale, BODY_MAX},
};

/* ---- the engine thread ------------------------------------------------------------------------------------------ */

static size_t report_memory(void *ctx, worker_memory *out, size_t cap) {
    sd_service *sd = ctx;
    diffusion_device devices[SD_DEVICES_MAX];
    size_t n = diffusion_devices(devices, SD_DEVICES_MAX);
    if (n > SD_DEVICES_MAX) n = SD_DEVICES_MAX;
    uv_mutex_lock(&sd->lock);
    sd->device_count = n;
    for (size_t i = 0; i < n; i++) sd->devices[i] = devices[i];
    uv_mutex_unlock(&sd->lock);
    size_t told = n < cap ? n : cap;
    for (size_t i = 0; i < told; i++) {
        str_copy(out[i].device, sizeof out[i].device, devices[i].name);
        out[i].total = devices[i].total;
        out[i].free = devices[i].free;
    }
    return told;
}

static void engine_fini(void *ctx) {
    sd_service *sd = ctx;
    sd_model_unload(&sd->model);
    sd_kept_free(&sd->refiner);
    sd_kept_free(&sd->upscaler);
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static int start(void *ctx, worker *w) {
    sd_service *sd = ctx;
    if (sd->list_devices) {
        cli_list_devices();
        return 0;
    }
    sd->worker = w;
    diffusion_precision precision;
    if (!diffusion_precision_from_name(sd->precision, &precision)) {
        log_error("sd", "--precision: auto, f32, bf16 or int8");
        return 2;
    }
    sd->model.options = (diffusion_options){.device = sd->backend,
                                            .threads = worker_threads(w),
                                            .precision = precision,
                                            .memory_limit = (size_t)sd->memory_limit_mb << 20};
    return -1;
}

int main(int argc, char **argv) {
    if (argc > 1 && str_eq(argv[1], "generate")) return cli_generate(argc - 1, argv + 1);
    if (argc > 1 && str_eq(argv[1], "convert")) return cli_convert(argc - 1, argv + 1);
    sd_service sd = {0};
    const arg_spec args[] = {
        {"backend", 0, NULL, ARG_STRING, &sd.backend, "NAME", "compute device: CPU, CUDA0, ... (default: the best)"},
        {"precision", 0, NULL, ARG_STRING, &sd.precision, "KIND",
         "of matrix products on the CPU: auto, f32, bf16 or int8"},
        {"list-devices", 0, NULL, ARG_FLAG, &sd.list_devices, NULL, "print the compute devices and exit"},
        {"memory-limit", 0, NULL, ARG_INT, &sd.memory_limit_mb, "MB", "stay within this on the device (0: all of it)"},
    };
    const worker_service service = {.program = "mysti_sd_worker",
                                    .name = "sd",
                                    .args = args,
                                    .arg_count = sizeof args / sizeof *args,
                                    .routes = routes,
                                    .route_count = sizeof routes / sizeof *routes,
                                    .start = start,
                                    .engine_fini = engine_fini,
                                    .memory = report_memory,
                                    .engine_nice = 10,
                                    .ctx = &sd};
    uv_mutex_init(&sd.lock);
    int code = worker_run(argc, argv, &service);
    uv_mutex_destroy(&sd.lock);
    free(sd.backend);
    free(sd.precision);
    return code;
}
