/* clip_layer.h - one layer of CLIP's transformers, of texts as of pictures: normalised before each part. */
#ifndef MYSTI_DIFFUSION_CLIP_LAYER_H
#define MYSTI_DIFFUSION_CLIP_LAYER_H

#include "diffusion/model/layers.h"

typedef struct clip_layer {
    layer norm1, q, k, v, out;
    layer norm2, fc1, fc2;
} clip_layer;

typedef struct clip_layer_form {
    int heads;
    bool is_causal;
    bool exact_gelu; /* OpenCLIP's; else OpenAI's quick one */
} clip_layer_form;

/* `l`: "...encoder.layers.0.", in the naming of transformers. */
clip_layer clip_layer_load(const layers *l, int64_t dim);

/* x: [dim, tokens, n] */
tensor *clip_layer_forward(graph *g, const clip_layer *l, const clip_layer_form *form, tensor *x);

#endif
