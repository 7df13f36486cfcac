/* family.h - what no tensor tells: how the models of a family are used. One row per family that is supported. */
#ifndef MYSTI_DIFFUSION_FAMILY_H
#define MYSTI_DIFFUSION_FAMILY_H

#include "diffusion/text/clip.h"

enum { FAMILY_TEXT_MAX = 2 };

/* What a UNet is told about the picture beside the text: sinusoidal embeddings of these numbers, behind the pooled
 * text. */
typedef enum family_label {
    LABEL_NONE,
    LABEL_SIZE,  /* height, width, top, left, target height, target width (Podell et al. 2023, SDXL, 2.2) */
    LABEL_SCORE, /* height, width, top, left, aesthetic score: SDXL's refiner */
} family_label;

typedef struct family {
    const char *name;
    const clip_form *text[FAMILY_TEXT_MAX]; /* in the order of their columns in the context; NULL behind the last one */
    float vae_scale;                        /* model latents = autoencoder latents * this */
    family_label label;
    bool is_silence_zero; /* an empty negative prompt is zeros instead of an encoded empty text, as A1111 has it */
} family;

/* NULL when it is not supported. */
const family *family_find(const char *name);

#endif
