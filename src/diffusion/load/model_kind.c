/* model_kind.c - see model_kind.h.
 * Judged by structure where possible (which tensors exist), by widths only where two families differ in nothing else,
 * so that small test models are recognised as what they imitate. */
#include "diffusion/load/model_kind.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/name_view.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."
#define CLIP_L "cond_stage_model.transformer.text_model."
#define CLIP_G "conditioner.embedders.1."
#define OPEN_CLIP "cond_stage_model.model."
#define REFINER_CLIP "conditioner.embedders.0.model."

enum { SD1_SIDE = 512 };

static const char SUPPORTED[] = "supported: Stable Diffusion 1.x";

/* --- text --- */

const char *model_kind_name(model_kind kind) {
    static const char *const NAMES[] = {"unknown",      "checkpoint", "diffusion_model", "vae",      "taesd",    "lora",
                                        "text_encoder", "llm",        "controlnet",      "upscaler", "embedding"};
    return NAMES[kind];
}

const char *model_layout_name(model_layout layout) {
    static const char *const NAMES[] = {"ldm", "diffusers", "bare"};
    return NAMES[layout];
}

const char *model_part_name(model_part part) {
    switch (part) {
    case MODEL_PART_DIFFUSION:
        return "diffusion";
    case MODEL_PART_VAE:
        return "vae";
    case MODEL_PART_CLIP_L:
        return "clip_l";
    case MODEL_PART_CLIP_G:
        return "clip_g";
    case MODEL_PART_T5:
        return "t5";
    case MODEL_PART_LLM:
        return "llm";
    case MODEL_PART_CLIP_VISION:
        return "clip_vision";
    }
    return "?";
}

/* What people call a family. */
static const char *family_title(const char *family) {
    static const char *const TITLES[][2] = {
        {"sd1", "Stable Diffusion 1.x"},
        {"sd2", "Stable Diffusion 2.x"},
        {"sdxl", "Stable Diffusion XL"},
        {"sdxl-refiner", "SDXL refiner"},
        {"sd3", "Stable Diffusion 3"},
        {"flux", "Flux"},
        {"chroma", "Chroma"},
        {"qwen_image", "Qwen-Image"},
        {"wan", "Wan video"},
        {"hunyuan_video", "Hunyuan video"},
        {"lumina2", "Lumina 2"},
        {"aura", "AuraFlow"},
        {"pixart", "PixArt"},
        {"hidream", "HiDream"},
        {"ltxv", "LTX video"},
    };
    for (size_t i = 0; i < sizeof TITLES / sizeof *TITLES; i++)
        if (str_eq(family, TITLES[i][0])) return TITLES[i][1];
    return family;
}

/* --- totals --- */

static int64_t count_elements(const tensor_info *t) {
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

/* Adds up sizes; the dominant type is the one with most bytes, so biases do not outvote matrices. */
static void sum_up(const tensor_file *f, model_desc *d) {
    uint64_t by_type[64] = {0}; /* ggml's types; safetensors' own behind */
    uint64_t most = 0;
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const tensor_info *t = tensor_file_at(f, i);
        d->params += count_elements(t);
        d->bytes += (int64_t)t->nbytes;
        size_t slot = t->type < TENSOR_U8 ? (size_t)t->type : 48 + (size_t)(t->type - TENSOR_U8);
        by_type[slot] += t->nbytes;
        if (by_type[slot] <= most) continue;
        most = by_type[slot];
        d->weight_type = t->type;
    }
}

static void set_family(model_desc *d, const char *family) {
    str_copy(d->family, sizeof d->family, family);
}

static void set_kind(model_desc *d, model_kind kind, const char *family, unsigned parts) {
    d->kind = kind;
    d->parts |= parts;
    set_family(d, family);
}

/* --- GGUF files that say what they are --- */

static bool is_image_arch(const char *arch) {
    static const char *const ARCHS[] = {"sd1",     "sd2",        "sdxl",   "sd3",    "flux",    "chroma",
                                        "aura",    "ltxv",       "hyvid",  "wan",    "hidream", "cosmos",
                                        "lumina2", "qwen_image", "pixart", "z_image"};
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (str_eq(arch, ARCHS[i])) return true;
    return false;
}

static void read_llm_metadata(const tensor_file *f, const char *arch, model_desc *d) {
    char key[96];
    snprintf(key, sizeof key, "%.60s.context_length", arch);
    tensor_file_meta_i64(f, key, &d->context_len);
}

/* True when the architecture settles it. An image architecture does not: the tensors tell more. */
static bool describe_gguf(const tensor_file *f, model_desc *d) {
    const char *arch = "", *type = "";
    tensor_file_meta_str(f, "general.type", &type);
    if (!tensor_file_meta_str(f, "general.architecture", &arch) || is_image_arch(arch)) return false;
    if (str_eq(type, "adapter")) {
        set_kind(d, MODEL_LORA, arch, 0);
    } else if (str_starts(arch, "t5")) {
        set_kind(d, MODEL_TEXT_ENCODER, "t5", MODEL_PART_T5);
    } else if (str_eq(arch, "clip")) {
        set_kind(d, MODEL_UNKNOWN, "clip", MODEL_PART_CLIP_VISION);
        str_copy(d->reason, sizeof d->reason, "image projector of a multimodal LLM: not supported yet");
    } else if (tensor_file_find(f, "token_embd.weight")) {
        set_kind(d, MODEL_LLM, arch, MODEL_PART_LLM);
        read_llm_metadata(f, arch, d);
    } else {
        return false;
    }
    d->layout = MODEL_LAYOUT_BARE;
    return true;
}

/* --- small kinds --- */

static const char *family_by_context(int64_t width) {
    return width == 1024 ? "sd2" : width == 2048 ? "sdxl" : "sd1";
}

/* The first tensor with `part` in its name. */
static const tensor_info *find_part(const name_view *v, const char *part) {
    for (size_t i = 0; i < tensor_file_count(v->file); i++)
        if (v->names[i] && strstr(v->names[i], part)) return tensor_file_at(v->file, i);
    return NULL;
}

static const char *lora_family(const name_view *v) {
    if (name_view_has_part(v, "double_blocks") || name_view_has_part(v, "single_transformer_blocks")) return "flux";
    if (name_view_has_part(v, "joint_blocks")) return "sd3";
    if (name_view_has_prefix(v, "lora_te2_")) return "sdxl";
    static const char *const KEYS[] = {"attn2_to_k.lora_down", "attn2.to_k.lora_A", "attn2.to_k.lora.down",
                                       "attn2_to_k.hada_w1_b"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const tensor_info *t = find_part(v, KEYS[i]);
        if (t) return family_by_context(t->ne[0]);
    }
    return "sd1";
}

static bool is_lora(const name_view *v) {
    static const char *const PARTS[] = {".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.",
                                        ".lora.up.", ".lora.down.", ".hada_w1", ".lokr_w"};
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        if (name_view_has_part(v, PARTS[i])) return true;
    return false;
}

static bool is_controlnet(const name_view *v) {
    return name_view_has_prefix(v, "control_model.") || name_view_has_part(v, "controlnet_cond_embedding.") ||
           name_view_has_part(v, "controlnet_blocks.") || name_view_has_part(v, "input_hint_block.");
}

static bool has_conv(const name_view *v, const char *name) {
    const tensor_info *t = name_view_find(v, name);
    return t && t->n_dims == 4;
}

static bool is_upscaler(const name_view *v) {
    return has_conv(v, "model.1.sub.0.RDB1.conv1.0.weight") || has_conv(v, "body.0.rdb1.conv1.weight") ||
           has_conv(v, "RRDB_trunk.0.RDB1.conv1.weight");
}

static bool is_embedding(const name_view *v) {
    size_t n = tensor_file_count(v->file);
    if (name_view_find(v, "emb_params")) return true;
    return n <= 2 && (name_view_find(v, "clip_l") || name_view_find(v, "clip_g"));
}

/* The tiny VAE is a plain list of layers: with the halves' names in front, or one half alone. */
static bool is_taesd(const name_view *v) {
    return has_conv(v, "encoder.layers.0.weight") || has_conv(v, "decoder.layers.1.weight") ||
           has_conv(v, "taesd_decoder.1.weight") || has_conv(v, "decoder.1.weight") ||
           (has_conv(v, "3.conv.0.weight") && (has_conv(v, "1.weight") || has_conv(v, "0.weight")));
}

static bool describe_small(const name_view *v, model_desc *d) {
    d->layout = MODEL_LAYOUT_BARE;
    if (is_lora(v))
        set_kind(d, MODEL_LORA, lora_family(v), 0);
    else if (is_controlnet(v))
        set_kind(d, MODEL_CONTROLNET, "", 0);
    else if (is_upscaler(v))
        set_kind(d, MODEL_UPSCALER, "esrgan", 0);
    else if (is_embedding(v))
        set_kind(d, MODEL_EMBEDDING, "", 0);
    else if (is_taesd(v))
        set_kind(d, MODEL_TAESD, "taesd", 0);
    else
        return false;
    return true;
}

/* --- diffusion models --- */

/* Transformers, by a tensor only they have. Searched for with and without the LDM prefix. */
static const char *transformer_family(const name_view *v) {
    static const char *const MARKS[][2] = {
        {"distilled_guidance_layer.", "chroma"},
        {"txt_in.individual_token_refiner.", "hunyuan_video"},
        {"double_blocks.0.", "flux"},
        {"single_transformer_blocks.0.", "flux"},
        {"double_stream_blocks.0.", "hidream"},
        {"joint_blocks.0.", "sd3"},
        {"transformer_blocks.0.img_mod.", "qwen_image"},
        {"transformer_blocks.0.attn.add_k_proj.", "sd3"},
        {"double_layers.0.", "aura"},
        {"cap_embedder.", "lumina2"},
        {"blocks.0.cross_attn.k_img.", "wan"},
        {"blocks.0.cross_attn.norm_k.", "wan"},
        {"blocks.0.scale_shift_table", "pixart"},
        {"patchify_proj.", "ltxv"},
    };
    for (size_t i = 0; i < sizeof MARKS / sizeof *MARKS; i++) {
        char prefixed[96];
        snprintf(prefixed, sizeof prefixed, UNET "%s", MARKS[i][0]);
        if (name_view_has_prefix(v, MARKS[i][0]) || name_view_has_prefix(v, prefixed)) return MARKS[i][1];
    }
    return NULL;
}

/* SDXL takes size and crop as an extra embedding; SD 2 differs from 1 in its text encoder and, where that is missing,
 * in the width of its context. */
static const char *unet_family(const name_view *v) {
    if (name_view_has_prefix(v, REFINER_CLIP)) return "sdxl-refiner";
    const tensor_info *context = find_part(v, ".attn2.to_k.weight");
    if (name_view_has_prefix(v, UNET "label_emb.")) return context && context->ne[0] == 1280 ? "sdxl-refiner" : "sdxl";
    if (name_view_has_prefix(v, OPEN_CLIP) || (context && context->ne[0] == 1024)) return "sd2";
    return "sd1";
}

static void find_diffusion(const name_view *v, model_desc *d) {
    const tensor_info *conv_in = name_view_find(v, UNET "input_blocks.0.0.weight");
    const char *family = conv_in ? unet_family(v) : transformer_family(v);
    if (!family) return;
    d->parts |= MODEL_PART_DIFFUSION;
    set_family(d, family);
    if (conv_in && conv_in->ne[2] <= 4096) d->in_channels = (int)conv_in->ne[2];
}

/* --- the other components --- */

static void find_vae(const name_view *v, model_desc *d) {
    const tensor_info *conv_in = name_view_find(v, VAE "decoder.conv_in.weight");
    if (!conv_in && !name_view_find(v, VAE "encoder.conv_in.weight")) return;
    d->parts |= MODEL_PART_VAE;
    if (!d->family[0]) set_family(d, conv_in && conv_in->ne[2] == 16 ? "flux" : "sd1");
}

static void find_text_encoders(const name_view *v, model_desc *d) {
    const tensor_info *clip = name_view_find(v, CLIP_L "embeddings.token_embedding.weight");
    if (clip) d->parts |= clip->ne[0] == 1280 ? MODEL_PART_CLIP_G : MODEL_PART_CLIP_L;
    if (name_view_has_prefix(v, CLIP_G) || name_view_has_prefix(v, OPEN_CLIP) || name_view_has_prefix(v, REFINER_CLIP))
        d->parts |= MODEL_PART_CLIP_G;
    if (name_view_has_part(v, "block.0.layer.0.SelfAttention.q.") || name_view_has_prefix(v, "enc.blk.0."))
        d->parts |= MODEL_PART_T5;
    if (name_view_has_prefix(v, "vision_model.")) d->parts |= MODEL_PART_CLIP_VISION;
    if (name_view_has_part(v, "layers.0.self_attn.q_proj.") && name_view_has_part(v, "layers.0.mlp.gate_proj."))
        d->parts |= MODEL_PART_LLM;
}

static const char *text_family(unsigned parts) {
    return parts & MODEL_PART_T5       ? "t5"
           : parts & MODEL_PART_CLIP_G ? "clip_g"
           : parts & MODEL_PART_CLIP_L ? "clip_l"
           : parts & MODEL_PART_LLM    ? "llm"
                                       : "clip_vision";
}

/* The components found decide the kind. */
static void name_whole(model_desc *d) {
    unsigned text = MODEL_PART_CLIP_L | MODEL_PART_CLIP_G | MODEL_PART_T5;
    if (d->parts & MODEL_PART_DIFFUSION)
        d->kind = d->parts & (text | MODEL_PART_VAE) ? MODEL_CHECKPOINT : MODEL_DIFFUSION;
    else if (d->parts & MODEL_PART_VAE)
        d->kind = MODEL_VAE;
    else if (d->parts & text)
        set_kind(d, MODEL_TEXT_ENCODER, text_family(d->parts), 0);
    else if (d->parts & MODEL_PART_LLM)
        set_kind(d, MODEL_LLM, "llm", 0);
    else if (d->parts & MODEL_PART_CLIP_VISION)
        set_family(d, "clip_vision");
}

static model_layout layout_of(const tensor_file *f) {
    bool is_ldm = false, is_diffusers = false;
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const char *name = tensor_file_at(f, i)->name;
        if (str_starts(name, UNET) || str_starts(name, VAE) || str_starts(name, "cond_stage_model.")) is_ldm = true;
        if (strstr(name, "down_blocks.") || strstr(name, "up_blocks.") || strstr(name, "transformer_blocks.0.attn.") ||
            str_starts(name, "text_model."))
            is_diffusers = true;
    }
    return is_ldm ? MODEL_LAYOUT_LDM : is_diffusers ? MODEL_LAYOUT_DIFFUSERS : MODEL_LAYOUT_BARE;
}

/* Nothing cut short in the middle of a character. */
static void copy_text(char *dst, size_t cap, const char *text) {
    if (!str_copy(dst, cap, text)) dst[str_utf8_complete(dst, strlen(dst))] = 0;
}

static bool is_side(int v) {
    return v >= MODEL_SIDE_MIN && v <= MODEL_SIDE_MAX && v % 8 == 0;
}

/* The ModelSpec standard (https://github.com/Stability-AI/ModelSpec): "512x512". */
static void read_resolution(const tensor_file *f, model_desc *d) {
    const char *text = NULL;
    int w, h;
    if (!tensor_file_meta_str(f, "modelspec.resolution", &text) || !str_to_size(text, &w, &h)) return;
    if (!is_side(w) || !is_side(h)) return;
    d->width = w;
    d->height = h;
}

static void read_hints(const tensor_file *f, model_desc *d) {
    const char *text = "";
    if (tensor_file_meta_str(f, "general.name", &text) || tensor_file_meta_str(f, "modelspec.title", &text))
        copy_text(d->name, sizeof d->name, text);
    if (tensor_file_meta_str(f, "mysti.examples", &text)) copy_text(d->examples, sizeof d->examples, text);
    read_resolution(f, d);
    text = "";
    tensor_file_meta_str(f, "modelspec.prediction_type", &text);
    d->v_prediction = str_eq(text, "v") || str_eq(text, "v_prediction") || tensor_file_find(f, "v_pred");
}

/* --- the verdict --- */

static void refuse(model_desc *d, const char *fmt, const char *what) {
    if (!d->reason[0]) snprintf(d->reason, sizeof d->reason, fmt, what, SUPPORTED);
}

static void judge_unet(model_desc *d) {
    if (!str_eq(d->family, "sd1"))
        refuse(d, "%s model: not supported yet; %s", family_title(d->family));
    else if (d->in_channels == 9)
        refuse(d, "%s: not supported yet; %s", "inpainting model");
    else if (d->in_channels == 8)
        refuse(d, "%s: not supported yet; %s", "instruct-pix2pix model");
    else
        d->supported = true;
    if (!d->width && str_eq(d->family, "sd1")) d->width = d->height = SD1_SIDE;
}

/* What can be said of a file whose tensors say nothing. */
static void judge_unknown(const tensor_file *f, model_desc *d) {
    int64_t part = 0;
    if (f && tensor_file_meta_i64(f, "split.no", &part) && part > 0)
        refuse(d, "%s; choose the first one", "a further part of a split model");
    else if (f && tensor_file_count(f) == 0)
        refuse(d, "%s", "a file without tensors");
    else
        refuse(d, "%s: neither its tensors nor its metadata are known", "unknown kind of model");
}

static void judge(const tensor_file *f, model_desc *d) {
    switch (d->kind) {
    case MODEL_CHECKPOINT:
    case MODEL_DIFFUSION:
        judge_unet(d);
        break;
    case MODEL_VAE:
        d->supported = str_eq(d->family, "sd1");
        if (!d->supported) refuse(d, "VAE of a %s model: not supported yet; %s", family_title(d->family));
        break;
    case MODEL_TEXT_ENCODER:
        d->supported = str_eq(d->family, "clip_l");
        if (!d->supported) refuse(d, "text encoder %s: not supported yet; %s", d->family);
        break;
    case MODEL_LLM:
        d->supported = !f || tensor_file_format(f) == TENSOR_FORMAT_GGUF;
        if (!d->supported) refuse(d, "%s in safetensors: not supported; convert it to GGUF", "language model");
        break;
    case MODEL_UNKNOWN:
        judge_unknown(f, d);
        break;
    default:
        refuse(d, "%s: not supported yet; %s", model_kind_name(d->kind));
        break;
    }
}

static void describe_tensors(const tensor_file *f, model_desc *d) {
    name_view v;
    name_view_init(&v, f, COMPONENT_ANY);
    if (!describe_small(&v, d)) {
        find_diffusion(&v, d);
        find_vae(&v, d);
        find_text_encoders(&v, d);
        name_whole(d);
        d->layout = layout_of(f);
    }
    name_view_free(&v);
}

void model_describe(const tensor_file *f, model_desc *out) {
    *out = (model_desc){0};
    sum_up(f, out);
    read_hints(f, out);
    if (!describe_gguf(f, out)) describe_tensors(f, out);
    const char *arch;
    if (out->kind == MODEL_UNKNOWN && tensor_file_meta_str(f, "general.architecture", &arch) && is_image_arch(arch))
        set_kind(out, MODEL_DIFFUSION, arch, MODEL_PART_DIFFUSION);
    judge(f, out);
}

/* --- folders in the diffusers layout --- */

bool model_is_diffusers_dir(const char *path) {
    char *index = path_join(path, "model_index.json");
    bool ok = path_exists(index);
    free(index);
    return ok;
}

/* Full precision first, then by name, so that the choice does not depend on the order of the folder. */
static bool is_better(const char *name, const char *than) {
    if (!than) return true;
    bool half = strstr(name, ".fp16.") != NULL, than_half = strstr(than, ".fp16.") != NULL;
    return half != than_half ? than_half : strcmp(name, than) < 0;
}

static bool pick_file(void *ctx, const char *name) {
    char **best = ctx;
    bool is_candidate = str_iends(name, ".safetensors") && !strstr(name, "-of-") && !strstr(name, "non_ema");
    if (is_candidate && is_better(name, *best)) str_set(best, name);
    return true;
}

char *model_diffusers_file(const char *dir, const char *component) {
    char *folder = path_join(dir, component), *best = NULL, *path = NULL;
    if (path_is_dir(folder) && file_list_dir(folder, pick_file, &best, NULL) && best) path = path_join(folder, best);
    free(best);
    free(folder);
    return path;
}

/* Adds what one component's file has to the whole. */
static bool add_component(const char *dir, const char *component, model_desc *d, err *e) {
    char *path = model_diffusers_file(dir, component);
    if (!path) return true;
    tensor_file *f = tensor_file_open_header(path, e);
    free(path);
    if (!f) return err_wrap(e, "%s", component);
    model_desc part;
    model_describe(f, &part);
    tensor_file_close(f);
    d->parts |= part.parts;
    d->params += part.params;
    if (part.parts & MODEL_PART_DIFFUSION) {
        set_family(d, part.family);
        d->in_channels = part.in_channels;
        d->weight_type = part.weight_type;
        d->width = part.width;
        d->height = part.height;
    }
    d->bytes += part.bytes;
    return true;
}

static void read_scheduler(const char *dir, model_desc *d) {
    char *folder = path_join(dir, "scheduler"), *path = path_join(folder, "scheduler_config.json");
    buf text;
    buf_init(&text, 1 << 20);
    yyjson_doc *doc = file_read(path, &text, NULL) ? json_parse(text.data, text.len, NULL) : NULL;
    if (doc) {
        json_in root = json_root(doc);
        const char *type = "";
        json_get_str(&root, "prediction_type", &type, NULL);
        d->v_prediction = str_eq(type, "v_prediction");
        yyjson_doc_free(doc);
    }
    buf_free(&text);
    free(path);
    free(folder);
}

static bool describe_dir(const char *dir, model_desc *d, err *e) {
    static const char *const COMPONENTS[] = {"unet", "transformer", "vae", "text_encoder", "text_encoder_2"};
    *d = (model_desc){.layout = MODEL_LAYOUT_DIFFUSERS};
    for (size_t i = 0; i < sizeof COMPONENTS / sizeof *COMPONENTS; i++)
        if (!add_component(dir, COMPONENTS[i], d, e)) return err_wrap(e, "'%.60s'", path_base(dir));
    if (!(d->parts & MODEL_PART_DIFFUSION))
        return err_set(e, ERR_FORMAT, "'%.100s': no unet/*.safetensors in it", path_base(dir));
    str_copy(d->name, sizeof d->name, path_base(dir));
    read_scheduler(dir, d);
    name_whole(d);
    judge(NULL, d);
    return true;
}

bool model_describe_path(const char *path, model_desc *out, err *e) {
    if (path_is_dir(path)) {
        if (model_is_diffusers_dir(path)) return describe_dir(path, out, e);
        return err_set(e, ERR_FORMAT, "'%.100s' is a folder without model_index.json", path_base(path));
    }
    tensor_file *f = tensor_file_open_header(path, e);
    if (!f) return false;
    model_describe(f, out);
    tensor_file_close(f);
    return true;
}
