/* The index: what is listed, by what it is found, what a restart and a change do, and hostile folders. */
#include "server_fixture.h"
#include "model_bytes.h"
#include "diffusion/load/tensor_type.h"
#include "server/demo.h"
#include "server/models.h"

#include "base/log.h"
#include "json/json.h"

typedef struct world {
    fixture f;
    models *m;
    char *dir;
    int changes, refreshed;
    const char *active;
} world;

static void on_changed(void *ctx) {
    ((world *)ctx)->changes++;
}

static void state_of(void *ctx, const model_entry *m, bool *active, bool *loaded) {
    *active = *loaded = str_eq(m->id, ((world *)ctx)->active);
}

static void open_index(world *w) {
    const models_config config = {
        .loop = &w->f.loop, .db = w->f.db, .dir = w->dir, .ctx = w, .changed = on_changed, .state = state_of};
    err e = {0};
    w->m = models_open(&config, &e);
    assert_non_null(w->m);
}

static void world_init(world *w) {
    *w = (world){0};
    fixture_init(&w->f);
    char *dir = fixture_path(&w->f, "models");
    assert_true(path_make_dirs(dir, NULL));
    w->dir = path_absolute(dir, NULL);
    free(dir);
}

static void close_index(world *w) {
    models_close(w->m);
    fixture_close_db(&w->f);
}

static void world_free(world *w) {
    close_index(w);
    fixture_free(&w->f);
    free(w->dir);
}

/* A LoRA, as small as one can be. */
static void write_lora(world *w, const char *name) {
    st_builder s;
    buf out;
    st_init(&s);
    buf_init(&out, 1 << 20);
    st_add(&s, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", "F16", "1,4",
           NULL, 8);
    st_add(&s, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", "F16", "4,1",
           NULL, 8);
    st_finish(&s, &out);
    char *path = str_fmt("models/%s", name);
    fixture_write(&w->f, path, out.data, out.len);
    free(path);
    buf_free(&out);
}

/* An SD 1.x checkpoint by its names; `metadata`: JSON members, or NULL. */
static void write_checkpoint(world *w, const char *name, const char *metadata) {
    st_builder s;
    buf out;
    st_init(&s);
    buf_init(&out, 1 << 20);
    if (metadata) buf_printf(&s.header, "\"__metadata__\":{%s}", metadata);
    st_add(&s, "model.diffusion_model.input_blocks.0.0.weight", "F16", "8,4,3,3", NULL, 576);
    st_add(&s, "first_stage_model.decoder.conv_in.weight", "F16", "8,4,3,3", NULL, 576);
    st_finish(&s, &out);
    char *path = str_fmt("models/%s", name);
    fixture_write(&w->f, path, out.data, out.len);
    free(path);
    buf_free(&out);
}

static void write_llm(world *w, const char *name) {
    const uint64_t dims[] = {64, 3};
    buf out;
    buf_init(&out, 1 << 20);
    gguf_head(&out, 3, 1, 1);
    gguf_str(&out, "general.architecture", "llama");
    gguf_tensor(&out, "token_embd.weight", 2, dims, TENSOR_Q8_0, 0);
    put_pad(&out, 32);
    for (int i = 0; i < 204; i++) buf_putc(&out, 0);
    char *path = str_fmt("models/%s", name);
    fixture_write(&w->f, path, out.data, out.len);
    free(path);
    buf_free(&out);
}

static void write_text(world *w, const char *name, const char *text) {
    char *path = str_fmt("models/%s", name);
    fixture_write(&w->f, path, text, strlen(text));
    free(path);
}

static const model_entry *need(world *w, const char *name) {
    err e = {0};
    const model_entry *m = models_find(w->m, name, &e);
    if (!m) fail_msg("%s", e.msg);
    return m;
}

static void on_refreshed(void *ctx) {
    ((world *)ctx)->refreshed++;
}

static void test_files_are_listed_by_content(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "sub/deep/any name.safetensors");
    write_text(&w, "broken.safetensors", "this is no model");
    write_text(&w, "old.ckpt", "\x80\x02pickle");
    write_text(&w, "readme.txt", "hello");
    write_text(&w, ".hidden/x.safetensors", "x");
    write_text(&w, ".also.gguf", "x");
    open_index(&w);
    fixture_spin(&w.f);
    assert_int_equal(models_count(w.m), 3);
    assert_string_equal(models_at(w.m, 0)->id, "broken.safetensors");
    assert_false(models_at(w.m, 0)->supported);
    assert_non_null(models_at(w.m, 0)->reason);
    const model_entry *pickle = need(&w, "old.ckpt"), *lora = need(&w, "sub/deep/any name.safetensors");
    assert_non_null(strstr(pickle->reason, "convert it to .safetensors"));
    assert_string_equal(lora->type, "lora");
    assert_string_equal(lora->quantization, "f16");
    assert_true(lora->size > 0);
    world_free(&w);
}

static void test_models_are_found_by_short_names(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "a/one.safetensors");
    write_lora(&w, "b/two.safetensors");
    write_lora(&w, "c/two.safetensors");
    write_lora(&w, "d.v1.5.safetensors");
    open_index(&w);
    fixture_spin(&w.f);
    assert_string_equal(need(&w, "one")->id, "a/one.safetensors");
    assert_string_equal(need(&w, "one.safetensors")->id, "a/one.safetensors");
    assert_string_equal(need(&w, "d.v1.5")->id, "d.v1.5.safetensors");
    assert_string_equal(need(&w, need(&w, "one")->path)->id, "a/one.safetensors");
    assert_string_equal(need(&w, "b/two.safetensors")->id, "b/two.safetensors");
    err e = {0};
    assert_null(models_find(w.m, "two", &e));
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_null(models_find(w.m, "a/on.safetensors", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "did you mean 'a/one.safetensors'?"));
    assert_null(models_find(w.m, "", &e));
    assert_null(models_find(w.m, "../x", &e));
    world_free(&w);
}

static void test_a_restart_answers_before_the_scan(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "a.safetensors");
    write_lora(&w, "b.safetensors");
    open_index(&w);
    assert_int_equal(models_count(w.m), 0);
    fixture_spin(&w.f);
    assert_int_equal(w.changes, 1);
    close_index(&w);

    fixture_open_db(&w.f);
    write_lora(&w, "c.safetensors");
    char *gone = path_join(w.dir, "a.safetensors");
    assert_int_equal(remove(gone), 0);
    free(gone);
    open_index(&w);
    assert_int_equal(models_count(w.m), 2); /* as it was; nothing was read yet */
    assert_string_equal(need(&w, "a")->type, "lora");
    fixture_spin(&w.f);
    assert_int_equal(models_count(w.m), 2);
    err e = {0};
    assert_null(models_find(w.m, "a", &e));
    need(&w, "c");
    assert_int_equal(w.changes, 2);
    close_index(&w);

    fixture_open_db(&w.f);
    open_index(&w);
    assert_int_equal(models_count(w.m), 2);
    fixture_spin(&w.f);
    assert_int_equal(w.changes, 2); /* nothing changed, nobody is told */
    world_free(&w);
}

static void test_refresh_sees_what_is_new(void **state) {
    (void)state;
    world w;
    world_init(&w);
    open_index(&w);
    models_refresh(w.m, on_refreshed, &w); /* the first scan is under way */
    models_refresh(w.m, on_refreshed, &w);
    write_lora(&w, "new.safetensors");
    fixture_spin(&w.f);
    assert_int_equal(w.refreshed, 2);
    need(&w, "new");
    write_text(&w, "new.safetensors", "broken now, and of another size");
    models_refresh(w.m, on_refreshed, &w);
    fixture_spin(&w.f);
    assert_int_equal(w.refreshed, 3);
    assert_false(need(&w, "new")->supported);
    world_free(&w);
}

static void test_loops_and_depth_end(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "a/b/x.safetensors");
    char *loop = path_join(w.dir, "a/b/loop"), *dangling = path_join(w.dir, "a/gone.safetensors");
    assert_int_equal(symlink(w.dir, loop), 0);
    assert_int_equal(symlink("/nonexistent/file", dangling), 0);
    write_lora(&w, "1/2/3/4/5/6/7/8/9/10/deep.safetensors");
    open_index(&w);
    fixture_spin(&w.f);
    assert_int_equal(models_count(w.m), 1);
    free(loop);
    free(dangling);
    world_free(&w);
}

static void test_a_missing_folder_is_an_empty_list(void **state) {
    (void)state;
    world w;
    world_init(&w);
    assert_int_equal(rmdir(w.dir), 0);
    open_index(&w);
    fixture_spin(&w.f);
    assert_int_equal(models_count(w.m), 0);
    world_free(&w);
}

static void test_closing_in_the_middle_of_a_scan(void **state) {
    (void)state;
    world w;
    world_init(&w);
    for (int i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof name, "m%d.safetensors", i);
        write_lora(&w, name);
    }
    open_index(&w);
    models_refresh(w.m, on_refreshed, &w);
    close_index(&w);
    fixture_free(&w.f);
    free(w.dir);
}

static void test_the_list_is_openais(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "sub/a \"q\".safetensors");
    write_lora(&w, "b.safetensors");
    w.active = "b.safetensors";
    open_index(&w);
    fixture_spin(&w.f);
    buf out;
    err e = {0};
    buf_init(&out, 1 << 20);
    models_write_list(w.m, &out);
    yyjson_doc *doc = json_parse(buf_str(&out), out.len, &e);
    if (!doc) fail_msg("%s", e.msg);
    yyjson_val *data = yyjson_obj_get(yyjson_doc_get_root(doc), "data"), *b = yyjson_arr_get(data, 0);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "object")), "list");
    assert_int_equal(yyjson_arr_size(data), 2);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(b, "id")), "b.safetensors");
    assert_true(yyjson_get_bool(yyjson_obj_get(b, "active")));
    assert_non_null(strstr(buf_str(&out), "\"active\":true"));
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(data, 1), "path")), "sub/a \"q\".safetensors");
    assert_false(yyjson_get_bool(yyjson_obj_get(yyjson_arr_get(data, 1), "loaded")));
    yyjson_doc_free(doc);
    buf_free(&out);
    world_free(&w);
}

static yyjson_doc *json_of(world *w, const char *name) {
    buf out;
    buf_init(&out, 1 << 20);
    models_write_one(w->m, need(w, name), &out);
    yyjson_doc *doc = json_parse(buf_str(&out), out.len, NULL);
    buf_free(&out);
    assert_non_null(doc);
    return doc;
}

static void check_what_a_file_says(world *w) {
    yyjson_doc *doc = json_of(w, "says");
    yyjson_val *o = yyjson_doc_get_root(doc), *examples = yyjson_obj_get(o, "examples");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(o, "title")), "Says it");
    assert_int_equal(yyjson_get_int(yyjson_obj_get(o, "width")), 128);
    assert_int_equal(yyjson_get_int(yyjson_obj_get(o, "height")), 192);
    assert_int_equal(yyjson_arr_size(examples), 2);
    assert_string_equal(yyjson_get_str(yyjson_arr_get(examples, 0)), "a \"red\" circle");
    assert_string_equal(yyjson_get_str(yyjson_arr_get(examples, 1)), "two");
    assert_true(yyjson_get_bool(yyjson_obj_get(o, "demo")));
    yyjson_doc_free(doc);
}

static void test_what_a_file_says_of_itself(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_checkpoint(&w, "demo/says.safetensors",
                     "\"modelspec.title\":\"Says it\",\"modelspec.resolution\":\"128x192\","
                     "\"mysti.examples\":\"a \\\"red\\\" circle\\ntwo\\n\"");
    write_checkpoint(&w, "silent.safetensors", NULL);
    write_lora(&w, "lora.safetensors");
    open_index(&w);
    fixture_spin(&w.f);
    check_what_a_file_says(&w);
    yyjson_doc *silent = json_of(&w, "silent"), *lora = json_of(&w, "lora");
    yyjson_val *o = yyjson_doc_get_root(silent);
    assert_true(yyjson_is_null(yyjson_obj_get(o, "title")));
    assert_int_equal(yyjson_get_int(yyjson_obj_get(o, "width")), 512);
    assert_int_equal(yyjson_arr_size(yyjson_obj_get(o, "examples")), 0);
    assert_true(yyjson_is_false(yyjson_obj_get(o, "demo")));
    assert_true(yyjson_is_null(yyjson_obj_get(yyjson_doc_get_root(lora), "width")));
    yyjson_doc_free(silent);
    yyjson_doc_free(lora);
    close_index(&w);

    fixture_open_db(&w.f); /* now from the database */
    open_index(&w);
    check_what_a_file_says(&w);
    world_free(&w);
}

/* ---- the demo models -------------------------------------------------------------------------------------------- */

static void check_demo(world *w, const char *want_image, const char *want_text) {
    char *image, *text;
    demo_find(w->dir, &image, &text);
    assert_true(str_eq(image, want_image) && str_eq(text, want_text));
    free(image);
    free(text);
}

static void test_the_demo_models_are_found(void **state) {
    (void)state;
    world w;
    world_init(&w);
    check_demo(&w, NULL, NULL);
    write_text(&w, "demo/README.md", "no model");
    write_text(&w, "demo/broken.safetensors", "no model either");
    write_lora(&w, "demo/a.safetensors");
    check_demo(&w, NULL, NULL);
    write_checkpoint(&w, "demo/picture.safetensors", NULL);
    check_demo(&w, "demo/picture.safetensors", NULL);
    write_checkpoint(&w, "demo/later.safetensors", NULL);
    write_llm(&w, "demo/writer.gguf");
    check_demo(&w, "demo/later.safetensors", "demo/writer.gguf");
    assert_true(demo_is("demo/later.safetensors"));
    assert_false(demo_is("demolition.safetensors") || demo_is("my/demo/x.gguf") || demo_is(NULL));
    open_index(&w);
    fixture_spin(&w.f);
    world_free(&w);
}

static void test_what_stands_in_the_way_of_the_demo(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_checkpoint(&w, "demo/picture.safetensors", NULL);
    write_text(&w, "README.md", "no model");
    write_text(&w, "broken.safetensors", "no model");
    write_text(&w, "old.ckpt", "\x80\x02pickle");
    write_lora(&w, "loras/a.safetensors");
    write_checkpoint(&w, ".trash/own.safetensors", NULL);
    assert_false(demo_has_rival(w.dir)); /* nothing of these can be loaded by itself */
    char *loop = path_join(w.dir, "loras/loop");
    assert_int_equal(symlink(w.dir, loop), 0);
    assert_true(demo_has_rival(w.dir)); /* the demo folder by another name; what matters is that it ends */
    assert_int_equal(unlink(loop), 0);
    write_checkpoint(&w, "sub/deep/own.safetensors", NULL);
    assert_true(demo_has_rival(w.dir));
    open_index(&w);
    fixture_spin(&w.f);
    free(loop);
    world_free(&w);
}

static void test_a_language_model_stands_in_the_way_too(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_llm(&w, "own.gguf");
    assert_true(demo_has_rival(w.dir));
    open_index(&w);
    fixture_spin(&w.f);
    world_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_are_listed_by_content),
        cmocka_unit_test(test_models_are_found_by_short_names),
        cmocka_unit_test(test_a_restart_answers_before_the_scan),
        cmocka_unit_test(test_refresh_sees_what_is_new),
        cmocka_unit_test(test_loops_and_depth_end),
        cmocka_unit_test(test_a_missing_folder_is_an_empty_list),
        cmocka_unit_test(test_closing_in_the_middle_of_a_scan),
        cmocka_unit_test(test_the_list_is_openais),
        cmocka_unit_test(test_what_a_file_says_of_itself),
        cmocka_unit_test(test_the_demo_models_are_found),
        cmocka_unit_test(test_what_stands_in_the_way_of_the_demo),
        cmocka_unit_test(test_a_language_model_stands_in_the_way_too),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
