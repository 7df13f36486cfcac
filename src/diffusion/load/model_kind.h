/* model_kind.h - what a model file is, told from its tensors' names and shapes and its metadata alone. */
#ifndef MYSTI_DIFFUSION_LOAD_MODEL_KIND_H
#define MYSTI_DIFFUSION_LOAD_MODEL_KIND_H

#include "diffusion/load/tensor_file.h"

/* Goes up whenever model_describe() says something else of the same file: who keeps its answers asks again then. */
enum { MODEL_READER = 10 };

typedef enum model_kind {
    MODEL_UNKNOWN,
    MODEL_CHECKPOINT, /* a whole image model: diffusion model with VAE or text encoder */
    MODEL_DIFFUSION,  /* the diffusion model only (unet, mmdit, dit) */
    MODEL_VAE,
    MODEL_TAESD, /* the tiny approximation of a VAE */
    MODEL_LORA,
    MODEL_TEXT_ENCODER, /* clip_l, clip_h, clip_g, t5 */
    MODEL_LLM,
    MODEL_CONTROLNET,
    MODEL_UPSCALER,  /* ESRGAN and its kin */
    MODEL_EMBEDDING, /* textual inversion */
    MODEL_IP_ADAPTER,
    MODEL_CLIP_VISION, /* the image encoder that IP-Adapters read pictures with */
} model_kind;

/* Which components a file brings; or-ed. */
typedef enum model_part {
    MODEL_PART_DIFFUSION = 1,
    MODEL_PART_VAE = 2,
    MODEL_PART_CLIP_L = 4,
    MODEL_PART_CLIP_G = 8,
    MODEL_PART_T5 = 16,
    MODEL_PART_LLM = 32,
    MODEL_PART_CLIP_VISION = 64,
    MODEL_PART_CLIP_H = 128,
} model_part;

typedef enum model_layout {
    MODEL_LAYOUT_LDM,       /* "model.diffusion_model.*", "first_stage_model.*", "cond_stage_model.*" */
    MODEL_LAYOUT_DIFFUSERS, /* "down_blocks.*"; in a folder: unet/, vae/, text_encoder/ */
    MODEL_LAYOUT_BARE,      /* LDM names without the component's prefix, or a format of its own */
} model_layout;

enum { MODEL_SIDE_MIN = 64, MODEL_SIDE_MAX = 4096, MODEL_EXAMPLES_MAX = 2048 };

typedef struct model_desc {
    model_kind kind;
    char family[32]; /* "sd1", "sd2", "sdxl", "sdxl-refiner", "sd3", "flux", ...; an LLM's general.architecture */
    char name[96];   /* general.name / modelspec.title, or "" */
    char alias[96];  /* ss_output_name, which a LoRA may be called by; or "" */
    unsigned parts;  /* model_part, or-ed */
    model_layout layout;
    tensor_type weight_type; /* that of most bytes */
    int64_t params;          /* numbers in all tensors */
    int64_t bytes;           /* size of the tensors' data */
    int in_channels;         /* of the unet: 4, 8 (instruct-pix2pix), 9 (inpainting); 0 without one */
    bool v_prediction;       /* the file says so (docs/model-files.md tells how) */
    bool zero_snr;           /* likewise: trained on a schedule that ends in nothing but noise */
    int width, height; /* the pictures it was trained on: modelspec.resolution, else the family's; 0 when unknown */
    char examples[MODEL_EXAMPLES_MAX]; /* prompts it can do, one a line: mysti.examples, or "" */
    int64_t context_len;               /* an LLM's trained context; 0 when unknown */
    bool supported;                    /* this version can use it */
    char reason[160]; /* a sentence for people when not supported: "Flux model: not supported yet; ..." */
} model_desc;

/* Always succeeds; MODEL_UNKNOWN is an answer. */
void model_describe(const tensor_file *f, model_desc *out);

/* Opens and describes a file, or a folder in the diffusers layout (model_index.json, unet/, vae/, text_encoder/). */
bool model_describe_path(const char *path, model_desc *out, err *e);

/* True for a folder with a model_index.json. */
bool model_is_diffusers_dir(const char *path);

/* The file of one component ("unet", "vae", "text_encoder", "text_encoder_2") of such a folder: .safetensors, else
 * PyTorch's .bin; the full precision file is preferred to *.fp16.*. NULL when there is none; freed with free(). */
char *model_diffusers_file(const char *dir, const char *component);

const char *model_kind_name(model_kind kind);       /* "checkpoint", "vae", "llm", ... */
const char *model_family_title(const char *family); /* what people call it: "Stable Diffusion 1.x" */
const char *model_layout_name(model_layout layout); /* "ldm", "diffusers", "bare" */
const char *model_part_name(model_part part);       /* "diffusion", "vae", "clip_l", ... */

#endif
