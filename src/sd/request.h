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

typedef struct generate_request {
    yyjson_doc *doc;
    const char *job;
    diffusion_params params;
    const char *init_image; /* path, or NULL */
    const char *output_dir; /* absolute */
    const char *file_stem;
    const char *model_name; /* for the embedded text; may be NULL */
    image_format format;
    int quality;
} generate_request;

/* On failure nothing has to be freed. */
bool load_request_read(load_request *r, const char *body, size_t len, err *e);
bool generate_request_read(generate_request *r, const char *body, size_t len, err *e);

void load_request_free(load_request *r);
void generate_request_free(generate_request *r);

#endif
