/* diffusion.c - devices, names, opening and describing a model. Making pictures is in generate.c. */
#include "diffusion/diffusion.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/conditioning.h"
#include "diffusion/controls.h"
#include "diffusion/engine.h"
#include "diffusion/image/upscalers.h"
#include "diffusion/image_prompt.h"
#include "diffusion/load/model_kind.h"
#include "diffusion/loras.h"
#include "diffusion/memory.h"
#include "diffusion/request.h"
#include "diffusion/residency.h"
#include "diffusion/source.h"

#include <stdlib.h>
#include <string.h>

/* ---- devices and names ------------------------------------------------------------------------------------------ */

enum { DEVICES_MAX = 16 };

size_t diffusion_devices(diffusion_device *out, size_t cap) {
    backend_device list[DEVICES_MAX];
    int n = backend_list(list, DEVICES_MAX);
    if (n > DEVICES_MAX) n = DEVICES_MAX;
    for (int i = 0; i < n && (size_t)i < cap; i++) {
        const backend_device *from = &list[i];
        diffusion_device *d = &out[i];
        *d = (diffusion_device){
            .type = from->gpu ? DIFFUSION_GPU : DIFFUSION_CPU, .total = from->memory_total, .free = from->memory_free};
        str_copy(d->name, sizeof d->name, from->name);
        str_copy(d->description, sizeof d->description, from->description);
        if (from->gpu) continue;
        memory_info m = memory_status(); /* ggml takes all of the CPU's memory for free */
        d->total = (size_t)m.total;
        d->free = (size_t)m.available;
    }
    return (size_t)n;
}

const char *diffusion_phase_name(diffusion_phase phase) {
    static const char *const names[] = {"loading", "encoding", "sampling", "decoding", "upscaling"};
    return names[phase];
}

bool diffusion_precision_from_name(const char *name, diffusion_precision *out) {
    static const char *const names[] = {[DIFFUSION_PRECISION_AUTO] = "auto",
                                        [DIFFUSION_PRECISION_F32] = "f32",
                                        [DIFFUSION_PRECISION_BF16] = "bf16",
                                        [DIFFUSION_PRECISION_INT8] = "int8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!str_ieq(name ? name : "auto", names[i])) continue;
        *out = (diffusion_precision)i;
        return true;
    }
    return false;
}

bool diffusion_prediction_from_name(const char *name, diffusion_prediction *out) {
    static const struct {
        const char *name;
        diffusion_prediction value;
    } known[] = {
        {"", DIFFUSION_PREDICT_AUTO},       {"auto", DIFFUSION_PREDICT_AUTO}, {"eps", DIFFUSION_PREDICT_EPS},
        {"epsilon", DIFFUSION_PREDICT_EPS}, {"v", DIFFUSION_PREDICT_V},       {"v_prediction", DIFFUSION_PREDICT_V},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!str_ieq(name ? name : "", known[i].name)) continue;
        *out = known[i].value;
        return true;
    }
    return false;
}

const char *const *diffusion_samplers(void) {
    return sampler_names;
}
const char *const *diffusion_schedules(void) {
    return schedule_names;
}
const char *const *diffusion_rngs(void) {
    return rng_names;
}

const char *const *diffusion_upscalers(void) {
    return upscaler_names;
}
const char *const *diffusion_emphases(void) {
    return prompt_emphasis_names;
}

const char *const *diffusion_fills(void) {
    static const char *const names[] = {"original", "fill", "latent_noise", "latent_nothing", NULL};
    return names;
}

const char *const *diffusion_preprocessors(void) {
    static const char *const names[] = {"none", "canny", NULL};
    return names;
}
const char *const *diffusion_control_modes(void) {
    static const char *const names[] = {"balanced", "prompt", "control", NULL};
    return names;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* Adds one file to the identity and to the sums; the main one, which holds the diffusion model, also gives the family
 * and comes out as `main`. */
static bool describe_file(diffusion *d, const char *path, bool main_file, model_desc *main, err *e) {
    if (!path) return true;
    model_desc m;
    if (!model_describe_path(path, &m, e)) return false;
    file_info stat = {0};
    if (!file_stat(path, &stat, e)) return false;
    d->identity = str_hash(path, strlen(path), d->identity);
    d->identity = str_hash(&stat.size, sizeof stat.size, d->identity);
    d->identity = str_hash(&stat.mtime_ms, sizeof stat.mtime_ms, d->identity);
    d->info.parameters += (uint64_t)m.params;
    if (!main_file) return true;
    if (!m.supported) return err_set(e, ERR_UNSUPPORTED, "%s", m.reason);
    if (!(m.parts & MODEL_PART_DIFFUSION)) {
        return err_set(e, ERR_UNSUPPORTED, "'%.100s' holds no diffusion model (it is: %s)", path_base(path),
                       model_kind_name(m.kind));
    }
    d->family = family_find(m.family);
    if (!d->family) return err_set(e, ERR_INTERNAL, "family '%.32s' is unknown", m.family);
    *main = m;
    d->info.weight_type = tensor_type_name(m.weight_type);
    d->info.default_width = m.width;
    d->info.default_height = m.height;
    return true;
}

static bool describe_files(diffusion *d, const diffusion_files *f, diffusion_prediction wanted, err *e) {
    const char *main_file = f->diffusion_model ? f->diffusion_model : f->model;
    if (!main_file) return err_set(e, ERR_INVALID, "model: no file given");
    const char *const paths[] = {f->model, f->diffusion_model, f->vae, f->clip_l, f->clip_g};
    model_desc m = {0};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (!describe_file(d, paths[i], paths[i] == main_file, &m, e)) return false;
    }
    const bool v = wanted == DIFFUSION_PREDICT_AUTO ? m.v_prediction : wanted == DIFFUSION_PREDICT_V;
    d->predicts = v ? PREDICT_V : PREDICT_EPS;
    sigma_table_init(&d->table, 0.00085, 0.012);
    d->table.is_xl = d->family->label != LABEL_NONE;
    if (m.zero_snr) sigma_table_zero_snr(&d->table);
    return true;
}

static bool load_taesd(diffusion *d, const char *path, err *e) {
    if (!path) return true;
    if (!(d->taesd = taesd_open(path, d->backend, e))) return err_wrap(e, "taesd");
    const int channels = vae_describe(d->vae).latent_channels;
    if (!taesd_can_decode(d->taesd)) return err_set(e, ERR_UNSUPPORTED, "taesd: the file holds an encoder alone");
    return taesd_channels(d->taesd) == channels ||
           err_set(e, ERR_UNSUPPORTED, "taesd: it is for latents of %d channels, the model's have %d",
                   taesd_channels(d->taesd), channels);
}

/* A part that no file brings is said in the user's terms rather than with the name of its first tensor. */
static bool check_parts(const diffusion *d, err *e) {
    static const struct {
        const char *prefix, *what;
    } parts[] = {
        {UNET_WEIGHTS, "diffusion model: give a checkpoint, or one with --diffusion-model"},
        {VAE_WEIGHTS "decoder.", "VAE: give one with --vae"},
    };
    for (int i = 0; i < FAMILY_TEXT_MAX && d->family->text[i]; i++) {
        const clip_form *form = d->family->text[i];
        if (weights_has_prefix(d->weights, form->prefix)) continue;
        return err_set(e, ERR_UNSUPPORTED, "the files hold no text encoder %s: give one with --%s", form->option,
                       form->option);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (weights_has_prefix(d->weights, parts[i].prefix)) continue;
        return err_set(e, ERR_UNSUPPORTED, "the files hold no %s", parts[i].what);
    }
    return true;
}

/* What a network takes besides the latent says what it is for. */
static bool check_fit(const diffusion *d, err *e) {
    const unet_info u = unet_describe(d->unet);
    const int channels = vae_describe(d->vae).latent_channels, more = u.in_channels - channels;
    if ((more && more != channels && more != channels + 1) || u.out_channels != channels) {
        return err_set(e, ERR_UNSUPPORTED,
                       "the diffusion model has %d input and %d output channels, the VAE's latents have %d",
                       u.in_channels, u.out_channels, channels);
    }
    const int text = text_encoders_dim(d->text);
    if (u.context_dim != text) {
        return err_set(e, ERR_UNSUPPORTED, "the text encoder gives %d values for a token, the diffusion model takes %d",
                       text, u.context_dim);
    }
    const int label = conditioning_label_dim(d->family, text_encoders_pooled_dim(d->text));
    if (u.label_dim != label) {
        return err_set(e, ERR_UNSUPPORTED, "text and size are a label of %d values, the diffusion model takes %d",
                       label, u.label_dim);
    }
    return true;
}

static bool load_parts(diffusion *d, const diffusion_files *f, const diffusion_options *options,
                       const diffusion_events *ev, err *e) {
    const weights_files files = {.model = f->model,
                                 .diffusion_model = f->diffusion_model,
                                 .vae = f->vae,
                                 .clip_l = f->clip_l,
                                 .clip_g = f->clip_g};
    if (!(d->weights = weights_open(&files, e)) || !check_parts(d, e)) return false;
    const clip_form *const *forms = d->family->text;
    const int count = forms[1] ? 2 : 1;
    if (!(d->text = text_encoders_open(d->weights, d->backend, forms, count, e))) return err_wrap(e, "text encoder");
    if (!(d->unet = unet_open(d->weights, d->backend, e))) return err_wrap(e, "UNet");
    if (!(d->vae = vae_open(d->weights, d->backend, d->family->vae_scale, e))) return err_wrap(e, "VAE");
    if (!load_taesd(d, f->taesd, e) || !check_fit(d, e) || !memory_check_weights(d, e)) return false;
    return options->is_deferred || residency_load(d, ev, e);
}

/* False where the processor has no such kernels and they were asked for. */
static bool set_precision(backend *b, diffusion_precision precision, err *e) {
    if (precision == DIFFUSION_PRECISION_F32 || !backend_is_cpu(b)) return true;
    if (!backend_set_precision(b, CPU_BF16) && precision == DIFFUSION_PRECISION_BF16)
        return err_set(e, ERR_UNSUPPORTED, "precision bf16: this processor multiplies floats faster (f32 or auto)");
    if (precision == DIFFUSION_PRECISION_AUTO) backend_prefer_int8(b);
    if (precision == DIFFUSION_PRECISION_INT8 && !backend_set_precision(b, CPU_INT8))
        return err_set(e, ERR_UNSUPPORTED,
                       "precision int8: this processor does not multiply 8-bit integers faster "
                       "(it takes AVX-VNNI, AVX512-VNNI or ARM's dot product)");
    return true;
}

backend *options_backend(const diffusion_options *options, err *e) {
    backend *b = backend_open(options->device, options->threads, e);
    if (!b || set_precision(b, options->precision, e)) return b;
    backend_close(b);
    return NULL;
}

static void fill_info(diffusion *d) {
    diffusion_info *i = &d->info;
    i->family = d->family->name;
    i->prediction = d->predicts == PREDICT_V ? "v" : "eps";
    i->device = backend_name(d->backend);
    i->precision = backend_precision(d->backend);
    i->weight_bytes = weights_bytes(d->weights, "");
    i->can_encode_images = vae_describe(d->vae).can_encode;
    i->edits = source_appended(d) == vae_describe(d->vae).latent_channels;
    i->inpaints = source_appended(d) > vae_describe(d->vae).latent_channels;
    i->has_taesd = d->taesd != NULL;
    i->size_multiple = vae_describe(d->vae).factor;
    i->min_size = (MODEL_SIDE_MIN + i->size_multiple - 1) / i->size_multiple * i->size_multiple;
    i->max_size = MODEL_SIDE_MAX;
}

diffusion *diffusion_open(const diffusion_files *files, const diffusion_options *options,
                          const diffusion_events *events, err *e) {
    static const diffusion_options defaults = {0};
    if (!options) options = &defaults;
    diffusion *d = mem_alloc(1, sizeof *d);
    d->memory_limit = options->memory_limit;
    events_progress(events, &(diffusion_progress){.phase = DIFFUSION_LOADING, .steps = 100});
    bool ok = describe_files(d, files, options->prediction, e) && (d->backend = options_backend(options, e)) &&
              load_parts(d, files, options, events, e);
    if (!ok) {
        diffusion_close(d);
        return NULL;
    }
    fill_info(d);
    return d;
}

void diffusion_close(diffusion *d) {
    if (!d) return;
    context_cache_free(&d->contexts);
    controls_unload(d);
    image_prompt_unload(d);
    learned_words_free(d->words);
    taesd_close(d->taesd);
    vae_close(d->vae);
    unet_close(d->unet);
    text_encoders_close(d->text);
    weights_close(d->weights);
    backend_close(d->backend);
    free(d);
}

void diffusion_describe(const diffusion *d, diffusion_info *out) {
    *out = d->info;
}

/* ---- parameters ------------------------------------------------------------------------------------------------- */

void diffusion_params_init(diffusion_params *p) {
    *p = (diffusion_params){.steps = 20,
                            .cfg_scale = 7.0f,
                            .image_cfg_scale = 1.5f,
                            .sampler = "euler_a",
                            .schedule = "discrete",
                            .rng = "cuda",
                            .batch = 1,
                            .clip_skip = 1,
                            .sampling = {.eta = -1.0f,
                                         .s_noise = 1.0f,
                                         .guidance_end = 1.0f,
                                         .threshold_limit = 4.0f,
                                         .tile_overlap = 64,
                                         .cache_interval = 1},
                            .strength = 0.75f,
                            .inpaint = {.blur = 4, .padding = 32},
                            .extend = {.feather = 32},
                            .hires = {.strength = 0.7f, .upscaler = "latent"},
                            .refiner = {.switch_at = 0.8f},
                            .ip_adapter = {.weight = 1.0f, .end = 1.0f},
                            .checkpoint_ms = 500};
}

void diffusion_control_init(diffusion_control *c) {
    *c = (diffusion_control){.low = 100, .high = 200, .weight = 1.0f, .end = 1.0f};
}

uint64_t diffusion_seed(const diffusion_params *p, int i) {
    return p->sampling.subseed_strength > 0.0f ? p->seed : p->seed + (uint64_t)i;
}

uint64_t diffusion_subseed(const diffusion_params *p, int i) {
    return p->sampling.subseed + (uint64_t)i;
}

bool diffusion_check(const diffusion *d, const diffusion_params *p, err *e) {
    request r;
    return request_resolve(d, p, &r, e);
}

bool diffusion_estimate(const diffusion *d, const diffusion_params *p, diffusion_memory *out, err *e) {
    request r;
    size_t changed = 0, control = 0, shown = 0;
    if (!request_resolve(d, p, &r, e) || !loras_bytes(d, &r, &changed, e) ||
        !controls_weight_bytes(NULL, p, &control, e) || !image_prompt_weight_bytes(NULL, p, &shown, e))
        return false;
    changed += weights_changed_bytes(d->weights); /* by the LoRAs that are merged now */
    if (request_has_second(p)) r = request_second(d, &r);
    *out = (diffusion_memory){.weights = (size_t)d->info.weight_bytes + changed + control + shown,
                              .compute = memory_for_request(d, &r),
                              .free = memory_free(d)};
    return true;
}
