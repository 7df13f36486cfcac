/* convert.c - mysti_sd_worker convert: a model as GGUF, in types of one's choice. */
#include "base/args.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/convert.h"
#include "sd/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct cli {
    char *model, *diffusion_model, *vae, *clip_l, *clip_g;
    char *type, *rules, *output;
    bool quiet, help;
    int told; /* percent */
} cli;

static bool parse(cli *c, int argc, char **argv, err *e) {
    const arg_spec specs[] = {
        {"model", 'm', NULL, ARG_STRING, &c->model, "FILE", "safetensors, gguf, ckpt/pt/pth, or a diffusers folder"},
        {"diffusion-model", 0, NULL, ARG_STRING, &c->diffusion_model, "FILE",
         "the UNet alone, or instead of the model's"},
        {"vae", 0, NULL, ARG_STRING, &c->vae, "FILE", "another VAE"},
        {"clip_l", 0, NULL, ARG_STRING, &c->clip_l, "FILE", "another text encoder"},
        {"clip_g", 0, NULL, ARG_STRING, &c->clip_g, "FILE", "another second text encoder"},
        {"type", 0, NULL, ARG_STRING, &c->type, "TYPE", "f32 f16 bf16 q8_0 q6_K q5_K q5_1 q5_0 q4_K q4_1 q4_0 ..."},
        {"tensor-types", 0, NULL, ARG_STRING, &c->rules, "RULES",
         "PATTERN=TYPE,... by name; * is any text, ? a character"},
        {"output", 'o', NULL, ARG_STRING, &c->output, "FILE", "what to write: out.gguf"},
        {"quiet", 'q', NULL, ARG_FLAG, &c->quiet, NULL, "no progress"},
        {"help", 'h', NULL, ARG_FLAG, &c->help, NULL, "this text"},
    };
    const size_t count = sizeof specs / sizeof *specs;
    if (!args_parse(argc, argv, specs, count, e)) return false;
    if (c->help) args_print_help(specs, count);
    return true;
}

static void on_progress(void *ctx, uint64_t done, uint64_t total) {
    cli *c = ctx;
    const int percent = total ? (int)((double)done / (double)total * 100) : 100;
    if (c->quiet || percent == c->told) return;
    c->told = percent;
    fprintf(stderr, "\rconverting %d%%", percent);
}

/* Writing over a file that is being read would be read again half written by whoever has it open. */
static bool check_output(const cli *c, err *e) {
    const char *const inputs[] = {c->model, c->diffusion_model, c->vae, c->clip_l, c->clip_g};
    char *output = path_absolute(c->output, NULL);
    bool ok = true;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && ok && output; i++) {
        char *input = inputs[i] ? path_absolute(inputs[i], NULL) : NULL;
        if (input && str_eq(input, output)) ok = err_set(e, ERR_INVALID, "--output: is the model itself");
        free(input);
    }
    free(output);
    return ok;
}

static bool run(cli *c, err *e) {
    const convert_request r = {.files = {.model = c->model,
                                         .diffusion_model = c->diffusion_model,
                                         .vae = c->vae,
                                         .clip_l = c->clip_l,
                                         .clip_g = c->clip_g},
                               .type = c->type,
                               .rules = c->rules,
                               .output = c->output,
                               .progress = on_progress,
                               .ctx = c};
    convert_result result;
    if (!check_output(c, e) || !convert_model(&r, &result, e)) return false;
    if (!c->quiet) fprintf(stderr, "\r");
    printf("%s: %zu tensors, %.1f MB, %zu of them not %s\n", c->output, result.tensors, (double)result.bytes / 1e6,
           result.other, c->type);
    return true;
}

int cli_convert(int argc, char **argv) {
    cli c = {.told = -1};
    err e;
    str_set(&c.type, "f16");
    str_set(&c.output, "out.gguf");
    int code = 0;
    if (!parse(&c, argc, argv, &e))
        code = 2;
    else if (!c.help && !run(&c, &e))
        code = e.code == ERR_INVALID ? 2 : 1;
    if (code) fprintf(stderr, "%smysti_sd_worker convert: %s\n", c.told >= 0 ? "\n" : "", e.msg);
    char *const all[] = {c.model, c.diffusion_model, c.vae, c.clip_l, c.clip_g, c.type, c.rules, c.output};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return code;
}
