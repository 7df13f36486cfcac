#include "diffusion/controls.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/canny.h"
#include "diffusion/memory.h"
#include "diffusion/model/controlnet.h"
#include "diffusion/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GB_OF(bytes) ((double)(bytes) / 1e9)

static const float weight_max = 2.0f;
static const float soft = 0.825f; /* the reference implementation's, from each part to the one before it */

/* ---- checking --------------------------------------------------------------------------------------------------- */

/* Not-a-number fails both comparisons. */
static bool check_share(size_t i, const char *name, float v, float most, err *e) {
    return (v >= 0.0f && v <= most) ||
           err_set(e, ERR_INVALID, "controlnet[%zu].%s: %g is not between 0 and %g", i, name, (double)v, (double)most);
}

static bool check_thresholds(size_t i, const diffusion_control *u, err *e) {
    if (u->low < 0 || u->low > CANNY_THRESHOLD_MAX)
        return err_set(e, ERR_INVALID, "controlnet[%zu].low_threshold: %d is not between 0 and %d", i, u->low,
                       CANNY_THRESHOLD_MAX);
    return (u->high >= u->low && u->high <= CANNY_THRESHOLD_MAX) ||
           err_set(e, ERR_INVALID, "controlnet[%zu].high_threshold: %d is not between low_threshold, %d, and %d", i,
                   u->high, u->low, CANNY_THRESHOLD_MAX);
}

static bool check_unit(size_t i, const diffusion_control *u, err *e) {
    if (str_empty(u->path)) return err_set(e, ERR_INVALID, "controlnet[%zu].model: required", i);
    if (!u->picture || !u->picture->px) return err_set(e, ERR_INVALID, "controlnet[%zu].image: required", i);
    if (!check_share(i, "weight", u->weight, weight_max, e) || !check_share(i, "start", u->start, 1, e) ||
        !check_share(i, "end", u->end, 1, e))
        return false;
    if (u->start > u->end)
        return err_set(e, ERR_INVALID, "controlnet[%zu].end: %g is before start, %g", i, (double)u->end,
                       (double)u->start);
    return check_thresholds(i, u, e);
}

static uint64_t file_key(const char *path, const file_info *file, uint64_t key) {
    key = str_hash(path, strlen(path) + 1, key);
    key = str_hash(&file->size, sizeof file->size, key);
    return str_hash(&file->mtime_ms, sizeof file->mtime_ms, key);
}

static uint64_t unit_key(const diffusion_control *u, uint64_t key) {
    const image *img = u->picture;
    const float floats[] = {u->weight, u->start, u->end};
    const int ints[] = {(int)u->preprocessor, u->low, u->high, (int)u->mode, img->width, img->height, img->channels};
    key = str_hash(ints, sizeof ints, str_hash(floats, sizeof floats, key));
    return str_hash(img->px, image_bytes(img), key);
}

bool controls_check(const diffusion_params *p, uint64_t *key, err *e) {
    *key = 0;
    if (p->control_count > DIFFUSION_CONTROLS_MAX)
        return err_set(e, ERR_INVALID, "controlnet: more than %d", DIFFUSION_CONTROLS_MAX);
    for (size_t i = 0; i < p->control_count; i++) {
        const diffusion_control *u = &p->controls[i];
        file_info file = {0};
        if (!check_unit(i, u, e)) return false;
        if (!file_stat(u->path, &file, e)) return err_wrap(e, "controlnet[%zu].model", i);
        *key = unit_key(u, file_key(u->path, &file, *key));
        if (*key == 0) *key = 1;
    }
    return true;
}

/* ---- networks --------------------------------------------------------------------------------------------------- */

/* As the file is now; 0: it is not there. */
static uint64_t network_key(const char *path) {
    file_info file = {0};
    return file_stat(path, &file, NULL) ? file_key(path, &file, 1) : 0;
}

static controlnet *find_network(const diffusion *d, const char *path) {
    const uint64_t key = network_key(path);
    for (int i = 0; key && i < DIFFUSION_CONTROLS_MAX; i++)
        if (d->controlnets[i].net && d->controlnets[i].key == key) return d->controlnets[i].net;
    return NULL;
}

static bool is_first_use(const diffusion_params *p, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (str_eq(p->controls[k].path, p->controls[i].path)) return false;
    return true;
}

bool controls_weight_bytes(const diffusion *d, const diffusion_params *p, size_t *out, err *e) {
    *out = 0;
    for (size_t i = 0; i < p->control_count; i++) {
        const char *path = p->controls[i].path;
        if (!is_first_use(p, i) || (d && find_network(d, path))) continue;
        if (!memory_add_file(path, out, e)) return err_wrap(e, "controlnet[%zu].model", i);
    }
    return true;
}

/* On the CPU weights stay in the mapped file, as the model's do, and where they are streamed. */
static bool check_memory(const diffusion *d, const request *r, err *e) {
    size_t need = 0;
    if (!controls_weight_bytes(d, r->params, &need, e)) return false;
    if ((backend_is_cpu(d->backend) && !d->memory_limit) || backend_streams_weights(d->backend)) return true;
    const size_t work = memory_for_request(d, r), have = memory_free(d);
    if (!need || !have || need + work <= have) return true;
    return err_set(e, ERR_MEMORY, "the ControlNets need %.1f GB beside %.1f GB to compute, %s has %.1f GB", GB_OF(need),
                   GB_OF(work), backend_name(d->backend), GB_OF(have));
}

static bool is_wanted(const diffusion_params *p, uint64_t key) {
    for (size_t i = 0; i < p->control_count; i++)
        if (network_key(p->controls[i].path) == key) return true;
    return false;
}

static void close_network(loaded_controlnet *n) {
    controlnet_close(n->net);
    *n = (loaded_controlnet){0};
}

static bool open_network(diffusion *d, const char *path, err *e) {
    const int64_t begin = clock_mono_ms();
    loaded_controlnet *n = d->controlnets;
    while (n->net) n++; /* there are as many places as a request may have networks */
    n->key = network_key(path);
    n->net = controlnet_open(path, unet_first_half(d->unet), vae_describe(d->vae).latent_channels, d->backend, e);
    if (n->net) log_info("controlnet", "'%s' loaded (%lld ms)", path_base(path), (long long)(clock_mono_ms() - begin));
    return n->net != NULL;
}

bool controls_load(diffusion *d, const request *r, err *e) {
    const diffusion_params *p = r->params;
    for (int i = 0; i < DIFFUSION_CONTROLS_MAX; i++)
        if (d->controlnets[i].net && !is_wanted(p, d->controlnets[i].key)) close_network(&d->controlnets[i]);
    if (!check_memory(d, r, e)) return false;
    for (size_t i = 0; i < p->control_count; i++) {
        const char *path = p->controls[i].path;
        if (!find_network(d, path) && !open_network(d, path, e)) return err_wrap(e, "controlnet[%zu].model", i);
    }
    return true;
}

void controls_unload(diffusion *d) {
    for (int i = 0; i < DIFFUSION_CONTROLS_MAX; i++) close_network(&d->controlnets[i]);
}

void controls_release(const diffusion *d) {
    for (int i = 0; i < DIFFUSION_CONTROLS_MAX; i++)
        if (d->controlnets[i].net) controlnet_release(d->controlnets[i].net);
}

/* ---- pictures --------------------------------------------------------------------------------------------------- */

/* RGB of the size that is sampled, edges where they are asked for. */
static bool prepare(const diffusion_control *u, const request *r, const canvas *shown, image *out) {
    image rgb = {0}, fitted = {0}, edges = {0};
    bool ok = image_convert(&rgb, u->picture, 3, 255) && canvas_show(shown, r, &rgb, &fitted);
    if (ok && u->preprocessor == DIFFUSION_PREPROCESS_CANNY) {
        ok = canny(&edges, &fitted, u->low, u->high) && image_convert(out, &edges, 3, 0);
    } else if (ok) {
        *out = fitted;
        fitted = (image){0};
    }
    image_free(&rgb);
    image_free(&fitted);
    image_free(&edges);
    return ok;
}

/* [3, height, width] in 0..1. */
static float *unit_planes(const image *rgb) {
    float *planes = source_planes(rgb);
    for (size_t i = 0; i < image_bytes(rgb); i++) planes[i] = 0.5f * planes[i] + 0.5f;
    return planes;
}

static bool open_unit(controls *c, size_t i, const canvas *shown, err *e) {
    const diffusion_control *u = &c->r->params->controls[i];
    controlnet *net = c->nets[i] = find_network(c->d, u->path);
    image picture = {0};
    if (!net) return err_set(e, ERR_NOT_FOUND, "controlnet[%zu].model: the file has changed", i);
    bool ok = prepare(u, c->r, shown, &picture) ||
              err_set(e, ERR_INVALID, "controlnet[%zu].image: cannot be scaled, or is too large", i);
    if (ok) {
        float *planes = unit_planes(&picture);
        c->hints[i] = mem_alloc(controlnet_hint_values(net, c->r->rows, c->r->columns), sizeof(float));
        ok = controlnet_hint(net, planes, picture.width, picture.height, c->hints[i], e);
        free(planes);
    }
    image_free(&picture);
    return ok;
}

/* Of all parts, for as many pictures as are computed at once. */
static size_t batch_values(const controls *c) {
    const int rows = request_tile_rows(c->r), columns = request_tile_columns(c->r);
    const size_t together = memory_fits_pair(c->d, rows, columns) ? CONTROLS_TOGETHER : 1;
    return together * control_values(unet_first_half(c->d->unet), rows, columns);
}

bool controls_open(controls *c, diffusion *d, const request *r, const canvas *shown, err *e) {
    *c = (controls){.d = d, .r = r};
    if (!r->params->control_count) return true;
    c->buffers = mem_alloc(2 * batch_values(c), sizeof(float));
    for (size_t i = 0; i < r->params->control_count; i++)
        if (!open_unit(c, i, shown, e)) return false;
    backend_trim(d->backend);
    return true;
}

void controls_close(controls *c) {
    for (size_t i = 0; i < DIFFUSION_CONTROLS_MAX; i++) free(c->hints[i]);
    free(c->buffers);
    free(c->hint);
    *c = (controls){0};
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static bool takes_part(const diffusion_control *u, int finished, int steps) {
    return u->weight > 0.0f && request_takes_part(u->start, u->end, finished, steps);
}

/* How much of part i a picture is given. In the two modes that favour one side the later parts count more, as in the
 * reference implementation's guess mode; when it is the control's side, the negative prompt is answered without it. */
static float strength(const diffusion_control *u, int i, int last, bool is_negative) {
    if (u->mode == DIFFUSION_CONTROL_BALANCED) return u->weight;
    if (u->mode == DIFFUSION_CONTROL_PICTURE_FIRST && is_negative) return 0.0f;
    return u->weight * powf(soft, (float)(last - i));
}

static bool concerns_any(const diffusion_control *u, const bool *is_negative, int n) {
    for (int i = 0; i < n; i++)
        if (strength(u, 0, 0, is_negative[i]) > 0.0f) return true;
    return false;
}

static void add(const controls *c, const diffusion_control *u, const unet_input *in, const bool *is_negative,
                const float *one, float *sum) {
    const unet_encoder *half = unet_first_half(c->d->unet);
    for (int part = 0; part <= half->inputs; part++) {
        const size_t count = control_part_values(half, part, in->h, in->w);
        for (int k = 0; k < in->n; k++, one += count, sum += count) {
            const float s = strength(u, part, half->inputs, is_negative[k]);
            for (size_t i = 0; i < count; i++) sum[i] += s * one[i];
        }
    }
}

/* A tile's part of what picture i became. */
static const float *hint_of(controls *c, size_t i, region t) {
    const request *r = c->r;
    if (t.rows == r->rows && t.columns == r->columns) return c->hints[i];
    const size_t values = controlnet_hint_values(c->nets[i], r->rows, r->columns);
    const int planes = (int)(values / ((size_t)r->rows * (size_t)r->columns));
    free(c->hint);
    c->hint = mem_alloc(values, sizeof *c->hint);
    region_cut(r, t, c->hints[i], planes, c->hint);
    return c->hint;
}

bool controls_eval(controls *c, const unet_input *in, region t, const bool *is_negative, int finished,
                   const float **out, err *e) {
    float *sum = c->buffers, *one = c->buffers + batch_values(c);
    *out = NULL;
    for (size_t i = 0; i < c->r->params->control_count; i++) {
        const diffusion_control *u = &c->r->params->controls[i];
        if (!takes_part(u, finished, c->r->steps) || !concerns_any(u, is_negative, in->n)) continue;
        if (!controlnet_eval(c->nets[i], in, hint_of(c, i, t), one, e)) return false;
        if (!*out) memset(sum, 0, batch_values(c) * sizeof *sum);
        add(c, u, in, is_negative, one, sum);
        *out = sum;
    }
    return true;
}
