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
    bool ok = image_params_read(p, &root, strict, e);
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
        {"{\"prompt\":\"a\",\"height\":32}", "height: 32 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"height\":8192}", "height: 8192 is not between 64 and 4096"},
        {"{\"prompt\":\"a\",\"size\":\"512\"}", "size: '512' is not of the form 512x512"},
        {"{\"prompt\":\"a\",\"size\":\"512x512x3\"}", "size: "},
        {"{\"prompt\":\"a\",\"size\":\"-512x512\"}", "size: '-512x512' is not of the form"},
        {"{\"prompt\":\"a\",\"size\":\"100x512\"}", "size: 100 is not a multiple of 8"},
        {"{\"prompt\":\"a\",\"cfg_scale\":51}", "cfg_scale: 51 is not between 0 and 50"},
        {"{\"prompt\":\"a\",\"cfg_scale\":\"nan\"}", "cfg_scale: expected a number"},
        {"{\"prompt\":\"a\",\"sampler\":\"plms\"}", "sampler: 'plms' is none of euler, euler_a, heun, dpm++2m"},
        {"{\"prompt\":\"a\",\"sampler\":7}", "sampler: expected string"},
        {"{\"prompt\":\"a\",\"scheduler\":\"best\"}", "scheduler: 'best' is none of discrete, karras"},
        {"{\"prompt\":\"a\",\"rng\":\"dice\"}", "rng: 'dice' is none of cuda, cpu"},
        {"{\"prompt\":\"a\",\"seed\":9007199254740992}",
         "seed: 9007199254740992 is not between -1 and 9007199254740991"},
        {"{\"prompt\":\"a\",\"seed\":-2}", "seed: -2 is not between"},
        {"{\"prompt\":\"a\",\"n\":17}", "n: 17 is not between 1 and 16"},
        {"{\"prompt\":\"a\",\"clip_skip\":0}", "clip_skip: 0 is not between 1 and 12"},
        {"{\"prompt\":\"a\",\"strength\":1.01}", "strength: 1.01 is not between 0 and 1"},
        {"{\"prompt\":\"a\",\"output_format\":\"bmp\"}", "output_format: 'bmp' is none of png, jpeg, webp"},
        {"{\"prompt\":\"a\",\"output_compression\":101}", "output_compression: 101 is not between 0 and 100"},
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

static void test_what_is_written_reads_back_the_same(void **state) {
    (void)state;
    image_params p = good(
        "{\"prompt\":\"a \\\"q\\\"\\n\\u00e4\",\"negative_prompt\":\"b\",\"model\":\"sub/x.gguf\",\"size\":\"64x128\","
        "\"cfg_scale\":7.1,\"strength\":0.30000000000000004,\"init_image\":\"upload:1.png\",\"seed\":9007199254740991}");
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

static void test_options_are_json(void **state) {
    (void)state;
    buf out;
    err e = {0};
    buf_init(&out, 1 << 16);
    image_params_write_options(&out);
    yyjson_doc *doc = json_parse(buf_str(&out), out.len, &e);
    if (!doc) fail_msg("%s", e.msg);
    assert_int_equal(yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), "samplers")), 4);
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
        if (name || (int)bad[i].code != e.code || !e.msg[0])
            fail_msg("%s: %d %s", bad[i].text, e.code, e.msg);
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
    assert_true(db_exec(c, &e,
                        "INSERT INTO jobs (status, params, init_image, file_stem, created_ms)"
                        " VALUES ('queued', '{}', ?, 'x', 0)",
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
    char *needed = uploads_store(&u, "\xff\xd8\xff needed", 9, &e), *old = uploads_store(&u, "\xff\xd8\xff old", 7, &e),
         *young = uploads_store(&u, "RIFF....WEBPVP8", 15, &e);
    db_run(f.db, insert_job, needed);
    make_old(&f, needed);
    make_old(&f, old);
    db_run(f.db, collect, &u);
    char *a = uploads_path(&u, needed, &e), *b = uploads_path(&u, old, &e), *c = uploads_path(&u, young, &e);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
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
    assert_true(memory_plan_load(&s, 20 * GB, 0, &e)); /* mapped */
    assert_true(memory_plan_generate(&s, 512, 512, &e));
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
    assert_true(memory_plan_load(&s, 2 * GB, 0, &e));
    assert_false(memory_plan_load(&s, 7 * GB, 0, &e));
    assert_string_equal(e.msg, "the model needs about 7.2 GB, 3.1 GB free on CUDA0");
    assert_true(memory_plan_load(&s, 7 * GB, 5 * GB, &e));    /* the present model gives way */
    assert_false(memory_plan_load(&s, 9 * GB, 100 * GB, &e)); /* but a device is not larger than it is */
    assert_true(memory_plan_generate(&s, 512, 512, &e));
    assert_false(memory_plan_generate(&s, 4096, 4096, &e));
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
        assert_true(memory_plan_load(&s, 1000 * GB, 0, NULL)); /* in doubt it is tried */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals_name_the_field),
        cmocka_unit_test(test_prompts_are_counted_in_characters),
        cmocka_unit_test(test_names_of_other_programs),
        cmocka_unit_test(test_wide_types),
        cmocka_unit_test(test_what_is_written_reads_back_the_same),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_options_are_json),
        cmocka_unit_test(test_uploads_take_images_only),
        cmocka_unit_test(test_uploads_are_collected_when_nobody_needs_them),
        cmocka_unit_test(test_memory_on_the_cpu_is_not_refused_for_weights),
        cmocka_unit_test(test_memory_on_a_device_counts),
        cmocka_unit_test(test_strange_memory_is_unknown_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
