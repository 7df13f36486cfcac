/* network_run KIND MODEL W H IN OUT - one network over numbers from a file, for comparison with a reference.
 *
 *     upscale        IN: [3, H, W] in 0..1; OUT: the result's planes
 *     taesd-decode   IN: [4, H, W] latents; OUT: [3, 8 H, 8 W] in -1..1
 *     taesd-encode   IN: [3, H, W] in -1..1; OUT: [4, H / 8, W / 8]
 * IN and OUT are floats as they are in memory. A tile's size may follow as seventh argument. */
#include "base/file.h"
#include "base/str.h"
#include "diffusion/model/esrgan.h"
#include "diffusion/model/taesd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const err *e) {
    fprintf(stderr, "network_run: %s\n", e->msg);
    return 1;
}

static bool read_planes(const char *path, planes *p, err *e) {
    const size_t bytes = planes_size(p) * sizeof *p->data;
    buf b;
    buf_init(&b, bytes + 1);
    bool ok = file_read(path, &b, e) && (b.len == bytes || err_set(e, ERR_FORMAT, "'%s' has another size", path));
    if (ok) memcpy(p->data, b.data, bytes);
    buf_free(&b);
    return ok;
}

static bool write_planes(const char *path, const planes *p, err *e) {
    return file_write_atomic(path, p->data, planes_size(p) * sizeof *p->data, e);
}

static bool upscale(backend *b, const char *model, int tile, planes *in, const char *path, err *e) {
    esrgan *u = esrgan_open(model, b, e);
    if (!u) return false;
    planes out = planes_new(3, in->h * esrgan_scale(u), in->w * esrgan_scale(u));
    const bool ok = esrgan_run(u, in, &out, tile, esrgan_tile, u, NULL, NULL, e) && write_planes(path, &out, e);
    planes_free(&out);
    esrgan_close(u);
    return ok;
}

static bool decode(backend *b, const char *model, int tile, planes *in, const char *path, err *e) {
    taesd *t = taesd_open(model, b, e);
    if (!t) return false;
    planes out = planes_new(3, in->h * TAESD_FACTOR, in->w * TAESD_FACTOR);
    const latent z = {1, in->c, in->h, in->w, in->data};
    const bool ok = taesd_decode(t, &z, out.data, tile, NULL, NULL, e) && write_planes(path, &out, e);
    planes_free(&out);
    taesd_close(t);
    return ok;
}

static bool encode(backend *b, const char *model, int tile, planes *in, const char *path, err *e) {
    taesd *t = taesd_open(model, b, e);
    if (!t) return false;
    planes out = planes_new(taesd_channels(t), in->h / TAESD_FACTOR, in->w / TAESD_FACTOR);
    latent z = {.data = out.data};
    const bool ok = taesd_encode(t, in->data, in->w, in->h, &z, tile, NULL, NULL, e) && write_planes(path, &out, e);
    planes_free(&out);
    taesd_close(t);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(backend *b, const char *model, int tile, planes *in, const char *path, err *e);
    int channels;
} kinds[] = {{"upscale", upscale, 3}, {"taesd-decode", decode, 4}, {"taesd-encode", encode, 3}};

int main(int argc, char **argv) {
    err e = {0};
    size_t kind = 0;
    int64_t w = 0, h = 0, tile = ESRGAN_TILE_MAX;
    bool ok = (argc == 7 || argc == 8) && str_to_i64(argv[3], &w) && str_to_i64(argv[4], &h) && w > 0 && h > 0;
    if (ok && argc == 8) ok = str_to_i64(argv[7], &tile);
    while (ok && kind < sizeof kinds / sizeof *kinds && !str_eq(argv[1], kinds[kind].name)) kind++;
    if (!ok || kind == sizeof kinds / sizeof *kinds) {
        fprintf(stderr, "usage: network_run KIND MODEL W H IN OUT [TILE]\n");
        return 2;
    }
    planes in = planes_new(kinds[kind].channels, (int)h, (int)w);
    backend *b = backend_open("cpu", 2, &e);
    ok = b && read_planes(argv[5], &in, &e) && kinds[kind].run(b, argv[2], (int)tile, &in, argv[6], &e);
    backend_close(b);
    planes_free(&in);
    return ok ? 0 : fail(&e);
}
