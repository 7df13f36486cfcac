/* controlnet.c - see controlnet.h. */
#include "diffusion/model/controlnet.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/controlnet_form.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/layers.h"

#include <stdlib.h>

enum { COLOURS = 3, FACTOR = 8 };

struct controlnet {
    backend *b;
    weights *w;
    controlnet_form form;
    unet_encoder half;
    layer hints[CONTROLNET_HINTS];
    layer zeros[UNET_STAGES_MAX], middle; /* 1x1 */
};

/* The hint is halved three times: by the third, the fifth and the seventh convolution. */
static int hint_stride(int i) {
    return i == 2 || i == 4 || i == 6 ? 2 : 1;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void load_hints(controlnet *c, const layers *l) {
    int64_t in = COLOURS;
    for (int i = 0; i < CONTROLNET_HINTS; i++) {
        char name[CONTROLNET_NAME_MAX], weight[CONTROLNET_NAME_MAX + 8];
        controlnet_hint_name(&c->form, i, name);
        snprintf(weight, sizeof weight, "%s.weight", name);
        const int64_t out = i + 1 < CONTROLNET_HINTS ? layers_dim(l, weight, 3) : c->half.skips[0].channels;
        c->hints[i] = layer_conv(l, name, 3, in, out);
        in = out;
    }
}

static void load_zeros(controlnet *c, const layers *l) {
    char name[CONTROLNET_NAME_MAX];
    for (int i = 0; i < c->half.inputs; i++) {
        const int64_t channels = c->half.skips[i].channels;
        controlnet_zero_name(&c->form, i, name);
        c->zeros[i] = layer_conv(l, name, 1, channels, channels);
    }
    c->middle = layer_conv(l, controlnet_middle_name(&c->form), 1, c->half.end.channels, c->half.end.channels);
}

static bool read_form(controlnet *c, const char *path, err *e) {
    tensor_file *f = tensor_file_open_header(path, e);
    if (!f) return false;
    const bool ok = controlnet_form_read(f, &c->form, e);
    tensor_file_close(f);
    return ok;
}

static bool have_same_skips(const unet_encoder *a, const unet_encoder *b) {
    if (a->inputs != b->inputs || a->end.channels != b->end.channels || a->end.level != b->end.level) return false;
    for (int i = 0; i < a->inputs; i++)
        if (a->skips[i].channels != b->skips[i].channels || a->skips[i].level != b->skips[i].level) return false;
    return true;
}

/* The network is given the noisy latent alone, also where the model's takes more. */
static bool check_fit(const controlnet *c, const unet_encoder *model, int channels, err *e) {
    const unet_encoder *u = &c->half;
    if (u->end.context_dim != model->end.context_dim)
        return err_set(e, ERR_UNSUPPORTED, "a ControlNet for text of %d values (%s), the model's has %d",
                       u->end.context_dim, c->form.family, model->end.context_dim);
    if (u->label_dim != model->label_dim)
        return err_set(e, ERR_UNSUPPORTED, "a ControlNet for a label of %d values (%s), the model's has %d",
                       u->label_dim, c->form.family, model->label_dim);
    if (u->in_channels != channels)
        return err_set(e, ERR_UNSUPPORTED, "a ControlNet for latents of %d channels, the model's have %d",
                       u->in_channels, channels);
    return have_same_skips(u, model) ||
           err_set(e, ERR_UNSUPPORTED, "a ControlNet for a UNet of other levels or widths than the model's (%s)",
                   c->form.family);
}

static bool load(controlnet *c, const char *path, const unet_encoder *model, int channels, err *e) {
    bool ok = true;
    if (!read_form(c, path, e) || !(c->w = weights_open(&(weights_files){.model = path}, e))) return false;
    const layers half = layers_at(c->w, controlnet_encoder_name(&c->form), &ok, e), top = layers_at(c->w, "", &ok, e);
    unet_encoder_load(&c->half, &half);
    load_hints(c, &top);
    load_zeros(c, &top);
    return ok && check_fit(c, model, channels, e) && weights_commit(c->w, "", backend_handle(c->b), NULL, NULL, e);
}

controlnet *controlnet_open(const char *path, const unet_encoder *model, int channels, backend *b, err *e) {
    controlnet *c = mem_alloc(1, sizeof *c);
    c->b = b;
    if (load(c, path, model, channels, e)) return c;
    controlnet_close(c);
    err_wrap(e, "'%.60s'", path_base(path));
    return NULL;
}

void controlnet_close(controlnet *c) {
    if (!c) return;
    unet_encoder_free(&c->half);
    weights_close(c->w);
    free(c);
}

void controlnet_release(controlnet *c) {
    weights_release(c->w, "");
}

/* --- sizes -------------------------------------------------------------------------------------------------------- */

static size_t level_cells(int level, int h, int w) {
    for (; level > 0; level--) h = (h + 1) / 2, w = (w + 1) / 2;
    return (size_t)h * (size_t)w;
}

size_t control_part_values(const unet_encoder *u, int i, int h, int w) {
    const unet_skip s = i < u->inputs ? u->skips[i] : (unet_skip){u->end.channels, u->end.level};
    return (size_t)s.channels * level_cells(s.level, h, w);
}

size_t control_values(const unet_encoder *u, int h, int w) {
    size_t sum = 0;
    for (int i = 0; i <= u->inputs; i++) sum += control_part_values(u, i, h, w);
    return sum;
}

size_t controlnet_hint_values(const controlnet *c, int h, int w) {
    return (size_t)c->half.skips[0].channels * (size_t)h * (size_t)w;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct hint_call {
    const controlnet *c;
    const float *rgb;
    int width, height;
    float *out;
} hint_call;

static bool build_hint(graph *g, void *ctx, err *e) {
    (void)e;
    const hint_call *call = ctx;
    tensor *x = graph_input_f32(g, call->rgb, call->width, call->height, COLOURS, 1);
    for (int i = 0; i < CONTROLNET_HINTS; i++) {
        if (!graph_has_room(g, UNET_STAGE_OPERATIONS)) break;
        x = nn_conv2d(g, i ? nn_silu(g, x) : x, &call->c->hints[i], hint_stride(i), 1);
    }
    graph_output(g, x, call->out);
    return true;
}

bool controlnet_hint(controlnet *c, const float *rgb, int width, int height, float *out, err *e) {
    if (width < 1 || height < 1 || width % FACTOR || height % FACTOR)
        return err_set(e, ERR_INVALID, "a control picture of %dx%d", width, height);
    hint_call call = {c, rgb, width, height, out};
    return backend_compute(c->b, build_hint, &call, e) || err_wrap(e, "ControlNet");
}

typedef struct eval_call {
    const controlnet *c;
    const unet_input *in;
    const float *hint;
    float *out;
} eval_call;

/* Writes a result behind the last one. */
static void put(graph *g, tensor *x, const layer *zero, float **out) {
    tensor *y = nn_conv2d(g, x, zero, 1, 0);
    graph_output(g, y, *out);
    *out += ggml_nelements(y);
}

static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    const eval_call *call = ctx;
    const controlnet *c = call->c;
    const unet_input *in = call->in;
    const unet_pass p = unet_encoder_begin(&c->half, g, in);
    tensor *x = graph_input_f32(g, in->x, in->w, in->h, c->half.in_channels, in->n), *skips[UNET_STAGES_MAX];
    tensor *hint = graph_input_f32(g, call->hint, in->w, in->h, c->half.skips[0].channels, 1);
    x = unet_encoder_forward(&c->half, &p, x, hint, skips);
    if (!graph_has_room(g, UNET_STAGE_OPERATIONS)) return true; /* not all skips are there */
    float *out = call->out;
    for (int i = 0; i < c->half.inputs; i++) put(g, skips[i], &c->zeros[i], &out);
    put(g, x, &c->middle, &out);
    return true;
}

bool controlnet_eval(controlnet *c, const unet_input *in, const float *hint, float *out, err *e) {
    if (!unet_input_check(in, e)) return false;
    eval_call call = {c, in, hint, out};
    return backend_compute(c->b, build, &call, e) || err_wrap(e, "ControlNet");
}
