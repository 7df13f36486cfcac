#include "diffusion/request.h"

#include "base/str.h"
#include "diffusion/engine.h"

#include <string.h>

/* More pixels would need graphs of more operations than a backend takes. */
enum { PIXELS_MAX = 3072 * 3072 };
enum { STEPS_MAX = 200, BATCH_MAX = 16, CLIP_SKIP_MAX = 12, PROMPT_LIMIT = 20000 * 4 };

static bool check_int(const char *name, int v, int min, int max, err *e) {
    if (v >= min && v <= max) return true;
    return err_set(e, ERR_INVALID, "%s: %d is not between %d and %d", name, v, min, max);
}

/* Not-a-number fails both comparisons. */
static bool check_float(const char *name, float v, float min, float max, err *e) {
    if (v >= min && v <= max) return true;
    return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", name, (double)v, (double)min, (double)max);
}

static bool check_side(const diffusion_info *info, const char *name, int v, err *e) {
    if (!check_int(name, v, info->min_size, info->max_size, e)) return false;
    if (v % info->size_multiple == 0) return true;
    return err_set(e, ERR_INVALID, "%s: %d is not a multiple of %d", name, v, info->size_multiple);
}

static bool check_text(const char *name, const char *text, err *e) {
    if (strlen(text) <= PROMPT_LIMIT) return true;
    return err_set(e, ERR_INVALID, "%s: longer than %d bytes", name, PROMPT_LIMIT);
}

/* ERR_INVALID that offers the nearest of the known names. */
static bool unknown_name(const char *param, const char *name, const char *const *known, err *e) {
    size_t n = 0;
    while (known[n]) n++;
    const char *near = str_nearest(name, known, n);
    return err_set(e, ERR_INVALID, near ? "%s: unknown '%.60s' (did you mean '%s'?)" : "%s: unknown '%.60s'", param,
                   name, near);
}

static bool resolve_names(request *r, err *e) {
    const diffusion_params *p = r->params;
    r->sampler = sampler_find(p->sampler, &r->schedule);
    if (!r->sampler) return unknown_name("sampler", p->sampler ? p->sampler : "", sampler_names, e);
    if (!str_empty(p->schedule) && !str_ieq(p->schedule, "automatic")) r->schedule = schedule_find(p->schedule);
    if (!r->schedule) return unknown_name("scheduler", p->schedule, schedule_names, e);
    if (!rng_kind_from_name(p->rng, &r->rng)) return unknown_name("rng", p->rng ? p->rng : "", rng_names, e);
    return true;
}

static bool resolve_size(const diffusion *d, request *r, err *e) {
    const diffusion_params *p = r->params;
    r->width = p->width ? p->width : d->info.default_width;
    r->height = p->height ? p->height : d->info.default_height;
    if (!check_side(&d->info, "width", r->width, e) || !check_side(&d->info, "height", r->height, e)) return false;
    if (r->width > PIXELS_MAX / r->height) {
        return err_set(e, ERR_INVALID, "height: %dx%d has more than %d pixels", r->width, r->height, PIXELS_MAX);
    }
    vae_info info = vae_describe(d->vae);
    r->channels = info.latent_channels;
    r->columns = r->width / info.factor;
    r->rows = r->height / info.factor;
    return true;
}

static bool resolve_steps(const diffusion *d, request *r, err *e) {
    const diffusion_params *p = r->params;
    if (!check_int("steps", p->steps, 1, STEPS_MAX, e)) return false;
    r->steps = p->steps;
    if (!p->init) return true;
    if (!check_float("strength", p->strength, 0.0f, 1.0f, e)) return false;
    if (!d->info.can_encode_images) {
        return err_set(e, ERR_UNSUPPORTED, "init_image: the model's VAE has no encoder");
    }
    if (!p->init->px) return err_set(e, ERR_INVALID, "init_image: empty");
    r->steps = schedule_image_steps(p->steps, p->strength);
    r->skipped = p->steps - r->steps;
    return true;
}

bool request_resolve(const diffusion *d, const diffusion_params *p, request *out, err *e) {
    *out = (request){.params = p};
    out->prompt = p->prompt ? p->prompt : "";
    out->negative = p->negative ? p->negative : "";
    return check_text("prompt", out->prompt, e) && check_text("negative_prompt", out->negative, e) &&
           resolve_size(d, out, e) && resolve_steps(d, out, e) && resolve_names(out, e) &&
           check_float("cfg_scale", p->cfg_scale, 0.0f, 50.0f, e) && check_float("eta", p->eta, 0.0f, 1.0f, e) &&
           check_int("n", p->batch, 1, BATCH_MAX, e) && check_int("clip_skip", p->clip_skip, 1, CLIP_SKIP_MAX, e);
}

static uint64_t hash_text(const char *s, uint64_t seed) {
    return str_hash(s, strlen(s) + 1, seed);
}

uint64_t request_key(const diffusion *d, const request *r) {
    const diffusion_params *p = r->params;
    uint64_t key = hash_text(r->prompt, d->identity);
    key = hash_text(r->negative, key);
    key = hash_text(r->sampler->name, key);
    key = hash_text(r->schedule->name, key);
    key = hash_text(d->info.device, key);
    const int ints[] = {r->width,    r->height,        r->skipped, r->steps,
                        (int)r->rng, (int)d->predicts, p->batch,   p->clip_skip};
    key = str_hash(ints, sizeof ints, key);
    key = str_hash(&p->seed, sizeof p->seed, key);
    const float floats[] = {p->cfg_scale, p->eta};
    key = str_hash(floats, sizeof floats, key);
    return p->init ? str_hash(p->init->px, image_bytes(p->init), key) : key;
}
