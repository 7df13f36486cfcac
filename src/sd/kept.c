#include "sd/kept.h"

#include "base/str.h"

#include <stdlib.h>

static void *open_upscaler(const char *path, const diffusion_options *options, err *e) {
    return diffusion_upscaler_open(path, options, e);
}

static void close_upscaler(void *handle) {
    diffusion_upscaler_close(handle);
}

static void *open_refiner(const char *path, const diffusion_options *options, err *e) {
    diffusion_options own = *options;
    own.prediction = DIFFUSION_PREDICT_AUTO; /* options says the model's */
    own.is_deferred = true;
    return diffusion_open(&(diffusion_files){.model = path}, &own, NULL, e);
}

static void close_refiner(void *handle) {
    diffusion_close(handle);
}

const sd_kept_kind sd_kept_upscaler = {open_upscaler, close_upscaler};
const sd_kept_kind sd_kept_refiner = {open_refiner, close_refiner};

void sd_kept_free(sd_kept *k) {
    if (k->handle) k->kind->close(k->handle);
    free(k->path);
    *k = (sd_kept){0};
}

void *sd_kept_get(sd_kept *k, const sd_kept_kind *kind, const char *path, const diffusion_options *options, err *e) {
    file_info now = {0};
    if (!file_stat(path, &now, e)) return NULL;
    if (k->handle && str_eq(k->path, path) && k->file.size == now.size && k->file.mtime_ms == now.mtime_ms)
        return k->handle;
    sd_kept_free(k);
    void *handle = kind->open(path, options, e);
    if (handle) *k = (sd_kept){.handle = handle, .kind = kind, .path = str_dup(path), .file = now};
    return handle;
}
