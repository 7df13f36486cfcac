/* lora_delta.c - see lora_delta.h. Products of matrices go through the backend, the rest is done here. All in f32. */
#include "diffusion/model/lora_delta.h"

#include "base/str.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BAND_BYTES = 16 << 20, NUMBERS_MAX = 1 << 27, KERNEL_MAX = 64 };

/* --- matrices ---------------------------------------------------------------------------------------------------- */

/* [rows, columns], owned; data NULL: none. */
typedef struct matrix {
    int64_t rows, columns;
    float *data;
} matrix;

static bool bad_shape(const tensor_info *t, err *e) {
    return err_set(e, ERR_FORMAT, "tensor '%.120s': a shape that does not fit", t->name);
}

/* The outermost dimension makes rows, all others columns. */
static bool read_matrix(const lora_file *f, const tensor_info *t, matrix *out, err *e) {
    const int outer = t->n_dims > 0 ? t->n_dims - 1 : 0;
    *out = (matrix){.rows = t->ne[outer], .columns = 1};
    for (int i = 0; i < outer; i++) out->columns *= t->ne[i];
    if (out->rows < 1 || out->columns < 1) return bad_shape(t, e);
    return (out->data = lora_file_read(f, t, e)) != NULL;
}

/* Sizes that multiply could be anything, where the parts come from a strange file. */
static bool make_matrix(int64_t rows, int64_t columns, matrix *out, err *e) {
    if (rows > NUMBERS_MAX / columns)
        return err_set(e, ERR_TOO_LARGE, "a product of %lld x %lld numbers", (long long)rows, (long long)columns);
    *out = (matrix){rows, columns, mem_alloc((size_t)(rows * columns), sizeof *out->data)};
    return true;
}

static void transpose(matrix *m) {
    float *to = mem_alloc((size_t)(m->rows * m->columns), sizeof *to);
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t c = 0; c < m->columns; c++) to[c * m->rows + r] = m->data[r * m->columns + c];
    free(m->data);
    *m = (matrix){m->columns, m->rows, to};
}

/* Some rows of a product. */
typedef struct band {
    const matrix *a, *b;
    int64_t row, count;
    float *out;
} band;

static bool build_product(graph *g, void *ctx, err *e) {
    (void)e;
    const band *p = ctx;
    struct ggml_tensor *b = graph_input_f32(g, p->b->data, p->b->columns, p->b->rows, 1, 1);
    struct ggml_tensor *a = graph_input_f32(g, p->a->data + p->row * p->a->columns, p->a->columns, p->count, 1, 1);
    graph_output(g, ggml_mul_mat(g->ctx, ggml_cont(g->ctx, ggml_transpose(g->ctx, b)), a), p->out);
    return true;
}

/* a b, in bands: it may have many megabytes, and a graph holds it more than once. */
static bool multiply(backend *dev, const matrix *a, const matrix *b, matrix *out, err *e) {
    if (!make_matrix(a->rows, b->columns, out, e)) return false;
    int64_t step = BAND_BYTES / (b->columns * (int64_t)sizeof(float));
    if (step < 1) step = 1;
    for (int64_t row = 0; row < a->rows; row += step) {
        const int64_t count = a->rows - row < step ? a->rows - row : step;
        band p = {a, b, row, count, out->data + row * b->columns};
        if (!backend_compute(dev, build_product, &p, e)) return false;
    }
    return true;
}

typedef struct core_call {
    const matrix *core, *b;
    int64_t kernel;
    float *out;
} core_call;

/* core: [n, m, k], b: [m, in] -> [n, in, k] */
static bool build_core(graph *g, void *ctx, err *e) {
    (void)e;
    const core_call *c = ctx;
    const int64_t m = c->b->rows;
    struct ggml_tensor *b = graph_input_f32(g, c->b->data, c->b->columns, m, 1, 1);
    struct ggml_tensor *core = graph_input_f32(g, c->core->data, c->kernel, m, c->core->rows, 1);
    core = ggml_cont(g->ctx, ggml_permute(g->ctx, core, 1, 0, 2, 3));                                 /* [n, k, m] */
    struct ggml_tensor *y = ggml_mul_mat(g->ctx, ggml_cont(g->ctx, ggml_transpose(g->ctx, b)), core); /* [n, k, in] */
    graph_output(g, ggml_cont(g->ctx, ggml_permute(g->ctx, y, 1, 0, 2, 3)), c->out);
    return true;
}

/* Tucker decomposition of a convolution: replaces b ([m, in]) by [n, in k]. */
static bool apply_core(backend *dev, const lora_file *f, const tensor_info *t, matrix *b, err *e) {
    matrix core;
    if (!read_matrix(f, t, &core, e)) return false;
    const int64_t kernel = core.columns / b->rows;
    matrix out = {0};
    bool ok = (core.columns % b->rows == 0 && kernel <= KERNEL_MAX) || bad_shape(t, e);
    ok = ok && make_matrix(core.rows, b->columns * kernel, &out, e);
    core_call c = {&core, b, kernel, out.data};
    ok = ok && backend_compute(dev, build_core, &c, e);
    free(b->data);
    *b = out;
    free(core.data);
    return ok;
}

/* --- kinds ------------------------------------------------------------------------------------------------------- */

/* A matrix in a file: whole, or as a product, perhaps with a core. */
typedef struct factor {
    const tensor_info *whole, *a, *b, *core;
    bool a_is_turned; /* with a core `a` is stored as [r, out] */
} factor;

static bool read_product(backend *dev, const lora_file *f, const factor *x, matrix *out, err *e) {
    matrix a = {0}, b = {0};
    bool ok = read_matrix(f, x->a, &a, e) && read_matrix(f, x->b, &b, e);
    if (ok && x->core && x->a_is_turned) transpose(&a);
    ok = ok && (!x->core || apply_core(dev, f, x->core, &b, e));
    ok = ok && (a.columns == b.rows || bad_shape(x->a, e)) && multiply(dev, &a, &b, out, e);
    free(a.data);
    free(b.data);
    return ok;
}

static bool read_factor(backend *dev, const lora_file *f, const factor *x, matrix *out, err *e) {
    *out = (matrix){0};
    return x->whole ? read_matrix(f, x->whole, out, e) : read_product(dev, f, x, out, e);
}

static bool make_lora(backend *dev, const lora_file *f, const lora_module *m, matrix *out, err *e) {
    const factor x = {.a = m->part[LORA_UP], .b = m->part[LORA_DOWN], .core = m->part[LORA_MID]};
    return read_factor(dev, f, &x, out, e);
}

static bool make_hada(backend *dev, const lora_file *f, const lora_module *m, matrix *out, err *e) {
    const factor x = {
        .a = m->part[LORA_HADA_W1_A], .b = m->part[LORA_HADA_W1_B], .core = m->part[LORA_HADA_T1], .a_is_turned = true};
    const factor y = {
        .a = m->part[LORA_HADA_W2_A], .b = m->part[LORA_HADA_W2_B], .core = m->part[LORA_HADA_T2], .a_is_turned = true};
    matrix second = {0};
    bool ok = read_factor(dev, f, &x, out, e) && read_factor(dev, f, &y, &second, e);
    ok = ok && ((out->rows == second.rows && out->columns == second.columns) || bad_shape(y.a, e));
    for (int64_t i = 0; ok && i < out->rows * out->columns; i++) out->data[i] *= second.data[i];
    free(second.data);
    return ok;
}

/* Kronecker product: a block y for each number of x. The kernel belongs to y, innermost. */
static void kronecker(const matrix *x, const matrix *y, matrix *out) {
    for (int64_t row = 0; row < out->rows; row++) {
        const float *xs = x->data + row / y->rows * x->columns, *ys = y->data + row % y->rows * y->columns;
        float *to = out->data + row * out->columns;
        for (int64_t i = 0; i < x->columns; i++)
            for (int64_t j = 0; j < y->columns; j++) *to++ = xs[i] * ys[j];
    }
}

static bool make_lokr(backend *dev, const lora_file *f, const lora_module *m, matrix *out, err *e) {
    const factor a = {.whole = m->part[LORA_LOKR_W1], .a = m->part[LORA_LOKR_W1_A], .b = m->part[LORA_LOKR_W1_B]};
    const factor b = {.whole = m->part[LORA_LOKR_W2],
                      .a = m->part[LORA_LOKR_W2_A],
                      .b = m->part[LORA_LOKR_W2_B],
                      .core = m->part[LORA_LOKR_T2],
                      .a_is_turned = true};
    matrix x = {0}, y = {0};
    bool ok = read_factor(dev, f, &a, &x, e) && read_factor(dev, f, &b, &y, e);
    ok = ok && ((x.rows <= NUMBERS_MAX / y.rows && x.columns <= NUMBERS_MAX / y.columns) ||
                bad_shape(a.whole ? a.whole : a.a, e));
    ok = ok && make_matrix(x.rows * y.rows, x.columns * y.columns, out, e);
    if (ok) kronecker(&x, &y, out);
    free(x.data);
    free(y.data);
    return ok;
}

static bool make_delta(backend *dev, const lora_file *f, const lora_module *m, matrix *out, err *e) {
    if (m->part[LORA_UP]) return make_lora(dev, f, m, out, e);
    if (m->part[LORA_HADA_W1_A]) return make_hada(dev, f, m, out, e);
    if (m->part[LORA_DIFF]) return read_matrix(f, m->part[LORA_DIFF], out, e);
    return make_lokr(dev, f, m, out, e);
}

/* --- scale ------------------------------------------------------------------------------------------------------- */

static bool read_scalar(const lora_file *f, const tensor_info *t, double *out, err *e) {
    matrix m;
    if (!t) return true;
    if (!read_matrix(f, t, &m, e)) return false;
    *out = (double)m.data[0];
    free(m.data);
    return true;
}

/* The rank that alpha is divided by: rows of the second factor. 0: there is none, and no scaling. */
static int64_t rank_of(const lora_module *m) {
    static const lora_part seconds[] = {LORA_DOWN, LORA_HADA_W1_B, LORA_LOKR_W2_B, LORA_LOKR_W1_B};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        const tensor_info *t = m->part[seconds[i]];
        if (t) return t->ne[t->n_dims > 0 ? t->n_dims - 1 : 0];
    }
    return 0;
}

static bool read_scale(const lora_file *f, const lora_module *m, float *out, err *e) {
    const int64_t rank = rank_of(m);
    double scale = 1, alpha = (double)rank;
    if (!read_scalar(f, m->part[LORA_ALPHA], &alpha, e)) return false;
    if (rank > 0) scale = alpha / (double)rank;
    if (!read_scalar(f, m->part[LORA_SCALE], &scale, e)) return false;
    *out = (float)scale;
    return true;
}

/* --- DoRA -------------------------------------------------------------------------------------------------------- */

/* Lengths of a weight's slices: of each row, or of each input channel over all rows. */
static void measure(const float *w, const lora_shape *s, bool by_row, double *length) {
    const int64_t channels = s->columns / s->kernel;
    memset(length, 0, (size_t)(by_row ? s->rows : channels) * sizeof *length);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->columns; c++) {
            const double v = (double)w[r * s->columns + c];
            length[by_row ? r : c / s->kernel] += v * v;
        }
}

/* w becomes (w + delta) with its slices scaled to the stored lengths; `strength` of the way. */
static bool decompose(const lora_file *f, const tensor_info *dora, const lora_shape *s, const float *delta,
                      float strength, float *w, err *e) {
    const int64_t channels = s->columns / s->kernel, total = s->rows * s->columns;
    const bool by_row = dora->n_dims < 2 || dora->ne[dora->n_dims - 1] != 1;
    const int64_t count = by_row ? s->rows : channels;
    if (dora->ne[0] * dora->ne[1] * dora->ne[2] * dora->ne[3] != count) return bad_shape(dora, e);
    float *wanted = lora_file_read(f, dora, e);
    if (!wanted) return false;
    float *changed = mem_alloc((size_t)total, sizeof *changed);
    double *length = mem_alloc((size_t)count, sizeof *length);
    for (int64_t i = 0; i < total; i++) changed[i] = w[i] + delta[i];
    measure(changed, s, by_row, length);
    for (int64_t i = 0; i < count; i++) length[i] = (double)wanted[i] / (sqrt(length[i]) + (double)FLT_EPSILON);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->columns; c++) {
            const int64_t i = r * s->columns + c;
            const float to = changed[i] * (float)length[by_row ? r : c / s->kernel];
            w[i] += strength * (to - w[i]);
        }
    free(length);
    free(changed);
    free(wanted);
    return true;
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static bool fits(const matrix *d, const lora_shape *s) {
    if (s->columns == 1) return d->rows * d->columns == s->rows;
    const bool is_partial = s->may_be_partial && d->columns < s->columns && d->columns % s->kernel == 0;
    return d->rows == s->rows && (d->columns == s->columns || is_partial);
}

static void add_rows(const matrix *d, const lora_shape *s, float times, float *w) {
    const int64_t columns = d->columns < s->columns ? d->columns : s->columns;
    for (int64_t r = 0; r < s->rows; r++) {
        const float *from = d->data + r * columns;
        float *to = w + r * s->columns;
        for (int64_t c = 0; c < columns; c++) to[c] += times * from[c];
    }
}

bool lora_add(backend *b, const lora_file *f, const lora_module *m, const lora_shape *shape, float strength, float *w,
              err *e) {
    matrix delta = {0};
    float scale = 1;
    bool ok = make_delta(b, f, m, &delta, e) && read_scale(f, m, &scale, e);
    ok = ok &&
         (fits(&delta, shape) ||
          err_set(e, ERR_UNSUPPORTED, "'%.100s' is for a weight of %lld x %lld, the model's has %lld x %lld", m->key,
                  (long long)delta.rows, (long long)delta.columns, (long long)shape->rows, (long long)shape->columns));
    const tensor_info *dora = m->part[LORA_DORA];
    if (ok && dora) {
        ok = delta.columns == shape->columns || bad_shape(dora, e);
        for (int64_t i = 0; ok && i < shape->rows * shape->columns; i++) delta.data[i] *= scale;
        ok = ok && decompose(f, dora, shape, delta.data, strength, w, e);
    } else if (ok) {
        add_rows(&delta, shape, scale * strength, w);
    }
    free(delta.data);
    return ok;
}

bool lora_add_bias(const lora_file *f, const lora_module *m, int64_t rows, float strength, float *bias, err *e) {
    const tensor_info *t = m->part[LORA_DIFF_BIAS];
    matrix d;
    if (!read_matrix(f, t, &d, e)) return false;
    const bool ok = d.rows * d.columns == rows || bad_shape(t, e);
    for (int64_t i = 0; ok && i < rows; i++) bias[i] += strength * d.data[i];
    free(d.data);
    return ok;
}
