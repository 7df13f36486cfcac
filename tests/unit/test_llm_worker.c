/* test_llm_worker.c - the real LLM worker with a tiny model, over real HTTP. Waits end by events; nothing is timed. */
#include "base/file.h"
#include "base/str.h"
#include "json/json.h"
#include "worker_bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const char *model_path;

static void call(bench *b, const char *method, const char *path, const char *body, int status, buf *out) {
    answer a;
    bench_call(b, method, path, BENCH_TOKEN, body, &a);
    if (a.status != status) fail_msg("%s: %d instead of %d: %s", path, a.status, status, buf_str(&a.body));
    buf_clear(out);
    buf_append(out, buf_str(&a.body), a.body.len);
    answer_free(&a);
}

static void expect(const buf *text, const char *part) {
    if (!strstr(buf_str(text), part)) fail_msg("'%s' is not in: %s", part, buf_str(text));
}

static void load(bench *b, int n_ctx, int slots) {
    buf out;
    buf_init(&out, 1 << 20);
    char *body = str_fmt("{\"path\":\"%s\",\"n_ctx\":%d,\"n_gpu_layers\":0,\"threads\":1,\"slots\":%d}", model_path,
                         n_ctx, slots);
    call(b, "POST", "/internal/load", body, 200, &out);
    expect(&out, "\"architecture\":\"llama\"");
    free(body);
    buf_free(&out);
}

/* ---- a completion: events are checked as they come ---- */

typedef struct chat {
    http_call *call;
    http_lines lines;
    int status, starts, tokens, events;
    bool done, finished, broken;
    char why[32], error[32];
    int completion_tokens;
    int32_t ids[8192];
    buf text;
} chat;

static void take_token(chat *c, const json_in *root) {
    const char *text = "";
    json_in ids;
    err e;
    assert_true(json_get_str(root, "text", &text, &e) && json_get_arr(root, "ids", true, &ids, &e));
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(ids.val, i, n, v) c->ids[c->tokens++] = yyjson_get_int(v);
    buf_puts(&c->text, text);
    c->events++;
}

static void take_end(chat *c, const json_in *root, const char *event) {
    const char *why = "", *code = "";
    err e;
    json_in error = json_at(root, "error");
    assert_true(json_get_str(root, "finish_reason", &why, &e));
    assert_true(json_get_int(root, "completion_tokens", &c->completion_tokens, 0, 8192, &e));
    if (error.val) assert_true(json_get_str(&error, "code", &code, &e));
    str_copy(c->why, sizeof c->why, why);
    str_copy(c->error, sizeof c->error, code);
    assert_true(str_eq(event, "done") || str_eq(event, "error"));
    c->finished = true;
}

static bool on_line(void *ctx, const char *line, size_t len) {
    chat *c = ctx;
    err e;
    const char *event = "";
    yyjson_doc *doc = json_parse(line, len, &e);
    if (!doc) fail_msg("%s: %s", e.msg, line);
    json_in root = json_root(doc);
    assert_true(json_need_str(&root, "event", &event, &e));
    assert_false(c->finished); /* nothing follows the end */
    if (str_eq(event, "start"))
        assert_int_equal(c->starts++, 0);
    else if (str_eq(event, "token"))
        take_token(c, &root);
    else
        take_end(c, &root, event);
    yyjson_doc_free(doc);
    return true;
}

static void on_headers(void *ctx, http_call *call_) {
    ((chat *)ctx)->status = http_call_status(call_);
}

static void on_data(void *ctx, const char *data, size_t len) {
    assert_true(http_lines_feed(&((chat *)ctx)->lines, data, len, NULL));
}

static void on_done(void *ctx, const err *e) {
    chat *c = ctx;
    c->call = NULL;
    c->done = true;
    c->broken = e != NULL;
}

static void chat_open(chat *c, bench *b, const char *body) {
    memset(c, 0, sizeof *c);
    buf_init(&c->text, 1 << 20);
    http_lines_init(&c->lines, 1 << 20, on_line, c);
    http_header headers[] = {{"X-Mysti-Token", BENCH_TOKEN}, {"Content-Type", "application/json"}};
    http_call_opts o = {.method = "POST",
                        .path = "/internal/complete",
                        .headers = headers,
                        .header_count = 2,
                        .body = body,
                        .body_len = strlen(body),
                        .on_headers = on_headers,
                        .on_data = on_data,
                        .on_done = on_done,
                        .ctx = c};
    err e;
    c->call = http_client_send(b->client, &o, &e);
    if (!c->call) fail_msg("%s", e.msg);
}

static void chat_wait(chat *c, bench *b) {
    while (!c->done) bench_turn(b);
}

static void chat_close(chat *c) {
    if (c->call) http_call_abort(c->call);
    c->call = NULL;
    http_lines_free(&c->lines);
    buf_free(&c->text);
}

#define LONG_RUN "{\"prompt\":\"a\",\"max_tokens\":-1,\"ignore_eos\":true,\"seed\":1}"

/* ---- tests ---- */

static void nothing_works_without_a_model(void **state) {
    (void)state;
    bench b;
    buf out;
    buf_init(&out, 1 << 20);
    bench_start(&b, NULL);
    worker_health h = bench_health(&b);
    assert_string_equal(h.service, "llm");
    assert_string_equal(h.model, "");
    call(&b, "POST", "/internal/complete", LONG_RUN, 409, &out);
    expect(&out, "no model is loaded");
    call(&b, "POST", "/internal/tokenize", "{\"text\":\"a\"}", 409, &out);
    call(&b, "POST", "/internal/unload", "{}", 200, &out);
    assert_string_equal(buf_str(&out), "{}");
    call(&b, "GET", "/internal/devices", NULL, 200, &out);
    expect(&out, "\"type\":\"cpu\"");
    call(&b, "POST", "/internal/load", "{\"path\":\"/nowhere/x.gguf\"}", 404, &out);
    expect(&out, "\"loaded\":null");
    expect(&out, "x.gguf");
    call(&b, "POST", "/internal/load", "{\"path\":\"x\",\"slots\":0}", 400, &out);
    expect(&out, "slots: 0 is not between");
    buf_free(&out);
    bench_free(&b);
}

static void a_chat_is_streamed_and_goes_on_after_a_crash(void **state) {
    (void)state;
    bench b;
    chat whole, rest;
    static const char request[] = "{\"id\":\"c-1\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
                                  "\"max_tokens\":40,\"temperature\":0.9,\"seed\":7,\"ignore_eos\":true%s}";
    bench_start(&b, NULL);
    load(&b, 512, 4);
    assert_string_equal(bench_health(&b).model, model_path);
    char *body = str_fmt(request, "");
    chat_open(&whole, &b, body);
    chat_wait(&whole, &b);
    assert_int_equal(whole.status, 200);
    assert_string_equal(whole.why, "length");
    assert_int_equal(whole.starts, 1);
    assert_int_equal(whole.tokens, 40);
    assert_int_equal(whole.completion_tokens, 40);
    assert_true(whole.events > 20); /* streamed, not collected */
    free(body);

    proc_kill(b.p);
    bench_wait_exit(&b);
    bench_free(&b);
    bench_start(&b, NULL);
    load(&b, 512, 4);
    buf resume;
    buf_init(&resume, 4096);
    for (int i = 0; i < 17; i++) buf_printf(&resume, "%s%d", i ? "," : ",\"resume\":[", (int)whole.ids[i]);
    buf_puts(&resume, "]");
    body = str_fmt(request, buf_str(&resume));
    chat_open(&rest, &b, body);
    chat_wait(&rest, &b);
    assert_int_equal(rest.tokens, 23);
    assert_memory_equal(rest.ids, whole.ids + 17, 23 * sizeof *rest.ids);
    assert_true(rest.text.len < whole.text.len);
    assert_string_equal(buf_str(&whole.text) + whole.text.len - rest.text.len, buf_str(&rest.text));
    free(body);
    buf_free(&resume);
    chat_close(&whole), chat_close(&rest);
    bench_free(&b);
}

/* Four at once and a fifth that waits: the one whose client goes away makes room at once, while the others go on. */
static void a_disconnect_frees_its_slot(void **state) {
    (void)state;
    bench b;
    chat c[5];
    bench_start(&b, NULL);
    load(&b, 8192, 4);
    for (int i = 0; i < 5; i++) chat_open(&c[i], &b, LONG_RUN);
    for (bool all = false; !all; bench_turn(&b)) {
        all = true;
        for (int i = 0; i < 4; i++) all = all && c[i].events >= 5;
    }
    assert_int_equal(c[4].starts, 0);
    http_call_abort(c[2].call);
    c[2].call = NULL;
    while (!c[4].events) bench_turn(&b);
    for (int i = 0; i < 4; i++) assert_false(c[i].done);
    assert_int_equal(bench_health(&b).state, WORKER_BUSY);
    for (int i = 0; i < 5; i++) chat_close(&c[i]);
    bench_wait_state(&b, WORKER_IDLE, NULL); /* all are gone: nothing goes on computing */
    bench_free(&b);
}

static void the_previous_model_stays(void **state) {
    (void)state;
    bench b;
    buf out;
    chat c;
    err e;
    char junk[64], body[128];
    buf_init(&out, 1 << 20);
    snprintf(junk, sizeof junk, "/tmp/mysti_junk_%d.gguf", (int)getpid());
    assert_true(file_write_atomic(junk, "GGUF junk", 9, &e));
    snprintf(body, sizeof body, "{\"path\":\"%s\"}", junk);
    bench_start(&b, NULL);
    load(&b, 512, 1);
    call(&b, "POST", "/internal/load", body, 400, &out);
    expect(&out, "\"code\":\"format\"");
    expect(&out, "\"loaded\":\"");
    expect(&out, model_path);
    assert_string_equal(bench_health(&b).model, model_path);
    chat_open(&c, &b, "{\"prompt\":\"a\",\"max_tokens\":5,\"ignore_eos\":true}");
    chat_wait(&c, &b);
    assert_int_equal(c.tokens, 5);
    chat_close(&c);

    /* A good one takes its place, and ends what the old one was at. */
    load(&b, 8192, 1);
    chat_open(&c, &b, LONG_RUN);
    while (!c.events) bench_turn(&b);
    load(&b, 512, 2);
    chat_wait(&c, &b);
    assert_string_equal(c.error, "conflict");
    chat_close(&c);
    call(&b, "POST", "/internal/unload", "{}", 200, &out);
    assert_string_equal(bench_health(&b).model, "");
    call(&b, "POST", "/internal/complete", LONG_RUN, 409, &out);
    remove(junk);
    buf_free(&out);
    bench_free(&b);
}

static void bad_requests_name_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *says;
    } bad[] = {
        {"", 400, "not valid JSON"},
        {"[]", 400, "body: expected object"},
        {"{}", 400, "exactly one of messages and prompt"},
        {"{\"prompt\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 400, "exactly one of"},
        {"{\"messages\":[]}", 400, "messages: expected 1"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400, "messages[0].content: expected string"},
        {"{\"messages\":[{\"role\":\"pope\",\"content\":\"x\"}]}", 400, "messages[0].role: 'pope'"},
        {"{\"prompt\":\"a\",\"temperature\":-1}", 400, "temperature: -1 is not between"},
        {"{\"prompt\":\"a\",\"stop\":[1]}", 400, "stop[0]: expected string"},
        {"{\"prompt\":\"a\",\"resume\":[-4]}", 400, "resume[0]"},
        {"{\"prompt\":\"a\",\"resume\":[999999]}", 400, "999999 is not one of the model's"},
        {"{\"prompt\":\"!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!\"}", 413,
         "the context is 64 tokens long"},
    };
    bench b;
    buf out;
    buf_init(&out, 1 << 20);
    bench_start(&b, NULL);
    load(&b, 64, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        call(&b, "POST", "/internal/complete", bad[i].body, bad[i].status, &out);
        expect(&out, bad[i].says);
    }
    call(&b, "POST", "/internal/tokenize", "{\"text\":\"ab\",\"add_special\":false}", 200, &out);
    expect(&out, "{\"tokens\":[");
    assert_null(strchr(strchr(buf_str(&out), ',') + 1, ',')); /* two letters, two tokens */
    buf_free(&out);
    bench_free(&b);
}

static void a_signal_ends_it_in_the_middle(void **state) {
    (void)state;
    bench b;
    chat c;
    bench_start(&b, NULL);
    load(&b, 8192, 1);
    chat_open(&c, &b, LONG_RUN);
    while (!c.events) bench_turn(&b);
    kill(proc_pid(b.p), SIGTERM);
    bench_wait_exit(&b);
    assert_int_equal(b.how.signal, 0);
    assert_int_equal(b.how.code, 0);
    chat_close(&c);
    bench_free(&b);
}

int main(void) {
    model_path = getenv("MYSTI_TINY_LLM");
    if (!model_path) {
        fprintf(stderr, "MYSTI_TINY_LLM does not name a model made by tools/make_tiny_llm.py\n");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_works_without_a_model),
        cmocka_unit_test(a_chat_is_streamed_and_goes_on_after_a_crash),
        cmocka_unit_test(a_disconnect_frees_its_slot),
        cmocka_unit_test(the_previous_model_stays),
        cmocka_unit_test(bad_requests_name_what_is_wrong),
        cmocka_unit_test(a_signal_ends_it_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
