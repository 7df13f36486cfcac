/* image_params.h - what a picture is made from: the request fields of docs/api.md, checked and normalised.
 *
 * The same struct comes from a JSON body, from multipart fields and from a stored job, and goes to the worker and into
 * the history. Errors name the field first ("steps: 0 is not between 1 and 200"). */
#ifndef MYSTI_SERVER_IMAGE_PARAMS_H
#define MYSTI_SERVER_IMAGE_PARAMS_H

#include "base/buf.h"
#include "json/json.h"
#include "server/image_controls.h"
#include "server/image_edits.h"
#include "server/image_ip_adapter.h"
#include "server/image_sampling.h"
#include "server/image_texts.h"

#include <stdint.h>

enum {
    PARAMS_PROMPT_MAX = 20000, /* characters */
    PARAMS_SIZE_MIN = 64,
    PARAMS_SIZE_MAX = 4096,
    PARAMS_STEPS_MAX = 200,
    PARAMS_BATCH_MAX = 16,
    PARAMS_CLIP_SKIP_MAX = 12,
    PARAMS_FACTOR_MAX = 8,
    PARAMS_LORAS_MAX = 32,
    PARAMS_LORA_WEIGHT_MAX = 100,
};
#define PARAMS_SEED_MAX ((INT64_C(1) << 53) - 1)

/* A LoRA asked for in the list, beside those that the prompt names. */
typedef struct image_lora {
    char *name;
    double weight, te_weight; /* of the UNet, of the text encoder: -100..100 */
} image_lora;

typedef struct image_params {
    char *prompt;          /* owned, as all strings here */
    char *negative_prompt; /* never NULL */
    char *model;           /* id; NULL: the active one */
    char *refiner;         /* as given, then an id; NULL: none */
    int width, height;     /* 0: the model's own */
    int steps;
    double cfg_scale;
    const char *sampler;   /* one of image_params_samplers(): static */
    const char *scheduler; /* static */
    const char *rng;       /* static */
    int64_t seed;          /* 0..2^53-1 once drawn; -1 before */
    int n;
    int clip_skip;
    const char *emphasis; /* what attention weights do: static */
    image_lora *loras;
    size_t lora_count;
    image_texts texts;
    char *init_image; /* NULL; as given; then a name: "upload:<file>" or a file below the output folder */
    double strength;
    const char *vae; /* what decodes: "full" "taesd": static */
    image_sampling sampling;
    bool is_upscale; /* nothing is drawn: init_image is enlarged; the other fields say how that picture was made */
    char *upscaler;  /* of an upscale: a name in the model folder; NULL: none is named */
    double factor;   /* 1..8; 0: the upscaler's own */
    image_edits edits;
    image_controls controls;
    image_ip_adapter ip_adapter;
    const char *output_format; /* "png" "jpeg" "webp": static */
    int output_compression;    /* 0..100 */
} image_params;

void image_params_init(image_params *p); /* the defaults; the seed is not drawn yet */
void image_params_free(image_params *p); /* the struct is as zeroed afterwards */
void image_params_copy(image_params *to, const image_params *from);

enum image_params_how {
    IMAGE_PARAMS_STRICT = 1,    /* an unknown key is an error that names the nearest one */
    IMAGE_PARAMS_NO_PROMPT = 2, /* it may be missing */
    IMAGE_PARAMS_UPSCALE = 4,   /* an upscale, also without a `type` */
};

/* An upscale is what has "type": "upscale"; it needs no prompt, and its picture may be called "image", too.
 * Reads the fields present in `body` over the defaults. `how`: image_params_how, or-ed ("type" and "response_format"
 * are known). Numbers may come as 20, 20.0 or "20"; sampler names as ours or A1111's
 * ("DPM++ 2M Karras" also chooses the scheduler). On failure `p` holds nothing. */
bool image_params_read(image_params *p, const json_in *body, unsigned how, err *e);

/* Draws the seed if it is still -1, and the subseed if it is needed: uniformly from 0..2^53-1, by the system's
 * generator. */
void image_params_draw_seed(image_params *p);

/* Appends the fields as one JSON object. Reading it again gives the same struct. */
void image_params_write(const image_params *p, buf *out);

/* Appends ,"sampler":..,"scheduler":..,"rng":..,"emphasis":.. for those of these foreign names (A1111's; NULL: none)
 * that are known. */
void image_params_write_names(const char *sampler_name, const char *scheduler_name, const char *rng_name,
                              const char *emphasis_name, buf *out);

/* NULL-terminated lists of the canonical names. */
const char *const *image_params_samplers(void);
const char *const *image_params_schedulers(void);
const char *const *image_params_rngs(void);
const char *const *image_params_formats(void);

/* The GET /v1/options document. */
void image_params_write_options(buf *out);

#endif
