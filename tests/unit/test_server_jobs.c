/* The queue over a runner that is no process: order, deaths, poison, cancelling, restarts, a full queue and a full
 * disk. */
#include "server_fixture.h"
#include "server/jobs.h"

#include "base/log.h"
#include "json/json.h"

typedef struct fake_runner {
    bool ready;
    int starts, cancels;
    int64_t job; /* of the last start */
    buf body;
} fake_runner;

static bool fake_ready(void *ctx) {
    return ((fake_runner *)ctx)->ready;
}

static void fake_start(void *ctx, const job *j, const char *body, size_t len) {
    fake_runner *r = ctx;
    r->starts++;
    r->job = j->id;
    buf_clear(&r->body);
    buf_append(&r->body, body, len);
}

static void fake_cancel(void *ctx) {
    ((fake_runner *)ctx)->cancels++;
}

/* Collects what a subscriber of the hub gets. */
static bool hear(void *ctx, const char *bytes, size_t len) {
    return buf_append(ctx, bytes, len);
}

static size_t nothing_pending(void *ctx) {
    (void)ctx;
    return 0;
}

static void heard_end(void *ctx) {
    buf_puts(ctx, "[end]");
}

typedef struct world {
    fixture f;
    fake_runner runner;
    uploads up;
    history *history;
    events *events;
    event_sub *sub;
    jobs *q;
    buf heard;
} world;

static void world_open(world *w) {
    const event_sink sink = {&w->heard, hear, nothing_pending, heard_end};
    char *checkpoints = fixture_path(&w->f, "checkpoints");
    err e = {0};
    assert_true(path_make_dirs(checkpoints, &e));
    assert_true(uploads_init(&w->up, w->f.dir, w->f.dir, &e));
    w->history = history_open(w->f.db, w->f.dir);
    w->events = events_open(&w->f.loop, "run");
    w->sub = events_subscribe(w->events, NULL, &sink);
    const jobs_config config = {.loop = &w->f.loop,
                                .db = w->f.db,
                                .history = w->history,
                                .events = w->events,
                                .uploads = &w->up,
                                .output_dir = w->f.dir,
                                .checkpoint_dir = checkpoints,
                                .runner = {&w->runner, fake_ready, fake_start, fake_cancel}};
    w->q = jobs_open(&config, &e);
    if (!w->q) fail_msg("%s", e.msg);
    free(checkpoints);
}

static void world_init(world *w) {
    *w = (world){.runner = {.ready = true}};
    buf_init(&w->heard, 64 << 20);
    buf_init(&w->runner.body, 1 << 20);
    fixture_init(&w->f);
    world_open(w);
}

static void close_parts(world *w) {
    events_close(w->events);
    jobs_free(w->q);
    history_close(w->history);
    uploads_free(&w->up);
}

static void world_free(world *w) {
    jobs_close(w->q);
    fixture_close_db(&w->f);
    close_parts(w);
    fixture_free(&w->f);
    buf_free(&w->heard);
    buf_free(&w->runner.body);
}

/* As kill -9 and a new start would: the files are taken as they are now, nothing is closed properly before. */
static void world_kill_and_restart(world *w) {
    fixture_snapshot(&w->f, "mysti.db", "killed.db");
    fixture_snapshot(&w->f, "mysti.db-wal", "killed.db-wal");
    jobs_close(w->q);
    fixture_close_db(&w->f);
    close_parts(w);
    fixture_snapshot(&w->f, "killed.db", "mysti.db");
    fixture_snapshot(&w->f, "killed.db-wal", "mysti.db-wal");
    fixture_open_db(&w->f);
    w->runner.starts = 0;
    w->runner.job = 0;
    world_open(w);
}

typedef struct submitted {
    err why;
    int64_t id;
} submitted;

static void on_submitted(void *ctx, const err *why, const job *j) {
    submitted *s = ctx;
    s->why = why ? *why : (err){0};
    s->id = j ? j->id : 0;
}

static submitted submit_only(world *w, const char *prompt) {
    image_params p;
    submitted s = {0};
    image_params_init(&p);
    str_set(&p.prompt, prompt);
    p.seed = 5;
    p.steps = 4;
    jobs_submit(w->q, &p, on_submitted, &s);
    fixture_spin(&w->f);
    image_params_free(&p);
    return s;
}

static int64_t submit(world *w, const char *prompt) {
    submitted s = submit_only(w, prompt);
    if (s.why.code) fail_msg("%s", s.why.msg);
    return s.id;
}

static void line(world *w, const char *text) {
    jobs_runner_line(w->q, text, strlen(text));
}

static const char *stem_of(world *w) {
    const job *j = jobs_running(w->q);
    assert_non_null(j);
    return j->file_stem;
}

static void image_line(world *w, int index) {
    char *text = str_fmt("{\"event\":\"image\",\"index\":%d,\"seed\":%d,\"file\":\"%s-%d.png\",\"thumb\":null,"
                         "\"width\":64,\"height\":64,\"bytes\":9,\"parameters\":\"p\"}",
                         index, 5 + index, stem_of(w), index);
    line(w, text);
    free(text);
}

static void die(world *w) {
    err why;
    err_set(&why, ERR_CRASHED, "killed by signal 9 (SIGKILL)");
    w->runner.ready = false;
    jobs_runner_end(w->q, &why);
    fixture_spin(&w->f);
}

static void come_back(world *w) {
    w->runner.ready = true;
    jobs_kick(w->q);
    fixture_spin(&w->f);
}

static void finish(world *w) {
    line(w, "{\"event\":\"done\",\"time\":1,\"resumed_from\":0}");
    jobs_runner_end(w->q, NULL);
    fixture_spin(&w->f);
}

typedef struct fetched {
    err why;
    yyjson_doc *doc;
    int calls;
} fetched;

static void on_fetched(void *ctx, const err *why, const char *json, size_t len) {
    fetched *g = ctx;
    g->why = why ? *why : (err){0};
    g->doc = json ? json_parse(json, len, &g->why) : NULL;
    g->calls++;
}

static fetched get(world *w, int64_t id) {
    fetched g = {0};
    jobs_get(w->q, id, on_fetched, &g);
    fixture_spin(&w->f);
    assert_int_equal(g.calls, 1);
    return g;
}

static void assert_status(world *w, int64_t id, const char *status, const char *message_part) {
    fetched g = get(w, id);
    if (g.why.code) fail_msg("%s", g.why.msg);
    yyjson_val *v = yyjson_doc_get_root(g.doc);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(v, "status")), status);
    const char *message = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(v, "error"), "message"));
    if (message_part)
        assert_true(message && strstr(message, message_part));
    else
        assert_null(message);
    yyjson_doc_free(g.doc);
}

static size_t results_of(world *w, int64_t id) {
    fetched g = get(w, id);
    size_t n = yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(g.doc), "results"));
    yyjson_doc_free(g.doc);
    return n;
}

static int count_heard(world *w, const char *text) {
    int n = 0;
    for (const char *p = buf_str(&w->heard); (p = strstr(p, text)); p++) n++;
    return n;
}

typedef struct wait_note {
    int calls;
    job_status status;
    size_t results;
} wait_note;

static void on_over(void *ctx, const job *j) {
    wait_note *n = ctx;
    n->calls++;
    n->status = j->status;
    n->results = j->result_count;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void test_a_job_runs_and_is_done(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t id = submit(&w, "a \"cat\"");
    assert_int_equal(w.runner.starts, 1);
    wait_note note = {0};
    assert_non_null(jobs_wait(w.q, id, on_over, &note));

    err e = {0};
    yyjson_doc *doc = json_parse(buf_str(&w.runner.body), w.runner.body.len, &e);
    json_in body = json_root(doc);
    assert_string_equal(yyjson_get_str(json_at(&body, "prompt").val), "a \"cat\"");
    assert_int_equal(yyjson_get_sint(json_at(&body, "seed").val), 5);
    assert_true(str_ends(yyjson_get_str(json_at(&body, "file_stem").val), "-1"));
    assert_true(str_ends(yyjson_get_str(json_at(&body, "checkpoint").val), "/checkpoints/j-1.ckpt"));
    yyjson_doc_free(doc);

    line(&w, "{\"event\":\"phase\",\"phase\":\"encoding\"}");
    line(
        &w,
        "{\"event\":\"progress\",\"phase\":\"sampling\",\"step\":1,\"steps\":4,\"image\":0,\"images\":1,\"step_ms\":100}");
    assert_int_equal(jobs_running(w.q)->step, 1);
    assert_int_equal(job_eta_ms(jobs_running(w.q)), 3 * 100 + 100);
    line(&w, "{\"event\":\"preview\",\"step\":1,\"width\":8,\"height\":8,\"jpeg\":\"AAAA\"}");
    image_line(&w, 0);
    finish(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_DONE);
    assert_int_equal(note.results, 1);
    assert_status(&w, id, "done", NULL);
    assert_int_equal(results_of(&w, id), 1);
    assert_null(jobs_find(w.q, id)); /* only in the database any more */
    assert_int_equal(count_heard(&w, "event: image\n"), 1);
    assert_int_equal(count_heard(&w, "event: preview\n"), 1);
    assert_int_equal(count_heard(&w, "\"status\":\"done\""), 1);
    world_free(&w);
}

static void test_jobs_run_one_at_a_time_in_order(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a"), b = submit(&w, "b"), c = submit(&w, "c");
    assert_int_equal(w.runner.starts, 1);
    assert_int_equal(jobs_waiting(w.q), 2);
    assert_int_equal(w.runner.job, a);
    finish(&w);
    assert_int_equal(w.runner.job, b);
    finish(&w);
    assert_int_equal(w.runner.job, c);
    finish(&w);
    assert_null(jobs_running(w.q));
    world_free(&w);
}

static void test_a_death_puts_the_job_to_the_front(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a"), b = submit(&w, "b");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    image_line(&w, 0);
    die(&w);
    assert_int_equal(note.calls, 0); /* it keeps waiting */
    assert_status(&w, a, "interrupted", NULL);
    assert_int_equal(count_heard(&w, "event: alert\n"), 1);
    assert_int_equal(count_heard(&w, "\"job\":\"j-1\",\"message\":\"Job j-1 was interrupted (killed by signal 9"), 1);
    assert_int_equal(w.runner.starts, 1); /* not before the worker is back */
    come_back(&w);
    assert_int_equal(w.runner.starts, 2);
    assert_int_equal(w.runner.job, a);
    image_line(&w, 0); /* the same picture again */
    finish(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_DONE);
    assert_int_equal(results_of(&w, a), 1);
    assert_int_equal(count_heard(&w, "event: image\n"), 1);
    assert_int_equal(w.runner.job, b);
    world_free(&w);
}

static void test_two_deaths_are_poison(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a"), b = submit(&w, "b");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    die(&w);
    come_back(&w);
    die(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_FAILED);
    assert_status(&w, a, "failed", "SIGKILL");
    come_back(&w);
    assert_int_equal(w.runner.job, b);
    finish(&w);
    assert_status(&w, b, "done", NULL);
    world_free(&w);
}

static void test_deaths_are_remembered_over_a_restart(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    die(&w);
    world_kill_and_restart(&w);
    come_back(&w);
    assert_int_equal(w.runner.job, a);
    die(&w);
    assert_status(&w, a, "failed", "2 times");
    world_free(&w);
}

static void test_a_stream_that_breaks_off_is_a_death(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    w.runner.ready = false;
    jobs_runner_end(w.q, NULL); /* neither done nor error was said */
    assert_status(&w, a, "interrupted", NULL);
    world_free(&w);
}

static void test_errors_of_the_worker_are_the_jobs(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    line(
        &w,
        "{\"event\":\"error\",\"error\":{\"message\":\"needs 7 GB\",\"code\":\"memory\",\"type\":\"x\",\"param\":null}}");
    jobs_runner_end(w.q, NULL);
    assert_status(&w, a, "failed", "needs 7 GB");
    int64_t b = submit(&w, "b");
    err why;
    err_set(&why, ERR_NOT_FOUND, "no model is loaded");
    jobs_runner_end(w.q, &why);
    assert_status(&w, b, "failed", "no model is loaded");
    world_free(&w);
}

static void test_strange_lines_harm_nobody(void **state) {
    (void)state;
    static const char *const lines[] = {
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"event\":5}",
        "{\"event\":\"image\"}",
        "{\"event\":\"unheard of\"}",
        "{\"event\":\"image\",\"file\":\"../../x.png\",\"index\":0}",
        "{\"event\":\"progress\",\"step\":-1}",
        "{\"event\":\"image\",\"file\":\"other-1.png\",\"index\":0}",
        "{\"event\":\"error\"}",
        "{\"event\":\"phase\"}",
        "{\"event\":\"progress\",\"phase\":\"a very long name of a phase that does not fit\",\"step\":1}",
    };
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) line(&w, lines[i]);
    /* of this job, but with characters that no file of ours has */
    char *text =
        str_fmt("{\"event\":\"image\",\"index\":0,\"file\":\"%s/../x.png\",\"width\":8,\"height\":8}", stem_of(&w));
    line(&w, text);
    free(text);
    finish(&w);
    assert_status(&w, a, "failed", "the worker named a strange file");
    assert_int_equal(results_of(&w, a), 0);
    assert_null(jobs_find(w.q, a));
    world_free(&w);
}

static void test_cancelling(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a"), b = submit(&w, "b"), c = submit(&w, "c");
    wait_note note = {0};
    err e = {0};
    jobs_wait(w.q, a, on_over, &note);
    assert_true(jobs_cancel(w.q, b, &e)); /* queued */
    assert_int_equal(w.runner.cancels, 0);
    assert_true(jobs_cancel(w.q, a, &e)); /* running */
    assert_int_equal(w.runner.cancels, 1);
    fixture_spin(&w.f);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_CANCELLED);
    assert_status(&w, a, "cancelled", "cancelled");
    assert_status(&w, b, "cancelled", "cancelled");
    assert_int_equal(w.runner.job, c);
    assert_false(jobs_cancel(w.q, a, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    world_free(&w);
}

static void test_a_waiter_that_left_is_not_called(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    wait_note gone = {0}, stays = {0};
    job_waiter *waiter = jobs_wait(w.q, a, on_over, &gone);
    jobs_wait(w.q, a, on_over, &stays);
    jobs_unwait(w.q, waiter);
    finish(&w);
    assert_int_equal(gone.calls, 0);
    assert_int_equal(stays.calls, 1);
    world_free(&w);
}

static void test_a_killed_server_finds_its_queue(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "first"), b = submit(&w, "second"), c = submit(&w, "third");
    image_line(&w, 0);
    fixture_spin(&w.f);
    world_kill_and_restart(&w);
    assert_int_equal(w.runner.starts, 0);
    assert_int_equal(jobs_waiting(w.q), 3);
    assert_status(&w, a, "interrupted", NULL);
    assert_status(&w, b, "queued", NULL);
    come_back(&w);
    assert_int_equal(w.runner.job, a);
    assert_non_null(strstr(buf_str(&w.runner.body), "\"prompt\":\"first\""));
    assert_non_null(strstr(buf_str(&w.runner.body), "\"seed\":5"));
    image_line(&w, 0); /* the picture that was recorded before the kill comes again */
    finish(&w);
    assert_int_equal(results_of(&w, a), 1);
    assert_int_equal(w.runner.job, b);
    finish(&w);
    assert_int_equal(w.runner.job, c);
    finish(&w);
    assert_int_equal(submit(&w, "next"), c + 1); /* ids are not used twice */
    world_free(&w);
}

static void test_a_stopped_server_keeps_the_running_job(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    jobs_close(w.q);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_INTERRUPTED);
    assert_int_equal(w.runner.cancels, 1);
    fixture_close_db(&w.f);
    close_parts(&w);
    fixture_open_db(&w.f);
    world_open(&w);
    assert_status(&w, a, "interrupted", NULL);
    world_free(&w);
}

static void test_the_queue_is_bounded(void **state) {
    (void)state;
    world w;
    world_init(&w);
    w.runner.ready = false;
    for (int i = 0; i < JOBS_QUEUE_MAX; i++) submit(&w, "x");
    submitted one_more = submit_only(&w, "x");
    assert_int_equal(one_more.why.code, ERR_BUSY);
    assert_true(jobs_retry_after_s(w.q) >= 1);
    err e = {0};
    assert_true(jobs_cancel(w.q, 7, &e));
    submit(&w, "fits again");
    world_free(&w);
}

static void limit_disk(db_conn *c, void *arg) {
    const bool *full = arg;
    err e = {0};
    char text[64];
    sqlite3_stmt *s = db_query(c, &e, "PRAGMA page_count", "");
    assert_true(db_next(c, s, &e));
    snprintf(text, sizeof text, "PRAGMA max_page_count = %lld", (long long)(*full ? db_int(s, 0) : 1000000));
    db_end(s);
    assert_int_equal(sqlite3_exec(db_handle(c), text, NULL, NULL, NULL), SQLITE_OK);
}

/* To the last page, or with room again. */
static void fill_disk(world *w, bool full) {
    db_run(w->f.db, limit_disk, &full);
}

static void set_query_only(db_conn *c, void *arg) {
    const bool *refuse = arg;
    const char *sql = *refuse ? "PRAGMA query_only = 1" : "PRAGMA query_only = 0";
    assert_int_equal(sqlite3_exec(db_handle(c), sql, NULL, NULL, NULL), SQLITE_OK);
}

/* Every write fails, however small: a full disk may still have room for that. */
static void refuse_writes(world *w, bool refuse) {
    db_run(w->f.db, set_query_only, &refuse);
}

static void wake_loop(uv_timer_t *t) {
    uv_close((uv_handle_t *)t, NULL);
}

/* Lets the queue try again what was refused: its own timer does not keep the loop alive. */
static void wait_for_retry(world *w) {
    uv_timer_t hold;
    uv_timer_init(&w->f.loop, &hold);
    uv_timer_start(&hold, wake_loop, 2500, 0);
    fixture_spin(&w->f);
    fixture_spin(&w->f);
}

static int64_t total_of_history(world *w) {
    fetched g = {0};
    history_list(w->history, 0, 10, NULL, on_fetched, &g);
    fixture_spin(&w->f);
    int64_t total = yyjson_get_sint(yyjson_obj_get(yyjson_doc_get_root(g.doc), "total"));
    yyjson_doc_free(g.doc);
    return total;
}

static void test_a_full_disk_is_told_and_survived(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a"), b = submit(&w, "b");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    fill_disk(&w, true);
    char *big = mem_alloc(20001, 1);
    memset(big, 'x', 20000);
    submitted s = submit_only(&w, big);
    assert_int_equal(s.why.code, ERR_IO);
    assert_non_null(strstr(s.why.msg, "disk is full"));
    free(big);

    /* a picture with a long text is finished: it is done for nobody before the history has it */
    char *text = mem_alloc(40001, 1);
    memset(text, 'p', 40000);
    char *msg = str_fmt("{\"event\":\"image\",\"index\":0,\"seed\":5,\"file\":\"%s.png\",\"thumb\":null,\"width\":64,"
                        "\"height\":64,\"bytes\":9,\"parameters\":\"%s\"}",
                        stem_of(&w), text);
    line(&w, msg);
    free(msg);
    free(text);
    finish(&w);
    assert_int_equal(note.calls, 0);
    assert_int_equal(count_heard(&w, "\"status\":\"done\""), 0);
    assert_status(&w, a, "running", NULL);
    assert_string_equal(jobs_find(w.q, a)->phase, JOB_PHASE_RECORDING);
    assert_int_equal(count_heard(&w, "history_delayed"), 1);
    assert_int_equal(count_heard(&w, "the disk is full"), 1);
    assert_int_equal(w.runner.job, b); /* the worker is free for others meanwhile */
    wait_for_retry(&w);
    assert_int_equal(note.calls, 0);
    assert_int_equal(count_heard(&w, "history_delayed"), 1);

    fill_disk(&w, false);
    wait_for_retry(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_DONE);
    assert_int_equal(note.results, 1);
    assert_int_equal(count_heard(&w, "event: image\n"), 1);
    assert_int_equal(count_heard(&w, "\"status\":\"done\""), 1);
    assert_true(strstr(buf_str(&w.heard), "event: image\n") < strstr(buf_str(&w.heard), "\"status\":\"done\""));
    assert_null(jobs_find(w.q, a));
    assert_status(&w, a, "done", NULL);
    assert_int_equal(results_of(&w, a), 1);
    world_free(&w);
}

/* The picture is in the history, but not the job's end: a restart would run it again. */
static void test_a_job_is_not_done_before_that_is_saved(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    image_line(&w, 0);
    fixture_spin(&w.f);
    assert_int_equal(results_of(&w, a), 1);
    refuse_writes(&w, true);
    finish(&w);
    assert_int_equal(note.calls, 0);
    assert_status(&w, a, "running", NULL);
    assert_int_equal(count_heard(&w, "history_delayed"), 1);
    refuse_writes(&w, false);
    wait_for_retry(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_DONE);
    assert_status(&w, a, "done", NULL);
    world_free(&w);
}

static void test_a_batch_of_which_some_pictures_were_refused(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    wait_note note = {0};
    err e = {0};
    jobs_wait(w.q, a, on_over, &note);
    image_line(&w, 0);
    fixture_spin(&w.f);
    refuse_writes(&w, true);
    image_line(&w, 1);
    fixture_spin(&w.f);
    assert_int_equal(results_of(&w, a), 1);
    refuse_writes(&w, false); /* there is room before the job is through, but nothing was tried again yet */
    finish(&w);
    assert_int_equal(note.calls, 0);
    assert_false(jobs_cancel(w.q, a, &e)); /* it is all made: nothing to stop, and nothing to throw away */
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_int_equal(w.runner.cancels, 0);
    wait_for_retry(&w);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.results, 2);
    assert_int_equal(results_of(&w, a), 2);
    assert_int_equal(count_heard(&w, "history_delayed"), 1);
    world_free(&w);
}

static void test_a_job_that_waits_for_room_outlives_the_server(void **state) {
    (void)state;
    static const bool killed[] = {true, false};
    for (size_t i = 0; i < 2; i++) {
        world w;
        world_init(&w);
        int64_t a = submit(&w, "a");
        wait_note note = {0};
        jobs_wait(w.q, a, on_over, &note);
        refuse_writes(&w, true);
        image_line(&w, 0);
        finish(&w);
        if (killed[i]) {
            world_kill_and_restart(&w);
        } else {
            jobs_close(w.q);
            assert_int_equal(note.calls, 1);
            assert_int_equal(note.status, JOB_RUNNING);
            fixture_close_db(&w.f);
            close_parts(&w);
            fixture_open_db(&w.f);
            world_open(&w);
        }
        assert_status(&w, a, "interrupted", NULL);
        assert_int_equal(total_of_history(&w), 0);
        come_back(&w);
        assert_int_equal(w.runner.job, a);
        image_line(&w, 0); /* the worker finds the file, and tells of it again */
        finish(&w);
        assert_status(&w, a, "done", NULL);
        assert_int_equal(results_of(&w, a), 1);
        assert_int_equal(total_of_history(&w), 1);
        world_free(&w);
    }
}

/* A server that is killed before would otherwise leave pictures that nobody lists. */
static void test_a_failure_is_told_at_once_and_saved_behind_its_pictures(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    wait_note note = {0};
    jobs_wait(w.q, a, on_over, &note);
    refuse_writes(&w, true);
    image_line(&w, 0);
    fixture_spin(&w.f);
    refuse_writes(&w, false);
    line(&w, "{\"event\":\"error\",\"error\":{\"message\":\"no space left\",\"code\":\"io\"}}");
    jobs_runner_end(w.q, NULL);
    fixture_spin(&w.f);
    assert_int_equal(note.calls, 1);
    assert_int_equal(note.status, JOB_FAILED);
    assert_status(&w, a, "failed", "no space left");
    world_kill_and_restart(&w);
    assert_status(&w, a, "interrupted", NULL);
    come_back(&w);
    refuse_writes(&w, true);
    image_line(&w, 0);
    fixture_spin(&w.f);
    refuse_writes(&w, false);
    line(&w, "{\"event\":\"error\",\"error\":{\"message\":\"no space left\",\"code\":\"io\"}}");
    jobs_runner_end(w.q, NULL);
    wait_for_retry(&w);
    assert_null(jobs_find(w.q, a));
    assert_status(&w, a, "failed", "no space left");
    assert_int_equal(results_of(&w, a), 1);
    world_free(&w);
}

/* Nothing of it is to be listed: its clients know its end, and it is saved when there is room. */
static void test_a_cancelled_job_raises_no_alert_on_a_full_disk(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    err e = {0};
    refuse_writes(&w, true);
    assert_true(jobs_cancel(w.q, a, &e));
    fixture_spin(&w.f);
    assert_status(&w, a, "cancelled", "cancelled");
    assert_int_equal(count_heard(&w, "event: alert\n"), 0);
    refuse_writes(&w, false);
    wait_for_retry(&w);
    assert_null(jobs_find(w.q, a));
    assert_status(&w, a, "cancelled", "cancelled");
    world_free(&w);
}

/* The same picture waits twice: of the attempt that died, and of the next one. */
static void test_a_picture_that_was_refused_before_a_death_is_recorded_once(void **state) {
    (void)state;
    world w;
    world_init(&w);
    int64_t a = submit(&w, "a");
    refuse_writes(&w, true);
    image_line(&w, 0);
    die(&w);
    come_back(&w);
    image_line(&w, 0);
    finish(&w);
    assert_status(&w, a, "running", NULL);
    refuse_writes(&w, false);
    wait_for_retry(&w);
    assert_status(&w, a, "done", NULL);
    assert_int_equal(results_of(&w, a), 1);
    assert_int_equal(total_of_history(&w), 1);
    assert_int_equal(count_heard(&w, "event: image\n"), 1);
    world_free(&w);
}

static void test_the_list_is_paged_and_live(void **state) {
    (void)state;
    world w;
    world_init(&w);
    for (int i = 0; i < 5; i++) submit(&w, "x");
    fetched g = {0};
    jobs_list(w.q, NULL, 0, 2, on_fetched, &g);
    fixture_spin(&w.f);
    yyjson_val *root = yyjson_doc_get_root(g.doc), *data = yyjson_obj_get(root, "data");
    assert_int_equal(yyjson_arr_size(data), 2);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(data, 0), "id")), "j-5");
    assert_int_equal(yyjson_get_sint(yyjson_obj_get(yyjson_arr_get(data, 0), "position")), 4);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(root, "next")), "j-4");
    yyjson_doc_free(g.doc);
    jobs_list(w.q, "running,done", 0, 50, on_fetched, &g);
    fixture_spin(&w.f);
    data = yyjson_obj_get(yyjson_doc_get_root(g.doc), "data");
    assert_int_equal(yyjson_arr_size(data), 1);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(data, 0), "id")), "j-1");
    yyjson_doc_free(g.doc);
    fetched none = get(&w, 99);
    assert_int_equal(none.why.code, ERR_NOT_FOUND);
    world_free(&w);
}

static void test_names_of_jobs(void **state) {
    (void)state;
    assert_int_equal(job_id_from_name("j-12"), 12);
    static const char *const bad[] = {"", "12", "j-", "j-0", "j--1", "j-1x", "j- 1", "j-99999999999999999999", "J-1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(job_id_from_name(bad[i]), 0);
    assert_int_equal(job_id_from_name(NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_job_runs_and_is_done),
        cmocka_unit_test(test_jobs_run_one_at_a_time_in_order),
        cmocka_unit_test(test_a_death_puts_the_job_to_the_front),
        cmocka_unit_test(test_two_deaths_are_poison),
        cmocka_unit_test(test_deaths_are_remembered_over_a_restart),
        cmocka_unit_test(test_a_stream_that_breaks_off_is_a_death),
        cmocka_unit_test(test_errors_of_the_worker_are_the_jobs),
        cmocka_unit_test(test_strange_lines_harm_nobody),
        cmocka_unit_test(test_cancelling),
        cmocka_unit_test(test_a_waiter_that_left_is_not_called),
        cmocka_unit_test(test_a_killed_server_finds_its_queue),
        cmocka_unit_test(test_a_stopped_server_keeps_the_running_job),
        cmocka_unit_test(test_the_queue_is_bounded),
        cmocka_unit_test(test_a_full_disk_is_told_and_survived),
        cmocka_unit_test(test_a_job_is_not_done_before_that_is_saved),
        cmocka_unit_test(test_a_batch_of_which_some_pictures_were_refused),
        cmocka_unit_test(test_a_job_that_waits_for_room_outlives_the_server),
        cmocka_unit_test(test_a_failure_is_told_at_once_and_saved_behind_its_pictures),
        cmocka_unit_test(test_a_cancelled_job_raises_no_alert_on_a_full_disk),
        cmocka_unit_test(test_a_picture_that_was_refused_before_a_death_is_recorded_once),
        cmocka_unit_test(test_the_list_is_paged_and_live),
        cmocka_unit_test(test_names_of_jobs),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
