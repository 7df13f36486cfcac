#include "diffusion/image_prompt.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/memory.h"
#include "diffusion/model/ip_adapter.h"

#include <stdlib.h>
#include <string.h>

static const float weight_max = 2.0f;

/* Not-a-number fails both comparisons. */
static bool check_share(const char *name, float v, float most, err *e) {
    return (v >= 0.0f && v <= most) ||
           err_set(e, ERR_INVALID, "ip_adapter.%s: %g is not between 0 and %g", name, (double)v, (double)most);
}

static bool check_values(const diffusion_ip_adapter *a, err *e) {
    if (str_empty(a->clip_vision)) return err_set(e, ERR_INVALID, "ip_adapter.clip_vision: required");
    if (!a->picture || !a->picture->px) return err_set(e, ERR_INVALID, "ip_adapter.image: required");
    if (!check_share("weight", a->weight, weight_max, e) || !check_share("start", a->start, 1, e) ||
        !check_share("end", a->end, 1, e))
        return false;
    return a->start <= a->end ||
           err_set(e, ERR_INVALID, "ip_adapter.end: %g is before start, %g", (double)a->end, (double)a->start);
}

bool image_prompt_check(const diffusion_params *p, uint64_t *key, err *e) {
    const diffusion_ip_adapter *a = &p->ip_adapter;
    *key = 0;
    if (str_empty(a->path)) return true;
    if (!check_values(a, e)) return false;
    if (!request_file_key(a->path, key, e)) return err_wrap(e, "ip_adapter.model");
    if (!request_file_key(a->clip_vision, key, e)) return err_wrap(e, "ip_adapter.clip_vision");
    const float floats[] = {a->weight, a->start, a->end};
    const int size[] = {a->picture->width, a->picture->height, a->picture->channels};
    *key = str_hash(floats, sizeof floats, str_hash(size, sizeof size, *key));
    *key = str_hash(a->picture->px, image_bytes(a->picture), *key);
    if (*key == 0) *key = 1;
    return true;
}

/* ---- the adapter ------------------------------------------------------------------------------------------------- */

void image_prompt_unload(diffusion *d) {
    ip_adapter_close(d->ip_adapter);
    d->ip_adapter = NULL;
    d->ip_adapter_key = 0;
}

bool image_prompt_weight_bytes(const diffusion *d, const diffusion_params *p, size_t *out, err *e) {
    const diffusion_ip_adapter *a = &p->ip_adapter;
    uint64_t key = 0;
    *out = 0;
    if (str_empty(a->path)) return true;
    if (!memory_add_file(a->clip_vision, out, e)) return err_wrap(e, "ip_adapter.clip_vision");
    if (!request_file_key(a->path, &key, e)) return err_wrap(e, "ip_adapter.model");
    if (d && d->ip_adapter && d->ip_adapter_key == key) return true;
    return memory_add_file(a->path, out, e) || err_wrap(e, "ip_adapter.model");
}

bool image_prompt_load(diffusion *d, const diffusion_params *p, err *e) {
    const char *path = p->ip_adapter.path;
    uint64_t key = 0;
    if (str_empty(path)) {
        image_prompt_unload(d);
        return true;
    }
    if (!request_file_key(path, &key, e)) return err_wrap(e, "ip_adapter.model");
    if (d->ip_adapter && d->ip_adapter_key == key) return true;
    image_prompt_unload(d);
    const int64_t begin = clock_mono_ms();
    d->ip_adapter = ip_adapter_open(path, d->unet, d->backend, e);
    if (!d->ip_adapter) return err_wrap(e, "ip_adapter.model");
    d->ip_adapter_key = key;
    log_info("ip-adapter", "'%s' loaded (%lld ms)", path_base(path), (long long)(clock_mono_ms() - begin));
    return true;
}

/* ---- the picture ------------------------------------------------------------------------------------------------- */

bool image_prompt_open(image_prompt *ip, diffusion *d, const diffusion_params *p, err *e) {
    *ip = (image_prompt){.d = d};
    if (str_empty(p->ip_adapter.path)) return true;
    ip->asked = &p->ip_adapter;
    ip->values = (size_t)ip_adapter_tokens(d->ip_adapter) * (size_t)unet_describe(d->unet).context_dim;
    ip->shown = mem_alloc(ip->values, sizeof(float));
    ip->blank = mem_alloc(ip->values, sizeof(float));
    ip->buffer = mem_alloc(IMAGE_PROMPT_TOGETHER * ip->values, sizeof(float));
    clip_vision *v = clip_vision_open(ip->asked->clip_vision, d->backend, e);
    if (!v) return err_wrap(e, "ip_adapter.clip_vision");
    const bool ok = ip_adapter_encode(d->ip_adapter, v, ip->asked->picture, ip->shown, ip->blank, e);
    clip_vision_close(v);
    backend_trim(d->backend);
    return ok || err_wrap(e, "ip_adapter");
}

void image_prompt_close(image_prompt *ip) {
    free(ip->shown);
    free(ip->blank);
    free(ip->buffer);
    *ip = (image_prompt){0};
}

bool image_prompt_at(image_prompt *ip, const bool *is_negative, int n, int finished, int steps, unet_image *out) {
    const diffusion_ip_adapter *a = ip->asked;
    if (!a || a->weight == 0.0f || !request_takes_part(a->start, a->end, finished, steps)) return false;
    for (int i = 0; i < n; i++)
        memcpy(ip->buffer + (size_t)i * ip->values, is_negative[i] ? ip->blank : ip->shown, ip->values * sizeof(float));
    *out = (unet_image){.layers = ip_adapter_layers(ip->d->ip_adapter),
                        .tokens = ip->buffer,
                        .count = ip_adapter_tokens(ip->d->ip_adapter),
                        .weight = a->weight};
    return true;
}
