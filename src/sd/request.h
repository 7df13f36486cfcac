/* request.h - the bodies of the image worker's requests (docs/worker-protocol.md), read and checked. */
#ifndef MYSTI_SD_REQUEST_H
#define MYSTI_SD_REQUEST_H

#include "diffusion/diffusion.h"
#include "diffusion/image/codecs.h"
#include "json/json.h"

/* Strings are borrowed from `doc`, which the struct owns. */
typedef struct load_request {
    yyjson_doc *doc;
    diffusion_files files;
    diffusion_prediction prediction;
} load_request;

/* What one picture has by itself, where pictures differ. */
typedef struct picture_request {
    const char *prompt, *negative;
    diffusion_lora loras[DIFFUSION_LORAS_MAX];
    size_t lora_count;
} picture_request;

typedef struct generate_request {
    yyjson_doc *doc;
    const char *job;
    diffusion_params params;
    diffusion_lora loras[DIFFUSION_LORAS_MAX];                /* those of params */
    diffusion_embedding embeddings[DIFFUSION_EMBEDDINGS_MAX]; /* likewise */
    diffusion_control controls[DIFFUSION_CONTROLS_MAX];       /* likewise, without their pictures: */
    const char *control_images[DIFFUSION_CONTROLS_MAX];       /* paths */
    picture_request *pictures;                                /* [params.batch], owned; NULL: all are of params */
    const char *ip_adapter_image;                             /* path, or NULL */
    const char *init_image;                                   /* path, or NULL */
    const char *refiner;                                      /* path of a checkpoint, or NULL */
    const char *mask;       /* path; "alpha": the initial picture's own transparency; or NULL */
    const char *output_dir; /* absolute */
    const char *file_stem;
    const char *model_name; /* for the embedded text; may be NULL */
    image_format format;
    int quality;
} generate_request;

typedef struct upscale_request {
    yyjson_doc *doc;
    const char *job;
    const char *image;         /* path */
    const char *upscaler;      /* path */
    const char *upscaler_name; /* for the embedded text; may be NULL */
    float factor;              /* 0: the upscaler's own */
    int tile;                  /* 0: by free memory */
    const char *checkpoint;    /* path, or NULL */
    const char *output_dir;    /* absolute */
    const char *file_stem;
    int64_t seed; /* of the picture, as its line tells */
    image_format format;
    int quality;
} upscale_request;

/* On failure nothing has to be freed. */
bool load_request_read(load_request *r, const char *body, size_t len, err *e);
bool generate_request_read(generate_request *r, const char *body, size_t len, err *e);

bool upscale_request_read(upscale_request *r, const char *body, size_t len, err *e);

void load_request_free(load_request *r);
void generate_request_free(generate_request *r);
void upscale_request_free(upscale_request *r);

#endif
