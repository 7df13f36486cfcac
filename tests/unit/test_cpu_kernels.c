/* The kernels for CPUs, of every instruction set that this processor has, against sums in double precision; and that
 * the number of threads changes no bit. Those with AMX run with its instructions emulated, too. */
#include "cpu_kernels_test.h"

/* What a kernel multiplies: for one of bfloat16, numbers that it has no need to round. */
static float *inputs(const cpu_kernels *k, int64_t n) {
    float *x = numbers(n);
    if (k->precision == CPU_F32) return x;
    uint16_t *h = halves(n);
    half_floats(h, x, n);
    free(h);
    return x;
}

/* Fails unless |got - want| <= tolerance |want| over all of them; numbers count as `least` each at least, so that one
 * that happens to be nearly zero is not asked to be exact. */
static void assert_near(const char *what, const float *got, const double *want, int64_t n, double least,
                        double tolerance) {
    double error = 0, size = (double)n * least * least;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s: number %lld is not finite", what, (long long)i);
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (sqrt(error) > tolerance * sqrt(size))
        fail_msg("%s: relative error %.3g, at most %.3g (seed %llu)", what, sqrt(error / size), tolerance,
                 (unsigned long long)seed);
}

/* --- Convolution --- */

static double *conv_reference(const cpu_conv *c, const uint16_t *w) {
    double *y = malloc((size_t)(c->n * c->oc * c->oh * c->ow) * sizeof *y), *at = y;
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t o = 0; o < c->oc; o++)
            for (int64_t oy = 0; oy < c->oh; oy++)
                for (int64_t ox = 0; ox < c->ow; ox++, at++) {
                    *at = c->bias ? (double)c->bias[c->bias_per_picture ? n * c->oc + o : o] : 0;
                    if (c->add) *at += (double)c->add[at - y];
                    for (int64_t i = 0; i < c->ic * c->kh * c->kw; i++) {
                        const int64_t channel = i / (c->kh * c->kw), ky = i / c->kw % c->kh, kx = i % c->kw;
                        const int64_t y_in = oy * c->stride + ky - c->pad, x_in = ox * c->stride + kx - c->pad;
                        if (y_in < 0 || y_in >= c->h || x_in < 0 || x_in >= c->w) continue;
                        *at += (double)c->x[((n * c->ic + channel) * c->h + y_in) * c->w + x_in] *
                               (double)half_value(w[o * c->ic * c->kh * c->kw + i]);
                    }
                }
    return y;
}

static void run_conv(const cpu_conv_way *way, const cpu_conv *c, int threads) {
    float *room = nans(way->room ? way->room(c, threads) : 1);
    for (int64_t i = 0; i < c->n * c->oc * c->oh * c->ow; i++) c->y[i] = NAN;
    for (int i = threads - 1; i >= 0 && way->room; i--) way->input(c, room, i, threads);
    for (int i = threads - 1; i >= 0; i--) way->output(c, room, i, threads);
    free(room);
}

/* Relative, where `bf16` and `f32` are those of the direct way. Winograd's rounds transformed numbers. */
static double tolerance(const cpu_kernels *k, const cpu_conv_way *way, double bf16, double f32) {
    if (way == &k->conv_winograd) return k->precision == CPU_BF16 ? 1e-2 : 2e-5;
    return k->precision == CPU_BF16 ? bf16 : f32;
}

typedef struct conv_case {
    int n, ic, oc, h, w, kernel, stride, pad;
    bool bias, per_picture, is_float;
} conv_case;

static void check_conv(const cpu_kernels *k, const conv_case *t, const cpu_conv_way *way, const char *name) {
    const int64_t kernel = t->kernel, weights = (int64_t)t->oc * t->ic * kernel * kernel;
    uint16_t *w = halves(weights);
    float *wide = malloc((size_t)weights * sizeof *wide);
    half_floats(w, wide, weights);
    float *x = inputs(k, (int64_t)t->n * t->ic * t->h * t->w), *bias = numbers((int64_t)t->n * t->oc);
    cpu_conv c = {.x = x,
                  .bias = t->bias ? bias : NULL,
                  .weight = {w, (size_t)(t->ic * kernel * kernel) * sizeof *w, 1, sizeof *w, half_floats},
                  .n = t->n,
                  .ic = t->ic,
                  .oc = t->oc,
                  .h = t->h,
                  .w = t->w,
                  .kh = kernel,
                  .kw = kernel,
                  .oh = (t->h + 2 * t->pad - kernel) / t->stride + 1,
                  .ow = (t->w + 2 * t->pad - kernel) / t->stride + 1,
                  .stride = t->stride,
                  .pad = t->pad,
                  .bias_per_picture = t->per_picture};
    if (t->is_float)
        c.weight = (cpu_matrix){wide, (size_t)(t->ic * kernel * kernel) * sizeof *wide, 1, sizeof *wide, NULL};
    const int64_t count = c.n * c.oc * c.oh * c.ow;
    float *first = malloc((size_t)count * sizeof *first), *again = malloc((size_t)count * sizeof *again);
    float *add = numbers(count);
    if (t->is_float) c.add = add;
    double *want = conv_reference(&c, w);
    char what[128];
    snprintf(what, sizeof what, "%s %s n%d ic%d oc%d %dx%d k%d s%d", k->name, name, t->n, t->ic, t->oc, t->h, t->w,
             t->kernel, t->stride);
    c.y = first;
    run_conv(way, &c, 1);
    assert_near(what, first, want, count, 0.5, tolerance(k, way, 2e-6, 2e-6));
    c.y = again;
    for (int threads = 2; threads <= 5; threads += 3) {
        run_conv(way, &c, threads);
        assert_memory_equal(first, again, (size_t)count * sizeof *first);
    }
    free(want), free(first), free(again), free(add), free(x), free(bias), free(w), free(wide);
}

static void each_isa(void (*check)(const cpu_kernels *k)) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const cpu_kernels *k = cpu_kernels_find(names[i]);
        if (k)
            check(k);
        else
            print_message("this processor has no %s: its kernels are not tested\n", names[i]);
    }
}

/* avx512amx with its instructions in plain C (amx_emulated.h); NULL: this processor has not what is not emulated. */
static const cpu_kernels *emulated_amx(void) {
#if defined(__x86_64__)
    extern const cpu_kernels cpu_kernels_avx512amx_emulated;
    if (cpu_kernels_find("avx512bf16")) return &cpu_kernels_avx512amx_emulated;
#endif
    return NULL;
}

/* Of kernels that are written for AMX. */
static void each_isa_and_emulated(void (*check)(const cpu_kernels *k)) {
    each_isa(check);
    if (emulated_amx())
        check(emulated_amx());
    else
        print_message("this processor has no avx512bf16: emulated AMX is not tested\n");
}

static void convolutions_of(const cpu_kernels *k) {
    static const conv_case cases[] = {
        {1, 5, 7, 9, 11, 3, 1, 1, true, false, false},     {2, 3, 40, 16, 16, 3, 1, 1, true, true, false},
        {2, 33, 20, 12, 10, 1, 1, 0, false, false, false}, {1, 40, 130, 3, 5, 1, 1, 0, true, false, true},
        {2, 32, 48, 17, 19, 3, 2, 1, true, false, false},  {1, 8, 9, 21, 18, 3, 2, 0, true, false, false},
        {1, 130, 17, 5, 7, 3, 1, 1, true, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_conv(k, &cases[i], &k->conv, "conv");
}

static void test_convolutions(void **state) {
    (void)state;
    each_isa(convolutions_of);
}

static void winograd_of(const cpu_kernels *k) {
    static const conv_case cases[] = {
        {1, 5, 7, 9, 11, 3, 1, 1, true, false, false},   {2, 4, 40, 16, 16, 3, 1, 1, true, true, false},
        {2, 70, 66, 13, 6, 3, 1, 1, false, false, true}, {1, 3, 5, 4, 201, 3, 1, 1, true, false, false},
        {1, 9, 6, 1, 1, 3, 1, 1, true, false, false},    {3, 8, 130, 8, 8, 3, 1, 1, true, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_conv(k, &cases[i], &k->conv_winograd, "winograd");
    for (int i = 0; i < 8; i++) {
        const conv_case any = {1 + below(3), 1 + below(40), 1 + below(40), 1 + below(14), 1 + below(30), 3, 1, 1,
                               true,         below(2) == 1, below(2) == 1};
        check_conv(k, &any, &k->conv_winograd, "winograd");
        check_conv(k, &any, &k->conv, "conv");
    }
}

static void test_winograd(void **state) {
    (void)state;
    each_isa(winograd_of);
}

static void direct_of(const cpu_kernels *k) {
    static const conv_case cases[] = {
        {1, 5, 7, 9, 11, 3, 1, 1, true, false, false},    {2, 150, 70, 16, 16, 3, 1, 1, true, true, false},
        {1, 7, 5, 13, 12, 5, 1, 2, true, false, false},   {2, 33, 20, 12, 10, 1, 1, 0, false, false, false},
        {1, 1300, 3, 3, 5, 1, 1, 0, true, false, true},   {3, 3, 5, 1, 1, 3, 1, 1, true, false, false},
        {1, 2, 130, 70, 90, 3, 1, 1, false, false, true}, {1, 6, 3, 15, 14, 11, 1, 5, true, false, false},
        {2, 150, 70, 8, 8, 3, 1, 1, true, true, false},   {2, 33, 70, 16, 18, 3, 2, 1, true, false, true},
        {1, 5, 9, 21, 18, 3, 2, 0, true, false, false},   {1, 3, 20, 28, 28, 7, 7, 0, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_conv(k, &cases[i], &k->conv_direct, "direct");
    for (int i = 0; i < 8; i++) {
        const int pad = below(3);
        const conv_case any = {1 + below(3), 1 + below(90), 1 + below(90), 1 + below(12), 1 + below(30), 2 * pad + 1, 1,
                               pad,          true,          below(2) == 1, below(2) == 1};
        check_conv(k, &any, &k->conv_direct, "direct");
        const int kernel = 1 + below(4);
        const conv_case other = {
            1 + below(3),  1 + below(90), 1 + below(90), kernel + below(12), kernel + below(30), kernel, 1 + below(3),
            below(kernel), true,          false,         below(2) == 1};
        check_conv(k, &other, &k->conv_direct, "direct");
        check_conv(k, &other, &k->conv, "conv");
    }
}

static void test_direct(void **state) {
    (void)state;
    each_isa_and_emulated(direct_of);
}

static double silu_of(double x) {
    return x / (1 + exp(-x));
}

/* A convolution of silu(x a + b), with zeros around that. With bfloat16 it is rounded: 2^-9 of each number at most. */
static void check_scaled(const cpu_kernels *k, const cpu_conv_way *way, int64_t n, int64_t ic, int64_t oc, int64_t h,
                         int64_t w) {
    const int64_t count = n * oc * h * w, plane = h * w, all = n * ic * plane;
    uint16_t *weights = halves(oc * ic * 9);
    float *x = numbers(all), *scales = numbers(2 * n * ic), *scaled = malloc((size_t)all * sizeof *scaled);
    for (int64_t i = 0; i < all; i++) {
        const float *ab = scales + i / plane * 2;
        scaled[i] = (float)silu_of((double)x[i] * (double)ab[0] + (double)ab[1]);
    }
    float *first = malloc((size_t)count * sizeof *first), *again = malloc((size_t)count * sizeof *again);
    cpu_conv c = {.x = scaled,
                  .weight = {weights, (size_t)(ic * 9) * sizeof *weights, 1, sizeof *weights, half_floats},
                  .n = n,
                  .ic = ic,
                  .oc = oc,
                  .h = h,
                  .w = w,
                  .kh = 3,
                  .kw = 3,
                  .oh = h,
                  .ow = w,
                  .stride = 1,
                  .pad = 1};
    double *want = conv_reference(&c, weights);
    c.x = x, c.scales = scales, c.y = first;
    char what[128];
    snprintf(what, sizeof what, "%s %s scaled n%d ic%d oc%d %dx%d", k->name, way->name, (int)n, (int)ic, (int)oc,
             (int)h, (int)w);
    run_conv(way, &c, 1);
    assert_near(what, first, want, count, 0.1, tolerance(k, way, 5e-3, 3e-6));
    c.y = again;
    run_conv(way, &c, 3);
    assert_memory_equal(first, again, (size_t)count * sizeof *first);
    free(want), free(first), free(again), free(scaled), free(scales), free(x), free(weights);
}

static void scaled_of(const cpu_kernels *k) {
    for (int i = 0; i < 6; i++) {
        const cpu_conv_way *way = i % 2 ? &k->conv_direct : &k->conv_winograd;
        check_scaled(k, way, 2, 5, 7, 9, 11);
        check_scaled(k, way, 1, 2, 3, 2, 600);
        check_scaled(k, way, 1 + below(3), 1 + below(90), 1 + below(90), 1 + below(12), 1 + below(30));
    }
}

static void test_scaled(void **state) {
    (void)state;
    each_isa_and_emulated(scaled_of);
}

/* Weights of which any four sum up to a number that bfloat16 has, too. */
static uint16_t *coarse_halves(int64_t n) {
    uint16_t *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = half_of(roundf(number() * 16) / 16);
    return x;
}

static void check_doubled(const cpu_kernels *k, int64_t n, int64_t ic, int64_t oc, int64_t h, int64_t w, bool bias) {
    const int64_t count = n * oc * 4 * h * w;
    uint16_t *weights = coarse_halves(oc * ic * 9);
    float *x = inputs(k, n * ic * h * w), *twice = malloc((size_t)(n * ic * 4 * h * w) * sizeof *twice);
    for (int64_t i = 0; i < n * ic * 4 * h * w; i++)
        twice[i] = x[i / (4 * h * w) * h * w + i / (4 * w) % h * w + i / 2 % w];
    float *biases = numbers(n * oc), *first = malloc((size_t)count * sizeof *first);
    float *again = malloc((size_t)count * sizeof *again);
    cpu_conv c = {.x = twice,
                  .bias = bias ? biases : NULL,
                  .bias_per_picture = bias,
                  .weight = {weights, (size_t)(ic * 9) * sizeof *weights, 1, sizeof *weights, half_floats},
                  .n = n,
                  .ic = ic,
                  .oc = oc,
                  .h = 2 * h,
                  .w = 2 * w,
                  .kh = 3,
                  .kw = 3,
                  .oh = 2 * h,
                  .ow = 2 * w,
                  .stride = 1,
                  .pad = 1};
    double *want = conv_reference(&c, weights);
    c.x = x, c.h = h, c.w = w, c.doubled = true;
    char what[128];
    snprintf(what, sizeof what, "%s doubled n%d ic%d oc%d %dx%d", k->name, (int)n, (int)ic, (int)oc, (int)h, (int)w);
    c.y = first;
    run_conv(&k->conv_direct, &c, 1);
    assert_near(what, first, want, count, 0.5, 2e-6);
    c.y = again;
    for (int threads = 2; threads <= 5; threads += 3) {
        run_conv(&k->conv_direct, &c, threads);
        assert_memory_equal(first, again, (size_t)count * sizeof *first);
    }
    free(want), free(first), free(again), free(biases), free(twice), free(x), free(weights);
}

static void doubled_of(const cpu_kernels *k) {
    check_doubled(k, 1, 5, 7, 9, 11, true);
    check_doubled(k, 2, 150, 70, 8, 8, true);
    check_doubled(k, 3, 3, 5, 1, 1, false);
    check_doubled(k, 1, 2, 33, 41, 50, false);
    for (int i = 0; i < 4; i++)
        check_doubled(k, 1 + below(3), 1 + below(90), 1 + below(90), 1 + below(12), 1 + below(30), below(2) == 1);
}

static void test_doubled(void **state) {
    (void)state;
    each_isa_and_emulated(doubled_of);
}

/* --- Matrix product --- */

/* in_blocks: `in` is rounded up to whole ones; with something added to the result. */
static void check_product(const cpu_kernels *k, const cpu_product *product, int64_t t, int64_t in, int64_t out,
                          bool in_blocks) {
    if (in_blocks) in = (in + BLOCK - 1) / BLOCK * BLOCK;
    uint16_t *w = halves(in * out);
    float *x = inputs(k, t * in), *bias = numbers(out), *y = nans(t * out);
    float *add = in_blocks ? numbers(t * out) : NULL;
    double *want = malloc((size_t)(t * out) * sizeof *want);
    for (int64_t i = 0; i < t * out; i++) {
        want[i] = (double)bias[i % out] + (add ? (double)add[i] : 0);
        for (int64_t j = 0; j < in; j++)
            want[i] += (double)x[i / out * in + j] * (double)half_value(w[i % out * in + j]);
    }
    char what[96];
    snprintf(what, sizeof what, "%s linear t%d in%d out%d", k->name, (int)t, (int)in, (int)out);
    run_linear(product, &(cpu_linear){.x = x,
                                      .bias = bias,
                                      .add = add,
                                      .weight = half_matrix(w, in, in_blocks),
                                      .y = y,
                                      .t = t,
                                      .in = in,
                                      .out = out});
    assert_near(what, y, want, t * out, 0.5, 2e-6);
    free(want), free(y), free(add), free(bias), free(x), free(w);
}

static void check_linear(const cpu_kernels *k, int64_t t, int64_t in, int64_t out, bool in_blocks) {
    check_product(k, k->product, t, in, out, in_blocks);
}

static void products_of(const cpu_kernels *k) {
    check_linear(k, 77, 96, 100, false);
    check_linear(k, 1, 7, 1, false);
    check_linear(k, 5, 2500, 49, true);
    check_linear(k, 5, 2500, 49, false);
    check_linear(k, 300, 64, 20, false);
    check_linear(k, 70, 1100, 250, false);
    check_linear(k, 33, 640, 70, false); /* several whole tiles of AMX, and one row more */
    for (int i = 0; i < 6; i++) check_linear(k, 1 + below(90), 1 + below(200), 1 + below(200), below(2) == 1);
}

static void test_products(void **state) {
    (void)state;
    each_isa_and_emulated(products_of);
}

static void few_rows_of(const cpu_kernels *k) {
    check_product(k, k->few_rows, 2, 1280, 320, false);
    check_product(k, k->few_rows, 1, 7, 1, false);
    check_product(k, k->few_rows, 15, 2500, 49, true);
    for (int i = 0; i < 6; i++)
        check_product(k, k->few_rows, 1 + below(12), 1 + below(200), 1 + below(200), below(2) == 1);
}

static void test_few_rows(void **state) {
    (void)state;
    each_isa(few_rows_of);
}

extern const cpu_product cpu_product_plainint8; /* any processor has it */

/* got, of not-a-number at first, is `want` packed row by row. */
static void assert_packed(const cpu_packing *p, const float *got, const float *want, int64_t rows, int64_t width) {
    float *packed = packed_rows(p, want, rows, width);
    assert_memory_equal(got, packed, (size_t)(rows * p->row(width)) * sizeof *got);
    free(packed);
}

/* Every packing that may be asked of kernels. */
enum { MOST_PACKINGS = 3 };
static int packings_of(const cpu_kernels *k, const cpu_packing *out[MOST_PACKINGS]) {
    const cpu_product *int8 = cpu_int8_product(k);
    int n = 0;
    if (k->product->packing) out[n++] = k->product->packing;
    if (int8) out[n++] = int8->packing;
    out[n++] = cpu_product_plainint8.packing;
    return n;
}

/* --- Attention --- */

static void attention_reference(const cpu_attention *a, double *y) {
    const int64_t c = a->heads * a->d;
    double *s = malloc((size_t)a->tk * sizeof *s);
    for (int64_t i = 0; i < a->n * a->tq * a->heads; i++) {
        const int64_t n = i / (a->tq * a->heads), head = i % a->heads;
        const float *q = a->q + i / a->heads * c + head * a->d;
        const float *k = a->k + n * a->tk * c + head * a->d, *v = a->v + n * a->tk * c + head * a->d;
        double most = -INFINITY, total = 0;
        for (int64_t t = 0; t < a->tk; t++) {
            s[t] = 0;
            for (int64_t j = 0; j < a->d; j++) s[t] += (double)q[j] * (double)k[t * c + j] * (double)a->scale;
            most = s[t] > most ? s[t] : most;
        }
        for (int64_t t = 0; t < a->tk; t++) total += s[t] = exp(s[t] - most);
        for (int64_t j = 0; j < a->d; j++) {
            double sum = 0;
            for (int64_t t = 0; t < a->tk; t++) sum += s[t] / total * (double)v[t * c + j];
            y[i / a->heads * c + head * a->d + j] = sum;
        }
    }
    free(s);
}

/* sharp: how far scores lie apart. */
static void check_attention(const cpu_kernels *k, int64_t n, int64_t tq, int64_t tk, int64_t heads, int64_t d,
                            float sharp) {
    const int64_t c = heads * d, count = n * tq * c;
    float *q = inputs(k, count), *key = inputs(k, n * tk * c), *v = inputs(k, n * tk * c);
    float *first = numbers(count), *again = numbers(count);
    double *want = malloc((size_t)count * sizeof *want);
    cpu_attention a = {.q = q,
                       .k = key,
                       .v = v,
                       .y = first,
                       .n = n,
                       .tq = tq,
                       .tk = tk,
                       .heads = heads,
                       .d = d,
                       .scale = sharp / sqrtf((float)d)};
    attention_reference(&a, want);
    char what[96];
    snprintf(what, sizeof what, "%s attention tq%d tk%d heads %d of %d", k->name, (int)tq, (int)tk, (int)heads, (int)d);
    k->attention(&a, 0, 1);
    /* A score's rounding error grows with the score, and is its weight's relative error. Weights in bfloat16 have 2^-9
     * besides, three times that of a result in which values of both signs cancel. */
    const double weight = k->precision == CPU_BF16 ? 6e-3 : 2e-6;
    assert_near(what, first, want, count, 0.01, weight + 4e-7 * (double)sharp);
    a.y = again;
    for (int threads = 2; threads <= 5; threads += 3) {
        for (int i = 0; i < threads; i++) k->attention(&a, i, threads);
        assert_memory_equal(first, again, (size_t)count * sizeof *first);
    }
    free(want), free(first), free(again), free(q), free(key), free(v);
}

static void attentions_of(const cpu_kernels *k) {
    check_attention(k, 2, 77, 77, 3, 40, 1);
    check_attention(k, 1, 100, 50, 1, 96, 1);
    check_attention(k, 2, 64, 64, 8, 8, 30);
    check_attention(k, 1, 33, 200, 2, 160, 100); /* one key takes all, the others' weights vanish */
    for (int i = 0; i < 4; i++)
        check_attention(k, 1 + below(2), 1 + below(90), 1 + below(150), 1 + below(4), 1 + below(70), 3);
}

static void test_attention(void **state) {
    (void)state;
    each_isa(attentions_of);
}

/* --- Between the products --- */

static double gelu_of(double x) {
    return x / 2 * erfc(-x / sqrt(2));
}

/* Numbers around `middle`, `wide` to either side. */
static float *numbers_at(int64_t n, float middle, float wide) {
    float *x = numbers(n);
    for (int64_t i = 0; i < n; i++) x[i] = middle + wide * x[i];
    return x;
}

/* Runs a kernel with several numbers of threads: the result is that of one thread to the last bit. */
#define ASSERT_SAME_FOR_THREADS(kernel, p, y, count)                                                                   \
    do {                                                                                                               \
        float *first_ = malloc((size_t)(count) * sizeof *first_);                                                      \
        memcpy(first_, y, (size_t)(count) * sizeof *first_);                                                           \
        for (int threads_ = 2; threads_ <= 5; threads_ += 3) {                                                         \
            for (int64_t i_ = 0; i_ < (count); i_++) (y)[i_] = NAN;                                                    \
            for (int i_ = 0; i_ < threads_; i_++) kernel(p, i_, threads_);                                             \
            assert_memory_equal(first_, y, (size_t)(count) * sizeof *first_);                                          \
        }                                                                                                              \
        free(first_);                                                                                                  \
    } while (0)

/* y = (x - mean) / deviation of `count` numbers. */
static void normalize(const float *x, double *y, int64_t count, double eps) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) mean += (double)x[i] / (double)count;
    for (int64_t i = 0; i < count; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    for (int64_t i = 0; i < count; i++) y[i] = ((double)x[i] - mean) / sqrt(squares / (double)count + eps);
}

/* middle: what a group's numbers lie around; its rounding is an error of theirs. */
static void check_group_norm(const cpu_kernels *k, int64_t n, int64_t groups, int64_t each, int64_t plane, bool silu,
                             float middle) {
    const int64_t channels = groups * each, count = n * channels * plane;
    float *x = numbers_at(count, middle, 2), *weight = numbers_at(channels, 1, 1), *bias = numbers(channels);
    float *y = numbers(count);
    double *want = malloc((size_t)count * sizeof *want);
    const cpu_group_norm p = {.x = x,
                              .weight = weight,
                              .bias = bias,
                              .y = y,
                              .n = n,
                              .channels = channels,
                              .plane = plane,
                              .groups = groups,
                              .eps = 1e-5f,
                              .silu = silu};
    for (int64_t i = 0; i < n * groups; i++)
        normalize(x + i * each * plane, want + i * each * plane, each * plane, (double)p.eps);
    for (int64_t i = 0; i < count; i++) {
        const int64_t c = i / plane % channels;
        want[i] = want[i] * (double)weight[c] + (double)bias[c];
        if (silu) want[i] = silu_of(want[i]);
    }
    char what[96];
    snprintf(what, sizeof what, "%s group norm n%d %d groups of %d x %d%s", k->name, (int)n, (int)groups, (int)each,
             (int)plane, silu ? ", silu" : "");
    k->group_norm(&p, 0, 1);
    assert_near(what, y, want, count, 0.5, 5e-7 * (1 + fabs((double)middle)));
    ASSERT_SAME_FOR_THREADS(k->group_norm, &p, y, count);
    if (!silu) {
        float *scales = numbers(2 * n * channels);
        cpu_group_norm s = p;
        s.y = scales;
        k->group_scales(&s, 0, 1);
        for (int64_t i = 0; i < count; i++) y[i] = x[i] * scales[i / plane * 2] + scales[i / plane * 2 + 1];
        assert_near(what, y, want, count, 0.5, 5e-7 * (1 + fabs((double)middle)));
        ASSERT_SAME_FOR_THREADS(k->group_scales, &s, scales, 2 * n * channels);
        free(scales);
    }
    free(want), free(x), free(weight), free(bias), free(y);
}

static void check_layer_norm(const cpu_kernels *k, int64_t rows, int64_t width, float middle) {
    const int64_t count = rows * width;
    float *x = numbers_at(count, middle, 2), *weight = numbers_at(width, 1, 1), *bias = numbers(width);
    float *y = numbers(count);
    double *want = malloc((size_t)count * sizeof *want);
    const cpu_layer_norm p = {
        .x = x, .weight = weight, .bias = bias, .y = y, .rows = rows, .width = width, .eps = 1e-5f};
    for (int64_t i = 0; i < rows; i++) normalize(x + i * width, want + i * width, width, (double)p.eps);
    for (int64_t i = 0; i < count; i++) want[i] = want[i] * (double)weight[i % width] + (double)bias[i % width];
    char what[96];
    snprintf(what, sizeof what, "%s layer norm %d x %d", k->name, (int)rows, (int)width);
    k->layer_norm(&p, 0, 1);
    assert_near(what, y, want, count, 0.5, 5e-7 * (1 + fabs((double)middle)));
    ASSERT_SAME_FOR_THREADS(k->layer_norm, &p, y, count);
    const cpu_packing *packings[MOST_PACKINGS];
    const int ways = packings_of(k, packings);
    for (int i = 0; i < ways; i++) {
        cpu_layer_norm packed = p;
        packed.y = nans(rows * packings[i]->row(width));
        packed.packing = packings[i];
        for (int thread = 0; thread < 3; thread++) k->layer_norm(&packed, thread, 3);
        assert_packed(packings[i], packed.y, y, rows, width);
        free(packed.y);
    }
    free(want), free(x), free(weight), free(bias), free(y);
}

static void norms_of(const cpu_kernels *k) {
    check_group_norm(k, 2, 32, 10, 64, true, 0);
    check_group_norm(k, 1, 3, 1, 7, false, 0);
    check_group_norm(k, 1, 2, 3, 5000, true, 30); /* more than a block, far from zero */
    check_layer_norm(k, 9, 320, 0);
    check_layer_norm(k, 2, 5001, 30);
    for (int i = 0; i < 4; i++) {
        check_group_norm(k, 1 + below(3), 1 + below(5), 1 + below(9), 2 + below(300), below(2) == 1, 3);
        check_layer_norm(k, 1 + below(9), 2 + below(300), 3);
    }
}

static void test_norms(void **state) {
    (void)state;
    each_isa(norms_of);
}

/* wide: gates from -wide to wide. */
static void check_geglu(const cpu_kernels *k, int64_t rows, int64_t width, float wide) {
    const int64_t count = rows * width;
    float *x = numbers_at(2 * count, 0, wide), *y = numbers(count);
    double *want = malloc((size_t)count * sizeof *want);
    for (int64_t i = 0; i < count; i++) {
        const float *row = x + i / width * 2 * width + i % width;
        want[i] = (double)row[0] * gelu_of((double)row[width]);
    }
    const cpu_geglu p = {.x = x, .y = y, .rows = rows, .width = width};
    char what[96];
    snprintf(what, sizeof what, "%s geglu %d x %d, up to %g", k->name, (int)rows, (int)width, (double)wide);
    k->geglu(&p, 0, 1);
    /* gelu(x) = x Phi(x), of which Phi is off by 7.5e-8 as a formula and by some roundings of floats. */
    for (int64_t i = 0; i < count; i++) {
        const float *row = x + i / width * 2 * width + i % width;
        const double error = fabs((double)y[i] - want[i]), most = 5e-7 * fabs((double)row[0] * (double)row[width]);
        if (!(error <= most))
            fail_msg("%s: number %lld is off by %.3g, at most %.3g (seed %llu)", what, (long long)i, error, most,
                     (unsigned long long)seed);
    }
    ASSERT_SAME_FOR_THREADS(k->geglu, &p, y, count);
    const cpu_packing *packings[MOST_PACKINGS];
    const int ways = packings_of(k, packings);
    for (int i = 0; i < ways; i++) {
        const cpu_geglu packed = {x, nans(rows * packings[i]->row(width)), rows, width, packings[i]};
        for (int thread = 0; thread < 3; thread++) k->geglu(&packed, thread, 3);
        assert_packed(packings[i], packed.y, y, rows, width);
        free(packed.y);
    }
    free(want), free(x), free(y);
}

static void gates_of(const cpu_kernels *k) {
    check_geglu(k, 7, 80, 4);
    check_geglu(k, 3, 17, 1);
    check_geglu(k, 1, 1, 300);
    check_geglu(k, 5, 1 + below(100), 1 + (float)below(200));
}

static void test_gates(void **state) {
    (void)state;
    each_isa(gates_of);
}

static void check_transpose(const cpu_kernels *k, int64_t n, int64_t rows, int64_t columns, bool adds) {
    const int64_t count = n * rows * columns;
    float *x = numbers(count), *add = numbers(count), *y = numbers(count);
    const cpu_transpose p = {x, adds ? add : NULL, y, n, rows, columns};
    k->transpose(&p, 0, 1);
    for (int64_t i = 0; i < count; i++) {
        const int64_t picture = i / (rows * columns), column = i / rows % columns, row = i % rows;
        assert_float_equal(y[i], x[(picture * rows + row) * columns + column] + (adds ? add[i] : 0), 0);
    }
    ASSERT_SAME_FOR_THREADS(k->transpose, &p, y, count);
    free(x), free(add), free(y);
}

static void check_upsample(const cpu_kernels *k, int64_t planes, int64_t h, int64_t w) {
    const int64_t count = 4 * planes * h * w;
    float *x = numbers(planes * h * w), *y = numbers(count);
    const cpu_upsample p = {x, y, planes, h, w};
    k->upsample(&p, 0, 1);
    for (int64_t i = 0; i < count; i++) assert_float_equal(y[i], x[(i / (2 * w) / 2) * w + i % (2 * w) / 2], 0);
    ASSERT_SAME_FOR_THREADS(k->upsample, &p, y, count);
    free(x), free(y);
}

static void check_shuffle(const cpu_kernels *k, int64_t n, int64_t channels, int64_t h, int64_t w, bool per_picture) {
    const int64_t count = n * channels * 4 * h * w;
    float *x = numbers(n * (h + 1) * (w + 1) * channels * 4), *bias = numbers(n * channels), *y = nans(count);
    const cpu_shuffle p = {x, bias, y, n, channels, h, w, per_picture};
    k->shuffle(&p, 0, 1);
    for (int64_t i = 0; i < count; i++) {
        const int64_t px = i % (2 * w), py = i / (2 * w) % (2 * h), channel = i / (4 * h * w);
        const int64_t window = (channel / channels * (h + 1) + (py + 1) / 2) * (w + 1) + (px + 1) / 2;
        const float v = x[(window * channels + channel % channels) * 4 + py % 2 * 2 + px % 2];
        assert_float_equal(y[i], v + bias[per_picture ? channel : channel % channels], 0);
    }
    ASSERT_SAME_FOR_THREADS(k->shuffle, &p, y, count);
    free(x), free(bias), free(y);
}

/* Floats, and packed in every way the same. */
static void check_pixels(const cpu_kernels *k, int64_t n, int64_t channels, int64_t plane, bool scaled, bool silu) {
    const int64_t count = n * channels * plane;
    float *x = numbers(count), *scales = numbers(2 * n * channels), *y = nans(count);
    double *want = malloc((size_t)count * sizeof *want);
    for (int64_t i = 0; i < count; i++) {
        const int64_t channel = i / plane;
        double v = (double)x[i];
        if (scaled) v = v * (double)scales[2 * channel] + (double)scales[2 * channel + 1];
        if (scaled && silu) v = silu_of(v);
        want[(channel / channels * plane + i % plane) * channels + channel % channels] = v;
    }
    const cpu_pixels p = {.x = x,
                          .scales = scaled ? scales : NULL,
                          .y = y,
                          .n = n,
                          .channels = channels,
                          .plane = plane,
                          .silu = silu,
                          .row = channels};
    char what[96];
    snprintf(what, sizeof what, "%s pixels n%d c%d plane %d", k->name, (int)n, (int)channels, (int)plane);
    k->pixels(&p, 0, 1);
    assert_near(what, y, want, count, 0.1, 1e-6);
    ASSERT_SAME_FOR_THREADS(k->pixels, &p, y, count);
    const cpu_packing *packings[MOST_PACKINGS];
    const int ways = packings_of(k, packings);
    for (int i = 0; i < ways; i++) {
        cpu_pixels packed = p;
        packed.packing = packings[i];
        packed.row = packings[i]->row(channels);
        packed.y = nans(n * plane * packed.row);
        for (int thread = 0; thread < 3; thread++) k->pixels(&packed, thread, 3);
        assert_packed(packings[i], packed.y, y, n * plane, channels);
        free(packed.y);
    }
    free(want), free(x), free(scales), free(y);
}

static void moves_of(const cpu_kernels *k) {
    check_pixels(k, 2, 128, 64, true, true);
    check_pixels(k, 2, 48, 16, false, false);
    for (int i = 0; i < 3; i++) check_pixels(k, 1 + below(3), 1 + below(70), 1 + below(70), i > 0, i > 1);
    check_transpose(k, 2, 64, 48, true);
    check_transpose(k, 1, 1 + below(70), 1 + below(70), false);
    check_transpose(k, 1 + below(3), 1 + below(70), 1 + below(70), true);
    check_upsample(k, 3, 1 + below(20), 1 + below(70));
    check_shuffle(k, 2, 8, 16, 16, false);
    for (int i = 0; i < 3; i++) check_shuffle(k, 1 + below(3), 1 + below(20), 1 + below(9), 1 + below(40), i > 0);
}

static void test_moves(void **state) {
    (void)state;
    each_isa(moves_of);
}

static void test_choice(void **state) {
    (void)state;
    assert_non_null(cpu_kernels_best(CPU_F32));
    assert_int_equal(cpu_kernels_best(CPU_F32)->precision, CPU_F32);
    const cpu_kernels *amx = cpu_kernels_find("avx512amx");
    assert_ptr_equal(cpu_kernels_best(CPU_BF16), amx ? amx : cpu_kernels_find("avx512bf16"));
    assert_non_null(cpu_kernels_find("plain"));
    assert_null(cpu_kernels_find("abacus"));
    assert_null(cpu_kernels_find("avx512amx_emulated"));
}

/* One sum among many is a bit off. */
static void slightly_wrong_linear(const cpu_linear *p, int thread, int threads) {
    cpu_kernels_find("plain")->product->linear(p, thread, threads);
    p->y[p->t * p->out - 1] = nextafterf(p->y[p->t * p->out - 1], INFINITY);
}

static void small_product_of(const cpu_kernels *k) {
    assert_true(cpu_kernels_multiply_right(k));
}

static void test_small_product(void **state) {
    (void)state;
    each_isa_and_emulated(small_product_of);
    cpu_kernels wrong = *cpu_kernels_find("plain");
    const cpu_product wrong_product = {.linear = slightly_wrong_linear};
    wrong.product = &wrong_product;
    assert_false(cpu_kernels_multiply_right(&wrong));
}

int main(void) {
    seed = (uint64_t)time(NULL);
    const char *given = getenv("MYSTI_TEST_SEED");
    if (given) seed = strtoull(given, NULL, 10);
    print_message("MYSTI_TEST_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),    cmocka_unit_test(test_small_product), cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_winograd),  cmocka_unit_test(test_direct),        cmocka_unit_test(test_doubled),
        cmocka_unit_test(test_scaled),    cmocka_unit_test(test_products),      cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_norms),         cmocka_unit_test(test_gates),
        cmocka_unit_test(test_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
