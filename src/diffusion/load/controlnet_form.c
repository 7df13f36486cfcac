/* controlnet_form.c - see controlnet_form.h. */
#include "diffusion/load/controlnet_form.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { SD1_CONTEXT = 768 };

/* --- names -------------------------------------------------------------------------------------------------------- */

const char *controlnet_encoder_name(const controlnet_form *c) {
    return c->naming == CONTROLNET_LDM ? "control_model." : "model.diffusion_model.";
}

/* The original list has an activation behind each convolution but the last. */
void controlnet_hint_name(const controlnet_form *c, int i, char out[CONTROLNET_NAME_MAX]) {
    static const char diffusers[] = "controlnet_cond_embedding.";
    if (c->naming == CONTROLNET_LDM)
        snprintf(out, CONTROLNET_NAME_MAX, "control_model.input_hint_block.%d", 2 * i);
    else if (c->naming == CONTROLNET_BARE)
        snprintf(out, CONTROLNET_NAME_MAX, "input_hint_block.%d", 2 * i);
    else if (i == 0 || i == CONTROLNET_HINTS - 1)
        snprintf(out, CONTROLNET_NAME_MAX, "%sconv_%s", diffusers, i ? "out" : "in");
    else
        snprintf(out, CONTROLNET_NAME_MAX, "%sblocks.%d", diffusers, i - 1);
}

void controlnet_zero_name(const controlnet_form *c, int i, char out[CONTROLNET_NAME_MAX]) {
    static const char *const names[] = {"control_model.zero_convs.%d.0", "zero_convs.%d.0",
                                        "controlnet_down_blocks.%d"};
    snprintf(out, CONTROLNET_NAME_MAX, names[c->naming], i);
}

const char *controlnet_middle_name(const controlnet_form *c) {
    static const char *const names[] = {"control_model.middle_block_out.0", "middle_block_out.0",
                                        "controlnet_mid_block"};
    return names[c->naming];
}

/* --- kinds -------------------------------------------------------------------------------------------------------- */

static const tensor_info *find_part(const tensor_file *f, const char *part) {
    for (size_t i = 0; i < tensor_file_count(f); i++)
        if (strstr(tensor_file_at(f, i)->name, part)) return tensor_file_at(f, i);
    return NULL;
}

/* Kinds that only share the name, by a tensor that no other has. */
static const char *other_kind(const tensor_file *f) {
    static const char *const marks[][2] = {
        {"lllite_", "ControlNet-LLLite"},
        {"lora_controlnet", "Control-LoRA"},
        {"control_add_embedding.", "ControlNet-Union"},
        {"task_embedding", "ControlNet-Union"},
        {"controlnet_blocks.", "ControlNet of a transformer (Flux, SD 3)"},
        {"pos_embed_input.", "ControlNet of a transformer (Flux, SD 3)"},
        {"controlnet_x_embedder.", "ControlNet of a transformer (Flux, SD 3)"},
    };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (find_part(f, marks[i][0])) return marks[i][1];
    return NULL;
}

static bool find_naming(const tensor_file *f, controlnet_form *c) {
    static const char *const hints[] = {"control_model.input_hint_block.0.weight", "input_hint_block.0.weight",
                                        "controlnet_cond_embedding.conv_in.weight"};
    for (int i = CONTROLNET_LDM; i <= CONTROLNET_DIFFUSERS; i++) {
        if (!tensor_file_find(f, hints[i])) continue;
        c->naming = (controlnet_naming)i;
        return true;
    }
    return false;
}

/* As a UNet's: SDXL is told the size, too, and SD 2 projects with matrices. */
static const char *family_of(const tensor_file *f) {
    const tensor_info *key = find_part(f, ".attn2.to_k.weight"), *projection = find_part(f, ".proj_in.weight");
    if (find_part(f, "label_emb.") || find_part(f, "add_embedding.")) return "sdxl";
    return projection && projection->n_dims == 2 && key && key->ne[0] != SD1_CONTEXT ? "sd2" : "sd1";
}

bool controlnet_form_read(const tensor_file *f, controlnet_form *out, err *e) {
    *out = (controlnet_form){.family = ""};
    const char *other = other_kind(f);
    const bool is_named = find_naming(f, out);
    out->is_controlnet = other || is_named || find_part(f, "control_model.");
    if (other) return err_set(e, ERR_UNSUPPORTED, "%s: not supported", other);
    if (!is_named) return err_set(e, ERR_UNSUPPORTED, "it holds no whole ControlNet");
    if (tensor_file_find(f, "difference"))
        return err_set(e, ERR_UNSUPPORTED, "ControlNet as the difference from a model: not supported");
    out->family = family_of(f);
    return true;
}
