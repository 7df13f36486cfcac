/* tensor_names.c - see tensor_names.h.
 * The correspondence of blocks follows from how the two code bases build the same network: LDM keeps one flat list per
 * half (each entry: resnet, perhaps attention, perhaps sampler), diffusers nests them by resolution. */
#include "diffusion/load/tensor_names.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { BLOCKS_MAX = TENSOR_NAMES_BLOCKS_MAX };

typedef struct prefix_rule {
    const char *prefix;
    tensor_component component;
} prefix_rule;

/* In front of a component's tensors; the first that fits wins. */
static const prefix_rule PREFIXES[] = {
    {"model.diffusion_model.", COMPONENT_DIFFUSION},
    {"diffusion_model.", COMPONENT_DIFFUSION},
    {"unet.", COMPONENT_DIFFUSION},
    {"first_stage_model.", COMPONENT_VAE},
    {"vae.", COMPONENT_VAE},
    {"cond_stage_model.transformer.", COMPONENT_CLIP_L},
    {"cond_stage_model.model.", COMPONENT_CLIP_L},
    {"conditioner.embedders.0.transformer.", COMPONENT_CLIP_L},
    {"conditioner.embedders.0.model.", COMPONENT_CLIP_L}, /* SD 2; in the SDXL refiner it is CLIP G */
    {"text_encoders.clip_l.transformer.", COMPONENT_CLIP_L},
    {"text_encoder.", COMPONENT_CLIP_L},
    {"clip_l.transformer.", COMPONENT_CLIP_L},
    {"clip_l.", COMPONENT_CLIP_L},
    {"te.", COMPONENT_CLIP_L},
    {"conditioner.embedders.1.transformer.", COMPONENT_CLIP_G},
    {"conditioner.embedders.1.model.", COMPONENT_CLIP_G},
    {"cond_stage_model.1.transformer.", COMPONENT_CLIP_G},
    {"text_encoders.clip_g.transformer.", COMPONENT_CLIP_G},
    {"text_encoder_2.", COMPONENT_CLIP_G},
    {"clip_g.transformer.", COMPONENT_CLIP_G},
    {"clip_g.", COMPONENT_CLIP_G},
};

/* How names begin in a file that leaves the component's prefix out. "encoder." alone would not do: T5 and others use
 * it too. */
static const prefix_rule BARE[] = {
    {"text_model.", COMPONENT_CLIP_L},
    {"text_projection", COMPONENT_CLIP_L},
    {"transformer.resblocks.", COMPONENT_CLIP_L},
    {"token_embedding.", COMPONENT_CLIP_L},
    {"positional_embedding", COMPONENT_CLIP_L},
    {"ln_final.", COMPONENT_CLIP_L},
    {"encoder.down", COMPONENT_VAE},
    {"encoder.mid", COMPONENT_VAE},
    {"encoder.conv_", COMPONENT_VAE},
    {"encoder.norm_out.", COMPONENT_VAE},
    {"decoder.up", COMPONENT_VAE},
    {"decoder.mid", COMPONENT_VAE},
    {"decoder.conv_", COMPONENT_VAE},
    {"decoder.norm_out.", COMPONENT_VAE},
    {"quant_conv.", COMPONENT_VAE},
    {"post_quant_conv.", COMPONENT_VAE},
    {"input_blocks.", COMPONENT_DIFFUSION},
    {"middle_block.", COMPONENT_DIFFUSION},
    {"output_blocks.", COMPONENT_DIFFUSION},
    {"time_embed.", COMPONENT_DIFFUSION},
    {"label_emb.", COMPONENT_DIFFUSION},
    {"out.0.", COMPONENT_DIFFUSION},
    {"out.2.", COMPONENT_DIFFUSION},
    {"down_blocks.", COMPONENT_DIFFUSION},
    {"mid_block.", COMPONENT_DIFFUSION},
    {"up_blocks.", COMPONENT_DIFFUSION},
    {"conv_in.", COMPONENT_DIFFUSION},
    {"conv_norm_out.", COMPONENT_DIFFUSION},
    {"conv_out.", COMPONENT_DIFFUSION},
    {"time_embedding.", COMPONENT_DIFFUSION},
    {"add_embedding.", COMPONENT_DIFFUSION},
    {"class_embedding.", COMPONENT_DIFFUSION},
};

const char *tensor_component_prefix(tensor_component c) {
    switch (c) {
    case COMPONENT_DIFFUSION:
        return "model.diffusion_model.";
    case COMPONENT_VAE:
        return "first_stage_model.";
    case COMPONENT_CLIP_L:
        return "cond_stage_model.transformer.";
    case COMPONENT_CLIP_G:
        return "conditioner.embedders.1.transformer.";
    case COMPONENT_ANY:
        break;
    }
    return "";
}

/* The SDXL refiner has one text encoder only, which is CLIP G. */
static bool is_refiner_clip(const tensor_names *n, const char *name) {
    return n->has_label_emb && str_starts(name, "conditioner.embedders.0.model.");
}

/* The component `name` belongs to, and its name within; COMPONENT_ANY when it is none of ours. */
static tensor_component split(const tensor_names *n, const char *name, const char **rest) {
    const tensor_component hint = n->component;
    *rest = name;
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++) {
        if (!str_starts(name, PREFIXES[i].prefix)) continue;
        *rest = name + strlen(PREFIXES[i].prefix);
        return is_refiner_clip(n, name) ? COMPONENT_CLIP_G : PREFIXES[i].component;
    }
    for (size_t i = 0; i < sizeof BARE / sizeof *BARE; i++) {
        if (!str_starts(name, BARE[i].prefix)) continue;
        bool is_clip_g = BARE[i].component == COMPONENT_CLIP_L && hint == COMPONENT_CLIP_G; /* the same names */
        return is_clip_g ? hint : BARE[i].component;
    }
    bool is_foreign = str_starts(name, "cond_stage_model.") || str_starts(name, "conditioner.");
    return is_foreign ? COMPONENT_ANY : hint;
}

/* Moves *p past `word`. */
static bool skip(const char **p, const char *word) {
    if (!str_starts(*p, word)) return false;
    *p += strlen(word);
    return true;
}

/* Moves *p past "<word><number>." */
static bool skip_index(const char **p, const char *word, int *index) {
    const char *s = *p;
    if (!skip(&s, word) || *s < '0' || *s > '9') return false;
    int n = 0;
    for (; *s >= '0' && *s <= '9'; s++)
        if ((n = n * 10 + (*s - '0')) > 9999) return false;
    if (*s != '.') return false;
    *p = s + 1;
    *index = n;
    return true;
}

typedef struct rename_rule {
    const char *from, *to;
} rename_rule;

/* The first rule whose `from` begins `rest`; `rest` unchanged otherwise. */
static bool rename_start(const rename_rule *rules, size_t count, const char *rest, char *out, size_t cap) {
    const char *to = "";
    for (size_t i = 0; i < count; i++) {
        if (!skip(&rest, rules[i].from)) continue;
        to = rules[i].to;
        break;
    }
    return snprintf(out, cap, "%s%s", to, rest) < (int)cap;
}
#define RENAME(rules, rest, out, cap) rename_start(rules, sizeof(rules) / sizeof *(rules), rest, out, cap)

/* --- the unet --- */

static const rename_rule UNET_RESNET[] = {
    {"norm1.", "in_layers.0."},  {"conv1.", "in_layers.2."},  {"time_emb_proj.", "emb_layers.1."},
    {"norm2.", "out_layers.0."}, {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."},
};

static const rename_rule UNET_TOP[] = {
    {"conv_in.", "input_blocks.0.0."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"add_embedding.linear_1.", "label_emb.0.0."},
    {"add_embedding.linear_2.", "label_emb.0.2."},
    {"class_embedding.linear_1.", "label_emb.0.0."},
    {"class_embedding.linear_2.", "label_emb.0.2."},
};

static bool put_resnet(const char *list, int index, int slot, const char *rest, char *out, size_t cap) {
    int n = snprintf(out, cap, "%s.%d.%d.", list, index, slot);
    return n < (int)cap && RENAME(UNET_RESNET, rest, out + n, cap - (size_t)n);
}

static bool put_plain(const char *list, int index, const char *rest, char *out, size_t cap) {
    return snprintf(out, cap, "%s.%d.%s", list, index, rest) < (int)cap;
}

/* Entry 0 is conv_in; each block adds its resnets and, as an entry of its own, its downsampler. */
static bool map_down(const tensor_names *n, int block, const char *rest, char *out, size_t cap) {
    int first = 1, j;
    for (int i = 0; i < block; i++) first += n->down[i].resnets + n->down[i].has_sampler;
    if (skip_index(&rest, "resnets.", &j)) return put_resnet("input_blocks", first + j, 0, rest, out, cap);
    if (skip_index(&rest, "attentions.", &j))
        return snprintf(out, cap, "input_blocks.%d.1.%s", first + j, rest) < (int)cap;
    if (skip(&rest, "downsamplers.0.conv."))
        return snprintf(out, cap, "input_blocks.%d.0.op.%s", first + n->down[block].resnets, rest) < (int)cap;
    return snprintf(out, cap, "down_blocks.%d.%s", block, rest) < (int)cap;
}

/* An upsampler belongs to the entry of its block's last resnet, behind the attention if there is one. */
static bool map_up(const tensor_names *n, int block, const char *rest, char *out, size_t cap) {
    int first = 0, j;
    for (int i = 0; i < block; i++) first += n->up[i].resnets;
    if (skip_index(&rest, "resnets.", &j)) return put_resnet("output_blocks", first + j, 0, rest, out, cap);
    if (skip_index(&rest, "attentions.", &j))
        return snprintf(out, cap, "output_blocks.%d.1.%s", first + j, rest) < (int)cap;
    if (skip(&rest, "upsamplers.0."))
        return snprintf(out, cap, "output_blocks.%d.%d.%s", first + n->up[block].resnets - 1,
                        n->up[block].has_attention ? 2 : 1, rest) < (int)cap;
    return snprintf(out, cap, "up_blocks.%d.%s", block, rest) < (int)cap;
}

static bool map_mid(const tensor_names *n, const char *rest, char *out, size_t cap) {
    int j;
    if (skip_index(&rest, "attentions.", &j)) return put_plain("middle_block", 2 * j + 1, rest, out, cap);
    if (!skip_index(&rest, "resnets.", &j)) return snprintf(out, cap, "mid_block.%s", rest) < (int)cap;
    int len = snprintf(out, cap, "middle_block.%d.", n->mid_has_attention ? 2 * j : j);
    return len < (int)cap && RENAME(UNET_RESNET, rest, out + len, cap - (size_t)len);
}

static bool map_unet(const tensor_names *n, const char *rest, char *out, size_t cap) {
    const char *p = rest;
    int block;
    if (skip_index(&p, "down_blocks.", &block) && block < BLOCKS_MAX) return map_down(n, block, p, out, cap);
    if (skip_index(&p, "up_blocks.", &block) && block < BLOCKS_MAX) return map_up(n, block, p, out, cap);
    p = rest;
    if (skip(&p, "mid_block.")) return map_mid(n, p, out, cap);
    return RENAME(UNET_TOP, rest, out, cap);
}

/* --- the VAE --- */

static const rename_rule VAE_RESNET[] = {{"conv_shortcut.", "nin_shortcut."}};

/* Names of three generations of diffusers. */
static const rename_rule VAE_ATTENTION[] = {
    {"group_norm.", "norm."},    {"to_q.", "q."},  {"to_k.", "k."}, {"to_v.", "v."},
    {"to_out.0.", "proj_out."},  {"query.", "q."}, {"key.", "k."},  {"value.", "v."},
    {"proj_attn.", "proj_out."},
};

static const rename_rule VAE_HALF[] = {{"conv_norm_out.", "norm_out."}};

/* One resolution of a half: `list` is "down" or "up", `at` its LDM number. */
static bool map_vae_block(const char *list, int at, const char *rest, char *out, size_t cap) {
    int j, len;
    if (skip_index(&rest, "resnets.", &j)) {
        len = snprintf(out, cap, "%s.%d.block.%d.", list, at, j);
        return len < (int)cap && RENAME(VAE_RESNET, rest, out + len, cap - (size_t)len);
    }
    if (skip_index(&rest, "attentions.", &j)) {
        len = snprintf(out, cap, "%s.%d.attn.%d.", list, at, j);
        return len < (int)cap && RENAME(VAE_ATTENTION, rest, out + len, cap - (size_t)len);
    }
    if (skip(&rest, "downsamplers.0.")) return snprintf(out, cap, "%s.%d.downsample.%s", list, at, rest) < (int)cap;
    if (skip(&rest, "upsamplers.0.")) return snprintf(out, cap, "%s.%d.upsample.%s", list, at, rest) < (int)cap;
    return snprintf(out, cap, "%s_blocks.%d.%s", list, at, rest) < (int)cap;
}

static bool map_vae_mid(const char *rest, char *out, size_t cap) {
    int j, len;
    if (skip_index(&rest, "resnets.", &j)) {
        len = snprintf(out, cap, "mid.block_%d.", j + 1);
        return len < (int)cap && RENAME(VAE_RESNET, rest, out + len, cap - (size_t)len);
    }
    if (skip_index(&rest, "attentions.", &j)) {
        len = snprintf(out, cap, "mid.attn_%d.", j + 1);
        return len < (int)cap && RENAME(VAE_ATTENTION, rest, out + len, cap - (size_t)len);
    }
    return snprintf(out, cap, "mid_block.%s", rest) < (int)cap;
}

/* What follows "encoder." or "decoder." */
static bool map_vae_half(const tensor_names *n, const char *rest, char *out, size_t cap) {
    const char *p = rest;
    int block;
    if (skip_index(&p, "down_blocks.", &block)) return map_vae_block("down", block, p, out, cap);
    if (skip_index(&p, "up_blocks.", &block) && block < n->vae_up_blocks)
        return map_vae_block("up", n->vae_up_blocks - 1 - block, p, out, cap);
    p = rest;
    if (skip(&p, "mid_block.")) return map_vae_mid(p, out, cap);
    return RENAME(VAE_HALF, rest, out, cap);
}

static bool map_vae(const tensor_names *n, const char *rest, char *out, size_t cap) {
    bool is_encoder = str_starts(rest, "encoder."), is_decoder = str_starts(rest, "decoder.");
    if (!is_encoder && !is_decoder) return str_copy(out, cap, rest);
    const size_t len = strlen("encoder.");
    if (!str_copy(out, cap, is_encoder ? "encoder." : "decoder.")) return false;
    return map_vae_half(n, rest + len, out + len, cap - len);
}

/* --- the text encoders --- */

/* Early checkpoints were written when the class had no "text_model" level. The others are OpenCLIP's names. */
static const rename_rule CLIP_TOP[] = {
    {"embeddings.", "text_model.embeddings."},
    {"encoder.", "text_model.encoder."},
    {"final_layer_norm.", "text_model.final_layer_norm."},
    {"token_embedding.", "text_model.embeddings.token_embedding."},
    {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    {"ln_final.", "text_model.final_layer_norm."},
    {"text_model.text_projection", "text_projection"},
};

static const rename_rule OPEN_CLIP_LAYER[] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"attn.in_proj_", "self_attn.in_proj."},
    {"attn.out_proj.", "self_attn.out_proj."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
};

static bool map_clip(const char *rest, char *out, size_t cap) {
    int layer;
    if (!skip_index(&rest, "transformer.resblocks.", &layer)) return RENAME(CLIP_TOP, rest, out, cap);
    int len = snprintf(out, cap, "text_model.encoder.layers.%d.", layer);
    return len < (int)cap && RENAME(OPEN_CLIP_LAYER, rest, out + len, cap - (size_t)len);
}

/* --- the whole --- */

static void count_resnet(tensor_names_block *b, const char *rest) {
    int j;
    if (skip_index(&rest, "resnets.", &j)) {
        if (j + 1 > b->resnets) b->resnets = j + 1;
    } else if (str_starts(rest, "attentions.")) {
        b->has_attention = true;
    } else if (str_starts(rest, "downsamplers.") || str_starts(rest, "upsamplers.")) {
        b->has_sampler = true;
    }
}

static void count_unet(tensor_names *n, const char *rest) {
    int block;
    if (skip_index(&rest, "down_blocks.", &block)) {
        if (block < BLOCKS_MAX) count_resnet(&n->down[block], rest);
    } else if (skip_index(&rest, "up_blocks.", &block)) {
        if (block < BLOCKS_MAX) count_resnet(&n->up[block], rest);
    } else if (str_starts(rest, "mid_block.attentions.")) {
        n->mid_has_attention = true;
    } else if (str_starts(rest, "label_emb.") || str_starts(rest, "add_embedding.")) {
        n->has_label_emb = true;
    }
}

static void count_vae(tensor_names *n, const char *rest) {
    int block;
    if (skip_index(&rest, "decoder.up_blocks.", &block) && block + 1 > n->vae_up_blocks) n->vae_up_blocks = block + 1;
}

void tensor_names_init(tensor_names *n, const tensor_file *f, tensor_component component) {
    *n = (tensor_names){.component = component};
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const char *rest;
        tensor_component c = split(n, tensor_file_at(f, i)->name, &rest);
        if (c == COMPONENT_DIFFUSION) count_unet(n, rest);
        if (c == COMPONENT_VAE) count_vae(n, rest);
    }
}

bool tensor_names_map(const tensor_names *n, const char *name, char *out, size_t cap) {
    const char *rest;
    tensor_component c = split(n, name, &rest);
    const char *prefix = tensor_component_prefix(c);
    size_t len = strlen(prefix);
    if (!str_copy(out, cap, prefix)) return false;
    switch (c) {
    case COMPONENT_DIFFUSION:
        return map_unet(n, rest, out + len, cap - len);
    case COMPONENT_VAE:
        return map_vae(n, rest, out + len, cap - len);
    case COMPONENT_CLIP_L:
    case COMPONENT_CLIP_G:
        return map_clip(rest, out + len, cap - len);
    case COMPONENT_ANY:
        break;
    }
    return str_copy(out, cap, name);
}

/* --- the reverse ----------------------------------------------------------------------------------------------------
 */

void tensor_names_find_places(tensor_names_places *p, bool (*has)(const void *ctx, const char *start),
                              const void *ctx) {
    char start[64];
    int block = 0, index = 0;
    for (int i = 1; i < TENSOR_NAMES_ENTRIES_MAX; i++) {
        snprintf(start, sizeof start, "input_blocks.%d.0.op.", i);
        const bool is_sampler = has(ctx, start);
        p->input[i].block = block;
        p->input[i].index = is_sampler ? -1 : index++;
        if (is_sampler) block++, index = 0;
    }
    block = index = 0;
    for (int i = 0; i < TENSOR_NAMES_ENTRIES_MAX; i++) {
        p->output[i].block = block;
        p->output[i].index = index++;
        snprintf(start, sizeof start, "output_blocks.%d.1.conv.", i);
        bool is_last = has(ctx, start);
        snprintf(start, sizeof start, "output_blocks.%d.2.conv.", i);
        is_last |= has(ctx, start);
        if (is_last) block++, index = 0;
    }
    p->mid_has_attention = !has(ctx, "middle_block.1.in_layers.");
}

/* The first rule whose `to` begins `name`, backwards. */
static bool rename_back(const rename_rule *rules, size_t count, const char *name, char *out, size_t cap) {
    const char *from = "";
    for (size_t i = 0; i < count; i++) {
        if (!skip(&name, rules[i].to)) continue;
        from = rules[i].from;
        break;
    }
    return snprintf(out, cap, "%s%s", from, name) < (int)cap;
}
#define RENAME_BACK(rules, rest, out, cap) rename_back(rules, sizeof(rules) / sizeof *(rules), rest, out, cap)

static bool back_resnet(const char *list, int block, int index, const char *rest, char *out, size_t cap) {
    int n = block < 0 ? snprintf(out, cap, "%s.resnets.%d.", list, index)
                      : snprintf(out, cap, "%s.%d.resnets.%d.", list, block, index);
    return n < (int)cap && RENAME_BACK(UNET_RESNET, rest, out + n, cap - (size_t)n);
}

static bool back_input(const tensor_names_places *p, int i, const char *rest, char *out, size_t cap) {
    const int block = p->input[i].block, index = p->input[i].index;
    if (skip(&rest, "0.op."))
        return snprintf(out, cap, "down_blocks.%d.downsamplers.0.conv.%s", block, rest) < (int)cap;
    if (skip(&rest, "1.")) return snprintf(out, cap, "down_blocks.%d.attentions.%d.%s", block, index, rest) < (int)cap;
    skip(&rest, "0.");
    return back_resnet("down_blocks", block, index, rest, out, cap);
}

static bool back_output(const tensor_names_places *p, int i, const char *rest, char *out, size_t cap) {
    const int block = p->output[i].block, index = p->output[i].index;
    if (skip(&rest, "1.conv.") || skip(&rest, "2.conv."))
        return snprintf(out, cap, "up_blocks.%d.upsamplers.0.conv.%s", block, rest) < (int)cap;
    if (skip(&rest, "1.")) return snprintf(out, cap, "up_blocks.%d.attentions.%d.%s", block, index, rest) < (int)cap;
    skip(&rest, "0.");
    return back_resnet("up_blocks", block, index, rest, out, cap);
}

static bool back_middle(const tensor_names_places *p, int i, const char *rest, char *out, size_t cap) {
    if (p->mid_has_attention && i % 2) return snprintf(out, cap, "mid_block.attentions.%d.%s", i / 2, rest) < (int)cap;
    return back_resnet("mid_block", -1, p->mid_has_attention ? i / 2 : i, rest, out, cap);
}

bool tensor_names_to_diffusers(const tensor_names_places *p, const char *name, char *out, size_t cap) {
    const char *rest = name;
    int i;
    if (skip_index(&rest, "input_blocks.", &i) && i > 0 && i < TENSOR_NAMES_ENTRIES_MAX)
        return back_input(p, i, rest, out, cap);
    rest = name;
    if (skip_index(&rest, "output_blocks.", &i) && i < TENSOR_NAMES_ENTRIES_MAX)
        return back_output(p, i, rest, out, cap);
    rest = name;
    if (skip_index(&rest, "middle_block.", &i)) return back_middle(p, i, rest, out, cap);
    return RENAME_BACK(UNET_TOP, name, out, cap);
}
