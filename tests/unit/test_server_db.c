/* The database: order, transactions, what a kill leaves, damaged and newer files, a full disk; recovery rows. */
#include "server_fixture.h"
#include "server/recovery.h"

#include "base/log.h"

typedef struct note {
    fixture *f;
    char order[32];
    uv_thread_t work_thread, done_thread;
} note;

static void work_a(db_conn *c, void *arg) {
    (void)c;
    note *n = arg;
    n->work_thread = uv_thread_self();
    strcat(n->order, "a");
}

static void work_b(db_conn *c, void *arg) {
    (void)c;
    strcat(((note *)arg)->order, "b");
}

static void done_c(void *arg) {
    note *n = arg;
    n->done_thread = uv_thread_self();
    strcat(n->order, "c");
}

static void test_work_runs_in_order_and_done_on_the_loop(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    note n = {.f = &f};
    db_submit(f.db, work_a, NULL, &n);
    db_submit(f.db, work_b, done_c, &n);
    fixture_spin(&f);
    assert_string_equal(n.order, "abc");
    uv_thread_t self = uv_thread_self();
    assert_true(uv_thread_equal(&n.done_thread, &self));
    assert_false(uv_thread_equal(&n.work_thread, &self));
    fixture_free(&f);
}

static void insert_many(db_conn *c, void *arg) {
    int64_t n = *(int64_t *)arg;
    err e = {0};
    for (int64_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%lld", (long long)i);
        assert_true(db_exec(c, &e, "INSERT INTO settings (key, value) VALUES (?, ?)", "ss", key, "\"v\""));
    }
}

static int64_t count_settings(db_conn *c) {
    err e = {0};
    sqlite3_stmt *s = db_query(c, &e, "SELECT count(*) FROM settings", "");
    assert_non_null(s);
    assert_true(db_next(c, s, &e));
    int64_t n = db_int(s, 0);
    db_end(s);
    return n;
}

static void count_work(db_conn *c, void *arg) {
    *(int64_t *)arg = count_settings(c);
}

static int64_t count_rows(db *d) {
    int64_t n = -1;
    db_run(d, count_work, &n);
    return n;
}

static void forget_transaction(db_conn *c, void *arg) {
    (void)arg;
    err e = {0};
    assert_true(db_begin(c, &e));
    assert_true(db_exec(c, &e, "INSERT INTO settings (key, value) VALUES ('lost', '1')", ""));
}

static void test_a_transaction_ends_with_its_work(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    db_run(f.db, forget_transaction, NULL);
    assert_int_equal(count_rows(f.db), 0);
    fixture_free(&f);
}

static void snapshot_in_transaction(db_conn *c, void *arg) {
    fixture *f = arg;
    err e = {0};
    assert_true(db_begin(c, &e));
    assert_true(db_exec(c, &e, "INSERT INTO settings (key, value) VALUES ('half', '1')", ""));
    /* force the uncommitted page into the WAL: a tiny cache spills */
    sqlite3_exec(db_handle(c), "PRAGMA cache_spill = 1", NULL, NULL, NULL);
    sqlite3_db_cacheflush(db_handle(c));
    fixture_snapshot(f, "mysti.db", "killed/mysti.db");
    fixture_snapshot(f, "mysti.db-wal", "killed/mysti.db-wal");
    db_rollback(c);
}

static void test_a_kill_leaves_what_was_committed(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    int64_t n = 100;
    db_run(f.db, insert_many, &n);
    db_run(f.db, snapshot_in_transaction, &f);
    assert_true(fixture_exists(&f, "killed/mysti.db-wal"));

    err e = {0};
    char *path = fixture_path(&f, "killed/mysti.db");
    db *killed = db_open(&f.loop, path, &e);
    if (!killed) fail_msg("%s", e.msg);
    assert_int_equal(count_rows(killed), 100);
    db_close(killed);
    free(path);
    fixture_free(&f);
}

static void make_newer(db_conn *c, void *arg) {
    (void)arg;
    assert_int_equal(sqlite3_exec(db_handle(c), "PRAGMA user_version = 1000", NULL, NULL, NULL), SQLITE_OK);
}

static void test_a_newer_schema_is_refused(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    db_run(f.db, make_newer, NULL);
    fixture_close_db(&f);
    err e = {0};
    char *path = fixture_path(&f, "mysti.db");
    assert_null(db_open(&f.loop, path, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "newer version (schema 1000"));
    assert_true(fixture_exists(&f, "mysti.db"));
    free(path);
    fixture_free(&f);
}

static bool count_aside(void *ctx, const char *name) {
    if (strstr(name, "mysti.db.corrupt-")) ++*(int *)ctx;
    return true;
}

static int files_aside(const fixture *f) {
    int n = 0;
    assert_true(file_list_dir(f->dir, count_aside, &n, NULL));
    return n;
}

static void test_no_database_at_all_is_moved_aside(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    fixture_close_db(&f);
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    fixture_write(&f, "mysti.db", junk, sizeof junk);
    fixture_open_db(&f);
    assert_int_equal(files_aside(&f), 1);
    assert_int_equal(count_rows(f.db), 0);
    fixture_free(&f);
}

static void test_a_damaged_page_is_noticed(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    int64_t n = 2000;
    db_run(f.db, insert_many, &n);
    fixture_close_db(&f);
    char *path = fixture_path(&f, "mysti.db");
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    for (long at = 2 * 4096; at + 4096 <= size; at += 4096) { /* all but the first pages */
        char junk[64];
        memset(junk, 0xa5, sizeof junk);
        fseek(file, at, SEEK_SET);
        fwrite(junk, 1, sizeof junk, file);
    }
    fclose(file);
    free(path);
    fixture_open_db(&f);
    assert_int_equal(files_aside(&f), 1);
    assert_int_equal(count_rows(f.db), 0);
    fixture_free(&f);
}

static void fill_disk(db_conn *c, void *arg) {
    err *e = arg;
    char limit[64];
    sqlite3_stmt *s = db_query(c, e, "PRAGMA page_count", "");
    assert_true(db_next(c, s, e));
    snprintf(limit, sizeof limit, "PRAGMA max_page_count = %lld", (long long)db_int(s, 0));
    db_end(s);
    assert_int_equal(sqlite3_exec(db_handle(c), limit, NULL, NULL, NULL), SQLITE_OK);
    char *big = mem_alloc(100001, 1);
    memset(big, 'y', 100000);
    assert_false(db_exec(c, e, "INSERT INTO settings (key, value) VALUES ('big', ?)", "s", big));
    free(big);
}

static void free_disk(db_conn *c, void *arg) {
    err *e = arg;
    sqlite3_exec(db_handle(c), "PRAGMA max_page_count = 1000000", NULL, NULL, NULL);
    assert_true(db_exec(c, e, "INSERT INTO settings (key, value) VALUES ('small', '1')", ""));
}

static void test_a_full_disk_is_an_error_that_passes(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    err e = {0};
    db_run(f.db, fill_disk, &e);
    assert_int_equal(e.code, ERR_IO);
    assert_non_null(strstr(e.msg, "disk is full"));
    e = (err){0};
    db_run(f.db, free_disk, &e);
    assert_int_equal(e.code, 0);
    assert_int_equal(count_rows(f.db), 1);
    fixture_free(&f);
}

static void test_a_second_server_is_refused(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    err e = {0};
    char *path = fixture_path(&f, "mysti.db");
    assert_null(db_open(&f.loop, path, &e));
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(files_aside(&f), 0);
    free(path);
    fixture_free(&f);
}

static void violate(db_conn *c, void *arg) {
    err *e = arg;
    assert_false(db_exec(c, e,
                         "INSERT INTO images (file, width, height, seed, model, prompt, negative_prompt,"
                         " parameters, params, job, job_index, created_ms, bytes)"
                         " VALUES ('f.png', 1, 1, 1, '', '', '', '', '{}', 99, 0, 0, 0)",
                         ""));
}

static void test_foreign_keys_are_on(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    err e = {0};
    db_run(f.db, violate, &e);
    assert_int_equal(e.code, ERR_CONFLICT);
    fixture_free(&f);
}

static void count_call(void *ctx, const err *why) {
    assert_null(why);
    ++*(int *)ctx;
}

static void test_recovery_outlives_the_server(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    int calls = 0;
    recovery_set(f.db, "sd", "{\"model\":\"old\"}", count_call, &calls);
    recovery_set(f.db, "sd", "{\"model\":\"/a'b.safetensors\"}", count_call, &calls);
    recovery_set(f.db, "llm", "{\"path\":\"x\"}", NULL, NULL);
    fixture_spin(&f);
    assert_int_equal(calls, 2);
    fixture_close_db(&f);
    fixture_open_db(&f);
    err e = {0};
    char *sd = recovery_get(f.db, "sd", &e), *llm = recovery_get(f.db, "llm", &e);
    assert_string_equal(sd, "{\"model\":\"/a'b.safetensors\"}");
    assert_string_equal(llm, "{\"path\":\"x\"}");
    recovery_clear(f.db, "sd", NULL, NULL);
    assert_null(recovery_get(f.db, "sd", &e));
    assert_int_equal(e.code, 0);
    free(sd);
    free(llm);
    fixture_free(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work_runs_in_order_and_done_on_the_loop),
        cmocka_unit_test(test_a_transaction_ends_with_its_work),
        cmocka_unit_test(test_a_kill_leaves_what_was_committed),
        cmocka_unit_test(test_a_newer_schema_is_refused),
        cmocka_unit_test(test_no_database_at_all_is_moved_aside),
        cmocka_unit_test(test_a_damaged_page_is_noticed),
        cmocka_unit_test(test_a_full_disk_is_an_error_that_passes),
        cmocka_unit_test(test_a_second_server_is_refused),
        cmocka_unit_test(test_foreign_keys_are_on),
        cmocka_unit_test(test_recovery_outlives_the_server),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
