/* tensor_names.h - one naming for all files: that of the original Stable Diffusion ("LDM") checkpoints.
 *
 *   model.diffusion_model.input_blocks.1.0.in_layers.0.weight
 *   first_stage_model.decoder.up.0.block.0.norm1.weight
 *   cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight   CLIP L
 *   conditioner.embedders.1.transformer.text_model. ...                                CLIP G
 *
 * Accepted besides: the diffusers naming ("down_blocks.0.resnets.0.norm1.weight"), the same with the component in front
 * ("unet.", "vae.", "text_encoder."), OpenCLIP's naming of a text encoder ("transformer.resblocks.0.ln_1.weight"), and
 * files of one component that leave its prefix out. The number of blocks is counted in the file, so models of any depth
 * map. A name that belongs to none of them stays as it is.
 *
 * OpenCLIP's "attn.in_proj_weight" becomes "self_attn.in_proj.weight"; name_view makes three tensors of it. Its
 * "text_projection" keeps its name without ".weight", for it is the transpose of the other naming's. */
#ifndef MYSTI_DIFFUSION_LOAD_TENSOR_NAMES_H
#define MYSTI_DIFFUSION_LOAD_TENSOR_NAMES_H

#include "diffusion/load/tensor_file.h"

/* What a file is known to hold; decides what names without a prefix mean. */
typedef enum tensor_component {
    COMPONENT_ANY, /* guessed from each name */
    COMPONENT_DIFFUSION,
    COMPONENT_VAE,
    COMPONENT_CLIP_L, /* the first text encoder: CLIP L, or CLIP H in Stable Diffusion 2 */
    COMPONENT_CLIP_G,
} tensor_component;

/* Canonical prefix of a component, with its dot; "" for COMPONENT_ANY. */
const char *tensor_component_prefix(tensor_component c);

enum { TENSOR_NAMES_BLOCKS_MAX = 16 };

/* Resnets and attentions of one diffusers block, and whether it ends in a down- or upsampler. */
typedef struct tensor_names_block {
    int resnets;
    bool has_attention, has_sampler;
} tensor_names_block;

/* What the mapping of one file depends on; a plain value. */
typedef struct tensor_names {
    tensor_component component;
    tensor_names_block down[TENSOR_NAMES_BLOCKS_MAX], up[TENSOR_NAMES_BLOCKS_MAX]; /* of a diffusers unet */
    bool mid_has_attention;
    bool has_label_emb; /* the UNet knows the picture's size: SDXL and its refiner */
    int vae_up_blocks;  /* diffusers numbers a decoder's blocks from the small end, LDM from the large one */
} tensor_names;

void tensor_names_init(tensor_names *n, const tensor_file *f, tensor_component component);

/* False when `out` (cap bytes) is too small. */
bool tensor_names_map(const tensor_names *n, const char *name, char *out, size_t cap);

/* ---- the reverse, for the UNet of a model with canonical names (LoRAs name its tensors in diffusers' way) ---------
 */

enum { TENSOR_NAMES_ENTRIES_MAX = 64 };

/* Where each entry of the UNet's two flat lists lies in diffusers' nested blocks; a plain value. */
typedef struct tensor_names_places {
    struct {
        int block, index; /* index: which resnet (and attention) of its block; -1: the downsampler */
    } input[TENSOR_NAMES_ENTRIES_MAX], output[TENSOR_NAMES_ENTRIES_MAX];
    bool mid_has_attention;
} tensor_names_places;

/* has: whether the name of any tensor of the UNet begins so ("output_blocks.2.1.conv.", without the component). */
void tensor_names_find_places(tensor_names_places *p, bool (*has)(const void *ctx, const char *start), const void *ctx);

/* "input_blocks.1.0.in_layers.0.weight" -> "down_blocks.0.resnets.0.norm1.weight"; both without the component's prefix.
 * A name that diffusers has not stays as it is. False when `out` is too small. */
bool tensor_names_to_diffusers(const tensor_names_places *p, const char *name, char *out, size_t cap);

#endif
