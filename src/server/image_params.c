/* image_params.c - see image_params.h. */
#include "server/image_params.h"
#include "base/file.h"
#include "base/str.h"
#include "diffusion/sample/rng.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/sample/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {"png", "jpeg", "webp", NULL};

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
    for (size_t i = 0; formats[i]; i++)
        if (str_ieq(name, formats[i])) return formats[i];
    return NULL;
}

static bool not_one_of(const char *field, const char *value, const char *const *names, err *e) {
    char all[160] = "";
    size_t len = 0;
    for (; *names && len < sizeof all - 1; names++) {
        int n = snprintf(all + len, sizeof all - len, "%s%s", len ? ", " : "", *names);
        len += n > 0 ? (size_t)n : 0;
    }
    return err_set(e, ERR_INVALID, "%s: '%.40s' is none of %s", field, value, all);
}

static bool read_name(const json_in *body, const char *key, const char *(*find)(const char *), const char *const *names,
                      const char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, key, &text, e)) return false;
    if (str_empty(text)) return true;
    const char *name = find(text);
    if (!name) return not_one_of(key, text, names, e);
    *out = name;
    return true;
}

static bool read_sampler(image_params *p, const json_in *body, const char *key, err *e) {
    const char *text = NULL, *implied;
    if (!json_get_str(body, key, &text, e)) return false;
    if (str_empty(text)) return true;
    const char *name = find_sampler(text, &implied);
    if (!name) return not_one_of(key, text, sampler_names, e);
    p->sampler = name;
    if (implied) p->scheduler = implied;
    return true;
}

/* After the sampler: asked for by itself it wins. "Automatic" is A1111's word for the sampler's own. */
static bool read_scheduler(image_params *p, const json_in *body, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, "scheduler", &text, e)) return false;
    if (text && (str_ieq(text, "automatic") || str_ieq(text, "default"))) return true;
    return read_name(body, "scheduler", find_scheduler, schedule_names, &p->scheduler, e);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static bool wrong_type(const json_in *in, const char *what, err *e) {
    return err_set(e, ERR_INVALID, "%s: expected %s", in->path, what);
}

/* A number, or text that is one: form fields are always text. False with e set; *there false when absent. */
static bool number_of(const json_in *body, const char *key, const char *what, double *out, bool *there, err *e) {
    json_in in = json_at(body, key);
    *there = in.val && !yyjson_is_null(in.val);
    if (yyjson_is_str(in.val) && str_empty(yyjson_get_str(in.val))) *there = false;
    if (!*there) return true;
    if (yyjson_is_num(in.val)) {
        *out = yyjson_get_num(in.val);
        return true;
    }
    if (yyjson_is_str(in.val) && str_to_f64(yyjson_get_str(in.val), out) && isfinite(*out)) return true;
    return wrong_type(&in, what, e);
}

/* Doubles hold every whole number up to 2^53, the largest that any field takes. */
static bool read_whole(const json_in *body, const char *key, int64_t *out, int64_t min, int64_t max, err *e) {
    double v = 0;
    bool there;
    if (!number_of(body, key, "a whole number", &v, &there, e)) return false;
    if (!there) return true;
    if (v != floor(v)) return err_set(e, ERR_INVALID, "%s: %g is not a whole number", key, v);
    if (v < (double)min || v > (double)max)
        return err_set(e, ERR_INVALID, "%s: %.17g is not between %lld and %lld", key, v, (long long)min,
                       (long long)max);
    *out = (int64_t)v;
    return true;
}

static bool read_int(const json_in *body, const char *key, int *out, int min, int max, err *e) {
    int64_t v = *out;
    bool ok = read_whole(body, key, &v, min, max, e);
    *out = (int)v;
    return ok;
}

static bool read_real(const json_in *body, const char *key, double *out, double min, double max, err *e) {
    double v = 0;
    bool there;
    if (!number_of(body, key, "a number", &v, &there, e)) return false;
    if (there && !(v >= min && v <= max))
        return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", key, v, min, max);
    if (there) *out = v;
    return true;
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
    if (!read_whole(body, key, &v, 0, PARAMS_SEED_MAX, e)) return false;
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

static bool read_texts(image_params *p, const json_in *body, err *e) {
    const char *model = NULL, *init = NULL;
    if (!json_has(body, "prompt")) return err_set(e, ERR_INVALID, "prompt: required");
    if (!read_text(body, "prompt", &p->prompt, e) || !read_text(body, "negative_prompt", &p->negative_prompt, e) ||
        !json_get_str(body, "model", &model, e) || !json_get_str(body, "init_image", &init, e))
        return false;
    if (!str_empty(model)) str_set(&p->model, model);
    if (!str_empty(init)) str_set(&p->init_image, init);
    return true;
}

static bool read_fields(image_params *p, const json_in *body, err *e) {
    return read_texts(p, body, e) && read_size(p, body, e) && read_side(body, "width", &p->width, e) &&
           read_side(body, "height", &p->height, e) && read_int(body, "steps", &p->steps, 1, PARAMS_STEPS_MAX, e) &&
           read_real(body, "cfg_scale", &p->cfg_scale, 0, 50, e) && read_sampler(p, body, "sampler", e) &&
           read_sampler(p, body, "sampler_name", e) && read_scheduler(p, body, e) &&
           read_name(body, "rng", find_rng, rng_names, &p->rng, e) &&
           read_whole(body, "seed", &p->seed, -1, PARAMS_SEED_MAX, e) &&
           read_int(body, "batch_size", &p->n, 1, PARAMS_BATCH_MAX, e) &&
           read_int(body, "n", &p->n, 1, PARAMS_BATCH_MAX, e) &&
           read_int(body, "clip_skip", &p->clip_skip, 1, PARAMS_CLIP_SKIP_MAX, e) &&
           read_real(body, "denoising_strength", &p->strength, 0, 1, e) &&
           read_real(body, "strength", &p->strength, 0, 1, e) &&
           read_name(body, "output_format", find_format, formats, &p->output_format, e) &&
           read_int(body, "output_compression", &p->output_compression, 0, 100, e);
}

/* The pictures of a batch have seed, seed + 1, ...: each must be one that can be asked for again. */
static bool check_last_seed(const image_params *p, err *e) {
    return p->seed <= PARAMS_SEED_MAX - (p->n - 1) ||
           err_set(e, ERR_INVALID, "seed: the last of %d pictures would have one beyond %lld", p->n,
                   (long long)PARAMS_SEED_MAX);
}

static const char *const known_keys[] = {
    "type",
    "prompt",
    "negative_prompt",
    "model",
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
    "rng",
    "init_image",
    "strength",
    "denoising_strength",
    "output_format",
    "output_compression",
    "response_format",
};

bool image_params_read(image_params *p, const json_in *body, bool strict, err *e) {
    image_params_init(p);
    bool ok = yyjson_is_obj(body->val) || err_set(e, ERR_INVALID, "body: expected object");
    ok = ok && (!strict || json_check_keys(body, known_keys, sizeof known_keys / sizeof *known_keys, e));
    ok = ok && read_fields(p, body, e) && check_last_seed(p, e);
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
        .strength = 0.75,
        .output_format = "png",
        .output_compression = 90,
    };
}

void image_params_free(image_params *p) {
    free(p->prompt);
    free(p->negative_prompt);
    free(p->model);
    free(p->init_image);
    *p = (image_params){0};
}

void image_params_copy(image_params *to, const image_params *from) {
    *to = *from;
    to->prompt = str_dup(from->prompt);
    to->negative_prompt = str_dup(from->negative_prompt);
    to->model = str_dup(from->model);
    to->init_image = str_dup(from->init_image);
}

void image_params_draw_seed(image_params *p) {
    if (p->seed >= 0) return;
    uint64_t bits;
    file_random(&bits, sizeof bits);
    p->seed = (int64_t)(bits % (PARAMS_SEED_MAX - PARAMS_BATCH_MAX)); /* room for the seeds behind it */
}

static void write_string(buf *out, const char *key, const char *value) {
    buf_printf(out, "\"%s\":", key);
    json_quote(out, value);
    buf_putc(out, ',');
}

/* The shortest text that reads back as the same number. */
static void write_real(buf *out, const char *key, double v) {
    char text[32];
    snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) < v || strtod(text, NULL) > v) snprintf(text, sizeof text, "%.17g", v);
    buf_printf(out, "\"%s\":%s,", key, text);
}

void image_params_write(const image_params *p, buf *out) {
    buf_putc(out, '{');
    write_string(out, "prompt", p->prompt);
    write_string(out, "negative_prompt", p->negative_prompt);
    if (p->model) write_string(out, "model", p->model);
    if (p->width) buf_printf(out, "\"width\":%d,", p->width);
    if (p->height) buf_printf(out, "\"height\":%d,", p->height);
    buf_printf(out, "\"steps\":%d,", p->steps);
    write_real(out, "cfg_scale", p->cfg_scale);
    write_string(out, "sampler", p->sampler);
    write_string(out, "scheduler", p->scheduler);
    write_string(out, "rng", p->rng);
    buf_printf(out, "\"seed\":%lld,\"n\":%d,\"clip_skip\":%d,", (long long)p->seed, p->n, p->clip_skip);
    if (p->init_image) {
        write_string(out, "init_image", p->init_image);
        write_real(out, "strength", p->strength);
    }
    write_string(out, "output_format", p->output_format);
    buf_printf(out, "\"output_compression\":%d}", p->output_compression);
}

void image_params_write_names(const char *sampler_name, const char *scheduler_name, const char *rng_name, buf *out) {
    const char *implied = NULL, *name = sampler_name ? find_sampler(sampler_name, &implied) : NULL;
    if (name) buf_printf(out, ",\"sampler\":\"%s\"", name);
    name = scheduler_name ? find_scheduler(scheduler_name) : NULL;
    if (!name) name = implied;
    if (name) buf_printf(out, ",\"scheduler\":\"%s\"", name);
    name = rng_name ? find_rng(rng_name) : NULL;
    if (name) buf_printf(out, ",\"rng\":\"%s\"", name);
}

static void write_names(buf *out, const char *key, const char *const *names) {
    buf_printf(out, "\"%s\":[", key);
    for (size_t i = 0; names[i]; i++) buf_printf(out, "%s\"%s\"", i ? "," : "", names[i]);
    buf_puts(out, "],");
}

void image_params_write_options(buf *out) {
    buf_putc(out, '{');
    write_names(out, "samplers", sampler_names);
    write_names(out, "schedulers", schedule_names);
    write_names(out, "rngs", rng_names);
    write_names(out, "formats", formats);
    buf_printf(out,
               "\"limits\":{\"prompt\":%d,\"width\":[%d,%d],\"height\":[%d,%d],\"size_multiple\":8,\"steps\":[1,%d],"
               "\"cfg_scale\":[0,50],\"n\":[1,%d],\"clip_skip\":[1,%d],\"strength\":[0,1],"
               "\"seed\":[-1,%lld],\"output_compression\":[0,100]},",
               PARAMS_PROMPT_MAX, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, PARAMS_SIZE_MIN, PARAMS_SIZE_MAX, PARAMS_STEPS_MAX,
               PARAMS_BATCH_MAX, PARAMS_CLIP_SKIP_MAX, (long long)PARAMS_SEED_MAX);
    buf_puts(out, "\"defaults\":");
    image_params p;
    image_params_init(&p);
    image_params_write(&p, out);
    image_params_free(&p);
    buf_putc(out, '}');
}
