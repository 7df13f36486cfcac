/* ControlNets as the engine's users see them; the networks' numbers are compared by tools/ref/controlnet.py. */
#include "diffusion_test.h"

#include "base/buf.h"
#include "diffusion/image/canny.h"

#include <unistd.h>

enum { W = 64, H = 64 };

static char *path_of(const char *file) {
    return str_fmt("%s/controlnet/%s.safetensors", folder, file);
}

/* Of the tiny one; the path is to be freed. */
static diffusion_control control_of(const char *file, const image *picture) {
    diffusion_control c;
    diffusion_control_init(&c);
    c.path = path_of(file);
    c.picture = picture;
    return c;
}

static void control_free(const diffusion_control *c) {
    free((char *)(uintptr_t)c->path);
}

static void use(diffusion_params *p, const diffusion_control *c, size_t count) {
    p->controls = c;
    p->control_count = count;
}

static diffusion_params quick_params(void) {
    diffusion_params p = small_params();
    p.steps = 2;
    return p;
}

/* Whether the control changes what comes out. */
static void must_change(diffusion *d, diffusion_params *p, const diffusion_control *c) {
    image with, without;
    use(p, c, 1);
    with = picture_of(d, p);
    use(p, NULL, 0);
    without = picture_of(d, p);
    assert_lively(&with);
    assert_int_equal(with.width, without.width);
    assert_true(psnr(&with, &without) < 40);
    image_free(&with);
    image_free(&without);
}

/* ---- what a control does ---------------------------------------------------------------------------------------- */

static void every_naming(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    image card = test_card(W, H);
    const diffusion_control a = control_of("tiny-canny", &card), b = control_of("tiny-diffusers", &card);
    diffusion_params p = quick_params();
    use(&p, &a, 1);
    image first = picture_of(d, &p), again = picture_of(d, &p);
    use(&p, &b, 1);
    image second = picture_of(d, &p);
    print_message("f32 and f16: %.1f dB\n", psnr(&first, &second));
    assert_true(same(&first, &again) && psnr(&first, &second) > 40);
    must_change(d, &p, &a);
    image_free(&first);
    image_free(&again);
    image_free(&second);
    image_free(&card);
    control_free(&a);
    control_free(&b);
    diffusion_close(d);
}

static void other_families(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sdxl-f32.safetensors");
    image card = test_card(W, H);
    const diffusion_control c = control_of("tiny-xl", &card);
    diffusion_params p = quick_params();
    must_change(d, &p, &c);
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

/* In 4 steps: which of them the control takes part in. */
static void weight_and_part_of_the_run(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    diffusion_control c = control_of("tiny-canny", &card);
    diffusion_params p = small_params();
    image none = picture_of(d, &p), made[4];
    static const float rows[][3] = {{1, 0, 1}, {0.5f, 0, 1}, {1, 0, 0.5f}, {1, 0.5f, 1}};
    static const float idle[][3] = {{0, 0, 1}, {1, 0.3f, 0.6f}}; /* the latter holds no whole step */
    use(&p, &c, 1);
    for (int i = 0; i < 4; i++) {
        c.weight = rows[i][0], c.start = rows[i][1], c.end = rows[i][2];
        made[i] = picture_of(d, &p);
        assert_false(same(&made[i], &none));
        for (int k = 0; k < i; k++) assert_false(same(&made[i], &made[k]));
    }
    for (int i = 0; i < 2; i++) {
        c.weight = idle[i][0], c.start = idle[i][1], c.end = idle[i][2];
        image same_as_none = picture_of(d, &p);
        assert_true(same(&same_as_none, &none));
        image_free(&same_as_none);
    }
    for (int i = 0; i < 4; i++) image_free(&made[i]);
    image_free(&none);
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

static void several_add_up(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    image card = test_card(W, H);
    const diffusion_control one = control_of("tiny-canny", &card);
    diffusion_control halves[] = {one, one};
    halves[0].weight = 0.75f, halves[1].weight = 0.25f;
    diffusion_params p = quick_params();
    use(&p, &one, 1);
    image a = picture_of(d, &p);
    use(&p, halves, 2);
    image b = picture_of(d, &p);
    assert_true(psnr(&a, &b) > 55);
    image_free(&a);
    image_free(&b);
    image_free(&card);
    control_free(&one);
    diffusion_close(d);
}

static void modes(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), made[3];
    diffusion_control c = control_of("tiny-canny", &card);
    diffusion_params p = quick_params();
    use(&p, &c, 1);
    for (int i = 0; i < 3; i++) {
        c.mode = (diffusion_control_mode)i;
        made[i] = picture_of(d, &p);
        for (int k = 0; k < i; k++) assert_false(same(&made[i], &made[k]));
    }
    p.cfg_scale = 1; /* without a negative prompt two of them are one */
    image alone[2];
    for (int i = 0; i < 2; i++) {
        c.mode = (diffusion_control_mode)(i + 1);
        alone[i] = picture_of(d, &p);
    }
    assert_true(same(&alone[0], &alone[1]));
    for (int i = 0; i < 2; i++) image_free(&alone[i]);
    for (int i = 0; i < 3; i++) image_free(&made[i]);
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

/* Edges found here are those given ready; the picture is scaled and cropped first. */
static void canny_is_built_in(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(150, 100), fitted, edges;
    assert_true(image_crop_to_fit(&fitted, &card, W, H) && canny(&edges, &fitted, 60, 120));
    diffusion_control found = control_of("tiny-canny", &card), ready = control_of("tiny-canny", &edges);
    found.preprocessor = DIFFUSION_PREPROCESS_CANNY;
    found.low = 60, found.high = 120;
    diffusion_params p = quick_params();
    use(&p, &found, 1);
    image a = picture_of(d, &p);
    use(&p, &ready, 1);
    image b = picture_of(d, &p);
    found.preprocessor = DIFFUSION_PREPROCESS_NONE;
    use(&p, &found, 1);
    image c = picture_of(d, &p);
    assert_true(same(&a, &b) && !same(&a, &c));
    image_free(&a);
    image_free(&b);
    image_free(&c);
    image_free(&card);
    image_free(&fitted);
    image_free(&edges);
    control_free(&found);
    control_free(&ready);
    diffusion_close(d);
}

/* ---- in every kind of work -------------------------------------------------------------------------------------- */

static void image_to_image_and_inpainting(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), start = test_card(110, 90), mask;
    assert_true(image_alloc(&mask, 110, 90, 1));
    memset(mask.px + 30 * 110, 255, 40 * 110);
    const diffusion_control c = control_of("tiny-canny", &card);
    diffusion_params p = small_params();
    p.init = &start;
    must_change(d, &p, &c);
    p.inpaint.mask = &mask;
    must_change(d, &p, &c);
    p.inpaint.only_masked = true;
    must_change(d, &p, &c);
    image_free(&card);
    image_free(&start);
    image_free(&mask);
    control_free(&c);
    diffusion_close(d);
}

/* A picture that says nothing but where one is: with only the masked part sampled, the network must be shown that part
 * of the control picture, so that what lies elsewhere in it changes nothing. */
static void only_the_masked_part_is_shown(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image start = test_card(256, 64), mask, a, b;
    assert_true(image_alloc(&mask, 256, 64, 1) && image_alloc(&a, 256, 64, 3) && image_copy(&b, &a));
    for (int y = 20; y < 40; y++) memset(mask.px + y * 256 + 20, 255, 20);
    for (int y = 0; y < 64; y++) memset(b.px + 3 * (y * 256 + 128), 255, 3 * 128);
    diffusion_control on_a = control_of("tiny-canny", &a), on_b = control_of("tiny-canny", &b);
    diffusion_params p = small_params();
    p.init = &start;
    p.inpaint.mask = &mask;
    p.inpaint.only_masked = true;
    p.inpaint.padding = 8;
    use(&p, &on_a, 1);
    image first = picture_of(d, &p);
    use(&p, &on_b, 1);
    image second = picture_of(d, &p);
    assert_true(same(&first, &second));
    p.inpaint.only_masked = false;
    p.width = 256;
    image third = picture_of(d, &p);
    use(&p, &on_a, 1);
    image fourth = picture_of(d, &p);
    assert_false(same(&third, &fourth));
    image_free(&first);
    image_free(&second);
    image_free(&third);
    image_free(&fourth);
    image_free(&start);
    image_free(&mask);
    image_free(&a);
    image_free(&b);
    control_free(&on_a);
    control_free(&on_b);
    diffusion_close(d);
}

/* Their networks are shown more than the latent, a ControlNet is not. */
static void models_that_take_more(void **state) {
    (void)state;
    static const char *const models[] = {"tiny-sd1-inpaint.safetensors", "tiny-sd1-edit.safetensors"};
    for (int i = 0; i < 2; i++) {
        diffusion *d = open_tiny(models[i]);
        image card = test_card(W, H), start = test_card(W, H);
        const diffusion_control c = control_of("tiny-canny", &card);
        diffusion_params p = quick_params();
        p.init = &start;
        p.strength = 1;
        must_change(d, &p, &c);
        image_free(&card);
        image_free(&start);
        control_free(&c);
        diffusion_close(d);
    }
}

/* Prompts of two lengths are asked one after the other, composed ones, too. */
static void prompts_asked_in_turn(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(72, 64);
    const diffusion_control c = control_of("tiny-canny", &card);
    buf words;
    buf_init(&words, 1 << 16);
    for (int i = 0; i < 90; i++) buf_puts(&words, "fox ");
    diffusion_params p = quick_params();
    p.width = 72;
    p.prompt = buf_str(&words);
    must_change(d, &p, &c);
    p.prompt = "a fox AND a tower :0.5";
    must_change(d, &p, &c);
    buf_free(&words);
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

static double part_psnr(const image *a, const image *b, int x, int width) {
    image one, two;
    assert_true(image_crop(&one, a, x, 0, width, a->height) && image_crop(&two, b, x, 0, width, b->height));
    const double db = psnr(&one, &two);
    image_free(&one);
    image_free(&two);
    return db;
}

/* Three windows side by side: what differs in the control picture's last third changes that third. The autoencoder
 * carries a little of it over. */
static void windows_see_their_part(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image a = test_card(3 * W, H), b;
    assert_true(image_copy(&b, &a));
    for (int y = 0; y < H; y++) memset(b.px + 3 * (y * 3 * W + 2 * W), 255, 3 * W);
    diffusion_control on_a = control_of("tiny-canny", &a), on_b = control_of("tiny-canny", &b);
    on_a.weight = on_b.weight = 2;
    diffusion_params p = small_params();
    p.width = 3 * W;
    p.sampling.tile = W;
    p.sampling.tile_overlap = 0;
    use(&p, &on_a, 1);
    image first = picture_of(d, &p);
    use(&p, &on_b, 1);
    image second = picture_of(d, &p);
    const double left = part_psnr(&first, &second, 0, W), right = part_psnr(&first, &second, 2 * W, W);
    print_message("the first third: %.1f dB, the last: %.1f dB\n", left, right);
    assert_true(left > right + 5);
    image_free(&first);
    image_free(&second);
    image_free(&a);
    image_free(&b);
    control_free(&on_a);
    control_free(&on_b);
    diffusion_close(d);
}

static void a_batch_is_its_pictures_alone(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    const diffusion_control c = control_of("tiny-canny", &card);
    diffusion_params p = quick_params();
    witness both = {0};
    use(&p, &c, 1);
    p.batch = 2;
    must_generate(d, &p, &both);
    p.batch = 1;
    p.seed++;
    image second = picture_of(d, &p);
    assert_true(same(&both.pictures[1], &second));
    witness_free(&both);
    image_free(&second);
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

/* Broken off in the second pass, and gone on with by an engine that was just opened. */
static void hires_and_resume(void **state) {
    (void)state;
    char *path = str_fmt("/tmp/mysti-control-%d", (int)getpid());
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), other = test_card(W, H);
    memset(other.px, 255, image_bytes(&other) / 2);
    const diffusion_control c = control_of("tiny-canny", &card), on_other = control_of("tiny-canny", &other);
    diffusion_params p = small_params();
    p.hires = (diffusion_hires){.scale = 1.5f, .strength = 0.8f, .upscaler = "latent"};
    must_change(d, &p, &c);
    use(&p, &c, 1);
    image want = picture_of(d, &p);
    assert_int_equal(want.width, 96);
    witness stopped = {.cancel_at_step = 6}, w = {0}, foreign = {.cancel_at_step = 1};
    diffusion_result result;
    p.checkpoint = path;
    p.checkpoint_ms = 0;
    assert_false(generate(d, &p, &stopped, NULL, NULL));
    diffusion_close(d);
    d = open_tiny("tiny-sd1-f16.safetensors");
    assert_true(generate(d, &p, &w, &result, NULL));
    assert_true(result.resumed_step == 6 && same(&want, &w.pictures[0]));
    stopped.steps_told = 0;
    assert_false(generate(d, &p, &stopped, NULL, NULL)); /* another control picture is other work */
    use(&p, &on_other, 1);
    assert_false(generate(d, &p, &foreign, &result, NULL));
    assert_int_equal(result.resumed_step, 0);
    unlink(path);
    witness_free(&w);
    image_free(&want);
    image_free(&card);
    image_free(&other);
    control_free(&c);
    control_free(&on_other);
    diffusion_close(d);
    free(path);
}

/* ---- what is refused -------------------------------------------------------------------------------------------- */

static void bad_files_leave_the_model(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"tiny-xl",
         "controlnet[0].model: 'tiny-xl.safetensors': a ControlNet for text of 96 values (sdxl), the model's "
         "has 32"},
        {"absent", "controlnet[0].model: "},
        {"../loras/tiny-lora", "it holds no whole ControlNet"},
        {"../tiny-vae", "it holds no whole ControlNet"},
    };
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    diffusion_params p = quick_params();
    image without = picture_of(d, &p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const diffusion_control c = control_of(rows[i][0], &card);
        err e = {0};
        use(&p, &c, 1);
        assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
        if (!strstr(e.msg, rows[i][1])) fail_msg("%s: %s", rows[i][0], e.msg);
        control_free(&c);
    }
    use(&p, NULL, 0);
    image now = picture_of(d, &p);
    assert_true(same(&without, &now));
    image_free(&now);
    image_free(&without);
    image_free(&card);
    diffusion_close(d);
}

static void expect_refusal(const diffusion *d, const diffusion_control *c, size_t count, const char *message) {
    diffusion_params p = quick_params();
    err e = {0};
    use(&p, c, count);
    assert_false(diffusion_check(d, &p, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.msg, message);
}

static void parameters_are_checked_by_name(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    const diffusion_control good = control_of("tiny-canny", &card);
    diffusion_control c[DIFFUSION_CONTROLS_MAX + 1];
    for (int i = 0; i <= DIFFUSION_CONTROLS_MAX; i++) c[i] = good;
    expect_refusal(d, c, DIFFUSION_CONTROLS_MAX + 1, "controlnet: more than 8");
    c[1].weight = NAN;
    expect_refusal(d, c, 2, "controlnet[1].weight: nan is not between 0 and 2");
    c[1] = good, c[1].start = 0.5f, c[1].end = 0.25f;
    expect_refusal(d, c, 2, "controlnet[1].end: 0.25 is before start, 0.5");
    c[1] = good, c[1].start = -1;
    expect_refusal(d, c, 2, "controlnet[1].start: -1 is not between 0 and 1");
    c[1] = good, c[1].low = 2041;
    expect_refusal(d, c, 2, "controlnet[1].low_threshold: 2041 is not between 0 and 2040");
    c[1] = good, c[1].high = 50;
    expect_refusal(d, c, 2, "controlnet[1].high_threshold: 50 is not between low_threshold, 100, and 2040");
    c[0].picture = NULL;
    expect_refusal(d, c, 1, "controlnet[0].image: required");
    c[0] = good, c[0].path = "";
    expect_refusal(d, c, 1, "controlnet[0].model: required");
    image_free(&card);
    control_free(&good);
    diffusion_close(d);
}

static void they_count_as_memory(void **state) {
    (void)state;
    err e = {0};
    diffusion_options some = {.memory_limit = 150 << 20};
    diffusion *d = open_with(&some, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e);
    image card = test_card(W, H);
    const diffusion_control c = control_of("tiny-canny", &card), both[] = {c, c};
    diffusion_params p = quick_params();
    diffusion_memory without, one, two;
    assert_true(diffusion_estimate(d, &p, &without, &e));
    use(&p, &c, 1);
    assert_true(diffusion_estimate(d, &p, &one, &e));
    use(&p, both, 2);
    assert_true(diffusion_estimate(d, &p, &two, &e));
    assert_in_range(one.weights - without.weights, 3 << 20, 7 << 20);
    assert_int_equal(one.weights, two.weights); /* one file */
    assert_true(one.compute >= without.compute);
    diffusion_close(d);
    some.memory_limit = one.compute + (1 << 20);
    d = open_with(&some, "tiny-sd1-f16.safetensors", NULL, NULL, NULL, &e);
    assert_non_null(d);
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "ControlNets need"));
    image_free(&card);
    control_free(&c);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_naming),
        cmocka_unit_test(other_families),
        cmocka_unit_test(weight_and_part_of_the_run),
        cmocka_unit_test(several_add_up),
        cmocka_unit_test(modes),
        cmocka_unit_test(canny_is_built_in),
        cmocka_unit_test(image_to_image_and_inpainting),
        cmocka_unit_test(only_the_masked_part_is_shown),
        cmocka_unit_test(models_that_take_more),
        cmocka_unit_test(prompts_asked_in_turn),
        cmocka_unit_test(windows_see_their_part),
        cmocka_unit_test(a_batch_is_its_pictures_alone),
        cmocka_unit_test(hires_and_resume),
        cmocka_unit_test(bad_files_leave_the_model),
        cmocka_unit_test(parameters_are_checked_by_name),
        cmocka_unit_test(they_count_as_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
