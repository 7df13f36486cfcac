/* Stable Diffusion XL, its refiner, and distilled models, as the engine's users see them. */
#include "diffusion_test.h"

static void describe(const diffusion *d, const char *family, const char *prediction, int size) {
    diffusion_info info;
    diffusion_describe(d, &info);
    assert_string_equal(info.family, family);
    assert_string_equal(info.prediction, prediction);
    assert_true(info.default_width == size && info.default_height == size);
}

static diffusion *open_parts(const char *unet, const char *clip_l, const char *clip_g, err *e) {
    const diffusion_files names = {
        .diffusion_model = unet, .vae = "tiny-sdxl-f32.safetensors", .clip_l = clip_l, .clip_g = clip_g};
    return open_named(NULL, &names, e);
}

/* The whole checkpoint has OpenCLIP's names, the others those of `transformers`, whose projection is transposed. */
static void every_layout(void **state) {
    (void)state;
    err e = {0};
    diffusion *whole = open_tiny("tiny-sdxl-f32.safetensors"), *folders = open_tiny("tiny-sdxl-diffusers");
    diffusion *parts =
        open_parts("tiny-sdxl-unet.safetensors", "tiny-sdxl-clip_l.safetensors", "tiny-sdxl-clip_g.safetensors", &e);
    if (!parts) fail_msg("%s", e.msg);
    diffusion_params p = small_params();
    p.steps = 2;
    for (p.clip_skip = 1; p.clip_skip <= 3; p.clip_skip += 2) {
        image a = picture_of(whole, &p), b = picture_of(folders, &p), c = picture_of(parts, &p);
        assert_lively(&a);
        print_message("clip skip %d: folders %.1f dB, parts %.1f dB\n", p.clip_skip, psnr(&a, &b), psnr(&a, &c));
        assert_true(psnr(&a, &b) >= 60 && psnr(&a, &c) >= 40);
        image_free(&a);
        image_free(&b);
        image_free(&c);
    }
    describe(whole, "sdxl", "eps", 1024);
    describe(folders, "sdxl", "eps", 1024);
    describe(parts, "sdxl", "eps", 1024);
    diffusion_close(whole);
    diffusion_close(folders);
    diffusion_close(parts);
}

static void other_kinds(void **state) {
    (void)state;
    static const struct {
        const char *file, *family, *prediction;
        int size;
    } rows[] = {
        {"tiny-sdxl-v.safetensors", "sdxl", "v", 1024},
        {"tiny-sdxl-refiner-f32.safetensors", "sdxl-refiner", "eps", 1024},
        {"tiny-ssd-f32.safetensors", "sdxl", "eps", 1024},
        {"tiny-vega-f32.safetensors", "sdxl", "eps", 1024},
        {"tiny-bk-f32.safetensors", "sd1", "eps", 512},
        {"tiny-bk-diffusers", "sd1", "eps", 512},
    };
    enum { COUNT = sizeof rows / sizeof *rows };
    image made[COUNT];
    diffusion_params p = small_params();
    p.steps = 2;
    for (int i = 0; i < COUNT; i++) {
        diffusion *d = open_tiny(rows[i].file);
        describe(d, rows[i].family, rows[i].prediction, rows[i].size);
        made[i] = picture_of(d, &p);
        assert_lively(&made[i]);
        diffusion_close(d);
    }
    assert_true(psnr(&made[COUNT - 2], &made[COUNT - 1]) >= 60); /* the same model */
    for (int i = 0; i < COUNT; i++) image_free(&made[i]);
}

static image picture_with(const char *model, const char *negative, int clip_skip) {
    diffusion *d = open_tiny(model);
    diffusion_params p = small_params();
    p.steps = 2;
    p.negative = negative;
    p.clip_skip = clip_skip;
    image img = picture_of(d, &p);
    diffusion_close(d);
    return img;
}

/* As in A1111 nothing at all is zeros; a space is an encoded empty text. Where a family does not do that, both are one.
 */
static void an_empty_negative_prompt_is_zeros(void **state) {
    (void)state;
    static const struct {
        const char *model;
        bool differ;
    } rows[] = {{"tiny-sdxl-f32.safetensors", true},
                {"tiny-sdxl-refiner-f32.safetensors", true},
                {"tiny-sd1-f32.safetensors", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        image none = picture_with(rows[i].model, "", 1), null = picture_with(rows[i].model, NULL, 1);
        image space = picture_with(rows[i].model, " ", 1);
        assert_true(same(&none, &null));
        assert_int_equal(same(&none, &space), !rows[i].differ);
        image_free(&none);
        image_free(&null);
        image_free(&space);
    }
}

/* Its layers start with the second last: clip skip 1 and 2 are one. */
static void clip_skip(void **state) {
    (void)state;
    image skipped[3];
    for (int i = 0; i < 3; i++) skipped[i] = picture_with("tiny-sdxl-f32.safetensors", "blurry", i + 1);
    assert_true(same(&skipped[0], &skipped[1]));
    assert_false(same(&skipped[1], &skipped[2]));
    for (int i = 0; i < 3; i++) image_free(&skipped[i]);
}

static void missing_and_wrong_parts(void **state) {
    (void)state;
    static const char clip_l[] = "tiny-sdxl-clip_l.safetensors", clip_g[] = "tiny-sdxl-clip_g.safetensors";
    static const struct {
        const char *clip_l, *clip_g;
        int code;
        const char *part; /* of the message */
    } rows[] = {
        {clip_l, NULL, ERR_UNSUPPORTED, "no text encoder clip_g: give one with --clip_g"},
        {NULL, clip_g, ERR_UNSUPPORTED, "no text encoder clip_l: give one with --clip_l"},
        {"tiny-sdxl-refiner-f32.safetensors", clip_g, ERR_FORMAT, "holds no tensor named cond_stage_model"},
        {clip_l, "tiny-sdxl-refiner-f32.safetensors", ERR_UNSUPPORTED, "are a label of 1600 values"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        assert_null(open_parts("tiny-sdxl-unet.safetensors", rows[i].clip_l, rows[i].clip_g, &e));
        if (e.code != rows[i].code || !strstr(e.msg, rows[i].part)) fail_msg("row %zu: %d %s", i, e.code, e.msg);
    }
}

/* Both text encoders and the UNet are changed, under either naming; taking it off leaves the same bytes. */
static void loras(void **state) {
    (void)state;
    static const char *const names[] = {"xl-ldm", "xl-peft"};
    diffusion *d = open_tiny("tiny-sdxl-f32.safetensors");
    diffusion_params p = small_params();
    p.steps = 2;
    image without = picture_of(d, &p);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = str_fmt("%s/loras/%s.safetensors", folder, names[i]);
        const diffusion_lora both = {path, names[i], 0.8f, 0.8f, false}, text = {path, names[i], 0, 0.8f, false};
        p.lora_count = 1;
        p.loras = &both;
        image all = picture_of(d, &p);
        p.loras = &text;
        image half = picture_of(d, &p);
        p.lora_count = 0;
        image after = picture_of(d, &p);
        assert_true(same(&without, &after));
        assert_true(psnr(&without, &all) < 30 && psnr(&without, &half) < 40 && psnr(&half, &all) < 40);
        image_free(&all);
        image_free(&half);
        image_free(&after);
        free(path);
    }
    image_free(&without);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout),
        cmocka_unit_test(other_kinds),
        cmocka_unit_test(an_empty_negative_prompt_is_zeros),
        cmocka_unit_test(clip_skip),
        cmocka_unit_test(missing_and_wrong_parts),
        cmocka_unit_test(loras),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
