/* lora_delta.h - what a LoRA's layer adds to a weight.
 *
 * A weight is [out, in, k] in PyTorch's order, in memory row by row: `rows` of `columns` = in k numbers; a vector has
 * one column. k is 1 in linear layers. */
#ifndef MYSTI_DIFFUSION_LORA_DELTA_H
#define MYSTI_DIFFUSION_LORA_DELTA_H

#include "diffusion/load/lora_file.h"
#include "diffusion/model/backend.h"

typedef struct lora_shape {
    int64_t rows, columns;
    int64_t kernel;      /* k; columns is a multiple of it */
    bool may_be_partial; /* a change of the first input channels only is fine: models for inpainting have more of them
                          * than those that LoRAs are trained on */
} lora_shape;

/* Adds the layer, times `strength`, to the weight in `w` ([rows, columns], f32): w + strength * delta. For DoRA that is
 * w + strength * (rescaled(w + delta) - w). ERR_FORMAT when the shapes do not fit
 * each other, ERR_UNSUPPORTED when they do not fit the weight. */
bool lora_add(backend *b, const lora_file *f, const lora_module *m, const lora_shape *shape, float strength, float *w,
              err *e);

/* The same for the layer's bias ([rows]). */
bool lora_add_bias(const lora_file *f, const lora_module *m, int64_t rows, float strength, float *bias, err *e);

#endif
