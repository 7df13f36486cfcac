/* Tiles: they cover every picture, and what no tile changes comes out as it went in. */
#include "diffusion/model/tiles.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Doubles the size by repeating pixels; counts its calls. */
static bool enlarge(void *ctx, const planes *in, planes *out, err *e) {
    (void)e;
    ++*(int *)ctx;
    for (int c = 0; c < out->c; c++)
        for (int y = 0; y < out->h; y++)
            for (int x = 0; x < out->w; x++)
                out->data[(c * out->h + y) * out->w + x] = in->data[(c * in->h + y / 2) * in->w + x / 2];
    return true;
}

static void check_size(int w, int h, int size, int overlap) {
    int calls = 0;
    planes in = planes_new(2, h, w), out = planes_new(2, 2 * h, 2 * w);
    for (size_t i = 0; i < planes_size(&in); i++) in.data[i] = (float)(i % 101);
    const tiles t = {&in, &out, 1, 2, size, overlap};
    err e;
    assert_true(tiles_run(&t, enlarge, &calls, NULL, NULL, &e));
    assert_int_equal(calls, tiles_count(&t));
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < 2 * h; y++)
            for (int x = 0; x < 2 * w; x++) {
                const float got = out.data[(c * out.h + y) * out.w + x], want = in.data[(c * h + y / 2) * w + x / 2];
                if (!(fabsf(got - want) < 1e-3f))
                    fail_msg("%dx%d, tile %d: (%d,%d) is %g", w, h, size, x, y, (double)got);
            }
    planes_free(&in);
    planes_free(&out);
}

static void test_every_size_is_covered(void **state) {
    (void)state;
    for (int w = 1; w < 40; w++) check_size(w, 41 - w, 8, 2);
    check_size(9, 3, 4, 2);
    check_size(16, 16, 8, 0);
    check_size(17, 5, 8, 4);
}

/* A tile that is wrong at its edges: the neighbour has to hide it. */
static bool spoil_edges(void *ctx, const planes *in, planes *out, err *e) {
    (void)ctx, (void)e;
    memcpy(out->data, in->data, planes_size(in) * sizeof(float));
    out->data[out->w - 1] += 100;
    return true;
}

static void test_seams_fade(void **state) {
    (void)state;
    planes in = planes_new(1, 1, 12), out = planes_new(1, 1, 12);
    const tiles t = {&in, &out, 1, 1, 8, 4};
    err e;
    assert_true(tiles_run(&t, spoil_edges, NULL, NULL, NULL, &e));
    assert_true(out.data[7] > 5 && out.data[7] < 20); /* an eighth of 100, not 100 */
    assert_true(out.data[11] == 100);                 /* the picture's own edge */
    planes_free(&in);
    planes_free(&out);
}

static bool fail_second(void *ctx, const planes *in, planes *out, err *e) {
    (void)in, (void)out;
    return ++*(int *)ctx < 2 || err_set(e, ERR_MEMORY, "no room");
}

static void count_progress(void *ctx, int done, int count) {
    int *last = ctx;
    assert_int_equal(done, *last + 1);
    assert_true(done <= count);
    *last = done;
}

static void test_failure_ends_the_run(void **state) {
    (void)state;
    int calls = 0, last = 0;
    planes in = planes_new(1, 30, 30), out = planes_new(1, 30, 30);
    const tiles t = {&in, &out, 1, 1, 8, 2};
    err e;
    assert_false(tiles_run(&t, fail_second, &calls, count_progress, &last, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_int_equal(calls, 2);
    assert_int_equal(last, 1);
    planes_free(&in);
    planes_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size_is_covered),
        cmocka_unit_test(test_seams_fade),
        cmocka_unit_test(test_failure_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
