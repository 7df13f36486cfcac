/* lora_names.h - from a LoRA's keys (lora_file.h) to the tensors of a model. Borrows the weights, which must outlive
 * it.
 *
 * A key is no more than a name in which '.' became '_', which cannot be undone by itself; so the keys that a model's
 * own tensors would have are listed instead, in both namings of the UNet. */
#ifndef MYSTI_DIFFUSION_LORA_NAMES_H
#define MYSTI_DIFFUSION_LORA_NAMES_H

#include "diffusion/load/name_index.h"
#include "diffusion/load/weights.h"

typedef struct lora_names {
    const weights *w;
    char **keys; /* owned */
    size_t count;
    name_index by_key;
} lora_names;

void lora_names_init(lora_names *n, const weights *w);
void lora_names_free(lora_names *n);

/* The canonical name of the layer's weight, the weights' own; NULL when the model has no such layer in use. */
const char *lora_names_find(const lora_names *n, const char *key);

#endif
