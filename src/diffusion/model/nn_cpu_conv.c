/* nn_cpu_conv.c - the convolutions of nn_cpu.h, each by the way that suits its shape. */
#include "diffusion/cpu/doubled.h"
#include "diffusion/model/nn_cpu_ops.h"

#include <string.h>

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
    c.weight = op_matrix(kernel, kernel->ne[3]);
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
        args[count++] = op_append(g, scales ? "convolution, input with silu" : "convolution, input",
                                  (int64_t[]){way->room(c, backend_threads(g->b)), 1, 1, 1}, input, scales ? 2 : 1,
                                  compute_conv_input, p);
    if (p->reads_x) args[count++] = x;
    if (p->has_scales) args[count++] = scales;
    if (bias) args[count++] = bias;
    if (add) args[count++] = add;
    return op_append(g, way->name, (int64_t[]){c->ow, c->oh, c->oc, c->n}, args, count, compute_conv, p);
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
    if (!kernel->extra || pixels < OP_FEW_ROWS || c->ic < LEAST_CHANNELS || c->oc < LEAST_CHANNELS) return false;
    if (!op_is_worth_keeping(&p, kernel)) return false;
    if (p.form == KEPT_WINOGRAD) return true;
    const bool is_small = c->doubled ? pixels * rows.oc <= MOST_NUMBERS : pixels <= MOST_PIXELS;
    return is_small && rows.ic % p.product->group == 0; /* the numbers of each place under the kernel */
}

/* x [w, h, ic, n] -> [floats of a row, oh ow, n] of the convolution c. scales: may be NULL. */
static struct ggml_tensor *rows_under(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *scales,
                                      const cpu_packing *packing) {
    rows_op *rows = graph_note(g, sizeof *rows);
    *rows = (rows_op){*c, packing->cells(c->ic)};
    struct ggml_tensor *pixels = op_pixel_rows(g, x, scales, packing);
    const int64_t ne[4] = {packing->row(c->ic * c->kh * c->kw), c->oh * c->ow, c->n, 1};
    return op_append(g, "convolution, rows", ne, &pixels, 1, compute_under, rows);
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
    c.kept = op_kept_data(&p->product, ith);
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
    struct ggml_tensor *args[OP_PRODUCT_ARGS];
    const int count = op_product_args(g, x, kernel, bias, NULL, &p->product, args);
    return op_append(g, "convolution, Winograd, rows", (int64_t[]){c->oc, c->h * c->w, c->n, 1}, args, count,
                     compute_winograd, p);
}

/* x: rows of pixels under the kernel. */
static struct ggml_tensor *rows_product(graph *g, const cpu_conv *c, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                        struct ggml_tensor *bias) {
    linear_op *p = graph_note(g, sizeof *p);
    *p = product_by_rows(g, c, kernel);
    if (c->bias_per_picture) p->bias_rows = c->oh * c->ow;
    return op_product(g, x, kernel, bias, NULL, p);
}

/* scales, bias, add: may be NULL. */
static struct ggml_tensor *rows_convolution(graph *g, const cpu_conv *c, struct ggml_tensor *x,
                                            struct ggml_tensor *scales, struct ggml_tensor *kernel,
                                            struct ggml_tensor *bias, struct ggml_tensor *add) {
    const linear_op p = product_by_rows(g, c, kernel);
    struct ggml_tensor *y;
    if (p.form == KEPT_WINOGRAD)
        y = winograd_rows(g, c, op_pixel_rows(g, x, scales, NULL), kernel, bias);
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
    struct ggml_tensor *y = op_product(g, rows_under(g, &rows, x, NULL, p->product->packing), kernel, NULL, NULL, p);
    shuffle_op *s = graph_note(g, sizeof *s);
    *s = (shuffle_op){backend_kernels(g->b),
                      {.n = c->n, .channels = c->oc, .h = c->h, .w = c->w, .bias_per_picture = c->bias_per_picture}};
    struct ggml_tensor *args[2] = {y, bias};
    return op_append(g, "shuffle", (int64_t[]){c->ow, c->oh, c->oc, c->n}, args, bias ? 2 : 1, compute_shuffle, s);
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
    x = op_contiguous(g, x);
    const cpu_conv c = conv_shape(x, kernel, bias, stride, pad);
    return any_convolution(g, &c, x, NULL, kernel, bias, NULL);
}

struct ggml_tensor *cpu_conv2d_doubled(graph *g, struct ggml_tensor *x, struct ggml_tensor *kernel,
                                       struct ggml_tensor *bias) {
    x = op_contiguous(g, x);
    cpu_conv c = conv_shape(x, kernel, bias, 1, 1);
    c.doubled = true;
    c.ow *= 2;
    c.oh *= 2;
    if (suits_rows(g, &c, kernel)) return windows_convolution(g, &c, x, kernel, bias);
    return convolution(g, &c, x, NULL, kernel, bias, NULL);
}

struct ggml_tensor *cpu_norm_conv2d(graph *g, struct ggml_tensor *x, const cpu_norm *norm, struct ggml_tensor *kernel,
                                    struct ggml_tensor *bias, struct ggml_tensor *add) {
    x = op_contiguous(g, x);
    const cpu_conv c = conv_shape(x, kernel, bias, 1, (int)(kernel->ne[0] / 2));
    struct ggml_tensor *scales = NULL;
    if (suits_rows(g, &c, kernel) || way_of(conv_kernels(g, &c), &c)->room)
        scales = op_group_norm(g, x, norm, GROUP_SCALES);
    else
        x = op_group_norm(g, x, norm, GROUP_NORM_SILU);
    return any_convolution(g, &c, x, scales, kernel, bias, add ? op_contiguous(g, add) : NULL);
}
