/* The history: recorded once, paged, searched with hostile words, deleted with its files. */
#include "server_fixture.h"
#include "server/history.h"

#include "base/log.h"
#include "json/json.h"

typedef struct answer {
    int calls;
    err why;
    int64_t id;
    bool fresh;
    yyjson_doc *doc;
} answer;

static void take(answer *a, const err *why, const char *json, size_t len) {
    a->calls++;
    a->why = why ? *why : (err){0};
    yyjson_doc_free(a->doc);
    a->doc = NULL;
    if (why) {
        assert_null(json);
        return;
    }
    err e = {0};
    a->doc = json_parse(json, len, &e);
    if (!a->doc) fail_msg("%s in %s", e.msg, json);
}

static void on_recorded(void *ctx, const err *why, int64_t id, bool fresh, const char *json, size_t len) {
    answer *a = ctx;
    take(a, why, json, len);
    a->id = id;
    a->fresh = fresh;
}

static void on_done(void *ctx, const err *why, const char *json, size_t len) {
    take(ctx, why, json, len);
}

static answer record(fixture *f, history *h, const char *file, const char *thumb, const char *prompt) {
    image_params p;
    image_params_init(&p);
    str_set(&p.prompt, prompt);
    str_set(&p.negative_prompt, "blurry");
    p.seed = 7;
    answer a = {0};
    const history_picture pic = {.file = file,
                                 .thumb = thumb,
                                 .width = 64,
                                 .height = 32,
                                 .seed = INT64_C(9007199254740991),
                                 .bytes = 11,
                                 .model = "tiny.safetensors",
                                 .parameters = "a\nSteps: 1",
                                 .params = &p};
    history_record(h, &pic, on_recorded, &a);
    image_params_free(&p);
    fixture_spin(f);
    assert_int_equal(a.calls, 1);
    return a;
}

static size_t found(fixture *f, history *h, const char *q, int64_t before, int limit, answer *a) {
    history_list(h, before, limit, q, on_done, a);
    fixture_spin(f);
    if (a->why.code) fail_msg("'%s': %s", q, a->why.msg);
    return yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(a->doc), "data"));
}

static int64_t member(const answer *a, const char *key) {
    return yyjson_get_sint(yyjson_obj_get(yyjson_doc_get_root(a->doc), key));
}

static void test_an_entry_has_all_its_fields(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    answer a = record(&f, h, "20260102-030405-1.png", ".thumbs/20260102-030405-1.webp", "a \"cat\"\n\x01 \xc3\xa4");
    assert_int_equal(a.why.code, 0);
    assert_true(a.fresh);
    yyjson_val *v = yyjson_doc_get_root(a.doc);
    assert_int_equal(yyjson_get_sint(yyjson_obj_get(v, "id")), a.id);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(v, "url")), "/outputs/20260102-030405-1.png");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(v, "thumb_url")), "/outputs/.thumbs/20260102-030405-1.webp");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(v, "prompt")), "a \"cat\"\n\x01 \xc3\xa4");
    assert_int_equal(yyjson_get_sint(yyjson_obj_get(v, "seed")), INT64_C(9007199254740991));
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_obj_get(v, "params"), "negative_prompt")), "blurry");
    assert_true(yyjson_is_null(yyjson_obj_get(v, "job")));
    yyjson_doc_free(a.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_a_file_is_recorded_once(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    answer a = record(&f, h, "a.png", NULL, "one"), b = record(&f, h, "a.png", NULL, "one");
    assert_true(a.fresh);
    assert_false(b.fresh);
    assert_int_equal(a.id, b.id);
    answer list = {0};
    assert_int_equal(found(&f, h, NULL, 0, 50, &list), 1);
    yyjson_doc_free(a.doc);
    yyjson_doc_free(b.doc);
    yyjson_doc_free(list.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_strange_names_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {"../a.png", "/etc/passwd", ".hidden.png", "a b.png", "a\"><b>.png",
                                        "",         "a/b.png"};
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        answer a = record(&f, h, names[i], NULL, "x");
        assert_int_equal(a.why.code, ERR_FORMAT);
    }
    answer a = record(&f, h, "a.png", "../a.webp", "x");
    assert_int_equal(a.why.code, ERR_FORMAT);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_pages_have_no_gaps_and_no_repeats(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    for (int i = 0; i < 25; i++) {
        char name[32];
        snprintf(name, sizeof name, "p%d.png", i);
        answer a = record(&f, h, name, NULL, i % 2 ? "odd fox" : "even owl");
        yyjson_doc_free(a.doc);
    }
    answer page = {0};
    int64_t before = 0, last = INT64_MAX;
    int seen = 0, pages = 0;
    do {
        size_t n = found(&f, h, NULL, before, 10, &page);
        yyjson_val *data = yyjson_obj_get(yyjson_doc_get_root(page.doc), "data");
        for (size_t i = 0; i < n; i++) {
            int64_t id = yyjson_get_sint(yyjson_obj_get(yyjson_arr_get(data, i), "id"));
            assert_true(id < last);
            last = id;
            seen++;
        }
        assert_int_equal(member(&page, "total"), 25);
        before = member(&page, "next");
        pages++;
    } while (before);
    assert_int_equal(seen, 25);
    assert_int_equal(pages, 3);
    assert_int_equal(found(&f, h, "odd", 0, 50, &page), 12);
    assert_int_equal(member(&page, "total"), 12);
    assert_int_equal(found(&f, h, "odd", 0, 5, &page), 5);
    assert_true(member(&page, "next") > 0);
    yyjson_doc_free(page.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_search_takes_words_and_nothing_else(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    answer a = record(&f, h, "1.png", NULL, "a red fox, sitting (masterpiece:1.2)");
    answer b = record(&f, h, "2.png", NULL, "gr\xc3\xbcner Wald AND \"owls\"");
    static const struct {
        const char *q;
        size_t n;
    } cases[] = {
        {"fox", 1},
        {"FOX red", 1},
        {"fo", 1},
        {"fox owl", 0},
        {"blurry", 2},
        {"tiny", 2},
        {"gr\xc3\xbcner", 1},
        {"gruner", 1},
        {"\"", 0},
        {"\"fox", 1},
        {"fox\"", 1},
        {"fox OR owls", 0},
        {"prompt:fox", 0},
        {"fox*", 1},
        {"NEAR(fox red)", 0},
        {"(fox", 1},
        {"masterpiece:1.2", 1},
        {"' OR 1=1 --", 0},
        {"-fox", 1},
        {"^red", 1},
        {"{fox}", 1},
        {"\\", 0},
        {"   ", 0},
        {"AND", 1},
        {"\xf0\x9f\xa6\x8a", 0},
        {"'; DROP TABLE images; --", 0},
    };
    answer list = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = found(&f, h, cases[i].q, 0, 50, &list);
        if (n != cases[i].n) fail_msg("'%s' found %zu, not %zu", cases[i].q, n, cases[i].n);
    }
    assert_int_equal(found(&f, h, NULL, 0, 50, &list), 2);
    yyjson_doc_free(a.doc);
    yyjson_doc_free(b.doc);
    yyjson_doc_free(list.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_deleting_takes_the_files_too(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    fixture_write(&f, "x.png", "png", 3);
    fixture_write(&f, ".thumbs/x.webp", "webp", 4);
    answer a = record(&f, h, "x.png", ".thumbs/x.webp", "unicorn");
    answer d = {0};
    history_delete(h, a.id, on_done, &d);
    fixture_spin(&f);
    assert_int_equal(d.why.code, 0);
    assert_false(fixture_exists(&f, "x.png"));
    assert_false(fixture_exists(&f, ".thumbs/x.webp"));
    assert_int_equal(found(&f, h, "unicorn", 0, 50, &d), 0);
    history_get(h, a.id, on_done, &d);
    fixture_spin(&f);
    assert_int_equal(d.why.code, ERR_NOT_FOUND);
    history_delete(h, a.id, on_done, &d);
    fixture_spin(&f);
    assert_int_equal(d.why.code, ERR_NOT_FOUND);
    yyjson_doc_free(a.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

static void test_missing_files_hide_their_entry_until_they_are_back(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    history *h = history_open(f.db, f.dir);
    fixture_write(&f, "stays.png", "png", 3);
    answer a = record(&f, h, "stays.png", NULL, "here"), b = record(&f, h, "goes.png", NULL, "gone"), list = {0};
    history_check_files(h);
    assert_int_equal(found(&f, h, NULL, 0, 50, &list), 1);
    assert_int_equal(found(&f, h, "gone", 0, 50, &list), 0);
    fixture_write(&f, "goes.png", "png", 3);
    history_check_files(h);
    fixture_spin(&f);
    assert_int_equal(found(&f, h, NULL, 0, 50, &list), 2);
    yyjson_doc_free(a.doc);
    yyjson_doc_free(b.doc);
    yyjson_doc_free(list.doc);
    fixture_close_db(&f);
    history_close(h);
    fixture_free(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_entry_has_all_its_fields),
        cmocka_unit_test(test_a_file_is_recorded_once),
        cmocka_unit_test(test_strange_names_are_refused),
        cmocka_unit_test(test_pages_have_no_gaps_and_no_repeats),
        cmocka_unit_test(test_search_takes_words_and_nothing_else),
        cmocka_unit_test(test_deleting_takes_the_files_too),
        cmocka_unit_test(test_missing_files_hide_their_entry_until_they_are_back),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
