/* The image engine as its users see it, over tiny models that have the topology of Stable Diffusion 1.x. */
#include "base/clock.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/diffusion.h"
#include "diffusion/load/tensor_file.h"

#include "model_bytes.h"

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

/* ---- helpers ---------------------------------------------------------------------------------------------------- */

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

static void on_progress(void *ctx, const diffusion_progress *p) {
    witness *w = ctx;
    w->phases |= 1u << p->phase;
    if (p->phase != DIFFUSION_SAMPLING || p->step == 0) return;
    w->steps_told++;
    w->steps_total = p->steps;
}

static void on_preview(void *ctx, const diffusion_progress *p, const image *small) {
    witness *w = ctx;
    assert_int_equal(p->phase, DIFFUSION_SAMPLING);
    assert_int_equal(small->channels, 3);
    w->previews++;
}

static bool on_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    witness *w = ctx;
    (void)e;
    assert_in_range(index, 0, PICTURES_MAX - 1);
    assert_true(image_copy(&w->pictures[w->count], picture));
    w->seeds[w->count++] = seed;
    return true;
}

static bool on_poll(void *ctx) {
    witness *w = ctx;
    w->polls++;
    if (w->cancel_at_poll && w->polls >= w->cancel_at_poll) return true;
    return w->cancel_at_step && w->steps_told >= w->cancel_at_step;
}

static void witness_free(witness *w) {
    for (int i = 0; i < PICTURES_MAX; i++) image_free(&w->pictures[i]);
    *w = (witness){0};
}

static diffusion *open_with(const diffusion_options *options, const char *model, const char *unet, const char *clip,
                            const char *vae, err *e) {
    const char *names[] = {model, unet, clip, vae};
    char *paths[4];
    for (int i = 0; i < 4; i++) paths[i] = names[i] ? path_join(folder, names[i]) : NULL;
    const diffusion_files files = {.model = paths[0], .diffusion_model = paths[1], .clip_l = paths[2], .vae = paths[3]};
    diffusion_options o = options ? *options : (diffusion_options){0};
    o.threads = 1; /* threads that wait for each other waste time on graphs this small */
    diffusion *d = diffusion_open(&files, &o, NULL, e);
    for (int i = 0; i < 4; i++) free(paths[i]);
    return d;
}

static diffusion *open_tiny(const char *model) {
    err e = {0};
    diffusion *d = open_with(NULL, model, NULL, NULL, NULL, &e);
    if (!d) fail_msg("%s", e.msg);
    return d;
}

static diffusion_params small_params(void) {
    diffusion_params p;
    diffusion_params_init(&p);
    p.prompt = "a (red:1.3) fox in the snow";
    p.negative = "blurry";
    p.width = p.height = 64;
    p.steps = 4;
    p.seed = 7;
    return p;
}

static bool generate(diffusion *d, const diffusion_params *p, witness *w, diffusion_result *result, err *e) {
    const diffusion_events events = {
        .ctx = w, .progress = on_progress, .preview = on_preview, .picture = on_picture, .should_cancel = on_poll};
    return diffusion_generate(d, p, &events, result, e);
}

static void must_generate(diffusion *d, const diffusion_params *p, witness *w) {
    err e = {0};
    if (!generate(d, p, w, NULL, &e)) fail_msg("%s", e.msg);
}

static image picture_of(diffusion *d, const diffusion_params *p) {
    witness w = {0};
    must_generate(d, p, &w);
    assert_int_equal(w.count, 1);
    return w.pictures[0];
}

/* Peak signal to noise in dB; identical pictures give infinity. */
static double psnr(const image *a, const image *b) {
    assert_int_equal(image_bytes(a), image_bytes(b));
    double sum = 0;
    for (size_t i = 0; i < image_bytes(a); i++) {
        double off = (double)a->px[i] - (double)b->px[i];
        sum += off * off;
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)image_bytes(a) / sum) : INFINITY;
}

static bool same(const image *a, const image *b) {
    return image_bytes(a) == image_bytes(b) && memcmp(a->px, b->px, image_bytes(a)) == 0;
}

/* A picture that is no constant: what comparisons of pictures rest on. */
static void assert_lively(const image *img) {
    int low = 255, high = 0;
    for (size_t i = 0; i < image_bytes(img); i++) {
        if (img->px[i] < low) low = img->px[i];
        if (img->px[i] > high) high = img->px[i];
    }
    assert_true(high - low > 30);
}

static image test_card(int width, int height) {
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

/* ---- pictures --------------------------------------------------------------------------------------------------- */

static void same_seed_same_bytes(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors"), *again = open_tiny("tiny-sd1-f32.safetensors");
    diffusion_params p = small_params();
    image a = picture_of(d, &p), b = picture_of(again, &p);
    assert_lively(&a);
    assert_true(same(&a, &b));
    p.seed = 8;
    image c = picture_of(d, &p);
    assert_false(same(&a, &c));
    image_free(&a);
    image_free(&b);
    image_free(&c);
    diffusion_close(d);
    diffusion_close(again);
}

/* One set of weights in every layout and precision. */
static void every_layout_gives_the_same_picture(void **state) {
    (void)state;
    static const struct {
        const char *model, *unet, *clip, *vae;
        double least_psnr;
    } rows[] = {
        {"tiny-sd1-f16.safetensors", NULL, NULL, NULL, 40},
        {"tiny-sd1-bf16.safetensors", NULL, NULL, NULL, 40},
        {"tiny-sd1-diffusers", NULL, NULL, NULL, 60},
        {NULL, "tiny-sd1-unet-f16.gguf", "tiny-clip_l.safetensors", "tiny-vae.safetensors", 40},
        {"tiny-sd1-f32.safetensors", "tiny-sd1-unet-q8_0.gguf", NULL, NULL, 25},
    };
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    diffusion_params p = small_params();
    image want = picture_of(d, &p);
    diffusion_close(d);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        d = open_with(NULL, rows[i].model, rows[i].unet, rows[i].clip, rows[i].vae, &e);
        if (!d) fail_msg("%s", e.msg);
        image got = picture_of(d, &p);
        double db = psnr(&want, &got);
        print_message("%s %s: %.1f dB\n", rows[i].model ? rows[i].model : "", rows[i].unet ? rows[i].unet : "", db);
        assert_true(db >= rows[i].least_psnr);
        image_free(&got);
        diffusion_close(d);
    }
    image_free(&want);
}

static void a_batch_is_its_pictures_alone(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    witness w = {0};
    p.batch = 3;
    p.preview_every = 2;
    must_generate(d, &p, &w);
    assert_int_equal(w.count, 3);
    assert_int_equal(w.steps_told, 12);
    assert_int_equal(w.previews, 6);
    assert_int_equal(w.phases, 1u << DIFFUSION_ENCODING | 1u << DIFFUSION_SAMPLING | 1u << DIFFUSION_DECODING);
    p.batch = 1;
    for (int i = 0; i < 3; i++) {
        p.seed = 7 + (uint64_t)i;
        assert_int_equal(w.seeds[i], p.seed);
        image alone = picture_of(d, &p);
        assert_true(same(&alone, &w.pictures[i]));
        image_free(&alone);
    }
    witness_free(&w);
    diffusion_close(d);
}

static void guidance_uses_the_negative_prompt(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    image with[2][2];
    for (int k = 0; k < 2; k++) {
        p.cfg_scale = k ? 1.0f : 7.0f;
        p.negative = "blurry";
        with[k][0] = picture_of(d, &p);
        p.negative = "something (else:1.4) entirely";
        with[k][1] = picture_of(d, &p);
    }
    assert_false(same(&with[0][0], &with[0][1]));
    assert_true(same(&with[1][0], &with[1][1])); /* guidance 1 is the positive prompt alone */
    for (int k = 0; k < 4; k++) image_free(&with[k / 2][k % 2]);
    diffusion_close(d);
}

/* Prompts of different lengths (one and three chunks) go together. */
static void long_prompts(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    char text[2400] = "";
    for (int i = 0; i < 100; i++) strcat(text, "red fox, ");
    p.prompt = text;
    image a = picture_of(d, &p);
    p.clip_skip = 2;
    image b = picture_of(d, &p);
    assert_false(same(&a, &b));
    image_free(&a);
    image_free(&b);
    diffusion_close(d);
}

static void tiles_blend(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    p.width = 640; /* 80 latents: more than a tile */
    p.steps = 2;
    p.tiling = DIFFUSION_TILING_OFF;
    image whole = picture_of(d, &p);
    p.tiling = DIFFUSION_TILING_ON;
    image tiled = picture_of(d, &p);
    double db = psnr(&whole, &tiled);
    print_message("tiled against whole: %.1f dB\n", db);
    assert_true(db > 20);
    image_free(&whole);
    image_free(&tiled);
    diffusion_close(d);
}

/* Sizes that the UNet cannot halve evenly. */
static void odd_sizes(void **state) {
    (void)state;
    static const int sizes[][2] = {{72, 64}, {136, 120}, {200, 72}};
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    for (int i = 0; i < 3; i++) {
        p.width = sizes[i][0];
        p.height = sizes[i][1];
        image img = picture_of(d, &p);
        assert_int_equal(img.width, p.width);
        assert_int_equal(img.height, p.height);
        assert_lively(&img);
        image_free(&img);
    }
    diffusion_close(d);
}

/* ---- image to image --------------------------------------------------------------------------------------------- */

static void image_to_image(void **state) {
    (void)state;
    static const struct {
        float strength;
        int steps;
    } rows[] = {{0.0f, 1}, {0.5f, 6}, {1.0f, 10}};
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    diffusion_params p = small_params();
    image card = test_card(300, 200), made[3];
    p.init = &card;
    p.steps = 10;
    for (int i = 0; i < 3; i++) {
        witness w = {0};
        p.strength = rows[i].strength;
        must_generate(d, &p, &w);
        assert_int_equal(w.steps_told, rows[i].steps);
        assert_int_equal(w.steps_total, rows[i].steps);
        made[i] = w.pictures[0];
    }
    /* The less strength, the more the picture decides and the less the seed. */
    p.seed = 99;
    p.strength = 0.0f;
    image other_seed = picture_of(d, &p);
    p.strength = 1.0f;
    image other_seed_full = picture_of(d, &p);
    print_message("two seeds at strength 0: %.1f dB, at 1: %.1f dB\n", psnr(&made[0], &other_seed),
                  psnr(&made[2], &other_seed_full));
    assert_true(psnr(&made[0], &other_seed) > psnr(&made[2], &other_seed_full) + 3);
    for (int i = 0; i < 3; i++) image_free(&made[i]);
    image_free(&other_seed);
    image_free(&other_seed_full);
    image_free(&card);
    diffusion_close(d);
}

/* ---- interruption ----------------------------------------------------------------------------------------------- */

static void cancel_is_quick_and_harmless(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    image before = picture_of(d, &p);
    witness all = {0};
    must_generate(d, &p, &all);
    assert_true(all.polls > 3 * p.steps); /* also within steps */
    for (int at = 1; at < all.polls; at += all.polls / 7 + 1) {
        witness w = {.cancel_at_poll = at};
        err e = {0};
        assert_false(generate(d, &p, &w, NULL, &e));
        assert_int_equal(e.code, ERR_CANCELLED);
        assert_int_equal(w.count, 0);
        witness_free(&w);
    }
    image after = picture_of(d, &p);
    assert_true(same(&before, &after));
    witness_free(&all);
    image_free(&before);
    image_free(&after);
    diffusion_close(d);
}

static void resumed_work_is_bit_identical(void **state) {
    (void)state;
    static const char *const samplers[] = {"euler_a", "dpm++2m"};
    char *path = str_fmt("/tmp/mysti-resume-%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        diffusion_params p = small_params();
        p.sampler = samplers[i];
        p.rng = i ? "cpu" : "cuda";
        p.batch = 2;
        diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
        witness whole = {0}, first = {.cancel_at_step = 6}, second = {0}; /* in the second picture */
        diffusion_result result;
        err e = {0};
        must_generate(d, &p, &whole);
        p.checkpoint = path;
        p.checkpoint_ms = 0;
        assert_false(generate(d, &p, &first, &result, &e));
        assert_int_equal(result.pictures, 1);
        assert_true(path_exists(path));
        diffusion_close(d);
        d = open_tiny("tiny-sd1-f16.safetensors");
        assert_true(generate(d, &p, &second, &result, &e));
        assert_int_equal(result.resumed_picture, 1);
        assert_int_equal(result.resumed_step, 2);
        assert_int_equal(second.count, 1);
        assert_true(same(&second.pictures[0], &whole.pictures[1]));
        assert_false(path_exists(path));
        witness_free(&whole);
        witness_free(&first);
        witness_free(&second);
        diffusion_close(d);
    }
    free(path);
}

static void a_foreign_checkpoint_is_ignored(void **state) {
    (void)state;
    char *path = str_fmt("/tmp/mysti-foreign-%d", (int)getpid());
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    image want = picture_of(d, &p);
    witness stopped = {.cancel_at_step = 2};
    diffusion_result result;
    p.checkpoint = path;
    p.checkpoint_ms = 0;
    p.seed = 1000;
    assert_false(generate(d, &p, &stopped, NULL, NULL));
    assert_true(path_exists(path));
    p.seed = 7;
    witness w = {0};
    assert_true(generate(d, &p, &w, &result, NULL));
    assert_int_equal(result.resumed_step, 0);
    assert_true(same(&want, &w.pictures[0]));
    witness_free(&w);
    image_free(&want);
    diffusion_close(d);
    free(path);
}

/* The folder of the checkpoints comes only after some steps, as room on a full disk does. */
typedef struct late_folder {
    const char *dir, *checkpoint;
    int steps;
    bool before, after; /* a checkpoint was there */
} late_folder;

static void make_folder_late(void *ctx, const diffusion_progress *p) {
    late_folder *l = ctx;
    if (p->phase != DIFFUSION_SAMPLING || p->step == 0) return;
    if (p->step <= 2) l->before |= path_exists(l->checkpoint);
    if (p->step == 2) assert_true(path_make_dirs(l->dir, NULL));
    l->after |= path_exists(l->checkpoint);
}

static void checkpoints_are_tried_again(void **state) {
    (void)state;
    char *dir = str_fmt("/tmp/mysti-late-%d", (int)getpid()), *path = path_join(dir, "c");
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    p.checkpoint = path;
    p.checkpoint_ms = 0;
    late_folder l = {.dir = dir, .checkpoint = path};
    const diffusion_events events = {.ctx = &l, .progress = make_folder_late};
    err e = {0};
    if (!diffusion_generate(d, &p, &events, NULL, &e)) fail_msg("%s", e.msg);
    assert_true(p.steps > 3 && !l.before && l.after);
    diffusion_close(d);
    rmdir(dir);
    free(path);
    free(dir);
}

static bool refuse_picture(void *ctx, int index, uint64_t seed, const image *picture, err *e) {
    (void)ctx, (void)index, (void)seed, (void)picture;
    return err_set(e, ERR_IO, "disk full");
}

static void the_callers_failure_ends_the_call(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    const diffusion_events events = {.picture = refuse_picture};
    err e = {0};
    assert_false(diffusion_generate(d, &p, &events, NULL, &e));
    assert_string_equal(e.msg, "disk full");
    diffusion_close(d);
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

static void expect_refusal(const diffusion *d, const diffusion_params *p, const char *message) {
    err e = {0};
    assert_false(diffusion_check(d, p, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.msg, message);
}

static void parameters_are_checked_by_name(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params good = small_params(), p;
    assert_true(diffusion_check(d, &good, NULL));
#define REFUSED(field, value, message)                                                                                 \
    p = good;                                                                                                          \
    p.field = value;                                                                                                   \
    expect_refusal(d, &p, message)
    REFUSED(steps, 0, "steps: 0 is not between 1 and 200");
    REFUSED(steps, 201, "steps: 201 is not between 1 and 200");
    REFUSED(width, 100, "width: 100 is not a multiple of 8");
    REFUSED(height, 8192, "height: 8192 is not between 64 and 4096");
    REFUSED(cfg_scale, -1.0f, "cfg_scale: -1 is not between 0 and 50");
    REFUSED(cfg_scale, NAN, "cfg_scale: nan is not between 0 and 50");
    REFUSED(batch, 17, "n: 17 is not between 1 and 16");
    REFUSED(clip_skip, 0, "clip_skip: 0 is not between 1 and 12");
    REFUSED(sampler, "eulr", "sampler: unknown 'eulr' (did you mean 'euler'?)");
    REFUSED(schedule, "karas", "scheduler: unknown 'karas' (did you mean 'karras'?)");
    REFUSED(rng, "xyz", "rng: unknown 'xyz'");
    good.width = 4096;
    REFUSED(height, 3072, "height: 4096x3072 has more than 9437184 pixels");
    good.width = 64;
    image card = test_card(64, 64);
    good.init = &card;
    REFUSED(strength, 1.5f, "strength: 1.5 is not between 0 and 1");
    image_free(&card);
    diffusion_close(d);
}

static void bad_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *model, *unet, *clip, *vae;
        int code;
        const char *part; /* of the message */
    } rows[] = {
        {"missing.safetensors", NULL, NULL, NULL, ERR_NOT_FOUND, "missing.safetensors"},
        {NULL, NULL, NULL, NULL, ERR_INVALID, "model: no file given"},
        {"tiny-vae.safetensors", NULL, NULL, NULL, ERR_UNSUPPORTED, "holds no diffusion model"},
        {NULL, "tiny-sd1-unet-f16.gguf", NULL, "tiny-vae.safetensors", ERR_UNSUPPORTED, "no text encoder"},
        {NULL, "tiny-sd1-unet-f16.gguf", "tiny-clip_l.safetensors", NULL, ERR_UNSUPPORTED, "no VAE"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        assert_null(open_with(NULL, rows[i].model, rows[i].unet, rows[i].clip, rows[i].vae, &e));
        if (e.code != rows[i].code || !strstr(e.msg, rows[i].part)) fail_msg("row %zu: %d %s", i, e.code, e.msg);
    }
}

static void memory_is_checked_with_figures(void **state) {
    (void)state;
    err e = {0};
    const diffusion_options tiny = {.memory_limit = 1 << 20};
    assert_null(open_with(&tiny, "tiny-sd1-f32.safetensors", NULL, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "GB"));
    const diffusion_options some = {.memory_limit = 150 << 20};
    diffusion *d = open_with(&some, "tiny-sd1-f32.safetensors", NULL, NULL, NULL, &e);
    assert_non_null(d);
    diffusion_params p = small_params();
    diffusion_memory m;
    image ok = picture_of(d, &p);
    image_free(&ok);
    p.width = p.height = 2048;
    assert_true(diffusion_estimate(d, &p, &m, NULL));
    assert_true(m.compute > m.free && m.free == 150 << 20);
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    diffusion_close(d);
}

static void prediction_is_read_or_told(void **state) {
    (void)state;
    diffusion_info info;
    diffusion *eps = open_tiny("tiny-sd1-f16.safetensors"), *v = open_tiny("tiny-sd1-v.safetensors");
    diffusion_describe(eps, &info);
    assert_string_equal(info.prediction, "eps");
    assert_string_equal(info.family, "sd1");
    assert_string_equal(info.weight_type, "f16");
    assert_int_equal(info.default_width, 512);
    assert_true(info.parameters > 1000000 && info.weight_bytes >= 2 * info.parameters);
    diffusion_describe(v, &info);
    assert_string_equal(info.prediction, "v");
    assert_true(info.default_width == 64 && info.default_height == 96);
    const diffusion_options told = {.prediction = DIFFUSION_PREDICT_V};
    diffusion *forced = open_with(&told, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, NULL);
    diffusion_params p = small_params();
    image a = picture_of(eps, &p), b = picture_of(v, &p), c = picture_of(forced, &p);
    assert_true(same(&b, &c));
    assert_false(same(&a, &b));
    image_free(&a);
    image_free(&b);
    image_free(&c);
    diffusion_close(eps);
    diffusion_close(v);
    diffusion_close(forced);
}

/* A copy of a model in which the tensors `prefix`* are stacked `times` deep along their outermost dimension. */
static char *copy_stacked(const char *model, const char *prefix, int times) {
    err e;
    char *path = path_join(folder, model);
    tensor_file *f = tensor_file_open(path, &e);
    if (!f) fail_msg("%s", e.msg);
    st_builder st;
    st_init(&st);
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const tensor_info *t = tensor_file_at(f, i);
        const bool stacked = str_starts(t->name, prefix);
        char dims[96] = "";
        for (int k = t->n_dims - 1; k >= 0; k--) {
            const int64_t outer = stacked && k == t->n_dims - 1 ? times : 1;
            snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%lld%s", (long long)(t->ne[k] * outer),
                     k ? "," : "");
        }
        st_add(&st, t->name, t->type == TENSOR_I64 ? "I64" : "F32", dims, stacked ? NULL : tensor_file_data(f, t),
               (size_t)t->nbytes * (stacked ? (size_t)times : 1));
    }
    tensor_file_close(f);
    free(path);
    buf bytes;
    buf_init(&bytes, 64 << 20);
    st_finish(&st, &bytes);
    path = write_temp(&bytes);
    buf_free(&bytes);
    return path;
}

/* What the UNet gives is written where a latent is expected: more channels than the VAE's would overrun it. */
static void output_channels_are_checked(void **state) {
    (void)state;
    err e = {0};
    char *path = copy_stacked("tiny-sd1-f32.safetensors", "model.diffusion_model.out.2.", 2);
    const diffusion_files files = {.model = path};
    assert_null(diffusion_open(&files, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "8 output channels"));
    remove_temp(path);
}

static void devices_are_listed(void **state) {
    (void)state;
    diffusion_device list[8];
    size_t n = diffusion_devices(list, 8);
    bool cpu = false;
    assert_in_range(n, 1, 8);
    for (size_t i = 0; i < n; i++) cpu |= list[i].type == DIFFUSION_CPU && list[i].free > 0;
    assert_true(cpu);
    err e = {0};
    const diffusion_options unknown = {.device = "abacus"};
    assert_null(open_with(&unknown, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e));
    assert_non_null(strstr(e.msg, "abacus"));
}

int main(int argc, char **argv) {
    folder = argc > 1 ? argv[1] : TINY_MODELS;
    char *probe = path_join(folder, "tiny-sd1-f32.safetensors");
    bool there = path_exists(probe);
    free(probe);
    if (!there) {
        printf("SKIP: no tiny models in %s (tools/make_tiny_models.py makes them; it needs python3-numpy)\n", folder);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(every_layout_gives_the_same_picture),
        cmocka_unit_test(a_batch_is_its_pictures_alone),
        cmocka_unit_test(guidance_uses_the_negative_prompt),
        cmocka_unit_test(long_prompts),
        cmocka_unit_test(tiles_blend),
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(image_to_image),
        cmocka_unit_test(cancel_is_quick_and_harmless),
        cmocka_unit_test(resumed_work_is_bit_identical),
        cmocka_unit_test(a_foreign_checkpoint_is_ignored),
        cmocka_unit_test(checkpoints_are_tried_again),
        cmocka_unit_test(the_callers_failure_ends_the_call),
        cmocka_unit_test(parameters_are_checked_by_name),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(memory_is_checked_with_figures),
        cmocka_unit_test(prediction_is_read_or_told),
        cmocka_unit_test(output_channels_are_checked),
        cmocka_unit_test(devices_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
