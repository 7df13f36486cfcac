#include "sd/cli.h"

#include "base/args.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/diffusion.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/text/lora_tag.h"
#include "sd/output.h"

#include <stdio.h>
#include <stdlib.h>

enum { INIT_FILE_MAX = 64 << 20, DEVICES_MAX = 16 };

void cli_list_devices(void) {
    diffusion_device list[DEVICES_MAX];
    size_t n = diffusion_devices(list, DEVICES_MAX);
    for (size_t i = 0; i < n && i < DEVICES_MAX; i++) {
        printf("%s\t%s\t%.1f GB, %.1f GB free\n", list[i].name, list[i].description, (double)list[i].total / 1e9,
               (double)list[i].free / 1e9);
    }
}

/* Everything the command line can say; strings are owned. */
typedef struct cli {
    char *model, *diffusion_model, *vae, *clip_l, *taesd, *refiner;
    char *backend, *prediction, *precision;
    char *prompt, *negative, *sampler, *schedule, *rng, *emphasis, *init, *checkpoint, *output, *lora_dir,
        *embedding_dir;
    int64_t threads, width, height, steps, seed, batch, clip_skip, memory_limit_mb;
    double cfg_scale, image_cfg_scale, strength, switch_at;
    bool tiling, help;

    char *mask, *mask_fill, *hires_upscaler;
    int64_t mask_padding, left, right, top, bottom, feather, hires_width, hires_height, hires_steps;
    double mask_blur, hires_scale, hires_strength;
    bool mask_invert, only_masked;

    /* Of diffusion_sampling. */
    double eta, s_noise, s_churn, s_tmin, s_tmax, guidance_start, guidance_end, guidance_rescale, threshold,
        threshold_limit, subseed_strength;
    int64_t subseed, from_width, from_height, noise_seed_delta, tile, tile_overlap, cache_interval;

    char *controlnet, *control_image, *control_mode;
    int64_t canny_low, canny_high;
    double control_weight, control_start, control_end;
    bool canny;

    char *ip_adapter, *clip_vision, *ip_image;
    double ip_weight, ip_start, ip_end;

    diffusion_params params;
    diffusion_control control;
    diffusion_lora loras[LORA_TAGS_MAX]; /* of the prompt's tags; paths and names are owned, here and below */
    diffusion_embedding embeddings[DIFFUSION_EMBEDDINGS_MAX]; /* all in the folder */
    int64_t phase_ms, first_step_ms;                          /* when the phase began, when its first step was done */
    double later_step_s;                                      /* mean of the steps after the first; 0: none */
    diffusion_phase phase;
    bool in_phase;
} cli;

static void set_sampling_defaults(cli *c) {
    const diffusion_sampling *s = &c->params.sampling;
    c->eta = (double)s->eta;
    c->s_noise = (double)s->s_noise;
    c->guidance_end = (double)s->guidance_end;
    c->threshold_limit = (double)s->threshold_limit;
    c->tile_overlap = s->tile_overlap;
    c->cache_interval = s->cache_interval;
}

static void set_defaults(cli *c) {
    diffusion_params_init(&c->params);
    diffusion_control_init(&c->control);
    *c = (cli){.params = c->params,
               .control = c->control,
               .canny_low = c->control.low,
               .canny_high = c->control.high,
               .control_weight = (double)c->control.weight,
               .control_end = (double)c->control.end,
               .ip_weight = (double)c->params.ip_adapter.weight,
               .ip_end = (double)c->params.ip_adapter.end,
               .steps = c->params.steps,
               .seed = 42,
               .batch = 1,
               .clip_skip = 1,
               .cfg_scale = (double)c->params.cfg_scale,
               .image_cfg_scale = (double)c->params.image_cfg_scale,
               .strength = (double)c->params.strength,
               .switch_at = (double)c->params.refiner.switch_at,
               .mask_blur = (double)c->params.inpaint.blur,
               .mask_padding = c->params.inpaint.padding,
               .feather = c->params.extend.feather,
               .hires_strength = (double)c->params.hires.strength};
    set_sampling_defaults(c);
    str_set(&c->hires_upscaler, c->params.hires.upscaler);
    str_set(&c->output, "out.png");
    str_set(&c->rng, c->params.rng);
    str_set(&c->sampler, c->params.sampler);
}

static bool parse(cli *c, int argc, char **argv, err *e) {
    const arg_spec specs[] = {
        {"model", 'm', NULL, ARG_STRING, &c->model, "FILE", "checkpoint: safetensors, gguf, or a diffusers folder"},
        {"diffusion-model", 0, NULL, ARG_STRING, &c->diffusion_model, "FILE", "the UNet alone"},
        {"vae", 0, NULL, ARG_STRING, &c->vae, "FILE", "another VAE"},
        {"clip_l", 0, NULL, ARG_STRING, &c->clip_l, "FILE", "another text encoder"},
        {"taesd", 0, NULL, ARG_STRING, &c->taesd, "FILE", "decode with this tiny autoencoder"},
        {"refiner", 0, NULL, ARG_STRING, &c->refiner, "FILE", "checkpoint that goes on behind --switch-at"},
        {"switch-at", 0, NULL, ARG_FLOAT, &c->switch_at, "X", "share of the steps before the refiner's, 0 to 1"},
        {"prediction", 0, NULL, ARG_STRING, &c->prediction, "KIND", "auto, eps or v"},
        {"backend", 0, NULL, ARG_STRING, &c->backend, "NAME", "compute device (see --list-devices)"},
        {"precision", 0, NULL, ARG_STRING, &c->precision, "KIND",
         "of matrix products on the CPU: auto, f32, bf16 or int8"},
        {"threads", 't', NULL, ARG_INT, &c->threads, "N", "CPU threads (0: one per core)"},
        {"memory-limit", 0, NULL, ARG_INT, &c->memory_limit_mb, "MB", "stay within this on the device"},
        {"prompt", 'p', NULL, ARG_STRING, &c->prompt, "TEXT", "what to draw"},
        {"negative", 'n', NULL, ARG_STRING, &c->negative, "TEXT", "what not to draw"},
        {"width", 'W', NULL, ARG_INT, &c->width, "PIXELS", "default: the model's own"},
        {"height", 'H', NULL, ARG_INT, &c->height, "PIXELS", "default: the model's own"},
        {"steps", 0, NULL, ARG_INT, &c->steps, "N", "sampling steps"},
        {"cfg-scale", 0, NULL, ARG_FLOAT, &c->cfg_scale, "X", "guidance"},
        {"sampler", 0, NULL, ARG_STRING, &c->sampler, "NAME",
         "euler_a, dpm++2m, \"DPM++ 2M Karras\", ... (docs/samplers.md)"},
        {"scheduler", 0, NULL, ARG_STRING, &c->schedule, "NAME", "karras, sgm_uniform, ... (docs/samplers.md)"},
        {"eta", 0, NULL, ARG_FLOAT, &c->eta, "X", "share of fresh noise in steps, 0 to 1 (below 0: the sampler's own)"},
        {"s-noise", 0, NULL, ARG_FLOAT, &c->s_noise, "X", "factor of the noise of steps"},
        {"s-churn", 0, NULL, ARG_FLOAT, &c->s_churn, "X", "noise added before steps of euler, heun, dpm2"},
        {"s-tmin", 0, NULL, ARG_FLOAT, &c->s_tmin, "SIGMA", "... at this sigma or more"},
        {"s-tmax", 0, NULL, ARG_FLOAT, &c->s_tmax, "SIGMA", "... and at most at this one (0: any)"},
        {"guidance-rescale", 0, NULL, ARG_FLOAT, &c->guidance_rescale, "X", "CFG rescale, 0 to 1"},
        {"guidance-start", 0, NULL, ARG_FLOAT, &c->guidance_start, "X", "share of the steps before guided ones"},
        {"guidance-end", 0, NULL, ARG_FLOAT, &c->guidance_end, "X", "share of the steps where guidance ends"},
        {"dynamic-threshold", 0, NULL, ARG_FLOAT, &c->threshold, "X", "share of magnitudes kept, 0.5 to 1 (0: off)"},
        {"dynamic-threshold-limit", 0, NULL, ARG_FLOAT, &c->threshold_limit, "X", "what they are scaled down to"},
        {"tile", 0, NULL, ARG_INT, &c->tile, "PIXELS", "tiled diffusion: what the network sees at once (0: all)"},
        {"tile-overlap", 0, NULL, ARG_INT, &c->tile_overlap, "PIXELS", "of the tiles"},
        {"cache-interval", 0, NULL, ARG_INT, &c->cache_interval, "N", "whole steps every so many; quicker, less exact"},
        {"subseed", 0, NULL, ARG_INT, &c->subseed, "N", "variation seed"},
        {"subseed-strength", 0, NULL, ARG_FLOAT, &c->subseed_strength, "X", "how far towards its noise, 0 to 1"},
        {"seed-resize-from-w", 0, NULL, ARG_INT, &c->from_width, "PIXELS", "the noise is that of this size"},
        {"seed-resize-from-h", 0, NULL, ARG_INT, &c->from_height, "PIXELS", ""},
        {"eta-noise-seed-delta", 0, NULL, ARG_INT, &c->noise_seed_delta, "N", "ENSD"},
        {"rng", 0, NULL, ARG_STRING, &c->rng, "NAME", "cuda or cpu"},
        {"seed", 's', NULL, ARG_INT, &c->seed, "N", "of the first picture"},
        {"batch", 'b', NULL, ARG_INT, &c->batch, "N", "pictures"},
        {"clip-skip", 0, NULL, ARG_INT, &c->clip_skip, "N", "1: the text encoder's last layer"},
        {"emphasis", 0, NULL, ARG_STRING, &c->emphasis, "HOW", "what attention weights do: a1111, comfy, none"},
        {"init", 'i', NULL, ARG_STRING, &c->init, "FILE", "image to image: the picture to start from"},
        {"strength", 0, NULL, ARG_FLOAT, &c->strength, "X", "image to image: how much is drawn anew, 0 to 1"},
        {"image-cfg-scale", 0, NULL, ARG_FLOAT, &c->image_cfg_scale, "X", "models that edit: how close to the picture"},
        {"mask", 0, NULL, ARG_STRING, &c->mask, "FILE", "inpaint: white (or transparent) is drawn anew"},
        {"mask-invert", 0, NULL, ARG_FLAG, &c->mask_invert, NULL, "black is drawn anew"},
        {"mask-blur", 0, NULL, ARG_FLOAT, &c->mask_blur, "PIXELS", "soft edge of the mask"},
        {"mask-fill", 0, NULL, ARG_STRING, &c->mask_fill, "HOW", "original, fill, latent_noise, latent_nothing"},
        {"only-masked", 0, NULL, ARG_FLAG, &c->only_masked, NULL, "inpaint the mask's surroundings at full size"},
        {"mask-padding", 0, NULL, ARG_INT, &c->mask_padding, "PIXELS", "around the mask, with --only-masked"},
        {"outpaint-left", 0, NULL, ARG_INT, &c->left, "PIXELS", "add at this side; a multiple of 8"},
        {"outpaint-right", 0, NULL, ARG_INT, &c->right, "PIXELS", ""},
        {"outpaint-top", 0, NULL, ARG_INT, &c->top, "PIXELS", ""},
        {"outpaint-bottom", 0, NULL, ARG_INT, &c->bottom, "PIXELS", ""},
        {"outpaint-feather", 0, NULL, ARG_INT, &c->feather, "PIXELS", "of the old picture, where it goes over"},
        {"hires-scale", 0, NULL, ARG_FLOAT, &c->hires_scale, "X", "hires fix: a second, larger pass"},
        {"hires-width", 0, NULL, ARG_INT, &c->hires_width, "PIXELS", "of the result, instead of the scale"},
        {"hires-height", 0, NULL, ARG_INT, &c->hires_height, "PIXELS", ""},
        {"hires-steps", 0, NULL, ARG_INT, &c->hires_steps, "N", "of the second pass (0: as the first)"},
        {"hires-strength", 0, NULL, ARG_FLOAT, &c->hires_strength, "X", "how much it draws anew"},
        {"hires-upscaler", 0, NULL, ARG_STRING, &c->hires_upscaler, "NAME",
         "latent, latent-bicubic, lanczos, ..., or an ESRGAN file"},
        {"controlnet", 0, NULL, ARG_STRING, &c->controlnet, "FILE", "a ControlNet, for --control-image"},
        {"control-image", 0, NULL, ARG_STRING, &c->control_image, "FILE", "the picture that it follows"},
        {"control-weight", 0, NULL, ARG_FLOAT, &c->control_weight, "X", "0 to 2"},
        {"control-start", 0, NULL, ARG_FLOAT, &c->control_start, "X", "part of the steps in which it counts, 0 to 1"},
        {"control-end", 0, NULL, ARG_FLOAT, &c->control_end, "X", ""},
        {"control-mode", 0, NULL, ARG_STRING, &c->control_mode, "HOW", "balanced, prompt, control"},
        {"ip-adapter", 0, NULL, ARG_STRING, &c->ip_adapter, "FILE", "an IP-Adapter, for --ip-image"},
        {"clip-vision", 0, NULL, ARG_STRING, &c->clip_vision, "FILE", "the image encoder that it was trained with"},
        {"ip-image", 0, NULL, ARG_STRING, &c->ip_image, "FILE", "the picture that is a prompt"},
        {"ip-weight", 0, NULL, ARG_FLOAT, &c->ip_weight, "X", "0 to 2"},
        {"ip-start", 0, NULL, ARG_FLOAT, &c->ip_start, "X", "part of the steps in which it counts, 0 to 1"},
        {"ip-end", 0, NULL, ARG_FLOAT, &c->ip_end, "X", ""},
        {"canny", 0, NULL, ARG_FLAG, &c->canny, NULL, "find the edges of --control-image first"},
        {"canny-low", 0, NULL, ARG_INT, &c->canny_low, "N", "gradient of what may be an edge"},
        {"canny-high", 0, NULL, ARG_INT, &c->canny_high, "N", "gradient of what is one"},
        {"lora-dir", 0, NULL, ARG_STRING, &c->lora_dir, "DIR", "where <lora:name:weight> finds name.safetensors"},
        {"embedding-dir", 0, NULL, ARG_STRING, &c->embedding_dir, "DIR",
         "of textual inversions: a file's name is the word"},
        {"vae-tiling", 0, NULL, ARG_FLAG, &c->tiling, NULL, "decode in tiles"},
        {"checkpoint", 0, NULL, ARG_STRING, &c->checkpoint, "FILE", "keep resumable state there"},
        {"output", 'o', NULL, ARG_STRING, &c->output, "FILE", "out.png; .jpg and .webp work too"},
        {"help", 'h', NULL, ARG_FLAG, &c->help, NULL, "this text"},
    };
    size_t count = sizeof specs / sizeof *specs;
    if (!args_parse(argc, argv, specs, count, e)) return false;
    if (c->help) args_print_help(specs, count);
    return true;
}

static void free_strings(cli *c) {
    char *const all[] = {
        c->model,        c->diffusion_model, c->vae,        c->clip_l,        c->backend,    c->prompt,
        c->prediction,   c->sampler,         c->rng,        c->negative,      c->init,       c->checkpoint,
        c->output,       c->lora_dir,        c->schedule,   c->mask,          c->mask_fill,  c->hires_upscaler,
        c->taesd,        c->emphasis,        c->refiner,    c->embedding_dir, c->controlnet, c->control_image,
        c->control_mode, c->precision,       c->ip_adapter, c->clip_vision,   c->ip_image};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    for (size_t i = 0; i < c->params.lora_count; i++) {
        free((char *)(uintptr_t)c->loras[i].path);
        free((char *)(uintptr_t)c->loras[i].name);
    }
    for (size_t i = 0; i < c->params.embedding_count; i++) {
        free((char *)(uintptr_t)c->embeddings[i].path);
        free((char *)(uintptr_t)c->embeddings[i].name);
    }
}

static int to_int(int64_t v) {
    return v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : (int)v;
}

static bool fill_canvas(cli *c, err *e) {
    diffusion_params *p = &c->params;
    const char *const *names = diffusion_fills();
    p->image_cfg_scale = (float)c->image_cfg_scale;
    p->inpaint.invert = c->mask_invert;
    p->inpaint.blur = (float)c->mask_blur;
    p->inpaint.only_masked = c->only_masked;
    p->inpaint.padding = to_int(c->mask_padding);
    p->extend = (diffusion_extend){.left = to_int(c->left),
                                   .right = to_int(c->right),
                                   .top = to_int(c->top),
                                   .bottom = to_int(c->bottom),
                                   .feather = to_int(c->feather)};
    p->hires = (diffusion_hires){.scale = (float)c->hires_scale,
                                 .width = to_int(c->hires_width),
                                 .height = to_int(c->hires_height),
                                 .steps = to_int(c->hires_steps),
                                 .strength = (float)c->hires_strength,
                                 .upscaler = c->hires_upscaler};
    if (!upscaler_find(c->hires_upscaler) && path_exists(c->hires_upscaler)) p->hires.network = c->hires_upscaler;
    for (int i = 0; c->mask_fill && names[i]; i++) {
        if (!str_eq(c->mask_fill, names[i])) continue;
        p->inpaint.fill = (diffusion_fill)i;
        return true;
    }
    return !c->mask_fill || err_set(e, ERR_INVALID, "--mask-fill: original, fill, latent_noise or latent_nothing");
}

static void fill_sampling(cli *c) {
    c->params.sampling = (diffusion_sampling){.eta = (float)c->eta,
                                              .s_noise = (float)c->s_noise,
                                              .s_churn = (float)c->s_churn,
                                              .s_tmin = (float)c->s_tmin,
                                              .s_tmax = (float)c->s_tmax,
                                              .guidance_start = (float)c->guidance_start,
                                              .guidance_end = (float)c->guidance_end,
                                              .guidance_rescale = (float)c->guidance_rescale,
                                              .threshold = (float)c->threshold,
                                              .threshold_limit = (float)c->threshold_limit,
                                              .tile = to_int(c->tile),
                                              .tile_overlap = to_int(c->tile_overlap),
                                              .cache_interval = to_int(c->cache_interval),
                                              .subseed = (uint64_t)c->subseed,
                                              .subseed_strength = (float)c->subseed_strength,
                                              .seed_from_width = to_int(c->from_width),
                                              .seed_from_height = to_int(c->from_height),
                                              .noise_seed_delta = to_int(c->noise_seed_delta)};
}

static bool fill_control(cli *c, err *e) {
    diffusion_control *u = &c->control;
    const char *const *modes = diffusion_control_modes();
    int mode = 0;
    if (!c->controlnet != !c->control_image)
        return err_set(e, ERR_INVALID, "--controlnet and --control-image: only together");
    if (!c->controlnet) return true;
    while (c->control_mode && modes[mode] && !str_eq(c->control_mode, modes[mode])) mode++;
    if (!modes[mode]) return err_set(e, ERR_INVALID, "--control-mode: balanced, prompt or control");
    u->path = c->controlnet;
    u->name = path_base(c->controlnet);
    u->preprocessor = c->canny ? DIFFUSION_PREPROCESS_CANNY : DIFFUSION_PREPROCESS_NONE;
    u->low = to_int(c->canny_low);
    u->high = to_int(c->canny_high);
    u->weight = (float)c->control_weight;
    u->start = (float)c->control_start;
    u->end = (float)c->control_end;
    u->mode = (diffusion_control_mode)mode;
    c->params.controls = u;
    c->params.control_count = 1;
    return true;
}

static bool fill_image_prompt(cli *c, const image *picture, err *e) {
    if (!c->ip_adapter != !c->ip_image || !c->ip_adapter != !c->clip_vision)
        return err_set(e, ERR_INVALID, "--ip-adapter, --clip-vision and --ip-image: only together");
    if (!c->ip_adapter) return true;
    c->params.ip_adapter = (diffusion_ip_adapter){.path = c->ip_adapter,
                                                  .name = path_base(c->ip_adapter),
                                                  .clip_vision = c->clip_vision,
                                                  .picture = picture,
                                                  .weight = (float)c->ip_weight,
                                                  .start = (float)c->ip_start,
                                                  .end = (float)c->ip_end};
    return true;
}

static void fill_params(cli *c) {
    diffusion_params *p = &c->params;
    fill_sampling(c);
    p->prompt = c->prompt;
    p->negative = c->negative;
    p->width = to_int(c->width);
    p->height = to_int(c->height);
    p->steps = to_int(c->steps);
    p->cfg_scale = (float)c->cfg_scale;
    p->sampler = c->sampler;
    p->schedule = c->schedule; /* NULL: what the sampler's name implies */
    p->rng = c->rng;
    p->emphasis = c->emphasis;
    p->seed = (uint64_t)c->seed;
    p->batch = to_int(c->batch);
    p->clip_skip = to_int(c->clip_skip);
    p->strength = (float)c->strength;
    p->tiling = c->tiling ? DIFFUSION_TILING_ON : DIFFUSION_TILING_AUTO;
    p->tiny_vae = c->taesd != NULL;
    p->refiner.switch_at = (float)c->switch_at;
    p->checkpoint = c->checkpoint;
}

/* The files that the prompt's tags name. */
static bool find_loras(cli *c, err *e) {
    lora_tag tags[LORA_TAGS_MAX];
    size_t count;
    if (!lora_tags_read(c->prompt ? c->prompt : "", tags, &count, e)) return false;
    if (count && !c->lora_dir) return err_set(e, ERR_INVALID, "the prompt names LoRAs: say where with --lora-dir");
    for (size_t i = 0; i < count; i++) {
        char *file = str_fmt("%s.safetensors", tags[i].name);
        char *path = path_resolve_below(c->lora_dir, file, e);
        free(file);
        if (!path) return err_wrap(e, "LoRA '%.60s'", tags[i].name);
        c->loras[c->params.lora_count++] = (diffusion_lora){.path = path,
                                                            .name = str_dup(tags[i].name),
                                                            .unet = (float)tags[i].unet,
                                                            .te = (float)tags[i].te,
                                                            .is_in_prompt = true};
    }
    c->params.loras = c->loras;
    return true;
}

static bool add_embedding(void *ctx, const char *name) {
    static const char *const endings[] = {".safetensors", ".pt", ".bin"};
    cli *c = ctx;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (!str_iends(name, endings[i])) continue;
        c->embeddings[c->params.embedding_count++] =
            (diffusion_embedding){path_stem(name), path_join(c->embedding_dir, name)};
    }
    return c->params.embedding_count < DIFFUSION_EMBEDDINGS_MAX;
}

static bool find_embeddings(cli *c, err *e) {
    if (!c->embedding_dir) return true;
    c->params.embeddings = c->embeddings;
    return file_list_dir(c->embedding_dir, add_embedding, c, e);
}

static double seconds_since(int64_t start_ms) {
    return (double)(clock_mono_ms() - start_ms) / 1000;
}

static void print_phase(const cli *c) {
    fprintf(stderr, "\r%-9s %8.2f s", diffusion_phase_name(c->phase), seconds_since(c->phase_ms));
    if (c->later_step_s > 0) fprintf(stderr, ", %.2f s each step after the first", c->later_step_s);
    fputc('\n', stderr);
}

/* The first step is left out: it brings weights into memory. */
static void note_step(cli *c, int step) {
    if (step == 1) c->first_step_ms = clock_mono_ms();
    if (step > 1) c->later_step_s = seconds_since(c->first_step_ms) / (step - 1);
}

/* One line per phase with its time; sampling counts its steps in place. */
static void on_progress(void *ctx, const diffusion_progress *p) {
    cli *c = ctx;
    if (c->in_phase && p->phase != c->phase) print_phase(c);
    if (!c->in_phase || p->phase != c->phase) {
        c->phase_ms = clock_mono_ms();
        c->later_step_s = 0;
    }
    c->phase = p->phase;
    c->in_phase = true;
    if (p->phase != DIFFUSION_SAMPLING) return;
    note_step(c, p->step);
    fprintf(stderr, "\rsampling  %d/%d", p->step, p->steps);
}

static bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    cli *c = ctx;
    char *dir = path_dir(c->output), *stem = path_stem(c->output);
    char *model = path_stem(c->model ? c->model : c->diffusion_model);
    output_target target = {
        .dir = dir, .stem = stem, .count = c->params.batch, .format = image_format_by_name(c->output), .quality = 90};
    output_origin origin = {.params = &c->params,
                            .width = picture->width,
                            .height = picture->height,
                            .seed = seed,
                            .subseed = diffusion_subseed(&c->params, index),
                            .model = model,
                            .refiner = c->refiner};
    buf text;
    buf_init(&text, 256 * 1024);
    output_parameters(&origin, &text);
    output_file f;
    bool ok = output_write_picture(&target, index, picture, buf_str(&text), &f, e);
    if (ok) printf("%s/%s\n", dir, f.name);
    buf_free(&text);
    free(model);
    free(stem);
    free(dir);
    return ok;
}

static bool read_picture(const char *path, image_alpha alpha, image *out, err *e) {
    if (!path) return true;
    buf file;
    buf_init(&file, INIT_FILE_MAX);
    bool ok = file_read(path, &file, e) && image_decode(out, file.data, file.len, alpha, NULL, e);
    buf_free(&file);
    return ok;
}

static diffusion_options device_options(const cli *c) {
    return (diffusion_options){
        .device = c->backend, .threads = to_int(c->threads), .memory_limit = (size_t)c->memory_limit_mb << 20};
}

static diffusion *open_model(cli *c, const diffusion_events *events, err *e) {
    const diffusion_files files = {.model = c->model,
                                   .diffusion_model = c->diffusion_model,
                                   .vae = c->vae,
                                   .clip_l = c->clip_l,
                                   .taesd = c->taesd};
    diffusion_options options = device_options(c);
    if (!diffusion_precision_from_name(c->precision, &options.precision)) {
        err_set(e, ERR_INVALID, "--precision: auto, f32, bf16 or int8");
        return NULL;
    }
    if (!diffusion_prediction_from_name(c->prediction, &options.prediction)) {
        err_set(e, ERR_INVALID, "--prediction: auto, eps or v");
        return NULL;
    }
    return diffusion_open(&files, &options, events, e);
}

static bool open_refiner(cli *c, err *e) {
    diffusion_options options = device_options(c);
    options.is_deferred = true;
    if (!c->refiner) return true;
    diffusion_precision_from_name(c->precision, &options.precision); /* open_model() has checked it */
    c->params.refiner.model = diffusion_open(&(diffusion_files){.model = c->refiner}, &options, NULL, e);
    return c->params.refiner.model || err_wrap(e, "refiner");
}

static bool run(cli *c, err *e) {
    diffusion_events events = {.ctx = c, .progress = on_progress, .picture = on_picture};
    if (image_format_by_name(c->output) == IMAGE_UNKNOWN) {
        return err_set(e, ERR_INVALID, "--output: the name must end in .png, .jpg or .webp");
    }
    image init = {0}, mask = {0}, shown = {0}, prompt = {0};
    diffusion *d = NULL;
    fill_params(c);
    c->control.picture = &shown;
    bool ok = fill_canvas(c, e) && fill_control(c, e) && fill_image_prompt(c, &prompt, e) && find_loras(c, e) &&
              find_embeddings(c, e) && read_picture(c->init, IMAGE_ALPHA_ON_WHITE, &init, e) &&
              read_picture(c->mask, IMAGE_ALPHA_KEEP, &mask, e) &&
              read_picture(c->control_image, IMAGE_ALPHA_ON_WHITE, &shown, e) &&
              read_picture(c->ip_image, IMAGE_ALPHA_ON_WHITE, &prompt, e) && (d = open_model(c, &events, e)) &&
              open_refiner(c, e);
    if (ok && c->init) c->params.init = &init;
    if (ok && c->mask) c->params.inpaint.mask = &mask;
    ok = ok && diffusion_generate(d, &c->params, &events, NULL, e);
    if (ok) print_phase(c);
    diffusion_close(c->params.refiner.model);
    diffusion_close(d);
    image_free(&init);
    image_free(&mask);
    image_free(&shown);
    image_free(&prompt);
    return ok;
}

int cli_generate(int argc, char **argv) {
    cli c;
    err e;
    set_defaults(&c);
    int code = 0;
    if (!parse(&c, argc, argv, &e))
        code = 2;
    else if (!c.help && !run(&c, &e))
        code = 1;
    if (code) fprintf(stderr, "%smysti_sd_worker generate: %s\n", code == 1 ? "\n" : "", e.msg);
    free_strings(&c);
    return code;
}
