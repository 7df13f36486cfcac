/* model_kind.c - see model_kind.h.
 * Judged by structure where possible (which tensors exist), by widths only where two families differ in nothing else,
 * so that small test models are recognised as what they imitate. */
#include "diffusion/load/model_kind.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/controlnet_form.h"
#include "diffusion/load/embedding_form.h"
#include "diffusion/load/ip_adapter_form.h"
#include "diffusion/load/name_view.h"
#include "diffusion/load/tensor_values.h"
#include "diffusion/load/upscaler_form.h"
#include "json/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."
#define CLIP_L "cond_stage_model.transformer.text_model."
#define CLIP_G "conditioner.embedders.1."

/* Widths that tell families apart where nothing else does. */
enum { CLIP_L_WIDTH = 768, CLIP_H_WIDTH = 1024, CLIP_G_WIDTH = 1280 };

static const char SUPPORTED[] = "supported: Stable Diffusion 1.x, 2.x and XL";

/* --- text --- */

const char *model_kind_name(model_kind kind) {
    static const char *const NAMES[] = {
        "unknown", "checkpoint", "diffusion_model", "vae",       "taesd",      "lora",       "text_encoder",
        "llm",     "controlnet", "upscaler",        "embedding", "ip_adapter", "clip_vision"};
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
    case MODEL_PART_CLIP_H:
        return "clip_h";
    }
    return "?";
}

const char *model_family_title(const char *family) {
    static const char *const TITLES[][2] = {
        {"sd1", "Stable Diffusion 1.x"},
        {"sd2", "Stable Diffusion 2.x"},
        {"sd2-unclip", "Stable Diffusion 2.1 unCLIP"},
        {"sd2-upscaler", "Stable Diffusion x4 upscaler"},
        {"sdxl", "Stable Diffusion XL"},
        {"sdxl-refiner", "SDXL refiner"},
        {"playground", "Playground 2.5"},
        {"cosxl", "CosXL"},
        {"svd", "Stable Video Diffusion"},
        {"zero123", "Zero123"},
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

/* What kohya's trainer writes down; "" when it says nothing. */
static const char *lora_family_said(const tensor_file *f) {
    static const char *const VERSIONS[][2] = {
        {"sdxl_", "sdxl"}, {"sd_v1", "sd1"}, {"sd_v2", "sd2"}, {"sd3", "sd3"}, {"flux", "flux"}};
    const char *text = "";
    tensor_file_meta_str(f, "ss_base_model_version", &text);
    for (size_t i = 0; i < sizeof VERSIONS / sizeof *VERSIONS; i++)
        if (str_starts(text, VERSIONS[i][0])) return VERSIONS[i][1];
    return "";
}

static const char *lora_family(const name_view *v) {
    if (name_view_has_part(v, "double_blocks") || name_view_has_part(v, "single_transformer_blocks")) return "flux";
    if (name_view_has_part(v, "joint_blocks")) return "sd3";
    if (name_view_has_prefix(v, "lora_te2_") || name_view_has_prefix(v, CLIP_G)) return "sdxl";
    static const char *const KEYS[] = {"attn2_to_k.lora_down", "attn2.to_k.lora_A", "attn2.to_k.lora.down",
                                       "attn2_to_k.hada_w1_b", "attn2_to_k.diff",   "attn2.processor.to_k_lora.down",
                                       "attn2.to_k.lora_down"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const tensor_info *t = name_view_find_part(v, KEYS[i]);
        if (t) return family_by_context(t->ne[0]);
    }
    const char *said = lora_family_said(v->file);
    return said[0] ? said : "sd1";
}

static bool is_lora(const name_view *v) {
    static const char *const PARTS[] = {".lora_up.",   ".lora_down.", ".lora_A.",    ".lora_B.", ".lora.up.",
                                        ".lora.down.", "_lora.up.",   "_lora.down.", ".hada_w1", ".lokr_w"};
    if (name_view_has_prefix(v, "lora_unet_") || name_view_has_prefix(v, "lora_te")) return true;
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        if (name_view_has_part(v, PARTS[i])) return true;
    return false;
}

static bool has_conv(const name_view *v, const char *name) {
    const tensor_info *t = name_view_find(v, name);
    return t && t->n_dims == 4;
}

/* Its factor belongs to the family: "esrgan-x4". */
static bool describe_upscaler(const tensor_file *f, model_desc *d) {
    upscaler_form form;
    err why = {0};
    const bool ok = upscaler_form_read(f, &form, &why);
    if (form.kind == UPSCALER_NONE) return false;
    set_kind(d, MODEL_UPSCALER, "", 0);
    const char *name = form.kind == UPSCALER_RRDB ? "esrgan" : "compact";
    snprintf(d->family, sizeof d->family, ok ? "%s-x%d" : "%s", name, form.scale);
    if (!ok) str_copy(d->reason, sizeof d->reason, why.msg);
    return true;
}

static bool describe_controlnet(const tensor_file *f, model_desc *d) {
    controlnet_form form;
    err why = {0};
    const bool ok = controlnet_form_read(f, &form, &why);
    if (!form.is_controlnet) return false;
    set_kind(d, MODEL_CONTROLNET, form.family, 0);
    if (!ok) str_copy(d->reason, sizeof d->reason, why.msg);
    return true;
}

/* Some hold LoRAs, too. */
static bool describe_ip_adapter(const tensor_file *f, model_desc *d) {
    ip_adapter_form form;
    err why = {0};
    const bool ok = ip_adapter_form_read(f, &form, &why);
    if (!form.is_ip_adapter) return false;
    set_kind(d, MODEL_IP_ADAPTER, form.family, 0);
    if (!ok) str_copy(d->reason, sizeof d->reason, why.msg);
    return true;
}

static bool describe_embedding(const tensor_file *f, model_desc *d) {
    embedding_form form;
    err why = {0};
    if (!embedding_form_is(f)) return false;
    const bool ok = embedding_form_read(f, &form, &why);
    set_kind(d, MODEL_EMBEDDING, embedding_form_family(&form), 0);
    if (!ok) str_copy(d->reason, sizeof d->reason, why.msg);
    return true;
}

/* The tiny VAE is a plain list of layers: with the halves' names in front, or one half alone. */
static bool is_taesd(const name_view *v) {
    return has_conv(v, "encoder.layers.0.weight") || has_conv(v, "decoder.layers.1.weight") ||
           has_conv(v, "decoder.layers.0.weight") || has_conv(v, "taesd_decoder.1.weight") ||
           has_conv(v, "decoder.1.weight") ||
           (has_conv(v, "3.conv.0.weight") && (has_conv(v, "1.weight") || has_conv(v, "0.weight")));
}

static bool describe_small(const name_view *v, model_desc *d) {
    d->layout = MODEL_LAYOUT_BARE;
    if (describe_ip_adapter(v->file, d))
        return true;
    else if (is_lora(v))
        set_kind(d, MODEL_LORA, lora_family(v), 0);
    else if (describe_controlnet(v->file, d) || describe_upscaler(v->file, d) || describe_embedding(v->file, d))
        return true;
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

/* A UNet with an embedding beside the text: of size and crop in SDXL (as wide as its pooled text and six or five
 * numbers of 256 channels each), of a picture in unCLIP, of a noise level in the upscaler. */
static const char *labelled_family(const name_view *v, int64_t context) {
    const tensor_info *label = name_view_find(v, UNET "label_emb.0.0.weight");
    const int64_t refiner_rest = 5 * 256;
    if (!label) return "sd2-upscaler";
    if (context == CLIP_H_WIDTH) return "sd2-unclip";
    if (label->ne[0] - context == refiner_rest) return "sdxl-refiner";
    if (name_view_find(v, "edm_mean")) return "playground";
    return name_view_find(v, "edm_vpred.sigma_max") ? "cosxl" : "sdxl";
}

/* SD 2 differs from 1 in linear projections around its transformers and in the width of its context. A matrix is all
 * that a converter may leave of SD 1's 1x1 convolution. */
static const char *unet_family(const name_view *v) {
    const tensor_info *key = name_view_find_part(v, ".attn2.to_k.weight");
    const tensor_info *projection = name_view_find_part(v, ".proj_in.weight");
    const int64_t context = key ? key->ne[0] : 0;
    if (name_view_has_part(v, ".time_stack.") || name_view_has_part(v, ".temporal_transformer_blocks.")) return "svd";
    if (name_view_find(v, "cc_projection.weight")) return "zero123";
    if (name_view_has_prefix(v, UNET "label_emb.")) return labelled_family(v, context);
    const bool is_linear = projection && projection->n_dims == 2 && context != CLIP_L_WIDTH;
    return is_linear || context == CLIP_H_WIDTH ? "sd2" : "sd1";
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

/* Which of the three it is; in a file of its own the width alone tells. */
static model_part first_text_encoder(const model_desc *d, int64_t width) {
    if (width == CLIP_G_WIDTH) return MODEL_PART_CLIP_G;
    return width == CLIP_H_WIDTH || str_eq(d->family, "sd2") ? MODEL_PART_CLIP_H : MODEL_PART_CLIP_L;
}

static void find_text_encoders(const name_view *v, model_desc *d) {
    const tensor_info *clip = name_view_find(v, CLIP_L "embeddings.token_embedding.weight");
    if (clip) d->parts |= first_text_encoder(d, clip->ne[0]);
    if (name_view_has_prefix(v, CLIP_G)) d->parts |= MODEL_PART_CLIP_G;
    if (name_view_has_part(v, "block.0.layer.0.SelfAttention.q.") || name_view_has_prefix(v, "enc.blk.0."))
        d->parts |= MODEL_PART_T5;
    if (name_view_has_prefix(v, "vision_model.")) d->parts |= MODEL_PART_CLIP_VISION;
    if (name_view_has_part(v, "layers.0.self_attn.q_proj.") && name_view_has_part(v, "layers.0.mlp.gate_proj."))
        d->parts |= MODEL_PART_LLM;
}

static const char *text_family(unsigned parts) {
    return parts & MODEL_PART_T5       ? "t5"
           : parts & MODEL_PART_CLIP_G ? "clip_g"
           : parts & MODEL_PART_CLIP_H ? "clip_h"
           : parts & MODEL_PART_CLIP_L ? "clip_l"
           : parts & MODEL_PART_LLM    ? "llm"
                                       : "clip_vision";
}

/* The components found decide the kind. */
static void name_whole(model_desc *d) {
    unsigned text = MODEL_PART_CLIP_L | MODEL_PART_CLIP_H | MODEL_PART_CLIP_G | MODEL_PART_T5;
    if (d->parts & MODEL_PART_DIFFUSION)
        d->kind = d->parts & (text | MODEL_PART_VAE) ? MODEL_CHECKPOINT : MODEL_DIFFUSION;
    else if (d->parts & MODEL_PART_VAE)
        d->kind = MODEL_VAE;
    else if (d->parts & text)
        set_kind(d, MODEL_TEXT_ENCODER, text_family(d->parts), 0);
    else if (d->parts & MODEL_PART_LLM)
        set_kind(d, MODEL_LLM, "llm", 0);
    else if (d->parts & MODEL_PART_CLIP_VISION)
        set_kind(d, MODEL_CLIP_VISION, "clip_vision", MODEL_PART_CLIP_VISION);
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
    if (tensor_file_meta_str(f, "ss_output_name", &text)) copy_text(d->alias, sizeof d->alias, text);
    if (tensor_file_meta_str(f, "mysti.examples", &text)) copy_text(d->examples, sizeof d->examples, text);
    read_resolution(f, d);
}

/* --- what the network predicts --- */

/* In the 768 models of SD 2, which predict v, the biases of the last transformer's first norm spread further than in
 * those that predict the noise: the only trace of it in their weights that other tools know and rely on, too. */
static bool looks_like_v(const name_view *v) {
    const tensor_info *t = name_view_find(v, UNET "output_blocks.11.1.transformer_blocks.0.norm1.bias");
    float biases[512];
    const size_t n = t ? tensor_values_read(v->file, t, biases, sizeof biases / sizeof *biases) : 0;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)biases[i];
        squares += (double)biases[i] * (double)biases[i];
    }
    return n && sqrt(squares / (double)n - sum / (double)n * (sum / (double)n)) > 0.09;
}

static void find_prediction(const name_view *v, model_desc *d) {
    const char *type = "";
    tensor_file_meta_str(v->file, "modelspec.prediction_type", &type);
    if (tensor_file_find(v->file, "v_pred") || str_eq(type, "v") || str_eq(type, "v_prediction"))
        d->v_prediction = true;
    else if (str_empty(type) && str_eq(d->family, "sd2") && d->in_channels == 4)
        d->v_prediction = looks_like_v(v);
    const char *told = "";
    tensor_file_meta_str(v->file, "mysti.zero_snr", &told);
    d->zero_snr = tensor_file_find(v->file, "ztsnr") || str_eq(told, "true");
}

/* --- the verdict --- */

static const char *const FAMILIES[] = {"sd1", "sd2", "sdxl", "sdxl-refiner", NULL};
static const char *const TEXT_ENCODERS[] = {"clip_l", "clip_h", "clip_g", NULL};

static bool is_one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (str_eq(name, *list)) return true;
    return false;
}

/* The pictures a family was trained on, where the file does not say. */
static void choose_size(model_desc *d) {
    if (d->width || !(d->parts & MODEL_PART_DIFFUSION)) return;
    if (str_eq(d->family, "sd1") || str_eq(d->family, "sd2")) d->width = d->height = 512;
    if (str_eq(d->family, "sd2") && d->v_prediction) d->width = d->height = 768;
    if (str_starts(d->family, "sdxl")) d->width = d->height = 1024;
}

static void refuse(model_desc *d, const char *fmt, const char *what) {
    if (!d->reason[0]) snprintf(d->reason, sizeof d->reason, fmt, what, SUPPORTED);
}

static void judge_unet(model_desc *d) {
    if (!is_one_of(d->family, FAMILIES))
        refuse(d, "%s model: not supported yet; %s", model_family_title(d->family));
    else if (d->in_channels == 5)
        refuse(d, "%s: not supported yet; %s", "depth model");
    else
        d->supported = true;
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
        if (!d->supported) refuse(d, "VAE of a %s model: not supported yet; %s", model_family_title(d->family));
        break;
    case MODEL_TEXT_ENCODER:
        d->supported = is_one_of(d->family, TEXT_ENCODERS);
        if (!d->supported) refuse(d, "text encoder %s: not supported yet; %s", d->family);
        break;
    case MODEL_LORA:
        d->supported = is_one_of(d->family, FAMILIES);
        if (!d->supported) refuse(d, "LoRA for %s: not supported yet; %s", model_family_title(d->family));
        break;
    case MODEL_LLM:
        d->supported = !f || tensor_file_format(f) == TENSOR_FORMAT_GGUF;
        if (!d->supported) refuse(d, "%s in safetensors: not supported; convert it to GGUF", "language model");
        break;
    case MODEL_TAESD:
    case MODEL_CLIP_VISION:
        d->supported = true;
        break;
    case MODEL_UPSCALER:
    case MODEL_CONTROLNET:
    case MODEL_EMBEDDING:
    case MODEL_IP_ADAPTER:
        d->supported = d->reason[0] == 0;
        break;
    case MODEL_UNKNOWN:
        judge_unknown(f, d);
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
        find_prediction(&v, d);
        name_whole(d);
        d->layout = layout_of(f);
    }
    name_view_free(&v);
}

/* All but the verdict, which for a part of a folder is not to be given yet. */
static void describe(const tensor_file *f, model_desc *out) {
    *out = (model_desc){0};
    sum_up(f, out);
    read_hints(f, out);
    if (!describe_gguf(f, out)) describe_tensors(f, out);
    const char *arch;
    if (out->kind == MODEL_UNKNOWN && tensor_file_meta_str(f, "general.architecture", &arch) && is_image_arch(arch))
        set_kind(out, MODEL_DIFFUSION, arch, MODEL_PART_DIFFUSION);
}

void model_describe(const tensor_file *f, model_desc *out) {
    describe(f, out);
    choose_size(out);
    judge(f, out);
}

/* --- folders in the diffusers layout --- */

bool model_is_diffusers_dir(const char *path) {
    char *index = path_join(path, "model_index.json");
    bool ok = path_exists(index);
    free(index);
    return ok;
}

/* Safetensors first, then full precision, then by name, so that the choice does not depend on the order of the folder.
 */
static bool is_better(const char *name, const char *than) {
    if (!than) return true;
    bool bin = str_iends(name, ".bin"), than_bin = str_iends(than, ".bin");
    if (bin != than_bin) return than_bin;
    bool half = strstr(name, ".fp16.") != NULL, than_half = strstr(than, ".fp16.") != NULL;
    return half != than_half ? than_half : strcmp(name, than) < 0;
}

static bool pick_file(void *ctx, const char *name) {
    char **best = ctx;
    bool is_model =
        str_iends(name, ".safetensors") || str_iends(name, "_model.bin") || str_iends(name, "_model.fp16.bin");
    bool is_candidate = is_model && !strstr(name, "-of-") && !strstr(name, "non_ema");
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
    describe(f, &part);
    tensor_file_close(f);
    const bool is_first_text = part.kind == MODEL_TEXT_ENCODER && !(part.parts & MODEL_PART_CLIP_G);
    d->parts |= is_first_text && str_eq(d->family, "sd2") ? MODEL_PART_CLIP_H : part.parts;
    d->params += part.params;
    if (part.parts & MODEL_PART_DIFFUSION) {
        set_family(d, part.family);
        d->in_channels = part.in_channels;
        d->v_prediction = part.v_prediction;
        d->zero_snr = part.zero_snr;
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
        if (!str_empty(type)) d->v_prediction = str_eq(type, "v_prediction");
        json_get_bool(&root, "rescale_betas_zero_snr", &d->zero_snr, NULL);
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
        return err_set(e, ERR_FORMAT, "'%.100s': no unet/*.safetensors (or .bin) in it", path_base(dir));
    str_copy(d->name, sizeof d->name, path_base(dir));
    read_scheduler(dir, d);
    name_whole(d);
    choose_size(d);
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
