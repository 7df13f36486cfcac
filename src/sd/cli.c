#include "sd/cli.h"

#include "base/args.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/diffusion.h"
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
    char *model, *diffusion_model, *vae, *clip_l;
    char *backend, *prediction;
    char *prompt, *negative, *sampler, *schedule, *rng, *init, *checkpoint, *output;
    int64_t threads, width, height, steps, seed, batch, clip_skip, memory_limit_mb;
    double cfg_scale, strength;
    bool tiling, help;

    diffusion_params params;
    int64_t phase_ms; /* when the phase began */
    diffusion_phase phase;
    bool in_phase;
} cli;

static void set_defaults(cli *c) {
    diffusion_params_init(&c->params);
    *c = (cli){.params = c->params,
               .steps = c->params.steps,
               .seed = 42,
               .batch = 1,
               .clip_skip = 1,
               .cfg_scale = (double)c->params.cfg_scale,
               .strength = (double)c->params.strength};
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
        {"prediction", 0, NULL, ARG_STRING, &c->prediction, "KIND", "auto, eps or v"},
        {"backend", 0, NULL, ARG_STRING, &c->backend, "NAME", "compute device (see --list-devices)"},
        {"threads", 't', NULL, ARG_INT, &c->threads, "N", "CPU threads (0: one per core)"},
        {"memory-limit", 0, NULL, ARG_INT, &c->memory_limit_mb, "MB", "stay within this on the device"},
        {"prompt", 'p', NULL, ARG_STRING, &c->prompt, "TEXT", "what to draw"},
        {"negative", 'n', NULL, ARG_STRING, &c->negative, "TEXT", "what not to draw"},
        {"width", 'W', NULL, ARG_INT, &c->width, "PIXELS", "default: the model's own"},
        {"height", 'H', NULL, ARG_INT, &c->height, "PIXELS", "default: the model's own"},
        {"steps", 0, NULL, ARG_INT, &c->steps, "N", "sampling steps"},
        {"cfg-scale", 0, NULL, ARG_FLOAT, &c->cfg_scale, "X", "guidance"},
        {"sampler", 0, NULL, ARG_STRING, &c->sampler, "NAME", "euler, euler_a, heun, dpm++2m, or A1111's names"},
        {"scheduler", 0, NULL, ARG_STRING, &c->schedule, "NAME", "discrete, karras, exponential, sgm_uniform, simple"},
        {"rng", 0, NULL, ARG_STRING, &c->rng, "NAME", "cuda or cpu"},
        {"seed", 's', NULL, ARG_INT, &c->seed, "N", "of the first picture"},
        {"batch", 'b', NULL, ARG_INT, &c->batch, "N", "pictures"},
        {"clip-skip", 0, NULL, ARG_INT, &c->clip_skip, "N", "1: the text encoder's last layer"},
        {"init", 'i', NULL, ARG_STRING, &c->init, "FILE", "image to image: the picture to start from"},
        {"strength", 0, NULL, ARG_FLOAT, &c->strength, "X", "image to image: how much is drawn anew, 0 to 1"},
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
    char *const all[] = {c->model,    c->diffusion_model, c->vae, c->clip_l, c->backend,    c->prediction, c->prompt,
                         c->negative, c->sampler,         c->rng, c->init,   c->checkpoint, c->schedule,   c->output};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int to_int(int64_t v) {
    return v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : (int)v;
}

static void fill_params(cli *c) {
    diffusion_params *p = &c->params;
    p->prompt = c->prompt;
    p->negative = c->negative;
    p->width = to_int(c->width);
    p->height = to_int(c->height);
    p->steps = to_int(c->steps);
    p->cfg_scale = (float)c->cfg_scale;
    p->sampler = c->sampler;
    p->schedule = c->schedule; /* NULL: what the sampler's name implies */
    p->rng = c->rng;
    p->seed = (uint64_t)c->seed;
    p->batch = to_int(c->batch);
    p->clip_skip = to_int(c->clip_skip);
    p->strength = (float)c->strength;
    p->tiling = c->tiling ? DIFFUSION_TILING_ON : DIFFUSION_TILING_AUTO;
    p->checkpoint = c->checkpoint;
}

static double seconds_since(int64_t start_ms) {
    return (double)(clock_mono_ms() - start_ms) / 1000;
}

/* One line per phase with its time; sampling counts its steps in place. */
static void on_progress(void *ctx, const diffusion_progress *p) {
    cli *c = ctx;
    if (c->in_phase && p->phase != c->phase) {
        fprintf(stderr, "\r%-9s %8.2f s\n", diffusion_phase_name(c->phase), seconds_since(c->phase_ms));
    }
    if (!c->in_phase || p->phase != c->phase) c->phase_ms = clock_mono_ms();
    c->phase = p->phase;
    c->in_phase = true;
    if (p->phase == DIFFUSION_SAMPLING) fprintf(stderr, "\rsampling  %d/%d", p->step, p->steps);
}

static bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    cli *c = ctx;
    char *dir = path_dir(c->output), *stem = path_stem(c->output);
    char *model = path_stem(c->model ? c->model : c->diffusion_model);
    output_target target = {
        .dir = dir, .stem = stem, .count = c->params.batch, .format = image_format_by_name(c->output), .quality = 90};
    output_origin origin = {
        .params = &c->params, .width = picture->width, .height = picture->height, .seed = seed, .model = model};
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

static bool read_init(const char *path, image *out, err *e) {
    if (!path) return true;
    buf file;
    buf_init(&file, INIT_FILE_MAX);
    bool ok = file_read(path, &file, e) && image_decode(out, file.data, file.len, IMAGE_ALPHA_ON_WHITE, NULL, e);
    buf_free(&file);
    return ok;
}

static diffusion *open_model(cli *c, const diffusion_events *events, err *e) {
    const diffusion_files files = {
        .model = c->model, .diffusion_model = c->diffusion_model, .vae = c->vae, .clip_l = c->clip_l};
    diffusion_options options = {
        .device = c->backend, .threads = to_int(c->threads), .memory_limit = (size_t)c->memory_limit_mb << 20};
    if (!diffusion_prediction_from_name(c->prediction, &options.prediction)) {
        err_set(e, ERR_INVALID, "--prediction: auto, eps or v");
        return NULL;
    }
    return diffusion_open(&files, &options, events, e);
}

static bool run(cli *c, err *e) {
    diffusion_events events = {.ctx = c, .progress = on_progress, .picture = on_picture};
    if (image_format_by_name(c->output) == IMAGE_UNKNOWN) {
        return err_set(e, ERR_INVALID, "--output: the name must end in .png, .jpg or .webp");
    }
    image init = {0};
    diffusion *d = NULL;
    fill_params(c);
    bool ok = read_init(c->init, &init, e) && (d = open_model(c, &events, e));
    if (ok && c->init) c->params.init = &init;
    ok = ok && diffusion_generate(d, &c->params, &events, NULL, e);
    if (ok) fprintf(stderr, "%-9s %8.2f s\n", diffusion_phase_name(c->phase), seconds_since(c->phase_ms));
    diffusion_close(d);
    image_free(&init);
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
