/* The image worker's parts that need no process: request bodies, file names, the embedded text, exchanging models. */
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/image/metadata.h"
#include "sd/model.h"
#include "sd/output.h"
#include "sd/request.h"

#include "model_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

/* ---- requests --------------------------------------------------------------------------------------------------- */

#define OUTPUT "\"output_dir\": \"/o\", \"file_stem\": \"s\""

static void a_whole_request(void **state) {
    (void)state;
    static const char body[] =
        "{\"job\": \"j-12\", \"prompt\": \"a\", \"negative_prompt\": \"b\", \"width\": 640, \"height\": 512,"
        "\"steps\": 9, \"cfg_scale\": 4.5, \"sampler\": \"heun\", \"scheduler\": \"karras\","
        "\"seed\": 9007199254740991, \"n\": 3, \"clip_skip\": 2, \"rng\": \"cpu\", \"init_image\": \"/i.png\","
        "\"diffusion_tile\": 512, \"diffusion_tile_overlap\": 96, \"cache_interval\": 3,"
        "\"strength\": 0.25, \"vae_tiling\": \"on\", " OUTPUT ", \"format\": \"webp\", \"quality\": 55,"
        "\"preview\": true, \"model_name\": \"m\", \"checkpoint\": \"/c\", \"loras\": [{\"path\": \"/l\","
        "\"name\": \"n\", \"unet\": 0.5, \"te\": -1, \"in_prompt\": true}, {\"path\": \"/k\", \"name\": \"k\"}]}";
    generate_request r;
    assert_true(generate_request_read(&r, body, strlen(body), NULL));
    const diffusion_params *p = &r.params;
    assert_string_equal(r.job, "j-12");
    assert_string_equal(p->prompt, "a");
    assert_string_equal(p->negative, "b");
    assert_int_equal(p->width, 640);
    assert_int_equal(p->height, 512);
    assert_int_equal(p->steps, 9);
    assert_int_equal(p->sampling.tile, 512);
    assert_int_equal(p->sampling.tile_overlap, 96);
    assert_int_equal(p->sampling.cache_interval, 3);
    assert_float_equal(p->cfg_scale, 4.5f, 0);
    assert_string_equal(p->sampler, "heun");
    assert_string_equal(p->schedule, "karras");
    assert_true(p->seed == 9007199254740991u);
    assert_int_equal(p->batch, 3);
    assert_int_equal(p->clip_skip, 2);
    assert_string_equal(p->rng, "cpu");
    assert_string_equal(r.init_image, "/i.png");
    assert_float_equal(p->strength, 0.25f, 0);
    assert_int_equal(p->tiling, DIFFUSION_TILING_ON);
    assert_int_equal(r.format, IMAGE_WEBP);
    assert_int_equal(r.quality, 55);
    assert_int_equal(p->preview_every, 1);
    assert_string_equal(r.model_name, "m");
    assert_string_equal(p->checkpoint, "/c");
    assert_int_equal(p->lora_count, 2);
    assert_string_equal(p->loras[0].path, "/l");
    assert_string_equal(p->loras[0].name, "n");
    assert_true(p->loras[0].unet == 0.5f && p->loras[0].te == -1 && p->loras[0].is_in_prompt);
    assert_true(p->loras[1].unet == 1 && p->loras[1].te == 1 && !p->loras[1].is_in_prompt);
    generate_request_free(&r);
}

static void pictures_and_embeddings(void **state) {
    (void)state;
    static const char body[] =
        "{" OUTPUT ", \"prompt\": \"first\", \"n\": 2, \"embeddings\": [{\"name\": \"e\", \"path\": \"/e.pt\"}],"
        "\"pictures\": [{\"prompt\": \"one\", \"negative_prompt\": \"bad\", \"loras\": [{\"path\": \"/l\", \"name\": \"n\"}]},"
        "{\"prompt\": \"two\"}]}";
    generate_request r;
    err e = {0};
    if (!generate_request_read(&r, body, strlen(body), &e)) fail_msg("%s", e.msg);
    assert_int_equal(r.params.embedding_count, 1);
    assert_string_equal(r.params.embeddings[0].name, "e");
    assert_string_equal(r.params.embeddings[0].path, "/e.pt");
    assert_string_equal(r.pictures[0].prompt, "one");
    assert_string_equal(r.pictures[0].negative, "bad");
    assert_int_equal(r.pictures[0].lora_count, 1);
    assert_string_equal(r.pictures[0].loras[0].path, "/l");
    assert_string_equal(r.pictures[1].negative, "");
    assert_int_equal(r.pictures[1].lora_count, 0);
    generate_request_free(&r);
}

static void edits(void **state) {
    (void)state;
    static const char body[] =
        "{" OUTPUT ", \"init_image\": \"/i\", \"mask\": \"/m\", \"mask_invert\": true, \"mask_blur\": 2.5,"
        "\"mask_fill\": \"latent_nothing\", \"inpaint_area\": \"masked\", \"mask_padding\": 9, \"image_cfg_scale\": 1.25,"
        "\"outpaint\": {\"left\": 8, \"right\": 16, \"top\": 24, \"bottom\": 32, \"feather\": 7},"
        "\"refiner\": \"/r.ckpt\", \"switch_at\": 0.4, \"hires_network\": \"/n.pth\", \"hires\": {\"scale\": 1.5, \"width\": 640, \"height\": 512, \"steps\": 3, \"strength\": 0.5, \"upscaler\": \"u\"}}";
    generate_request r;
    assert_true(generate_request_read(&r, body, strlen(body), NULL));
    const diffusion_params *p = &r.params;
    assert_string_equal(r.mask, "/m");
    assert_true(p->inpaint.invert && p->inpaint.only_masked);
    assert_float_equal(p->inpaint.blur, 2.5f, 0);
    assert_int_equal(p->inpaint.fill, DIFFUSION_FILL_NOTHING);
    assert_int_equal(p->inpaint.padding, 9);
    assert_float_equal(p->image_cfg_scale, 1.25f, 0);
    assert_memory_equal(&p->extend, (&(diffusion_extend){8, 16, 24, 32, 7}), sizeof p->extend);
    assert_float_equal(p->hires.scale, 1.5f, 0);
    assert_int_equal(p->hires.width, 640);
    assert_int_equal(p->hires.height, 512);
    assert_int_equal(p->hires.steps, 3);
    assert_float_equal(p->hires.strength, 0.5f, 0);
    assert_string_equal(p->hires.upscaler, "u");
    assert_string_equal(p->hires.network, "/n.pth");
    assert_string_equal(r.refiner, "/r.ckpt");
    assert_float_equal(p->refiner.switch_at, 0.4f, 0);
    generate_request_free(&r);
}

static void edits_in_the_text(void **state) {
    (void)state;
    image mask = {.width = 1, .height = 1, .channels = 1}, init = mask;
    diffusion_params p;
    diffusion_params_init(&p);
    p.prompt = "a";
    p.init = &init;
    p.inpaint = (diffusion_inpaint){
        .mask = &mask, .invert = true, .blur = 2.5f, .fill = DIFFUSION_FILL_NOISE, .only_masked = true, .padding = 9};
    p.extend.left = 8;
    output_origin o = {.params = &p, .width = 64, .height = 64, .edits = true};
    buf text;
    buf_init(&text, 4096);
    output_parameters(&o, &text);
    static const char *const says[] = {
        "Mask blur: 2.5",         "Mask mode: Inpaint not masked", "Inpaint area: Only masked",
        "Masked area padding: 9", "Masked content: latent noise",  "Outpaint: left 8 right 0",
        "Image CFG scale: 1.5"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (!strstr(buf_str(&text), says[i])) fail_msg("no '%s' in %s", says[i], buf_str(&text));
    buf_clear(&text);
    diffusion_params_init(&p);
    p.prompt = "a";
    p.width = p.height = 512;
    p.hires.scale = 1.5f;
    p.hires.steps = 3;
    p.sampling.cache_interval = 2;
    p.sampling.tile = 768;
    o = (output_origin){.params = &p, .width = 768, .height = 768, .refiner = "/models/xl-refiner.safetensors"};
    output_parameters(&o, &text);
    static const char *const larger[] = {"Size: 512x512",
                                         "Denoising strength: 0.7",
                                         "Hires upscale: 1.5",
                                         "Hires steps: 3",
                                         "Hires upscaler: Latent",
                                         "Refiner: xl-refiner, Refiner switch at: 0.8",
                                         "Cache interval: 2, Diffusion tile: 768, Diffusion tile overlap: 64"};
    for (size_t i = 0; i < sizeof larger / sizeof *larger; i++)
        if (!strstr(buf_str(&text), larger[i])) fail_msg("no '%s' in %s", larger[i], buf_str(&text));
    buf_free(&text);
}

static void defaults(void **state) {
    (void)state;
    static const char body[] = "{\"prompt\": \"a\", \"init_image\": null, \"checkpoint\": null, " OUTPUT "}";
    generate_request r;
    assert_true(generate_request_read(&r, body, strlen(body), NULL));
    assert_int_equal(r.params.steps, 20);
    assert_int_equal(r.params.preview_every, 0);
    assert_int_equal(r.format, IMAGE_PNG);
    assert_null(r.init_image);
    assert_null(r.params.checkpoint);
    generate_request_free(&r);
}

static void bad_requests_name_the_field(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {"{}", "output_dir"},
        {"{\"output_dir\": \"/o\"}", "file_stem"},
        {"{\"output_dir\": \"/o\", \"file_stem\": \"../x\"}", "file_stem"},
        {"{" OUTPUT ", \"format\": \"bmp\"}", "format"},
        {"{" OUTPUT ", \"quality\": 0}", "quality"},
        {"{" OUTPUT ", \"vae_tiling\": \"maybe\"}", "vae_tiling"},
        {"{" OUTPUT ", \"steps\": \"many\"}", "steps"},
        {"{" OUTPUT ", \"loras\": [{\"path\": \"/l\"}]}", "loras[0].name"},
        {"{" OUTPUT ", \"controlnet\": [{\"path\": \"/l\"}]}", "controlnet[0].image"},
        {"{" OUTPUT ", \"ip_adapter\": [1]}", "ip_adapter: expected object"},
        {"{" OUTPUT ", \"ip_adapter\": {\"path\": \"/l\", \"image\": \"/i\"}}", "ip_adapter.clip_vision"},
        {"{" OUTPUT ", \"ip_adapter\": {\"path\": \"/l\", \"clip_vision\": \"/c\"}}", "ip_adapter.image"},
        {"{" OUTPUT ", \"controlnet\": [{\"path\": \"/l\", \"image\": \"/i\", \"preprocessor\": \"x\"}]}",
         "controlnet[0].preprocessor: unknown 'x'"},
        {"{" OUTPUT ", \"controlnet\": [{\"path\": \"/l\", \"image\": \"/i\", \"mode\": 3}]}", "controlnet[0].mode"},
        {"{" OUTPUT ", \"embeddings\": [{\"name\": \"e\"}]}", "embeddings[0].path"},
        {"{" OUTPUT ", \"n\": 2, \"pictures\": [{}]}", "pictures: 1 for a batch of 2"},
        {"{" OUTPUT ", \"pictures\": [{\"loras\": [{}]}]}", "pictures[0].loras[0].path"},
        {"{" OUTPUT ", \"prompt\": 5}", "prompt"},
        {"{" OUTPUT ", \"mask_fill\": \"x\"}", "mask_fill: unknown 'x' (original,"},
        {"{" OUTPUT ", \"inpaint_area\": \"x\"}", "inpaint_area: unknown 'x' (whole, masked)"},
        {"{" OUTPUT ", \"outpaint\": 5}", "outpaint: expected object"},
        {"{" OUTPUT ", \"hires\": {\"steps\": \"x\"}}", "hires.steps: expected"},
        {"{" OUTPUT ", \"seed\": 9007199254740992}", "seed"},
        {"{" OUTPUT ", \"seed\": -1}", "seed"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        generate_request r;
        err e = {0};
        assert_false(generate_request_read(&r, rows[i][0], strlen(rows[i][0]), &e));
        if (!strstr(e.msg, rows[i][1])) fail_msg("row %zu: %s", i, e.msg);
    }
}

static void load_requests(void **state) {
    (void)state;
    static const char good[] =
        "{\"model\": null, \"diffusion_model\": \"/u.gguf\", \"vae\": \"/v\", \"prediction\": \"v\"}";
    load_request r;
    assert_true(load_request_read(&r, good, strlen(good), NULL));
    assert_null(r.files.model);
    assert_string_equal(r.files.diffusion_model, "/u.gguf");
    assert_string_equal(r.files.vae, "/v");
    assert_int_equal(r.prediction, DIFFUSION_PREDICT_V);
    load_request_free(&r);
    static const char *const bad[] = {"{}", "{\"model\": \"\"}", "{\"model\": \"/m\", \"prediction\": \"x\"}", "[]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err e = {0};
        assert_false(load_request_read(&r, bad[i], strlen(bad[i]), &e));
        assert_true(e.msg[0] != 0);
    }
}

static void upscale_requests(void **state) {
    (void)state;
    static const char good[] =
        "{\"job\": \"j-1\", \"image\": \"/i.png\", \"upscaler\": \"/u.pth\", \"factor\": 2.5, \"seed\": 7, " OUTPUT "}";
    upscale_request r;
    assert_true(upscale_request_read(&r, good, strlen(good), NULL));
    assert_string_equal(r.image, "/i.png");
    assert_string_equal(r.upscaler, "/u.pth");
    assert_true(r.factor == 2.5f && r.seed == 7 && r.tile == 0 && r.format == IMAGE_PNG && !r.checkpoint);
    upscale_request_free(&r);
    static const char *const rows[][2] = {
        {"{" OUTPUT "}", "image"},
        {"{" OUTPUT ", \"image\": \"/i\"}", "upscaler"},
        {"{\"image\": \"/i\", \"upscaler\": \"/u\"}", "output_dir"},
        {"{" OUTPUT ", \"image\": \"/i\", \"upscaler\": \"/u\", \"factor\": \"2\"}", "factor"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        assert_false(upscale_request_read(&r, rows[i][0], strlen(rows[i][0]), &e));
        if (!strstr(e.msg, rows[i][1])) fail_msg("row %zu: %s", i, e.msg);
    }
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

static void names_of_files(void **state) {
    (void)state;
    output_target t = {.dir = "/o", .stem = "s", .count = 1, .format = IMAGE_JPEG};
    output_file f;
    output_names(&t, 0, &f);
    assert_string_equal(f.name, "s.jpg");
    assert_string_equal(f.thumb, ".thumbs/s.webp");
    t.count = 3;
    output_names(&t, 2, &f);
    assert_string_equal(f.name, "s-2.jpg");
    assert_string_equal(f.thumb, ".thumbs/s-2.webp");
}

/* Tags stay where they are; what was asked for beside the prompt becomes one. */
static void loras_are_in_the_text(void **state) {
    (void)state;
    st_builder s;
    buf file, text;
    st_init(&s);
    buf_init(&file, 4096);
    buf_init(&text, 4096);
    buf_puts(&s.header, "\"__metadata__\":{\"sshs_model_hash\":\"0123456789abcdef\"}");
    st_add(&s, "x", "F32", "1", NULL, 4);
    st_finish(&s, &file);
    char *path = write_temp(&file);
    const diffusion_lora loras[] = {{.path = path, .name = "one", .unet = 1, .te = 1, .is_in_prompt = true},
                                    {.path = "/nowhere", .name = "two", .unet = 0.5f, .te = 0.25f}};
    diffusion_params p;
    diffusion_params_init(&p);
    p.prompt = "a <lora:one:1> fox";
    p.loras = loras;
    p.lora_count = 2;
    output_parameters(&(output_origin){.params = &p, .width = 64, .height = 64}, &text);
    assert_true(str_starts(buf_str(&text), "a <lora:one:1> fox <lora:two:0.25:0.5>\n"));
    assert_non_null(strstr(buf_str(&text), ", Lora hashes: \"one: 0123456789ab\", "));
    buf_free(&file);
    buf_free(&text);
    remove_temp(path);
}

/* What an attempt before a crash has left: whole, without a thumbnail, damaged, not there. */
static void finished_pictures_are_found_again(void **state) {
    (void)state;
    char *dir = str_fmt("/tmp/mysti-sd-found-%d", (int)getpid());
    const output_target t = {.dir = dir, .stem = "p", .count = 2, .format = IMAGE_PNG};
    image picture;
    assert_true(image_alloc(&picture, 600, 80, 3));
    output_file wrote, f;
    err e = {0};
    if (!output_write(&t, 1, &picture, "a fox\nSteps: 3", &wrote, &e)) fail_msg("%s", e.msg);
    char *path = path_join(dir, wrote.name), *thumb = path_join(dir, wrote.thumb), *thumbs = path_join(dir, ".thumbs");
    buf text;
    buf_init(&text, 4096);
    assert_false(output_find(&t, 0, &f, &text));
    for (int i = 0; i < 2; i++) {
        assert_true(output_find(&t, 1, &f, &text));
        assert_string_equal(f.name, wrote.name);
        assert_string_equal(f.thumb, wrote.thumb);
        assert_true(f.width == 600 && f.height == 80 && f.bytes == wrote.bytes);
        assert_string_equal(buf_str(&text), "a fox\nSteps: 3");
        buf_clear(&text);
        assert_int_equal(unlink(thumb), 0); /* the second time it was made anew */
    }
    assert_int_equal(truncate(path, (off_t)wrote.bytes / 2), 0);
    assert_false(output_find(&t, 1, &f, &text));
    buf_free(&text);
    image_free(&picture);
    unlink(path);
    rmdir(thumbs);
    assert_int_equal(rmdir(dir), 0);
    free(thumbs);
    free(thumb);
    free(path);
    free(dir);
}

/* Written, and read back from the file's own bytes in each format. */
static void pictures_carry_their_parameters(void **state) {
    (void)state;
    static const image_format formats[] = {IMAGE_PNG, IMAGE_JPEG, IMAGE_WEBP};
    char *dir = str_fmt("/tmp/mysti-sd-%d", (int)getpid());
    diffusion_params p;
    diffusion_params_init(&p);
    p.prompt = "a fox, running\nin d\xc3\xa9"
               "cembre";
    p.negative = "blurry";
    p.sampler = "dpm++2m";
    p.schedule = NULL;
    p.clip_skip = 2;
    output_origin origin = {.params = &p, .width = 600, .height = 80, .seed = 77, .model = "a, model"};
    buf text;
    buf_init(&text, 4096);
    output_parameters(&origin, &text);
    assert_string_equal(buf_str(&text),
                        "a fox, running\nin d\xc3\xa9"
                        "cembre\nNegative prompt: blurry\n"
                        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 77, Size: 600x80, "
                        "Model: \"a, model\", Clip skip: 2, RNG: NV, Version: Mysti " MYSTI_VERSION);
    image picture;
    assert_true(image_alloc(&picture, 600, 80, 3));
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        output_target t = {.dir = dir, .stem = "p", .count = 1, .format = formats[i], .quality = 90};
        output_file f;
        err e = {0};
        if (!output_write(&t, 0, &picture, buf_str(&text), &f, &e)) fail_msg("%s", e.msg);
        char *path = path_join(dir, f.name), *thumb = path_join(dir, f.thumb);
        buf file, found;
        buf_init(&file, 1 << 20);
        buf_init(&found, 4096);
        assert_true(file_read(path, &file, NULL));
        assert_int_equal(file.len, f.bytes);
        assert_true(metadata_read(&found, file.data, file.len, NULL));
        assert_string_equal(buf_str(&found), buf_str(&text));
        buf_clear(&file);
        int w, h;
        image_format format;
        assert_true(file_read(thumb, &file, NULL));
        assert_true(image_probe(file.data, file.len, &w, &h, &format, NULL));
        assert_int_equal(format, IMAGE_WEBP);
        assert_int_equal(w, 256);
        assert_int_equal(h, 34);
        buf_free(&file);
        buf_free(&found);
        unlink(path);
        unlink(thumb);
        free(path);
        free(thumb);
    }
    /* A thumbnail that cannot be written costs nobody the picture. */
    char *no_folder = path_join(dir, ".thumbs");
    rmdir(no_folder);
    FILE *in_the_way = fopen(no_folder, "w");
    assert_non_null(in_the_way);
    fclose(in_the_way);
    output_target t = {.dir = dir, .stem = "p", .count = 1, .format = IMAGE_PNG};
    output_file without;
    assert_true(output_write(&t, 0, &picture, "", &without, NULL));
    assert_string_equal(without.thumb, "");
    char *alone = path_join(dir, without.name);
    assert_int_equal(unlink(alone), 0);
    unlink(no_folder);
    free(alone);
    free(no_folder);
    output_target nowhere = {.dir = "/proc/none", .stem = "p", .count = 1, .format = IMAGE_PNG};
    output_file f;
    err e = {0};
    assert_false(output_write(&nowhere, 0, &picture, "", &f, &e));
    assert_true(e.msg[0] != 0);
    image_free(&picture);
    buf_free(&text);
    rmdir(dir);
    free(dir);
}

/* ---- exchanging models ------------------------------------------------------------------------------------------ */

static bool load(sd_model *m, const char *name, err *e) {
    char *path = path_join(TINY_MODELS, name);
    const diffusion_files files = {.model = path};
    bool ok = sd_model_load(m, &files, DIFFUSION_PREDICT_AUTO, NULL, e);
    free(path);
    return ok;
}

static void a_failed_load_keeps_the_model(void **state) {
    (void)state;
    sd_model m = {.options = {.threads = 1}};
    err e = {0};
    assert_null(sd_model_path(&m));
    assert_false(load(&m, "tiny-vae.safetensors", &e));
    assert_null(sd_model_path(&m));
    assert_true(load(&m, "tiny-sd1-f16.safetensors", &e));
    const diffusion *before = m.engine;
    assert_false(load(&m, "tiny-vae.safetensors", &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_true(str_starts(e.msg, "load 'tiny-vae.safetensors': "));
    assert_ptr_equal(m.engine, before);
    assert_true(str_ends(sd_model_path(&m), "/tiny-sd1-f16.safetensors"));
    assert_true(load(&m, "tiny-sd1-bf16.safetensors", &e));
    assert_true(str_ends(sd_model_path(&m), "/tiny-sd1-bf16.safetensors"));
    sd_model_unload(&m);
    sd_model_unload(&m);
    assert_null(sd_model_path(&m));
}

/* The limit lets the f16 model in but not the f32 one: the first is closed to make room, and comes back. */
static void too_big_a_model_brings_the_old_one_back(void **state) {
    (void)state;
    sd_model m = {.options = {.threads = 1, .memory_limit = 12 << 20}};
    err e = {0};
    assert_true(load(&m, "tiny-sd1-f16.safetensors", &e));
    assert_false(load(&m, "tiny-sd1-f32.safetensors", &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(m.engine);
    assert_true(str_ends(sd_model_path(&m), "/tiny-sd1-f16.safetensors"));
    sd_model_unload(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_request),
        cmocka_unit_test(pictures_and_embeddings),
        cmocka_unit_test(edits),
        cmocka_unit_test(edits_in_the_text),
        cmocka_unit_test(defaults),
        cmocka_unit_test(bad_requests_name_the_field),
        cmocka_unit_test(load_requests),
        cmocka_unit_test(upscale_requests),
        cmocka_unit_test(names_of_files),
        cmocka_unit_test(loras_are_in_the_text),
        cmocka_unit_test(pictures_carry_their_parameters),
        cmocka_unit_test(finished_pictures_are_found_again),
    };
    const struct CMUnitTest with_models[] = {
        cmocka_unit_test(a_failed_load_keeps_the_model),
        cmocka_unit_test(too_big_a_model_brings_the_old_one_back),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) return failed;
    if (!path_exists(TINY_MODELS "/tiny-sd1-f16.safetensors")) {
        printf("SKIP: no tiny models in " TINY_MODELS " (tools/make_tiny_models.py makes them)\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(with_models, NULL, NULL);
}
