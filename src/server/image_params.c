/* image_params.c - see image_params.h. */
#include "server/image_params.h"
#include "base/file.h"
#include "base/str.h"
#include "diffusion/sample/rng.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/sample/schedule.h"
#include "server/image_fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {"png", "jpeg", "webp", NULL};
static const char *const vaes[] = {"full", "taesd", NULL};
static const char *const emphases[] = {"a1111", "comfy", "none", NULL};

const char *const *image_params_samplers(void) {
    return sampler_names;
}

const char *const *image_params_schedulers(void) {
    return schedule_names;
}

const char *const *image_params_rngs(void) {
    return rng_names;
}

const char *const *image_params_formats(void) {
    return formats;
}

/* NULL when unknown; *implied: the scheduler that the name says, else the sampler's own. */
static const char *find_sampler(const char *name, const char **implied) {
    const schedule *own = NULL;
    const sampler *found = sampler_find(name, &own);
    *implied = own ? own->name : NULL;
    return found ? found->name : NULL;
}

static const char *find_scheduler(const char *name) {
    const schedule *found = schedule_find(name);
    return found ? found->name : NULL;
}

/* A1111 calls its GPU's noise "GPU", and the same made elsewhere "NV". */
static const char *find_rng(const char *name) {
    rng_kind kind;
    if (str_ieq(name, "GPU") || str_ieq(name, "NV")) name = "cuda";
    return rng_kind_from_name(name, &kind) ? rng_names[kind] : NULL;
}

static const char *find_format(const char *name) {
    if (str_ieq(name, "jpg")) name = "jpeg";
    return field_find(name, formats);
}

static bool read_sampler(image_params *p, const json_in *body, const char *key, err *e) {
    const char *text = NULL, *implied;
    if (!json_get_str(body, key, &text, e)) return false;
    if (str_empty(text)) return true;
    const char *name = find_sampler(text, &implied);
    char near[SAMPLER_NAME_MAX];
    if (!name) return field_not_listed(key, text, sampler_nearest(text, near) ? near : NULL, e);
    p->sampler = name;
    if (implied) p->scheduler = implied;
    return true;
}

/* After the sampler: asked for by itself it wins. "Automatic" is A1111's word for the sampler's own. */
static bool read_scheduler(image_params *p, const json_in *body, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, "scheduler", &text, e)) return false;
    if (text && (str_ieq(text, "automatic") || str_ieq(text, "default"))) return true;
    return field_name(body, "scheduler", find_scheduler, schedule_names, &p->scheduler, e);
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

static bool check_side(const char *key, int64_t v, err *e) {
    if (v < PARAMS_SIZE_MIN || v > PARAMS_SIZE_MAX)
        return err_set(e, ERR_INVALID, "%s: %lld is not between %d and %d", key, (long long)v, PARAMS_SIZE_MIN,
                       PARAMS_SIZE_MAX);
    return v % 8 == 0 || err_set(e, ERR_INVALID, "%s: %lld is not a multiple of 8", key, (long long)v);
}

static bool read_size(image_params *p, const json_in *body, err *e) {
    const char *size = NULL;
    int w, h;
    if (!json_get_str(body, "size", &size, e)) return false;
    if (str_empty(size) || str_ieq(size, "auto")) return true;
    if (!str_to_size(size, &w, &h)) return err_set(e, ERR_INVALID, "size: '%.24s' is not of the form 512x512", size);
    if (!check_side("size", w, e) || !check_side("size", h, e)) return false;
    p->width = w;
    p->height = h;
    return true;
}

static bool read_side(const json_in *body, const char *key, int *out, err *e) {
    int64_t v = 0;
    if (!field_whole(body, key, &v, -PARAMS_SEED_MAX, PARAMS_SEED_MAX, e)) return false;
    if (v == 0) return true; /* absent, or 0: the model's own */
    if (!check_side(key, v, e)) return false;
    *out = (int)v;
    return true;
}

static size_t count_characters(const char *s) {
    size_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static bool read_text(const json_in *body, const char *key, char **out, err *e) {
    const char *s = NULL;
    if (!json_get_str(body, key, &s, e)) return false;
    if (!s) return true;
    size_t n = count_characters(s);
    if (n > PARAMS_PROMPT_MAX)
        return err_set(e, ERR_INVALID, "%s: %zu characters are more than %d", key, n, PARAMS_PROMPT_MAX);
    str_set(out, s);
    return true;
}

/* "image" is what OpenAI's clients call it, who may send a list of one. */
static bool read_init_image(image_params *p, const json_in *body, err *e) {
    const char *text = NULL;
    json_in image = json_at(body, "image");
    if (yyjson_is_arr(image.val)) {
        if (yyjson_arr_size(image.val) != 1 || !yyjson_is_str(yyjson_arr_get_first(image.val)))
            return field_wrong_type(&image, "one picture", e);
        text = yyjson_get_str(yyjson_arr_get_first(image.val));
    } else if (!json_get_str(body, "image", &text, e)) {
        return false;
    }
    if (!json_get_str(body, "init_image", &text, e)) return false;
    if (!str_empty(text)) str_set(&p->init_image, text);
    return true;
}

static bool read_texts(image_params *p, const json_in *body, err *e) {
    const char *model = NULL, *refiner = NULL;
    if (!read_text(body, "prompt", &p->prompt, e) || !read_text(body, "negative_prompt", &p->negative_prompt, e) ||
        !json_get_str(body, "model", &model, e) || !read_init_image(p, body, e) ||
        !json_get_str(body, "refiner_checkpoint", &refiner, e) || !json_get_str(body, "refiner", &refiner, e))
        return false;
    if (!str_empty(refiner) && !str_ieq(refiner, "none")) str_set(&p->refiner, refiner);
    if (!str_empty(model)) str_set(&p->model, model);
    return true;
}

/* ---- LoRAs ------------------------------------------------------------------------------------------------------ */

/* A name alone, or an object. */
static bool read_lora(image_params *p, const json_in *in, bool strict, err *e) {
    static const char *const keys[] = {"name", "weight", "strength", "te_weight"};
    const double most = PARAMS_LORA_WEIGHT_MAX;
    const char *name = yyjson_get_str(in->val);
    image_lora l = {.weight = 1};
    if (!name) {
        if (!yyjson_is_obj(in->val)) return field_wrong_type(in, "a LoRA's name or object", e);
        if (strict && !json_check_keys(in, keys, sizeof keys / sizeof *keys, e)) return err_wrap(e, "%s", in->path);
        if (!json_need_str(in, "name", &name, e)) return false;
        bool ok = field_real(in, "strength", &l.weight, -most, most, e) &&
                  field_real(in, "weight", &l.weight, -most, most, e);
        l.te_weight = l.weight;
        if (!ok || !field_real(in, "te_weight", &l.te_weight, -most, most, e)) return false;
    } else {
        l.te_weight = l.weight;
    }
    l.name = str_dup(name);
    p->loras[p->lora_count++] = l;
    return true;
}

/* An array; as text in a form. */
static bool read_loras(image_params *p, const json_in *body, bool strict, err *e) {
    json_in list;
    yyjson_doc *doc;
    field_json(body, "loras", &list, &doc);
    const size_t count = yyjson_arr_size(list.val);
    bool ok = !list.val || yyjson_is_arr(list.val) || field_wrong_type(&list, "array", e);
    ok = ok && (count <= PARAMS_LORAS_MAX || err_set(e, ERR_INVALID, "loras: more than %d", PARAMS_LORAS_MAX));
    if (ok && list.val) p->loras = mem_alloc(count + 1, sizeof *p->loras);
    for (size_t i = 0; ok && i < count; i++) {
        const json_in item = json_item(&list, i);
        ok = read_lora(p, &item, strict, e);
    }
    yyjson_doc_free(doc);
    return ok;
}

static bool read_upscale(image_params *p, const json_in *body, err *e) {
    const char *type = NULL, *upscaler = NULL;
    if (!json_get_str(body, "type", &type, e)) return false;
    if (!p->is_upscale && !str_eq(type, "upscale")) return true;
    p->is_upscale = true;
    if (!json_get_str(body, "upscaler", &upscaler, e)) return false;
    if (!str_empty(upscaler)) str_set(&p->upscaler, upscaler);
    double any = 0; /* 0: the upscaler's own */
    if (!field_real(body, "factor", &any, -HUGE_VAL, HUGE_VAL, e)) return false;
    return (any >= 0 && any <= 0) || field_real(body, "factor", &p->factor, 1, PARAMS_FACTOR_MAX, e);
}

static bool read_fields(image_params *p, const json_in *body, err *e) {
    return read_texts(p, body, e) && read_size(p, body, e) && read_side(body, "width", &p->width, e) &&
           read_side(body, "height", &p->height, e) && field_int(body, "steps", &p->steps, 1, PARAMS_STEPS_MAX, e) &&
           field_real(body, "cfg_scale", &p->cfg_scale, 0, 50, e) && read_sampler(p, body, "sampler", e) &&
           read_sampler(p, body, "sampler_name", e) && read_scheduler(p, body, e) &&
           field_name(body, "rng", find_rng, rng_names, &p->rng, e) &&
           field_whole(body, "seed", &p->seed, -1, PARAMS_SEED_MAX, e) &&
           field_int(body, "batch_size", &p->n, 1, PARAMS_BATCH_MAX, e) &&
           field_int(body, "n", &p->n, 1, PARAMS_BATCH_MAX, e) &&
           field_int(body, "clip_skip", &p->clip_skip, 1, PARAMS_CLIP_SKIP_MAX, e) &&
           field_name(body, "emphasis", NULL, emphases, &p->emphasis, e) &&
           field_real(body, "denoising_strength", &p->strength, 0, 1, e) &&
           field_real(body, "strength", &p->strength, 0, 1, e) && field_name(body, "vae", NULL, vaes, &p->vae, e) &&
           image_sampling_read(&p->sampling, body, e) &&
           field_name(body, "output_format", find_format, formats, &p->output_format, e) &&
           field_int(body, "output_compression", &p->output_compression, 0, 100, e);
}

/* The pictures of a batch have seed, seed + 1, ...: each must be one that can be asked for again. */
static bool check_last_seed(const image_params *p, err *e) {
    if (p->sampling.subseed_strength > 0) return true; /* they have all the same, and subseeds that follow each other */
    return p->seed <= PARAMS_SEED_MAX - (p->n - 1) ||
           err_set(e, ERR_INVALID, "seed: the last of %d pictures would have one beyond %lld", p->n,
                   (long long)PARAMS_SEED_MAX);
}

static const char *const known_keys[] = {
    "type",
    "image",
    "image_id",
    "upscaler",
    "factor",
    "prompt",
    "negative_prompt",
    "model",
    "refiner",
    "refiner_checkpoint",
    "width",
    "height",
    "size",
    "steps",
    "cfg_scale",
    "sampler",
    "sampler_name",
    "scheduler",
    "seed",
    "n",
    "batch_size",
    "clip_skip",
    "emphasis",
    "rng",
    "loras",
    "init_image",
    "strength",
    "denoising_strength",
    "vae",
    "output_format",
    "output_compression",
    "response_format",
    "controlnet",
    "ip_adapter",
};

/* Those of the edits are known as well. */
static bool check_keys(const json_in *body, err *e) {
    const char *all[80];
    size_t count = 0;
    for (; count < sizeof known_keys / sizeof *known_keys; count++) all[count] = known_keys[count];
    for (size_t i = 0; image_edits_keys[i]; i++) all[count++] = image_edits_keys[i];
    for (size_t i = 0; i < IMAGE_TEXTS_KEYS; i++) all[count++] = image_texts_keys[i];
    image_sampling_keys(all + count);
    return json_check_keys(body, all, count + IMAGE_SAMPLING_KEYS, e);
}

bool image_params_read(image_params *p, const json_in *body, unsigned how, err *e) {
    const bool strict = (how & IMAGE_PARAMS_STRICT) != 0;
    image_params_init(p);
    p->is_upscale = (how & IMAGE_PARAMS_UPSCALE) != 0;
    bool ok = yyjson_is_obj(body->val) || err_set(e, ERR_INVALID, "body: expected object");
    ok = ok && (!strict || check_keys(body, e)) && read_upscale(p, body, e);
    if (ok && !p->is_upscale && !(how & IMAGE_PARAMS_NO_PROMPT) && !json_has(body, "prompt"))
        ok = err_set(e, ERR_INVALID, "prompt: required");
    ok = ok && read_fields(p, body, e) && read_loras(p, body, strict, e) && image_texts_read(&p->texts, body, e) &&
         image_edits_read(&p->edits, body, strict, e) && image_controls_read(&p->controls, body, strict, e) &&
         image_ip_adapter_read(&p->ip_adapter, body, strict, e) && check_last_seed(p, e);
    if (!ok) image_params_free(p);
    return ok;
}

/* ---- the value -------------------------------------------------------------------------------------------------- */

void image_params_init(image_params *p) {
    *p = (image_params){
        .prompt = str_dup(""),
        .negative_prompt = str_dup(""),
        .steps = 20,
        .cfg_scale = 7,
        .sampler = "euler_a",
        .scheduler = "discrete",
        .rng = "cuda",
        .seed = -1,
        .n = 1,
        .clip_skip = 1,
        .emphasis = emphases[0],
        .strength = 0.75,
        .vae = vaes[0],
        .output_format = "png",
        .output_compression = 90,
    };
    image_edits_init(&p->edits);
    image_sampling_init(&p->sampling);
}

void image_params_free(image_params *p) {
    free(p->prompt);
    free(p->negative_prompt);
    free(p->model);
    free(p->refiner);
    free(p->init_image);
    free(p->upscaler);
    image_texts_free(&p->texts);
    image_edits_free(&p->edits);
    image_controls_free(&p->controls);
    image_ip_adapter_free(&p->ip_adapter);
    for (size_t i = 0; i < p->lora_count; i++) free(p->loras[i].name);
    free(p->loras);
    *p = (image_params){0};
}

void image_params_copy(image_params *to, const image_params *from) {
    *to = *from;
    to->prompt = str_dup(from->prompt);
    to->negative_prompt = str_dup(from->negative_prompt);
    to->model = str_dup(from->model);
    to->refiner = str_dup(from->refiner);
    to->init_image = str_dup(from->init_image);
    to->upscaler = str_dup(from->upscaler);
    image_texts_copy(&to->texts, &from->texts);
    image_edits_copy(&to->edits, &from->edits);
    image_controls_copy(&to->controls, &from->controls);
    image_ip_adapter_copy(&to->ip_adapter, &from->ip_adapter);
    to->loras = mem_alloc(from->lora_count + 1, sizeof *to->loras);
    for (size_t i = 0; i < from->lora_count; i++) {
        to->loras[i] = from->loras[i];
        to->loras[i].name = str_dup(from->loras[i].name);
    }
}

void image_params_draw_seed(image_params *p) {
    if (p->seed < 0 && p->is_upscale) p->seed = 0; /* nothing is drawn */
    image_sampling_draw(&p->sampling, PARAMS_SEED_MAX - PARAMS_BATCH_MAX);
    if (p->seed >= 0) return;
    uint64_t bits;
    file_random(&bits, sizeof bits);
    p->seed = (int64_t)(bits % (PARAMS_SEED_MAX - PARAMS_BATCH_MAX)); /* room for the seeds behind it */
}

static void write_loras(const image_params *p, buf *out) {
    buf_puts(out, "\"loras\":[");
    for (size_t i = 0; i < p->lora_count; i++) {
        const image_lora *l = &p->loras[i];
        buf_puts(out, i ? ",{" : "{");
        field_write_string(out, "name", l->name);
        field_write_real(out, "weight", l->weight);
        field_write_real(out, "te_weight", l->te_weight);
        out->data[out->len - 1] = '}'; /* the last comma */
    }
    buf_puts(out, "],");
}

void image_params_write(const image_params *p, buf *out) {
    buf_putc(out, '{');
    if (p->is_upscale) {
        field_write_string(out, "type", "upscale");
        if (p->upscaler) field_write_string(out, "upscaler", p->upscaler);
        field_write_real(out, "factor", p->factor);
    }
    field_write_string(out, "prompt", p->prompt);
    field_write_string(out, "negative_prompt", p->negative_prompt);
    if (p->model) field_write_string(out, "model", p->model);
    if (p->refiner) field_write_string(out, "refiner", p->refiner);
    if (p->width) buf_printf(out, "\"width\":%d,", p->width);
    if (p->height) buf_printf(out, "\"height\":%d,", p->height);
    buf_printf(out, "\"steps\":%d,", p->steps);
    field_write_real(out, "cfg_scale", p->cfg_scale);
    field_write_string(out, "sampler", p->sampler);
    field_write_string(out, "scheduler", p->scheduler);
    field_write_string(out, "rng", p->rng);
    buf_printf(out, "\"seed\":%lld,\"n\":%d,\"clip_skip\":%d,", (long long)p->seed, p->n, p->clip_skip);
    if (p->emphasis != emphases[0]) field_write_string(out, "emphasis", p->emphasis);
    if (p->lora_count) write_loras(p, out);
    image_texts_write(&p->texts, out);
    if (p->init_image) {
        field_write_string(out, "init_image", p->init_image);
        field_write_real(out, "strength", p->strength);
    }
    if (p->edits.mask) field_write_string(out, "mask", p->edits.mask);
    image_edits_write(&p->edits, out);
    image_controls_write(&p->controls, out);
    image_ip_adapter_write(&p->ip_adapter, out);
    if (p->vae != vaes[0]) field_write_string(out, "vae", p->vae);
    image_sampling_write(&p->sampling, out);
    field_write_string(out, "output_format", p->output_format);
    buf_printf(out, "\"output_compression\":%d}", p->output_compression);
}

void image_params_write_names(const char *sampler_name, const char *scheduler_name, const char *rng_name,
                              const char *emphasis_name, buf *out) {
    const char *implied = NULL, *name = sampler_name ? find_sampler(sampler_name, &implied) : NULL;
    if (name) buf_printf(out, ",\"sampler\":\"%s\"", name);
    name = scheduler_name ? find_scheduler(scheduler_name) : NULL;
    if (!name) name = implied;
    if (name) buf_printf(out, ",\"scheduler\":\"%s\"", name);
    name = rng_name ? find_rng(rng_name) : NULL;
    if (name) buf_printf(out, ",\"rng\":\"%s\"", name);
    name = emphasis_name ? field_find(emphasis_name, emphases) : NULL;
    if (name) buf_printf(out, ",\"emphasis\":\"%s\"", name);
}

void image_params_write_options(buf *out) {
    buf_putc(out, '{');
    field_write_names(out, "samplers", sampler_names);
    field_write_names(out, "schedulers", schedule_names);
    field_write_names(out, "rngs", rng_names);
    field_write_names(out, "formats", formats);
    field_write_names(out, "vaes", vaes);
    field_write_names(out, "emphases", emphases);
    image_edits_write_lists(out);
    image_controls_write_lists(out);
    buf_puts(out, "\"limits\":{");
    image_edits_write_limits(out);
    image_controls_write_limits(out);
    buf_printf(out, "\"ip_adapter_weight\":[0,%d],", IP_ADAPTER_WEIGHT_MAX);
    buf_printf(out,
               "\"prompt\":%d,\"width\":[%d,%d],\"height\":[%d,%d],\"size_multiple\":8,\"steps\":[1,%d],"
               "\"cfg_scale\":[0,50],\"n\":[1,%d],\"clip_skip\":[1,%d],\"strength\":[0,1],"
               "\"seed\":[-1,%lld],\"output_compression\":[0,100],\"factor\":[1,%d]",
               PARAMS_PROMPT_MAX, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, PARAMS_STEPS_MAX,
               PARAMS_BATCH_MAX, PARAMS_CLIP_SKIP_MAX, (long long)PARAMS_SEED_MAX, PARAMS_FACTOR_MAX);
    image_sampling_write_limits(out);
    buf_puts(out, "},\"also_allowed\":{\"width\":0,\"height\":0,\"factor\":0");
    image_sampling_write_also_allowed(out);
    buf_puts(out, "},\"defaults\":");
    image_params p;
    image_params_init(&p);
    image_params_write(&p, out);
    image_params_free(&p);
    buf_putc(out, '}');
}
