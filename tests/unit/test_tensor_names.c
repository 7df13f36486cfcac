/* Naming and kinds: the same network is written down in both namings, each by its own construction rules, and the
 * mapping has to make one of them into the other, shapes included. */
#include "diffusion/load/model_kind.h"
#include "diffusion/load/name_view.h"
#include "diffusion/load/tensor_values.h"

#include "base/path.h"
#include "base/str.h"
#include "model_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef struct net {
    int base, levels, resnets;
    int mult[4];
    bool attention[4]; /* per level */
    enum { MID_WHOLE, MID_RESNETS, MID_RESNET, MID_NONE } mid;
    int label; /* width of the label; 0: none */
} net;

/* U8 tensors whose shape [out, in] is all that matters. */
static void add(st_builder *s, int out, int in, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void add(st_builder *s, int out, int in, const char *fmt, ...) {
    char name[256], dims[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    snprintf(dims, sizeof dims, "%d,%d", out, in);
    st_add(s, name, "U8", dims, NULL, (size_t)(in * out));
}

/* --- LDM: openaimodel.py keeps one list, with a stack of the widths that skip connections bring --- */

static void ldm_resnet(st_builder *s, const char *at, int in, int out) {
    add(s, in, 1, "model.diffusion_model.%s.in_layers.0.weight", at);
    add(s, out, in, "model.diffusion_model.%s.in_layers.2.weight", at);
    add(s, out, 2, "model.diffusion_model.%s.emb_layers.1.weight", at);
    add(s, out, 1, "model.diffusion_model.%s.out_layers.0.weight", at);
    add(s, out, out, "model.diffusion_model.%s.out_layers.3.weight", at);
    if (in != out) add(s, out, in, "model.diffusion_model.%s.skip_connection.weight", at);
}

static void ldm_attention(st_builder *s, const char *at, int width) {
    add(s, width, width, "model.diffusion_model.%s.proj_in.weight", at);
    add(s, width, 3, "model.diffusion_model.%s.transformer_blocks.0.attn2.to_k.weight", at);
}

static void ldm_unet(st_builder *s, const net *n) {
    char at[64];
    int stack[64], depth = 0, ch = n->base, index = 1;
    add(s, 8, n->base, "model.diffusion_model.time_embed.0.weight");
    add(s, 8, 8, "model.diffusion_model.time_embed.2.weight");
    if (n->label) add(s, 8, n->label, "model.diffusion_model.label_emb.0.0.weight");
    if (n->label) add(s, 8, 8, "model.diffusion_model.label_emb.0.2.weight");
    add(s, n->base, 4, "model.diffusion_model.input_blocks.0.0.weight");
    stack[depth++] = ch;
    for (int level = 0; level < n->levels; level++) {
        for (int r = 0; r < n->resnets; r++, index++) {
            snprintf(at, sizeof at, "input_blocks.%d.0", index);
            ldm_resnet(s, at, ch, n->mult[level] * n->base);
            ch = n->mult[level] * n->base;
            snprintf(at, sizeof at, "input_blocks.%d.1", index);
            if (n->attention[level]) ldm_attention(s, at, ch);
            stack[depth++] = ch;
        }
        if (level == n->levels - 1) break;
        add(s, ch, ch, "model.diffusion_model.input_blocks.%d.0.op.weight", index++);
        stack[depth++] = ch;
    }
    if (n->mid != MID_NONE) ldm_resnet(s, "middle_block.0", ch, ch);
    if (n->mid == MID_WHOLE) ldm_attention(s, "middle_block.1", ch);
    if (n->mid <= MID_RESNETS) ldm_resnet(s, n->mid == MID_WHOLE ? "middle_block.2" : "middle_block.1", ch, ch);
    index = 0;
    for (int level = n->levels - 1; level >= 0; level--)
        for (int r = 0; r <= n->resnets; r++, index++) {
            snprintf(at, sizeof at, "output_blocks.%d.0", index);
            ldm_resnet(s, at, ch + stack[--depth], n->mult[level] * n->base);
            ch = n->mult[level] * n->base;
            snprintf(at, sizeof at, "output_blocks.%d.1", index);
            if (n->attention[level]) ldm_attention(s, at, ch);
            if (level && r == n->resnets)
                add(s, ch, ch, "model.diffusion_model.output_blocks.%d.%d.conv.weight", index,
                    n->attention[level] ? 2 : 1);
        }
    add(s, ch, 1, "model.diffusion_model.out.0.weight");
    add(s, 4, ch, "model.diffusion_model.out.2.weight");
}

/* --- diffusers: nested blocks; an up block computes what its skips bring from three widths --- */

static void diffusers_resnet(st_builder *s, const char *prefix, const char *at, int in, int out) {
    add(s, in, 1, "%s%s.norm1.weight", prefix, at);
    add(s, out, in, "%s%s.conv1.weight", prefix, at);
    add(s, out, 2, "%s%s.time_emb_proj.weight", prefix, at);
    add(s, out, 1, "%s%s.norm2.weight", prefix, at);
    add(s, out, out, "%s%s.conv2.weight", prefix, at);
    if (in != out) add(s, out, in, "%s%s.conv_shortcut.weight", prefix, at);
}

static void diffusers_attention(st_builder *s, const char *prefix, const char *at, int width) {
    add(s, width, width, "%s%s.proj_in.weight", prefix, at);
    add(s, width, 3, "%s%s.transformer_blocks.0.attn2.to_k.weight", prefix, at);
}

static void diffusers_down(st_builder *s, const char *p, const net *n, int level) {
    char at[64];
    int in = n->base * n->mult[level ? level - 1 : 0], out = n->base * n->mult[level];
    if (!level) in = n->base;
    for (int r = 0; r < n->resnets; r++) {
        snprintf(at, sizeof at, "down_blocks.%d.resnets.%d", level, r);
        diffusers_resnet(s, p, at, r ? out : in, out);
        snprintf(at, sizeof at, "down_blocks.%d.attentions.%d", level, r);
        if (n->attention[level]) diffusers_attention(s, p, at, out);
    }
    if (level < n->levels - 1) add(s, out, out, "%sdown_blocks.%d.downsamplers.0.conv.weight", p, level);
}

static void diffusers_up(st_builder *s, const char *p, const net *n, int block) {
    char at[64];
    int level = n->levels - 1 - block, out = n->base * n->mult[level];
    int previous = block ? n->base * n->mult[level + 1] : out;
    int below = level ? n->base * n->mult[level - 1] : n->base;
    for (int r = 0; r <= n->resnets; r++) {
        int skip = r == n->resnets ? below : out;
        snprintf(at, sizeof at, "up_blocks.%d.resnets.%d", block, r);
        diffusers_resnet(s, p, at, (r ? out : previous) + skip, out);
        snprintf(at, sizeof at, "up_blocks.%d.attentions.%d", block, r);
        if (n->attention[level]) diffusers_attention(s, p, at, out);
    }
    if (level) add(s, out, out, "%sup_blocks.%d.upsamplers.0.conv.weight", p, block);
}

static void diffusers_unet(st_builder *s, const char *p, const net *n) {
    int last = n->base * n->mult[n->levels - 1];
    add(s, n->base, 4, "%sconv_in.weight", p);
    add(s, 8, n->base, "%stime_embedding.linear_1.weight", p);
    add(s, 8, 8, "%stime_embedding.linear_2.weight", p);
    for (int i = 0; i < n->levels; i++) diffusers_down(s, p, n, i);
    for (int i = 0; i < n->levels; i++) diffusers_up(s, p, n, i);
    if (n->label) add(s, 8, n->label, "%sadd_embedding.linear_1.weight", p);
    if (n->label) add(s, 8, 8, "%sadd_embedding.linear_2.weight", p);
    if (n->mid != MID_NONE) diffusers_resnet(s, p, "mid_block.resnets.0", last, last);
    if (n->mid <= MID_RESNETS) diffusers_resnet(s, p, "mid_block.resnets.1", last, last);
    if (n->mid == MID_WHOLE) diffusers_attention(s, p, "mid_block.attentions.0", last);
    add(s, n->base * n->mult[0], 1, "%sconv_norm_out.weight", p);
    add(s, 4, n->base * n->mult[0], "%sconv_out.weight", p);
}

/* --- comparing --- */

static tensor_file *finish(st_builder *s, buf *b) {
    buf_init(b, 64 << 20);
    st_finish(s, b);
    err e = {0};
    tensor_file *f = tensor_file_open_memory("net", b->data, b->len, &e);
    if (!f) fail_msg("%s", e.msg);
    return f;
}

/* Every tensor of `got` must have its counterpart in `want`, and none may be left over. */
static void expect_same(const tensor_file *got, tensor_component component, const tensor_file *want) {
    name_view v;
    name_view_init(&v, got, component);
    assert_int_equal(v.count, tensor_file_count(want)); /* no two of them became one */
    for (size_t i = 0; i < v.count; i++) {
        const tensor_info *t = v.entries[i].info;
        const char *name = v.entries[i].name;
        const tensor_info *w = tensor_file_find(want, name);
        if (!w) fail_msg("'%s' became '%s', which does not exist", t->name, name);
        if (memcmp(t->ne, w->ne, sizeof t->ne) != 0) fail_msg("'%s' became '%s' of another shape", t->name, name);
    }
    name_view_free(&v);
}

static const net NETS[] = {
    {.base = 4, .levels = 4, .resnets = 2, .mult = {1, 2, 4, 4}, .attention = {1, 1, 1, 0}},
    {.base = 3, .levels = 3, .resnets = 2, .mult = {1, 2, 4}, .attention = {0, 1, 1}, .label = 7},       /* SDXL */
    {.base = 3, .levels = 4, .resnets = 2, .mult = {1, 2, 4, 4}, .attention = {0, 1, 1, 0}, .label = 7}, /* its refiner
                                                                                                          */
    {.base = 3, .levels = 3, .resnets = 2, .mult = {1, 2, 4}, .attention = {0, 1, 1}, .mid = MID_RESNET, .label = 7},
    {.base = 4, .levels = 3, .resnets = 1, .mult = {1, 2, 4}, .attention = {1, 1, 1}, .mid = MID_NONE},
    {.base = 5, .levels = 2, .resnets = 1, .mult = {1, 2}, .attention = {1, 1}, .mid = MID_RESNETS},
    {.base = 2, .levels = 1, .resnets = 3, .mult = {1}, .attention = {0}},
    {.base = 3, .levels = 4, .resnets = 1, .mult = {1, 2, 3, 5}, .attention = {1, 0, 1, 0}},
};

static void unet_names(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof NETS / sizeof *NETS; i++) {
        static const char *const PREFIX[] = {"", "unet.", "model.diffusion_model."};
        for (size_t p = 0; p < 3; p++) {
            st_builder ldm, diffusers;
            buf a, b;
            st_init(&ldm);
            ldm_unet(&ldm, &NETS[i]);
            tensor_file *want = finish(&ldm, &a);
            st_init(&diffusers);
            diffusers_unet(&diffusers, PREFIX[p], &NETS[i]);
            tensor_file *got = finish(&diffusers, &b);
            expect_same(got, COMPONENT_ANY, want);
            expect_same(got, COMPONENT_DIFFUSION, want);
            expect_same(want, COMPONENT_ANY, want);
            tensor_file_close(got);
            tensor_file_close(want);
            buf_free(&a);
            buf_free(&b);
        }
    }
}

/* A file in a given naming, and what its names have to become. */
static void expect_names(tensor_component component, const char *const (*pairs)[2], size_t count) {
    st_builder s;
    buf b;
    st_init(&s);
    for (size_t i = 0; i < count; i++) add(&s, 1, 1, "%s", pairs[i][0]);
    tensor_file *f = finish(&s, &b);
    tensor_names names;
    tensor_names_init(&names, f, component);
    for (size_t i = 0; i < count; i++) {
        char out[256];
        assert_true(tensor_names_map(&names, pairs[i][0], out, sizeof out));
        assert_string_equal(out, pairs[i][1]);
        for (size_t cap = 1; cap <= strlen(pairs[i][1]); cap++)
            assert_false(tensor_names_map(&names, pairs[i][0], out, cap));
    }
    tensor_file_close(f);
    buf_free(&b);
}

static void vae_names(void **state) {
    (void)state;
    static const char *const PAIRS[][2] = {
        {"encoder.conv_in.weight", "first_stage_model.encoder.conv_in.weight"},
        {"encoder.down_blocks.0.resnets.1.conv2.bias", "first_stage_model.encoder.down.0.block.1.conv2.bias"},
        {"encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
         "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight"},
        {"encoder.down_blocks.0.downsamplers.0.conv.weight", "first_stage_model.encoder.down.0.downsample.conv.weight"},
        {"encoder.mid_block.resnets.0.norm1.weight", "first_stage_model.encoder.mid.block_1.norm1.weight"},
        {"encoder.mid_block.resnets.1.norm1.weight", "first_stage_model.encoder.mid.block_2.norm1.weight"},
        {"encoder.mid_block.attentions.0.group_norm.weight", "first_stage_model.encoder.mid.attn_1.norm.weight"},
        {"encoder.mid_block.attentions.0.query.weight", "first_stage_model.encoder.mid.attn_1.q.weight"},
        {"encoder.mid_block.attentions.0.key.weight", "first_stage_model.encoder.mid.attn_1.k.weight"},
        {"encoder.mid_block.attentions.0.value.weight", "first_stage_model.encoder.mid.attn_1.v.weight"},
        {"encoder.mid_block.attentions.0.proj_attn.bias", "first_stage_model.encoder.mid.attn_1.proj_out.bias"},
        {"encoder.conv_norm_out.weight", "first_stage_model.encoder.norm_out.weight"},
        {"decoder.mid_block.attentions.0.to_q.weight", "first_stage_model.decoder.mid.attn_1.q.weight"},
        {"decoder.mid_block.attentions.0.to_k.weight", "first_stage_model.decoder.mid.attn_1.k.weight"},
        {"decoder.mid_block.attentions.0.to_v.weight", "first_stage_model.decoder.mid.attn_1.v.weight"},
        {"decoder.mid_block.attentions.0.to_out.0.bias", "first_stage_model.decoder.mid.attn_1.proj_out.bias"},
        {"decoder.up_blocks.0.resnets.2.conv1.weight", "first_stage_model.decoder.up.2.block.2.conv1.weight"},
        {"decoder.up_blocks.0.upsamplers.0.conv.weight", "first_stage_model.decoder.up.2.upsample.conv.weight"},
        {"decoder.up_blocks.2.resnets.0.conv_shortcut.weight",
         "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"},
        {"decoder.conv_out.weight", "first_stage_model.decoder.conv_out.weight"},
        {"quant_conv.weight", "first_stage_model.quant_conv.weight"},
        {"post_quant_conv.bias", "first_stage_model.post_quant_conv.bias"},
    };
    expect_names(COMPONENT_ANY, PAIRS, sizeof PAIRS / sizeof *PAIRS);
    expect_names(COMPONENT_VAE, PAIRS, sizeof PAIRS / sizeof *PAIRS);
}

static void other_names(void **state) {
    (void)state;
    static const char *const ANY[][2] = {
        {"text_model.encoder.layers.0.mlp.fc1.weight",
         "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"},
        {"cond_stage_model.transformer.embeddings.position_embedding.weight",
         "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"},
        {"conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
         "cond_stage_model.transformer.text_model.final_layer_norm.bias"},
        {"cond_stage_model.model.ln_final.weight", "cond_stage_model.transformer.text_model.final_layer_norm.weight"},
        {"cond_stage_model.model.positional_embedding",
         "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"},
        {"cond_stage_model.model.token_embedding.weight",
         "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"},
        {"cond_stage_model.model.transformer.resblocks.22.attn.out_proj.bias",
         "cond_stage_model.transformer.text_model.encoder.layers.22.self_attn.out_proj.bias"},
        {"transformer.resblocks.3.attn.in_proj_weight",
         "cond_stage_model.transformer.text_model.encoder.layers.3.self_attn.in_proj.weight"},
        {"transformer.resblocks.3.ln_2.bias",
         "cond_stage_model.transformer.text_model.encoder.layers.3.layer_norm2.bias"},
        {"conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_proj.weight",
         "conditioner.embedders.1.transformer.text_model.encoder.layers.0.mlp.fc2.weight"},
        {"conditioner.embedders.1.model.text_projection", "conditioner.embedders.1.transformer.text_projection"},
        {"text_encoder_2.text_projection.weight", "conditioner.embedders.1.transformer.text_projection.weight"},
        {"cond_stage_model.roberta.pooler.weight", "cond_stage_model.roberta.pooler.weight"},
        {"first_stage_model.decoder.up.0.block.0.conv1.weight", "first_stage_model.decoder.up.0.block.0.conv1.weight"},
        {"model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"},
        {"add_embedding.linear_2.bias", "model.diffusion_model.label_emb.0.2.bias"},
        {"input_blocks.1.1.norm.weight", "model.diffusion_model.input_blocks.1.1.norm.weight"},
        {"diffusion_model.out.2.weight", "model.diffusion_model.out.2.weight"},
        {"encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"},
        {"down_blocks.99999.resnets.0.norm1.weight", "model.diffusion_model.down_blocks.99999.resnets.0.norm1.weight"},
        {"down_blocks.16.resnets.0.norm1.weight", "model.diffusion_model.down_blocks.16.resnets.0.norm1.weight"},
        {"alphas_cumprod", "alphas_cumprod"},
    };
    static const char *const CLIP_G[][2] = {
        {"text_model.embeddings.token_embedding.weight",
         "conditioner.embedders.1.transformer.text_model.embeddings.token_embedding.weight"},
        {"encoder.layers.1.layer_norm1.weight",
         "conditioner.embedders.1.transformer.text_model.encoder.layers.1.layer_norm1.weight"},
    };
    static const char *const SD2[][2] = {
        {"conditioner.embedders.0.model.logit_scale", "cond_stage_model.transformer.logit_scale"},
    };
    static const char *const REFINER[][2] = {
        {"model.diffusion_model.label_emb.0.2.bias", "model.diffusion_model.label_emb.0.2.bias"},
        {"conditioner.embedders.0.model.ln_final.weight",
         "conditioner.embedders.1.transformer.text_model.final_layer_norm.weight"},
    };
    expect_names(COMPONENT_ANY, ANY, sizeof ANY / sizeof *ANY);
    expect_names(COMPONENT_ANY, SD2, sizeof SD2 / sizeof *SD2);
    expect_names(COMPONENT_ANY, REFINER, sizeof REFINER / sizeof *REFINER);
    expect_names(COMPONENT_CLIP_G, CLIP_G, sizeof CLIP_G / sizeof *CLIP_G);
}

/* What OpenCLIP fuses is shown as its three parts, each with its own bytes. */
static void fused_attention(void **state) {
    (void)state;
    static const char at[] = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.";
    st_builder s;
    buf b;
    st_init(&s);
    float values[6 * 4 + 6];
    for (int i = 0; i < 30; i++) values[i] = (float)i;
    st_add(&s, "transformer.resblocks.0.attn.in_proj_weight", "F32", "6,4", values, 24 * sizeof(float));
    st_add(&s, "transformer.resblocks.0.attn.in_proj_bias", "F32", "6", values + 24, 6 * sizeof(float));
    st_add(&s, "transformer.resblocks.1.attn.in_proj_weight", "F32", "7,2", values, 14 * sizeof(float));
    tensor_file *f = finish(&s, &b);
    name_view v;
    name_view_init(&v, f, COMPONENT_ANY);
    assert_int_equal(v.count, 7); /* a third of seven rows is none */
    for (int i = 0; i < 3; i++) {
        float got[8];
        char name[160];
        snprintf(name, sizeof name, "%s%c_proj.weight", at, "qkv"[i]);
        const tensor_info *t = name_view_find(&v, name);
        assert_true(t && t->n_dims == 2 && t->ne[0] == 4 && t->ne[1] == 2);
        assert_int_equal(tensor_values_read(f, t, got, 8), 8);
        assert_memory_equal(got, values + 8 * i, sizeof got);
        snprintf(name, sizeof name, "%s%c_proj.bias", at, "qkv"[i]);
        t = name_view_find(&v, name);
        assert_true(t && t->n_dims == 1 && t->ne[0] == 2);
        assert_int_equal(tensor_values_read(f, t, got, 8), 2);
        assert_memory_equal(got, values + 24 + 2 * i, 2 * sizeof *got);
    }
    name_view_free(&v);
    tensor_file_close(f);
    buf_free(&b);
}

/* --- kinds --- */

typedef struct kind_case {
    const char *names; /* "name:shape" separated by spaces */
    model_kind kind;
    const char *family;
    unsigned parts;
    bool supported;
    const char *reason; /* part of it */
} kind_case;

#define SD1_UNET                                                                                                       \
    "model.diffusion_model.input_blocks.0.0.weight:8,4,3,3 model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight:8,16 "
#define SD1_VAE "first_stage_model.decoder.conv_in.weight:8,4,3,3 "
#define SD1_CLIP "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight:9,16 "

#define UNET "model.diffusion_model."
#define BLOCK UNET "input_blocks.1.1."
#define SD2_UNET                                                                                                       \
    UNET "input_blocks.0.0.weight:8,4,3,3 " BLOCK "proj_in.weight:8,8 " BLOCK                                          \
         "transformer_blocks.0.attn2.to_k.weight:8,16 "

static const kind_case KINDS[] = {
    {SD1_UNET SD1_VAE SD1_CLIP, MODEL_CHECKPOINT, "sd1", MODEL_PART_DIFFUSION | MODEL_PART_VAE | MODEL_PART_CLIP_L,
     true, ""},
    {SD1_UNET, MODEL_DIFFUSION, "sd1", MODEL_PART_DIFFUSION, true, ""},
    {"conv_in.weight:8,4,3,3 down_blocks.0.resnets.0.conv1.weight:8,8,3,3", MODEL_DIFFUSION, "sd1",
     MODEL_PART_DIFFUSION, true, ""},
    {"model.diffusion_model.input_blocks.0.0.weight:8,9,3,3 " SD1_VAE, MODEL_CHECKPOINT, "sd1",
     MODEL_PART_DIFFUSION | MODEL_PART_VAE, true, ""},
    {SD2_UNET SD1_VAE "cond_stage_model.model.token_embedding.weight:9,16", MODEL_CHECKPOINT, "sd2",
     MODEL_PART_DIFFUSION | MODEL_PART_VAE | MODEL_PART_CLIP_H, true, ""},
    {UNET "input_blocks.0.0.weight:8,4,3,3 " BLOCK "transformer_blocks.0.attn2.to_k.weight:8,1024", MODEL_DIFFUSION,
     "sd2", MODEL_PART_DIFFUSION, true, ""},
    {UNET "input_blocks.0.0.weight:8,4,3,3 " BLOCK "proj_in.weight:8,8 " BLOCK
          "transformer_blocks.0.attn2.to_k.weight:8,768",
     MODEL_DIFFUSION, "sd1", MODEL_PART_DIFFUSION, true, ""},
    {UNET "input_blocks.0.0.weight:8,5,3,3 " BLOCK "proj_in.weight:8,8", MODEL_DIFFUSION, "sd2", MODEL_PART_DIFFUSION,
     false, "depth model: not supported yet"},
    {UNET "input_blocks.0.0.weight:8,8,3,3", MODEL_DIFFUSION, "sd1", MODEL_PART_DIFFUSION, true, ""},
    {SD2_UNET UNET "label_emb.0.0.weight:8,8 conditioner.embedders.1.model.ln_final.weight:8", MODEL_CHECKPOINT, "sdxl",
     MODEL_PART_DIFFUSION | MODEL_PART_CLIP_G, true, ""},
    {SD2_UNET UNET "label_emb.0.0.weight:8,1296 conditioner.embedders.0.model.ln_final.weight:8", MODEL_CHECKPOINT,
     "sdxl-refiner", MODEL_PART_DIFFUSION | MODEL_PART_CLIP_G, true, ""},
    {"conv_in.weight:8,9,3,3 add_embedding.linear_1.weight:8,8 down_blocks.1.attentions.0.transformer_blocks.0.attn2."
     "to_k.weight:8,2048",
     MODEL_DIFFUSION, "sdxl", MODEL_PART_DIFFUSION, true, ""},
    {SD2_UNET UNET "label_emb.0.0.weight:8,8 edm_mean:4 edm_std:4", MODEL_DIFFUSION, "playground", MODEL_PART_DIFFUSION,
     false, "Playground 2.5 model: not supported yet"},
    {SD2_UNET UNET "label_emb.0.0.weight:8,8 edm_vpred.sigma_max:1", MODEL_DIFFUSION, "cosxl", MODEL_PART_DIFFUSION,
     false, "CosXL"},
    {UNET "input_blocks.0.0.weight:8,4,3,3 " UNET "label_emb.0.0.weight:8,8 " BLOCK
          "transformer_blocks.0.attn2.to_k.weight:8,1024",
     MODEL_DIFFUSION, "sd2-unclip", MODEL_PART_DIFFUSION, false, "unCLIP"},
    {UNET "input_blocks.0.0.weight:8,7,3,3 " UNET "label_emb.weight:8,8", MODEL_DIFFUSION, "sd2-upscaler",
     MODEL_PART_DIFFUSION, false, "x4 upscaler"},
    {SD2_UNET BLOCK "time_stack.0.norm1.weight:8", MODEL_DIFFUSION, "svd", MODEL_PART_DIFFUSION, false, "Video"},
    {SD1_UNET "cc_projection.weight:8,8", MODEL_DIFFUSION, "zero123", MODEL_PART_DIFFUSION, false, "Zero123"},
    {SD1_VAE, MODEL_VAE, "sd1", MODEL_PART_VAE, true, ""},
    {"decoder.conv_in.weight:8,4,3,3 decoder.up_blocks.0.resnets.0.conv1.weight:8,8,3,3", MODEL_VAE, "sd1",
     MODEL_PART_VAE, true, ""},
    {"decoder.conv_in.weight:8,16,3,3", MODEL_VAE, "flux", MODEL_PART_VAE, false, "VAE of a Flux model"},
    {"text_model.embeddings.token_embedding.weight:9,768", MODEL_TEXT_ENCODER, "clip_l", MODEL_PART_CLIP_L, true, ""},
    {"text_model.embeddings.token_embedding.weight:9,1024", MODEL_TEXT_ENCODER, "clip_h", MODEL_PART_CLIP_H, true, ""},
    {"text_model.embeddings.token_embedding.weight:9,1280", MODEL_TEXT_ENCODER, "clip_g", MODEL_PART_CLIP_G, true, ""},
    {"encoder.block.0.layer.0.SelfAttention.q.weight:8,8 shared.weight:9,8", MODEL_TEXT_ENCODER, "t5", MODEL_PART_T5,
     false, "t5"},
    {"double_blocks.0.img_attn.qkv.weight:8,8", MODEL_DIFFUSION, "flux", MODEL_PART_DIFFUSION, false,
     "Flux model: not supported yet"},
    {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight:8,8", MODEL_DIFFUSION, "sd3", MODEL_PART_DIFFUSION,
     false, "3"},
    {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight:4,768", MODEL_LORA, "sd1",
     0, true, ""},
    {"lora_unet_x_attn2_to_k.lora_down.weight:4,2048 lora_te2_y.alpha:1", MODEL_LORA, "sdxl", 0, true, ""},
    {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.diff:320,1024", MODEL_LORA, "sd2", 0, true,
     ""},
    {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight:4,1024", MODEL_LORA,
     "sd2", 0, true, ""},
    {"text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight:4,1280", MODEL_LORA, "sdxl", 0, true,
     ""},
    {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight:4,4", MODEL_LORA, "flux", 0, false, "LoRA for Flux"},
    {"control_model.input_blocks.0.0.weight:8,4,3,3", MODEL_CONTROLNET, "", 0, false, "no whole ControlNet"},
    {"control_model.input_hint_block.0.weight:16,3,3,3 control_model.input_blocks.1.1.proj_in.weight:32,32,1,1 "
     "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight:32,768",
     MODEL_CONTROLNET, "sd1", 0, true, ""},
    {"input_hint_block.0.weight:16,3,3,3 input_blocks.1.1.proj_in.weight:32,32 "
     "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight:32,1024",
     MODEL_CONTROLNET, "sd2", 0, true, ""},
    {"controlnet_cond_embedding.conv_in.weight:16,3,3,3 add_embedding.linear_1.weight:32,2816", MODEL_CONTROLNET,
     "sdxl", 0, true, ""},
    {"controlnet_cond_embedding.conv_in.weight:16,3,3,3 control_add_embedding.linear_1.weight:8,8", MODEL_CONTROLNET,
     "", 0, false, "ControlNet-Union: not supported"},
    {"input_hint_block.0.weight:16,3,3,3 lora_controlnet:1", MODEL_CONTROLNET, "", 0, false,
     "Control-LoRA: not supported"},
    {"lllite_unet_input_blocks_4_1.conditioning1.0.weight:8,3,4,4", MODEL_CONTROLNET, "", 0, false,
     "ControlNet-LLLite: not supported"},
    {"controlnet_blocks.0.weight:8,8 transformer_blocks.0.attn.to_q.weight:8,8", MODEL_CONTROLNET, "", 0, false,
     "ControlNet of a transformer (Flux, SD 3): not supported"},
    {"image_proj.proj.weight:3072,1024 ip_adapter.1.to_k_ip.weight:320,768", MODEL_IP_ADAPTER, "sd1", 0, true, ""},
    {"image_proj.latents:1,16,1280 ip_adapter.1.to_k_ip.weight:640,2048", MODEL_IP_ADAPTER, "sdxl", 0, true, ""},
    {"image_proj.proj.0.weight:8,8 ip_adapter.1.to_k_ip.weight:320,768 ip_adapter.0.to_q_lora.down.weight:4,320",
     MODEL_IP_ADAPTER, "sd1", 0, false, "IP-Adapter FaceID: not supported"},
    {"image_proj.proj.0.weight:8,8 image_proj.proj.3.weight:8 ip_adapter.1.to_k_ip.weight:320,768", MODEL_IP_ADAPTER,
     "sd1", 0, false, "IP-Adapter full-face: not supported"},
    {"vision_model.embeddings.patch_embedding.weight:1280,3,14,14 visual_projection.weight:1024,1280",
     MODEL_CLIP_VISION, "clip_vision", MODEL_PART_CLIP_VISION, true, ""},
    {"control_model.input_hint_block.0.weight:16,3,3,3 difference:1", MODEL_CONTROLNET, "", 0, false,
     "difference from a model: not supported"},
    {"conv_first.weight:8,12,3,3 body.0.rdb1.conv1.weight:8,8,3,3 conv_up1.weight:8,8,3,3 conv_up2.weight:8,8,3,3",
     MODEL_UPSCALER, "esrgan-x2", 0, true, ""},
    {"conv_first.weight:8,3,3,3 RRDB_trunk.0.RDB1.conv1.weight:8,8,3,3 upconv1.weight:8,8,3,3 upconv2.weight:8,8,3,3",
     MODEL_UPSCALER, "esrgan-x4", 0, true, ""},
    {"model.0.weight:8,3,3,3 model.1.sub.0.RDB1.conv1.0.weight:8,8,3,3 model.3.weight:8,8,3,3 model.5.weight:8,8,3,3 "
     "model.7.weight:3,8,3,3",
     MODEL_UPSCALER, "esrgan-x2", 0, true, ""},
    {"conv_first.weight:8,1,3,3 body.0.rdb1.conv1.weight:8,8,3,3", MODEL_UPSCALER, "esrgan", 0, false,
     "takes 1 channels"},
    {"body.0.weight:8,3,3,3 body.1.weight:8 body.2.weight:8,8,3,3 body.3.weight:8 body.4.weight:48,8,3,3",
     MODEL_UPSCALER, "compact-x4", 0, true, ""},
    {"emb_params:2,768", MODEL_EMBEDDING, "sd1", 0, true, ""},
    {"emb_params:75,1024", MODEL_EMBEDDING, "sd2", 0, true, ""},
    {"clip_l:8,768 clip_g:8,1280", MODEL_EMBEDDING, "sdxl", 0, true, ""},
    {"clip_l:8,768 clip_g:9,1280", MODEL_EMBEDDING, "sdxl", 0, false,
     "8 vectors for one text encoder, 9 for the other"},
    {"emb_params:76,768", MODEL_EMBEDDING, "sd1", 0, false, "76 vectors are more than the 75"},
    {"emb_params:2,2,768", MODEL_EMBEDDING, "sd1", 0, false, "no list of vectors"},
    {"string_to_param.*:1,768", MODEL_EMBEDDING, "sd1", 0, true, ""},
    {"string_to_param.a:1,768 string_to_param.b:1,768", MODEL_EMBEDDING, "sd1", 0, false, "2 trained words"},
    {"<cat>:8", MODEL_EMBEDDING, "sd1", 0, true, ""},
    {"word:1,1280", MODEL_EMBEDDING, "sdxl-refiner", 0, true, ""},
    {"decoder.layers.1.weight:8,4,3,3 encoder.layers.0.weight:8,3,3,3", MODEL_TAESD, "taesd", 0, true, ""},
    {"model.layers.0.self_attn.q_proj.weight:8,8 model.layers.0.mlp.gate_proj.weight:8,8", MODEL_LLM, "llm",
     MODEL_PART_LLM, false, "GGUF"},
    {"some.weight:8,8", MODEL_UNKNOWN, "", 0, false, "unknown kind of model"},
};

static void add_listed(st_builder *s, const char *list) {
    char copy[1024], *save = NULL;
    assert_true(str_copy(copy, sizeof copy, list));
    for (char *item = strtok_r(copy, " ", &save); item; item = strtok_r(NULL, " ", &save)) {
        char *dims = strrchr(item, ':');
        *dims++ = 0;
        size_t n = 1;
        for (char *d = dims; d; d = strchr(d, ',') ? strchr(d, ',') + 1 : NULL) n *= (size_t)atoi(d);
        st_add(s, item, "F16", dims, NULL, n * 2);
    }
}

static void kinds(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        st_builder s;
        buf b;
        st_init(&s);
        add_listed(&s, KINDS[i].names);
        tensor_file *f = finish(&s, &b);
        model_desc d;
        model_describe(f, &d);
        if (d.kind != KINDS[i].kind || !str_eq(d.family, KINDS[i].family) || d.parts != KINDS[i].parts ||
            d.supported != KINDS[i].supported || !strstr(d.reason, KINDS[i].reason))
            fail_msg("%s: kind %s, family '%s', parts %u, supported %d, reason '%s'", KINDS[i].names,
                     model_kind_name(d.kind), d.family, d.parts, d.supported, d.reason);
        assert_true(d.supported == (d.reason[0] == 0));
        assert_int_equal(d.weight_type, TENSOR_F16);
        tensor_file_close(f);
        buf_free(&b);
    }
}

/* What model_describe() says of an SD 1.x UNet with this __metadata__ (JSON members, or NULL for none). */
static model_desc describe_with(const char *metadata) {
    st_builder s;
    buf b;
    st_init(&s);
    if (metadata) buf_printf(&s.header, "\"__metadata__\":{%s}", metadata);
    add_listed(&s, "model.diffusion_model.input_blocks.0.0.weight:8,4,3,3");
    tensor_file *f = finish(&s, &b);
    model_desc d;
    model_describe(f, &d);
    tensor_file_close(f);
    buf_free(&b);
    return d;
}

/* A model of SD 2 whose telling vector is plus and minus this number (F16: 0x2c00 is 0.0625, 0x3000 is 0.125). */
static model_desc describe_sd2(uint16_t half, const char *metadata) {
    uint16_t biases[64];
    for (int i = 0; i < 64; i++) biases[i] = (uint16_t)(half | (i % 2) << 15);
    st_builder s;
    buf b;
    st_init(&s);
    if (metadata) buf_printf(&s.header, "\"__metadata__\":{%s}", metadata);
    add_listed(&s, SD2_UNET);
    st_add(&s, UNET "output_blocks.11.1.transformer_blocks.0.norm1.bias", "F16", "64", biases, sizeof biases);
    tensor_file_close(finish(&s, &b));
    char *path = write_temp(&b); /* the index reads headers only: the values come from the file */
    model_desc d;
    err e = {0};
    if (!model_describe_path(path, &d, &e)) fail_msg("%s", e.msg);
    remove_temp(path);
    buf_free(&b);
    return d;
}

static void prediction_of_sd2(void **state) {
    (void)state;
    model_desc d = describe_sd2(0x2c00, NULL);
    assert_true(d.supported && !d.v_prediction && d.width == 512 && d.height == 512);
    d = describe_sd2(0x3000, NULL);
    assert_true(d.supported && d.v_prediction && d.width == 768 && d.height == 768);
    d = describe_sd2(0x3000, "\"modelspec.prediction_type\":\"epsilon\"");
    assert_true(!d.v_prediction && d.width == 512);
    d = describe_sd2(0x2c00, "\"modelspec.prediction_type\":\"v\",\"modelspec.resolution\":\"640x832\"");
    assert_true(d.v_prediction && d.width == 640 && d.height == 832);
}

/* SDXL says it with tensors that hold nothing, or with metadata. */
static void prediction_of_sdxl(void **state) {
    (void)state;
    static const struct {
        const char *marks, *metadata;
        bool v, zero_snr;
    } rows[] = {
        {"", NULL, false, false},
        {"v_pred:0", NULL, true, false},
        {"v_pred:0 ztsnr:0", NULL, true, true},
        {"", "\"modelspec.prediction_type\":\"v\"", true, false},
        {"", "\"modelspec.prediction_type\":\"epsilon\"", false, false},
        {"", "\"modelspec.prediction_type\":\"v\",\"mysti.zero_snr\":\"true\"", true, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        st_builder s;
        buf b;
        st_init(&s);
        if (rows[i].metadata) buf_printf(&s.header, "\"__metadata__\":{%s}", rows[i].metadata);
        add_listed(&s, SD2_UNET UNET "label_emb.0.0.weight:8,8");
        add_listed(&s, rows[i].marks);
        tensor_file *f = finish(&s, &b);
        model_desc d;
        model_describe(f, &d);
        assert_true(d.supported && d.width == 1024 && d.height == 1024);
        assert_true(d.v_prediction == rows[i].v && d.zero_snr == rows[i].zero_snr);
        tensor_file_close(f);
        buf_free(&b);
    }
}

static void native_size(void **state) {
    (void)state;
    model_desc d = describe_with("\"modelspec.resolution\":\"128x192\"");
    assert_true(d.supported && d.width == 128 && d.height == 192);
    static const char *const unusable[] = {
        NULL,
        "\"modelspec.resolution\":\"\"",
        "\"modelspec.resolution\":\"big\"",
        "\"modelspec.resolution\":\"0x0\"",
        "\"modelspec.resolution\":\"56x512\"",
        "\"modelspec.resolution\":\"512x4104\"",
        "\"modelspec.resolution\":\"130x128\"",
        "\"modelspec.resolution\":\"-128x128\"",
    };
    for (size_t i = 0; i < sizeof unusable / sizeof *unusable; i++) {
        d = describe_with(unusable[i]);
        assert_true(d.width == 512 && d.height == 512);
    }
}

static void title_and_examples(void **state) {
    (void)state;
    model_desc d =
        describe_with("\"modelspec.title\":\"Small \xc3\xbc\",\"mysti.examples\":\"a red circle\\na blue star\"");
    assert_string_equal(d.name, "Small \xc3\xbc");
    assert_string_equal(d.examples, "a red circle\na blue star");
    d = describe_with(NULL);
    assert_string_equal(d.examples, "");

    buf long_text; /* cut at the end of a character */
    buf_init(&long_text, 1 << 16);
    buf_puts(&long_text, "\"mysti.examples\":\"");
    for (int i = 0; i < MODEL_EXAMPLES_MAX; i++) buf_puts(&long_text, "\xc3\xbc");
    buf_puts(&long_text, "\"");
    d = describe_with(buf_str(&long_text));
    assert_int_equal(strlen(d.examples), MODEL_EXAMPLES_MAX - 2);
    assert_true(str_is_utf8(d.examples, strlen(d.examples)));
    buf_free(&long_text);
}

static void llm_kind(void **state) {
    (void)state;
    const uint64_t dims[] = {64, 3};
    buf b;
    buf_init(&b, 1 << 20);
    gguf_head(&b, 3, 1, 3);
    gguf_str(&b, "general.architecture", "qwen3");
    gguf_str(&b, "general.name", "Tiny");
    gguf_num(&b, "qwen3.context_length", 4, 4096, 4);
    gguf_tensor(&b, "token_embd.weight", 2, dims, TENSOR_Q8_0, 0);
    put_pad(&b, 32);
    for (int i = 0; i < 204; i++) buf_putc(&b, 0);
    char *path = write_temp(&b);
    model_desc d;
    err e = {0};
    assert_true(model_describe_path(path, &d, &e));
    assert_int_equal(d.kind, MODEL_LLM);
    assert_string_equal(d.family, "qwen3");
    assert_string_equal(d.name, "Tiny");
    assert_int_equal(d.context_len, 4096);
    assert_int_equal(d.width, 0);
    assert_int_equal(d.params, 192);
    assert_int_equal(d.weight_type, TENSOR_Q8_0);
    assert_true(d.supported);
    remove_temp(path);
    buf_free(&b);
}

static void put_file(const char *dir, const char *sub, const char *name, const buf *b) {
    char *folder = path_join(dir, sub), *path = path_join(folder, name);
    mkdir(folder, 0700);
    assert_true(file_write_atomic(path, b->data, b->len, NULL));
    free(path);
    free(folder);
}

static void diffusers_folder(void **state) {
    (void)state;
    char dir[] = "/tmp/mysti-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const char *const parts[][2] = {
        {"unet", "conv_in.weight:8,4,3,3 down_blocks.0.resnets.0.conv1.weight:8,8,3,3"},
        {"vae", "decoder.conv_in.weight:8,4,3,3"},
        {"text_encoder", "text_model.embeddings.token_embedding.weight:9,16"},
    };
    for (int i = 0; i < 3; i++) {
        st_builder s;
        buf b;
        st_init(&s);
        add_listed(&s, parts[i][1]);
        tensor_file_close(finish(&s, &b));
        put_file(dir, parts[i][0], i == 1 ? "diffusion_pytorch_model.bin" : "b.fp16.safetensors", &b);
        if (i != 1) put_file(dir, parts[i][0], "a_model.bin", &b); /* safetensors is preferred */
        if (i == 0) put_file(dir, parts[i][0], "c.safetensors", &b);
        buf_free(&b);
    }
    model_desc d;
    err e = {0};
    assert_false(model_describe_path(dir, &d, &e)); /* no model_index.json yet */
    buf json;
    buf_init(&json, 100);
    buf_puts(&json, "{\"prediction_type\":\"v_prediction\",\"rescale_betas_zero_snr\":true}");
    put_file(dir, "scheduler", "scheduler_config.json", &json);
    put_file(dir, ".", "model_index.json", &json);
    assert_true(model_is_diffusers_dir(dir));
    assert_true(model_describe_path(dir, &d, &e));
    assert_int_equal(d.kind, MODEL_CHECKPOINT);
    assert_int_equal(d.layout, MODEL_LAYOUT_DIFFUSERS);
    assert_int_equal(d.parts, MODEL_PART_DIFFUSION | MODEL_PART_VAE | MODEL_PART_CLIP_L);
    assert_int_equal(d.in_channels, 4);
    assert_true(d.v_prediction && d.zero_snr && d.supported);
    assert_true(d.width == 512 && d.height == 512);
    char *unet = model_diffusers_file(dir, "unet");
    assert_string_equal(path_base(unet), "c.safetensors");
    assert_null(model_diffusers_file(dir, "text_encoder_2"));
    free(unet);
    char *vae = model_diffusers_file(dir, "vae");
    assert_string_equal(path_base(vae), "diffusion_pytorch_model.bin");
    free(vae);
    buf_free(&json);
    char *command = str_fmt("rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unet_names),         cmocka_unit_test(vae_names),
        cmocka_unit_test(other_names),        cmocka_unit_test(kinds),
        cmocka_unit_test(native_size),        cmocka_unit_test(title_and_examples),
        cmocka_unit_test(llm_kind),           cmocka_unit_test(diffusers_folder),
        cmocka_unit_test(fused_attention),    cmocka_unit_test(prediction_of_sd2),
        cmocka_unit_test(prediction_of_sdxl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
