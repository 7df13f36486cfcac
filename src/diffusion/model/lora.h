/* lora.h - LoRAs on the weights of a model: how they come and go.
 *
 * They are merged: every weight that a LoRA changes is computed anew from the numbers in the model's file, in f32, and
 * rounded once to its own type. So steps cost nothing more, all kinds are the same to the networks, and what is taken
 * off again leaves the file's own bits. Weights that are used where they lie in the file (and quantised ones, which
 * become f16) get memory of their own for as long as they are changed. */
#ifndef MYSTI_DIFFUSION_LORA_H
#define MYSTI_DIFFUSION_LORA_H

#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"

/* A file, and how much of it: 0 nothing, 1 as it was trained, also negative. */
typedef struct lora_use {
    const char *path;
    float unet, te; /* for the UNet, for the text encoders */
} lora_use;

typedef struct lora_plan lora_plan;

/* Opens the files and finds their places in the weights, which it borrows and changes nothing of. `family` (the
 * model's, for messages) and the paths are borrowed. count may be 0. NULL on failure: ERR_UNSUPPORTED for a file that
 * fits nowhere or is of an unknown kind; one that fits in part is a warning in the log. */
lora_plan *lora_plan_open(weights *w, const char *family, const lora_use *uses, size_t count, err *e);
void lora_plan_close(lora_plan *p); /* NULL is fine */

/* Bytes that will be allocated for changed weights. */
size_t lora_plan_bytes(const lora_plan *p);

/* Tensors that will be changed. */
size_t lora_plan_tensors(const lora_plan *p);

/* Called between tensors; false stops with ERR_CANCELLED. */
typedef bool (*lora_progress)(void *ctx, size_t done, size_t all);

/* Makes the weights those of the plan: whatever was merged before is gone. After a failure they are those of the
 * model's files. `progress` may be NULL. */
bool lora_plan_run(lora_plan *p, backend *b, lora_progress progress, void *ctx, err *e);

#endif
