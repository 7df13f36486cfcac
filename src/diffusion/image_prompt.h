/* image_prompt.h - the picture that a request has as prompt beside its text (IP-Adapter): its adapter on the opened
 * model, and what the UNet attends to step by step. Private to the engine. */
#ifndef MYSTI_DIFFUSION_IMAGE_PROMPT_H
#define MYSTI_DIFFUSION_IMAGE_PROMPT_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* ERR_INVALID names "ip_adapter.weight" and the like. *key: hash of all that decides what it does, files and picture
 * included; 0: there is none. */
bool image_prompt_check(const diffusion_params *p, uint64_t *key, err *e);

/* Opens the request's adapter, and closes the one of the request before; it stays for the requests to come.
 * ERR_UNSUPPORTED when it is not for this model. */
bool image_prompt_load(diffusion *d, const diffusion_params *p, err *e);
void image_prompt_unload(diffusion *d);

/* Bytes of the weights that it takes besides those that are loaded on d; NULL for d: of all. The image encoder's, which
 * are there for the encoding alone, always count. */
bool image_prompt_weight_bytes(const diffusion *d, const diffusion_params *p, size_t *out, err *e);

/* Of one request. Zero is: there is none. */
typedef struct image_prompt {
    const diffusion *d;
    const diffusion_ip_adapter *asked; /* borrowed */
    float *shown, *blank;              /* [tokens, context_dim] of the picture, and of none; owned */
    float *buffer;                     /* those of a batch; owned */
    size_t values;                     /* in one of them */
} image_prompt;

/* The adapter must be loaded. Encodes the picture; its encoder is opened for that alone. */
bool image_prompt_open(image_prompt *ip, diffusion *d, const diffusion_params *p, err *e);
void image_prompt_close(image_prompt *ip);

/* What the UNet attends to in the step after `finished` of `steps`; false: to no picture. is_negative: [n], asked with
 * the negative prompt, n at most IMAGE_PROMPT_TOGETHER. out->tokens are ip's, valid until the next call. */
enum { IMAGE_PROMPT_TOGETHER = 2 };
bool image_prompt_at(image_prompt *ip, const bool *is_negative, int n, int finished, int steps, unet_image *out);

#endif
