/* The request's fields: defaults, ranges, names of other programs, wide types, round trips; uploads; memory. */
#include "server_fixture.h"
#include "server/image_params.h"
#include "server/memory_plan.h"
#include "server/uploads.h"

#include "base/base64.h"
#include "base/clock.h"

#include <utime.h>

static bool read_json(image_params *p, const char *text, bool strict, err *e) {
    *e = (err){0};
    yyjson_doc *doc = json_parse(text, strlen(text), e);
    if (!doc) fail_msg("%s in %s", e->msg, text);
    json_in root = json_root(doc);
    bool ok = image_params_read(p, &root, strict ? IMAGE_PARAMS_STRICT : 0, e);
    yyjson_doc_free(doc);
    return ok;
}

static image_params good(const char *text) {
    image_params p;
    err e;
    if (!read_json(&p, text, true, &e)) fail_msg("%s: %s", text, e.msg);
    return p;
}

static void test_defaults(void **state) {
    (void)state;
    image_params p = good("{\"prompt\":\"cat\"}");
    assert_string_equal(p.prompt, "cat");
    assert_string_equal(p.negative_prompt, "");
    assert_null(p.model);
    assert_int_equal(p.width, 0);
    assert_int_equal(p.steps, 20);
    assert_true(p.cfg_scale == 7.0);
    assert_string_equal(p.sampler, "euler_a");
    assert_string_equal(p.scheduler, "discrete");
    assert_string_equal(p.rng, "cuda");
    assert_int_equal(p.seed, -1);
    assert_int_equal(p.n, 1);
    assert_string_equal(p.output_format, "png");
    image_params_free(&p);
}

#define CONTROL "{\"model\":\"c\",\"image\":\"x\""

static void test_refusals_name_the_field(void **state) {
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{}", "prompt: required"},
        {"{\"prompt\":null}", "prompt: required"},
        {"{\"prompt\":5}", "prompt: expected string"},
        {"{\"prompt\":\"a\",\"steps\":0}", "steps: 0 is not between 1 and 200"},
        {"{\"prompt\":\"a\",\"steps\":201}", "steps: 201 is not between 1 and 200"},
        {"{\"prompt\":\"a\",\"steps\":1.5}", "steps: 1.5 is not a whole number"},
        {"{\"prompt\":\"a\",\"steps\":\"many\"}", "steps: expected a whole number"},
        {"{\"prompt\":\"a\",\"steps\":[1]}", "steps: expected a whole number"},
        {"{\"prompt\":\"a\",\"steps\":1e300}", "steps: "},
        {"{\"prompt\":\"a\",\"width\":100}", "width: 100 is not a multiple of 8"},
        {"{\"prompt\":\"a\",\"width\":-8}", "width: -8 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"height\":32}", "height: 32 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"height\":8192}", "height: 8192 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"size\":\"512\"}", "size: '512' is not of the form 512x512"},
        {"{\"prompt\":\"a\",\"size\":\"512x512x3\"}", "size: "},
        {"{\"prompt\":\"a\",\"size\":\"-512x512\"}", "size: '-512x512' is not of the form"},
        {"{\"prompt\":\"a\",\"size\":\"100x512\"}", "size: 100 is not a multiple of 8"},
        {"{\"prompt\":\"a\",\"cfg_scale\":51}", "cfg_scale: 51 is not between 0 and 50"},
        {"{\"prompt\":\"a\",\"cfg_scale\":\"nan\"}", "cfg_scale: expected a number"},
        {"{\"prompt\":\"a\",\"sampler\":\"plms\"}",
         "sampler: 'plms' is not known (did you mean 'lms'?); /v1/options lists all"},
        {"{\"prompt\":\"a\",\"sampler\":\"DPM++ 2M Karas\"}",
         "sampler: 'DPM++ 2M Karas' is not known (did you mean 'DPM++ 2M Karras'?); /v1/options lists all"},
        {"{\"prompt\":\"a\",\"sampler\":\"oak\"}", "sampler: 'oak' is not known; /v1/options lists all"},
        {"{\"prompt\":\"a\",\"sampler\":7}", "sampler: expected string"},
        {"{\"prompt\":\"a\",\"scheduler\":\"best\"}", "scheduler: 'best' is not known"},
        {"{\"prompt\":\"a\",\"rng\":\"dice\"}", "rng: 'dice' is none of cuda, cpu"},
        {"{\"prompt\":\"a\",\"seed\":9007199254740992}",
         "seed: 9007199254740992 is not between -1 and 9007199254740991"},
        {"{\"prompt\":\"a\",\"seed\":-2}", "seed: -2 is not between"},
        {"{\"prompt\":\"a\",\"n\":17}", "n: 17 is not between 1 and 16"},
        {"{\"prompt\":\"a\",\"clip_skip\":0}", "clip_skip: 0 is not between 1 and 12"},
        {"{\"prompt\":\"a\",\"emphasis\":\"loud\"}", "emphasis: 'loud' is none of a1111, comfy, none"},
        {"{\"prompt\":\"a\",\"strength\":1.01}", "strength: 1.01 is not between 0 and 1"},
        {"{\"prompt\":\"a\",\"output_format\":\"bmp\"}", "output_format: 'bmp' is none of png, jpeg, webp"},
        {"{\"prompt\":\"a\",\"output_compression\":101}", "output_compression: 101 is not between 0 and 100"},
        {"{\"prompt\":\"a\",\"controlnet\":{}}", "controlnet: expected array"},
        {"{\"prompt\":\"a\",\"controlnet\":[1]}", "controlnet[0]: expected object"},
        {"{\"prompt\":\"a\",\"controlnet\":[{\"image\":\"x\"}]}", "controlnet[0].model: required"},
        {"{\"prompt\":\"a\",\"controlnet\":[{\"model\":\"c\"}]}", "controlnet[0].image: required"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL "},{\"model\":7}]}", "controlnet[1].model: expected string"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"weight\":2.5}]}",
         "controlnet[0].weight: 2.5 is not between 0 and 2"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"start\":-1}]}",
         "controlnet[0].start: -1 is not between 0 and 1"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"start\":0.5,\"end\":0.25}]}",
         "controlnet[0].end: 0.25 is before start, 0.5"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"preprocessor\":\"depth\"}]}",
         "controlnet[0].preprocessor: 'depth' is none of none, canny"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"mode\":\"mine\"}]}",
         "controlnet[0].mode: 'mine' is none of balanced, prompt, control"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"low_threshold\":2041}]}",
         "controlnet[0].low_threshold: 2041 is not between 0 and 2040"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"high_threshold\":50}]}",
         "controlnet[0].high_threshold: 50 is below low_threshold, 100"},
        {"{\"prompt\":\"a\",\"controlnet\":[" CONTROL ",\"wieght\":1}]}",
         "controlnet[0]: unknown key 'wieght'; did you mean 'weight'?"},
        {"{\"prompt\":\"a\",\"ip_adapter\":[]}", "ip_adapter: expected object"},
        {"{\"prompt\":\"a\",\"ip_adapter\":{\"image\":\"x\"}}", "ip_adapter.model: required"},
        {"{\"prompt\":\"a\",\"ip_adapter\":{\"model\":\"c\"}}", "ip_adapter.image: required"},
        {"{\"prompt\":\"a\",\"ip_adapter\":" CONTROL ",\"clip_vision\":7}}", "ip_adapter.clip_vision: expected string"},
        {"{\"prompt\":\"a\",\"ip_adapter\":" CONTROL ",\"weight\":2.5}}",
         "ip_adapter.weight: 2.5 is not between 0 and 2"},
        {"{\"prompt\":\"a\",\"ip_adapter\":" CONTROL ",\"start\":0.5,\"end\":0.25}}",
         "ip_adapter.end: 0.25 is before start, 0.5"},
        {"{\"prompt\":\"a\",\"ip_adapter\":" CONTROL ",\"wieght\":1}}",
         "ip_adapter: unknown key 'wieght'; did you mean 'weight'?"},
        {"{\"prompt\":\"a\",\"loras\":{}}", "loras: expected array"},
        {"{\"prompt\":\"a\",\"loras\":\"x\"}", "loras: expected array"},
        {"{\"prompt\":\"a\",\"loras\":[5]}", "loras[0]: expected a LoRA's name or object"},
        {"{\"prompt\":\"a\",\"loras\":[\"b\",{\"weight\":1}]}", "loras[1].name: required"},
        {"{\"prompt\":\"a\",\"loras\":[{\"name\":\"b\",\"weight\":101}]}",
         "loras[0].weight: 101 is not between -100 and 100"},
        {"{\"prompt\":\"a\",\"loras\":[{\"name\":\"b\",\"weigt\":1}]}",
         "loras[0]: unknown key 'weigt'; did you mean 'weight'?"},
        {"{\"prompt\":\"a\",\"mask\":5}", "mask: expected string"},
        {"{\"prompt\":\"a\",\"mask_invert\":\"maybe\"}", "mask_invert: expected true or false"},
        {"{\"prompt\":\"a\",\"mask_blur\":65}", "mask_blur: 65 is not between 0 and 64"},
        {"{\"prompt\":\"a\",\"mask_fill\":\"red\"}",
         "mask_fill: 'red' is none of original, fill, latent_noise, latent_nothing"},
        {"{\"prompt\":\"a\",\"inpaint_area\":\"half\"}", "inpaint_area: 'half' is none of whole, masked"},
        {"{\"prompt\":\"a\",\"mask_padding\":513}", "mask_padding: 513 is not between 0 and 512"},
        {"{\"prompt\":\"a\",\"image_cfg_scale\":51}", "image_cfg_scale: 51 is not between 0 and 50"},
        {"{\"prompt\":\"a\",\"outpaint\":8}", "outpaint: expected object"},
        {"{\"prompt\":\"a\",\"outpaint\":\"{\"}", "outpaint: expected object"},
        {"{\"prompt\":\"a\",\"outpaint\":{\"left\":12}}", "outpaint.left: 12 is not a multiple of 8"},
        {"{\"prompt\":\"a\",\"outpaint\":{\"top\":-8}}", "outpaint.top: -8 is not between 0 and 2048"},
        {"{\"prompt\":\"a\",\"outpaint\":{\"feather\":257}}", "outpaint.feather: 257 is not between 0 and 256"},
        {"{\"prompt\":\"a\",\"outpaint\":{\"lefd\":8}}", "outpaint: unknown key 'lefd'; did you mean 'left'?"},
        {"{\"prompt\":\"a\",\"outpaint\":{\"depth\":8}}",
         "outpaint: unknown key 'depth' beside left, right, top, bottom, feather"},
        {"{\"prompt\":\"a\",\"hires\":{}}", "hires.scale: required, or width, or height"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":9}}", "hires.scale: 9 is not between 1 and 8"},
        {"{\"prompt\":\"a\",\"hires\":{\"width\":20}}", "hires.width: 20 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"hires\":{\"width\":100}}", "hires.width: 100 is not a multiple of 8"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":2,\"steps\":201}}", "hires.steps: 201 is not between 0 and 200"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":2,\"strength\":0}}", "hires.strength: 0 is not between 0.01 and 1"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":2,\"upscaler\":7}}", "hires.upscaler: expected"},
        {"{\"prompt\":\"a\",\"eta\":-0.5}", "eta: -0.5 is not between 0 and 1"},
        {"{\"prompt\":\"a\",\"s_churn\":101}", "s_churn: 101 is not between 0 and 100"},
        {"{\"prompt\":\"a\",\"guidance_rescale\":2}", "guidance_rescale: 2 is not between 0 and 1"},
        {"{\"prompt\":\"a\",\"cfg_rescale\":\"x\"}", "cfg_rescale: expected a number"},
        {"{\"prompt\":\"a\",\"guidance_start\":0.6,\"guidance_end\":0.5}",
         "guidance_end: 0.5 is before guidance_start, 0.6"},
        {"{\"prompt\":\"a\",\"dynamic_threshold\":0.2}", "dynamic_threshold: 0.2 is not between 0.5 and 1, nor 0"},
        {"{\"prompt\":\"a\",\"subseed\":1.5}", "subseed: 1.5 is not a whole number"},
        {"{\"prompt\":\"a\",\"subseed\":-2}", "subseed: -2 is not between 0 and 9007199254740975, nor -1"},
        {"{\"prompt\":\"a\",\"seed_resize_from_w\":32}", "seed_resize_from_w: 32 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"seed_resize_from_w\":64}", "seed_resize_from_h: required with the other side"},
        {"{\"prompt\":\"a\",\"subseed_strenght\":1}",
         "unknown key 'subseed_strenght'; did you mean 'subseed_strength'?"},
        {"{\"prompt\":\"a\",\"stepz\":3}", "unknown key 'stepz'; did you mean 'steps'?"},
        {"{\"prompt\":\"a\\u0000b\"}", "prompt: expected string without NUL"},
        {"[]", "body: expected object"},
        {"7", "body: expected object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image_params p;
        err e;
        bool strict = cases[i].json[0] == '{';
        if (read_json(&p, cases[i].json, strict, &e)) fail_msg("accepted: %s", cases[i].json);
        if (!str_starts(e.msg, cases[i].message)) fail_msg("%s: %s", cases[i].json, e.msg);
        assert_null(p.prompt);
    }
}

static void test_prompts_are_counted_in_characters(void **state) {
    (void)state;
    buf text;
    buf_init(&text, 1 << 20);
    buf_puts(&text, "{\"prompt\":\"");
    for (int i = 0; i < PARAMS_PROMPT_MAX; i++) buf_puts(&text, "\xc3\xa4");
    size_t fits = text.len;
    buf_puts(&text, "\"}");
    image_params p = good(buf_str(&text));
    image_params_free(&p);
    text.len = fits;
    buf_puts(&text, "x\"}");
    err e;
    assert_false(read_json(&p, buf_str(&text), true, &e));
    assert_string_equal(e.msg, "prompt: 20001 characters are more than 20000");
    buf_free(&text);
}

static void test_names_of_other_programs(void **state) {
    (void)state;
    static const struct {
        const char *given, *sampler, *scheduler;
    } cases[] = {
        {"Euler a", "euler_a", "discrete"},       {"Euler", "euler", "discrete"},
        {"k_euler_a", "euler_a", "discrete"},     {"euler_ancestral", "euler_a", "discrete"},
        {"Euler a Karras", "euler_a", "karras"},  {"DPM++ 2M", "dpm++2m", "karras"},
        {"DPM++ 2M Karras", "dpm++2m", "karras"}, {"dpmpp_2m", "dpm++2m", "karras"},
        {"dpmpp_2m_karras", "dpm++2m", "karras"}, {"Heun Exponential", "heun", "exponential"},
        {"dpm++2m", "dpm++2m", "karras"},         {"EULER SGM Uniform", "euler", "sgm_uniform"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[128];
        snprintf(json, sizeof json, "{\"prompt\":\"a\",\"sampler\":\"%s\"}", cases[i].given);
        image_params p = good(json);
        assert_string_equal(p.sampler, cases[i].sampler);
        assert_string_equal(p.scheduler, cases[i].scheduler);
        image_params_free(&p);
    }
    image_params p = good("{\"prompt\":\"a\",\"sampler\":\"Euler a Karras\",\"scheduler\":\"Normal\",\"rng\":\"GPU\","
                          "\"output_format\":\"JPG\"}");
    assert_string_equal(p.scheduler, "discrete"); /* asked for by itself: it wins */
    assert_string_equal(p.rng, "cuda");
    assert_string_equal(p.output_format, "jpeg");
    image_params_free(&p);
}

static void test_wide_types(void **state) {
    (void)state;
    image_params p =
        good("{\"prompt\":\"a\",\"steps\":20.0,\"width\":\"512\",\"height\":768,\"cfg_scale\":\"6.5\",\"seed\":\"42\","
             "\"batch_size\":\"3\",\"denoising_strength\":\"0.5\",\"clip_skip\":null,\"scheduler\":\"\"}");
    assert_int_equal(p.steps, 20);
    assert_int_equal(p.width, 512);
    assert_int_equal(p.height, 768);
    assert_true(p.cfg_scale == 6.5);
    assert_int_equal(p.seed, 42);
    assert_int_equal(p.n, 3);
    assert_true(p.strength == 0.5);
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"size\":\"640X384\"}");
    assert_int_equal(p.width, 640);
    assert_int_equal(p.height, 384);
    image_params_free(&p);
    err e;
    assert_true(read_json(&p, "{\"prompt\":\"a\",\"size\":\"auto\",\"quality\":\"hd\",\"user\":\"u\"}", false, &e));
    assert_int_equal(p.width, 0);
    image_params_free(&p);
}

/* What the server notes of prompts is kept as it is; a picture of a job takes what is its own. */
static void test_texts(void **state) {
    (void)state;
    static const char json[] =
        "{\"prompt\":\"a {b|c}\",\"negative_prompt\":\"x\",\"n\":2,\"prompts\":[{\"prompt\":\"a b\","
        "\"negative_prompt\":\"x\"},{\"prompt\":\"a c\",\"negative_prompt\":\"y\"}],"
        "\"embeddings\":[\"e/x.pt\",\"y.safetensors\"]}";
    yyjson_doc *doc = json_parse(json, strlen(json), NULL);
    json_in root = json_root(doc);
    image_params p, copy;
    err e = {0};
    if (!image_params_read(&p, &root, IMAGE_PARAMS_STRICT, &e)) fail_msg("%s", e.msg);
    image_params_copy(&copy, &p);
    image_params_free(&p);
    buf out;
    buf_init(&out, 1 << 16);
    image_params_write(&copy, &out);
    assert_non_null(strstr(buf_str(&out),
                           "\"prompts\":[{\"prompt\":\"a b\",\"negative_prompt\":\"x\"},{\"prompt\":\"a c\","
                           "\"negative_prompt\":\"y\"}],\"embeddings\":[\"e/x.pt\",\"y.safetensors\"],"));
    assert_true(image_texts_differ(&copy.texts));
    image_texts_pick(&copy.texts, 0, &copy.prompt, &copy.negative_prompt);
    assert_string_equal(copy.prompt, "a b");
    assert_string_equal(copy.negative_prompt, "x");
    buf_clear(&out);
    image_params_write(&copy, &out);
    assert_non_null(strstr(buf_str(&out), "\"prompt_template\":\"a {b|c}\",\"embeddings\""));
    assert_null(strstr(buf_str(&out), "negative_template"));
    assert_null(strstr(buf_str(&out), "\"prompts\""));
    buf_free(&out);
    image_params_free(&copy);
    yyjson_doc_free(doc);
    static const char *const wrong[][2] = {
        {"{\"prompt\":\"a\",\"prompts\":5}", "prompts: expected array"},
        {"{\"prompt\":\"a\",\"prompts\":[5]}", "prompts[0]: expected object"},
        {"{\"prompt\":\"a\",\"embeddings\":[5]}", "embeddings[0]: expected string"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        doc = json_parse(wrong[i][0], strlen(wrong[i][0]), NULL);
        root = json_root(doc);
        assert_false(image_params_read(&p, &root, 0, &e));
        assert_string_equal(e.msg, wrong[i][1]);
        yyjson_doc_free(doc);
    }
}

static void test_loras(void **state) {
    (void)state;
    static const char list[] =
        "[\"a\",{\"name\":\"b\",\"strength\":0.5},{\"name\":\"c d\",\"weight\":\"-0.25\",\"te_weight\":0}]";
    static const struct {
        const char *name;
        double weight, te;
    } want[] = {{"a", 1, 1}, {"b", 0.5, 0.5}, {"c d", -0.25, 0}};
    buf text; /* as a form has it */
    buf_init(&text, 4096);
    json_quote(&text, list);
    char *plain = str_fmt("{\"prompt\":\"x\",\"loras\":%s}", list),
         *form = str_fmt("{\"prompt\":\"x\",\"loras\":%s}", buf_str(&text));
    const char *const both[] = {plain, form};
    for (int k = 0; k < 2; k++) {
        image_params p = good(both[k]), copy;
        image_params_copy(&copy, &p);
        assert_int_equal(copy.lora_count, 3);
        for (size_t i = 0; i < 3; i++) {
            assert_string_equal(copy.loras[i].name, want[i].name);
            assert_true(copy.loras[i].weight == want[i].weight && copy.loras[i].te_weight == want[i].te);
        }
        image_params_free(&p);
        image_params_free(&copy);
    }
    image_params none = good("{\"prompt\":\"x\",\"loras\":null}"), empty = good("{\"prompt\":\"x\",\"loras\":\"\"}");
    assert_true(none.lora_count == 0 && empty.lora_count == 0);
    image_params_free(&none);
    image_params_free(&empty);
    free(plain);
    free(form);
    buf_free(&text);
}

static void test_controlnets(void **state) {
    (void)state;
    static const char list[] = "[" CONTROL "}," CONTROL ",\"weight\":\"0.5\",\"start\":0.1,\"end\":\"0.9\","
                               "\"preprocessor\":\"Canny\",\"low_threshold\":\"10\",\"high_threshold\":20,"
                               "\"mode\":\"prompt\"}]";
    buf text, written, again; /* as a form has it */
    buf_init(&text, 4096);
    buf_init(&written, 1 << 16);
    buf_init(&again, 1 << 16);
    json_quote(&text, list);
    char *form = str_fmt("{\"prompt\":\"x\",\"controlnet\":%s}", buf_str(&text));
    image_params p = good(form), copy;
    image_params_copy(&copy, &p);
    image_params_free(&p);
    assert_int_equal(copy.controls.count, 2);
    const image_control *a = &copy.controls.at[0], *b = &copy.controls.at[1];
    assert_string_equal(a->model, "c");
    assert_string_equal(a->image, "x");
    assert_true(a->weight == 1 && a->start == 0 && a->end == 1 && a->low == 100 && a->high == 200);
    assert_string_equal(a->module, "none");
    assert_string_equal(a->mode, "balanced");
    assert_true(b->weight == 0.5 && b->start == 0.1 && b->end == 0.9 && b->low == 10 && b->high == 20);
    assert_string_equal(b->module, "canny");
    assert_string_equal(b->mode, "prompt");
    image_params_write(&copy, &written); /* for the database: it reads back the same */
    image_params_free(&copy);
    p = good(buf_str(&written));
    image_params_write(&p, &again);
    assert_string_equal(buf_str(&written), buf_str(&again));
    image_params_free(&p);
    p = good("{\"prompt\":\"x\",\"controlnet\":[]}");
    assert_true(p.controls.count == 0 && !p.controls.at);
    image_params_free(&p);
    free(form);
    buf_free(&text);
    buf_free(&written);
    buf_free(&again);
}

static void test_ip_adapter(void **state) {
    (void)state;
    buf written, again;
    buf_init(&written, 1 << 16);
    buf_init(&again, 1 << 16);
    image_params p = good("{\"prompt\":\"x\",\"ip_adapter\":" CONTROL
                          ",\"weight\":\"0.5\",\"start\":0.1,\"end\":\"0.9\","
                          "\"clip_vision\":\"v\"}}"),
                 copy;
    image_params_copy(&copy, &p);
    image_params_free(&p);
    const image_ip_adapter *a = &copy.ip_adapter;
    assert_string_equal(a->model, "c");
    assert_string_equal(a->image, "x");
    assert_string_equal(a->clip_vision, "v");
    assert_true(a->weight == 0.5 && a->start == 0.1 && a->end == 0.9);
    image_params_write(&copy, &written); /* for the database: it reads back the same */
    image_params_free(&copy);
    p = good(buf_str(&written));
    image_params_write(&p, &again);
    assert_string_equal(buf_str(&written), buf_str(&again));
    image_params_free(&p);
    p = good("{\"prompt\":\"x\",\"ip_adapter\":" CONTROL "}}");
    assert_true(p.ip_adapter.weight == 1 && p.ip_adapter.start == 0 && p.ip_adapter.end == 1);
    assert_null(p.ip_adapter.clip_vision);
    image_params_free(&p);
    p = good("{\"prompt\":\"x\",\"ip_adapter\":null}");
    assert_null(p.ip_adapter.model);
    image_params_free(&p);
    buf_free(&written);
    buf_free(&again);
}

static void test_upscales(void **state) {
    (void)state;
    image_params p = good("{\"type\":\"upscale\",\"image\":\"a.png\",\"upscaler\":\"x4\",\"factor\":\"2.5\"}"), copy;
    assert_true(p.is_upscale && p.factor == 2.5);
    assert_string_equal(p.init_image, "a.png");
    buf text;
    err e;
    buf_init(&text, 1 << 16);
    image_params_draw_seed(&p);
    assert_int_equal(p.seed, 0);
    image_params_write(&p, &text);
    assert_true(read_json(&copy, buf_str(&text), true, &e)); /* from the database: the prompt is "" there */
    assert_true(copy.is_upscale && copy.factor == 2.5);
    assert_string_equal(copy.upscaler, "x4");
    assert_string_equal(copy.init_image, "a.png");
    image_params_free(&copy);
    image_params_free(&p);
    buf_free(&text);
    p = good("{\"prompt\":\"a\",\"upscaler\":\"x4\"}"); /* without the type it is a picture like any other */
    assert_true(!p.is_upscale && !p.upscaler);
    image_params_free(&p);
    assert_false(read_json(&p, "{\"type\":\"upscale\",\"factor\":0.5}", true, &e));
    assert_string_equal(e.msg, "factor: 0.5 is not between 1 and 8");
    assert_false(read_json(&p, "{\"type\":\"upscale\",\"factor\":9}", true, &e));
    assert_string_equal(e.msg, "factor: 9 is not between 1 and 8");
}

static void test_what_is_written_reads_back_the_same(void **state) {
    (void)state;
    image_params p = good(
        "{\"prompt\":\"a \\\"q\\\"\\n\\u00e4\",\"negative_prompt\":\"b\",\"model\":\"sub/x.gguf\",\"size\":\"64x128\","
        "\"cfg_scale\":7.1,\"strength\":0.30000000000000004,\"init_image\":\"upload:1.png\",\"seed\":9007199254740991,"
        "\"loras\":[\"e\",{\"name\":\"f \\\"g\",\"weight\":0.1,\"te_weight\":-3}]}");
    buf a, b;
    buf_init(&a, 1 << 16);
    buf_init(&b, 1 << 16);
    image_params_write(&p, &a);
    image_params again = good(buf_str(&a));
    image_params_write(&again, &b);
    assert_string_equal(buf_str(&a), buf_str(&b));
    assert_true(again.strength == p.strength);
    assert_non_null(strstr(buf_str(&a), "\"cfg_scale\":7.1,"));
    image_params_free(&p);
    image_params_free(&again);
    buf_free(&a);
    buf_free(&b);
}

static void test_edits(void **state) {
    (void)state;
    /* As a form has them: everything is text. */
    image_params p =
        good("{\"prompt\":\"a\",\"init_image\":\"upload:1.png\",\"mask\":\"upload:2.png\",\"mask_invert\":\"true\","
             "\"mask_blur\":\"2.5\",\"mask_fill\":\"latent_noise\",\"inpaint_area\":\"masked\",\"mask_padding\":\"8\","
             "\"outpaint\":\"{\\\"left\\\":16,\\\"feather\\\":4}\",\"image_cfg_scale\":\"1.2\"}");
    const image_edits *x = &p.edits;
    assert_string_equal(x->mask, "upload:2.png");
    assert_true(x->mask_invert && x->only_masked);
    assert_true(x->mask_blur == 2.5 && x->image_cfg_scale == 1.2);
    assert_string_equal(x->mask_fill, "latent_noise");
    assert_int_equal(x->mask_padding, 8);
    assert_int_equal(x->outpaint.left, 16);
    assert_int_equal(x->outpaint.feather, 4);
    assert_true(image_edits_check(x, true, NULL));
    err e = {0};
    assert_false(image_edits_check(x, false, &e));
    assert_string_equal(e.msg, "mask: needs an initial picture (init_image)");
    image_params copy;
    image_params_copy(&copy, &p);
    image_params_free(&p);
    buf text;
    buf_init(&text, 1 << 16);
    image_params_write(&copy, &text);
    p = good(buf_str(&text));
    assert_true(p.edits.mask_invert && p.edits.only_masked && p.edits.outpaint.left == 16);
    buf_clear(&text);
    image_params_free(&copy);
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"hires\":{\"height\":768,\"steps\":5,\"upscaler\":\"Latent (bicubic)\"}}");
    assert_string_equal(p.edits.hires.upscaler, "latent-bicubic");
    assert_true(p.edits.hires.strength == 0.7);
    int width = 640, height = 512;
    image_edits_size(&p.edits, &width, &height);
    assert_int_equal(width, 960);
    assert_int_equal(height, 768);
    image_params_write(&p, &text);
    assert_non_null(strstr(buf_str(&text),
                           "\"hires\":{\"height\":768,\"steps\":5,\"strength\":0.7,\"upscaler\":\"latent-bicubic\"}"));
    assert_false(image_edits_check(&p.edits, true, &e));
    assert_string_equal(e.msg, "hires: not together with init_image");
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"outpaint\":{\"top\":8}}");
    assert_false(image_edits_check(&p.edits, false, &e));
    assert_string_equal(e.msg, "outpaint: needs an initial picture (init_image) to extend");
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"inpaint_area\":\"masked\"}");
    assert_false(image_edits_check(&p.edits, true, &e));
    assert_string_equal(e.msg, "inpaint_area: 'masked' needs a mask");
    image_params_free(&p);
    buf_free(&text);
}

static void test_seeds_differ(void **state) {
    (void)state;
    int64_t seen[100];
    for (int i = 0; i < 100; i++) {
        image_params p = good("{\"prompt\":\"a\"}");
        image_params_draw_seed(&p);
        assert_true(p.seed >= 0 && p.seed <= PARAMS_SEED_MAX);
        seen[i] = p.seed;
        for (int k = 0; k < i; k++) assert_true(seen[k] != seen[i]);
        image_params_free(&p);
    }
    image_params p = good("{\"prompt\":\"a\",\"seed\":0}");
    image_params_draw_seed(&p);
    assert_int_equal(p.seed, 0);
    image_params_free(&p);
}

/* Every field that is not as usual is written, and reads back as the same. */
static void test_sampling_fields_round_trip(void **state) {
    (void)state;
    static const char text[] =
        "{\"prompt\":\"a\",\"eta\":0,\"s_noise\":1.003,\"s_churn\":\"2.5\",\"s_tmin\":0.1,\"s_tmax\":9.5,\"guidance_start\":0.1,"
        "\"guidance_end\":0.8,\"cfg_rescale\":0.7,\"dynamic_threshold\":0.995,\"dynamic_threshold_limit\":3,"
        "\"variation_strength\":0.3,\"variation_seed\":9007199254740975,\"seed_resize_from_w\":512,"
        "\"seed_resize_from_h\":768,\"ensd\":31337,"
        "\"diffusion_tile\":\"512\",\"diffusion_tile_overlap\":0,\"cache_interval\":3,"
        "\"refiner_checkpoint\":\"xl-refiner\",\"refiner_switch_at\":0.25}";
    image_params p = good(text);
    assert_true(p.sampling.eta == 0 && p.sampling.s_noise == 1.003 && p.sampling.s_churn == 2.5);
    assert_true(p.sampling.guidance_rescale == 0.7 && p.sampling.subseed_strength == 0.3);
    assert_int_equal(p.sampling.subseed, 9007199254740975);
    assert_int_equal(p.sampling.eta_noise_seed_delta, 31337);
    assert_true(p.sampling.switch_at == 0.25);
    assert_true(p.sampling.diffusion_tile == 512 && p.sampling.diffusion_tile_overlap == 0);
    assert_int_equal(p.sampling.cache_interval, 3);
    assert_string_equal(p.refiner, "xl-refiner");
    buf out;
    buf_init(&out, 1 << 16);
    image_params_write(&p, &out);
    image_params again = good(buf_str(&out));
    assert_memory_equal(&again.sampling, &p.sampling, sizeof p.sampling);
    assert_string_equal(again.refiner, "xl-refiner");
    image_params_free(&again);
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"eta\":-1,\"dynamic_threshold\":0,\"subseed\":-1}"); /* as usual: nothing */
    buf_clear(&out);
    image_params_write(&p, &out);
    assert_null(strstr(buf_str(&out), "eta"));
    assert_null(strstr(buf_str(&out), "subseed"));
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"subseed\":4503599627370490}"); /* a number with an exponent is none for the worker */
    buf_clear(&out);
    image_params_write(&p, &out);
    assert_non_null(strstr(buf_str(&out), "\"subseed\":4503599627370490"));
    image_params_free(&p);
    p = good("{\"prompt\":\"a\",\"subseed_strength\":0.5,\"seed\":9007199254740991,\"n\":4}"); /* one seed for all */
    image_params_draw_seed(&p);
    assert_true(p.sampling.subseed >= 0);
    image_params_free(&p);
    buf_free(&out);
}

static void test_options_are_json(void **state) {
    (void)state;
    buf out;
    err e = {0};
    buf_init(&out, 1 << 16);
    image_params_write_options(&out);
    yyjson_doc *doc = json_parse(buf_str(&out), out.len, &e);
    if (!doc) fail_msg("%s", e.msg);
    assert_int_equal(yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), "samplers")), 29);
    yyjson_doc_free(doc);
    buf_free(&out);
}

/* ---- uploads ---------------------------------------------------------------------------------------------------- */

static const char png[] = "\x89PNG\r\n\x1a\n rest of it";

static void test_uploads_take_images_only(void **state) {
    (void)state;
    fixture f;
    uploads u;
    err e = {0};
    fixture_init(&f);
    assert_true(uploads_init(&u, f.dir, f.dir, &e));
    fixture_write(&f, "20260102-030405-1.png", png, sizeof png);
    buf encoded;
    buf_init(&encoded, 4096);
    base64_encode(&encoded, png, sizeof png);
    char *a = uploads_take(&u, buf_str(&encoded), &e);
    assert_non_null(a);
    assert_true(str_starts(a, "upload:") && str_ends(a, ".png"));
    char *url = str_fmt("data:image/jpeg;base64,%s", buf_str(&encoded)); /* what it says does not count */
    char *b = uploads_take(&u, url, &e), *c = uploads_take(&u, a, &e);
    assert_string_equal(a, b); /* the same bytes are one file */
    assert_string_equal(a, c);
    char *d = uploads_take(&u, "20260102-030405-1.png", &e), *path = uploads_path(&u, d, &e);
    assert_string_equal(d, "20260102-030405-1.png");
    assert_non_null(path);
    free(path);
    free(a);
    free(b);
    free(c);
    free(d);
    free(url);

    static const struct {
        const char *text;
        int code;
    } bad[] = {
        {"PHN2Zz48L3N2Zz4=", ERR_INVALID},
        {"data:image/png,plain", ERR_INVALID},
        {"not base64!", ERR_INVALID},
        {"nothere.png", ERR_NOT_FOUND},
        {"../mysti.db.png", ERR_INVALID},
        {"upload:../mysti.db", ERR_INVALID},
        {"upload:nothere.png", ERR_NOT_FOUND},
        {"/etc/x.png", ERR_INVALID},
        {"data:image/png;base64,", ERR_INVALID},
        {"http://example.org/x.png", ERR_INVALID},
        {"upload:", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e = (err){0};
        char *name = uploads_take(&u, bad[i].text, &e);
        if (name || (int)bad[i].code != e.code || !e.msg[0]) fail_msg("%s: %d %s", bad[i].text, e.code, e.msg);
    }
    buf_free(&encoded);
    uploads_free(&u);
    fixture_free(&f);
}

static void collect(db_conn *c, void *arg) {
    uploads_collect(arg, c);
}

static void insert_job(db_conn *c, void *arg) {
    err e = {0};
    assert_true(db_exec(c, &e, "INSERT INTO jobs (status, params, file_stem, created_ms) VALUES ('queued', ?, 'x', 0)",
                        "s", (const char *)arg));
}

static void make_old(const fixture *f, const char *name) {
    char *dir = fixture_path(f, "uploads"), *path = path_join(dir, strchr(name, ':') + 1);
    const struct utimbuf day_ago = {time(NULL) - 86400, time(NULL) - 86400};
    assert_int_equal(utime(path, &day_ago), 0);
    free(path);
    free(dir);
}

static void test_uploads_are_collected_when_nobody_needs_them(void **state) {
    (void)state;
    fixture f;
    uploads u;
    err e = {0};
    fixture_init(&f);
    assert_true(uploads_init(&u, f.dir, f.dir, &e));
    char *needed = uploads_store(&u, "\xff\xd8\xff needed", 9, &e);
    char *mask = uploads_store(&u, "\xff\xd8\xff mask", 8, &e), *old = uploads_store(&u, "\xff\xd8\xff old", 7, &e),
         *young = uploads_store(&u, "RIFF....WEBPVP8", 15, &e);
    char *params = str_fmt("{\"init_image\":\"%s\",\"mask\":\"%s\"}", needed, mask);
    db_run(f.db, insert_job, params);
    make_old(&f, needed);
    make_old(&f, mask);
    make_old(&f, old);
    db_run(f.db, collect, &u);
    char *a = uploads_path(&u, needed, &e), *b = uploads_path(&u, old, &e), *c = uploads_path(&u, young, &e);
    char *m = uploads_path(&u, mask, &e);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_non_null(m);
    free(m);
    free(mask);
    free(params);
    free(a);
    free(c);
    free(needed);
    free(old);
    free(young);
    uploads_free(&u);
    fixture_free(&f);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static memory_state state_of(const char *json) {
    err e = {0};
    memory_state s;
    yyjson_doc *doc = json_parse(json, strlen(json), &e);
    json_in root = json_root(doc);
    memory_state_read(&s, &root);
    yyjson_doc_free(doc);
    return s;
}

static const int64_t GB = 1000000000;

static void test_memory_on_the_cpu_is_not_refused_for_weights(void **state) {
    (void)state;
    memory_state s = state_of("{\"memory\":[{\"device\":\"CPU\",\"total\":8000000000,\"free\":500000000}]}");
    err e = {0};
    assert_true(memory_plan_generate(&s, 512, 512, 0, &e));
    assert_true(memory_plan_llm(&s, 20 * GB, 4096, 0, 0, &e));
    assert_false(memory_plan_llm(&s, GB, 1000000, 0, 0, &e));
    assert_int_equal(e.code, ERR_MEMORY);
}

static void test_memory_on_a_device_counts(void **state) {
    (void)state;
    memory_state s = state_of("{\"memory\":[{\"device\":\"CPU\",\"total\":8000000000,\"free\":500000000},"
                              "{\"device\":\"CUDA0\",\"total\":8000000000,\"free\":3100000000}]}");
    err e = {0};
    assert_string_equal(memory_plan_device(&s)->name, "CUDA0");
    assert_true(memory_plan_generate(&s, 512, 512, 0, &e));
    assert_false(memory_plan_generate(&s, 4096, 4096, 0, &e));
    assert_string_equal(e.msg, "a picture of 4096 x 4096 needs about 6.4 GB, 3.1 GB free on CUDA0");
    assert_true(memory_plan_generate(&s, 4096, 4096, 4 * GB, &e));    /* the model's weights give way */
    assert_false(memory_plan_generate(&s, 6144, 6144, 100 * GB, &e)); /* but a device is not larger than it is */
    assert_true(memory_plan_scratch(1024, 1024) > memory_plan_scratch(512, 512));
}

static void test_strange_memory_is_unknown_memory(void **state) {
    (void)state;
    static const char *const texts[] = {"{}", "{\"memory\":5}", "{\"memory\":[]}",
                                        "{\"memory\":[1,{},{\"device\":\"x\"}]}",
                                        "{\"memory\":[{\"device\":\"GPU\",\"total\":-1,\"free\":0}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memory_state s = state_of(texts[i]);
        assert_null(memory_plan_device(&s));
        assert_true(memory_plan_llm(&s, 1000 * GB, 4096, 0, 0, NULL)); /* in doubt it is tried */
    }
}

/* What is out of range, or of modules and modes that we do not have, is as usual. */
static void test_networks_of_a_text(void **state) {
    (void)state;
    metadata m = {0};
    metadata_parse(
        &m, "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, "
            "ControlNet 0: \"Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: "
            "Crop and Resize, Processor Res: 512, Threshold A: 40, Threshold B: 90, Guidance Start: 0.1, Guidance "
            "End: 0.7, Pixel Perfect: True, Control Mode: My prompt is more important\", "
            "ControlNet 1: \"Module: openpose_full, Model: pose, Weight: nan, Threshold A: 0.5, Threshold B: 3000, "
            "Guidance Start: 0.9, Guidance End: 0.3, Control Mode: Other\", ControlNet 2: broken, "
            "ControlNet 9: \"Module: canny, Model: beyond, Weight: 1\", "
            "IP-Adapter: \"Model: plus, Weight: 9, Guidance Start: 0, Guidance End: 0.5\"");
    image_controls c = {0};
    image_controls_read_metadata(&c, &m);
    assert_int_equal(c.count, 2);
    buf out;
    buf_init(&out, 4096);
    image_controls_write(&c, &out);
    assert_string_equal(
        buf_str(&out),
        "\"controlnet\":[{\"model\":\"control_v11p_sd15_canny [d14c016b]\",\"image\":null,\"weight\":0.8,\"start\":0.1,"
        "\"end\":0.7,\"preprocessor\":\"canny\",\"mode\":\"prompt\",\"low_threshold\":40,\"high_threshold\":90},"
        "{\"model\":\"pose\",\"image\":null,\"weight\":1,\"start\":0,\"end\":1,\"preprocessor\":\"none\","
        "\"mode\":\"balanced\",\"low_threshold\":100,\"high_threshold\":200}],");
    image_controls_free(&c);
    image_ip_adapter a = {0};
    image_ip_adapter_read_metadata(&a, &m);
    out.len = 0;
    image_ip_adapter_write(&a, &out);
    assert_string_equal(buf_str(&out),
                        "\"ip_adapter\":{\"model\":\"plus\",\"image\":null,\"weight\":1,\"start\":0,\"end\":0.5},");
    image_ip_adapter_free(&a);
    metadata_free(&m);
    metadata_parse(&m, "ControlNet 0: 1, IP-Adapter: x, Steps: 2");
    image_controls_read_metadata(&c, &m);
    image_ip_adapter_read_metadata(&a, &m);
    assert_true(c.count == 0 && !a.model);
    image_controls_free(&c);
    metadata_free(&m);
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals_name_the_field),
        cmocka_unit_test(test_prompts_are_counted_in_characters),
        cmocka_unit_test(test_names_of_other_programs),
        cmocka_unit_test(test_wide_types),
        cmocka_unit_test(test_loras),
        cmocka_unit_test(test_controlnets),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_ip_adapter),
        cmocka_unit_test(test_networks_of_a_text),
        cmocka_unit_test(test_upscales),
        cmocka_unit_test(test_what_is_written_reads_back_the_same),
        cmocka_unit_test(test_edits),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_sampling_fields_round_trip),
        cmocka_unit_test(test_options_are_json),
        cmocka_unit_test(test_uploads_take_images_only),
        cmocka_unit_test(test_uploads_are_collected_when_nobody_needs_them),
        cmocka_unit_test(test_memory_on_the_cpu_is_not_refused_for_weights),
        cmocka_unit_test(test_memory_on_a_device_counts),
        cmocka_unit_test(test_strange_memory_is_unknown_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
