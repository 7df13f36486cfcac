/* upscale.c - pictures enlarged: how often the network is used, its tiles and their log, and the size asked for. */
#include "diffusion/upscale.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "diffusion/engine.h"
#include "diffusion/model/esrgan.h"
#include "diffusion/tile_log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers in memory for each pixel of a result: three planes of floats, the tiles' weights, the picture. */
enum { PASSES_MAX = 3, BYTES_PER_PIXEL = 19, SIDE_MAX = IMAGE_SIDE_MAX, PIXELS_MAX = 1 << 26 };

static const float factor_max = 8;

struct diffusion_upscaler {
    backend *own; /* NULL: the device is somebody else's */
    backend *b;
    esrgan *net;
    size_t memory_limit;
    uint64_t identity; /* hash of the file: path, size, time of change */
};

/* --- opening ------------------------------------------------------------------------------------------------------ */

static bool identify(diffusion_upscaler *u, const char *path, err *e) {
    file_info stat = {0};
    if (!file_stat(path, &stat, e)) return false;
    u->identity = str_hash(path, strlen(path), 0);
    u->identity = str_hash(&stat.size, sizeof stat.size, u->identity);
    u->identity = str_hash(&stat.mtime_ms, sizeof stat.mtime_ms, u->identity);
    return true;
}

diffusion_upscaler *upscaler_open_on(const char *path, backend *b, size_t memory_limit, err *e) {
    diffusion_upscaler *u = mem_alloc(1, sizeof *u);
    u->b = b;
    u->memory_limit = memory_limit;
    if (identify(u, path, e) && (u->net = esrgan_open(path, b, e))) return u;
    diffusion_upscaler_close(u);
    err_wrap(e, "upscaler");
    return NULL;
}

diffusion_upscaler *diffusion_upscaler_open(const char *path, const diffusion_options *options, err *e) {
    static const diffusion_options defaults = {0};
    if (!options) options = &defaults;
    backend *b = options_backend(options, e);
    diffusion_upscaler *u = b ? upscaler_open_on(path, b, options->memory_limit, e) : NULL;
    if (u)
        u->own = b;
    else
        backend_close(b);
    return u;
}

void diffusion_upscaler_close(diffusion_upscaler *u) {
    if (!u) return;
    esrgan_close(u->net);
    backend_close(u->own);
    free(u);
}

int diffusion_upscaler_scale(const diffusion_upscaler *u) {
    return esrgan_scale(u->net);
}

/* --- what is to be done ------------------------------------------------------------------------------------------- */

typedef struct job {
    diffusion_upscaler *u;
    const diffusion_upscale_params *p;
    const diffusion_events *events;
    int passes, width, height; /* the size asked for */
    int tile;
    int done, total; /* tiles, of all passes */
    tile_log *log;
} job;

static bool check_factor(const diffusion_upscale_params *p, err *e) {
    if (!p->picture || !p->picture->px) return err_set(e, ERR_INVALID, "image: empty");
    if (p->width > 0 && p->height > 0) return true;
    if (p->factor == 0 || (p->factor >= 1 && p->factor <= factor_max)) return true; /* not-a-number fails */
    return err_set(e, ERR_INVALID, "factor: %g is not between 1 and %g", (double)p->factor, (double)factor_max);
}

/* Once at least, and until the factor is reached; what is too much is then taken away. */
static void choose_passes(job *j) {
    const int scale = esrgan_scale(j->u->net);
    const float factor = j->p->factor > 0 ? j->p->factor : (float)scale;
    const image *from = j->p->picture;
    const bool is_sized = j->p->width > 0 && j->p->height > 0;
    j->width = is_sized ? j->p->width : (int)lrintf((float)from->width * factor);
    j->height = is_sized ? j->p->height : (int)lrintf((float)from->height * factor);
    const float wanted =
        is_sized ? fmaxf((float)j->width / (float)from->width, (float)j->height / (float)from->height) : factor;
    float reached = (float)scale;
    for (j->passes = 1; reached < wanted && scale > 1 && j->passes < PASSES_MAX; j->passes++) reached *= (float)scale;
}

static bool check_size(const job *j, int width, int height, err *e) {
    if (width <= SIDE_MAX && height <= SIDE_MAX && (int64_t)width * height <= PIXELS_MAX) return true;
    return err_set(e, ERR_TOO_LARGE, "factor: %dx%d becomes %dx%d, more than %d million pixels or %d in a side",
                   j->p->picture->width, j->p->picture->height, width, height, PIXELS_MAX >> 20, SIDE_MAX);
}

static size_t free_bytes(const diffusion_upscaler *u) {
    size_t have = 0;
    if (backend_is_cpu(u->b))
        have = (size_t)memory_status().available;
    else
        backend_memory(u->b, &have, NULL);
    return u->memory_limit && u->memory_limit < have ? u->memory_limit : have;
}

static bool check_memory(int width, int height, err *e) {
    const double need = (double)width * height * BYTES_PER_PIXEL, have = (double)memory_status().available;
    return have <= 0 || need <= have ||
           err_set(e, ERR_MEMORY, "a picture of %dx%d needs %.1f GB of memory, %.1f GB are free", width, height,
                   need / 1e9, have / 1e9);
}

static bool plan(job *j, err *e) {
    const int scale = esrgan_scale(j->u->net);
    int w = j->p->picture->width, h = j->p->picture->height;
    choose_passes(j);
    if (!check_size(j, j->width, j->height, e)) return false;
    const int asked = j->p->tile;
    j->tile = asked ? asked : esrgan_choose_tile(j->u->net, free_bytes(j->u));
    if (j->tile < ESRGAN_TILE_MIN || j->tile > ESRGAN_TILE_MAX)
        return err_set(e, ERR_INVALID, "tile: %d is not between %d and %d", asked, ESRGAN_TILE_MIN, ESRGAN_TILE_MAX);
    for (int i = 0; i < j->passes; i++) {
        j->total += esrgan_tiles(j->u->net, w, h, j->tile);
        w *= scale;
        h *= scale;
        if (!check_size(j, w, h, e)) return false;
    }
    return check_memory(w, h, e);
}

/* All that decides what the tiles are. */
static uint64_t key_of(const job *j) {
    const image *img = j->p->picture;
    const int ints[] = {img->width, img->height, img->channels, j->passes, j->tile};
    const char *device = backend_name(j->u->b);
    uint64_t key = str_hash(ints, sizeof ints, j->u->identity);
    const char *precision = backend_precision(j->u->b);
    key = str_hash(device, strlen(device), key);
    key = str_hash(precision, strlen(precision), key);
    return str_hash(img->px, image_bytes(img), key);
}

/* --- pixels ------------------------------------------------------------------------------------------------------- */

static planes to_planes(const image *img) {
    planes p = planes_new(3, img->height, img->width);
    const size_t n = (size_t)img->width * (size_t)img->height;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++) p.data[c * n + i] = (float)img->px[3 * i + c] / 255.0f;
    return p;
}

static bool to_image(const planes *p, image *out, err *e) {
    if (!image_alloc(out, p->w, p->h, 3)) return err_set(e, ERR_TOO_LARGE, "a picture of %dx%d", p->w, p->h);
    const size_t n = (size_t)p->w * (size_t)p->h;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            out->px[3 * i + c] = (unsigned char)lrintf(fminf(fmaxf(p->data[c * n + i] * 255.0f, 0.0f), 255.0f));
    return true;
}

/* --- the work ----------------------------------------------------------------------------------------------------- */

static void tell(const job *j) {
    const diffusion_progress p = {.phase = DIFFUSION_UPSCALING, .images = 1, .step = j->done, .steps = j->total};
    events_progress(j->events, &p);
}

static bool on_poll(void *ctx) {
    return events_cancelled(((job *)ctx)->events);
}

static bool logged_tile(void *ctx, const planes *in, planes *out, err *e) {
    job *j = ctx;
    if (events_cancelled(j->events)) return err_set(e, ERR_CANCELLED, "cancelled");
    if (!tile_log_next(j->log, out->data, planes_size(out))) {
        if (!esrgan_tile(j->u->net, in, out, e)) return false;
        tile_log_add(j->log, out->data, planes_size(out));
    }
    j->done++;
    tell(j);
    return true;
}

/* One use of the network. */
static bool pass(job *j, const image *from, image *to, err *e) {
    const int scale = esrgan_scale(j->u->net);
    planes in = to_planes(from), out = planes_new(3, from->height * scale, from->width * scale);
    const bool ok = esrgan_run(j->u->net, &in, &out, j->tile, logged_tile, j, NULL, NULL, e) && to_image(&out, to, e);
    planes_free(&in);
    planes_free(&out);
    return ok;
}

static bool all_passes(job *j, image *out, err *e) {
    bool ok = image_convert(out, j->p->picture, 3, 255) || err_set(e, ERR_INTERNAL, "not a picture");
    for (int i = 0; ok && i < j->passes; i++) {
        image larger = {0};
        ok = pass(j, out, &larger, e);
        image_free(out);
        *out = larger;
    }
    if (!ok || (out->width == j->width && out->height == j->height)) return ok;
    image fitted = {0};
    ok = image_resize(&fitted, out, j->width, j->height) ||
         err_set(e, ERR_INTERNAL, "cannot scale to %dx%d", j->width, j->height);
    image_free(out);
    *out = fitted;
    return ok;
}

bool diffusion_upscale(diffusion_upscaler *u, const diffusion_upscale_params *p, const diffusion_events *events,
                       image *out, err *e) {
    job j = {.u = u, .p = p, .events = events};
    err why = {0};
    *out = (image){0};
    if (!check_factor(p, e) || !plan(&j, e)) return false;
    if (u->own) backend_set_cancel(u->b, on_poll, &j);
    j.log = tile_log_open(p->checkpoint, key_of(&j));
    tell(&j);
    const bool ok = all_passes(&j, out, &why);
    tile_log_close(j.log, ok);
    if (u->own) backend_set_cancel(u->b, NULL, NULL);
    backend_trim(u->b);
    if (ok) return true;
    image_free(out);
    if (why.code == ERR_CANCELLED) err_set(&why, ERR_CANCELLED, "cancelled"); /* wherever it was noticed */
    if (e) *e = why;
    return false;
}
