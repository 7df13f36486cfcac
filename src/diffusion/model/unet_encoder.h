/* unet_encoder.h - the first half of a latent diffusion UNet and its middle: what the whole UNet begins with, and what
 * a ControlNet is a trained copy of (Zhang et al. 2023). Read from the tensors as unet.h tells. */
#ifndef MYSTI_DIFFUSION_UNET_ENCODER_H
#define MYSTI_DIFFUSION_UNET_ENCODER_H

#include "diffusion/model/unet_blocks.h"

enum { UNET_STAGES_MAX = 64, UNET_LEVELS_MAX = 8, UNET_MIDDLES_MAX = 8, UNET_STAGE_OPERATIONS = 96 };

/* One entry of input_blocks or output_blocks, or of the middle. */
typedef struct unet_stage {
    bool has_resnet;
    unet_resnet res;
    unet_transformer attn;
    layer sampler; /* down in the first half (a stage of its own), up in the second; weight NULL without */
} unet_stage;

/* Where a reader of stages stands. */
typedef struct unet_place {
    int64_t width;    /* of the first level: what timesteps are embedded in */
    int64_t channels; /* of the picture here */
    int level;        /* 0: full size; each one more halves it, rounded up */
    int context_dim;  /* of the text; 0: nothing has attended to it yet */
} unet_place;

/* The picture that a stage leaves. */
typedef struct unet_skip {
    int64_t channels;
    int level;
} unet_skip;

typedef struct unet_encoder {
    layer time1, time2;
    layer label1, label2; /* weights NULL when the network takes no label */
    layer conv_in;
    unet_stage input[UNET_STAGES_MAX], middle[UNET_MIDDLES_MAX]; /* input[0] is conv_in */
    int inputs, middles;
    unet_skip skips[UNET_STAGES_MAX]; /* what each input leaves for the second half */
    unet_place end;                   /* where the middle is */
    int in_channels, label_dim;
} unet_encoder;

/* The tensors below `top`: "time_embed.", "input_blocks.", "middle_block.". Free it also after an error, which `top`
 * has. */
void unet_encoder_load(unet_encoder *u, const layers *top);
void unet_encoder_free(unet_encoder *u);

/* The residual block below "0." and the transformer below "1.", which may be missing; moves `at` on. */
void unet_stage_load(unet_stage *s, const layers *l, unet_place *at, int64_t in);

/* What every stage of one pass is told. */
typedef struct unet_pass {
    graph *g;
    tensor *emb;               /* [4 width, n], already through silu; NULL with times */
    const float *const *times; /* as unet_input has them */
    int time_rows;
    unet_context context;
} unet_pass;

/* A picture to attend to beside the text. */
typedef struct unet_image {
    const unet_image_attention *layers; /* one for each cross-attention: down, up, middle, as diffusers counts them */
    const float *tokens;                /* [n, count, context_dim] */
    int count;
    float weight;
} unet_image;

/* One batch through the network, of any size.
 *   x         [n, in_channels, h, w]
 *   timesteps [n], 0..999, fractions allowed
 *   context   [n, tokens, context_dim]
 *   label     [n, label_dim], NULL without one */
typedef struct unet_input {
    const float *x;
    int n, h, w;
    const float *timesteps;
    const float *const *times; /* what these make of each residual block's unet_resnet_time(), by number (unet_times.h);
                                * NULL: it is computed in this pass */
    int time_rows;             /* of theirs: n, or 1 for all */
    const float *context;
    int tokens;
    const unet_keys *keys; /* of the context (unet_texts.h); NULL: they are computed in this pass */
    const float *label;
    const float *control;    /* what is added to each skip connection and to the middle, one behind the other, each [n,
                              * channels, h, w] of its level (controlnet.h); NULL: nothing */
    const unet_image *image; /* NULL: none; only a whole UNet has numbers for its cross-attentions */
} unet_input;

bool unet_input_check(const unet_input *in, err *e);

/* The embedding of time and label. timesteps: [n], label: [n, label_dim] -> [4 width, n], already through silu */
tensor *unet_encoder_embed(const unet_encoder *u, graph *g, const float *timesteps, const float *label, int n);

/* The embeddings of time, label and text. */
unet_pass unet_encoder_begin(const unet_encoder *u, graph *g, const unet_input *in);

tensor *unet_stage_forward(const unet_pass *p, const unet_stage *s, tensor *x);

/* The middle's result, and in skips[0 .. inputs) what each input leaves. hint: [w, h, channels, 1], added behind
 * conv_in; NULL: none. */
tensor *unet_encoder_forward(const unet_encoder *u, const unet_pass *p, tensor *x, tensor *hint,
                             tensor *skips[UNET_STAGES_MAX]);

#endif
