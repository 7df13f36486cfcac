/* Weights that are kept in the order in which products read them: convolutions, which go through them, by Winograd's
 * way where a picture is not small, and linear layers, beside ggml's own operations; and that they are made anew when
 * the weights change, or another size of picture wants another order. */
#include "diffusion/load/weights.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/nn.h"
#include "model_bytes.h"

#include <ggml-cpu.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#define UNET "model.diffusion_model."

/* MANY_ROWS: enough for two threads to do a product and the gate behind it together. */
enum {
    IN = 128,
    OUT = 80,
    ROWS = 40,
    PICTURES = 2,
    SIDE = 8,
    WIDTH = 9,
    HEIGHT = 7,
    WIDE = 13,
    HIGH = 11,
    MANY_ROWS = 520
};
enum { CONV, SMALLER, LARGER, LARGER_ODD, NORMED, ONE, ROW_WISE, GATED, BEHIND_GATE, TILES, TILES_NORMED, CASES };
enum { MOST = MANY_ROWS * OUT };

static uint64_t seed;

static float number(void) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (float)(int32_t)(seed >> 32) / 2147483648.0f;
}

typedef struct fixture {
    char *path;
    weights *w;
    struct ggml_tensor *weight[CASES], *norm_weight, *norm_bias;
    float x[MANY_ROWS * IN], add[MOST], bias[PICTURES * OUT];
} fixture;

static void put(st_builder *s, const char *name, const char *dims, int64_t n, float scale, float middle) {
    uint16_t *h = malloc((size_t)n * sizeof *h);
    for (int64_t i = 0; i < n; i++) h[i] = ggml_fp32_to_fp16(middle + scale * number());
    st_add(s, name, "F16", dims, h, (size_t)n * sizeof *h);
    free(h);
}

static const struct {
    const char *name, *dims; /* PyTorch's */
    int64_t side, in, out;   /* side: of a kernel; 0: a matrix */
} cases[CASES] = {
    [CONV] = {UNET "a.weight", "80,128,3,3", 3, IN, OUT},
    [SMALLER] = {UNET "b.weight", "80,128,3,3", 3, IN, OUT},
    [LARGER] = {UNET "c.weight", "80,128,3,3", 3, IN, OUT},
    [LARGER_ODD] = {UNET "d.weight", "80,128,3,3", 3, IN, OUT},
    [NORMED] = {UNET "e.weight", "80,128,3,3", 3, IN, OUT},
    [ONE] = {UNET "f.weight", "80,128,1,1", 1, IN, OUT},
    [ROW_WISE] = {UNET "g.weight", "80,128", 0, IN, OUT},
    [GATED] = {UNET "h.weight", "160,128", 0, IN, 2 * OUT},
    [BEHIND_GATE] = {UNET "i.weight", "80,80", 0, OUT, OUT},
    [TILES] = {UNET "j.weight", "80,128,3,3", 3, IN, OUT},
    [TILES_NORMED] = {UNET "k.weight", "80,128,3,3", 3, IN, OUT},
};

static void open_fixture(fixture *f) {
    st_builder s;
    buf b;
    err e = {0};
    buf_init(&b, 16 << 20);
    st_init(&s);
    for (int i = 0; i < CASES; i++) {
        const int64_t taps = cases[i].side ? cases[i].side * cases[i].side : 1;
        put(&s, cases[i].name, cases[i].dims, cases[i].out * cases[i].in * taps, 0.2f, 0);
    }
    put(&s, UNET "n.weight", "128", IN, 0.5f, 1);
    put(&s, UNET "n.bias", "128", IN, 0.5f, 0);
    st_finish(&s, &b);
    f->path = write_temp(&b);
    buf_free(&b);
    f->w = weights_open(&(weights_files){.model = f->path}, &e);
    assert_non_null(f->w);
    for (int i = 0; i < CASES; i++) {
        const char *name = cases[i].name;
        const int64_t side = cases[i].side, in = cases[i].in, out = cases[i].out;
        f->weight[i] = side ? weights_tensor(f->w, &e, WEIGHTS_CONV, name, side, side, in, out)
                            : weights_tensor(f->w, &e, WEIGHTS_MATRIX, name, in, out);
        assert_non_null(f->weight[i]);
    }
    f->norm_weight = weights_tensor(f->w, &e, WEIGHTS_VECTOR, UNET "n.weight", IN);
    f->norm_bias = weights_tensor(f->w, &e, WEIGHTS_VECTOR, UNET "n.bias", IN);
    for (size_t i = 0; i < sizeof f->x / sizeof *f->x; i++) f->x[i] = 2 * number();
    for (size_t i = 0; i < MOST; i++) f->add[i] = number();
    for (size_t i = 0; i < PICTURES * OUT; i++) f->bias[i] = number();
}

static void close_fixture(fixture *f) {
    weights_close(f->w);
    remove_temp(f->path);
}

typedef struct outputs {
    const fixture *f;
    float y[CASES][MOST];
    int64_t count[CASES];
} outputs;

/* Biases: of each picture, or the first picture's for all. */
static bool build(graph *g, void *ctx, err *e) {
    (void)e;
    outputs *o = ctx;
    const fixture *f = o->f;
    tensor *x = graph_input_f32(g, f->x, SIDE, SIDE, IN, PICTURES), *small = graph_input_f32(g, f->x, 4, 4, IN, 2);
    tensor *odd = graph_input_f32(g, f->x, WIDTH, HEIGHT, IN, PICTURES);
    tensor *large = graph_input_f32(g, f->x, WIDE, HIGH, IN, PICTURES);
    tensor *rows = graph_input_f32(g, f->x, IN, ROWS, 1, 1);
    tensor *many = graph_input_f32(g, f->x, IN, MANY_ROWS, 1, 1);
    tensor *gate_bias = graph_input_f32(g, f->bias, 2 * OUT, 1, 1, 1);
    tensor *gated = nn_linear_geglu(g, many, &(layer){f->weight[GATED], gate_bias});
    tensor *bias = graph_input_f32(g, f->bias, OUT, 1, 1, 1),
           *biases = graph_input_f32(g, f->bias, OUT, PICTURES, 1, 1);
    tensor *add = graph_input_f32(g, f->add, SIDE, SIDE, OUT, PICTURES);
    tensor *add_large = graph_input_f32(g, f->add, WIDE, HIGH, OUT, PICTURES);
    tensor *more = graph_input_f32(g, f->add, OUT, ROWS, 1, 1);
    const layer norm = {f->norm_weight, f->norm_bias};
    tensor *y[CASES] = {
        [CONV] = nn_conv2d_same(g, x, &(layer){f->weight[CONV], biases}),
        [SMALLER] = nn_conv2d(g, x, &(layer){f->weight[SMALLER], bias}, 2, 1),
        [LARGER] = nn_conv2d_doubled(g, small, &(layer){f->weight[LARGER], bias}),
        [LARGER_ODD] = nn_conv2d_doubled(g, odd, &(layer){f->weight[LARGER_ODD], biases}),
        [NORMED] = nn_norm_conv2d_same(g, x, &norm, 1e-5f, &(layer){f->weight[NORMED], biases}, add),
        [ONE] = nn_conv2d(g, x, &(layer){f->weight[ONE], NULL}, 1, 0),
        [ROW_WISE] = nn_linear_add(g, rows, &(layer){f->weight[ROW_WISE], bias}, more),
        [GATED] = gated,
        [BEHIND_GATE] = nn_linear(g, gated, &(layer){f->weight[BEHIND_GATE], bias}),
        [TILES] = nn_conv2d_same(g, large, &(layer){f->weight[TILES], bias}),
        [TILES_NORMED] =
            nn_norm_conv2d_same(g, large, &norm, 1e-5f, &(layer){f->weight[TILES_NORMED], biases}, add_large),
    };
    for (int i = 0; i < CASES; i++) {
        o->count[i] = ggml_nelements(y[i]);
        assert_true(o->count[i] <= MOST);
        graph_output(g, y[i], o->y[i]);
    }
    return true;
}

/* The weights of CONV with a picture that is not small; only that result is there. */
static bool build_large(graph *g, void *ctx, err *e) {
    (void)e;
    outputs *o = ctx;
    tensor *x = graph_input_f32(g, o->f->x, WIDE, HIGH, IN, PICTURES);
    tensor *y = nn_conv2d_same(g, x, &(layer){o->f->weight[CONV], NULL});
    o->count[CONV] = ggml_nelements(y);
    graph_output(g, y, o->y[CONV]);
    return true;
}

static outputs *compute_with(const fixture *f, backend *b, bool (*build_graph)(graph *g, void *ctx, err *e)) {
    outputs *o = calloc(1, sizeof *o);
    err e = {0};
    o->f = f;
    if (!backend_compute(b, build_graph, o, &e)) fail_msg("%s", e.msg);
    return o;
}

static outputs *compute(const fixture *f, backend *b) {
    return compute_with(f, b, build);
}

/* Two roundings to 1/127 of the largest of 128 numbers: about a hundredth of the root mean square at most. Behind the
 * gate there are four; Winograd's transforms add up what was rounded. */
static double most_error(int i) {
    return i == BEHIND_GATE || i == TILES || i == TILES_NORMED ? 2.4e-2 : 1.2e-2;
}

static void assert_close_within(const outputs *got, const outputs *want, int i, double most) {
    double error = 0, all = 0;
    for (int64_t k = 0; k < want->count[i]; k++) {
        const double d = (double)got->y[i][k] - (double)want->y[i][k];
        error += d * d;
        all += (double)want->y[i][k] * (double)want->y[i][k];
    }
    const double relative = sqrt(error / all);
    print_message("case %d: %.2g\n", i, relative);
    assert_true(relative < most);
    assert_true(relative > 1e-4); /* it was computed in int8 */
}

static void assert_close(const outputs *got, const outputs *want) {
    for (int i = 0; i < CASES; i++) assert_close_within(got, want, i, most_error(i));
}

static void assert_same(const outputs *a, const outputs *b) {
    for (int i = 0; i < CASES; i++) assert_memory_equal(a->y[i], b->y[i], (size_t)a->count[i] * sizeof(float));
}

static const weights_kept *kept(const fixture *f, int i) {
    return f->weight[i]->extra;
}

/* A weight whose order changes with the picture's size, and back. */
static void check_other_order(const fixture *f, backend *b, backend *plain, const outputs *first) {
    const int form = kept(f, CONV)->form;
    outputs *want = compute_with(f, plain, build_large), *large = compute_with(f, b, build_large);
    assert_int_not_equal(kept(f, CONV)->form, form);
    assert_close_within(large, want, CONV, most_error(TILES));
    outputs *again = compute(f, b);
    assert_int_equal(kept(f, CONV)->form, form);
    assert_same(again, first);
    free(want), free(large), free(again);
}

static void test_kept(void **state) {
    (void)state;
    err e = {0};
    static fixture f;
    open_fixture(&f);
    backend *b = backend_open("cpu", 2, &e), *plain = backend_open("cpu", 2, &e);
    backend_forbid_custom_ops(plain);
    if (!backend_set_precision(b, CPU_INT8)) {
        print_message("this processor does not multiply 8-bit integers faster: nothing is kept\n");
        skip();
    }
    assert_true(weights_commit(f.w, "", backend_handle(b), NULL, NULL, &e));
    outputs *want = compute(&f, plain), *first = compute(&f, b), *again = compute(&f, b);
    assert_close(first, want);
    assert_same(first, again);
    for (int i = 0; i < CASES; i++) assert_true(kept(&f, i) && kept(&f, i)->is_done);
    check_other_order(&f, b, plain, first);

    float *values = calloc(2 * OUT * IN * 9, sizeof *values);
    for (int i = 0; i < CASES; i++) {
        weights_read(f.w, cases[i].name, values);
        for (int64_t k = 0; k < ggml_nelements(f.weight[i]); k++) values[k] = -values[k] / 2;
        assert_true(weights_change(f.w, cases[i].name, values, &e));
        assert_null(kept(&f, i)->data);
    }
    outputs *changed_want = compute(&f, plain), *changed = compute(&f, b), *changed_again = compute(&f, b);
    assert_close(changed, changed_want);
    assert_same(changed, changed_again);

    for (int i = 0; i < CASES; i++) weights_restore(f.w, cases[i].name);
    outputs *restored = compute(&f, b);
    assert_same(restored, first);
    weights_evict(f.w);
    assert_true(weights_commit(f.w, "", backend_handle(b), NULL, NULL, &e));
    outputs *back = compute(&f, b);
    assert_same(back, first);
    outputs *all[] = {want, first, again, changed_want, changed, changed_again, restored, back};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(values);
    backend_close(b);
    backend_close(plain);
    close_fixture(&f);
}

int main(void) {
    seed = (uint64_t)time(NULL);
    const char *given = getenv("MYSTI_TEST_SEED");
    if (given) seed = strtoull(given, NULL, 10);
    print_message("MYSTI_TEST_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
