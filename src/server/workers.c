/* workers.c - the two worker processes: spawned, watched, ended. What is loaded in them: worker_models.c.
 *
 * The supervisor (a pure table) decides; this file tells it what happened and performs what it answers. */
#include "server/workers_impl.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "json/json.h"
#include "server/crashes.h"
#include "server/events.h"
#include "server/jobs.h"
#include "server/leftovers.h"
#include "server/llm_relay.h"
#include "server/recovery.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TERMINATE_GRACE_MS = 2000, MEMORY_EVENT_MS = 2000, LAST_LINES_MAX = 1 << 20, JOBS_TEXT_MAX = 64 << 10 };

/* ---- what others see -------------------------------------------------------------------------------------------- */

worker_view workers_view(workers *w, worker_id id) {
    slot *s = &w->slots[id];
    return (worker_view){.name = s->name,
                         .title = s->title,
                         .state = s->sup.state,
                         .pid = s->process ? s->pid : 0,
                         .port = s->port,
                         .model_id = s->model_id,
                         .loaded = s->loaded,
                         .loading = slot_models_loading(s),
                         .restarts = s->sup.total_deaths,
                         .last_crash_ms = s->last_crash_ms,
                         .last_crash = s->last_crash_ms ? s->last_crash : NULL,
                         .health = s->process ? heartbeat_last(s->beat) : NULL};
}

static void write_memory(const worker_health *h, buf *out) {
    buf_puts(out, "[");
    for (size_t i = 0; h && i < h->memory_count; i++) {
        buf_printf(out, "%s{\"device\":", i ? "," : "");
        json_quote(out, h->memory[i].device);
        buf_printf(out, ",\"total\":%llu,\"free\":%llu}", (unsigned long long)h->memory[i].total,
                   (unsigned long long)h->memory[i].free);
    }
    buf_puts(out, "]");
}

/* The members that make a change worth telling; memory is told apart. */
static void write_state(workers *w, worker_id id, buf *out) {
    worker_view v = workers_view(w, id);
    worker_activity activity = v.health ? v.health->state : WORKER_IDLE;
    if (v.loading) activity = WORKER_LOADING;
    buf_printf(out, "\"state\":\"%s\",\"activity\":\"%s\",\"pid\":%d,\"port\":%d,\"loaded\":%s,\"restarts\":%u",
               sup_state_name(v.state), worker_activity_name(activity), v.pid, v.port, v.loaded ? "true" : "false",
               v.restarts);
    json_write_member(out, "model", v.model_id);
    if (v.last_crash) {
        buf_printf(out, ",\"last_crash\":{\"at_ms\":%lld,\"cause\":", (long long)v.last_crash_ms);
        json_quote(out, v.last_crash);
        buf_puts(out, "}");
    } else {
        buf_puts(out, ",\"last_crash\":null");
    }
    if (v.state == SUP_SAFE_MODE) json_write_member(out, "safe_mode_reason", w->slots[id].safe_mode_reason);
}

void workers_write(workers *w, worker_id id, buf *out) {
    worker_view v = workers_view(w, id);
    buf_puts(out, "{");
    write_state(w, id, out);
    buf_printf(out, ",\"rss\":%llu,\"memory\":", (unsigned long long)(v.health ? v.health->rss : 0));
    write_memory(v.health, out);
    buf_puts(out, "}");
}

void slot_changed(slot *s) {
    workers *w = s->owner;
    buf out;
    buf_init(&out, 1 << 16);
    buf_printf(&out, "{\"worker\":\"%s\",", s->name);
    write_state(w, s->id, &out);
    buf_puts(&out, "}");
    bool same = str_eq(s->published, buf_str(&out));
    if (!same) {
        str_set(&s->published, buf_str(&out));
        events_publish(w->app->events, "worker", NULL, out.data, out.len, 0);
    }
    buf_free(&out);
    if (same) return;
    slot_models_wake(s);
    if (w->listener.changed) w->listener.changed(w->listener.ctx, s->id);
}

static void publish_memory(workers *w) {
    int64_t now = clock_mono_ms();
    if (now - w->memory_published_ms < MEMORY_EVENT_MS) return;
    w->memory_published_ms = now;
    size_t own = 0;
    uv_resident_set_memory(&own);
    const worker_health *sd = workers_view(w, WORKER_SD).health, *llm = workers_view(w, WORKER_LLM).health;
    buf out;
    buf_init(&out, 1 << 16);
    buf_puts(&out, "{\"devices\":");
    write_memory(sd && sd->memory_count ? sd : llm, &out);
    buf_printf(&out, ",\"server_rss\":%zu,\"sd_rss\":%llu,\"llm_rss\":%llu}", own,
               (unsigned long long)(sd ? sd->rss : 0), (unsigned long long)(llm ? llm->rss : 0));
    events_publish(w->app->events, "memory", NULL, out.data, out.len, EVENT_VOLATILE);
    buf_free(&out);
}

/* ---- what happens ----------------------------------------------------------------------------------------------- */

static void on_line(void *ctx, bool is_stderr, const char *line) {
    (void)is_stderr;
    log_relay(((slot *)ctx)->name, line);
}

static void on_health(void *ctx, const worker_health *h, bool stalled) {
    slot *s = ctx;
    if (h->pid != s->pid) return; /* another program, or a process of an earlier server, on our port */
    slot_models_alive(s);
    slot_step(s, stalled ? SUP_EV_NO_PROGRESS : SUP_EV_HEALTH_OK);
    publish_memory(s->owner);
}

static void on_miss(void *ctx, const err *why) {
    slot *s = ctx;
    if (s->sup.ending) return; /* its end broke the connection */
    log_warn("server", "%s: no health answer (%s)", s->title, why->msg);
    slot_step(s, SUP_EV_HEALTH_MISS);
}

static void close_process(slot *s) {
    proc_close(s->process);
    s->process = NULL;
    s->pid = 0;
    heartbeat_stop(s->beat);
    slot_models_died(s);
}

static void check_stopped(workers *w);

static void slot_tell(slot *s, sup_event_type type, bool blameless);

/* While the process is still known, with what it was doing. */
static void record_crash(slot *s, const proc_exit *how) {
    app *a = s->owner->app;
    buf lines, work;
    buf_init(&lines, LAST_LINES_MAX);
    buf_init(&work, JOBS_TEXT_MAX);
    if (s->process) proc_last_lines(s->process, &lines);
    if (s->id == WORKER_LLM && a->llm)
        llm_relay_write_running(a->llm, &work);
    else if (s->id == WORKER_SD && a->jobs && jobs_running(a->jobs))
        buf_puts(&work, jobs_running(a->jobs)->name);
    crashes_record(a->db, &(crash){.worker = s->name,
                                   .pid = s->pid,
                                   .cause = s->last_crash,
                                   .how = how,
                                   .model = slot_models_loading(s) ? s->load.model_id : s->model_id,
                                   .jobs = buf_str(&work),
                                   .last_lines = buf_str(&lines),
                                   .started_ms = s->started_ms});
    buf_free(&lines);
    buf_free(&work);
}

static void describe_taken_port(const slot *s, char *out, size_t cap) {
    char owner[100];
    bool known = proc_port_owner(s->port, owner, sizeof owner);
    snprintf(out, cap, "its port %d is taken by %s", s->port, known ? owner : "another program");
}

static void on_exit_of(void *ctx, const proc_exit *how) {
    slot *s = ctx;
    workers *w = s->owner;
    char cause[sizeof s->last_crash];
    /* one that has answered had its port: a library that ends the process may choose the same code */
    bool no_port = !how->signal && how->code == WORKER_EXIT_PORT && s->sup.state == SUP_STARTING;
    if (no_port)
        describe_taken_port(s, cause, sizeof cause);
    else
        proc_describe_exit(how, cause, sizeof cause);
    bool wanted = s->sup.state != SUP_STOPPED;
    if (wanted) {
        str_copy(s->last_crash, sizeof s->last_crash, cause);
        s->last_crash_oom = how->oom;
        s->last_crash_ms = clock_wall_ms();
        log_error("server", "Detected %s failure. Restarting...", s->title);
        log_error("server", "%s (pid %d): %s", s->title, s->pid, cause);
        record_crash(s, how);
    }
    if (s->id == WORKER_SD) leftovers_sweep_of(w->app, s->pid);
    close_process(s);
    slot_tell(s, SUP_EV_EXITED, no_port); /* the next process is on its way before anything else is done */
    if (wanted && w->listener.died) w->listener.died(w->listener.ctx, s->id, cause);
    check_stopped(w);
}

static void new_token(char out[33]) {
    unsigned char raw[16];
    file_random(raw, sizeof raw);
    for (size_t i = 0; i < sizeof raw; i++) snprintf(out + 2 * i, 3, "%02x", raw[i]);
}

static bool spawn(slot *s, err *e) {
    const config *c = &s->owner->app->cfg;
    char *dir = path_program_dir(), *program = path_join(dir, s->program);
    char port[16], threads[32], parent[16], env[64];
    int64_t count = s->id == WORKER_SD ? c->threads : c->llm_threads;
    snprintf(port, sizeof port, "%d", s->port);
    snprintf(threads, sizeof threads, "%lld", (long long)count);
    snprintf(parent, sizeof parent, "%d", (int)uv_os_getpid());
    new_token(s->token);
    snprintf(env, sizeof env, "MYSTI_TOKEN=%s", s->token);

    const char *argv[14] = {program, "--port", port, "--parent-pid", parent};
    size_t n = 5;
    if (count > 0) {
        argv[n++] = "--threads";
        argv[n++] = threads;
    }
    if (c->verbose) argv[n++] = "-v";
    if (s->id == WORKER_SD && c->backend) {
        argv[n++] = "--backend";
        argv[n++] = c->backend;
    }
    if (s->id == WORKER_SD && c->precision) {
        argv[n++] = "--precision";
        argv[n++] = c->precision;
    }
    /* Computing threads that wait sleep at once: while they spin, the other worker's threads don't get the processor.
     * Those of pictures, which have the lower priority, first spin for some 0.1 ms: that outlasts most waits of an idle
     * machine, where waking up again takes 4 % of a picture's time. */
    const char *spin = s->id == WORKER_SD ? "GOMP_SPINCOUNT=5000" : NULL;
    const char *const envv[] = {env, "OMP_WAIT_POLICY=PASSIVE", spin, NULL};
    const proc_options o = {.argv = argv, .env = envv, .on_line = on_line, .on_exit = on_exit_of, .ctx = s};
    s->process = proc_spawn(s->owner->app->loop, &o, e);
    s->pid = s->process ? proc_pid(s->process) : 0;
    free(program);
    free(dir);
    return s->process != NULL;
}

/* ---- what the supervisor asks for ------------------------------------------------------------------------------- */

static void do_spawn(slot *s) {
    err e = {0};
    log_info("server", "Spawning %s... on port %d", s->title, s->port);
    s->started_ms = clock_wall_ms();
    if (spawn(s, &e)) {
        heartbeat_restart(s->beat, s->token);
        slot_step(s, SUP_EV_SPAWNED);
        return;
    }
    log_error("server", "%s does not start: %s", s->title, e.msg);
    snprintf(s->last_crash, sizeof s->last_crash, "does not start: %.120s", e.msg);
    s->last_crash_ms = clock_wall_ms();
    record_crash(s, NULL);
    slot_step(s, SUP_EV_EXITED);
}

/* Why, and what to do. A model that cannot even be loaded is to blame by itself. */
static void describe_safe_mode(slot *s) {
    bool loading = s->model_id && s->sup.restore_deaths >= SUP_RESTORE_DEATHS;
    char model[170] = "";
    if (loading) snprintf(model, sizeof model, " while it loaded '%.150s'", s->model_id);
    snprintf(s->safe_mode_reason, sizeof s->safe_mode_reason,
             "It crashed again and again%s; last: %.120s. It now runs without a model%s: load another one, or retry.",
             model, s->last_crash, loading ? ", for the file may be damaged, or too large for this machine" : "");
}

static void do_alert(slot *s, sup_alert what) {
    const char *kind = s->id == WORKER_SD ? "image" : "text";
    struct {
        const char *level, *code;
        char text[700];
    } a = {"error", "worker_crashed", ""};
    switch (what) {
    case SUP_ALERT_DIED:
        snprintf(a.text, sizeof a.text, "The %s worker crashed (%s). It is being restarted.", kind, s->last_crash);
        if (!s->last_crash_oom) break;
        a.code = "worker_out_of_memory";
        snprintf(a.text + strlen(a.text), sizeof a.text - strlen(a.text),
                 " If that happens again: unload the other model, or take a smaller model or %s.",
                 s->id == WORKER_SD ? "smaller pictures" : "a shorter context");
        break;
    case SUP_ALERT_HUNG:
        a.code = "worker_hung";
        snprintf(a.text, sizeof a.text, "The %s worker does not answer any more and is being replaced.", kind);
        break;
    case SUP_ALERT_STALLED:
        a.code = "worker_stalled";
        snprintf(a.text, sizeof a.text, "The %s worker made no progress for too long and is being replaced.", kind);
        break;
    case SUP_ALERT_START_LIMIT:
        a.code = "worker_start";
        snprintf(a.text, sizeof a.text, "The %s worker did not come up and is started again.", kind);
        break;
    case SUP_ALERT_UNKILLABLE:
        a.code = "worker_unkillable";
        snprintf(a.text, sizeof a.text, "The %s worker cannot be ended: the system holds it, perhaps in a driver.",
                 kind);
        break;
    case SUP_ALERT_SAFE_MODE:
        a.code = "worker_safe_mode";
        describe_safe_mode(s);
        snprintf(a.text, sizeof a.text, "The %s worker is in safe mode. %s", kind, s->safe_mode_reason);
        break;
    case SUP_ALERT_RESTORE_FAILED:
        return; /* told with its reason where the load failed */
    case SUP_ALERT_READY:
        a.level = "info";
        a.code = "worker_ready";
        snprintf(a.text, sizeof a.text, "The %s worker is back.", kind);
        break;
    }
    events_alert(s->owner->app->events, a.level, a.code, s->name, NULL, a.text);
}

static void on_sup_timer(uv_timer_t *t) {
    slot_step(t->data, SUP_EV_TIMER);
}

static void perform(slot *s, const sup_action *a) {
    switch (a->type) {
    case SUP_DO_SPAWN:
        do_spawn(s);
        break;
    case SUP_DO_TERMINATE:
        if (s->process) proc_terminate(s->process, TERMINATE_GRACE_MS);
        break;
    case SUP_DO_KILL:
        if (s->process) proc_kill(s->process);
        break;
    case SUP_DO_RESTORE:
        slot_models_restore(s);
        break;
    case SUP_DO_SET_TIMER:
        uv_update_time(s->owner->app->loop);
        uv_timer_start(&s->sup_timer, on_sup_timer, (uint64_t)a->ms, 0);
        break;
    case SUP_DO_ALERT:
        do_alert(s, a->alert);
        break;
    }
}

static double random_unit(void) {
    unsigned short r;
    file_random(&r, sizeof r);
    return r / 65536.0;
}

static void slot_tell(slot *s, sup_event_type type, bool blameless) {
    s->sup.has_model = s->body != NULL || s->queued.body != NULL;
    const sup_event ev = {.type = type, .now_ms = clock_mono_ms(), .jitter = random_unit(), .blameless = blameless};
    sup_actions actions = supervisor_step(&s->sup, &ev);
    for (size_t i = 0; i < actions.count; i++) perform(s, &actions.item[i]);
    slot_changed(s);
}

void slot_step(slot *s, sup_event_type type) {
    slot_tell(s, type, false);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void open_slot(workers *w, worker_id id) {
    static const char *const names[] = {"sd", "llm"}, *const titles[] = {"SD Worker", "LLM Worker"},
                             *const kinds[] = {"SD", "LLM"},
                             *const programs[] = {"mysti_sd_worker", "mysti_llm_worker"};
    slot *s = &w->slots[id];
    *s = (slot){
        .owner = w, .id = id, .name = names[id], .title = titles[id], .kind = kinds[id], .program = programs[id]};
    s->port = (int)w->app->cfg.listen_port + 1 + (int)id;
    supervisor_init(&s->sup);
    const heartbeat_options beat = {.port = s->port, .token = "", .on_ok = on_health, .on_miss = on_miss, .ctx = s};
    s->beat = heartbeat_open(w->app->loop, &beat);
    heartbeat_stop(s->beat);
    s->client = http_client_new(w->app->loop, "127.0.0.1", s->port);
    uv_timer_init(w->app->loop, &s->sup_timer);
    s->sup_timer.data = s;
    slot_models_open(s);
    w->handles += 3;
}

workers *workers_new(app *a, const workers_listener *listener) {
    workers *w = mem_alloc(1, sizeof *w);
    w->app = a;
    w->listener = *listener;
    for (int id = 0; id < WORKER_COUNT; id++) open_slot(w, (worker_id)id);
    return w;
}

void workers_start(workers *w) {
    for (int id = 0; id < WORKER_COUNT; id++) slot_step(&w->slots[id], SUP_EV_START);
}

static void check_stopped(workers *w) {
    if (!w->stopping || !w->stopped) return;
    for (int id = 0; id < WORKER_COUNT; id++)
        if (w->slots[id].process) return;
    void (*done)(void *) = w->stopped;
    w->stopped = NULL;
    done(w->stopped_ctx);
}

void workers_stop(workers *w, void (*done)(void *ctx), void *ctx) {
    w->stopping = true;
    w->stopped = done;
    w->stopped_ctx = ctx;
    for (int id = 0; id < WORKER_COUNT; id++) slot_step(&w->slots[id], SUP_EV_STOP);
    check_stopped(w);
}

static void on_closed(uv_handle_t *h) {
    slot *s = h->data;
    if (--s->owner->handles == 0) free(s->owner);
}

void workers_free(workers *w) {
    if (!w) return;
    for (int id = 0; id < WORKER_COUNT; id++) {
        slot *s = &w->slots[id];
        proc_close(s->process);
        heartbeat_close(s->beat);
        slot_models_free(s);
        http_client_close(s->client);
        free(s->published);
        uv_close((uv_handle_t *)&s->sup_timer, on_closed);
        uv_close((uv_handle_t *)&s->soon, on_closed);
        uv_close((uv_handle_t *)&s->look, on_closed);
    }
}

void workers_retry(workers *w, worker_id id) {
    slot_step(&w->slots[id], SUP_EV_RETRY);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

/* The options with the token in front of the caller's headers. */
static http_call_opts with_token(const slot *s, const http_call_opts *opts, http_header headers[8]) {
    http_call_opts o = *opts;
    size_t n = 0;
    headers[n++] = (http_header){"X-Mysti-Token", s->token};
    if (o.body) headers[n++] = (http_header){"Content-Type", "application/json"};
    for (size_t i = 0; i < o.header_count && n < 8; i++) headers[n++] = o.headers[i];
    o.headers = headers;
    o.header_count = n;
    return o;
}

static bool can_talk(const slot *s, err *e) {
    if (s->process && s->sup.answered) return true;
    return err_set(e, ERR_BUSY, "the %s is %s", s->title, sup_state_name(s->sup.state));
}

http_call *workers_call(workers *w, worker_id id, const http_call_opts *opts, err *e) {
    slot *s = &w->slots[id];
    if (!can_talk(s, e)) return NULL;
    http_header headers[8];
    http_call_opts o = with_token(s, opts, headers);
    return http_client_send(s->client, &o, e);
}

http_call *workers_fetch(workers *w, worker_id id, const http_call_opts *opts, size_t max_body, http_fetch_fn *fn,
                         void *ctx, err *e) {
    slot *s = &w->slots[id];
    if (!can_talk(s, e)) return NULL;
    http_header headers[8];
    http_call_opts o = with_token(s, opts, headers);
    return http_client_fetch(s->client, &o, max_body, fn, ctx, e);
}
