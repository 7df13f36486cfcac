/* The image and queue routes over real sockets, with a runner that is no process: what clients send and get. */
#include "server_fixture.h"

#include "base/base64.h"
#include "base/log.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/net.h"
#include "server/history.h"
#include "server/recovery.h"
#include "server/routes.h"

typedef struct world {
    fixture f;
    app a;
    uploads up;
    route_list routes;
    http_router *router;
    http_server *server;
    http_client *client;
    bool server_closed;
    /* the runner */
    int starts, cancels;
    char stem[64];
    char *body;
} world;

static world *the_world; /* for wait_for() */

#define WAIT(condition)                                                                                                \
    do {                                                                                                               \
        alarm(30); /* ends a test that hangs */                                                                        \
        while (!(condition)) uv_run(&the_world->f.loop, UV_RUN_ONCE);                                                  \
        alarm(0);                                                                                                      \
    } while (0)

static bool runner_ready(void *ctx) {
    (void)ctx;
    return true;
}

static void runner_start(void *ctx, const job *j, const char *body, size_t len) {
    world *w = ctx;
    w->starts++;
    str_copy(w->stem, sizeof w->stem, j->file_stem);
    free(w->body);
    w->body = str_ndup(body, len);
}

static void runner_cancel(void *ctx) {
    ((world *)ctx)->cancels++;
}

static void no_change(void *ctx, worker_id id) {
    (void)ctx;
    (void)id;
}

static void no_death(void *ctx, worker_id id, const char *cause) {
    (void)ctx;
    (void)id;
    (void)cause;
}

static void open_parts(world *w) {
    app *a = &w->a;
    err e = {0};
    char *checkpoints = fixture_path(&w->f, "checkpoints");
    assert_true(path_make_dirs(checkpoints, &e) && uploads_init(&w->up, w->f.dir, a->cfg.output_dir, &e));
    a->events = events_open(a->loop, "run");
    a->history = history_open(a->db, a->cfg.output_dir);
    a->uploads = &w->up;
    const models_config index = {.loop = a->loop, .db = a->db, .dir = a->cfg.model_dir};
    a->models = models_open(&index, &e);
    /* the chosen model, as a worker that is not up yet has it */
    recovery_set(a->db, "sd", "{\"model_id\":\"tiny.safetensors\",\"body\":{\"model\":\"/x/tiny.safetensors\"}}", NULL,
                 NULL);
    const workers_listener listener = {.ctx = w, .changed = no_change, .died = no_death};
    a->workers = workers_new(a, &listener);
    const jobs_config queue = {.loop = a->loop,
                               .db = a->db,
                               .history = a->history,
                               .events = a->events,
                               .uploads = a->uploads,
                               .output_dir = a->cfg.output_dir,
                               .checkpoint_dir = checkpoints,
                               .runner = {w, runner_ready, runner_start, runner_cancel}};
    a->jobs = jobs_open(&queue, &e);
    assert_non_null(a->jobs);
    free(checkpoints);
}

static void world_init(world *w) {
    err e = {0};
    *w = (world){0};
    the_world = w;
    fixture_init(&w->f);
    w->a.loop = &w->f.loop;
    w->a.db = w->f.db;
    w->a.cfg.output_dir = fixture_path(&w->f, "out");
    w->a.cfg.model_dir = fixture_path(&w->f, "models");
    w->a.cfg.data_dir = fixture_path(&w->f, "");
    assert_true(path_make_dirs(w->a.cfg.output_dir, &e) && path_make_dirs(w->a.cfg.model_dir, &e));
    open_parts(w);
    routes_jobs(&w->routes);
    routes_images(&w->routes);
    routes_history(&w->routes);
    routes_events(&w->routes);
    routes_models(&w->routes);
    routes_misc(&w->routes);
    w->router = http_router_new(w->routes.items, w->routes.count, &w->a);
    const http_server_opts opts = {
        .ip = "127.0.0.1", .on_headers = http_router_on_headers, .handler = http_router_handle, .ctx = w->router};
    w->server = http_server_listen(w->a.loop, &opts, &e);
    assert_non_null(w->server);
    w->client = http_client_new(w->a.loop, "127.0.0.1", http_server_port(w->server));
}

static void on_server_closed(void *ctx) {
    ((world *)ctx)->server_closed = true;
}

static void world_free(world *w) {
    app *a = &w->a;
    jobs_close(a->jobs);
    http_client_close(w->client);
    http_server_close(w->server, 0, on_server_closed, w);
    WAIT(w->server_closed);
    workers_free(a->workers);
    models_close(a->models);
    fixture_close_db(&w->f);
    jobs_free(a->jobs);
    history_close(a->history);
    events_close(a->events);
    uploads_free(&w->up);
    http_router_free(w->router);
    free(w->routes.items);
    free(a->cfg.output_dir);
    free(a->cfg.model_dir);
    free(a->cfg.data_dir);
    free(w->body);
    fixture_free(&w->f);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

typedef struct call {
    http_call *handle;
    bool done;
    int status;
    buf body;
    char retry_after[16];
} call;

static void on_headers(void *ctx, http_call *h) {
    call *c = ctx;
    const char *retry = http_call_header(h, "Retry-After");
    c->status = http_call_status(h);
    str_copy(c->retry_after, sizeof c->retry_after, retry ? retry : "");
}

static void on_data(void *ctx, const char *data, size_t len) {
    buf_append(&((call *)ctx)->body, data, len);
}

static void on_done(void *ctx, const err *e) {
    call *c = ctx;
    c->done = true;
    if (e) c->status = -e->code;
}

static void begin(world *w, call *c, const char *method, const char *path, const char *type, const void *body,
                  size_t len) {
    err e = {0};
    *c = (call){0};
    buf_init(&c->body, 64 << 20);
    const http_header header = {"Content-Type", type};
    const http_call_opts opts = {.method = method,
                                 .path = path,
                                 .headers = &header,
                                 .header_count = type ? 1 : 0,
                                 .body = body,
                                 .body_len = len,
                                 .on_headers = on_headers,
                                 .on_data = on_data,
                                 .on_done = on_done,
                                 .ctx = c};
    c->handle = http_client_send(w->client, &opts, &e);
    if (!c->handle) fail_msg("%s", e.msg);
}

static void begin_json(world *w, call *c, const char *method, const char *path, const char *json) {
    begin(w, c, method, path, json ? "application/json" : NULL, json, json ? strlen(json) : 0);
}

/* A whole call; the text of its answer is kept until the next one. */
static int ask(world *w, call *c, const char *method, const char *path, const char *json) {
    buf_free(&c->body);
    begin_json(w, c, method, path, json);
    WAIT(c->done);
    return c->status;
}

static bool answer_has(const call *c, const char *part) {
    if (strstr(buf_str(&c->body), part)) return true;
    fprintf(stderr, "no '%s' in: %.400s\n", part, buf_str(&c->body));
    return false;
}

static void line(world *w, const char *text) {
    jobs_runner_line(w->a.jobs, text, strlen(text));
}

/* The runner's end of a picture: the file, its event, done. */
static char *make_picture(world *w, const char *bytes, size_t len) {
    char *name = str_fmt("%s.png", w->stem), *path = str_fmt("out/%s", name);
    fixture_write(&w->f, path, bytes, len);
    char *event = str_fmt("{\"event\":\"image\",\"index\":0,\"seed\":42,\"file\":\"%s\",\"thumb\":null,\"width\":64,"
                          "\"height\":64,\"bytes\":%zu,\"parameters\":\"p\"}",
                          name, len);
    line(w, event);
    free(event);
    free(path);
    return name;
}

static void finish(world *w) {
    line(w, "{\"event\":\"done\"}");
    jobs_runner_end(w->a.jobs, NULL);
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void test_a_job_from_submission_to_deletion(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0}, stream = {0};
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs", "{\"type\":\"txt2img\",\"prompt\":\"cat\",\"steps\":3}"), 202);
    assert_true(answer_has(&c, "\"id\":\"j-1\",\"type\":\"txt2img\",\"status\":\"queued\""));
    assert_true(answer_has(&c, "\"model\":\"tiny.safetensors\""));
    WAIT(w.starts == 1);
    begin_json(&w, &stream, "GET", "/v1/jobs/j-1/events", NULL);
    WAIT(strstr(buf_str(&stream.body), "event: job"));
    line(&w, "{\"event\":\"progress\",\"phase\":\"sampling\",\"step\":1,\"steps\":3,\"image\":0,\"step_ms\":5}");
    assert_int_equal(ask(&w, &c, "GET", "/v1/progress", NULL), 200);
    assert_true(answer_has(&c, "{\"step\":1,\"steps\":3,\"time\":"));
    free(make_picture(&w, "png", 3));
    finish(&w);
    WAIT(stream.done); /* the stream ends with the job */
    assert_true(answer_has(&stream, "event: image"));
    assert_true(answer_has(&stream, "\"status\":\"done\""));
    assert_int_equal(ask(&w, &c, "GET", "/v1/jobs/j-1/events", NULL), 200); /* of a job that is over: one event */
    assert_true(answer_has(&c, "\"status\":\"done\""));
    assert_int_equal(ask(&w, &c, "GET", "/v1/jobs/j-1", NULL), 200);
    assert_true(answer_has(&c, "\"url\":\"/outputs/"));
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs/j-1/cancel", "{}"), 409);
    assert_int_equal(ask(&w, &c, "GET", "/v1/history/images?q=cat", NULL), 200);
    assert_true(answer_has(&c, "\"total\":1}"));
    assert_int_equal(ask(&w, &c, "DELETE", "/v1/history/images/1", NULL), 200);
    assert_int_equal(ask(&w, &c, "GET", "/v1/history/images/1", NULL), 404);
    assert_int_equal(ask(&w, &c, "DELETE", "/v1/history/images/1", NULL), 404);
    buf_free(&c.body);
    buf_free(&stream.body);
    world_free(&w);
}

/* 300,001 bytes: several pieces, and a last one that needs padding. */
static void test_a_picture_comes_back_as_base64(void **state) {
    (void)state;
    enum { SIZE = 300001 };
    world w;
    world_init(&w);
    call c = {0};
    char *bytes = mem_alloc(SIZE, 1);
    file_random(bytes, SIZE);
    begin_json(&w, &c, "POST", "/v1/images/generations", "{\"prompt\":\"a\",\"size\":\"64x64\",\"user\":\"u\"}");
    WAIT(w.starts == 1);
    char *name = make_picture(&w, bytes, SIZE);
    finish(&w);
    WAIT(c.done);
    assert_int_equal(c.status, 200);
    err e = {0};
    yyjson_doc *doc = json_parse(buf_str(&c.body), c.body.len, &e);
    if (!doc) fail_msg("%s", e.msg);
    yyjson_val *root = yyjson_doc_get_root(doc), *item = yyjson_arr_get(yyjson_obj_get(root, "data"), 0);
    buf decoded;
    buf_init(&decoded, 1 << 20);
    assert_true(base64_decode(&decoded, yyjson_get_str(yyjson_obj_get(item, "b64_json")),
                              yyjson_get_len(yyjson_obj_get(item, "b64_json"))));
    assert_int_equal(decoded.len, SIZE);
    assert_memory_equal(decoded.data, bytes, SIZE);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(item, "file")), name);
    assert_int_equal(yyjson_get_sint(yyjson_obj_get(item, "seed")), 42);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(root, "job")), "j-1");
    assert_true(yyjson_is_int(yyjson_obj_get(root, "created")));
    yyjson_doc_free(doc);
    buf_free(&decoded);
    buf_free(&c.body);
    free(name);
    free(bytes);
    world_free(&w);
}

static void test_a_picture_comes_back_as_url(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0};
    begin_json(&w, &c, "POST", "/v1/images/generations", "{\"prompt\":\"a\",\"response_format\":\"url\"}");
    WAIT(w.starts == 1);
    free(make_picture(&w, "x", 1));
    finish(&w);
    WAIT(c.done);
    assert_int_equal(c.status, 200);
    assert_true(answer_has(&c, "\"url\":\"/outputs/"));
    buf_free(&c.body);
    world_free(&w);
}

static void test_a_failed_job_is_an_error(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0};
    begin_json(&w, &c, "POST", "/v1/images/generations", "{\"prompt\":\"a\"}");
    WAIT(w.starts == 1);
    line(&w,
         "{\"event\":\"error\",\"error\":{\"message\":\"width: 72 is not a multiple of 64\",\"code\":\"invalid\"}}");
    jobs_runner_end(w.a.jobs, NULL);
    WAIT(c.done);
    assert_int_equal(c.status, 400);
    assert_true(answer_has(&c, "\"param\":\"width\""));
    buf_free(&c.body);
    world_free(&w);
}

static void test_a_client_that_goes_away_cancels(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call waits = {0}, queued = {0}, c = {0};
    begin_json(&w, &waits, "POST", "/v1/images/generations", "{\"prompt\":\"a\"}");
    WAIT(w.starts == 1);
    begin_json(&w, &queued, "POST", "/v1/images/generations", "{\"prompt\":\"b\"}");
    WAIT(jobs_waiting(w.a.jobs) == 1);
    http_call_abort(queued.handle);
    WAIT(jobs_waiting(w.a.jobs) == 0);
    http_call_abort(waits.handle);
    WAIT(w.cancels == 1);
    assert_int_equal(ask(&w, &c, "GET", "/v1/jobs?status=cancelled", NULL), 200);
    assert_true(answer_has(&c, "\"id\":\"j-1\""));
    assert_true(answer_has(&c, "\"id\":\"j-2\""));
    buf_free(&c.body);
    buf_free(&waits.body);
    buf_free(&queued.body);
    world_free(&w);
}

/* Asynchronous jobs belong to nobody: their client may leave. */
static void test_cancelling_over_http(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0}, waits = {0};
    begin_json(&w, &waits, "POST", "/v1/images/generations", "{\"prompt\":\"a\"}");
    WAIT(w.starts == 1);
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs/j-1/cancel", NULL), 200);
    assert_true(answer_has(&c, "\"status\":\"cancelled\""));
    WAIT(waits.done);
    assert_int_equal(waits.status, 409);
    assert_true(answer_has(&waits, "\"code\":\"cancelled\""));
    assert_int_equal(w.cancels, 1);
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs/j-77/cancel", NULL), 404);
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs/xyz/cancel", NULL), 404);
    buf_free(&c.body);
    buf_free(&waits.body);
    world_free(&w);
}

static void test_a_full_queue_is_429(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0};
    for (int i = 0; i < JOBS_QUEUE_MAX; i++)
        assert_int_equal(ask(&w, &c, "POST", "/v1/jobs", "{\"prompt\":\"a\"}"), 202);
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs", "{\"prompt\":\"a\"}"), 429);
    assert_true(answer_has(&c, "\"code\":\"queue_full\""));
    assert_true(atoi(c.retry_after) >= 1);
    assert_int_equal(ask(&w, &c, "POST", "/v1/images/generations", "{\"prompt\":\"a\"}"), 429);
    buf_free(&c.body);
    world_free(&w);
}

static const char png[] = "\x89PNG\r\n\x1a\n whatever follows";

static void test_forms_bring_an_image(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0};
    buf form;
    buf_init(&form, 1 << 16);
    buf_puts(&form, "--XX\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na hat\r\n"
                    "--XX\r\nContent-Disposition: form-data; name=\"steps\"\r\n\r\n7\r\n"
                    "--XX\r\nContent-Disposition: form-data; name=\"strength\"\r\n\r\n0.4\r\n"
                    "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"../../x.php\"\r\n"
                    "Content-Type: image/png\r\n\r\n");
    buf_append(&form, png, sizeof png);
    const size_t one = form.len;
    buf_puts(&form, "\r\n--XX\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"b.png\"\r\n\r\n");
    buf_append(&form, png, sizeof png);
    buf_puts(&form, "\r\n--XX--\r\n");
    begin(&w, &c, "POST", "/v1/images/edits", "multipart/form-data; boundary=XX", form.data, form.len);
    WAIT(c.done);
    assert_int_equal(c.status, 400);
    assert_true(answer_has(&c, "image[]: more than one picture"));
    buf_free(&c.body);
    form.len = one;
    buf_puts(&form, "\r\n--XX--\r\n");
    begin(&w, &c, "POST", "/v1/images/edits", "multipart/form-data; boundary=XX", form.data, form.len);
    WAIT(w.starts == 1);
    const char *sent = strstr(w.body, "\"init_image\":\"");
    assert_non_null(sent);
    assert_non_null(strstr(sent, "/uploads/"));
    assert_non_null(strstr(w.body, "\"steps\":7"));
    assert_non_null(strstr(w.body, "\"strength\":0.4"));
    assert_non_null(strstr(w.body, "\"prompt\":\"a hat\""));
    free(make_picture(&w, "x", 1));
    finish(&w);
    WAIT(c.done);
    assert_int_equal(c.status, 200);
    buf_free(&form);
    buf_free(&c.body);
    world_free(&w);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *path, *body;
        int status;
        const char *part;
    } cases[] = {
        {"/v1/jobs", "{", 400, "not valid JSON"},
        {"/v1/jobs", "", 400, "not valid JSON"},
        {"/v1/jobs", "[]", 400, "expected object"},
        {"/v1/jobs", "{\"prompt\":\"a\",\"stepz\":1}", 400, "did you mean 'steps'"},
        {"/v1/jobs", "{\"prompt\":\"a\",\"steps\":0}", 400, "\"param\":\"steps\""},
        {"/v1/jobs", "{\"prompt\":\"a\",\"type\":\"video\"}", 400, "\"param\":\"type\""},
        {"/v1/jobs", "{\"prompt\":\"a\",\"type\":\"img2img\"}", 400, "init_image: required"},
        {"/v1/jobs", "{\"prompt\":\"a\",\"init_image\":\"gone.png\"}", 404, "init_image: "},
        {"/v1/jobs", "{\"prompt\":\"a\",\"init_image\":\"../../etc/passwd.png\"}", 400, "init_image: "},
        {"/v1/jobs", "{\"prompt\":\"a\",\"init_image\":\"AAAA\"}", 400, "not a PNG, JPEG or WebP"},
        {"/v1/jobs", "{\"prompt\":\"a\",\"model\":\"nope\"}", 404, "model_not_found"},
        {"/v1/images/edits", "{\"prompt\":\"a\"}", 400, "init_image: required"},
        {"/v1/images/edits", "{\"prompt\":\"a\",\"image\":\"AAAA\"}", 400, "\"param\":\"image\""},
        {"/v1/images/edits", "{\"prompt\":\"a\",\"image\":[\"a\",\"b\"]}", 400, "image: expected one picture"},
        {"/v1/images/variations", "{\"image_id\":9}", 404, "image_id: there is no picture 9"},
        {"/v1/images/inspect", "{}", 400, "image: required"},
        {"/v1/images/inspect", "{\"image\":\"AAAA\"}", 400, "not a PNG, JPEG or WebP"},
    };
    world w;
    world_init(&w);
    call c = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = ask(&w, &c, "POST", cases[i].path, cases[i].body);
        if (status != cases[i].status || !answer_has(&c, cases[i].part))
            fail_msg("%s %s: %d", cases[i].path, cases[i].body, status);
    }
    assert_int_equal(w.starts, 0);
    assert_int_equal(ask(&w, &c, "GET", "/v1/history/images?limit=0", NULL), 400);
    assert_int_equal(ask(&w, &c, "GET", "/v1/history/images?before=-1", NULL), 400);
    assert_int_equal(ask(&w, &c, "GET", "/v1/models/none", NULL), 404);
    buf_free(&c.body);
    world_free(&w);
}

static void test_settings_are_merged(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0};
    assert_int_equal(ask(&w, &c, "PUT", "/v1/settings", "{\"theme\":\"dark\",\"form\":{\"n\":1}}"), 200);
    assert_int_equal(ask(&w, &c, "PUT", "/v1/settings", "{\"theme\":null,\"a'b\":[1]}"), 200);
    assert_int_equal(ask(&w, &c, "GET", "/v1/settings", NULL), 200);
    assert_string_equal(buf_str(&c.body), "{\"a'b\":[1],\"form\":{\"n\":1}}");
    assert_int_equal(ask(&w, &c, "PUT", "/v1/settings", "[1]"), 400);
    assert_int_equal(ask(&w, &c, "PUT", "/v1/settings", "{\"\":1}"), 400);
    buf_free(&c.body);
    world_free(&w);
}

static void test_events_replay_over_http(void **state) {
    (void)state;
    world w;
    world_init(&w);
    call c = {0}, first = {0}, again = {0};
    begin_json(&w, &first, "GET", "/v1/events", NULL);
    WAIT(strstr(buf_str(&first.body), "event: hello"));
    http_call_abort(first.handle);
    WAIT(events_subscribers(w.a.events) == 0);
    assert_int_equal(ask(&w, &c, "POST", "/v1/jobs", "{\"prompt\":\"missed\"}"), 202);
    begin_json(&w, &again, "GET", "/v1/events?last_event_id=run-0", NULL);
    WAIT(strstr(buf_str(&again.body), "missed"));
    assert_null(strstr(buf_str(&again.body), "event: reset"));
    http_call_abort(again.handle);
    WAIT(events_subscribers(w.a.events) == 0);
    buf_free(&c.body);
    buf_free(&first.body);
    buf_free(&again.body);
    world_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_job_from_submission_to_deletion),
        cmocka_unit_test(test_a_picture_comes_back_as_base64),
        cmocka_unit_test(test_a_picture_comes_back_as_url),
        cmocka_unit_test(test_a_failed_job_is_an_error),
        cmocka_unit_test(test_a_client_that_goes_away_cancels),
        cmocka_unit_test(test_cancelling_over_http),
        cmocka_unit_test(test_a_full_queue_is_429),
        cmocka_unit_test(test_forms_bring_an_image),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_settings_are_merged),
        cmocka_unit_test(test_events_replay_over_http),
    };
    net_init();
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
