/* nn_cpu.c - see nn_cpu.h. Each operation has a struct of parameters, a function that appends it to the graph and one
 * that computes thread ith of nth; where its data lie is known only then. */
#include "diffusion/model/nn_cpu.h"
#include "base/str.h"
#include "diffusion/cpu/doubled.h"
#include "diffusion/model/nn_cpu_ops.h"

#include <ggml-cpu.h>
#include <stdlib.h>
#include <string.h>

static void f16_to_floats(const void *from, float *to, int64_t n) {
    ggml_cpu_fp16_to_fp32(from, to, n);
}
static void bf16_to_floats(const void *from, float *to, int64_t n) {
    ggml_cpu_bf16_to_fp32(from, to, n);
}

cpu_matrix op_matrix(const struct ggml_tensor *t, int64_t rows) {
    cpu_matrix m = {.data = t->data,
                    .row_bytes = ggml_nbytes(t) / (size_t)rows,
                    .block = ggml_blck_size(t->type),
                    .block_bytes = ggml_type_size(t->type)};
    if (t->type == GGML_TYPE_F16)
        m.to_floats = f16_to_floats;
    else if (t->type == GGML_TYPE_BF16)
        m.to_floats = bf16_to_floats;
    else if (t->type != GGML_TYPE_F32)
        m.to_floats = ggml_get_type_traits(t->type)->to_float;
    return m;
}

struct ggml_tensor *op_append(graph *g, const char *name, const int64_t ne[4], struct ggml_tensor **args, int count,
                              ggml_custom_op_t compute, void *params) {
    struct ggml_tensor *t = ggml_custom_4d(g->ctx, GGML_TYPE_F32, ne[0], ne[1], ne[2], ne[3], args, count, compute,
                                           GGML_N_TASKS_MAX, params);
    return ggml_set_name(t, name);
}

struct ggml_tensor *op_contiguous(graph *g, struct ggml_tensor *x) {
    return ggml_is_contiguous(x) ? x : ggml_cont(g->ctx, x);
}

/* --- Group norm -------------------------------------------------------------------------------------------------- */

typedef struct group_norm_op {
    void (*compute)(const cpu_group_norm *p, int thread, int threads);
    cpu_group_norm shape; /* without the addresses */
} group_norm_op;

static void compute_group_norm(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const group_norm_op *p = params;
    cpu_group_norm n = p->shape;
    n.x = dst->src[0]->data;
    n.weight = dst->src[1]->data;
    n.bias = dst->src[2]->data;
    n.y = dst->data;
    p->compute(&n, ith, nth);
}

struct ggml_tensor *op_group_norm(graph *g, struct ggml_tensor *x, const cpu_norm *norm, group_result result) {
    static const char *const names[] = {"group norm", "group norm, silu", "group norm, scales"};
    GGML_ASSERT(x->ne[2] % norm->groups == 0);
    const cpu_kernels *k = backend_kernels(g->b);
    group_norm_op *p = graph_note(g, sizeof *p);
    *p = (group_norm_op){result == GROUP_SCALES ? k->group_scales : k->group_norm,
                         {.n = x->ne[3],
                          .channels = x->ne[2],
                          .plane = x->ne[0] * x->ne[1],
                          .groups = norm->groups,
                          .eps = norm->eps,
                          .silu = result == GROUP_NORM_SILU}};
    struct ggml_tensor *args[3] = {op_contiguous(g, x), norm->weight, norm->bias};
    const int64_t scales[4] = {2, x->ne[2], x->ne[3], 1};
    return op_append(g, names[result], result == GROUP_SCALES ? scales : x->ne, args, 3, compute_group_norm, p);
}

/* --- Packed rows ------------------------------------------------------------------------------------------------- */

typedef struct packing_op {
    const cpu_kernels *kernels;
    const cpu_packing *packing;
    float eps;                      /* of layer norm */
    bool silu;                      /* of pixels */
    const struct linear_op *linear; /* what a gate is behind; NULL: what it reads is there */
} packing_op;

/* An operation of which `rows` is the result as floats, computes packed rows with each kind of packing: operations that
 * are only computed if they are used. Kept for the products that follow. */
static void keep_packed(graph *g, struct ggml_tensor *rows, const char *name, struct ggml_tensor **args, int count,
                        ggml_custom_op_t compute, const packing_op *op) {
    g->rows = rows;
    for (int i = 0; i < BACKEND_PRODUCTS; i++) {
        const cpu_product *product = backend_product(g->b, (backend_product_kind)i);
        g->packed_rows[i] = NULL;
        if (!product || !product->packing) continue;
        packing_op *p = graph_note(g, sizeof *p);
        *p = *op;
        p->packing = product->packing;
        const int64_t ne[4] = {p->packing->row(rows->ne[0]), rows->ne[1], rows->ne[2], rows->ne[3]};
        g->packed_rows[i] = op_append(g, name, ne, args, count, compute, p);
    }
}

static void compute_pack(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const packing_op *p = params;
    const struct ggml_tensor *x = dst->src[0];
    const float *from = x->data;
    float *to = dst->data;
    int64_t first;
    const int64_t count = cpu_share(ggml_nrows(x), ith, nth, &first);
    for (int64_t i = first; i < first + count; i++)
        p->packing->pack(from + i * x->ne[0], x->ne[0], to + i * dst->ne[0]);
}

/* The parameters are a table that lives as long as the program. */
static void *kernels_as_params(const graph *g) {
    return (void *)(uintptr_t)backend_kernels(g->b);
}

/* --- Pixels as rows ----------------------------------------------------------------------------------------------- */

static void compute_pixels(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const packing_op *op = params;
    const struct ggml_tensor *x = dst->src[0], *scales = dst->src[1];
    const cpu_pixels p = {.x = x->data,
                          .scales = scales ? scales->data : NULL,
                          .y = dst->data,
                          .n = x->ne[3],
                          .channels = x->ne[2],
                          .plane = x->ne[0] * x->ne[1],
                          .silu = op->silu,
                          .packing = op->packing,
                          .row = dst->ne[0]};
    op->kernels->pixels(&p, ith, nth);
}

/* x: [w, h, c, n] -> [c, w h, n], which every product that follows may have packed. scales: of group_norm, or NULL. */
static struct ggml_tensor *to_sequence(graph *g, struct ggml_tensor *x, struct ggml_tensor *scales) {
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b)};
    struct ggml_tensor *args[2] = {x, scales};
    const int64_t ne[4] = {x->ne[2], x->ne[0] * x->ne[1], x->ne[3], 1};
    struct ggml_tensor *y = op_append(g, "pixels", ne, args, scales ? 2 : 1, compute_pixels, p);
    keep_packed(g, y, "pixels", args, scales ? 2 : 1, compute_pixels, p);
    return y;
}

struct ggml_tensor *cpu_to_sequence(graph *g, struct ggml_tensor *x) {
    return to_sequence(g, op_contiguous(g, x), NULL);
}

struct ggml_tensor *cpu_norm_to_sequence(graph *g, struct ggml_tensor *x, const cpu_norm *norm) {
    x = op_contiguous(g, x);
    return to_sequence(g, x, op_group_norm(g, x, norm, GROUP_SCALES));
}

struct ggml_tensor *op_pixel_rows(graph *g, struct ggml_tensor *x, struct ggml_tensor *scales,
                                  const cpu_packing *packing) {
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b), .packing = packing, .silu = true};
    struct ggml_tensor *input[2] = {x, scales};
    const int64_t ne[4] = {packing ? packing->cells(x->ne[2]) : x->ne[2], x->ne[0] * x->ne[1], x->ne[3], 1};
    return op_append(g, "pixels", ne, input, scales ? 2 : 1, compute_pixels, p);
}

/* --- Matrix product ---------------------------------------------------------------------------------------------- */

static void copy_weights(const void *kept, size_t from, size_t bytes, void *to) {
    weights_copy(kept, from, bytes, to);
}

static void compute_keep(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const linear_op *p = params;
    const bool doubled = p->form == KEPT_DOUBLED;
    const cpu_keep k = {.weight = op_matrix(dst->src[0], doubled ? p->out / DOUBLED_PHASES : p->out),
                        .copy = weights_is_mapped(p->kept) ? copy_weights : NULL,
                        .source = p->kept,
                        .kept = p->kept->data,
                        .in = p->in,
                        .out = p->out,
                        .taps = p->taps,
                        .doubled = doubled};
    if (p->form == KEPT_WINOGRAD)
        p->product->winograd->keep(&k, ith, nth);
    else
        p->product->keep(&k, ith, nth);
}

static int64_t kept_floats(const linear_op *p) {
    return p->form == KEPT_WINOGRAD ? p->product->winograd->kept_floats(p->out, p->in)
                                    : p->product->kept_floats(p->out, p->in);
}

bool op_is_worth_keeping(const linear_op *p, const struct ggml_tensor *weight) {
    const size_t bytes = ggml_nbytes(weight);
    return p->product->precision == CPU_INT8 && (size_t)kept_floats(p) * sizeof(float) <= bytes + bytes / 4;
}

/* Sets p->kept, of weights that are worth it, and returns the operation that fills it; NULL if it is not kept, or
 * filled. */
static struct ggml_tensor *keep_weights(graph *g, struct ggml_tensor *weight, linear_op *p) {
    weights_kept *kept = weight->extra;
    if (!kept || !op_is_worth_keeping(p, weight)) return NULL;
    weights_keep_room(kept, (int)p->form, (size_t)kept_floats(p));
    p->kept = kept;
    if (kept->is_done) return NULL;
    return op_append(g, "keep weights", (int64_t[]){1, 1, 1, 1}, &weight, 1, compute_keep, p);
}

const float *op_kept_data(const linear_op *p, int ith) {
    if (!p->kept) return NULL;
    GGML_ASSERT(p->kept->form == (int)p->form);
    if (ith == 0 && !p->kept->is_done) weights_keep(p->kept);
    return p->kept->data;
}

/* What the operation dst multiplies in thread `ith`. */
static cpu_linear linear_of(const struct ggml_tensor *dst, const linear_op *p, int ith) {
    const struct ggml_tensor *x = dst->src[0], *weight = dst->src[1];
    struct ggml_tensor *const *next = dst->src + 2;
    cpu_linear l = {.x = x->data,
                    .weight = op_matrix(weight, p->out),
                    .y = dst->data,
                    .t = ggml_nrows(x),
                    .in = p->in,
                    .out = p->out,
                    .bias_rows = p->bias_rows};
    if (p->has_bias) l.bias = (*next++)->data;
    if (p->has_add) l.add = (*next++)->data;
    l.kept = op_kept_data(p, ith);
    return l;
}

static void compute_linear(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const linear_op *p = params;
    const cpu_linear l = linear_of(dst, p, ith);
    p->product->linear(&l, ith, nth);
}

int op_product_args(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight, struct ggml_tensor *bias,
                    struct ggml_tensor *add, linear_op *p, struct ggml_tensor *args[OP_PRODUCT_ARGS]) {
    p->has_bias = bias != NULL;
    p->has_add = add != NULL;
    graph_add_work(g, (double)ggml_nrows(x) * (double)ggml_nelements(weight));
    int count = 0;
    args[count++] = x;
    args[count++] = weight;
    if (bias) args[count++] = bias;
    if (add) args[count++] = op_contiguous(g, add);
    struct ggml_tensor *kept = ggml_nrows(x) < OP_FEW_ROWS ? NULL : keep_weights(g, weight, p);
    if (kept) args[count++] = kept;
    return count;
}

struct ggml_tensor *op_product(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight, struct ggml_tensor *bias,
                               struct ggml_tensor *add, linear_op *p) {
    struct ggml_tensor *args[OP_PRODUCT_ARGS];
    const int count = op_product_args(g, x, weight, bias, add, p, args);
    return op_append(g, "linear", (int64_t[]){p->out, x->ne[1], x->ne[2], x->ne[3]}, args, count, compute_linear, p);
}

/* x as the product takes it, which is set, too. With few rows, reading the weights is what takes a product's time, so
 * it can as well be exact; time embeddings, which every block uses, are such. */
static struct ggml_tensor *rows_for(graph *g, struct ggml_tensor *x, const struct ggml_tensor *weight,
                                    const cpu_product **product) {
    if (ggml_nrows(x) < OP_FEW_ROWS) {
        *product = backend_kernels(g->b)->few_rows;
        return x;
    }
    const backend_product_kind kind = backend_product_for(g->b, weight);
    *product = backend_product(g->b, kind);
    if (!(*product)->packing) return x;
    if (g->rows != x) keep_packed(g, x, "pack", &x, 1, compute_pack, &(packing_op){0});
    return g->packed_rows[kind];
}

struct ggml_tensor *cpu_linear_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                     struct ggml_tensor *bias, struct ggml_tensor *add) {
    linear_op *p = graph_note(g, sizeof *p);
    *p = (linear_op){.in = weight->ne[0], .out = weight->ne[1], .taps = 1};
    x = rows_for(g, op_contiguous(g, x), weight, &p->product);
    return op_product(g, x, weight, bias, add, p);
}

/* --- Gate --------------------------------------------------------------------------------------------------------- */

static void compute_geglu(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const packing_op *p = params;
    const struct ggml_tensor *x = dst->src[0];
    const cpu_geglu gate = {x->data, dst->data, ggml_nrows(x), x->ne[0] / 2, p->packing};
    p->kernels->geglu(&gate, ith, nth);
}

struct ggml_tensor *cpu_geglu_layer(graph *g, struct ggml_tensor *x) {
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b)};
    x = op_contiguous(g, x);
    const int64_t ne[4] = {x->ne[0] / 2, x->ne[1], x->ne[2], x->ne[3]};
    struct ggml_tensor *y = op_append(g, "geglu", ne, &x, 1, compute_geglu, p);
    keep_packed(g, y, "geglu", &x, 1, compute_geglu, p);
    return y;
}

/* Rows of a gated product that a thread does at a time: what they make before the gate stays in its caches. */
static int64_t rows_at_once(const linear_op *p) {
    enum { BYTES = 2 << 20, LEAST = 32 };
    const int64_t rows = BYTES / (p->out * (int64_t)sizeof(float));
    return rows > LEAST ? rows / LEAST * LEAST : LEAST;
}

/* Each thread has its own rows, so that none waits for another between the product and the gate. */
static void compute_gated(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const packing_op *p = params;
    const struct ggml_tensor *x = dst->src[0];
    cpu_linear l = linear_of(dst, p->linear, ith);
    cpu_geglu gate = {NULL, NULL, 0, l.out / 2, p->packing};
    int64_t first, at_once = rows_at_once(p->linear);
    const int64_t count = cpu_share(l.t, ith, nth, &first);
    float *between = mem_alloc((size_t)(at_once * l.out), sizeof *between);
    for (int64_t i = first; i < first + count; i += at_once) {
        l.t = gate.rows = first + count - i < at_once ? first + count - i : at_once;
        l.x = (const float *)x->data + i * x->ne[0];
        gate.x = l.y = between;
        gate.y = (float *)dst->data + i * dst->ne[0];
        p->linear->product->linear(&l, 0, 1);
        p->kernels->geglu(&gate, 0, 1);
    }
    free(between);
}

/* Each thread reads all of the weights, so they have to be kept and the rows to be many. */
static bool suits_gated(const graph *g, int64_t rows, const linear_op *p) {
    enum { LEAST_ROWS = 256 };
    return p->kept && rows >= LEAST_ROWS * backend_threads(g->b);
}

struct ggml_tensor *cpu_gated_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                    struct ggml_tensor *bias) {
    linear_op *l = graph_note(g, sizeof *l);
    *l = (linear_op){.in = weight->ne[0], .out = weight->ne[1], .taps = 1};
    x = rows_for(g, op_contiguous(g, x), weight, &l->product);
    struct ggml_tensor *args[OP_PRODUCT_ARGS];
    const int count = op_product_args(g, x, weight, bias, NULL, l, args);
    const int64_t all[4] = {l->out, x->ne[1], x->ne[2], x->ne[3]};
    if (!suits_gated(g, ggml_nrows(x), l))
        return cpu_geglu_layer(g, op_append(g, "linear", all, args, count, compute_linear, l));
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b), .linear = l};
    const int64_t ne[4] = {l->out / 2, x->ne[1], x->ne[2], x->ne[3]};
    struct ggml_tensor *y = op_append(g, "linear, geglu", ne, args, count, compute_gated, p);
    keep_packed(g, y, "linear, geglu", args, count, compute_gated, p);
    return y;
}

/* --- Attention --------------------------------------------------------------------------------------------------- */

typedef struct attention_op {
    const cpu_kernels *kernels;
    cpu_attention shape; /* without the addresses */
} attention_op;

static void compute_attention(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const attention_op *p = params;
    cpu_attention a = p->shape;
    a.q = dst->src[0]->data;
    a.k = dst->src[1]->data;
    a.v = dst->src[2]->data;
    a.y = dst->data;
    p->kernels->attention(&a, ith, nth);
}

struct ggml_tensor *cpu_attention_layer(graph *g, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                                        int heads, float scale) {
    attention_op *p = graph_note(g, sizeof *p);
    *p = (attention_op){
        backend_kernels(g->b),
        {.n = q->ne[2], .tq = q->ne[1], .tk = k->ne[1], .heads = heads, .d = q->ne[0] / heads, .scale = scale}};
    graph_add_work(g, 2.0 * (double)ggml_nelements(q) * (double)k->ne[1]);
    struct ggml_tensor *args[3] = {op_contiguous(g, q), op_contiguous(g, k), op_contiguous(g, v)};
    return op_append(g, k->ne[1] == q->ne[1] ? "attention" : "attention, cross", q->ne, args, 3, compute_attention, p);
}

/* --- Between the products ---------------------------------------------------------------------------------------- */

struct ggml_tensor *cpu_group_norm_layer(graph *g, struct ggml_tensor *x, const cpu_norm *norm) {
    return op_group_norm(g, x, norm, GROUP_NORM);
}

static void compute_layer_norm(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const packing_op *p = params;
    const struct ggml_tensor *x = dst->src[0];
    const cpu_layer_norm n = {.x = x->data,
                              .weight = dst->src[1]->data,
                              .bias = dst->src[2]->data,
                              .y = dst->data,
                              .rows = ggml_nrows(x),
                              .width = x->ne[0],
                              .eps = p->eps,
                              .packing = p->packing};
    p->kernels->layer_norm(&n, ith, nth);
}

struct ggml_tensor *cpu_layer_norm_layer(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                         struct ggml_tensor *bias, float eps) {
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b), .eps = eps};
    struct ggml_tensor *args[3] = {op_contiguous(g, x), weight, bias};
    struct ggml_tensor *y = op_append(g, "layer norm", x->ne, args, 3, compute_layer_norm, p);
    keep_packed(g, y, "layer norm", args, 3, compute_layer_norm, p);
    return y;
}

static void compute_transpose(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const cpu_kernels *kernels = params;
    const struct ggml_tensor *x = dst->src[0], *add = dst->src[1];
    const cpu_transpose p = {.x = x->data,
                             .add = add ? add->data : NULL,
                             .y = dst->data,
                             .n = x->ne[2],
                             .rows = x->ne[1],
                             .columns = x->ne[0]};
    kernels->transpose(&p, ith, nth);
}

struct ggml_tensor *cpu_transposed(graph *g, struct ggml_tensor *x, struct ggml_tensor *add) {
    struct ggml_tensor *args[2] = {op_contiguous(g, x), add ? op_contiguous(g, add) : NULL};
    return op_append(g, "transpose", (int64_t[]){x->ne[1], x->ne[0], x->ne[2], 1}, args, add ? 2 : 1, compute_transpose,
                     kernels_as_params(g));
}

/* Of each picture the threads share first the channels of a, then those of b. */
static void compute_join(struct ggml_tensor *dst, int ith, int nth, void *params) {
    (void)params;
    float *to = dst->data;
    for (int64_t n = 0; n < dst->ne[3]; n++)
        for (int i = 0; i < 2; i++) {
            const struct ggml_tensor *x = dst->src[i];
            const int64_t all = x->ne[0] * x->ne[1] * x->ne[2];
            int64_t first;
            const int64_t count = cpu_share(all, ith, nth, &first);
            memcpy(to + first, (const float *)x->data + n * all + first, (size_t)count * sizeof *to);
            to += all;
        }
}

struct ggml_tensor *cpu_joined(graph *g, struct ggml_tensor *a, struct ggml_tensor *b) {
    struct ggml_tensor *args[2] = {op_contiguous(g, a), op_contiguous(g, b)};
    return op_append(g, "joined", (int64_t[]){a->ne[0], a->ne[1], a->ne[2] + b->ne[2], a->ne[3]}, args, 2, compute_join,
                     NULL);
}

static void compute_upsample(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const cpu_kernels *kernels = params;
    const struct ggml_tensor *x = dst->src[0];
    const cpu_upsample p = {x->data, dst->data, x->ne[2] * x->ne[3], x->ne[1], x->ne[0]};
    kernels->upsample(&p, ith, nth);
}

struct ggml_tensor *cpu_upsample2(graph *g, struct ggml_tensor *x) {
    x = op_contiguous(g, x);
    return op_append(g, "upsample", (int64_t[]){2 * x->ne[0], 2 * x->ne[1], x->ne[2], x->ne[3]}, &x, 1,
                     compute_upsample, kernels_as_params(g));
}
