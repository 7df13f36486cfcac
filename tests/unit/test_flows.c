/* Other ways through the models: a refiner that takes over within the run, tiles, step caching. flows.py compares them
 * with PyTorch.
 */
#include "diffusion_test.h"

#include "diffusion/engine.h"

static const char base[] = "tiny-sdxl-f32.safetensors", refiner[] = "tiny-sdxl-refiner-f32.safetensors";

/* ---- a refiner --------------------------------------------------------------------------------------------------- */

static void refiner_takes_over(void **state) {
    (void)state;
    diffusion *d = open_tiny(base), *f = open_deferred(refiner, 0);
    diffusion_params p = small_params();
    assert_false(f->is_resident);
    image alone = picture_of(d, &p);
    p.refiner = (diffusion_refiner){.model = f, .switch_at = 1};
    image never = picture_of(d, &p);
    assert_true(same(&alone, &never));
    assert_false(f->is_resident);
    image made[3];
    static const float at[] = {0, 0.5f, 0.51f};
    for (int i = 0; i < 3; i++) {
        p.refiner.switch_at = at[i];
        made[i] = picture_of(d, &p);
        assert_lively(&made[i]);
        assert_false(same(&alone, &made[i]));
    }
    assert_true(d->is_resident && f->is_resident); /* there is memory for both */
    assert_false(same(&made[0], &made[1]));
    assert_false(same(&made[1], &made[2])); /* two steps of four, and three */
    image_free(&alone);
    image_free(&never);
    for (int i = 0; i < 3; i++) image_free(&made[i]);
    diffusion_close(f);
    diffusion_close(d);
}

/* Of hires fix it makes the second pass. */
static void refiner_with_hires(void **state) {
    (void)state;
    diffusion *d = open_tiny(base), *f = open_deferred(refiner, 0);
    diffusion_params p = small_params();
    witness w = {0};
    p.hires = (diffusion_hires){.scale = 1.5f, .steps = 2, .strength = 0.5f, .upscaler = "latent"};
    p.steps = 1;
    image without = picture_of(d, &p);
    p.refiner = (diffusion_refiner){.model = f, .switch_at = 0.5f};
    must_generate(d, &p, &w);
    assert_int_equal(w.steps_told, 3);
    assert_false(same(&without, &w.pictures[0]));
    image_free(&without);
    witness_free(&w);
    diffusion_close(f);
    diffusion_close(d);
}

/* Neither memory for one model alone nor a LoRA that has to be merged again for the next picture changes a bit. */
static void models_give_way(void **state) {
    (void)state;
    char *path = str_fmt("%s/loras/xl-ldm.safetensors", folder);
    const diffusion_lora lora = {path, "xl-ldm", 0.8f, 0.8f, false};
    diffusion *d = open_tiny(base), *f = open_deferred(refiner, 0);
    diffusion_params p = small_params();
    diffusion_memory need;
    diffusion_info first, second;
    witness roomy = {0}, tight = {0};
    err e = {0};
    p.batch = 2;
    p.loras = &lora;
    p.lora_count = 1;
    if (!diffusion_estimate(d, &p, &need, &e)) fail_msg("%s", e.msg);
    p.refiner = (diffusion_refiner){.model = f, .switch_at = 0.5f};
    must_generate(d, &p, &roomy);
    diffusion_describe(d, &first);
    diffusion_describe(f, &second);
    diffusion_close(f);
    diffusion_close(d);
    const size_t limit = need.compute + first.weight_bytes + second.weight_bytes / 2;
    const diffusion_options options = {.memory_limit = limit};
    d = open_with(&options, base, NULL, NULL, NULL, &e);
    if (!d) fail_msg("%s", e.msg);
    p.refiner.model = f = open_deferred(refiner, limit);
    for (int run = 0; run < 2; run++) { /* the second one begins with what the first one left */
        must_generate(d, &p, &tight);
        assert_true(d->is_resident && !f->is_resident);
        for (int i = 0; i < 2; i++) assert_true(same(&roomy.pictures[i], &tight.pictures[i]));
        witness_free(&tight);
    }
    witness_free(&roomy);
    diffusion_close(f);
    diffusion_close(d);
    free(path);
}

static void resumed_refining_is_bit_identical(void **state) {
    (void)state;
    diffusion_params p = small_params();
    p.batch = 2;
    p.sampler = "dpm++2m";
    p.prompt = "a [red:blue:0.6] fox";
    p.refiner.switch_at = 0.5f;
    resumes(base, refiner, &p, 1, 0, 1); /* before the switch, at it, and behind it */
    resumes(base, refiner, &p, 2, 0, 2);
    resumes(base, refiner, &p, 4 + 3, 1, 3);
}

static void refiners_that_cannot_be(void **state) {
    (void)state;
    diffusion *d = open_tiny(base), *sd1 = open_deferred("tiny-sd1-f16.safetensors", 0),
              *edit = open_deferred("tiny-sd1-edit.safetensors", 0);
    diffusion_params p = small_params();
    err e = {0};
    p.refiner.model = sd1;
    assert_false(diffusion_check(d, &p, &e));
    assert_string_equal(e.msg, "refiner: a model of the family sd1 has other latents than one of sdxl");
    p.refiner = (diffusion_refiner){.model = d, .switch_at = 1.5f};
    assert_false(diffusion_check(d, &p, &e));
    assert_string_equal(e.msg, "switch_at: 1.5 is not between 0 and 1");
    p.refiner = (diffusion_refiner){.model = edit, .switch_at = 0.5f};
    assert_false(diffusion_check(sd1, &p, &e));
    assert_string_equal(e.msg, "refiner: a model for inpainting or editing cannot be one");
    diffusion_close(edit);
    diffusion_close(sd1);
    diffusion_close(d);
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

static void tiles(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    diffusion_memory whole_need, tiled_need;
    err e = {0};
    p.width = 160;
    p.steps = 2;
    image whole = picture_of(d, &p);
    p.sampling.tile = 160; /* as large as the picture */
    image same_size = picture_of(d, &p);
    assert_true(same(&whole, &same_size));
    p.sampling.tile = 64;
    p.sampling.tile_overlap = 16;
    image tiled = picture_of(d, &p);
    assert_lively(&tiled);
    assert_false(same(&whole, &tiled));
    p.sampling.tile_overlap = 32;
    image closer = picture_of(d, &p);
    assert_false(same(&tiled, &closer));
    image_free(&whole);
    image_free(&same_size);
    image_free(&tiled);
    image_free(&closer);

    p.tiling = DIFFUSION_TILING_ON; /* of the VAE */
    p.width = p.height = 3072;      /* the tile counts, for memory and for what can be done at all */
    p.sampling.tile = 0;
    assert_true(diffusion_estimate(d, &p, &whole_need, &e));
    p.sampling.tile = 512;
    assert_true(diffusion_estimate(d, &p, &tiled_need, &e));
    assert_true(tiled_need.compute < whole_need.compute);
    p.width = p.height = 4096;
    assert_true(diffusion_check(d, &p, &e));
    p.sampling.tile = 0;
    assert_false(diffusion_check(d, &p, &e));
    assert_string_equal(e.msg, "height: 4096x4096 has more than 9437184 pixels; diffusion_tile makes it possible");
    diffusion_close(d);
}

/* What a ControlNet adds is that of each window. */
static void tiles_with_a_control(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    char *path = str_fmt("%s/controlnet/tiny-canny.safetensors", folder);
    image card = test_card(128, 64);
    diffusion_control c;
    diffusion_params p = small_params();
    diffusion_control_init(&c);
    c.path = path;
    c.picture = &card;
    p.width = 128;
    p.steps = 2;
    image all[4]; /* bit 0: in tiles, bit 1: with the control */
    for (int i = 0; i < 4; i++) {
        p.sampling.tile = i & 1 ? 64 : 128;
        p.sampling.tile_overlap = 16;
        p.controls = &c;
        p.control_count = i & 2 ? 1 : 0;
        all[i] = picture_of(d, &p);
        assert_lively(&all[i]);
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++) assert_true(psnr(&all[i], &all[k]) < 40);
    c.weight = 0; /* no window gets anything */
    p.sampling.tile = 64;
    image none = picture_of(d, &p);
    assert_true(same(&none, &all[1]));
    image_free(&none);
    for (int i = 0; i < 4; i++) image_free(&all[i]);
    image_free(&card);
    free(path);
    diffusion_close(d);
}

static void tiles_that_cannot_be(void **state) {
    (void)state;
    static const struct {
        int tile, overlap;
        const char *says;
    } rows[] = {{32, 0, "diffusion_tile: 32 is not between 64 and 3072"},
                {100, 0, "diffusion_tile: 100 is not a multiple of 8"},
                {64, 40, "diffusion_tile_overlap: 40 is not between 0 and 32"},
                {64, 12, "diffusion_tile_overlap: 12 is not a multiple of 8"}};
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        p.sampling.tile = rows[i].tile;
        p.sampling.tile_overlap = rows[i].overlap;
        assert_false(diffusion_check(d, &p, &e));
        assert_string_equal(e.msg, rows[i].says);
    }
    diffusion_close(d);
}

/* ---- step caching ------------------------------------------------------------------------------------------------ */

/* From what the same input left, the last block makes the same; odd sizes included. */
static void the_last_block_alone(void **state) {
    (void)state;
    static const char *const models[] = {"tiny-sd1-f32.safetensors", "tiny-sdxl-f32.safetensors"};
    enum { N = 2, H = 9, W = 13, TOKENS = 77 };
    for (size_t m = 0; m < 2; m++) {
        diffusion *d = open_tiny(models[m]);
        const unet_info info = unet_describe(d->unet);
        const size_t in_n = (size_t)(N * info.in_channels * H * W), out_n = (size_t)(N * info.out_channels * H * W);
        const size_t text_n = (size_t)(N * TOKENS * info.context_dim), label_n = (size_t)(N * info.label_dim);
        float *all = mem_alloc(in_n + text_n + label_n + 3 * out_n, sizeof *all);
        float *deep = mem_alloc((size_t)(N * unet_deep_channels(d->unet) * H * W), sizeof *deep);
        float *text = all + in_n, *label = text + text_n, *out = label + label_n;
        const float timesteps[N] = {900, 500};
        for (size_t i = 0; i < in_n + text_n + label_n; i++) all[i] = sinf((float)(i * i % 1009));
        const unet_input in = {.x = all,
                               .n = N,
                               .h = H,
                               .w = W,
                               .timesteps = timesteps,
                               .context = text,
                               .tokens = TOKENS,
                               .label = label};
        err e = {0};
        assert_true(unet_eval(d->unet, &in, out, &e));
        assert_true(unet_eval_keeping(d->unet, &in, deep, out + out_n, &e));
        assert_true(unet_eval_shallow(d->unet, &in, deep, out + 2 * out_n, &e));
        for (size_t i = 0; i < out_n; i++) {
            assert_true(fabsf(out[i] - out[out_n + i]) < 1e-5f);
            assert_true(fabsf(out[i] - out[2 * out_n + i]) < 1e-5f);
        }
        free(deep);
        free(all);
        diffusion_close(d);
    }
}

static void cached_steps(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f16.safetensors");
    diffusion_params p = small_params();
    err e = {0};
    p.sampler = "euler";
    p.steps = 6;
    image exact = picture_of(d, &p);
    double db[2];
    for (int i = 0; i < 2; i++) {
        p.sampling.cache_interval = 2 + 4 * i;
        image cached = picture_of(d, &p);
        assert_lively(&cached);
        db[i] = psnr(&exact, &cached);
        image_free(&cached);
    }
    print_message("every 2 steps %.1f dB, once %.1f dB\n", db[0], db[1]);
    assert_true(db[0] < 100 && db[1] < db[0]);
    p.width = 128;
    p.sampling.tile = 64;
    p.sampling.tile_overlap = 8;
    p.sampling.guidance_start = 0.3f; /* the second whole step asks more than the first one */
    image tiled = picture_of(d, &p);
    assert_lively(&tiled);
    p.sampling.cache_interval = 21;
    assert_false(diffusion_check(d, &p, &e));
    assert_string_equal(e.msg, "cache_interval: 21 is not between 1 and 20");
    image_free(&exact);
    image_free(&tiled);
    diffusion_close(d);
}

/* Between whole steps there is nothing to go on from. */
static void resumed_caching_is_bit_identical(void **state) {
    (void)state;
    diffusion_params p = small_params();
    p.batch = 2;
    p.steps = 7;
    p.refiner.switch_at = 0.7f; /* the first five */
    p.sampling.cache_interval = 2;
    p.prompt = "a fox :0.7 AND snow";
    resumes(base, refiner, &p, 3, 0, 2);
    resumes(base, refiner, &p, 5, 0, 5); /* where models change, too */
    resumes(base, refiner, &p, 7 + 4, 1, 4);
    p.sampler = "heun";
    resumes(base, refiner, &p, 3, 0, 2);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refiner_takes_over),
        cmocka_unit_test(refiner_with_hires),
        cmocka_unit_test(models_give_way),
        cmocka_unit_test(resumed_refining_is_bit_identical),
        cmocka_unit_test(refiners_that_cannot_be),
        cmocka_unit_test(tiles),
        cmocka_unit_test(tiles_with_a_control),
        cmocka_unit_test(the_last_block_alone),
        cmocka_unit_test(cached_steps),
        cmocka_unit_test(resumed_caching_is_bit_identical),
        cmocka_unit_test(tiles_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
