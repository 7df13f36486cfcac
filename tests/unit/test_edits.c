/* Inpainting, outpainting, models for inpainting and editing, hires fix: what edits.py cannot see of them. */
#include "diffusion_test.h"
#include "upscaler_bytes.h"

#include "diffusion/image/mask.h"

/* ---- masks ------------------------------------------------------------------------------------------------------ */

static image box_mask(int width, int height, int x, int y, int w, int h) {
    image mask;
    assert_true(image_alloc(&mask, width, height, 1));
    for (int row = y; row < y + h; row++) memset(mask.px + row * width + x, 255, (size_t)w);
    return mask;
}

static void masks_from_pictures(void **state) {
    (void)state;
    image rgba, mask;
    assert_true(image_alloc(&rgba, 2, 1, 4));
    memcpy(rgba.px, (unsigned char[]){255, 255, 255, 255, 0, 0, 0, 55}, 8);
    assert_true(mask_from_image(&mask, &rgba)); /* transparency decides, not colour */
    assert_int_equal(mask.px[0], 0);
    assert_int_equal(mask.px[1], 200);
    image_free(&mask);
    rgba.px[7] = 255;
    assert_true(mask_from_image(&mask, &rgba)); /* none: white is drawn */
    assert_int_equal(mask.px[0], 255);
    assert_int_equal(mask.px[1], 0);
    image_free(&mask);
    image_free(&rgba);
}

static void regions_keep_inside(void **state) {
    (void)state;
    image mask = box_mask(100, 60, 90, 2, 10, 10);
    mask_region r = mask_bounds(&mask, 4);
    assert_int_equal(r.x, 86);
    assert_int_equal(r.y, 0);
    assert_int_equal(r.width, 14);
    assert_int_equal(r.height, 16);
    r = mask_region_expand(r, 2, 1, &mask); /* moved away from the border */
    assert_int_equal(r.x, 68);
    assert_int_equal(r.width, 32);
    r = mask_region_expand(r, 10, 1, &mask); /* no more than there is */
    assert_int_equal(r.x, 0);
    assert_int_equal(r.width, 100);
    memset(mask.px, 0, image_bytes(&mask));
    assert_int_equal(mask_bounds(&mask, 4).width, 0);
    image_free(&mask);
}

/* ---- inpainting ------------------------------------------------------------------------------------------------- */

/* The picture's own size, and where the mask is black its own bytes. */
static void what_is_not_masked_stays(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(150, 90), mask = box_mask(150, 90, 40, 30, 30, 20);
    diffusion_params p = small_params();
    p.init = &card;
    p.inpaint.mask = &mask;
    p.inpaint.only_masked = true;
    p.inpaint.blur = 0;
    image made = picture_of(d, &p);
    assert_int_equal(made.width, 150);
    assert_int_equal(made.height, 90);
    size_t changed = 0;
    for (size_t i = 0; i < image_bytes(&made); i++) {
        if (mask.px[i / 3] == 0) assert_int_equal(made.px[i], card.px[i]);
        changed += mask.px[i / 3] && made.px[i] != card.px[i];
    }
    assert_true(changed > 1000);
    image_free(&made);
    image_free(&card);
    image_free(&mask);
    diffusion_close(d);
}

static void extended_pictures_keep_their_pixels(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(70, 64);
    diffusion_params p = small_params();
    p.init = &card;
    p.width = p.height = 0;
    p.extend = (diffusion_extend){.left = 16, .bottom = 8, .feather = 5};
    p.inpaint.fill = DIFFUSION_FILL_COLOURS;
    image made = picture_of(d, &p);
    assert_int_equal(made.width, 64 + 16); /* 70 is cut to a multiple of 8 */
    assert_int_equal(made.height, 64 + 8);
    image cut;
    assert_true(image_crop_to_fit(&cut, &card, 64, 64));
    for (int y = 0; y < 64 - 5; y++)
        assert_memory_equal(made.px + 3 * (y * made.width + 16 + 5), cut.px + 3 * (y * 64 + 5), 3 * (64 - 5));
    image_free(&cut);
    image_free(&made);
    image_free(&card);
    diffusion_close(d);
}

static void nothing_to_draw_is_an_error(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(64, 64), mask = box_mask(64, 64, 0, 0, 0, 0);
    diffusion_params p = small_params();
    err e = {0};
    p.init = &card;
    p.inpaint.mask = &mask;
    assert_false(generate(d, &p, &(witness){0}, NULL, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.msg, "mask: nothing is left to be drawn, it is empty");
    image_free(&card);
    image_free(&mask);
    diffusion_close(d);
}

/* ---- interruption ----------------------------------------------------------------------------------------------- */

static void resumed_edits_are_bit_identical(void **state) {
    (void)state;
    image card = test_card(64, 64), mask = box_mask(64, 64, 16, 16, 32, 24);
    diffusion_params p = small_params();
    p.init = &card;
    p.inpaint.mask = &mask;
    p.inpaint.fill = DIFFUSION_FILL_NOISE;
    p.batch = 2;
    p.rng = "cpu";
    p.strength = 1;
    resumes("tiny-sd1-f16.safetensors", NULL, &p, 6, 1, 2);
    resumes("tiny-sd1-inpaint.safetensors", NULL, &p, 3, 0, 3);
    p.sampler = "heun";
    p.inpaint.mask = NULL;
    resumes("tiny-sd1-edit.safetensors", NULL, &p, 2, 0, 2);
    image_free(&card);
    image_free(&mask);
}

static void resumed_hires_is_bit_identical(void **state) {
    (void)state;
    diffusion_params p = small_params();
    p.batch = 2;
    p.prompt = "a [red:blue:0.5] fox [in the snow:in the woods:1.5]"; /* the second one changes in the second pass */
    p.hires = (diffusion_hires){.scale = 1.5f, .steps = 3, .strength = 0.6f, .upscaler = "latent"};
    resumes("tiny-sd1-f16.safetensors", NULL, &p, 2, 0, 2);
    resumes("tiny-sd1-f16.safetensors", NULL, &p, 7 + 4 + 1, 1, 5);
    p.hires.upscaler = "Lanczos"; /* its second pass begins by telling how far it is: one more call than steps */
    resumes("tiny-sd1-f16.safetensors", NULL, &p, 8 + 4 + 1 + 2, 1, 6);
}

/* ---- hires fix -------------------------------------------------------------------------------------------------- */

static void hires_sizes(void **state) {
    (void)state;
    static const struct {
        float scale;
        int width, height, made_width, made_height;
    } rows[] = {
        {2, 0, 0, 128, 128}, {1.15f, 0, 0, 72, 72}, {0, 96, 0, 96, 96}, {0, 0, 80, 80, 80}, {0, 96, 72, 96, 72}};
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    p.hires.steps = 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        p.hires.scale = rows[i].scale;
        p.hires.width = rows[i].width;
        p.hires.height = rows[i].height;
        witness w = {0};
        must_generate(d, &p, &w);
        assert_int_equal(w.pictures[0].width, rows[i].made_width);
        assert_int_equal(w.pictures[0].height, rows[i].made_height);
        assert_int_equal(w.steps_told, p.steps + 1);
        assert_int_equal(w.steps_total, p.steps + 1);
        assert_lively(&w.pictures[0]);
        witness_free(&w);
    }
    diffusion_close(d);
}

/* A network of zeros doubles each pixel, which nearest does as well. */
static void hires_with_a_network(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    char *path = compact_file(0);
    diffusion_params p = small_params();
    err e = {0};
    p.hires = (diffusion_hires){.scale = 2, .steps = 2, .strength = 0.5f, .upscaler = "nearest"};
    image want = picture_of(d, &p);
    p.hires.upscaler = "some-model";
    assert_false(diffusion_check(d, &p, &e));
    assert_non_null(strstr(e.msg, "hires.upscaler: unknown 'some-model'"));
    p.hires.network = path;
    image got = picture_of(d, &p);
    assert_int_equal(got.width, 128);
    assert_true(same(&got, &want));
    image_free(&got);
    p.hires.scale = 1.5f; /* reduced from twice the size */
    got = picture_of(d, &p);
    assert_int_equal(got.width, 96);
    assert_lively(&got);
    p.hires.network = "/nowhere.pth";
    assert_false(diffusion_check(d, &p, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "hires.upscaler: "));
    char *model = path_join(folder, "tiny-vae.safetensors");
    p.hires.network = model;
    assert_false(generate(d, &p, &(witness){0}, NULL, &e));
    assert_non_null(strstr(e.msg, "no upscaler that is known"));
    free(model);
    image_free(&got);
    image_free(&want);
    remove_temp(path);
    diffusion_close(d);
}

typedef struct enlarging {
    witness w;
    int tiles, cancel_at_tile; /* 0: never */
} enlarging;

static void on_tile(void *ctx, const diffusion_progress *p) {
    enlarging *n = ctx;
    if (p->phase == DIFFUSION_UPSCALING) n->tiles = p->step;
    on_progress(&n->w, p);
}

static bool is_enough(void *ctx) {
    enlarging *n = ctx;
    return n->cancel_at_tile && n->tiles >= n->cancel_at_tile;
}

static bool enlarge_with(diffusion *d, const diffusion_params *p, enlarging *n, diffusion_result *result, err *e) {
    const diffusion_events events = {.ctx = n, .progress = on_tile, .picture = on_picture, .should_cancel = is_enough};
    return diffusion_generate(d, p, &events, result, e);
}

/* Broken off between two tiles, it goes on behind them. */
static void resumed_enlarging_is_bit_identical(void **state) {
    (void)state;
    char *path = compact_file(0.1f), *log = str_fmt("%s.ckpt", path), *tiles = str_fmt("%s.tiles", log);
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    enlarging whole = {0}, first = {.cancel_at_tile = 2}, second = {0};
    diffusion_result result;
    err e = {0};
    p.width = 208; /* two tiles, then four */
    p.hires = (diffusion_hires){.scale = 3, .steps = 1, .strength = 0.5f, .upscaler = "x", .network = path};
    if (!enlarge_with(d, &p, &whole, NULL, &e)) fail_msg("%s", e.msg);
    assert_int_equal(whole.tiles, 2 + 3);
    assert_int_equal(whole.w.pictures[0].width, 624);
    p.checkpoint = log;
    assert_false(enlarge_with(d, &p, &first, NULL, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    assert_true(path_exists(log) && path_exists(tiles));
    diffusion_close(d);
    d = open_tiny("tiny-sd1-f16.safetensors");
    if (!enlarge_with(d, &p, &second, &result, &e)) fail_msg("%s", e.msg);
    assert_int_equal(result.resumed_step, 4);
    assert_int_equal(second.w.steps_told, 2 + 1); /* where both passes begin, and the second one's step */
    assert_true(same(&second.w.pictures[0], &whole.w.pictures[0]));
    assert_false(path_exists(log) || path_exists(tiles));
    witness_free(&whole.w);
    witness_free(&second.w);
    free(tiles);
    free(log);
    remove_temp(path);
    diffusion_close(d);
}

/* ---- models that take more than a latent ------------------------------------------------------------------------ */

static void models_say_what_they_are_for(void **state) {
    (void)state;
    static const struct {
        const char *name, *family;
        bool inpaints, edits;
    } rows[] = {
        {"tiny-sd1-f16.safetensors", "sd1", false, false},  {"tiny-sd1-inpaint.safetensors", "sd1", true, false},
        {"tiny-sd1-edit.safetensors", "sd1", false, true},  {"tiny-sd2-inpaint.safetensors", "sd2", true, false},
        {"tiny-sd2-edit.safetensors", "sd2", false, true},  {"tiny-sdxl-inpaint.safetensors", "sdxl", true, false},
        {"tiny-sdxl-edit.safetensors", "sdxl", false, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        diffusion *d = open_tiny(rows[i].name);
        diffusion_info info;
        diffusion_describe(d, &info);
        assert_string_equal(info.family, rows[i].family);
        assert_string_equal(info.prediction, "eps");
        assert_int_equal(info.inpaints, rows[i].inpaints);
        assert_int_equal(info.edits, rows[i].edits);
        diffusion_close(d);
    }
}

/* Without a mask a model for inpainting gets a whole one; the initial picture then only says where to start. */
static void inpainting_models_look_at_the_mask(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-inpaint.safetensors");
    diffusion_params p = small_params();
    image text = picture_of(d, &p), card = test_card(64, 64), mask = box_mask(64, 64, 0, 0, 64, 64);
    assert_lively(&text);
    p.init = &card;
    p.strength = 1;
    image without = picture_of(d, &p);
    p.inpaint.mask = &mask;
    p.inpaint.blur = 0;
    image whole = picture_of(d, &p);
    assert_true(same(&without, &whole));
    memset(mask.px, 0, 64 * 16);
    image part = picture_of(d, &p);
    assert_false(same(&part, &whole));
    assert_memory_equal(part.px, card.px, 3 * 64 * 16);
    image_free(&text), image_free(&without), image_free(&whole), image_free(&part);
    image_free(&card), image_free(&mask);
    diffusion_close(d);
}

static void editing_models_need_a_picture(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-edit.safetensors");
    diffusion_params p = small_params();
    err e = {0};
    assert_false(diffusion_check(d, &p, &e));
    assert_string_equal(e.msg, "init_image: required: the model changes a picture");
    image card = test_card(64, 64);
    p.init = &card;
    p.strength = 1;
    image made[3];
    for (int i = 0; i < 3; i++) {
        p.image_cfg_scale = (float)i;
        made[i] = picture_of(d, &p);
        assert_lively(&made[i]);
    }
    assert_false(same(&made[0], &made[1]) || same(&made[1], &made[2]));
    p.image_cfg_scale = 1.5f;
    p.prompt = "a [red|blue] fox AND a tower :0.5"; /* composition, with three answers */
    image composed = picture_of(d, &p);
    assert_lively(&composed);
    image_free(&composed);
    for (int i = 0; i < 3; i++) image_free(&made[i]);
    image_free(&card);
    diffusion_close(d);
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

static void edits_are_checked_by_name(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(64, 64);
    const diffusion_params text = small_params();
    diffusion_params from = text;
    from.init = &card;
    diffusion_params p;
#define REFUSED(base, field, value, message)                                                                           \
    do {                                                                                                               \
        err e = {0};                                                                                                   \
        p = base;                                                                                                      \
        p.field = value;                                                                                               \
        assert_false(diffusion_check(d, &p, &e));                                                                      \
        assert_int_equal(e.code, ERR_INVALID);                                                                         \
        assert_string_equal(e.msg, message);                                                                           \
    } while (0)
    REFUSED(text, inpaint.mask, &card, "mask: needs init_image");
    REFUSED(from, inpaint.only_masked, true, "inpaint_area: 'masked' needs a mask");
    REFUSED(from, inpaint.blur, 65, "mask_blur: 65 is not between 0 and 64");
    REFUSED(from, inpaint.padding, -1, "mask_padding: -1 is not between 0 and 512");
    REFUSED(from, extend.left, 12, "outpaint.left: 12 is not a multiple of 8");
    REFUSED(from, extend.bottom, 4096, "outpaint.bottom: 4096 is not between 0 and 2048");
    REFUSED(from, extend.feather, 300, "outpaint.feather: 300 is not between 0 and 256");
    REFUSED(from, hires.scale, 2, "hires: not together with init_image");
    REFUSED(text, hires.scale, 9, "hires.scale: 9 is not between 1 and 8");
    REFUSED(text, hires.width, 100, "hires.width: 100 is not a multiple of 8");
    REFUSED(text, image_cfg_scale, -1, "image_cfg_scale: -1 is not between 0 and 50");
    diffusion_params larger = text;
    larger.hires.scale = 2;
    REFUSED(larger, hires.strength, 0, "hires.strength: 0 is not between 0.01 and 1");
    REFUSED(larger, hires.steps, 201, "hires.steps: 201 is not between 0 and 200");
    REFUSED(
        larger, hires.upscaler, "latnt",
        "hires.upscaler: unknown 'latnt' (latent, latent-antialiased, latent-bicubic, latent-bicubic-antialiased, latent-nearest, "
        "latent-nearest-exact, lanczos, nearest)");
    larger.width = larger.height = 1024;
    REFUSED(larger, hires.scale, 4,
            "hires: height: 4096x4096 has more than 9437184 pixels; diffusion_tile makes it possible");
    image_free(&card);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_from_pictures),
        cmocka_unit_test(regions_keep_inside),
        cmocka_unit_test(what_is_not_masked_stays),
        cmocka_unit_test(extended_pictures_keep_their_pixels),
        cmocka_unit_test(nothing_to_draw_is_an_error),
        cmocka_unit_test(resumed_edits_are_bit_identical),
        cmocka_unit_test(resumed_hires_is_bit_identical),
        cmocka_unit_test(hires_sizes),
        cmocka_unit_test(hires_with_a_network),
        cmocka_unit_test(resumed_enlarging_is_bit_identical),
        cmocka_unit_test(models_say_what_they_are_for),
        cmocka_unit_test(inpainting_models_look_at_the_mask),
        cmocka_unit_test(editing_models_need_a_picture),
        cmocka_unit_test(edits_are_checked_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
