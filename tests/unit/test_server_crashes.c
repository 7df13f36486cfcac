/* The record of the workers' deaths: what is kept, in which order, page by page, and how many. */
#include "server_fixture.h"
#include "server/crashes.h"

#include "base/clock.h"
#include "json/json.h"

/* One page of the answer. */
typedef struct page {
    int calls;
    size_t len;
    yyjson_doc *doc;
    yyjson_val *data; /* the array */
} page;

static void on_page(void *ctx, const err *why, const char *json, size_t len) {
    page *p = ctx;
    err e = {0};
    p->calls++;
    if (why) fail_msg("%s", why->msg);
    p->doc = json_parse(json, len, &e);
    if (!p->doc) fail_msg("%s", e.msg);
    p->len = len;
    p->data = yyjson_obj_get(yyjson_doc_get_root(p->doc), "data");
}

static page list(fixture *f, int64_t before, int limit) {
    page p = {0};
    crashes_list(f->db, before, limit, on_page, &p);
    fixture_spin(f);
    assert_int_equal(p.calls, 1);
    return p;
}

/* Where the next page begins; 0: there is none. */
static int64_t next_of(const page *p) {
    return yyjson_get_sint(yyjson_obj_get(yyjson_doc_get_root(p->doc), "next"));
}

static yyjson_val *at(const page *p, size_t i, const char *key) {
    return yyjson_obj_get(yyjson_arr_get(p->data, i), key);
}

static int64_t pid_at(const page *p, size_t i) {
    return yyjson_get_sint(at(p, i, "pid"));
}

static void record(fixture *f, int count, const char *last_lines) {
    const proc_exit how = {.signal = 9};
    for (int pid = 1; pid <= count; pid++)
        crashes_record(f->db,
                       &(crash){.worker = "sd", .pid = pid, .cause = "c", .how = &how, .last_lines = last_lines});
    fixture_spin(f);
}

static void everything_that_is_known_is_kept(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    const proc_exit killed = {.signal = 9, .oom = true}, ended = {.code = 3};
    crashes_record(f.db, &(crash){.worker = "sd",
                                  .pid = 11,
                                  .cause = "killed by signal 9 (SIGKILL)",
                                  .how = &killed,
                                  .model = "a \"model\".gguf",
                                  .jobs = "j-12",
                                  .last_lines = "first\nlast\n"});
    crashes_record(f.db,
                   &(crash){.worker = "llm",
                            .pid = 12,
                            .cause = "exit code 3",
                            .how = &ended,
                            .jobs = "chatcmpl-1f,cmpl-2e",
                            .last_lines = "p crashed: signal 6\n/nowhere/p(+0x10)[0x1]\n/nowhere/q(f+0x1)[0x2]\n"});
    crashes_record(f.db, &(crash){.worker = "llm", .cause = "does not start", .jobs = ""});
    page p = list(&f, 0, 10);
    assert_int_equal(yyjson_arr_size(p.data), 3);
    assert_int_equal(next_of(&p), 0);

    assert_int_equal(pid_at(&p, 2), 11);
    assert_string_equal(yyjson_get_str(at(&p, 2, "worker")), "sd");
    assert_string_equal(yyjson_get_str(at(&p, 2, "cause")), "killed by signal 9 (SIGKILL)");
    assert_int_equal(yyjson_get_int(at(&p, 2, "signal")), 9);
    assert_true(yyjson_is_null(at(&p, 2, "exit_code")));
    assert_true(yyjson_is_true(at(&p, 2, "oom")));
    assert_string_equal(yyjson_get_str(at(&p, 2, "model")), "a \"model\".gguf");
    assert_string_equal(yyjson_get_str(at(&p, 2, "job")), "j-12");
    assert_int_equal(yyjson_arr_size(at(&p, 2, "jobs")), 1);
    assert_string_equal(yyjson_get_str(at(&p, 2, "last_lines")), "first\nlast\n");
    assert_int_equal(yyjson_arr_size(at(&p, 2, "backtrace")), 0);
    int64_t age = clock_wall_ms() - yyjson_get_sint(at(&p, 2, "at_ms"));
    assert_true(age >= 0 && age < 60000);

    assert_int_equal(yyjson_get_int(at(&p, 1, "exit_code")), 3);
    assert_true(yyjson_is_null(at(&p, 1, "signal")));
    assert_string_equal(yyjson_get_str(at(&p, 1, "job")), "chatcmpl-1f");
    assert_string_equal(yyjson_get_str(yyjson_arr_get(at(&p, 1, "jobs"), 1)), "cmpl-2e");
    assert_int_equal(yyjson_arr_size(at(&p, 1, "backtrace")), 2);
    assert_string_equal(yyjson_get_str(yyjson_arr_get(at(&p, 1, "backtrace"), 0)), "[p+0x10]");
    assert_string_equal(yyjson_get_str(yyjson_arr_get(at(&p, 1, "backtrace"), 1)), "f+0x1 [q]");

    assert_true(yyjson_is_null(at(&p, 0, "job")));
    assert_int_equal(yyjson_arr_size(at(&p, 0, "jobs")), 0);
    yyjson_doc_free(p.doc);
    fixture_free(&f);
}

static void pages_follow_one_another_without_gap_or_repetition(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    record(&f, 7, "");
    int64_t before = 0, expected = 7;
    size_t pages = 0;
    do {
        page p = list(&f, before, 3);
        size_t count = yyjson_arr_size(p.data);
        assert_int_equal(count, expected >= 3 ? 3 : (size_t)expected);
        for (size_t i = 0; i < count; i++) assert_int_equal(pid_at(&p, i), expected--); /* newest first */
        if (++pages == 1) record(&f, 2, ""); /* newer ones move no page that follows */
        before = next_of(&p);
        yyjson_doc_free(p.doc);
    } while (before);
    assert_int_equal(pages, 3);
    assert_int_equal(expected, 0);
    fixture_free(&f);
}

static void nothing_is_an_empty_page(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    page p = list(&f, 0, 3);
    assert_int_equal(yyjson_arr_size(p.data), 0);
    assert_int_equal(next_of(&p), 0);
    yyjson_doc_free(p.doc);
    record(&f, 3, "");
    p = list(&f, 1, 3); /* before the first */
    assert_int_equal(yyjson_arr_size(p.data), 0);
    yyjson_doc_free(p.doc);
    p = list(&f, 0, 1);
    assert_int_equal(pid_at(&p, 0), 3);
    assert_int_equal(next_of(&p), 3);
    yyjson_doc_free(p.doc);
    fixture_free(&f);
}

static void only_the_last_ones_are_kept(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    record(&f, CRASHES_KEPT + 5, "");
    page p = list(&f, 0, CRASHES_KEPT + 5);
    assert_int_equal(yyjson_arr_size(p.data), CRASHES_KEPT);
    assert_int_equal(pid_at(&p, CRASHES_KEPT - 1), 6);
    yyjson_doc_free(p.doc);
    fixture_free(&f);
}

/* Workers that end with megabytes of noise: the pages get shorter, the answer stays whole. */
static void long_last_lines_make_shorter_pages(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    enum { COUNT = 40, LONG = 640 * 1024 };
    char *noise = mem_alloc(LONG + 1, 1);
    memset(noise, 1, LONG); /* each byte takes six in JSON */
    record(&f, COUNT, noise);
    int64_t before = 0, expected = COUNT;
    do {
        page p = list(&f, before, CRASHES_KEPT);
        for (size_t i = 0; i < yyjson_arr_size(p.data); i++) {
            assert_int_equal(pid_at(&p, i), expected--);
            assert_int_equal(yyjson_get_len(at(&p, i, "last_lines")), LONG);
        }
        assert_true(p.len < 32 << 20);
        before = next_of(&p);
        yyjson_doc_free(p.doc);
    } while (before);
    assert_int_equal(expected, 0);
    free(noise);
    fixture_free(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_is_known_is_kept),
        cmocka_unit_test(pages_follow_one_another_without_gap_or_repetition),
        cmocka_unit_test(nothing_is_an_empty_page),
        cmocka_unit_test(only_the_last_ones_are_kept),
        cmocka_unit_test(long_last_lines_make_shorter_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
