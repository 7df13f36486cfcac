/* Checkpoints: what comes back is what was saved, and anything that does not fit is refused. Previews: known colours.
 */
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "diffusion/checkpoint.h"
#include "diffusion/preview.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 24, KEEPS = 2 };

static char *path;
static const checkpoint_scope scope = {.key = 77, .pictures = 3, .steps = 10};

static int make_path(void **state) {
    (void)state;
    path = str_fmt("/tmp/mysti-checkpoint-%d", (int)getpid());
    return 0;
}

static int drop_path(void **state) {
    (void)state;
    checkpoint_remove(path);
    free(path);
    return 0;
}

static void fill(sampler_state *s) {
    sampler_state_init(s, N, KEEPS);
    for (int i = 0; i < N; i++) {
        s->x[i] = 0.5f * (float)i;
        s->past[0][i] = -0.25f * (float)i;
        s->past[1][i] = 1.0f + (float)i;
    }
    s->step = 4;
    s->call = 5;
}

static void round_trip(void **state) {
    (void)state;
    sampler_state a, b;
    int picture = 0;
    err why = {0};
    fill(&a);
    sampler_state_init(&b, N, KEEPS);
    assert_true(checkpoint_save(path, &scope, 2, &a, NULL));
    assert_true(checkpoint_load(path, &scope, &picture, &b, &why));
    assert_int_equal(picture, 2);
    assert_int_equal(b.step, 4);
    assert_int_equal(b.call, 5);
    assert_memory_equal(a.x, b.x, N * sizeof(float));
    for (int k = 0; k < KEEPS; k++) assert_memory_equal(a.past[k], b.past[k], N * sizeof(float));
    checkpoint_remove(path);
    assert_false(checkpoint_load(path, &scope, &picture, &b, &why));
    assert_int_equal(why.code, ERR_NOT_FOUND);
    sampler_state_free(&a);
    sampler_state_free(&b);
}

/* Whatever is wrong is said, and is not that there is none. */
static bool loads_with(const checkpoint_scope *with, size_t n, int keeps) {
    sampler_state s;
    int picture;
    err why = {0};
    sampler_state_init(&s, n, keeps);
    bool ok = checkpoint_load(path, with, &picture, &s, &why);
    if (!ok) {
        assert_int_equal(s.step, 0);
        assert_true(why.msg[0] && why.code && why.code != ERR_NOT_FOUND);
    }
    sampler_state_free(&s);
    return ok;
}

static bool loads(const checkpoint_scope *with, size_t n) {
    return loads_with(with, n, KEEPS);
}

static void other_work_is_refused(void **state) {
    (void)state;
    sampler_state s;
    fill(&s);
    assert_true(checkpoint_save(path, &scope, 2, &s, NULL));
    sampler_state_free(&s);
    assert_true(loads(&scope, N));
    assert_false(loads(&scope, N + 1));
    assert_false(loads_with(&scope, N, KEEPS - 1));
    assert_false(loads_with(&scope, N, KEEPS + 1));
    assert_false(loads(&(checkpoint_scope){.key = 78, .pictures = 3, .steps = 10}, N));
    assert_false(loads(&(checkpoint_scope){.key = 77, .pictures = 2, .steps = 10}, N));
    assert_false(loads(&(checkpoint_scope){.key = 77, .pictures = 3, .steps = 3}, N));
}

/* Every single changed byte, and every truncation. */
static void damage_is_noticed(void **state) {
    (void)state;
    sampler_state s;
    fill(&s);
    assert_true(checkpoint_save(path, &scope, 0, &s, NULL));
    sampler_state_free(&s);
    buf b;
    buf_init(&b, 4096);
    assert_true(file_read(path, &b, NULL));
    for (size_t i = 0; i < b.len; i++) {
        b.data[i] ^= 0x10;
        assert_true(file_write_atomic(path, b.data, b.len, NULL));
        assert_false(loads(&scope, N));
        b.data[i] ^= 0x10;
    }
    for (size_t len = 0; len < b.len; len += 7) {
        assert_true(file_write_atomic(path, b.data, len, NULL));
        assert_false(loads(&scope, N));
    }
    buf_free(&b);
}

static void preview_colours(void **state) {
    (void)state;
    /* Two latents: zero, and 1 in the second channel only. */
    float data[8] = {0, 0, 0, 1, 0, 0, 0, 0};
    latent z = {.n = 1, .c = 4, .h = 1, .w = 2, .data = data};
    image img;
    assert_true(preview_render(&z, &img));
    assert_int_equal(img.width, 2);
    assert_int_equal(img.px[0], 128);
    assert_int_equal(img.px[3], 151); /* 1.187 * 127.5 */
    assert_int_equal(img.px[4], 164);
    image_free(&img);
    z.c = 16;
    z.w = 0;
    assert_false(preview_render(&z, &img));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(other_work_is_refused),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(preview_colours),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
