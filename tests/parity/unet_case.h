/* unet_case.h - a UNet and numbers for it from a file: what adapter_run and control_run have in common. */
#ifndef MYSTI_TESTS_UNET_CASE_H
#define MYSTI_TESTS_UNET_CASE_H

#include "diffusion/load/tensor_file.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/unet.h"

#include <string.h>

enum { LATENT = 4 }; /* channels */

typedef struct unet_case {
    backend *b;
    weights *w;
    unet *u;
} unet_case;

static inline void unet_case_close(unet_case *c) {
    unet_close(c->u);
    weights_close(c->w);
    backend_close(c->b);
}

/* On the CPU, with two threads. To be closed, whatever comes of it. */
static inline bool unet_case_open(unet_case *c, const char *path, err *e) {
    *c = (unet_case){.b = backend_open("cpu", 2, e)};
    c->w = c->b ? weights_open(&(weights_files){.diffusion_model = path}, e) : NULL;
    c->u = c->w ? unet_open(c->w, c->b, e) : NULL;
    return c->u && weights_commit(c->w, "", backend_handle(c->b), NULL, NULL, e);
}

/* A tensor's numbers, which are floats; NULL without it. ne: its sizes, or NULL. */
static inline const float *case_numbers(const tensor_file *f, const char *name, int64_t ne[4]) {
    const tensor_info *t = tensor_file_find(f, name);
    if (t && ne) memcpy(ne, t->ne, sizeof t->ne);
    return t ? tensor_file_data(f, t) : NULL;
}

/* x [n, 4, h, w], t [n], context [n, tokens, dim], perhaps label. */
static inline unet_input case_input(const tensor_file *f) {
    int64_t x[4] = {0}, context[4] = {0};
    unet_input in = {.x = case_numbers(f, "x", x),
                     .timesteps = case_numbers(f, "t", NULL),
                     .context = case_numbers(f, "context", context),
                     .label = case_numbers(f, "label", NULL)};
    in.w = (int)x[0], in.h = (int)x[1], in.n = (int)x[3], in.tokens = (int)context[1];
    return in;
}

#endif
