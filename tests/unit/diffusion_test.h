/* diffusion_test.h - what the tests of the whole engine share: opening tiny models, making pictures, comparing them. */
#ifndef MYSTI_TESTS_DIFFUSION_TEST_H
#define MYSTI_TESTS_DIFFUSION_TEST_H

#include "base/path.h"
#include "base/str.h"
#include "diffusion/diffusion.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PICTURES_MAX = 4, SKIPPED = 77 };

static const char *folder; /* of the tiny models */

/* Whether there are any, in argv[1] or where the build has them; if not, why is printed. */
static inline bool find_models(int argc, char **argv) {
    folder = argc > 1 ? argv[1] : TINY_MODELS;
    char *probe = path_join(folder, "tiny-sd1-f32.safetensors");
    const bool there = path_exists(probe);
    free(probe);
    if (!there)
        printf("SKIP: no tiny models in %s (tools/make_tiny_models.py makes them; it needs python3-numpy)\n", folder);
    return there;
}

/* What a call told, and when it is to be stopped. */
typedef struct witness {
    image pictures[PICTURES_MAX];
    uint64_t seeds[PICTURES_MAX];
    int count;
    int steps_told, steps_total, previews;
    unsigned phases;    /* bit per phase */
    int polls;          /* of should_cancel */
    int cancel_at_poll; /* 0: never */
    int cancel_at_step; /* 0: never */
} witness;

static inline void on_progress(void *ctx, const diffusion_progress *p) {
    witness *w = ctx;
    w->phases |= 1u << p->phase;
    if (p->phase != DIFFUSION_SAMPLING || p->step == 0) return;
    w->steps_told++;
    w->steps_total = p->steps;
}

static inline void on_preview(void *ctx, const diffusion_progress *p, const image *small) {
    witness *w = ctx;
    assert_int_equal(p->phase, DIFFUSION_SAMPLING);
    assert_int_equal(small->channels, 3);
    w->previews++;
}

static inline bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    witness *w = ctx;
    (void)e;
    assert_in_range(index, 0, PICTURES_MAX - 1);
    assert_true(image_copy(&w->pictures[w->count], picture));
    w->seeds[w->count++] = seed;
    return true;
}

static inline bool on_poll(void *ctx) {
    witness *w = ctx;
    w->polls++;
    if (w->cancel_at_poll && w->polls >= w->cancel_at_poll) return true;
    return w->cancel_at_step && w->steps_told >= w->cancel_at_step;
}

static inline void witness_free(witness *w) {
    for (int i = 0; i < PICTURES_MAX; i++) image_free(&w->pictures[i]);
    *w = (witness){0};
}

/* The names are of files in the models' folder. */
static inline diffusion *open_named(const diffusion_options *options, const diffusion_files *names, err *e) {
    const char *const from[] = {names->model, names->diffusion_model, names->vae, names->clip_l, names->clip_g};
    char *paths[5];
    for (int i = 0; i < 5; i++) paths[i] = from[i] ? path_join(folder, from[i]) : NULL;
    const diffusion_files files = {paths[0], paths[1], paths[2], paths[3], .clip_g = paths[4]};
    diffusion_options o = options ? *options : (diffusion_options){0};
    if (o.precision == DIFFUSION_PRECISION_AUTO) o.precision = DIFFUSION_PRECISION_F32; /* the same on any machine */
    o.threads = 1; /* threads that wait for each other waste time on graphs this small */
    diffusion *d = diffusion_open(&files, &o, NULL, e);
    for (int i = 0; i < 5; i++) free(paths[i]);
    return d;
}

static inline diffusion *open_with(const diffusion_options *options, const char *model, const char *unet,
                                   const char *clip, const char *vae, err *e) {
    return open_named(options, &(diffusion_files){.model = model, .diffusion_model = unet, .clip_l = clip, .vae = vae},
                      e);
}

static inline diffusion *open_tiny(const char *model) {
    err e = {0};
    diffusion *d = open_with(NULL, model, NULL, NULL, NULL, &e);
    if (!d) fail_msg("%s", e.msg);
    return d;
}

static inline diffusion_params small_params(void) {
    diffusion_params p;
    diffusion_params_init(&p);
    p.prompt = "a (red:1.3) fox in the snow";
    p.negative = "blurry";
    p.width = p.height = 64;
    p.steps = 4;
    p.seed = 7;
    return p;
}

static inline bool generate(diffusion *d, const diffusion_params *p, witness *w, diffusion_result *result, err *e) {
    const diffusion_events events = {
        .ctx = w, .progress = on_progress, .preview = on_preview, .picture = on_picture, .should_cancel = on_poll};
    return diffusion_generate(d, p, &events, result, e);
}

static inline void must_generate(diffusion *d, const diffusion_params *p, witness *w) {
    err e = {0};
    if (!generate(d, p, w, NULL, &e)) fail_msg("%s", e.msg);
}

static inline image picture_of(diffusion *d, const diffusion_params *p) {
    witness w = {0};
    must_generate(d, p, &w);
    assert_int_equal(w.count, 1);
    return w.pictures[0];
}

/* Peak signal to noise in dB; identical pictures give infinity. */
static inline double psnr(const image *a, const image *b) {
    assert_int_equal(image_bytes(a), image_bytes(b));
    double sum = 0;
    for (size_t i = 0; i < image_bytes(a); i++) {
        double off = (double)a->px[i] - (double)b->px[i];
        sum += off * off;
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)image_bytes(a) / sum) : INFINITY;
}

static inline bool same(const image *a, const image *b) {
    return image_bytes(a) == image_bytes(b) && memcmp(a->px, b->px, image_bytes(a)) == 0;
}

/* A picture that is no constant: what comparisons of pictures rest on. */
static inline void assert_lively(const image *img) {
    int low = 255, high = 0;
    for (size_t i = 0; i < image_bytes(img); i++) {
        if (img->px[i] < low) low = img->px[i];
        if (img->px[i] > high) high = img->px[i];
    }
    assert_true(high - low > 30);
}

static inline image test_card(int width, int height) {
    image img;
    assert_true(image_alloc(&img, width, height, 3));
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            unsigned char *px = img.px + 3 * (y * width + x);
            px[0] = (unsigned char)(x * 255 / width);
            px[1] = (unsigned char)(y * 255 / height);
            px[2] = (x / 16 + y / 16) % 2 ? 200 : 40;
        }
    }
    return img;
}

/* Its weights come with its first use. */
static inline diffusion *open_deferred(const char *name, size_t memory_limit) {
    err e = {0};
    const diffusion_options options = {.is_deferred = true, .memory_limit = memory_limit};
    diffusion *d = open_with(&options, name, NULL, NULL, NULL, &e);
    if (!d) fail_msg("%s", e.msg);
    return d;
}

/* Stopped after so many steps in all, and taken up with models opened anew. refiner: NULL without one. */
static inline void resumes(const char *model, const char *refiner, diffusion_params *p, int stop, int picture,
                           int step) {
    char *path = str_fmt("/tmp/mysti-resume-%d", (int)getpid());
    diffusion *d = open_tiny(model), *f = refiner ? open_deferred(refiner, 0) : NULL;
    witness whole = {0}, first = {.cancel_at_step = stop}, second = {0};
    diffusion_result result;
    err e = {0};
    p->refiner.model = f;
    must_generate(d, p, &whole);
    p->checkpoint = path;
    p->checkpoint_ms = 0;
    assert_false(generate(d, p, &first, NULL, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    diffusion_close(f);
    diffusion_close(d);
    d = open_tiny(model);
    p->refiner.model = f = refiner ? open_deferred(refiner, 0) : NULL;
    if (!generate(d, p, &second, &result, &e)) fail_msg("%s", e.msg);
    assert_int_equal(result.resumed_picture, picture);
    assert_int_equal(result.resumed_step, step);
    assert_true(same(&second.pictures[second.count - 1], &whole.pictures[whole.count - 1]));
    assert_false(path_exists(path));
    p->checkpoint = NULL;
    p->refiner.model = NULL;
    witness_free(&whole);
    witness_free(&first);
    witness_free(&second);
    diffusion_close(f);
    diffusion_close(d);
    free(path);
}

#endif
