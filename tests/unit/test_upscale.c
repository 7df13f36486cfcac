/* Enlarging: factors and sizes, tiles, what is refused, and work that was broken off. The networks' numbers are
 * compared with PyTorch by tools/ref/upscale.py. */
#include "diffusion/diffusion.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/model_kind.h"
#include "upscaler_bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* ---- helpers ---------------------------------------------------------------------------------------------------- */

static diffusion_upscaler *open_file(const char *path) {
    err e = {0};
    const diffusion_options options = {.device = "cpu", .threads = 1};
    diffusion_upscaler *u = diffusion_upscaler_open(path, &options, &e);
    if (!u) fail_msg("%s", e.msg);
    return u;
}

static image picture_of(int width, int height) {
    image img = {0};
    assert_true(image_alloc(&img, width, height, 3));
    for (size_t i = 0; i < image_bytes(&img); i++) img.px[i] = (unsigned char)((next_number() + 1) * 127);
    return img;
}

/* Each pixel n x n times. */
static void check_repeated(const image *small, const image *large, int n) {
    assert_int_equal(large->width, small->width * n);
    assert_int_equal(large->height, small->height * n);
    for (int y = 0; y < large->height; y++)
        for (int x = 0; x < large->width; x++)
            assert_memory_equal(large->px + 3 * (y * large->width + x), small->px + 3 * (y / n * small->width + x / n),
                                3);
}

typedef struct witness {
    int polls, cancel_at_step, step, steps;
} witness;

static void on_progress(void *ctx, const diffusion_progress *p) {
    witness *w = ctx;
    assert_int_equal(p->phase, DIFFUSION_UPSCALING);
    assert_true(p->step == w->step || p->step == w->step + 1);
    w->step = p->step;
    w->steps = p->steps;
}

static bool on_poll(void *ctx) {
    witness *w = ctx;
    w->polls++;
    return w->cancel_at_step && w->step >= w->cancel_at_step;
}

static diffusion_events watch(witness *w) {
    return (diffusion_events){.ctx = w, .progress = on_progress, .should_cancel = on_poll};
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void factors(void **state) {
    (void)state;
    char *path = compact_file(0);
    diffusion_upscaler *u = open_file(path);
    image in = picture_of(21, 13), out = {0};
    err e = {0};
    assert_int_equal(diffusion_upscaler_scale(u), 2);
    static const float FACTORS[] = {0, 2, 4, 8};
    for (size_t i = 0; i < sizeof FACTORS / sizeof *FACTORS; i++) {
        const diffusion_upscale_params p = {.picture = &in, .factor = FACTORS[i]};
        assert_true(diffusion_upscale(u, &p, NULL, &out, &e));
        check_repeated(&in, &out, FACTORS[i] > 0 ? (int)FACTORS[i] : 2);
        image_free(&out);
    }
    const diffusion_upscale_params odd = {.picture = &in, .factor = 2.5f}, same = {.picture = &in, .factor = 1};
    assert_true(diffusion_upscale(u, &odd, NULL, &out, &e));
    assert_true(out.width == 52 && out.height == 32); /* 52.5 and 32.5, to the even number */
    image_free(&out);
    assert_true(diffusion_upscale(u, &same, NULL, &out, &e));
    assert_true(out.width == 21 && out.height == 13);
    image_free(&out);
    const diffusion_upscale_params sized = {.picture = &in, .width = 63, .height = 40};
    assert_true(diffusion_upscale(u, &sized, NULL, &out, &e));
    assert_true(out.width == 63 && out.height == 40);
    image_free(&out);
    image_free(&in);
    diffusion_upscaler_close(u);
    remove_temp(path);
}

static void transparent_pictures(void **state) {
    (void)state;
    char *path = compact_file(0);
    diffusion_upscaler *u = open_file(path);
    image in = {0}, out = {0};
    err e = {0};
    assert_true(image_alloc(&in, 3, 2, 4)); /* all transparent */
    assert_true(diffusion_upscale(u, &(diffusion_upscale_params){.picture = &in}, NULL, &out, &e));
    assert_int_equal(out.channels, 3);
    for (size_t i = 0; i < image_bytes(&out); i++) assert_int_equal(out.px[i], 255);
    image_free(&in);
    image_free(&out);
    diffusion_upscaler_close(u);
    remove_temp(path);
}

static void tiles_meet(void **state) {
    (void)state;
    char *path = compact_file(0.1f);
    diffusion_upscaler *u = open_file(path);
    image in = picture_of(131, 77), whole = {0}, tiled = {0};
    err e = {0};
    witness w = {0};
    const diffusion_events events = watch(&w);
    assert_true(diffusion_upscale(u, &(diffusion_upscale_params){.picture = &in, .tile = 192}, NULL, &whole, &e));
    assert_true(diffusion_upscale(u, &(diffusion_upscale_params){.picture = &in, .tile = 48}, &events, &tiled, &e));
    assert_int_equal(w.steps, 4 * 2);
    assert_int_equal(w.step, w.steps);
    for (size_t i = 0; i < image_bytes(&whole); i++) assert_in_range(tiled.px[i] + 1 - whole.px[i], 0, 2);
    image_free(&in);
    image_free(&whole);
    image_free(&tiled);
    diffusion_upscaler_close(u);
    remove_temp(path);
}

static void cut_off(const char *path, long by) {
    buf b;
    buf_init(&b, 64 << 20);
    assert_true(file_read(path, &b, NULL));
    assert_true(file_write_atomic(path, b.data, b.len - (size_t)by, NULL));
    buf_free(&b);
}

/* Stopped after some tiles, also with a tile that was only half written, it goes on and gives the same. */
static void broken_off_work(void **state) {
    (void)state;
    char *path = compact_file(0.1f), *log = str_fmt("%s.log", path);
    diffusion_upscaler *u = open_file(path);
    image in = picture_of(131, 77), want = {0}, got = {0};
    err e = {0};
    diffusion_upscale_params p = {.picture = &in, .factor = 3, .tile = 48};
    witness all = {0}, first = {.cancel_at_step = 3}, second = {.cancel_at_step = 5}, last = {0};
    diffusion_events events = watch(&all);
    assert_true(diffusion_upscale(u, &p, &events, &want, &e));
    p.checkpoint = log;
    assert_true(file_write_atomic(log, "another's work, which is replaced", 33, &e));
    events = watch(&first);
    assert_false(diffusion_upscale(u, &p, &events, &got, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    assert_null(got.px);
    assert_true(path_exists(log));
    cut_off(log, 100); /* the third is not whole */
    events = watch(&second);
    assert_false(diffusion_upscale(u, &p, &events, &got, &e));
    events = watch(&last);
    assert_true(diffusion_upscale(u, &p, &events, &got, &e));
    assert_memory_equal(want.px, got.px, image_bytes(&want));
    assert_true(last.polls < all.polls); /* five tiles were not computed again */
    assert_int_equal(last.steps, all.steps);
    assert_false(path_exists(log));
    image_free(&in);
    image_free(&want);
    image_free(&got);
    diffusion_upscaler_close(u);
    free(log);
    remove_temp(path);
}

static void refused(diffusion_upscaler *u, const diffusion_upscale_params *p, int code, const char *text) {
    err e = {0};
    image out;
    assert_false(diffusion_upscale(u, p, NULL, &out, &e));
    assert_int_equal(e.code, code);
    if (!strstr(e.msg, text)) fail_msg("'%s' does not say '%s'", e.msg, text);
}

static void refusals(void **state) {
    (void)state;
    char *path = compact_file(0);
    diffusion_upscaler *u = open_file(path);
    image in = picture_of(8, 8), wide = {0}, none = {0};
    err e = {0};
    assert_true(image_alloc(&wide, 5000, 4, 3));
    refused(u, &(diffusion_upscale_params){.picture = &in, .factor = 9}, ERR_INVALID,
            "factor: 9 is not between 1 and 8");
    refused(u, &(diffusion_upscale_params){.picture = &in, .factor = 0.5f}, ERR_INVALID, "factor: 0.5");
    refused(u, &(diffusion_upscale_params){.picture = &in, .factor = NAN}, ERR_INVALID, "factor: ");
    refused(u, &(diffusion_upscale_params){.picture = &in, .tile = 8}, ERR_INVALID,
            "tile: 8 is not between 48 and 192");
    refused(u, &(diffusion_upscale_params){.picture = &none}, ERR_INVALID, "image: empty");
    refused(u, &(diffusion_upscale_params){.picture = &wide, .factor = 4}, ERR_TOO_LARGE, "5000x4 becomes 20000x16");
    image_free(&wide);
    image_free(&in);
    diffusion_upscaler_close(u);
    remove_temp(path);

    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    add_numbers(&s, "some.weight", "8,8", 64, 1);
    st_finish(&s, &b);
    path = write_temp(&b);
    assert_null(diffusion_upscaler_open(path, NULL, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "no upscaler that is known"));
    remove_temp(path);
    assert_null(diffusion_upscaler_open("/nowhere.pth", NULL, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    buf_free(&b);
}

static void told_from_tensors(void **state) {
    (void)state;
    char *path = compact_file(0);
    model_desc d;
    err e = {0};
    assert_true(model_describe_path(path, &d, &e));
    assert_int_equal(d.kind, MODEL_UPSCALER);
    assert_string_equal(d.family, "compact-x2");
    assert_true(d.supported);
    remove_temp(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors),    cmocka_unit_test(transparent_pictures),
        cmocka_unit_test(tiles_meet), cmocka_unit_test(broken_off_work),
        cmocka_unit_test(refusals),   cmocka_unit_test(told_from_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
