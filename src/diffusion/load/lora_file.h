/* lora_file.h - one opened LoRA (or LyCORIS) file: which layers it changes, and with which tensors.
 *
 * Kinds, told from the tensors' endings:
 *   LoRA, LoCon  up, down, (mid)       Hu et al. 2021; the same for convolutions, with a Tucker core for the kernel
 *   LoHa         w1_a w1_b w2_a w2_b   Hadamard product of two such (Hyeon-Woo et al. 2022)
 *   LoKr         w1 w2, or factors     Kronecker product (LyCORIS)
 *   full         diff, diff_b          the difference itself; for norms w_norm, b_norm
 *   DoRA         dora_scale            lengths of the changed weight's columns (Liu et al. 2024), with any of the above
 *
 * A layer is known by a key: the component, then the layer's name with '_' for '.'. kohya's
 * "lora_unet_down_blocks_0_...", diffusers' and PEFT's "unet.down_blocks.0...." both become "unet_down_blocks_0_...";
 * text encoders begin with "te_", the second one with "te2_". Files come from strangers; tensor_file has checked their
 * bounds, and shapes are checked where they are used. */
#ifndef MYSTI_DIFFUSION_LORA_FILE_H
#define MYSTI_DIFFUSION_LORA_FILE_H

#include "diffusion/load/tensor_file.h"

/* PyTorch's shapes; k: the kernel's sizes, absent in linear layers. */
typedef enum lora_part {
    LORA_UP,        /* [out, r] */
    LORA_DOWN,      /* [r, in, k] */
    LORA_MID,       /* [r, r, k]; down is then [r, in] */
    LORA_ALPHA,     /* scalar: the change is scaled by alpha / r */
    LORA_SCALE,     /* scalar: by this instead */
    LORA_DORA,      /* [out, 1] or [1, in], with ones for the kernel */
    LORA_HADA_W1_A, /* [out, r]; with a core: [r, out] */
    LORA_HADA_W1_B, /* [r, in, k]; with a core: [r, in] */
    LORA_HADA_W2_A,
    LORA_HADA_W2_B,
    LORA_HADA_T1, /* [r, r, k] */
    LORA_HADA_T2,
    LORA_LOKR_W1,   /* [a, b] */
    LORA_LOKR_W1_A, /* [a, r] */
    LORA_LOKR_W1_B, /* [r, b] */
    LORA_LOKR_W2,   /* [out / a, in / b, k] */
    LORA_LOKR_W2_A, /* [out / a, r]; with a core: [r, out / a] */
    LORA_LOKR_W2_B, /* [r, in / b, k]; with a core: [r, in / b] */
    LORA_LOKR_T2,   /* [r, r, k] */
    LORA_DIFF,      /* of the weight, in its shape */
    LORA_DIFF_BIAS, /* of the bias */
    LORA_PARTS,
} lora_part;

typedef struct lora_module {
    char *key;
    const tensor_info *part[LORA_PARTS]; /* NULL: not there */
} lora_module;

typedef struct lora_file lora_file;

/* NULL on failure: ERR_UNSUPPORTED for a kind that is none of the above, ERR_FORMAT for a layer of which a part is
 * missing, both naming the tensor. Maps the file. */
lora_file *lora_file_open(const char *path, err *e);
void lora_file_close(lora_file *f); /* NULL is fine */

size_t lora_file_count(const lora_file *f); /* layers; at least 1 */
const lora_module *lora_file_at(const lora_file *f, size_t i);

const tensor_file *lora_file_tensors(const lora_file *f);

/* A part's numbers; free with free(). ERR_UNSUPPORTED when its type cannot be read. */
float *lora_file_read(const lora_file *f, const tensor_info *part, err *e);

#endif
