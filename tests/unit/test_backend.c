/* The compute backend: choosing one, running graphs, stopping within one. */
#include "diffusion/model/backend.h"

#include "base/str.h"
#include "diffusion/model/nn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static backend *opened(void) {
    err e;
    backend *b = backend_open("cpu", 2, &e);
    if (!b) fail_msg("%s", e.msg);
    return b;
}

static void test_devices(void **state) {
    (void)state;
    backend_device d[16];
    const int n = backend_list(d, 16);
    assert_true(n >= 1);
    bool cpu = false;
    for (int i = 0; i < n && i < 16; i++) cpu = cpu || (str_ieq(d[i].name, "CPU") && !d[i].gpu && d[i].memory_total);
    assert_true(cpu);
}

static void test_open(void **state) {
    (void)state;
    err e;
    backend *b = opened();
    assert_true(backend_is_cpu(b));
    assert_int_equal(backend_threads(b), 2);
    backend_close(b);
    assert_non_null(b = backend_open("0", 0, &e));
    assert_true(backend_threads(b) >= 1);
    backend_close(b);
    assert_non_null(b = backend_open(NULL, 1, &e));
    backend_close(b);
    assert_null(backend_open("abacus", 1, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_non_null(strstr(e.msg, "CPU")); /* names what there is */
    assert_null(backend_open("99", 1, &e));
    backend_close(NULL);
}

enum { WIDE = 9 << 20 }; /* floats: more than a trim leaves */

/* y = x + 1 or y = silu(x) or ...: graphs with as many tensors, but other edges. */
typedef struct call {
    const float *x, *t;
    float *y;
    int kind;
} call;

static bool build(graph *g, void *ctx, err *e) {
    const call *c = ctx;
    if (c->kind == 2) {
        graph_output(g, nn_timestep_embedding(g, graph_input_f32(g, c->t, 4, 1, 1, 1), 64), c->y);
    } else if (c->kind == 1 || c->kind == 3) {
        graph_output(g, nn_silu(g, graph_input_f32(g, c->x, c->kind == 1 ? 256 : WIDE, 1, 1, 1)), c->y);
    } else {
        return err_set(e, ERR_UNSUPPORTED, "given up");
    }
    return true;
}

/* A layout made for one graph must not serve another one of the same size: there, the input of the second would be
 * overwritten by its output. */
static void test_layout_is_not_reused(void **state) {
    (void)state;
    err e;
    float x[256] = {0}, first[256], second[256];
    const float t[4] = {0, 1, 500, 999};
    backend *b = opened();
    assert_true(backend_compute(b, build, &(call){x, t, first, 2}, &e));
    backend_close(b);
    b = opened();
    assert_true(backend_compute(b, build, &(call){x, t, second, 1}, &e));
    assert_true(backend_compute(b, build, &(call){x, t, second, 2}, &e));
    assert_memory_equal(first, second, sizeof first);
    backend_close(b);
}

static void test_trim_gives_back_what_is_large(void **state) {
    (void)state;
    err e;
    float *x = calloc(WIDE, sizeof *x), *y = calloc(WIDE, sizeof *y);
    backend *b = opened();
    assert_int_equal(backend_scratch(b), 0);
    assert_true(backend_compute(b, build, &(call){.x = x, .y = y, .kind = 1}, &e));
    const size_t little = backend_scratch(b);
    assert_in_range(little, 2 * 256 * sizeof *x, 1 << 20);
    backend_trim(b);
    assert_int_equal(backend_scratch(b), little); /* no reason to make it anew */
    x[WIDE - 1] = 2;
    assert_true(backend_compute(b, build, &(call){.x = x, .y = y, .kind = 3}, &e));
    assert_true(y[WIDE - 1] > 1.76F && y[WIDE - 1] < 1.77F);
    assert_true(backend_scratch(b) >= WIDE * sizeof *x);
    backend_trim(b);
    assert_int_equal(backend_scratch(b), 0);
    assert_true(backend_compute(b, build, &(call){.x = x, .y = y, .kind = 1}, &e));
    assert_int_equal(backend_scratch(b), little);
    backend_close(b);
    free(x);
    free(y);
}

static void test_build_gives_up(void **state) {
    (void)state;
    err e;
    backend *b = opened();
    assert_false(backend_compute(b, build, &(call){.kind = 0}, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    backend_close(b);
}

/* Many operations in a row, so that there is a within. */
static bool build_long(graph *g, void *ctx, err *e) {
    (void)e;
    static float x[256];
    tensor *t = graph_input_f32(g, x, 256, 1, 1, 1);
    for (int i = 0; i < 500; i++) t = nn_silu(g, t);
    graph_output(g, t, ctx);
    return true;
}

static bool stop_at_tenth(void *ctx) {
    return ++*(int *)ctx >= 10;
}

static void test_cancel_within_a_graph(void **state) {
    (void)state;
    err e;
    int calls = 0;
    float y[256] = {7};
    backend *b = opened();
    backend_set_cancel(b, stop_at_tenth, &calls);
    assert_false(backend_compute(b, build_long, y, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    assert_true(calls >= 10 && calls < 100); /* not at the end */
    assert_true(y[0] == 7);                  /* no result */
    backend_set_cancel(b, NULL, NULL);
    assert_true(backend_compute(b, build_long, y, &e));
    assert_true(y[0] == 0);
    backend_close(b);
}

/* As a model does whose file says that it has a hundred thousand layers. */
static bool build_endless(graph *g, void *ctx, err *e) {
    (void)e;
    static float x[256];
    tensor *t = graph_input_f32(g, x, 256, 1, 1, 1);
    for (int i = 0; i < 100000 && graph_has_room(g, 1); i++) t = nn_silu(g, t);
    graph_output(g, t, ctx);
    return true;
}

static void test_too_many_operations(void **state) {
    (void)state;
    err e;
    float y[256];
    backend *b = opened();
    assert_false(backend_compute(b, build_endless, y, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_true(backend_compute(b, build_long, y, &e)); /* the next one is not affected */
    backend_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_layout_is_not_reused),
        cmocka_unit_test(test_trim_gives_back_what_is_large),
        cmocka_unit_test(test_build_gives_up),
        cmocka_unit_test(test_cancel_within_a_graph),
        cmocka_unit_test(test_too_many_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
