/* The products of matrices and the convolutions in 8-bit integers, of every instruction set that this processor has,
 * against what the integers give in double precision, and against the exact results. */
#include "cpu_kernels_test.h"

/* --- Matrix product in 8-bit integers --- */

extern const cpu_product cpu_product_plainint8; /* any processor has it */

enum { GROUP = 128 }; /* numbers of a row that share a scale */

/* Rows [rows, in] as integers in -127 .. 127 and the scale of each group, a 127th of its largest number (or of 1e-30:
 * what is smaller is 0). Kernels find a number's place among the integers in floats, 127 * 2^-23 away at most. Where
 * that may decide between two of them it is unsure. With a power of two for a scale nothing is rounded before that. */
typedef struct integers {
    double *whole, *scale; /* [rows, in], [rows, groups] */
    bool *unsure;
    int64_t groups;
} integers;

static integers integers_of(const float *x, int64_t rows, int64_t in) {
    const int64_t groups = (in + GROUP - 1) / GROUP, count = rows * in;
    integers o = {malloc((size_t)count * sizeof *o.whole), malloc((size_t)(rows * groups) * sizeof *o.scale),
                  malloc((size_t)count * sizeof *o.unsure), groups};
    for (int64_t i = 0; i < rows * groups; i++) {
        const int64_t first = i / groups * in + i % groups * GROUP, end = (i / groups + 1) * in;
        double largest = 1e-30;
        for (int64_t j = first; j < first + GROUP && j < end; j++) largest = fmax(largest, fabs((double)x[j]));
        o.scale[i] = largest / 127;
        int exponent;
        const bool is_exact = frexp(o.scale[i], &exponent) == 0.5;
        for (int64_t j = first; j < first + GROUP && j < end; j++) {
            const double v = (double)x[j] / o.scale[i];
            o.whole[j] = rint(v);
            o.unsure[j] = !is_exact && fabs(v - floor(v) - 0.5) < 2e-5;
        }
    }
    return o;
}

static void integers_free(integers *o) {
    free(o->whole), free(o->scale), free(o->unsure);
}

/* A sum of the product: of the integers, and of the numbers themselves. */
typedef struct int8_sum {
    double want, exact;
    double size;      /* of what is added up */
    double unsure;    /* how much `want` changes if every unsure integer is the other one */
    double deviation; /* of `exact` from `want`, if the numbers lie anywhere between two integers */
} int8_sum;

static int8_sum sum_of_integers(const float *x, const float *w, const integers *xs, const integers *ws, int64_t t,
                                int64_t o, int64_t in) {
    int8_sum s = {0};
    double variance = 0;
    for (int64_t g = 0; g < xs->groups; g++) {
        const double a = xs->scale[t * xs->groups + g], b = ws->scale[o * ws->groups + g];
        double sum = 0;
        for (int64_t j = g * GROUP; j < (g + 1) * GROUP && j < in; j++) {
            const int64_t l = t * in + j, r = o * in + j;
            const double u = (double)x[l], v = (double)w[r];
            sum += xs->whole[l] * ws->whole[r];
            s.exact += u * v;
            variance += (u * u * b * b + v * v * a * a + a * a * b * b / 12) / 12;
            if (xs->unsure[l]) s.unsure += a * b * (fabs(ws->whole[r]) + 1);
            if (ws->unsure[r]) s.unsure += a * b * (fabs(xs->whole[l]) + 1);
        }
        s.want += a * b * sum;
        s.size += a * b * fabs(sum);
    }
    s.deviation = sqrt(variance);
    return s;
}

/* Every number is within the rounding of fifty floats in a row of what the integers give, 3e-6 of what is added up,
 * and a whole step for each unsure integer; and nowhere near as far from the exact product as chance could have it. */
static void assert_int8(const char *what, const cpu_linear *l, const float *w) {
    integers xs = integers_of(l->x, l->t, l->in), ws = integers_of(w, l->out, l->in);
    for (int64_t i = 0; i < l->t * l->out; i++) {
        const int8_sum s = sum_of_integers(l->x, w, &xs, &ws, i / l->out, i % l->out, l->in);
        const double bias = (double)l->bias[i % l->out], add = l->add ? (double)l->add[i] : 0, got = (double)l->y[i];
        const double rounding = 3e-6 * (s.size + fabs(bias) + fabs(add)), far = 8 * s.deviation + rounding + s.unsure;
        const double error = fabs(got - (s.want + bias + add)), whole_error = fabs(got - (s.exact + bias + add));
        if (!(error <= rounding + s.unsure))
            fail_msg("%s: number %lld is off by %.3g, at most %.3g + %.3g (seed %llu)", what, (long long)i, error,
                     rounding, s.unsure, (unsigned long long)seed);
        if (!(whole_error <= far))
            fail_msg("%s: number %lld is %.3g from the exact one, at most %.3g (seed %llu)", what, (long long)i,
                     whole_error, far, (unsigned long long)seed);
    }
    integers_free(&xs), integers_free(&ws);
}

/* A row unlike others. */
static void make_special(float *row, int64_t in, int kind) {
    enum { ZEROS, ZEROS_AT_FIRST, LAST_IS_HUGE, TINY_AT_FIRST, WHOLE };
    for (int64_t i = 0; i < in; i++) {
        if (kind == ZEROS || (kind == ZEROS_AT_FIRST && i < GROUP)) row[i] = 0;
        if (kind == LAST_IS_HUGE && i == in - 1) row[i] = -1e15f;
        if (kind == TINY_AT_FIRST && i < GROUP) row[i] *= 1e-38f;
        if (kind == WHOLE) row[i] = i % 3 ? roundf(row[i] * 127) : -127; /* the scale is 1 */
    }
}

static void check_int8(const cpu_product *p, int64_t t, int64_t in, int64_t out, bool in_blocks) {
    enum { KINDS = 5 };
    if (in_blocks) in = (in + BLOCK - 1) / BLOCK * BLOCK;
    float *x = numbers(t * in), *w = numbers(in * out), *bias = numbers(out), *y = nans(t * out);
    float *add = in_blocks ? numbers(t * out) : NULL;
    for (int i = 0; i < KINDS; i++) {
        if (i + 1 < t) make_special(x + (i + 1) * in, in, i);
        if (i + 1 < out) make_special(w + (i + 1) * in, in, i);
    }
    uint16_t *half = malloc((size_t)(in * out) * sizeof *half);
    for (int64_t i = 0; i < in * out; i++) half[i] = half_of(w[i]);
    half_floats(half, w, in * out);
    const cpu_linear l = {.x = x,
                          .bias = bias,
                          .add = add,
                          .weight = half_matrix(half, in, in_blocks),
                          .y = y,
                          .t = t,
                          .in = in,
                          .out = out};
    char what[96];
    snprintf(what, sizeof what, "%s linear t%d in%d out%d", p->name, (int)t, (int)in, (int)out);
    run_linear(p, &l);
    assert_int8(what, &l, w);
    free(half), free(x), free(w), free(bias), free(add), free(y);
}

/* What is not finite makes its row so, and no other; among the weights, its column. */
static void check_not_finite(const cpu_product *p) {
    enum { T = 11, IN = 200, OUT = 50 };
    float *x = numbers(T * IN), *w = numbers(OUT * IN), *y = nans(T * OUT);
    x[2 * IN + 77] = NAN, x[9 * IN + IN - 1] = -INFINITY;
    w[7 * IN + 130] = NAN, w[49 * IN] = INFINITY;
    run_linear(p, &(cpu_linear){
                      .x = x, .weight = {w, IN * sizeof *w, 1, sizeof *w, NULL}, .y = y, .t = T, .in = IN, .out = OUT});
    for (int i = 0; i < T * OUT; i++) {
        const int row = i / OUT, column = i % OUT;
        assert_true(isfinite(y[i]) == (row != 2 && row != 9 && column != 7 && column != 49));
    }
    free(x), free(w), free(y);
}

static void linear_of(const cpu_product *p) {
    assert_int_equal(p->precision, CPU_INT8);
    check_int8(p, 77, 96, 100, false);
    check_int8(p, 1, 7, 1, false);
    check_int8(p, 5, 2500, 49, true);
    check_int8(p, 5, 2500, 49, false);
    check_int8(p, 300, 64, 20, false);
    check_int8(p, 70, 1100, 250, false);
    check_int8(p, 9, 5200, 30, false); /* three pieces of the depth */
    for (int i = 0; i < 6; i++) check_int8(p, 1 + below(90), 1 + below(600), 1 + below(200), below(2) == 1);
    check_not_finite(p);
}

/* Calls check() with each product that there is on this processor. */
static void each_product(void (*check)(const cpu_product *p)) {
    check(&cpu_product_plainint8);
    const cpu_product *last = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const cpu_kernels *k = cpu_kernels_find(names[i]);
        const cpu_product *p = k ? cpu_int8_product(k) : NULL;
        if (p && p != last) check(p);
        if (!p) print_message("%s: no product in 8-bit integers of this processor\n", names[i]);
        last = p;
    }
}

static void test_linear(void **state) {
    (void)state;
    each_product(linear_of);
}

/* --- Convolution by Winograd's way --- */

enum { KERNEL = 9, EDGE = 4, POSITIONS = EDGE * EDGE, TILE = 2 };

/* Lavin & Gray's matrices of F(2x2, 3x3): B^T, G, A^T. */
static const float input_matrix[EDGE][EDGE] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
static const float kernel_matrix[EDGE][3] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
static const double output_matrix[TILE][EDGE] = {{1, 1, 1, 0}, {0, 1, -1, -1}};

/* m [EDGE][inner] x [inner][inner] m^T in floats, in which each sum has two terms that are not 0 or is exact. */
static void transform(const float *m, int inner, const float *x, float out[POSITIONS]) {
    float half[POSITIONS];
    for (int i = 0; i < EDGE; i++)
        for (int j = 0; j < inner; j++) {
            float sum = m[i * inner] * x[j];
            /* as the kernels add: the outer two numbers of a kernel first */
            if (inner == 3) sum = (sum + m[i * inner + 2] * x[2 * inner + j]) + m[i * inner + 1] * x[inner + j];
            for (int k = 1; k < inner && inner != 3; k++) sum += m[i * inner + k] * x[k * inner + j];
            half[i * inner + j] = sum;
        }
    for (int i = 0; i < EDGE; i++)
        for (int j = 0; j < EDGE; j++) {
            const float *row = half + i * inner, *n = m + j * inner;
            float sum = n[0] * row[0];
            if (inner == 3) sum = (sum + n[2] * row[2]) + n[1] * row[1];
            for (int k = 1; k < inner && inner != 3; k++) sum += n[k] * row[k];
            out[i * EDGE + j] = sum;
        }
}

static float pixel(const cpu_winograd *c, int64_t n, int64_t y, int64_t x, int64_t channel) {
    return y < 0 || y >= c->h || x < 0 || x >= c->w ? 0 : c->x[((n * c->h + y) * c->w + x) * c->ic + channel];
}

/* What the convolution's products multiply: rows of V [tiles][POSITIONS][ic] and of U [oc][POSITIONS][ic]. */
static float *rows_of_tiles(const cpu_winograd *c) {
    const int64_t down = (c->h + 1) / TILE, across = (c->w + 1) / TILE, tiles = c->n * down * across;
    float *v = malloc((size_t)(tiles * POSITIONS * c->ic) * sizeof *v);
    for (int64_t i = 0; i < tiles * c->ic; i++) {
        const int64_t tile = i / c->ic, channel = i % c->ic, n = tile / (down * across);
        float d[POSITIONS], o[POSITIONS];
        for (int k = 0; k < POSITIONS; k++)
            d[k] =
                pixel(c, n, tile / across % down * TILE - 1 + k / EDGE, tile % across * TILE - 1 + k % EDGE, channel);
        transform(input_matrix[0], EDGE, d, o);
        for (int k = 0; k < POSITIONS; k++) v[(tile * POSITIONS + k) * c->ic + channel] = o[k];
    }
    return v;
}
static float *rows_of_kernels(const cpu_winograd *c, const float *w) {
    float *u = malloc((size_t)(c->oc * POSITIONS * c->ic) * sizeof *u);
    for (int64_t i = 0; i < c->oc * c->ic; i++) {
        float o[POSITIONS];
        transform(kernel_matrix[0], 3, w + i * KERNEL, o);
        for (int k = 0; k < POSITIONS; k++) u[(i / c->ic * POSITIONS + k) * c->ic + i % c->ic] = o[k];
    }
    return u;
}

/* Number i of y, without bias: in the integers' products, and from the kernel as it is. */
static int8_sum winograd_sum(const cpu_winograd *c, const float *v, const float *u, const integers *vs,
                             const integers *us, int64_t i) {
    const int64_t o = i % c->oc, x = i / c->oc % c->w, y = i / c->oc / c->w % c->h, n = i / c->oc / c->w / c->h;
    const int64_t down = (c->h + 1) / TILE, across = (c->w + 1) / TILE;
    const int64_t tile = (n * down + y / TILE) * across + x / TILE;
    int8_sum all = {0};
    double variance = 0;
    for (int k = 0; k < POSITIONS; k++) {
        const double factor = output_matrix[y % TILE][k / EDGE] * output_matrix[x % TILE][k % EDGE];
        if (factor == 0) continue;
        const int8_sum s = sum_of_integers(v, u, vs, us, tile * POSITIONS + k, o * POSITIONS + k, c->ic);
        all.want += factor * s.want;
        all.size += s.size;
        all.unsure += s.unsure;
        variance += s.deviation * s.deviation;
    }
    all.deviation = sqrt(variance);
    return all;
}

static double direct_sum(const cpu_winograd *c, const float *w, int64_t i) {
    const int64_t o = i % c->oc, x = i / c->oc % c->w, y = i / c->oc / c->w % c->h, n = i / c->oc / c->w / c->h;
    double sum = 0;
    for (int64_t k = 0; k < c->ic * KERNEL; k++)
        sum +=
            (double)pixel(c, n, y + k % KERNEL / 3 - 1, x + k % 3 - 1, k / KERNEL) * (double)w[o * c->ic * KERNEL + k];
    return sum;
}

/* As assert_int8(). */
static void assert_winograd(const char *what, const cpu_winograd *c, const float *w) {
    float *v = rows_of_tiles(c), *u = rows_of_kernels(c, w);
    const int64_t tiles = c->n * ((c->h + 1) / TILE) * ((c->w + 1) / TILE);
    integers vs = integers_of(v, tiles * POSITIONS, c->ic), us = integers_of(u, c->oc * POSITIONS, c->ic);
    for (int64_t i = 0; i < c->n * c->h * c->w * c->oc; i++) {
        const int8_sum s = winograd_sum(c, v, u, &vs, &us, i);
        const int64_t n = i / (c->h * c->w * c->oc), o = i % c->oc;
        const double bias = c->bias ? (double)c->bias[c->bias_per_picture ? n * c->oc + o : o] : 0;
        const double got = (double)c->y[i], rounding = 3e-6 * (s.size + fabs(bias)) + s.unsure;
        const double error = fabs(got - (s.want + bias)), whole_error = fabs(got - (direct_sum(c, w, i) + bias));
        if (!(error <= rounding))
            fail_msg("%s: number %lld is off by %.3g, at most %.3g (seed %llu)", what, (long long)i, error, rounding,
                     (unsigned long long)seed);
        if (!(whole_error <= 8 * s.deviation + rounding))
            fail_msg("%s: number %lld is %.3g from the exact one, at most %.3g (seed %llu)", what, (long long)i,
                     whole_error, 8 * s.deviation + rounding, (unsigned long long)seed);
    }
    integers_free(&vs), integers_free(&us);
    free(v), free(u);
}

/* c->y, the same for any number of threads. w: floats, or halves of which they are the values. */
static void run_winograd(const cpu_product *p, const cpu_winograd *c, const float *w, const uint16_t *half) {
    const int64_t count = c->n * c->h * c->w * c->oc, row = c->ic * KERNEL;
    const cpu_matrix floats = {w, (size_t)row * sizeof *w, 1, sizeof *w, NULL};
    float *kept = nans(p->winograd->kept_floats(c->oc, c->ic));
    const cpu_keep k = {
        .weight = half ? half_matrix(half, row, false) : floats, .kept = kept, .in = c->ic, .out = c->oc};
    keep_both_ways(p->winograd->keep, &k, p->winograd->kept_floats(c->oc, c->ic));
    cpu_winograd one = *c;
    one.kept = kept;
    p->winograd->convolve(&one, 0, 1);
    one.y = nans(count);
    for (int threads = 2; threads <= 7; threads += 5) {
        for (int64_t i = 0; i < count; i++) one.y[i] = NAN;
        for (int i = 0; i < threads; i++) p->winograd->convolve(&one, i, threads);
        assert_memory_equal(c->y, one.y, (size_t)count * sizeof *c->y);
    }
    free(kept), free(one.y);
}

static void check_winograd(const cpu_product *p, int64_t n, int64_t ic, int64_t oc, int64_t h, int64_t w) {
    const bool in_halves = below(2) == 1, per_picture = below(2) == 1;
    float *x = numbers(n * h * w * ic), *kernels = numbers(oc * ic * KERNEL), *bias = numbers(n * oc);
    float *y = nans(n * h * w * oc);
    uint16_t *half = halves(oc * ic * KERNEL);
    if (in_halves) half_floats(half, kernels, oc * ic * KERNEL);
    const cpu_winograd c = {.x = x,
                            .bias = below(3) > 0 ? bias : NULL,
                            .y = y,
                            .n = n,
                            .h = h,
                            .w = w,
                            .ic = ic,
                            .oc = oc,
                            .bias_per_picture = per_picture};
    run_winograd(p, &c, kernels, in_halves ? half : NULL);
    char what[96];
    snprintf(what, sizeof what, "%s Winograd n%d ic%d oc%d %dx%d", p->name, (int)n, (int)ic, (int)oc, (int)h, (int)w);
    assert_winograd(what, &c, kernels);
    free(x), free(kernels), free(bias), free(y), free(half);
}

/* A pixel that is not finite makes those near it so, in its picture. */
static void check_winograd_not_finite(const cpu_product *p) {
    enum { N = 2, IC = 70, OC = 20, SIDE = 6, AT = (SIDE + 1) * IC + 33 };
    const int64_t count = (int64_t)N * SIDE * SIDE * OC;
    float *x = numbers((int64_t)N * SIDE * SIDE * IC), *w = numbers((int64_t)OC * IC * KERNEL), *y = nans(count);
    x[AT] = NAN;
    run_winograd(p, &(cpu_winograd){.x = x, .y = y, .n = N, .h = SIDE, .w = SIDE, .ic = IC, .oc = OC}, w, NULL);
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = i / OC / SIDE, column = i / OC % SIDE;
        const bool is_near = row <= 2 && column <= 2, is_far = row > 3 || column > 3;
        if (is_near) assert_true(!isfinite(y[i]));
        if (is_far) assert_true(isfinite(y[i]));
    }
    free(x), free(w), free(y);
}

static void winograd_of(const cpu_product *p) {
    check_winograd(p, 2, 128, 96, 8, 8);
    check_winograd(p, 1, 300, 50, 5, 7);
    check_winograd(p, 1, 1, 1, 1, 1);
    check_winograd(p, 3, 70, 100, 9, 20); /* several chunks of tiles, of more than one picture */
    check_winograd(p, 1, 530, 17, 3, 4);  /* more of the depth than goes at once */
    for (int i = 0; i < 4; i++)
        check_winograd(p, 1 + below(3), 1 + below(200), 1 + below(110), 1 + below(12), 1 + below(12));
    check_winograd_not_finite(p);
}

static void test_winograd(void **state) {
    (void)state;
    each_product(winograd_of);
}

int main(void) {
    seed = (uint64_t)time(NULL);
    const char *given = getenv("MYSTI_TEST_SEED");
    if (given) seed = strtoull(given, NULL, 10);
    print_message("MYSTI_TEST_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear), cmocka_unit_test(test_winograd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
