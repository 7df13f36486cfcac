/* nn_cpu_ops.h - operations that nn_cpu.c and nn_cpu_conv.c share; private to both. */
#ifndef MYSTI_DIFFUSION_NN_CPU_OPS_H
#define MYSTI_DIFFUSION_NN_CPU_OPS_H

#include "diffusion/cpu/kernels.h"
#include "diffusion/load/weights.h"
#include "diffusion/model/nn_cpu.h"

/* `rows` rows of all of a tensor's numbers. */
cpu_matrix op_matrix(const struct ggml_tensor *t, int64_t rows);

/* An operation of ours, computed by all threads; the name is for profile.h. */
struct ggml_tensor *op_append(graph *g, const char *name, const int64_t ne[4], struct ggml_tensor **args, int count,
                              ggml_custom_op_t compute, void *params);

struct ggml_tensor *op_contiguous(graph *g, struct ggml_tensor *x);

/* The picture, or with GROUP_SCALES [2, c, n], see cpu_conv. */
typedef enum group_result { GROUP_NORM, GROUP_NORM_SILU, GROUP_SCALES } group_result;
struct ggml_tensor *op_group_norm(graph *g, struct ggml_tensor *x, const cpu_norm *norm, group_result result);

/* x [w, h, ic, n] -> [floats of a row, w h, n]. scales: may be NULL, else silu is behind them. packing: NULL: floats.
 */
struct ggml_tensor *op_pixel_rows(graph *g, struct ggml_tensor *x, struct ggml_tensor *scales,
                                  const cpu_packing *packing);

/* --- Matrix product ---------------------------------------------------------------------------------------------- */

enum { OP_FEW_ROWS = 16 };    /* a product of less is computed in floats, always */
enum { OP_PRODUCT_ARGS = 5 }; /* of its operation, at most */

/* How weights are kept: see cpu_keep, and cpu_winograd_product. */
typedef enum kept_form { KEPT_ROWS, KEPT_DOUBLED, KEPT_WINOGRAD } kept_form;

typedef struct linear_op {
    const cpu_product *product;
    weights_kept *kept; /* NULL: the weights are read as they lie */
    kept_form form;
    int64_t in, out, taps, bias_rows;
    bool has_bias, has_add;
} linear_op;

/* In bytes they are read more quickly, and take hardly more memory than the weights themselves. As bfloat16 they took
 * two seconds to lay out (Stable Diffusion 1.5), and a step was hardly quicker. */
bool op_is_worth_keeping(const linear_op *p, const struct ggml_tensor *weight);

/* The kept weights, which are filled by now, or NULL. ith: the thread that asks. */
const float *op_kept_data(const linear_op *p, int ith);

/* What an operation of p reads: x, the weight, bias and add (NULL: none), and what fills kept weights. Returns how many
 * there are. x: as p->product takes it. */
int op_product_args(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight, struct ggml_tensor *bias,
                    struct ggml_tensor *add, linear_op *p, struct ggml_tensor *args[OP_PRODUCT_ARGS]);

/* That product of rows. */
struct ggml_tensor *op_product(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight, struct ggml_tensor *bias,
                               struct ggml_tensor *add, linear_op *p);

#endif
