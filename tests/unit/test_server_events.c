/* The hub: ids, replay, reset, filters, coalescing, readers that are behind or leave in the middle. */
#include "server_fixture.h"
#include "server/events.h"

#include "base/log.h"
#include "json/json.h"

typedef struct reader {
    buf got;
    size_t pending;
    int ended;
} reader;

static bool reader_write(void *ctx, const char *bytes, size_t len) {
    return buf_append(&((reader *)ctx)->got, bytes, len);
}

static size_t reader_pending(void *ctx) {
    return ((reader *)ctx)->pending;
}

static void reader_end(void *ctx) {
    ((reader *)ctx)->ended++;
}

static event_sub *subscribe(events *h, reader *r, const char *job, const char *last_id) {
    const event_filter f = {.job = job, .last_id = last_id};
    const event_sink sink = {r, reader_write, reader_pending, reader_end};
    buf_clear(&r->got);
    return events_subscribe(h, &f, &sink);
}

static void reader_init(reader *r) {
    *r = (reader){0};
    buf_init(&r->got, 64 << 20);
}

static int count(const reader *r, const char *text) {
    int n = 0;
    for (const char *p = buf_str(&r->got); (p = strstr(p, text)); p++) n++;
    return n;
}

static void publish(events *h, const char *name, const char *job, const char *data, unsigned flags) {
    events_publish(h, name, job, data, strlen(data), flags);
}

static uv_loop_t loop;

static void hold_over(uv_timer_t *t) {
    uv_close((uv_handle_t *)t, NULL);
}

/* Lets the loop run for a while: the hub's timer alone does not hold it. */
static void run_for(uint64_t ms) {
    uv_timer_t hold;
    uv_timer_init(&loop, &hold);
    uv_timer_start(&hold, hold_over, ms, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static void close_hub(events *h) {
    events_close(h);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static void test_a_reader_hears_hello_and_events(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    subscribe(h, &r, NULL, NULL);
    assert_int_equal(count(&r, "event: hello\n"), 1);
    assert_int_equal(count(&r, "\"server\":\"abc\""), 1);
    publish(h, "worker", NULL, "{\"x\":1}", 0);
    assert_int_equal(count(&r, "id: abc-1\nevent: worker\ndata: {\"x\":1}\n\n"), 1);
    close_hub(h);
    assert_int_equal(r.ended, 1);
    buf_free(&r.got);
}

static void test_replay_gives_what_was_missed(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    for (int i = 0; i < 5; i++) publish(h, "worker", NULL, "{}", 0);
    publish(h, "preview", "j-1", "{}", EVENT_VOLATILE);
    publish(h, "alert", NULL, "{}", 0); /* 7 */
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-3"));
    assert_int_equal(count(&r, "event: reset"), 0);
    assert_int_equal(count(&r, "event: worker"), 2);
    assert_int_equal(count(&r, "event: preview"), 0);
    assert_int_equal(count(&r, "id: abc-7\nevent: alert"), 1);
    assert_int_equal(count(&r, "id: abc-3\nevent: hello"), 1); /* a cut before the first replayed event loses nothing */
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-6"));    /* of an event that is not kept */
    assert_int_equal(count(&r, "event: alert"), 1);
    assert_int_equal(count(&r, "event: worker"), 0);
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-7"));
    assert_int_equal(count(&r, "event: "), 1);
    close_hub(h);
    buf_free(&r.got);
}

static void test_what_cannot_be_replayed_is_a_reset(void **state) {
    (void)state;
    static const char *const ids[] = {"abc-1", "abc-99999", "old-2000", "abc", "abc-",
                                      "abc-x", "2000",      "abc--1",   "xyz"};
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    for (int i = 0; i < 1500; i++) publish(h, "worker", NULL, "{}", 0);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        events_unsubscribe(h, subscribe(h, &r, NULL, ids[i]));
        if (count(&r, "event: reset") != 1) fail_msg("'%s' is no reset", ids[i]);
        assert_int_equal(count(&r, "event: worker"), 0);
    }
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-500")); /* the last one that just fits */
    assert_int_equal(count(&r, "event: reset"), 0);
    assert_int_equal(count(&r, "event: worker"), 1000);
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-499"));
    assert_int_equal(count(&r, "event: reset"), 1);
    close_hub(h);
    buf_free(&r.got);
}

static void test_the_ring_is_bounded_in_bytes(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    char *big = mem_alloc(1000001, 1);
    memset(big, 'x', 1000000);
    for (int i = 0; i < 10; i++) publish(h, "alert", NULL, big, 0);
    free(big);
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-1"));
    assert_int_equal(count(&r, "event: reset"), 1);
    events_unsubscribe(h, subscribe(h, &r, NULL, "abc-7"));
    assert_int_equal(count(&r, "event: reset"), 0);
    assert_int_equal(count(&r, "event: alert"), 3);
    close_hub(h);
    buf_free(&r.got);
}

static void test_a_jobs_stream_has_only_its_job_and_ends_with_it(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader all, one;
    reader_init(&all);
    reader_init(&one);
    subscribe(h, &all, NULL, NULL);
    subscribe(h, &one, "j-1", NULL);
    publish(h, "job", "j-1", "{\"a\":1}", 0);
    publish(h, "job", "j-12", "{}", EVENT_LAST);
    publish(h, "worker", NULL, "{}", 0);
    assert_int_equal(one.ended, 0);
    publish(h, "job", "j-1", "{\"b\":1}", EVENT_LAST);
    publish(h, "job", "j-1", "{\"c\":1}", 0);
    assert_int_equal(count(&one, "event: job"), 2);
    assert_int_equal(one.ended, 1);
    assert_int_equal(all.ended, 0);
    assert_int_equal(count(&all, "event: job"), 4);
    assert_int_equal(events_subscribers(h), 1);
    close_hub(h);
    buf_free(&all.got);
    buf_free(&one.got);
}

static void test_progress_is_coalesced_to_the_latest(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    subscribe(h, &r, NULL, NULL);
    for (int i = 1; i <= 50; i++) {
        char data[32];
        snprintf(data, sizeof data, "{\"step\":%d}", i);
        publish(h, "job", "j-1", data, EVENT_PROGRESS);
    }
    assert_int_equal(count(&r, "event: job"), 1); /* the first at once */
    run_for(300);
    assert_int_equal(count(&r, "event: job"), 2);
    assert_int_equal(count(&r, "{\"step\":50}"), 1);
    /* a change of status overtakes what waits */
    publish(h, "job", "j-1", "{\"step\":51}", EVENT_PROGRESS);
    publish(h, "job", "j-1", "{\"step\":52}", EVENT_PROGRESS);
    publish(h, "job", "j-1", "{\"status\":\"done\"}", 0);
    run_for(300);
    assert_int_equal(count(&r, "{\"step\":52}"), 0);
    assert_int_equal(count(&r, "done"), 1);
    close_hub(h);
    buf_free(&r.got);
}

static void test_previews_skip_readers_that_are_behind(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader slow;
    reader_init(&slow);
    subscribe(h, &slow, NULL, NULL);
    slow.pending = 100000;
    publish(h, "preview", "j-1", "{}", EVENT_VOLATILE);
    publish(h, "alert", NULL, "{}", 0);
    assert_int_equal(count(&slow, "event: preview"), 0);
    assert_int_equal(count(&slow, "event: alert"), 1);
    close_hub(h);
    buf_free(&slow.got);
}

static void test_a_thousand_readers_get_the_same(void **state) {
    (void)state;
    enum { N = 1000 };
    static reader readers[N];
    static event_sub *subs[N];
    events *h = events_open(&loop, "abc");
    for (int i = 0; i < N; i++) {
        reader_init(&readers[i]);
        subs[i] = subscribe(h, &readers[i], NULL, NULL);
    }
    publish(h, "worker", NULL, "{}", 0);
    for (int i = 0; i < N; i += 2) events_unsubscribe(h, subs[i]);
    publish(h, "worker", NULL, "{}", 0);
    assert_int_equal(events_subscribers(h), N / 2);
    for (int i = 0; i < N; i++) assert_int_equal(count(&readers[i], "event: worker"), 1 + i % 2);
    close_hub(h);
    for (int i = 0; i < N; i++) {
        assert_int_equal(readers[i].ended, i % 2);
        buf_free(&readers[i].got);
    }
}

static void test_an_alert_is_json_whatever_it_says(void **state) {
    (void)state;
    events *h = events_open(&loop, "abc");
    reader r;
    reader_init(&r);
    subscribe(h, &r, NULL, NULL);
    events_alert(h, "error", "worker_crashed", "sd", NULL, "it said \"no\"\nid: 7\xff");
    const char *data = strstr(buf_str(&r.got), "event: alert\ndata: ");
    assert_non_null(data);
    data += strlen("event: alert\ndata: ");
    err e = {0};
    yyjson_doc *doc = json_parse(data, strcspn(data, "\n"), &e);
    if (!doc) fail_msg("%s", e.msg);
    json_in root = json_root(doc);
    assert_string_equal(yyjson_get_str(json_at(&root, "message").val), "it said \"no\"\nid: 7\xEF\xBF\xBD");
    assert_true(yyjson_is_null(json_at(&root, "job").val));
    yyjson_doc_free(doc);
    close_hub(h);
    buf_free(&r.got);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reader_hears_hello_and_events),
        cmocka_unit_test(test_replay_gives_what_was_missed),
        cmocka_unit_test(test_what_cannot_be_replayed_is_a_reset),
        cmocka_unit_test(test_the_ring_is_bounded_in_bytes),
        cmocka_unit_test(test_a_jobs_stream_has_only_its_job_and_ends_with_it),
        cmocka_unit_test(test_progress_is_coalesced_to_the_latest),
        cmocka_unit_test(test_previews_skip_readers_that_are_behind),
        cmocka_unit_test(test_a_thousand_readers_get_the_same),
        cmocka_unit_test(test_an_alert_is_json_whatever_it_says),
    };
    uv_loop_init(&loop);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uv_loop_close(&loop);
    return failed;
}
