/* The image engine as its users see it, over tiny models that have the topology of Stable Diffusion 1.x and later. */
#include "diffusion_test.h"

#include "base/clock.h"
#include "diffusion/load/tensor_file.h"

#include "model_bytes.h"

#include <unistd.h>

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

/* The diffusers layout of SD 2 lacks the text encoder's last layer, and says otherwise what it predicts. */
static void sd2_in_every_layout(void **state) {
    (void)state;
    diffusion_info info;
    diffusion *whole = open_tiny("tiny-sd2-f32.safetensors"), *parts = open_tiny("tiny-sd2-diffusers");
    diffusion *eps = open_tiny("tiny-sd2-eps.safetensors");
    diffusion_params p = small_params();
    for (p.clip_skip = 1; p.clip_skip <= 4; p.clip_skip += 3) {
        image a = picture_of(whole, &p), b = picture_of(parts, &p), c = picture_of(eps, &p);
        assert_lively(&a);
        assert_true(psnr(&a, &b) >= 60);
        assert_true(psnr(&a, &c) < 40);
        image_free(&a);
        image_free(&b);
        image_free(&c);
    }
    diffusion_describe(parts, &info);
    assert_string_equal(info.family, "sd2");
    assert_string_equal(info.prediction, "v");
    assert_true(info.default_width == 768 && info.default_height == 768);
    diffusion_describe(eps, &info);
    assert_string_equal(info.prediction, "eps");
    assert_int_equal(info.default_width, 512);
    diffusion_close(whole);
    diffusion_close(parts);
    diffusion_close(eps);
}

/* Its layers start with the second last: clip skip 1 and 2 are one. */
static void sd2_clip_skip(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd2-f32.safetensors");
    diffusion_params p = small_params();
    image skipped[3];
    for (p.clip_skip = 1; p.clip_skip <= 3; p.clip_skip++) skipped[p.clip_skip - 1] = picture_of(d, &p);
    assert_true(same(&skipped[0], &skipped[1]));
    assert_false(same(&skipped[1], &skipped[2]));
    for (int i = 0; i < 3; i++) image_free(&skipped[i]);
    diffusion_close(d);
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

/* A1111's rule: with a subseed all pictures have one seed, and the subseeds follow each other. */
static void variations_are_their_pictures_alone(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    image plain = picture_of(d, &p);
    witness w = {0};
    p.steps = 2;
    p.batch = 2;
    p.sampling.subseed = 100;
    p.sampling.subseed_strength = 0.3f;
    must_generate(d, &p, &w);
    assert_false(same(&w.pictures[0], &w.pictures[1]));
    assert_false(same(&w.pictures[0], &plain));
    p.batch = 1;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(w.seeds[i], p.seed);
        p.sampling.subseed = 100 + i;
        image alone = picture_of(d, &p);
        assert_true(same(&alone, &w.pictures[i]));
        image_free(&alone);
    }
    image_free(&plain);
    witness_free(&w);
    diffusion_close(d);
}

/* Each option has an effect where it is to have one, and none where it says so. */
static void sampling_options(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params(), q;
    p.sampler = "euler";
    p.steps = 3;
    image plain = picture_of(d, &p);
#define MAKES(is_same, field, value)                                                                                   \
    {                                                                                                                  \
        q = p;                                                                                                         \
        q.sampling.field = value;                                                                                      \
        image other = picture_of(d, &q);                                                                               \
        assert_int_equal(same(&plain, &other), is_same);                                                               \
        image_free(&other);                                                                                            \
    }
    MAKES(true, eta, 1.0f); /* euler takes none */
    MAKES(false, s_churn, 1.0f);
    MAKES(false, guidance_rescale, 0.7f);
    MAKES(false, guidance_end, 0.5f);
    MAKES(false, threshold, 0.9f);
    MAKES(true, subseed, 5);
    MAKES(false, seed_from_width, 128);
    MAKES(true, seed_from_width, 64);
    MAKES(true, noise_seed_delta, 31337); /* draws nothing in its steps */
    p.sampler = "euler_a";
    image_free(&plain);
    plain = picture_of(d, &p);
    MAKES(false, noise_seed_delta, 31337);
    MAKES(false, eta, 0.5f);
    MAKES(false, s_noise, 0.9f);
    MAKES(true, s_churn, 1.0f);
    image_free(&plain);
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

static image picture_for(diffusion *d, const char *prompt, const char *sampler, float cfg_scale) {
    diffusion_params p = small_params();
    p.prompt = prompt;
    p.sampler = sampler;
    p.cfg_scale = cfg_scale;
    return picture_of(d, &p);
}

/* Editing changes what is said, and nothing else: a prompt that says one thing all the time is that thing. */
static void edited_prompts(void **state) {
    (void)state;
    static const struct {
        const char *edited, *plain;
        bool same;
    } rows[] = {
        {"a [red:blue:0] fox", "a blue fox", true},      {"a [red:blue:1.0] fox", "a red fox", true},
        {"a [red|red] fox", "a red fox", true},          {"a [red:blue:0.5] fox", "a red fox", false},
        {"a [red:blue:0.5] fox", "a blue fox", false},   {"a [red|blue] fox", "a red fox", false},
        {"a [blue|red] fox", "a [red|blue] fox", false},
    };
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        image edited = picture_for(d, rows[i].edited, "euler", 7), plain = picture_for(d, rows[i].plain, "euler", 7);
        if (same(&edited, &plain) != rows[i].same) fail_msg("'%s' and '%s'", rows[i].edited, rows[i].plain);
        image_free(&edited);
        image_free(&plain);
    }
    diffusion_close(d);
}

/* Samplers of second order count two calls a step, as A1111 does: with four steps the change after call 3 is in the
 * second one. */
static void edits_count_calls(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    image number = picture_for(d, "a [red:blue:4] fox", "heun", 7),
          share = picture_for(d, "a [red:blue:0.5] fox", "heun", 7);
    image all = picture_for(d, "a red fox", "heun", 7), euler = picture_for(d, "a [red:blue:4] fox", "euler", 7);
    image euler_all = picture_for(d, "a red fox", "euler", 7);
    assert_true(same(&number, &share)); /* of eight calls */
    assert_false(same(&number, &all));
    assert_true(same(&euler, &euler_all)); /* of four */
    image *const made[] = {&number, &share, &all, &euler, &euler_all};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) image_free(made[i]);
    diffusion_close(d);
}

/* A part of weight 0 says nothing, whatever its length; two of weight 0.5 are one. */
static void composed_prompts(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    for (int i = 0; i < 2; i++) {
        const float cfg = i ? 1.0f : 7.0f;
        image plain = picture_for(d, "a red fox", "euler", cfg);
        image none = picture_for(d, "a red fox AND a tower :0", "euler", cfg);
        image halves = picture_for(d, "a red fox :0.5 AND a red fox : .5", "euler", cfg);
        image both = picture_for(d, "a red fox AND a tower BREAK of glass", "euler", cfg);
        print_message("guidance %g: %.1f dB, %.1f dB, with another part %.1f dB\n", (double)cfg, psnr(&plain, &none),
                      psnr(&plain, &halves), psnr(&plain, &both));
        assert_true(psnr(&plain, &none) > 45 && psnr(&plain, &halves) > 45);
        assert_true(psnr(&plain, &both) < 45);
        image_free(&plain);
        image_free(&none);
        image_free(&halves);
        image_free(&both);
    }
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

/* Pictures of a precision are nearly those of floats (least: PSNR), go on bit by bit where they were stopped, and never
 * in the other precision. */
static void check_precision(const char *name, double least) {
    char *path = str_fmt("/tmp/mysti-%s-%d", name, (int)getpid());
    err e = {0};
    diffusion_options options = {0};
    assert_true(diffusion_precision_from_name(name, &options.precision));
    diffusion *exact = open_tiny("tiny-sd1-f16.safetensors");
    diffusion *d = open_with(&options, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e);
    diffusion_info info;
    diffusion_describe(exact, &info);
    assert_string_equal(info.precision, "f32");
    if (!d) { /* this processor is no faster with it */
        assert_int_equal(e.code, ERR_UNSUPPORTED);
        print_message("not here: %s\n", e.msg);
        diffusion_close(exact);
        free(path);
        return;
    }
    diffusion_describe(d, &info);
    assert_string_equal(info.precision, name);
    diffusion_params p = small_params();
    p.steps = 10;
    image want = picture_of(exact, &p), got = picture_of(d, &p);
    print_message("f32 and %s: %.1f dB\n", name, psnr(&want, &got));
    assert_true(psnr(&want, &got) >= least && !same(&want, &got));

    p.checkpoint = path;
    p.checkpoint_ms = 0;
    witness stopped = {.cancel_at_step = 6}, resumed = {0};
    diffusion_result result;
    assert_false(generate(d, &p, &stopped, NULL, &e));
    assert_true(path_exists(path));
    assert_true(generate(d, &p, &resumed, &result, &e));
    assert_true(result.resumed_step == 6 && same(&got, &resumed.pictures[0]));
    witness_free(&resumed);
    stopped = (witness){.cancel_at_step = 6};
    assert_false(generate(d, &p, &stopped, NULL, &e));
    assert_true(generate(exact, &p, &resumed, &result, &e));
    assert_true(result.resumed_step == 0 && same(&want, &resumed.pictures[0]));
    witness_free(&resumed);
    image_free(&want);
    image_free(&got);
    diffusion_close(exact);
    diffusion_close(d);
    free(path);
}

static void bfloat16(void **state) {
    (void)state;
    check_precision("bf16", 35);
}

static void int8(void **state) {
    (void)state;
    check_precision("int8", 30); /* the tiny models with twelve seeds each: 31 to 41 dB */
}

static void resumed_work_is_bit_identical(void **state) {
    (void)state;
    static const char *const samplers[] = {"euler_a", "dpm++2m", "heun", "uni_pc", "dpm++3m_sde", "er_sde"};
    char *path = str_fmt("/tmp/mysti-resume-%d", (int)getpid());
    for (int i = 0; i < 6; i++) {
        diffusion_params p = small_params();
        p.sampler = samplers[i];
        if (i == 2) p.prompt = "a [red|blue|green] fox in [the snow:the woods:3] AND a tower :0.4";
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
    REFUSED(sampler, "eulr", "sampler: unknown 'eulr' (did you mean 'euler'? docs/samplers.md lists all)");
    REFUSED(sampler, "DPM++ 2M Karas",
            "sampler: unknown 'DPM++ 2M Karas' (did you mean 'DPM++ 2M Karras'? docs/samplers.md lists all)");
    REFUSED(sampler, "oak", "sampler: unknown 'oak' (docs/samplers.md lists all)");
    REFUSED(schedule, "SGM Unifrm",
            "scheduler: unknown 'SGM Unifrm' (did you mean 'SGM Uniform'? docs/samplers.md lists all)");
    REFUSED(rng, "xyz", "rng: unknown 'xyz' (cuda, cpu)");
    REFUSED(emphasis, "loud", "emphasis: unknown 'loud' (a1111, comfy, none)");
    REFUSED(sampling.eta, 2.0f, "eta: 2 is not between 0 and 1");
    REFUSED(sampling.s_noise, NAN, "s_noise: nan is not between 0 and 2");
    REFUSED(sampling.guidance_start, 1.5f, "guidance_start: 1.5 is not between 0 and 1");
    REFUSED(sampling.guidance_end, -1.0f, "guidance_end: -1 is not between 0 and 1");
    REFUSED(sampling.threshold, 0.1f, "dynamic_threshold: 0.1 is not between 0.5 and 1");
    REFUSED(sampling.subseed_strength, 1.1f, "subseed_strength: 1.1 is not between 0 and 1");
    REFUSED(sampling.seed_from_height, 8, "seed_resize_from_h: 8 is not between 64 and 4096");
    good.width = 4096;
    REFUSED(height, 3072, "height: 4096x3072 has more than 9437184 pixels; diffusion_tile makes it possible");
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

/* ---- LoRAs ------------------------------------------------------------------------------------------------------ */

/* Only the path is owned. */
static diffusion_lora tiny_lora(const char *name, float unet, float te) {
    char *dir = path_join(folder, "loras");
    const diffusion_lora l = {.path = path_join(dir, name), .unet = unet, .te = te};
    free(dir);
    return l;
}

static void lora_free(const diffusion_lora *l) {
    free((char *)(uintptr_t)l->path);
}

static void wear(diffusion_params *p, const diffusion_lora *l, size_t count) {
    p->loras = l;
    p->lora_count = count;
}

/* Each picture without them is the first one, bit for bit, and each with them is what a fresh model makes. */
static void loras_come_and_go(void **state) {
    (void)state;
    static const struct {
        const char *model, *unet, *lora;
    } rows[] = {
        {"tiny-sd1-f32.safetensors", NULL, "tiny-lora.safetensors"},
        {"tiny-sd1-f16.safetensors", NULL, "tiny-locon.safetensors"},
        {"tiny-sd1-bf16.safetensors", NULL, "tiny-loha.safetensors"},
        {"tiny-sd1-diffusers", NULL, "tiny-full.safetensors"},
        {"tiny-sd1-f32.safetensors", "tiny-sd1-unet-q8_0.gguf", "tiny-dora.safetensors"},
    };
    const diffusion_lora other = tiny_lora("tiny-peft.safetensors", -0.7f, 0.7f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        diffusion *d = open_with(NULL, rows[i].model, rows[i].unet, NULL, NULL, NULL);
        diffusion *fresh = open_with(NULL, rows[i].model, rows[i].unet, NULL, NULL, NULL);
        const diffusion_lora l = tiny_lora(rows[i].lora, 0.9f, 0.8f);
        diffusion_params p = small_params();
        image without = picture_of(d, &p);
        wear(&p, &other, 1);
        image worn = picture_of(d, &p);
        wear(&p, &l, 1);
        image want = picture_of(fresh, &p), got = picture_of(d, &p);
        assert_lively(&got);
        assert_true(same(&want, &got));
        assert_true(psnr(&without, &got) < 30 && psnr(&worn, &got) < 30);
        wear(&p, NULL, 0);
        image off = picture_of(d, &p);
        assert_true(same(&without, &off));
        wear(&p, &l, 1);
        image again = picture_of(d, &p);
        assert_true(same(&want, &again));
        image *const all[] = {&without, &worn, &want, &got, &off, &again};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) image_free(all[k]);
        lora_free(&l);
        diffusion_close(d);
        diffusion_close(fresh);
    }
    lora_free(&other);
}

static void lora_weights_and_tags(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    const diffusion_lora nothing = tiny_lora("tiny-lora.safetensors", 0, 0);
    const diffusion_lora only[] = {tiny_lora("tiny-lora.safetensors", 1, 0), tiny_lora("tiny-lora.safetensors", 0, 1)};
    const diffusion_lora whole = tiny_lora("tiny-lora.safetensors", 1, 1);
    diffusion_params p = small_params();
    p.cfg_scale = 1; /* without a negative prompt, which the text encoder's part would change too */
    image plain = picture_of(d, &p);
    wear(&p, &nothing, 1);
    image same_as_plain = picture_of(d, &p);
    assert_true(same(&plain, &same_as_plain));
    wear(&p, only, 1);
    image unet_only = picture_of(d, &p);
    wear(&p, only + 1, 1);
    image te_only = picture_of(d, &p);
    wear(&p, only, 2);
    image both = picture_of(d, &p);
    wear(&p, &whole, 1);
    p.prompt = "a (red:1.3) fox<lora:tiny-lora:1> in the snow"; /* the tag is no text */
    image want = picture_of(d, &p);
    assert_true(same(&both, &want));
    assert_true(psnr(&plain, &unet_only) < 40 && psnr(&unet_only, &te_only) < 40 && !same(&te_only, &plain));
    image *const all[] = {&plain, &same_as_plain, &unet_only, &te_only, &both, &want};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) image_free(all[k]);
    const diffusion_lora *const used[] = {&nothing, only, only + 1, &whole};
    for (size_t k = 0; k < sizeof used / sizeof *used; k++) lora_free(used[k]);
    diffusion_close(d);
}

static void resumed_with_its_loras(void **state) {
    (void)state;
    char *path = str_fmt("/tmp/mysti-lora-%d", (int)getpid());
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    const diffusion_lora l = tiny_lora("tiny-lokr.safetensors", 0.8f, 0.8f),
                         m = tiny_lora("tiny-lora.safetensors", 1, 1);
    diffusion_params p = small_params();
    wear(&p, &l, 1);
    image want = picture_of(d, &p);
    witness stopped = {.cancel_at_step = 2}, other = {.cancel_at_step = 2}, w = {0};
    diffusion_result result;
    p.checkpoint = path;
    p.checkpoint_ms = 0;
    assert_false(generate(d, &p, &stopped, NULL, NULL));
    diffusion_close(d);
    d = open_tiny("tiny-sd1-f16.safetensors");
    assert_true(generate(d, &p, &w, &result, NULL));
    assert_true(result.resumed_step == 2 && same(&want, &w.pictures[0]));
    assert_false(generate(d, &p, &stopped, NULL, NULL)); /* other LoRAs are other work */
    wear(&p, &m, 1);
    assert_false(generate(d, &p, &other, &result, NULL));
    assert_int_equal(result.resumed_step, 0);
    unlink(path);
    witness_free(&w);
    image_free(&want);
    lora_free(&l);
    lora_free(&m);
    diffusion_close(d);
    free(path);
}

static void bad_loras_leave_the_model(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    const diffusion_lora rows[] = {tiny_lora("foreign.safetensors", 1, 1), tiny_lora("absent.safetensors", 1, 1),
                                   tiny_lora("../tiny-vae.safetensors", 1, 1),
                                   tiny_lora("tiny-lora.safetensors", 1e6f, 1)};
    static const char *const parts[] = {"a LoRA for Stable Diffusion XL, the model is Stable Diffusion 1.x",
                                        "absent.safetensors", "not supported", "weight: 1e+06 is not between"};
    const diffusion_lora good = tiny_lora("tiny-lora.safetensors", 1, 1);
    diffusion_params p = small_params();
    image without = picture_of(d, &p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        witness w = {0};
        const diffusion_lora two[] = {good, rows[i]};
        wear(&p, two, 2);
        assert_false(generate(d, &p, &w, NULL, &e));
        if (!strstr(e.msg, parts[i])) fail_msg("row %zu: %s", i, e.msg);
        wear(&p, NULL, 0);
        image now = picture_of(d, &p);
        assert_true(same(&without, &now));
        image_free(&now);
        lora_free(&rows[i]);
    }
    witness w = {.cancel_at_poll = 20}; /* in the merge */
    err e = {0};
    wear(&p, &good, 1);
    assert_false(generate(d, &p, &w, NULL, &e));
    assert_true(e.code == ERR_CANCELLED && !(w.phases & 1u << DIFFUSION_ENCODING));
    wear(&p, NULL, 0);
    image now = picture_of(d, &p);
    assert_true(same(&without, &now));
    image_free(&now);
    image_free(&without);
    lora_free(&good);
    diffusion_close(d);
}

static void loras_count_as_memory(void **state) {
    (void)state;
    err e = {0};
    diffusion_options some = {.memory_limit = 150 << 20};
    diffusion *d = open_with(&some, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e);
    const diffusion_lora l = tiny_lora("tiny-locon.safetensors", 1, 1);
    diffusion_params p = small_params();
    diffusion_memory without, with;
    assert_true(diffusion_estimate(d, &p, &without, &e));
    wear(&p, &l, 1);
    assert_true(diffusion_estimate(d, &p, &with, &e));
    assert_in_range(with.weights - without.weights, 3 << 20, 7 << 20); /* nearly all of the UNet, in f16 */
    some.memory_limit = without.compute + (1 << 20);
    diffusion_close(d);
    d = open_with(&some, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e);
    assert_non_null(d);
    wear(&p, NULL, 0);
    image ok = picture_of(d, &p);
    image_free(&ok);
    wear(&p, &l, 1);
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "LoRAs need"));
    lora_free(&l);
    diffusion_close(d);
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
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(every_layout_gives_the_same_picture),
        cmocka_unit_test(sd2_in_every_layout),
        cmocka_unit_test(sd2_clip_skip),
        cmocka_unit_test(a_batch_is_its_pictures_alone),
        cmocka_unit_test(variations_are_their_pictures_alone),
        cmocka_unit_test(sampling_options),
        cmocka_unit_test(guidance_uses_the_negative_prompt),
        cmocka_unit_test(long_prompts),
        cmocka_unit_test(edited_prompts),
        cmocka_unit_test(edits_count_calls),
        cmocka_unit_test(composed_prompts),
        cmocka_unit_test(tiles_blend),
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(image_to_image),
        cmocka_unit_test(cancel_is_quick_and_harmless),
        cmocka_unit_test(bfloat16),
        cmocka_unit_test(int8),
        cmocka_unit_test(resumed_work_is_bit_identical),
        cmocka_unit_test(a_foreign_checkpoint_is_ignored),
        cmocka_unit_test(checkpoints_are_tried_again),
        cmocka_unit_test(the_callers_failure_ends_the_call),
        cmocka_unit_test(parameters_are_checked_by_name),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(memory_is_checked_with_figures),
        cmocka_unit_test(prediction_is_read_or_told),
        cmocka_unit_test(output_channels_are_checked),
        cmocka_unit_test(loras_come_and_go),
        cmocka_unit_test(lora_weights_and_tags),
        cmocka_unit_test(resumed_with_its_loras),
        cmocka_unit_test(bad_loras_leave_the_model),
        cmocka_unit_test(loras_count_as_memory),
        cmocka_unit_test(devices_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
