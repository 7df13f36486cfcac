#include "diffusion/request.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "diffusion/controls.h"
#include "diffusion/engine.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/image_prompt.h"
#include "diffusion/text/lora_tag.h"

#include <math.h>
#include <string.h>

/* What the network sees at once: more would need graphs of more operations than a backend takes. */
enum { SIDE_AT_ONCE = 3072, PIXELS_MAX = SIDE_AT_ONCE * SIDE_AT_ONCE };
enum { STEPS_MAX = 200, BATCH_MAX = 16, CLIP_SKIP_MAX = 12, PROMPT_LIMIT = 20000 * 4 };
enum { CACHE_INTERVAL_MAX = 20 };
enum { MASK_BLUR_MAX = 64, MASK_PADDING_MAX = 512, EXTEND_MAX = 2048, FEATHER_MAX = 256, HIRES_SCALE_MAX = 8 };
static const float hires_strength_min = 0.01f;

static bool check_int(const char *name, int v, int min, int max, err *e) {
    if (v >= min && v <= max) return true;
    return err_set(e, ERR_INVALID, "%s: %d is not between %d and %d", name, v, min, max);
}

/* Not-a-number fails both comparisons. */
static bool check_float(const char *name, float v, float min, float max, err *e) {
    if (v >= min && v <= max) return true;
    return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", name, (double)v, (double)min, (double)max);
}

/* A number of pixels that latents can have. */
static bool check_pixel_count(const diffusion_info *info, const char *name, int v, int min, int max, err *e) {
    if (!check_int(name, v, min, max, e)) return false;
    if (v % info->size_multiple == 0) return true;
    return err_set(e, ERR_INVALID, "%s: %d is not a multiple of %d", name, v, info->size_multiple);
}

static bool check_side(const diffusion_info *info, const char *name, int v, err *e) {
    return check_pixel_count(info, name, v, info->min_size, info->max_size, e);
}

static bool check_text(const char *name, const char *text, err *e) {
    if (strlen(text) <= PROMPT_LIMIT) return true;
    return err_set(e, ERR_INVALID, "%s: longer than %d bytes", name, PROMPT_LIMIT);
}

/* ERR_INVALID with all that is known. */
static bool none_of(const char *param, const char *name, const char *const *known, err *e) {
    buf all;
    buf_init(&all, sizeof e->msg);
    for (; *known; known++) buf_printf(&all, "%s%s", all.len ? ", " : "", *known);
    err_set(e, ERR_INVALID, "%s: unknown '%.40s' (%s)", param, name, buf_str(&all));
    buf_free(&all);
    return false;
}

/* The same where the list is too long: near, if any, and where it stands. */
static bool unlisted(const char *param, const char *name, const char *near, err *e) {
    return err_set(e, ERR_INVALID, "%s: unknown '%.60s' (%s%s%sdocs/samplers.md lists all)", param, name,
                   near ? "did you mean '" : "", near ? near : "", near ? "'? " : "");
}

static bool unknown_sampler(const char *name, err *e) {
    char near[SAMPLER_NAME_MAX];
    return unlisted("sampler", name, sampler_nearest(name, near) ? near : NULL, e);
}

static bool unknown_schedule(const char *name, err *e) {
    size_t n = 0;
    while (schedule_spellings[n]) n++;
    return unlisted("scheduler", name, str_nearest(name, schedule_spellings, n), e);
}

static bool resolve_emphasis(request *r, err *e) {
    const char *name = r->params->emphasis;
    int i = 0;
    while (!str_empty(name) && prompt_emphasis_names[i] && !str_eq(prompt_emphasis_names[i], name)) i++;
    if (!prompt_emphasis_names[i]) return none_of("emphasis", name, prompt_emphasis_names, e);
    r->emphasis = (prompt_emphasis)i;
    return true;
}

static bool resolve_names(request *r, err *e) {
    const diffusion_params *p = r->params;
    r->sampler = sampler_find(p->sampler, &r->schedule);
    if (!r->sampler) return unknown_sampler(p->sampler ? p->sampler : "", e);
    if (!str_empty(p->schedule) && !str_ieq(p->schedule, "automatic")) r->schedule = schedule_find(p->schedule);
    if (!r->schedule) return unknown_schedule(p->schedule, e);
    if (!rng_kind_from_name(p->rng, &r->rng)) return none_of("rng", p->rng ? p->rng : "", rng_names, e);
    return resolve_emphasis(r, e);
}

static bool check_guidance(const diffusion_sampling *s, err *e) {
    if (!check_float("guidance_rescale", s->guidance_rescale, 0.0f, 1.0f, e) ||
        !check_float("guidance_start", s->guidance_start, 0.0f, 1.0f, e) ||
        !check_float("guidance_end", s->guidance_end, 0.0f, 1.0f, e))
        return false;
    if (s->guidance_start > s->guidance_end)
        return err_set(e, ERR_INVALID, "guidance_end: %g is before guidance_start, %g", (double)s->guidance_end,
                       (double)s->guidance_start);
    if (s->threshold == 0.0f) return true;
    return check_float("dynamic_threshold", s->threshold, 0.5f, 1.0f, e) &&
           check_float("dynamic_threshold_limit", s->threshold_limit, 0.1f, 100.0f, e);
}

static bool check_from_side(const char *name, int v, const diffusion_info *info, err *e) {
    return v == 0 || check_int(name, v, info->min_size, info->max_size, e);
}

static bool resolve_tiles(const diffusion *d, request *r, err *e) {
    const diffusion_sampling *s = &r->params->sampling;
    if (!s->tile) return true;
    r->tile = s->tile / d->info.size_multiple;
    r->tile_overlap = s->tile_overlap / d->info.size_multiple;
    return check_pixel_count(&d->info, "diffusion_tile", s->tile, d->info.min_size, SIDE_AT_ONCE, e) &&
           check_pixel_count(&d->info, "diffusion_tile_overlap", s->tile_overlap, 0, s->tile / 2, e);
}

static bool check_seeds(const diffusion *d, const diffusion_sampling *s, err *e) {
    return check_float("subseed_strength", s->subseed_strength, 0.0f, 1.0f, e) &&
           check_from_side("seed_resize_from_w", s->seed_from_width, &d->info, e) &&
           check_from_side("seed_resize_from_h", s->seed_from_height, &d->info, e) &&
           check_int("eta_noise_seed_delta", s->noise_seed_delta, 0, INT32_MAX, e);
}

static bool resolve_sampling(const diffusion *d, request *r, err *e) {
    const diffusion_sampling *s = &r->params->sampling;
    r->eta = s->eta < 0.0f ? r->sampler->eta : s->eta;
    return check_float("eta", r->eta, 0.0f, 1.0f, e) && check_float("s_noise", s->s_noise, 0.0f, 2.0f, e) &&
           check_float("s_churn", s->s_churn, 0.0f, 100.0f, e) && check_float("s_tmin", s->s_tmin, 0.0f, 1000.0f, e) &&
           check_float("s_tmax", s->s_tmax, 0.0f, 1000.0f, e) && check_guidance(s, e) && check_seeds(d, s, e) &&
           resolve_tiles(d, r, e) && check_int("cache_interval", s->cache_interval, 1, CACHE_INTERVAL_MAX, e);
}

static bool check_pixels(const diffusion_params *p, int width, int height, err *e) {
    if (p->sampling.tile || width <= PIXELS_MAX / height) return true;
    return err_set(e, ERR_INVALID, "height: %dx%d has more than %d pixels; diffusion_tile makes it possible", width,
                   height, PIXELS_MAX);
}

static void set_size(const diffusion *d, request *r, int width, int height) {
    const vae_info info = vae_describe(d->vae);
    r->width = width;
    r->height = height;
    r->channels = info.latent_channels;
    r->columns = width / info.factor;
    r->rows = height / info.factor;
}

/* ---- the initial picture ---------------------------------------------------------------------------------------- */

static bool check_init(const diffusion *d, const diffusion_params *p, err *e) {
    if (d->info.inpaints && !d->info.can_encode_images)
        return err_set(e, ERR_UNSUPPORTED, "the model is for inpainting, but its VAE has no encoder");
    if (!p->init) {
        if (p->inpaint.mask) return err_set(e, ERR_INVALID, "mask: needs init_image");
        if (d->info.edits) return err_set(e, ERR_INVALID, "init_image: required: the model changes a picture");
        return true;
    }
    if (!d->info.can_encode_images) {
        return err_set(e, ERR_UNSUPPORTED, "init_image: the model's VAE has no encoder");
    }
    return p->init->px || err_set(e, ERR_INVALID, "init_image: empty");
}

static bool check_extension(const diffusion *d, const char *name, int v, err *e) {
    return check_pixel_count(&d->info, name, v, 0, EXTEND_MAX, e);
}

static bool check_canvas(const diffusion *d, const diffusion_params *p, err *e) {
    const diffusion_inpaint *m = &p->inpaint;
    const diffusion_extend *x = &p->extend;
    if (!check_init(d, p, e)) return false;
    if (!p->init) return true;
    if (m->only_masked && !request_has_mask(p)) return err_set(e, ERR_INVALID, "inpaint_area: 'masked' needs a mask");
    return check_float("mask_blur", m->blur, 0, MASK_BLUR_MAX, e) &&
           check_int("mask_padding", m->padding, 0, MASK_PADDING_MAX, e) &&
           check_extension(d, "outpaint.left", x->left, e) && check_extension(d, "outpaint.right", x->right, e) &&
           check_extension(d, "outpaint.top", x->top, e) && check_extension(d, "outpaint.bottom", x->bottom, e) &&
           check_int("outpaint.feather", x->feather, 0, FEATHER_MAX, e);
}

/* A picture that is extended and sampled as a whole keeps its own size, and decides what is sampled. */
static bool resolve_size(const diffusion *d, request *r, err *e) {
    const diffusion_params *p = r->params;
    const int unit = d->info.size_multiple;
    const bool extended = request_is_extended(p) && !p->inpaint.only_masked;
    int width = extended && !p->width ? p->init->width / unit * unit : p->width;
    int height = extended && !p->height ? p->init->height / unit * unit : p->height;
    if (!width) width = d->info.default_width;
    if (!height) height = d->info.default_height;
    if (p->init) r->init_width = width, r->init_height = height;
    if (p->init && p->inpaint.only_masked) r->init_width = p->init->width, r->init_height = p->init->height;
    if (extended) width += p->extend.left + p->extend.right, height += p->extend.top + p->extend.bottom;
    if (!check_side(&d->info, "width", width, e) || !check_side(&d->info, "height", height, e) ||
        !check_pixels(p, width, height, e))
        return false;
    set_size(d, r, width, height);
    return true;
}

static bool resolve_steps(request *r, err *e) {
    const diffusion_params *p = r->params;
    if (!check_int("steps", p->steps, 1, STEPS_MAX, e)) return false;
    r->steps = r->schedule_steps = p->steps;
    if (!p->init) return true;
    if (!check_float("strength", p->strength, 0.0f, 1.0f, e)) return false;
    r->steps = schedule_image_steps(p->steps, p->strength);
    r->skipped = p->steps - r->steps;
    return true;
}

/* A1111 changes models before the first step at or behind the share. */
static int refine_from(const request *r) {
    const diffusion_refiner *f = &r->params->refiner;
    return f->model ? (int)ceil((double)f->switch_at * r->steps - 1e-4) : r->steps;
}

/* ---- hires fix -------------------------------------------------------------------------------------------------- */

/* In pixels: what the first pass's picture is enlarged to, in its own proportions, as A1111 computes it. */
static void enlarged_size(const request *first, int *width, int *height) {
    const diffusion_hires *h = &first->params->hires;
    const int w = first->width, hgt = first->height;
    if (!h->width && !h->height) {
        *width = (int)((float)w * h->scale + 0.01f); /* 640 * 1.15 is 736, whatever a float says */
        *height = (int)((float)hgt * h->scale + 0.01f);
    } else if (!h->height || (h->width && (int64_t)w * h->height < (int64_t)h->width * hgt)) {
        *width = h->width;
        *height = (int)((int64_t)h->width * hgt / w);
    } else {
        *width = (int)((int64_t)h->height * w / hgt);
        *height = h->height;
    }
}

request request_second(const diffusion *d, const request *first) {
    const diffusion_hires *h = &first->params->hires;
    request r = *first;
    int width, height;
    enlarged_size(first, &width, &height);
    const int unit = vae_describe(d->vae).factor;
    r.enlarged_columns = width / unit;
    r.enlarged_rows = height / unit;
    set_size(d, &r, h->width && h->width < width ? h->width : r.enlarged_columns * unit,
             h->height && h->height < height ? h->height : r.enlarged_rows * unit);
    r.steps_before = first->steps;
    r.steps = h->steps ? h->steps : first->params->steps;
    r.schedule_steps = (int)((double)r.steps / fmin((double)h->strength, 0.999) + 1e-4); /* 2 / 0.4f is 5, too */
    r.skipped = r.schedule_steps - r.steps;
    r.refine_from = refine_from(&r);
    return r;
}

static bool check_hires_upscaler(const diffusion_hires *h, err *e) {
    file_info stat;
    if (h->network) return file_stat(h->network, &stat, e) || err_wrap(e, "hires.upscaler");
    if (upscaler_find(h->upscaler)) return true;
    return none_of("hires.upscaler", h->upscaler ? h->upscaler : "", upscaler_names, e);
}

static bool check_hires_side(const diffusion *d, const char *name, int v, err *e) {
    return !v || check_side(&d->info, name, v, e);
}

static bool check_hires(const diffusion *d, const request *r, err *e) {
    const diffusion_params *p = r->params;
    const diffusion_hires *h = &p->hires;
    if (!request_has_second(p)) return true;
    if (p->init) return err_set(e, ERR_INVALID, "hires: not together with init_image");
    if (!h->width && !h->height && !check_float("hires.scale", h->scale, 1, HIRES_SCALE_MAX, e)) return false;
    if (!check_hires_side(d, "hires.width", h->width, e) || !check_hires_side(d, "hires.height", h->height, e) ||
        !check_int("hires.steps", h->steps, 0, STEPS_MAX, e) ||
        !check_float("hires.strength", h->strength, hires_strength_min, 1, e) || !check_hires_upscaler(h, e))
        return false;
    const request second = request_second(d, r);
    bool ok = check_side(&d->info, "width", second.width, e) && check_side(&d->info, "height", second.height, e) &&
              check_pixels(p, second.width, second.height, e);
    return ok || err_wrap(e, "hires");
}

/* ---- the refiner ------------------------------------------------------------------------------------------------- */

static bool check_refiner(const diffusion *d, const diffusion_params *p, err *e) {
    const diffusion *f = p->refiner.model;
    if (!f) return true;
    if (!check_float("switch_at", p->refiner.switch_at, 0.0f, 1.0f, e)) return false;
    const vae_info a = vae_describe(d->vae), b = vae_describe(f->vae);
    if (a.latent_channels != b.latent_channels || a.factor != b.factor || a.scale != b.scale)
        return err_set(e, ERR_INVALID, "refiner: a model of the family %s has other latents than one of %s",
                       f->family->name, d->family->name);
    if (f->info.inpaints || f->info.edits)
        return err_set(e, ERR_INVALID, "refiner: a model for inpainting or editing cannot be one");
    return !d->info.edits || err_set(e, ERR_INVALID, "refiner: not with a model that edits a picture");
}

static uint64_t hash_refiner(const diffusion_refiner *f, uint64_t key) {
    const int predicts = (int)f->model->predicts;
    key = str_hash(&f->model->identity, sizeof f->model->identity, key);
    key = str_hash(&predicts, sizeof predicts, key);
    return str_hash(&f->switch_at, sizeof f->switch_at, key);
}

/* ---- LoRAs, embeddings --------------------------------------------------------------------------------------------
 */

bool request_file_key(const char *path, uint64_t *key, err *e) {
    file_info stat = {0};
    if (!file_stat(path, &stat, e)) return false;
    *key = str_hash(path, strlen(path) + 1, *key);
    *key = str_hash(&stat.size, sizeof stat.size, *key);
    *key = str_hash(&stat.mtime_ms, sizeof stat.mtime_ms, *key);
    return true;
}

/* With its weights. */
static bool add_lora(const diffusion_lora *l, uint64_t *key, err *e) {
    if (!check_float("loras: weight", l->unet, -LORA_WEIGHT_MAX, LORA_WEIGHT_MAX, e) ||
        !check_float("loras: weight", l->te, -LORA_WEIGHT_MAX, LORA_WEIGHT_MAX, e) ||
        !request_file_key(l->path, key, e))
        return false;
    const float strengths[] = {l->unet, l->te};
    *key = str_hash(strengths, sizeof strengths, *key);
    if (*key == 0) *key = 1;
    return true;
}

static bool resolve_loras(request *r, err *e) {
    const diffusion_params *p = r->params;
    if (p->lora_count > DIFFUSION_LORAS_MAX) return err_set(e, ERR_INVALID, "loras: more than %d", DIFFUSION_LORAS_MAX);
    for (size_t i = 0; i < p->lora_count; i++)
        if (!add_lora(&p->loras[i], &r->lora_key, e)) return false;
    return true;
}

static bool resolve_embeddings(request *r, err *e) {
    const diffusion_params *p = r->params;
    if (p->embedding_count > DIFFUSION_EMBEDDINGS_MAX)
        return err_set(e, ERR_INVALID, "embeddings: more than %d", DIFFUSION_EMBEDDINGS_MAX);
    for (size_t i = 0; i < p->embedding_count; i++) {
        const diffusion_embedding *m = &p->embeddings[i];
        if (!request_file_key(m->path, &r->words_key, e)) return err_wrap(e, "embedding '%.60s'", m->name);
        r->words_key = str_hash(m->name, strlen(m->name) + 1, r->words_key);
    }
    if (p->embedding_count && r->words_key == 0) r->words_key = 1;
    return true;
}

static bool check_vae(const diffusion *d, const diffusion_params *p, err *e) {
    return !p->tiny_vae || d->taesd ||
           err_set(e, ERR_INVALID, "vae: no TAESD was given when the model was loaded (taesd)");
}

bool request_resolve(const diffusion *d, const diffusion_params *p, request *out, err *e) {
    *out = (request){.params = p};
    out->prompt = p->prompt ? p->prompt : "";
    out->negative = p->negative ? p->negative : "";
    const bool ok =
        check_text("prompt", out->prompt, e) && check_text("negative_prompt", out->negative, e) && check_vae(d, p, e) &&
        check_canvas(d, p, e) && resolve_size(d, out, e) && resolve_steps(out, e) && check_hires(d, out, e) &&
        check_refiner(d, p, e) && resolve_names(out, e) && check_float("cfg_scale", p->cfg_scale, 0.0f, 50.0f, e) &&
        check_float("image_cfg_scale", p->image_cfg_scale, 0.0f, 50.0f, e) && resolve_sampling(d, out, e) &&
        check_int("n", p->batch, 1, BATCH_MAX, e) && check_int("clip_skip", p->clip_skip, 1, CLIP_SKIP_MAX, e) &&
        resolve_loras(out, e) && resolve_embeddings(out, e) && controls_check(p, &out->control_key, e) &&
        image_prompt_check(p, &out->ip_adapter_key, e);
    out->refine_from = request_has_second(p) ? out->steps : refine_from(out);
    return ok;
}

void region_cut(const request *r, region t, const float *planes, int count, float *out) {
    for (int c = 0; c < count; c++)
        for (int y = t.top; y < t.top + t.rows; y++, out += t.columns)
            memcpy(out, planes + ((size_t)c * (size_t)r->rows + (size_t)y) * (size_t)r->columns + (size_t)t.left,
                   (size_t)t.columns * sizeof *out);
}

/* ---- the key ----------------------------------------------------------------------------------------------------- */

static uint64_t hash_text(const char *s, uint64_t seed) {
    return str_hash(s, strlen(s) + 1, seed);
}

static uint64_t hash_image(const image *img, uint64_t seed) {
    const int size[] = {img->width, img->height, img->channels};
    return str_hash(img->px, image_bytes(img), str_hash(size, sizeof size, seed));
}

/* What of the initial picture is drawn anew, and on what canvas. */
static uint64_t hash_canvas(const diffusion_params *p, uint64_t key) {
    const diffusion_inpaint *m = &p->inpaint;
    const diffusion_extend *x = &p->extend;
    const int ints[] = {m->invert, (int)m->fill, m->only_masked, m->padding, x->left,
                        x->right,  x->top,       x->bottom,      x->feather};
    key = str_hash(ints, sizeof ints, key);
    key = str_hash(&m->blur, sizeof m->blur, key);
    return m->mask ? hash_image(m->mask, key) : key;
}

static uint64_t hash_hires(const diffusion_hires *h, uint64_t key) {
    const int ints[] = {h->width, h->height, h->steps};
    const float floats[] = {h->scale, h->strength};
    file_info stat = {0};
    key = str_hash(ints, sizeof ints, str_hash(floats, sizeof floats, key));
    if (!h->network) return hash_text(h->upscaler, key);
    file_stat(h->network, &stat, NULL); /* one that is gone by now fails when it is opened */
    key = hash_text(h->network, key);
    key = str_hash(&stat.size, sizeof stat.size, key);
    return str_hash(&stat.mtime_ms, sizeof stat.mtime_ms, key);
}

uint64_t request_key(const diffusion *d, const request *r) {
    const diffusion_params *p = r->params;
    uint64_t key = hash_text(r->prompt, d->identity);
    key = hash_text(r->negative, key);
    key = hash_text(r->sampler->name, key);
    key = hash_text(r->schedule->name, key);
    key = hash_text(d->info.device, key);
    key = hash_text(d->info.precision, key);
    const int ints[] = {r->width,    r->height,        r->skipped, r->steps,     r->steps_before,
                        (int)r->rng, (int)d->predicts, p->batch,   p->clip_skip, (int)r->emphasis};
    key = str_hash(ints, sizeof ints, key);
    key = str_hash(&p->seed, sizeof p->seed, key);
    const diffusion_sampling *s = &p->sampling;
    const int seeds[] = {s->seed_from_width, s->seed_from_height, s->noise_seed_delta};
    key = str_hash(&s->subseed, sizeof s->subseed, key);
    key = str_hash(seeds, sizeof seeds, key);
    const float floats[] = {p->cfg_scale,       p->image_cfg_scale,  r->eta,       s->s_noise,
                            s->s_churn,         s->s_tmin,           s->s_tmax,    s->guidance_start,
                            s->guidance_end,    s->guidance_rescale, s->threshold, s->threshold_limit,
                            s->subseed_strength};
    key = str_hash(floats, sizeof floats, key);
    const int tiles[] = {r->tile, r->tile_overlap};
    if (r->tile) key = str_hash(tiles, sizeof tiles, key);
    if (s->cache_interval > 1) key = str_hash(&s->cache_interval, sizeof s->cache_interval, key);
    if (r->lora_key) key = str_hash(&r->lora_key, sizeof r->lora_key, key);
    if (r->control_key) key = str_hash(&r->control_key, sizeof r->control_key, key);
    if (p->refiner.model) key = hash_refiner(&p->refiner, key);
    if (r->ip_adapter_key) key = str_hash(&r->ip_adapter_key, sizeof r->ip_adapter_key, key);
    if (r->words_key) key = str_hash(&r->words_key, sizeof r->words_key, key);
    if (request_has_second(p)) key = hash_hires(&p->hires, key);
    return p->init ? hash_canvas(p, hash_image(p->init, key)) : key;
}
