/* layers.h - a layer's tensors, looked up by name while a model is opened.
 *
 * A `layers` is a place in the tree of names ("model.diffusion_model.middle_block.0."). The first look-up that fails
 * writes the error and clears *ok; later ones do nothing, so that a model is read without a check per line. */
#ifndef MYSTI_DIFFUSION_LAYERS_H
#define MYSTI_DIFFUSION_LAYERS_H

#include "diffusion/load/weights.h"
#include "diffusion/model/nn.h"

typedef struct layers {
    weights *w;
    err *e;
    bool *ok;
    char prefix[128];
} layers;

layers layers_at(weights *w, const char *prefix, bool *ok, err *e);
layers layers_below(const layers *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

bool layers_has(const layers *l, const char *name);
bool layers_has_any(const layers *l, const char *start);        /* any tensor whose name begins so */
int64_t layers_dim(const layers *l, const char *name, int dim); /* 0 when missing */
int layers_count(const layers *l, const char *name,
                 int max); /* entries of the list "name"; more than max is an error */
bool layers_fail(const layers *l, err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The bias is optional in a linear layer. A 1x1 convolution may be asked for as a linear layer. */
layer layer_linear(const layers *l, const char *name, int64_t in, int64_t out);
struct ggml_tensor *layer_matrix(const layers *l, const char *name, int64_t in, int64_t out); /* the whole name */
layer layer_conv(const layers *l, const char *name, int64_t kernel, int64_t in, int64_t out);
layer layer_conv_plain(const layers *l, const char *name, int64_t kernel, int64_t in, int64_t out); /* without a bias */
layer layer_norm(const layers *l, const char *name, int64_t channels);
struct ggml_tensor *layer_vector(const layers *l, const char *name, int64_t n);    /* a weight alone */
struct ggml_tensor *layer_parameter(const layers *l, const char *name, int64_t n); /* a vector of that whole name */
layer layer_group_norm(const layers *l, const char *name, int64_t channels);       /* a multiple of 32 */

#endif
