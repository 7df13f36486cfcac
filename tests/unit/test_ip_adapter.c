/* IP-Adapters as the engine's users see them; the networks' numbers are compared by tools/ref/ip_adapter.py. */
#include "diffusion_test.h"

#include "base/buf.h"
#include "base/file.h"

#include <unistd.h>

enum { W = 64, H = 64 };

/* The paths are to be freed. */
static diffusion_ip_adapter adapter_of(const char *file, const image *picture) {
    return (diffusion_ip_adapter){.path = str_fmt("%s/ipadapter/%s.safetensors", folder, file),
                                  .clip_vision = str_fmt("%s/clip_vision/tiny-vision.safetensors", folder),
                                  .picture = picture,
                                  .weight = 1,
                                  .end = 1};
}

static void adapter_free(const diffusion_ip_adapter *a) {
    free((char *)(uintptr_t)a->path);
    free((char *)(uintptr_t)a->clip_vision);
}

static diffusion_params quick_params(const diffusion_ip_adapter *a) {
    diffusion_params p = small_params();
    p.steps = 2;
    if (a) p.ip_adapter = *a;
    return p;
}

/* Of another picture: the card upside down, darker. */
static image other_card(void) {
    image card = test_card(90, 140);
    for (size_t i = 0; i < image_bytes(&card); i++) card.px[i] = (unsigned char)(card.px[i] / 2);
    return card;
}

static void must_change(diffusion *d, const diffusion_params *with) {
    diffusion_params without = *with;
    without.ip_adapter = (diffusion_ip_adapter){0};
    image a = picture_of(d, with), b = picture_of(d, &without);
    assert_lively(&a);
    assert_true(psnr(&a, &b) < 40);
    image_free(&a);
    image_free(&b);
}

/* ---- what it does ------------------------------------------------------------------------------------------------ */

static void each_kind_shows_the_picture(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"tiny-sd1-f16.safetensors", "tiny-ip"},
                                          {"tiny-sd1-f32.safetensors", "tiny-ip-plus"},
                                          {"tiny-sdxl-f32.safetensors", "tiny-ip-xl"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        diffusion *d = open_tiny(rows[i][0]);
        image card = test_card(100, 70), other = other_card();
        diffusion_ip_adapter a = adapter_of(rows[i][1], &card);
        diffusion_params p = quick_params(&a);
        must_change(d, &p);
        image first = picture_of(d, &p), again = picture_of(d, &p);
        p.ip_adapter.picture = &other;
        image second = picture_of(d, &p);
        assert_true(same(&first, &again) && !same(&first, &second));
        image_free(&first);
        image_free(&again);
        image_free(&second);
        image_free(&card);
        image_free(&other);
        adapter_free(&a);
        diffusion_close(d);
    }
}

/* In 4 steps: which of them it takes part in. */
static void weight_and_part_of_the_run(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), made[4];
    diffusion_ip_adapter a = adapter_of("tiny-ip", &card);
    diffusion_params p = small_params();
    image none = picture_of(d, &p);
    static const float rows[][3] = {{1, 0, 1}, {0.5f, 0, 1}, {1, 0, 0.5f}, {1, 0.5f, 1}};
    static const float idle[][3] = {{0, 0, 1}, {1, 0.3f, 0.6f}}; /* the latter holds no whole step */
    p.ip_adapter = a;
    for (int i = 0; i < 4; i++) {
        p.ip_adapter.weight = rows[i][0], p.ip_adapter.start = rows[i][1], p.ip_adapter.end = rows[i][2];
        made[i] = picture_of(d, &p);
        assert_false(same(&made[i], &none));
        for (int k = 0; k < i; k++) assert_false(same(&made[i], &made[k]));
    }
    for (int i = 0; i < 2; i++) {
        p.ip_adapter.weight = idle[i][0], p.ip_adapter.start = idle[i][1], p.ip_adapter.end = idle[i][2];
        image as_none = picture_of(d, &p);
        assert_true(same(&as_none, &none));
        image_free(&as_none);
    }
    for (int i = 0; i < 4; i++) image_free(&made[i]);
    image_free(&none);
    image_free(&card);
    adapter_free(&a);
    diffusion_close(d);
}

/* Prompts of two lengths are asked one after the other, composed ones, too; and from a picture, and inpainting. */
static void in_every_kind_of_work(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), start = test_card(80, 80);
    diffusion_ip_adapter a = adapter_of("tiny-ip", &card);
    buf words;
    buf_init(&words, 1 << 16);
    for (int i = 0; i < 90; i++) buf_puts(&words, "fox ");
    diffusion_params p = quick_params(&a);
    p.prompt = buf_str(&words);
    must_change(d, &p);
    p.prompt = "a fox AND a tower :0.5";
    must_change(d, &p);
    p.prompt = "a fox";
    p.init = &start;
    p.strength = 1;
    must_change(d, &p);
    p.init = NULL;
    p.cfg_scale = 1;
    must_change(d, &p);
    buf_free(&words);
    image_free(&card);
    image_free(&start);
    adapter_free(&a);
    diffusion_close(d);
}

/* Broken off in the second pass, and gone on with by an engine that was just opened. */
static void hires_and_resume(void **state) {
    (void)state;
    char *path = str_fmt("/tmp/mysti-ip-adapter-%d", (int)getpid());
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H), other = other_card();
    diffusion_ip_adapter a = adapter_of("tiny-ip", &card);
    diffusion_params p = small_params();
    p.ip_adapter = a;
    p.hires = (diffusion_hires){.scale = 1.5f, .strength = 0.8f, .upscaler = "latent"};
    image want = picture_of(d, &p);
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
    assert_false(generate(d, &p, &stopped, NULL, NULL)); /* another picture is other work */
    p.ip_adapter.picture = &other;
    assert_false(generate(d, &p, &foreign, &result, NULL));
    assert_int_equal(result.resumed_step, 0);
    unlink(path);
    witness_free(&w);
    image_free(&want);
    image_free(&card);
    image_free(&other);
    adapter_free(&a);
    diffusion_close(d);
    free(path);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void bad_files_leave_the_model(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"tiny-ip-xl",
         "ip_adapter.model: 'tiny-ip-xl.safetensors': an IP-Adapter for another UNet than the model's: of "
         "sdxl, with 17 cross-attentions, the model has 16"},
        {"tiny-ip-faceid", "IP-Adapter FaceID: not supported yet"},
        {"absent", "ip_adapter.model: "},
        {"../loras/tiny-lora", "the file holds no IP-Adapter"},
        {"../clip_vision/tiny-vision", "the file holds no IP-Adapter"},
    };
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    diffusion_params p = quick_params(NULL);
    image without = picture_of(d, &p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const diffusion_ip_adapter a = adapter_of(rows[i][0], &card);
        err e = {0};
        p.ip_adapter = a;
        assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
        if (!strstr(e.msg, rows[i][1])) fail_msg("%s: %s", rows[i][0], e.msg);
        adapter_free(&a);
    }
    diffusion_ip_adapter a = adapter_of("tiny-ip", &card); /* a file that is no image encoder */
    err e = {0};
    char *encoder = (char *)(uintptr_t)a.clip_vision;
    a.clip_vision = a.path;
    p.ip_adapter = a;
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    if (!strstr(e.msg, "ip_adapter.clip_vision: ")) fail_msg("%s", e.msg);
    assert_non_null(strstr(e.msg, "holds no CLIP vision encoder"));
    a.clip_vision = encoder;
    adapter_free(&a);
    p.ip_adapter = (diffusion_ip_adapter){0};
    image now = picture_of(d, &p);
    assert_true(same(&without, &now));
    image_free(&now);
    image_free(&without);
    image_free(&card);
    diffusion_close(d);
}

static void expect_refusal(const diffusion *d, const diffusion_ip_adapter *a, const char *message) {
    diffusion_params p = quick_params(a);
    err e = {0};
    assert_false(diffusion_check(d, &p, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.msg, message);
}

static void parameters_are_checked_by_name(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(W, H);
    const diffusion_ip_adapter good = adapter_of("tiny-ip", &card);
    diffusion_ip_adapter a = good;
    a.weight = NAN;
    expect_refusal(d, &a, "ip_adapter.weight: nan is not between 0 and 2");
    a = good, a.start = -1;
    expect_refusal(d, &a, "ip_adapter.start: -1 is not between 0 and 1");
    a = good, a.start = 0.5f, a.end = 0.25f;
    expect_refusal(d, &a, "ip_adapter.end: 0.25 is before start, 0.5");
    a = good, a.picture = NULL;
    expect_refusal(d, &a, "ip_adapter.image: required");
    a = good, a.clip_vision = "";
    expect_refusal(d, &a, "ip_adapter.clip_vision: required");
    image_free(&card);
    adapter_free(&good);
    diffusion_close(d);
}

/* The adapter's file and the encoder's, loaded or not. */
static void it_counts_as_memory(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    image card = test_card(100, 70);
    diffusion_ip_adapter a = adapter_of("tiny-ip", &card);
    diffusion_params p = quick_params(&a), none = quick_params(NULL);
    diffusion_memory with, without, loaded;
    buf adapter, encoder;
    err e = {0};
    buf_init(&adapter, 64 << 20);
    buf_init(&encoder, 64 << 20);
    assert_true(file_read(a.path, &adapter, &e) && file_read(a.clip_vision, &encoder, &e));
    assert_true(diffusion_estimate(d, &p, &with, &e) && diffusion_estimate(d, &none, &without, &e));
    const size_t files = adapter.len + encoder.len, headers = 64 << 10; /* names and places */
    assert_in_range(with.weights - without.weights, files - headers, files);
    image made = picture_of(d, &p);
    assert_true(diffusion_estimate(d, &p, &loaded, &e));
    assert_int_equal(loaded.weights, with.weights);
    free((char *)(uintptr_t)p.ip_adapter.clip_vision);
    p.ip_adapter.clip_vision = a.clip_vision = str_fmt("%s/missing.safetensors", folder);
    assert_false(diffusion_estimate(d, &p, &with, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    image_free(&made);
    image_free(&card);
    buf_free(&adapter);
    buf_free(&encoder);
    adapter_free(&a);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_shows_the_picture),
        cmocka_unit_test(weight_and_part_of_the_run),
        cmocka_unit_test(in_every_kind_of_work),
        cmocka_unit_test(hires_and_resume),
        cmocka_unit_test(it_counts_as_memory),
        cmocka_unit_test(bad_files_leave_the_model),
        cmocka_unit_test(parameters_are_checked_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
