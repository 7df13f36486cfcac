#include "diffusion/hires.h"

#include "base/str.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/source.h"
#include "diffusion/upscale.h"

#include <stdlib.h>
#include <string.h>

/* What is too much on either axis is cut off at both ends. */
static int cut_before(int have, int want) {
    return (have - want) / 2;
}

static void enlarge_latents(const hires *h, resample_filter filter, float *out) {
    const request *a = h->first, *b = h->second;
    const plane_size from = {a->rows, a->columns}, to = {b->enlarged_rows, b->enlarged_columns};
    const size_t all = (size_t)to.height * (size_t)to.width;
    const int top = cut_before(to.height, b->rows), left = cut_before(to.width, b->columns);
    float *large = mem_alloc((size_t)a->channels * all, sizeof *large);
    resample_planes(h->latents, a->channels, from, large, to, filter);
    for (int c = 0; c < b->channels; c++) {
        const float *plane = large + (size_t)c * all + (size_t)top * (size_t)to.width + (size_t)left;
        for (int y = 0; y < b->rows; y++, out += b->columns)
            memcpy(out, plane + (size_t)y * (size_t)to.width, (size_t)b->columns * sizeof *out);
    }
    free(large);
}

/* On the model's own device, whose memory the network shares only while it is at work. Finished tiles are kept beside
 * the checkpoint. */
static bool enlarge_by_network(const hires *h, const image *small, int width, int height, image *out, err *e) {
    const diffusion_params *p = h->first->params;
    diffusion_upscaler *net = upscaler_open_on(p->hires.network, h->d->backend, h->d->memory_limit, e);
    char *tiles = p->checkpoint ? str_fmt("%s.tiles", p->checkpoint) : NULL;
    const diffusion_upscale_params q = {.picture = small, .width = width, .height = height, .checkpoint = tiles};
    const bool ok = net && diffusion_upscale(net, &q, &h->events, out, e);
    diffusion_upscaler_close(net);
    free(tiles);
    return ok;
}

static bool enlarge_picture(const hires *h, const upscaler *own, const image *small, int width, int height, image *out,
                            err *e) {
    if (!own) return enlarge_by_network(h, small, width, height, out, e) || err_wrap(e, "hires");
    return upscaler_enlarge(own, small, width, height, out) || err_set(e, ERR_MEMORY, "hires: no memory");
}

static bool enlarge_pixels(const hires *h, const upscaler *own, float *out, err *e) {
    const request *b = h->second;
    const int unit = b->width / b->columns, width = b->enlarged_columns * unit, height = b->enlarged_rows * unit;
    image small = {0}, large = {0}, cut = {0};
    bool ok = h->decode(h->ctx, &small, e) && enlarge_picture(h, own, &small, width, height, &large, e);
    if (ok) {
        const int x = cut_before(b->enlarged_columns, b->columns) * unit,
                  y = cut_before(b->enlarged_rows, b->rows) * unit;
        ok = image_crop(&cut, &large, x, y, b->width, b->height) || err_set(e, ERR_MEMORY, "hires: no memory");
    }
    if (ok) {
        float *planes = source_planes(&cut);
        ok = source_encode(h->d, b, planes, out, h->progress, h->ctx, e);
        free(planes);
    }
    image_free(&small);
    image_free(&large);
    image_free(&cut);
    return ok;
}

bool hires_enlarge(const hires *h, float *out, err *e) {
    const diffusion_hires *p = &h->first->params->hires;
    const upscaler *own = p->network ? NULL : upscaler_find(p->upscaler);
    if (!own || own->space != UPSCALE_LATENTS) return enlarge_pixels(h, own, out, e);
    enlarge_latents(h, own->filter, out);
    return true;
}
