/* service.h - the image worker's state, shared by its routes and its jobs. */
#ifndef MYSTI_SD_SERVICE_H
#define MYSTI_SD_SERVICE_H

#include "sd/kept.h"
#include "sd/model.h"
#include "sd/request.h"
#include "worker/worker.h"

#include <uv.h>

enum { SD_DEVICES_MAX = 8 };

typedef struct sd_service {
    worker *worker;

    /* Options. */
    char *backend;   /* device name, or NULL */
    char *precision; /* of diffusion_precision_from_name(), or NULL */
    int64_t memory_limit_mb;
    bool list_devices;

    /* Engine thread only. */
    sd_model model;
    sd_kept upscaler, refiner; /* those used last */

    /* What the engine thread last saw, for the loop thread: asking a device may block while it computes. */
    uv_mutex_t lock;
    diffusion_device devices[SD_DEVICES_MAX];
    size_t device_count;
} sd_service;

/* One job of either kind: what worker_submit() passes to the engine thread. */
typedef struct load_job {
    sd_service *sd;
    load_request request;
} load_job;

typedef struct generate_job {
    sd_service *sd;
    generate_request request;
} generate_job;

typedef struct upscale_job {
    sd_service *sd;
    upscale_request request;
} upscale_job;

/* Engine thread: the work of POST /internal/load, /unload and /generate. `arg` is the struct above; unload's is the
 * service. */
void sd_run_load(worker_job *job, void *arg);
void sd_run_unload(worker_job *job, void *arg);
void sd_run_generate(worker_job *job, void *arg);
void sd_run_upscale(worker_job *job, void *arg); /* POST /internal/upscale; an upscale_job */

/* Loop thread: POST /internal/inspect. */
void sd_inspect(void *ctx, http_req *req);

#endif
