/* The index: what is listed, by what it is found, what a restart and a change do, and hostile folders. */
#include "server_fixture.h"
#include "model_bytes.h"
#include "diffusion/load/tensor_type.h"
#include "server/demo.h"
#include "server/embeddings.h"
#include "server/loras.h"
#include "server/model_choice.h"
#include "server/model_lists.h"
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

/* A LoRA, as small as one can be; `alias`: what it calls itself, or NULL; `width`: of the text that it was made for. */
static void write_lora_of(world *w, const char *name, const char *alias, int width) {
    st_builder s;
    buf out;
    char shape[16];
    st_init(&s);
    buf_init(&out, 1 << 20);
    if (alias) buf_printf(&s.header, "\"__metadata__\":{\"ss_output_name\":\"%s\"}", alias);
    snprintf(shape, sizeof shape, "1,%d", width);
    st_add(&s, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", "F16", shape,
           NULL, 2 * (size_t)width);
    st_add(&s, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight", "F16", "4,1",
           NULL, 8);
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

static void write_lora(world *w, const char *name) {
    write_lora_of(w, name, NULL, 768);
}

/* An SD 1.x checkpoint by its names; `members`: of its metadata, JSON, or NULL. */
static void write_checkpoint(world *w, const char *name, const char *members) {
    st_builder s;
    buf out;
    st_init(&s);
    buf_init(&out, 1 << 20);
    if (members) buf_printf(&s.header, "\"__metadata__\":{%s}", members);
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
    assert_false(pickle->supported);
    assert_non_null(strstr(pickle->reason, "not one that torch.save wrote"));
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

static void test_a_file_is_chosen_among_those_of_its_kind(void **state) {
    (void)state;
    static const model_kind_wanted lora = {"lora", "LoRA", "/v1/loras"}, llm = {"llm", "language model", "/v1/models"};
    world w;
    world_init(&w);
    write_lora(&w, "loras/twin.safetensors");
    write_llm(&w, "twin.gguf");
    write_llm(&w, "writer.gguf");
    open_index(&w);
    fixture_spin(&w.f);
    err e = {0};
    bool unknown = false;
    const model_entry *found = model_choice_find(w.m, &lora, "x.model", "twin", &unknown, &e);
    assert_string_equal(found->id, "loras/twin.safetensors");
    assert_string_equal(model_choice_find(w.m, &llm, "x.model", "twin", &unknown, &e)->id, "twin.gguf");
    assert_null(model_choice_find(w.m, &lora, "x.model", "writer", &unknown, &e));
    assert_string_equal(e.msg, "x.model: 'writer.gguf' is no LoRA but of type llm");
    assert_false(unknown);
    assert_null(model_choice_find(w.m, &lora, "x.model", "loras/twins.safetensors", &unknown, &e));
    assert_string_equal(e.msg, "x.model: there is no model 'loras/twins.safetensors'; did you mean "
                               "'loras/twin.safetensors'? (GET /v1/loras lists them)");
    assert_true(unknown && e.code == ERR_INVALID);
    assert_true(model_choice_fits(w.m, found, NULL, "x.model", &e));
    assert_true(model_choice_fits(w.m, found, "nobody", "x.model", &e));
    assert_true(model_choice_fits(w.m, found, found->id, "x.model", &e));
    assert_false(model_choice_fits(w.m, found, "twin.gguf", "x.model", &e));
    assert_string_equal(e.msg, "x.model: 'loras/twin.safetensors' is for sd1, the model is of llama");
    world_free(&w);
}

/* A prompt, and a list of names; the names are the LoRAs' ids then, or NULL and why. */
static char *resolve(world *w, const char *prompt, const char *json_loras, err *e) {
    char *json = str_fmt("{\"prompt\":\"%s\",\"loras\":%s}", prompt, json_loras);
    *e = (err){0};
    yyjson_doc *doc = json_parse(json, strlen(json), e);
    json_in root = json_root(doc);
    image_params p;
    if (!doc || !image_params_read(&p, &root, IMAGE_PARAMS_STRICT, e)) fail_msg("%s: %s", json, e->msg);
    buf out;
    bool unknown;
    buf_init(&out, 1 << 16);
    const bool ok = loras_check(w->m, &p, &unknown, e);
    assert_true(ok == loras_write(w->m, &p, p.prompt, &out, NULL));
    assert_true(!ok || !unknown);
    image_params_free(&p);
    yyjson_doc_free(doc);
    free(json);
    if (ok) return buf_take(&out, NULL);
    buf_free(&out);
    return NULL;
}

static void test_loras_are_found_by_name(void **state) {
    (void)state;
    static const struct {
        const char *prompt, *list, *want; /* a part of what goes to the worker, or of the message */
        int code;
    } rows[] = {
        {"a <lora:one:0.8> b", "[]",
         "\"name\":\"one\",\"path\":\"*/loras/one.safetensors\",\"unet\":0.8,\"te\":0.8,\"in_prompt\":true", 0},
        {"<lora:one.safetensors:1:0>", "[]", "loras/one.safetensors\",\"unet\":0,\"te\":1", 0},
        {"<lora:Nice Name>", "[]", "\"name\":\"Nice Name\",\"path\":\"*/loras/x_v2.safetensors", 0},
        {"<lora:a/two>", "[]", "a/two.safetensors", 0},
        {"<lora:loras/one>", "[]", "loras/one.safetensors", 0},
        {"", "[{\"name\":\"Nice Name\",\"weight\":0.5,\"te_weight\":-1}]",
         "\"name\":\"x_v2\",\"path\":\"*/loras/x_v2.safetensors\",\"unet\":0.5,\"te\":-1,\"in_prompt\":false", 0},
        {"<lora:one>", "[\"a/two.safetensors\"]", "},{\"name\":\"two\"", 0},
        {"<lora:two>", "[]", "prompt: LoRA 'two' may be 'a/two.safetensors', 'b/two.safetensors'", ERR_INVALID},
        {"<lora:onee>", "[]", "prompt: there is no LoRA 'onee'; did you mean 'one'", ERR_INVALID},
        {"<lora:zzzzzzzzzzzzzz>", "[]", "GET /v1/loras lists them", ERR_INVALID},
        {"", "[\"one\",\"tvo\"]", "loras[1].name: there is no LoRA 'tvo'; did you mean 'two'", ERR_INVALID},
        {"<lora:flat>", "[]", "prompt: 'flat.safetensors': LoRA for Stable Diffusion 3", ERR_UNSUPPORTED},
        {"<lora:model>", "[]", "there is no LoRA 'model'", ERR_INVALID},
        {"<lora:one:x>", "[]", "prompt: '<lora:one:x>': not a number: x", ERR_INVALID},
    };
    world w;
    world_init(&w);
    write_lora(&w, "loras/one.safetensors");
    write_lora_of(&w, "loras/x_v2.safetensors", "Nice Name", 768);
    write_lora(&w, "a/two.safetensors");
    write_lora(&w, "b/two.safetensors");
    write_checkpoint(&w, "model.safetensors", NULL);
    st_builder s;
    buf out;
    st_init(&s);
    buf_init(&out, 1 << 20);
    st_add(&s, "lora_unet_joint_blocks_0_x.lora_up.weight", "F16", "1,1", NULL, 2);
    st_finish(&s, &out);
    fixture_write(&w.f, "models/flat.safetensors", out.data, out.len);
    buf_free(&out);
    open_index(&w);
    fixture_spin(&w.f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e;
        char *got = resolve(&w, rows[i].prompt, rows[i].list, &e);
        const char *star = strstr(rows[i].want, "*"), *in = got ? got : e.msg;
        char *head = star ? str_ndup(rows[i].want, (size_t)(star - rows[i].want)) : str_dup(rows[i].want);
        const bool ok = e.code == rows[i].code && strstr(in, head) && (!star || strstr(in, star + 1));
        if (!ok) fail_msg("row %zu: %s", i, in);
        free(head);
        free(got);
    }
    model_list_write_document(w.m, "lora", &out);
    yyjson_doc *doc = yyjson_read(out.data, out.len, 0);
    yyjson_val *list = yyjson_obj_get(yyjson_doc_get_root(doc), "data");
    assert_int_equal(yyjson_arr_size(list), 5);
    yyjson_val *last = yyjson_arr_get(list, 4);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(last, "name")), "x_v2");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(last, "alias")), "Nice Name");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(last, "family")), "sd1");
    yyjson_doc_free(doc);
    buf_free(&out);
    world_free(&w);
}

/* --- embeddings --- */

static void write_embedding(world *w, const char *name, const char *dims, size_t bytes) {
    st_builder s;
    buf out;
    st_init(&s);
    buf_init(&out, 1 << 20);
    st_add(&s, "emb_params", "F16", dims, NULL, bytes);
    st_finish(&s, &out);
    char *path = str_fmt("models/%s", name);
    fixture_write(&w->f, path, out.data, out.len);
    free(path);
    buf_free(&out);
}

static void test_embeddings_named_in_prompts(void **state) {
    (void)state;
    static const struct {
        const char *prompt, *negative, *want; /* ids with spaces between */
    } rows[] = {
        {"a fox", "", ""},
        {"a fox in GOOD style", "", "embeddings/good style.pt"},
        {"[style|good]", "", "embeddings/good style.pt"},
        {"goodstyle", "styles, good", ""},
        {"(bad_hands5:1.2)", "", "embeddings/sub/Bad_Hands5.safetensors"},
        {"fox", "bad hands 5, bad", "embeddings/sub/Bad_Hands5.safetensors"},
        {"bad_hands", "", ""},
        {"brokenhands", "broken", ""},
        {"cat", "dog", "cat.safetensors"},
        {"concatenate", "cats", ""},
        {"<cat>s", "", "cat.safetensors"},
        {"word", "", "embeddings/word.bin"},
        {"other", "", ""},
    };
    world w;
    world_init(&w);
    write_embedding(&w, "embeddings/good style.pt", "1,768", 1536);
    write_embedding(&w, "embeddings/sub/Bad_Hands5.safetensors", "1,1024", 2048);
    write_embedding(&w, "embeddings/broken.safetensors", "76,768", 76 * 1536);
    write_embedding(&w, "cat.safetensors", "1,768", 1536);
    write_embedding(&w, "embeddings/word.bin", "1,768", 1536);
    write_embedding(&w, "other.bin", "1,768", 1536);
    open_index(&w);
    fixture_spin(&w.f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        image_params p;
        err e = {0};
        char got[200] = "";
        image_params_init(&p);
        str_set(&p.prompt, rows[i].prompt);
        str_set(&p.negative_prompt, rows[i].negative);
        for (int again = 0; again < 2; again++) assert_true(embeddings_choose(w.m, &p, &e));
        for (size_t k = 0; k < p.texts.embedding_count; k++) strcat(got, p.texts.embeddings[k]);
        if (!str_eq(got, rows[i].want)) fail_msg("%s: %s", rows[i].prompt, got);
        image_params_free(&p);
    }
    image_params p;
    err e = {0};
    buf out;
    buf_init(&out, 1 << 16);
    image_params_init(&p);
    image_texts_add_embedding(&p.texts, "cat.safetensors");
    assert_true(embeddings_write(w.m, &p, &out, &e));
    char *want = str_fmt("\"embeddings\":[{\"name\":\"cat\",\"path\":\"%s/cat.safetensors\"}]", w.dir);
    assert_string_equal(buf_str(&out), want);
    free(want);
    image_texts_add_embedding(&p.texts, "gone.pt");
    assert_false(embeddings_write(w.m, &p, &out, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "'gone.pt' is gone"));
    image_params_free(&p);
    buf_free(&out);
    world_free(&w);
}

static void test_without_loras(void **state) {
    (void)state;
    world w;
    err e;
    world_init(&w);
    open_index(&w);
    fixture_spin(&w.f);
    char *got = resolve(&w, "a cat", "[]", &e);
    assert_string_equal(got, "\"loras\":[]");
    free(got);
    assert_null(resolve(&w, "<lora:x>", "[]", &e));
    assert_string_equal(e.msg, "prompt: there is no LoRA 'x', nor any other in the model folder");
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

/* As if another version had written them, which knew less. */
static void make_rows_old(db_conn *c, void *arg) {
    (void)arg;
    err e = {0};
    if (!db_exec(c, &e, "UPDATE models SET reader = reader - 1, type = 'unknown'", "")) fail_msg("%s", e.msg);
}

static void test_what_another_version_said_is_asked_again(void **state) {
    (void)state;
    world w;
    world_init(&w);
    write_lora(&w, "a.safetensors");
    open_index(&w);
    fixture_spin(&w.f);
    db_submit(w.f.db, make_rows_old, NULL, NULL);
    close_index(&w);
    fixture_open_db(&w.f);
    open_index(&w);
    assert_string_equal(need(&w, "a")->type, "unknown");
    fixture_spin(&w.f);
    assert_string_equal(need(&w, "a")->type, "lora");
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
        cmocka_unit_test(test_a_file_is_chosen_among_those_of_its_kind),
        cmocka_unit_test(test_loras_are_found_by_name),
        cmocka_unit_test(test_without_loras),
        cmocka_unit_test(test_embeddings_named_in_prompts),
        cmocka_unit_test(test_a_restart_answers_before_the_scan),
        cmocka_unit_test(test_what_another_version_said_is_asked_again),
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
