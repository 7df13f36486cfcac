/* The ladder of a device with too little memory, rung by rung: pictures stay the same, no more is allocated than there
 * is, and the log says what was done. The device is made for this (small_device.h); operations are ggml's own, as on
 * any accelerator. */
#include "diffusion_test.h"
#include "small_device.h"

#include "base/file.h"
#include "base/log.h"
#include "diffusion/engine.h"
#include "diffusion/load/convert.h"
#include "diffusion/memory.h"

#include <unistd.h>

static const size_t plenty = (size_t)4 << 30;
static const double alike = 45; /* dB: a convolution that is streamed is summed in another order */

static small_device *small;
static char log_path[64];

static diffusion *open_on_device(const char *name, bool is_deferred, err *e) {
    const diffusion_options options = {.device = SMALL_DEVICE, .is_deferred = is_deferred};
    return open_with(&options, name, NULL, NULL, NULL, e);
}

static diffusion *must_open(const char *name) {
    err e = {0};
    diffusion *d = open_on_device(name, false, &e);
    if (!d) fail_msg("%s", e.msg);
    return d;
}

static void limit_to(size_t bytes) {
    *small = (small_device){.limit = bytes, .used = small->used, .peak = small->used};
}

static void clear_log(void) {
    err e;
    log_close_file();
    unlink(log_path);
    if (!log_open_file(log_path, 1 << 20, &e)) fail_msg("%s", e.msg);
}

static bool log_says(const char *what) {
    buf text;
    buf_init(&text, 1 << 20);
    assert_true(file_read(log_path, &text, NULL));
    const bool there = strstr(buf_str(&text), what);
    if (!there) print_message("not in the log: %s\n%s\n", what, buf_str(&text));
    buf_free(&text);
    return there;
}

/* What the device needs for all of it, and the picture that it makes then. */
typedef struct roomy {
    image picture;
    size_t weights, unet, compute, peak;
} roomy;

static roomy with_plenty(const char *name, const diffusion_params *p) {
    limit_to(plenty);
    diffusion *d = must_open(name);
    roomy r = {.weights = weights_asked_bytes(d->weights, ""), .unet = weights_asked_bytes(d->weights, UNET_WEIGHTS)};
    diffusion_memory need;
    assert_true(diffusion_estimate(d, p, &need, NULL));
    r.compute = need.compute;
    r.picture = picture_of(d, p);
    r.peak = small->peak;
    assert_int_equal(d->place, PLACE_DEVICE);
    assert_lively(&r.picture);
    diffusion_close(d);
    assert_int_equal(small->used, 0);
    return r;
}

static void expect_alike(diffusion *d, const diffusion_params *p, const image *wanted) {
    image made = picture_of(d, p);
    const double db = psnr(&made, wanted);
    if (db < alike) fail_msg("%.1f dB", db);
    image_free(&made);
}

/* ---- rungs chosen by the estimate -------------------------------------------------------------------------------- */

static const char sd1[] = "tiny-sd1-f32.safetensors";

static void the_device_computes_what_the_cpu_does(void **state) {
    (void)state;
    const diffusion_params p = small_params();
    roomy all = with_plenty(sd1, &p);
    diffusion *cpu = open_with(&(diffusion_options){.device = "CPU"}, sd1, NULL, NULL, NULL, NULL);
    expect_alike(cpu, &p, &all.picture);
    image_free(&all.picture);
    diffusion_close(cpu);
}

static void smaller_tiles(void **state) {
    (void)state;
    diffusion_params p = small_params();
    p.width = p.height = 288;
    p.steps = 1;
    p.cfg_scale = 1;
    clear_log();
    limit_to(plenty);
    diffusion *d = must_open(sd1);
    limit_to(small->used + memory_for_vae(d, 32, 32));
    image made = picture_of(d, &p);
    assert_int_equal(d->place, PLACE_DEVICE);
    assert_true(log_says("the VAE works in tiles of 256 pixels"));
    image_free(&made);
    diffusion_close(d);
}

/* Text encoders and VAE first, then the UNet; and back. */
static void expect_streaming(const char *model) {
    const diffusion_params p = small_params();
    roomy all = with_plenty(model, &p);
    const size_t limits[] = {all.compute + all.unet + (all.weights - all.unet) / 2, all.compute + all.unet / 2};
    for (int i = 0; i < 2; i++) {
        clear_log();
        limit_to(limits[i]);
        diffusion *d = must_open(model);
        small->peak = 0;
        expect_alike(d, &p, &all.picture);
        assert_int_equal(d->place, i ? PLACE_HOST : PLACE_UNET);
        assert_true(log_says(i ? "all weights are streamed" : "text encoders and VAE are streamed"));
        assert_true(small->peak < all.peak - (i ? all.weights : all.weights - all.unet) / 2);
        limit_to(plenty); /* there is room again */
        expect_alike(d, &p, &all.picture);
        assert_int_equal(d->place, PLACE_DEVICE);
        assert_true(log_says("all weights have room"));
        diffusion_close(d);
    }
    image_free(&all.picture);
}

static void weights_are_streamed(void **state) {
    (void)state;
    expect_streaming(sd1);
    expect_streaming("tiny-sd1-f16.safetensors");
    expect_streaming("tiny-sdxl-f32.safetensors");
}

/* q4_K comes with q5_0, where rows are no whole blocks of 256, and with f16. */
static void quantised_weights_are_streamed(void **state) {
    (void)state;
    static const char *const types[] = {"q8_0", "q4_K"};
    char *name = str_fmt("quantised-%d.gguf", (int)getpid());
    char *from = path_join(folder, sd1), *to = path_join(folder, name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const convert_request r = {.files = {.model = from}, .type = types[i], .output = to};
        convert_result made;
        err e = {0};
        if (!convert_model(&r, &made, &e)) fail_msg("%s: %s", types[i], e.msg);
        assert_true(made.other < made.tensors);
        expect_streaming(name);
    }
    unlink(to);
    free(to);
    free(from);
    free(name);
}

static void the_other_model_gives_way(void **state) {
    (void)state;
    static const char base[] = "tiny-sdxl-f32.safetensors", refiner[] = "tiny-sdxl-refiner-f32.safetensors";
    diffusion_params p = small_params();
    err e = {0};
    roomy first = with_plenty(base, &p), second = with_plenty(refiner, &p);
    limit_to(plenty);
    diffusion *d = must_open(base), *f = open_on_device(refiner, true, &e);
    p.refiner = (diffusion_refiner){.model = f, .switch_at = 0.5f};
    image both = picture_of(d, &p);
    assert_true(d->is_resident && f->is_resident);
    clear_log();
    limit_to(first.weights + first.compute + second.unet / 2);
    expect_alike(d, &p, &both);
    assert_true(d->is_resident && !f->is_resident && d->place == PLACE_DEVICE && f->place == PLACE_DEVICE);
    assert_true(log_says("one gives way"));
    image_free(&both);
    image_free(&first.picture);
    image_free(&second.picture);
    diffusion_close(f);
    diffusion_close(d);
}

static void an_error_with_the_figures(void **state) {
    (void)state;
    const diffusion_params p = small_params();
    err e = {0};
    limit_to(1 << 20);
    diffusion *d = must_open(sd1);
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "64x64 needs 0.1 GB of memory to compute, SMALL0 has 0.0 GB free"));
    small->claimed = plenty; /* the device promises too much */
    assert_false(diffusion_generate(d, &p, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_int_equal(d->place, PLACE_HOST);
    limit_to(plenty); /* and the model is as good as ever */
    image made = picture_of(d, &p);
    assert_lively(&made);
    image_free(&made);
    diffusion_close(d);
}

/* ---- rungs after an allocation that failed ----------------------------------------------------------------------- */

static void work_begins_again_with_less(void **state) {
    (void)state;
    diffusion_params p = small_params();
    roomy all = with_plenty(sd1, &p);
    const size_t limits[] = {all.peak - (1 << 20), all.peak - all.weights + all.unet / 2};
    for (int i = 0; i < 2; i++) {
        witness w = {0};
        clear_log();
        limit_to(limits[i]);
        small->claimed = plenty;
        diffusion *d = must_open(sd1);
        p.batch = 2;
        must_generate(d, &p, &w);
        assert_int_equal(w.count, 2); /* each once */
        assert_true(psnr(&w.pictures[0], &all.picture) > alike);
        assert_int_equal(d->place, i ? PLACE_HOST : PLACE_UNET);
        assert_true(log_says(i ? "all weights are streamed" : "the work begins again with less on SMALL0"));
        assert_true(small->peak <= limits[i]);
        p.batch = 1; /* what was seen is remembered */
        clear_log();
        expect_alike(d, &p, &all.picture);
        witness_free(&w);
        diffusion_close(d);
    }
    image_free(&all.picture);
}

/* ---- with networks besides --------------------------------------------------------------------------------------- */

static void networks_are_streamed_too(void **state) {
    (void)state;
    char *control = str_fmt("%s/controlnet/tiny-canny.safetensors", folder);
    char *lora = str_fmt("%s/loras/tiny-locon.safetensors", folder);
    image card = test_card(64, 64);
    diffusion_control c;
    diffusion_control_init(&c);
    c.path = control;
    c.picture = &card;
    const diffusion_lora l = {lora, "tiny-locon", 0.8f, 0.8f, false};
    diffusion_params p = small_params();
    p.controls = &c;
    p.control_count = 1;
    p.loras = &l;
    p.lora_count = 1;
    roomy all = with_plenty(sd1, &p);
    limit_to(all.compute + all.unet / 2);
    diffusion *d = must_open(sd1);
    small->peak = 0;
    expect_alike(d, &p, &all.picture);
    assert_int_equal(d->place, PLACE_HOST);
    assert_true(small->peak < all.peak - all.weights);
    image_free(&all.picture);
    image_free(&card);
    free(control);
    free(lora);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    small = small_device_register();
    snprintf(log_path, sizeof log_path, "/tmp/mysti-ladder-%d.log", (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_device_computes_what_the_cpu_does),
        cmocka_unit_test(smaller_tiles),
        cmocka_unit_test(weights_are_streamed),
        cmocka_unit_test(quantised_weights_are_streamed),
        cmocka_unit_test(the_other_model_gives_way),
        cmocka_unit_test(an_error_with_the_figures),
        cmocka_unit_test(work_begins_again_with_less),
        cmocka_unit_test(networks_are_streamed_too),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_close_file();
    unlink(log_path);
    return failed;
}
