/* controlnet_form.h - what kind of ControlNet a file holds, and what its layers are called, told from its tensors'
 * names and shapes.
 *
 * The network is a copy of the first half of a UNet with three things more: convolutions that take in the control
 * picture (the hint), a 1x1 convolution behind each entry of the half, and one behind the middle (Zhang et al. 2023).
 * Three namings: the original one below "control_model.", the same without that prefix, and diffusers'. */
#ifndef MYSTI_DIFFUSION_LOAD_CONTROLNET_FORM_H
#define MYSTI_DIFFUSION_LOAD_CONTROLNET_FORM_H

#include "diffusion/load/tensor_file.h"

enum { CONTROLNET_HINTS = 8, CONTROLNET_NAME_MAX = 64 };

typedef enum controlnet_naming { CONTROLNET_LDM, CONTROLNET_BARE, CONTROLNET_DIFFUSERS } controlnet_naming;

typedef struct controlnet_form {
    bool is_controlnet; /* it is one, be it of a kind that we cannot do */
    controlnet_naming naming;
    const char *family; /* static: "sd1", "sd2", "sdxl"; "" when it is of another kind */
} controlnet_form;

/* False, with a reason, when it is none (is_controlnet false), or one that we cannot do: "ControlNet-LLLite". */
bool controlnet_form_read(const tensor_file *f, controlnet_form *out, err *e);

/* Canonical names (tensor_names.h) of layers without ".weight", into `out`; that of the half is a prefix. */
const char *controlnet_encoder_name(const controlnet_form *c);
void controlnet_hint_name(const controlnet_form *c, int i, char out[CONTROLNET_NAME_MAX]); /* i < CONTROLNET_HINTS */
void controlnet_zero_name(const controlnet_form *c, int i, char out[CONTROLNET_NAME_MAX]); /* behind entry i */
const char *controlnet_middle_name(const controlnet_form *c);

#endif
