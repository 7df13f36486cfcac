/* nn_cpu.c - see nn_cpu.h. Each operation has a struct of parameters, a function that appends it to the graph and one
 * that computes thread ith of nth; where its data lie is known only then. */
#include "diffusion/model/nn_cpu.h"

#include "base/str.h"
#include "diffusion/cpu/doubled.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/load/weights.h"

#include <ggml-cpu.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void f16_to_floats(const void *from, float *to, int64_t n) {
    ggml_cpu_fp16_to_fp32(from, to, n);
}
static void bf16_to_floats(const void *from, float *to, int64_t n) {
    ggml_cpu_bf16_to_fp32(from, to, n);
}

/* `rows` rows of all of a tensor's numbers. */
static cpu_matrix matrix_of(const struct ggml_tensor *t, int64_t rows) {
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

/* An operation of ours, computed by all threads; the name is for profile.h. */
static struct ggml_tensor *operation(graph *g, const char *name, const int64_t ne[4], struct ggml_tensor **args,
                                     int count, ggml_custom_op_t compute, void *params) {
    struct ggml_tensor *t = ggml_custom_4d(g->ctx, GGML_TYPE_F32, ne[0], ne[1], ne[2], ne[3], args, count, compute,
                                           GGML_N_TASKS_MAX, params);
    return ggml_set_name(t, name);
}

static struct ggml_tensor *contiguous(graph *g, struct ggml_tensor *x) {
    return ggml_is_contiguous(x) ? x : ggml_cont(g->ctx, x);
}

/* --- Group norm -------------------------------------------------------------------------------------------------- */

typedef enum group_result { GROUP_NORM, GROUP_NORM_SILU, GROUP_SCALES } group_result;

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

/* The picture, or with GROUP_SCALES [2, c, n], see cpu_conv. */
static struct ggml_tensor *group_norm(graph *g, struct ggml_tensor *x, const cpu_norm *norm, group_result result) {
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
    struct ggml_tensor *args[3] = {contiguous(g, x), norm->weight, norm->bias};
    const int64_t scales[4] = {2, x->ne[2], x->ne[3], 1};
    return operation(g, names[result], result == GROUP_SCALES ? scales : x->ne, args, 3, compute_group_norm, p);
}

enum { FEW_ROWS = 16 }; /* a product of less is computed in floats, always */

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
        g->packed_rows[i] = operation(g, name, ne, args, count, compute, p);
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
    struct ggml_tensor *y = operation(g, "pixels", ne, args, scales ? 2 : 1, compute_pixels, p);
    keep_packed(g, y, "pixels", args, scales ? 2 : 1, compute_pixels, p);
    return y;
}

struct ggml_tensor *cpu_to_sequence(graph *g, struct ggml_tensor *x) {
    return to_sequence(g, contiguous(g, x), NULL);
}

struct ggml_tensor *cpu_norm_to_sequence(graph *g, struct ggml_tensor *x, const cpu_norm *norm) {
    x = contiguous(g, x);
    return to_sequence(g, x, group_norm(g, x, norm, GROUP_SCALES));
}

/* --- Matrix product ---------------------------------------------------------------------------------------------- */

/* How weights are kept: see cpu_keep, and cpu_winograd_product. */
typedef enum kept_form { KEPT_ROWS, KEPT_DOUBLED, KEPT_WINOGRAD } kept_form;

typedef struct linear_op {
    const cpu_product *product;
    weights_kept *kept; /* NULL: the weights are read as they lie */
    kept_form form;
    int64_t in, out, taps, bias_rows;
    bool has_bias, has_add;
} linear_op;

static void copy_weights(const void *kept, size_t from, size_t bytes, void *to) {
    weights_copy(kept, from, bytes, to);
}

static void compute_keep(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const linear_op *p = params;
    const bool doubled = p->form == KEPT_DOUBLED;
    const cpu_keep k = {.weight = matrix_of(dst->src[0], doubled ? p->out / DOUBLED_PHASES : p->out),
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

/* In bytes they are read more quickly, and take hardly more memory than the weights themselves. As bfloat16 they took
 * two seconds to lay out (Stable Diffusion 1.5), and a step was hardly quicker. */
static bool is_worth_keeping(const linear_op *p, const struct ggml_tensor *weight) {
    const size_t bytes = ggml_nbytes(weight);
    return p->product->precision == CPU_INT8 && (size_t)kept_floats(p) * sizeof(float) <= bytes + bytes / 4;
}

/* Sets p->kept, of weights that are worth it, and returns the operation that fills it; NULL if it is not kept, or
 * filled. */
static struct ggml_tensor *keep_weights(graph *g, struct ggml_tensor *weight, linear_op *p) {
    weights_kept *kept = weight->extra;
    if (!kept || !is_worth_keeping(p, weight)) return NULL;
    weights_keep_room(kept, (int)p->form, (size_t)kept_floats(p));
    p->kept = kept;
    if (kept->is_done) return NULL;
    return operation(g, "keep weights", (int64_t[]){1, 1, 1, 1}, &weight, 1, compute_keep, p);
}

/* The kept weights, which are filled by now, or NULL. ith: the thread that asks. */
static const float *kept_data(const linear_op *p, int ith) {
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
                    .weight = matrix_of(weight, p->out),
                    .y = dst->data,
                    .t = ggml_nrows(x),
                    .in = p->in,
                    .out = p->out,
                    .bias_rows = p->bias_rows};
    if (p->has_bias) l.bias = (*next++)->data;
    if (p->has_add) l.add = (*next++)->data;
    l.kept = kept_data(p, ith);
    return l;
}

static void compute_linear(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const linear_op *p = params;
    const cpu_linear l = linear_of(dst, p, ith);
    p->product->linear(&l, ith, nth);
}

enum { PRODUCT_ARGS = 5 };

/* What linear_of() reads; returns how many there are. x: as p->product takes it; bias, add: NULL: none. */
static int product_args(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight, struct ggml_tensor *bias,
                        struct ggml_tensor *add, linear_op *p, struct ggml_tensor *args[PRODUCT_ARGS]) {
    p->has_bias = bias != NULL;
    p->has_add = add != NULL;
    graph_add_work(g, (double)ggml_nrows(x) * (double)ggml_nelements(weight));
    int count = 0;
    args[count++] = x;
    args[count++] = weight;
    if (bias) args[count++] = bias;
    if (add) args[count++] = contiguous(g, add);
    struct ggml_tensor *kept = ggml_nrows(x) < FEW_ROWS ? NULL : keep_weights(g, weight, p);
    if (kept) args[count++] = kept;
    return count;
}

static struct ggml_tensor *product_of(graph *g, struct ggml_tensor *x, struct ggml_tensor *weight,
                                      struct ggml_tensor *bias, struct ggml_tensor *add, linear_op *p) {
    struct ggml_tensor *args[PRODUCT_ARGS];
    const int count = product_args(g, x, weight, bias, add, p, args);
    return operation(g, "linear", (int64_t[]){p->out, x->ne[1], x->ne[2], x->ne[3]}, args, count, compute_linear, p);
}

/* x as the product takes it, which is set, too. With few rows, reading the weights is what takes a product's time, so
 * it can as well be exact; time embeddings, which every block uses, are such. */
static struct ggml_tensor *rows_for(graph *g, struct ggml_tensor *x, const struct ggml_tensor *weight,
                                    const cpu_product **product) {
    if (ggml_nrows(x) < FEW_ROWS) {
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
    x = rows_for(g, contiguous(g, x), weight, &p->product);
    return product_of(g, x, weight, bias, add, p);
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
    x = contiguous(g, x);
    const int64_t ne[4] = {x->ne[0] / 2, x->ne[1], x->ne[2], x->ne[3]};
    struct ggml_tensor *y = operation(g, "geglu", ne, &x, 1, compute_geglu, p);
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
    x = rows_for(g, contiguous(g, x), weight, &l->product);
    struct ggml_tensor *args[PRODUCT_ARGS];
    const int count = product_args(g, x, weight, bias, NULL, l, args);
    const int64_t all[4] = {l->out, x->ne[1], x->ne[2], x->ne[3]};
    if (!suits_gated(g, ggml_nrows(x), l))
        return cpu_geglu_layer(g, operation(g, "linear", all, args, count, compute_linear, l));
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b), .linear = l};
    const int64_t ne[4] = {l->out / 2, x->ne[1], x->ne[2], x->ne[3]};
    struct ggml_tensor *y = operation(g, "linear, geglu", ne, args, count, compute_gated, p);
    keep_packed(g, y, "linear, geglu", args, count, compute_gated, p);
    return y;
}

/* --- Convolution ------------------------------------------------------------------------------------------------- */

typedef struct conv_op {
    cpu_conv shape; /* without the addresses */
    const cpu_conv_way *way;
    bool reads_x, has_scales, has_bias, has_add;
} conv_op;

static bool is_for_winograd(const cpu_conv *c) {
    return c->kh == 3 && c->kw == 3 && c->stride == 1 && c->pad == 1 && !c->doubled;
}

/* In few pixels most of what Winograd's way multiplies would be filling, or its weights would take too long. */
static bool suits_winograd(const cpu_kernels *k, const cpu_conv *c) {
    enum { FEWEST_CHANNELS = 8 };
    return is_for_winograd(c) && c->ic >= FEWEST_CHANNELS && c->n * c->h * c->w >= k->winograd_least;
}

/* Small kernels, and room for a picture copied under each of their places where that is needed. */
static bool suits_direct(const cpu_conv *c) {
    enum { LARGEST = 11 * 11, MOST_COPIED = 16 << 20 }; /* numbers */
    const bool is_kept = c->stride == 1 && c->oh == c->h && c->ow == c->w;
    const int64_t taps = c->kh * c->kw;
    return taps <= LARGEST && (is_kept || taps * c->n * c->ic * c->oh * c->ow <= MOST_COPIED);
}

/* A chosen way for each shape. */
static const cpu_conv_way *way_of(const cpu_kernels *k, const cpu_conv *c) {
    if (c->doubled) return &k->conv_direct;
    if (suits_winograd(k, c)) return &k->conv_winograd;
    return suits_direct(c) ? &k->conv_direct : &k->conv;
}

static void compute_conv(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const conv_op *p = params;
    cpu_conv c = p->shape;
    struct ggml_tensor *const *next = dst->src;
    const struct ggml_tensor *kernel = *next++;
    c.y = dst->data;
    c.weight = matrix_of(kernel, kernel->ne[3]);
    float *room = p->way->room ? (*next++)->data : NULL;
    if (p->reads_x) c.x = (*next++)->data;
    if (p->has_scales) c.scales = (*next++)->data;
    if (p->has_bias) c.bias = (*next++)->data;
    if (p->has_add) c.add = (*next++)->data;
    p->way->output(&c, room, ith, nth);
}

/* The room is an operation's result: the picture, laid out for the next one. */
static void compute_conv_input(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const conv_op *p = params;
    cpu_conv c = p->shape;
    c.x = dst->src[0]->data;
    c.scales = dst->src[1] ? dst->src[1]->data : NULL;
    p->way->input(&c, dst->data, ith, nth);
}

/* The first and last of a network are little work that all else rests on. */
static const cpu_kernels *conv_kernels(const graph *g, const cpu_conv *c) {
    const bool thin = c->ic < 16 || c->oc < 16;
    return thin ? cpu_kernels_best(CPU_F32) : backend_kernels(g->b);
}

static cpu_conv conv_shape(const struct ggml_tensor *x, const struct ggml_tensor *kernel,
                           const struct ggml_tensor *bias, int stride, int pad) {
    cpu_conv c = {.n = x->ne[3],
                  .ic = x->ne[2],
                  .oc = kernel->ne[3],
                  .h = x->ne[1],
                  .w = x->ne[0],
                  .kh = kernel->ne[1],
                  .kw = kernel->ne[0],
                  .stride = stride,
                  .pad = pad,
                  .bias_per_picture = bias && bias->ne[1] > 1};
    c.ow = (c.w + 2 * pad - c.kw) / stride + 1;
    c.oh = (c.h + 2 * pad - c.kh) / stride + 1;
    return c;
}

/* scales, bias, add: may be NULL. Where only the room is read, x can make place for the result. */
static struct ggml_tensor *convolution(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *scales,
                                       struct ggml_tensor *kernel, struct ggml_tensor *bias, struct ggml_tensor *add) {
    conv_op *p = graph_note(g, sizeof *p);
    const cpu_conv_way *way = way_of(conv_kernels(g, c), c);
    const bool reads_x = !way->is_laid_out;
    *p = (conv_op){*c, way, reads_x, reads_x && scales, bias != NULL, add != NULL};
    graph_add_work(g, (double)c->n * (double)(c->oh * c->ow) * (double)(c->kh * c->kw) * (double)c->ic * (double)c->oc);
    struct ggml_tensor *args[6] = {kernel}, *input[2] = {x, scales};
    int count = 1;
    if (way->room)
        args[count++] = operation(g, scales ? "convolution, input with silu" : "convolution, input",
                                  (int64_t[]){way->room(c, backend_threads(g->b)), 1, 1, 1}, input, scales ? 2 : 1,
                                  compute_conv_input, p);
    if (p->reads_x) args[count++] = x;
    if (p->has_scales) args[count++] = scales;
    if (bias) args[count++] = bias;
    if (add) args[count++] = add;
    return operation(g, way->name, (int64_t[]){c->ow, c->oh, c->oc, c->n}, args, count, compute_conv, p);
}

/* --- Convolution by rows ------------------------------------------------------------------------------------------ */

/* As a product of rows, one for each pixel: what lies under the kernel there. Then its weights can be kept. Of a
 * picture to be doubled there is a row for each window of 2x2, with four numbers of the result for each channel
 * (doubled.h). With more pixels, by Winograd's way. */

typedef struct rows_op {
    cpu_conv shape; /* without the addresses */
    int64_t row;    /* floats of a pixel's packed row */
} rows_op;

/* Those rows -> rows [n oh ow][kh kw][ic] of the pixels under the kernel. */
static void compute_under(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const rows_op *p = params;
    const cpu_conv *c = &p->shape;
    const float *from = dst->src[0]->data;
    const size_t bytes = (size_t)p->row * sizeof(float);
    int64_t first;
    const int64_t count = cpu_share(c->n * c->oh * c->ow, ith, nth, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t picture = i / (c->oh * c->ow), oy = i / c->ow % c->oh, ox = i % c->ow;
        float *to = (float *)dst->data + i * dst->ne[0];
        for (int64_t tap = 0; tap < c->kh * c->kw; tap++, to += p->row) {
            const int64_t y = oy * c->stride + tap / c->kw - c->pad, x = ox * c->stride + tap % c->kw - c->pad;
            if (y < 0 || y >= c->h || x < 0 || x >= c->w)
                memset(to, 0, bytes);
            else
                memcpy(to, from + ((picture * c->h + y) * c->w + x) * p->row, bytes);
        }
    }
}

/* The convolution that there is a row for each result of. */
static cpu_conv by_rows(const cpu_conv *c) {
    cpu_conv rows = *c;
    if (!c->doubled) return rows;
    rows.doubled = false;
    rows.kh = rows.kw = 2;
    rows.oh = c->h + 1, rows.ow = c->w + 1;
    rows.oc = DOUBLED_PHASES * c->oc;
    return rows;
}

/* The product of rows that a convolution is. By Winograd's way or not is up to the size of one picture, so that passes
 * with one and with two prompts want the same order of weights. */
static linear_op product_by_rows(const graph *g, const cpu_conv *c, const struct ggml_tensor *kernel) {
    enum { SMALL = 64 }; /* pixels of a picture */
    const cpu_conv rows = by_rows(c);
    linear_op p = {.product = backend_product(g->b, backend_product_for(g->b, kernel)),
                   .form = c->doubled ? KEPT_DOUBLED : KEPT_ROWS,
                   .in = rows.ic * rows.kh * rows.kw,
                   .out = rows.oc,
                   .taps = rows.kh * rows.kw};
    if (is_for_winograd(c) && p.product->winograd && c->h * c->w > SMALL) {
        p.form = KEPT_WINOGRAD;
        p.in = c->ic;
    }
    return p;
}

/* Whether that product is worth it: of few pixels, where the other ways would read the weights for little. */
static bool suits_rows(const graph *g, const cpu_conv *c, const struct ggml_tensor *kernel) {
    enum { MOST_PIXELS = 128, MOST_NUMBERS = 16 << 20, LEAST_CHANNELS = 64 };
    const linear_op p = product_by_rows(g, c, kernel);
    const cpu_conv rows = by_rows(c);
    const int64_t pixels = rows.n * rows.oh * rows.ow;
    if (!kernel->extra || pixels < FEW_ROWS || c->ic < LEAST_CHANNELS || c->oc < LEAST_CHANNELS) return false;
    if (!is_worth_keeping(&p, kernel)) return false;
    if (p.form == KEPT_WINOGRAD) return true;
    const bool is_small = c->doubled ? pixels * rows.oc <= MOST_NUMBERS : pixels <= MOST_PIXELS;
    return is_small && rows.ic % p.product->group == 0; /* the numbers of each place under the kernel */
}

/* x [w, h, ic, n] -> [floats of a row, w h, n]. scales: may be NULL, else silu is behind them. packing: NULL: floats.
 */
static struct ggml_tensor *pixel_rows(graph *g, struct ggml_tensor *x, struct ggml_tensor *scales,
                                      const cpu_packing *packing) {
    packing_op *p = graph_note(g, sizeof *p);
    *p = (packing_op){.kernels = backend_kernels(g->b), .packing = packing, .silu = true};
    struct ggml_tensor *input[2] = {x, scales};
    const int64_t ne[4] = {packing ? packing->cells(x->ne[2]) : x->ne[2], x->ne[0] * x->ne[1], x->ne[3], 1};
    return operation(g, "pixels", ne, input, scales ? 2 : 1, compute_pixels, p);
}

/* x [w, h, ic, n] -> [floats of a row, oh ow, n] of the convolution c. scales: may be NULL. */
static struct ggml_tensor *rows_under(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *scales,
                                      const cpu_packing *packing) {
    rows_op *rows = graph_note(g, sizeof *rows);
    *rows = (rows_op){*c, packing->cells(c->ic)};
    struct ggml_tensor *pixels = pixel_rows(g, x, scales, packing);
    const int64_t ne[4] = {packing->row(c->ic * c->kh * c->kw), c->oh * c->ow, c->n, 1};
    return operation(g, "convolution, rows", ne, &pixels, 1, compute_under, rows);
}

typedef struct winograd_op {
    linear_op product;
    cpu_winograd shape; /* without the addresses */
} winograd_op;

static void compute_winograd(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const winograd_op *p = params;
    cpu_winograd c = p->shape;
    c.x = dst->src[0]->data;
    if (p->product.has_bias) c.bias = dst->src[2]->data;
    c.kept = kept_data(&p->product, ith);
    c.y = dst->data;
    p->product.product->winograd->convolve(&c, ith, nth);
}

/* x: rows of pixels -> [oc, h w, n]. bias: may be NULL. */
static struct ggml_tensor *winograd_rows(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                         struct ggml_tensor *bias) {
    winograd_op *p = graph_note(g, sizeof *p);
    *p = (winograd_op){
        product_by_rows(g, c, kernel),
        {.n = c->n, .h = c->h, .w = c->w, .ic = c->ic, .oc = c->oc, .bias_per_picture = c->bias_per_picture}};
    struct ggml_tensor *args[PRODUCT_ARGS];
    const int count = product_args(g, x, kernel, bias, NULL, &p->product, args);
    return operation(g, "convolution, Winograd, rows", (int64_t[]){c->oc, c->h * c->w, c->n, 1}, args, count,
                     compute_winograd, p);
}

/* x: rows of pixels under the kernel. */
static struct ggml_tensor *rows_product(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                        struct ggml_tensor *bias) {
    linear_op *p = graph_note(g, sizeof *p);
    *p = product_by_rows(g, c, kernel);
    if (c->bias_per_picture) p->bias_rows = c->oh * c->ow;
    return product_of(g, x, kernel, bias, NULL, p);
}

/* scales, bias, add: may be NULL. */
static struct ggml_tensor *rows_convolution(graph *g, const cpu_conv *c, struct ggml_tensor *x,
                                            struct ggml_tensor *scales, struct ggml_tensor *kernel,
                                            struct ggml_tensor *bias, struct ggml_tensor *add) {
    const linear_op p = product_by_rows(g, c, kernel);
    struct ggml_tensor *y;
    if (p.form == KEPT_WINOGRAD)
        y = winograd_rows(g, c, pixel_rows(g, x, scales, NULL), kernel, bias);
    else
        y = rows_product(g, c, rows_under(g, c, x, scales, p.product->packing), kernel, bias);
    struct ggml_tensor *flat = add ? ggml_reshape_4d(g->ctx, add, c->oh * c->ow, c->oc, c->n, 1) : NULL;
    return ggml_reshape_4d(g->ctx, cpu_transposed(g, y, flat), c->ow, c->oh, c->oc, c->n);
}

typedef struct shuffle_op {
    const cpu_kernels *kernels;
    cpu_shuffle shape; /* without the addresses */
} shuffle_op;

static void compute_shuffle(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const shuffle_op *p = params;
    cpu_shuffle s = p->shape;
    s.x = dst->src[0]->data;
    s.bias = dst->src[1] ? dst->src[1]->data : NULL;
    s.y = dst->data;
    p->kernels->shuffle(&s, ith, nth);
}

/* Of a picture to be doubled. */
static struct ggml_tensor *windows_convolution(graph *g, const cpu_conv *c, struct ggml_tensor *x,
                                               struct ggml_tensor *kernel, struct ggml_tensor *bias) {
    const cpu_conv rows = by_rows(c);
    linear_op *p = graph_note(g, sizeof *p);
    *p = product_by_rows(g, c, kernel);
    struct ggml_tensor *y = product_of(g, rows_under(g, &rows, x, NULL, p->product->packing), kernel, NULL, NULL, p);
    shuffle_op *s = graph_note(g, sizeof *s);
    *s = (shuffle_op){backend_kernels(g->b),
                      {.n = c->n, .channels = c->oc, .h = c->h, .w = c->w, .bias_per_picture = c->bias_per_picture}};
    struct ggml_tensor *args[2] = {y, bias};
    return operation(g, "shuffle", (int64_t[]){c->ow, c->oh, c->oc, c->n}, args, bias ? 2 : 1, compute_shuffle, s);
}

static struct ggml_tensor *any_convolution(graph *g, const cpu_conv *c, struct ggml_tensor *x,
                                           struct ggml_tensor *scales, struct ggml_tensor *kernel,
                                           struct ggml_tensor *bias, struct ggml_tensor *add) {
    if (suits_rows(g, c, kernel)) return rows_convolution(g, c, x, scales, kernel, bias, add);
    return convolution(g, c, x, scales, kernel, bias, add);
}

/* --- Convolution, whichever way ----------------------------------------------------------------------------------- */

struct ggml_tensor *cpu_conv2d(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel, struct ggml_tensor *bias,
                               int stride, int pad) {
    x = contiguous(g, x);
    const cpu_conv c = conv_shape(x, kernel, bias, stride, pad);
    return any_convolution(g, &c, x, NULL, kernel, bias, NULL);
}

struct ggml_tensor *cpu_conv2d_doubled(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                       struct ggml_tensor *bias) {
    x = contiguous(g, x);
    cpu_conv c = conv_shape(x, kernel, bias, 1, 1);
    c.doubled = true;
    c.ow *= 2;
    c.oh *= 2;
    if (suits_rows(g, &c, kernel)) return windows_convolution(g, &c, x, kernel, bias);
    return convolution(g, &c, x, NULL, kernel, bias, NULL);
}

struct ggml_tensor *cpu_norm_conv2d(graph *g, struct ggml_tensor *x, const cpu_norm *norm, struct ggml_tensor *kernel,
                                    struct ggml_tensor *bias, struct ggml_tensor *add) {
    x = contiguous(g, x);
    const cpu_conv c = conv_shape(x, kernel, bias, 1, (int)(kernel->ne[0] / 2));
    struct ggml_tensor *scales = NULL;
    if (suits_rows(g, &c, kernel) || way_of(conv_kernels(g, &c), &c)->room)
        scales = group_norm(g, x, norm, GROUP_SCALES);
    else
        x = group_norm(g, x, norm, GROUP_NORM_SILU);
    return any_convolution(g, &c, x, scales, kernel, bias, add ? contiguous(g, add) : NULL);
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
    struct ggml_tensor *args[3] = {contiguous(g, q), contiguous(g, k), contiguous(g, v)};
    return operation(g, k->ne[1] == q->ne[1] ? "attention" : "attention, cross", q->ne, args, 3, compute_attention, p);
}

/* --- Between the products ---------------------------------------------------------------------------------------- */

struct ggml_tensor *cpu_group_norm_layer(graph *g, struct ggml_tensor *x, const cpu_norm *norm) {
    return group_norm(g, x, norm, GROUP_NORM);
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
    struct ggml_tensor *args[3] = {contiguous(g, x), weight, bias};
    struct ggml_tensor *y = operation(g, "layer norm", x->ne, args, 3, compute_layer_norm, p);
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
    struct ggml_tensor *args[2] = {contiguous(g, x), add ? contiguous(g, add) : NULL};
    return operation(g, "transpose", (int64_t[]){x->ne[1], x->ne[0], x->ne[2], 1}, args, add ? 2 : 1, compute_transpose,
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
    struct ggml_tensor *args[2] = {contiguous(g, a), contiguous(g, b)};
    return operation(g, "joined", (int64_t[]){a->ne[0], a->ne[1], a->ne[2] + b->ne[2], a->ne[3]}, args, 2, compute_join,
                     NULL);
}

static void compute_upsample(struct ggml_tensor *dst, int ith, int nth, void *params) {
    const cpu_kernels *kernels = params;
    const struct ggml_tensor *x = dst->src[0];
    const cpu_upsample p = {x->data, dst->data, x->ne[2] * x->ne[3], x->ne[1], x->ne[0]};
    kernels->upsample(&p, ith, nth);
}

struct ggml_tensor *cpu_upsample2(graph *g, struct ggml_tensor *x) {
    x = contiguous(g, x);
    return operation(g, "upsample", (int64_t[]){2 * x->ne[0], 2 * x->ne[1], x->ne[2], x->ne[3]}, &x, 1,
                     compute_upsample, kernels_as_params(g));
}
