/* worker_models.c - what is loaded in the workers: chosen, restored after a death, unloaded when idle, loaded again.
 *
 * A worker has one chosen model (model_id + the /internal/load body that brought it in). It is saved as recovery state
 * once the worker has confirmed it, and survives the worker and the server. Whether it is in the process at this
 * moment is `loaded`. At most one load is under way per worker. */
#include "server/workers_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "json/json.h"
#include "server/events.h"
#include "server/recovery.h"
#include "server/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 1 << 20, LOOK_MS = 1000 };

static void free_request(load_request *r) {
    free(r->model_id);
    free(r->body);
    *r = (load_request){0};
}

/* The load will not be done, or what came of it is lost. */
static void refuse_request(load_request *r, const err *e) {
    load_request lost = *r;
    *r = (load_request){0};
    if (lost.fn) lost.fn(lost.ctx, NULL, e);
    free_request(&lost);
}

static void unloaded_meanwhile(err *e, const load_request *r) {
    err_set(e, ERR_CONFLICT, "'%.150s' was unloaded while it was being loaded", r->model_id);
}

static void choose(slot *s, const char *model_id, const char *body) {
    str_set(&s->model_id, model_id);
    str_set(&s->body, body);
}

/* ---- recovery state --------------------------------------------------------------------------------------------- */

typedef struct save {
    slot *slot;       /* NULL: a later one counts, or the server ends */
    const char *kind; /* "SD": static */
    bool cleared;
} save;

static void on_saved(void *ctx, const err *why) {
    save *n = ctx;
    slot *s = n->slot;
    if (why && !(s && s->save_failed))
        log_error("server", "%s model state could not be saved: %s", n->kind, why->msg);
    else if (!why && !n->cleared)
        log_info("server", "Saved %s model state", n->kind);
    if (s) {
        s->saving = NULL;
        s->save_failed = why != NULL;
    }
    free(n);
}

static void forget_save(slot *s) {
    if (s->saving) s->saving->slot = NULL;
    s->saving = NULL;
}

/* The chosen model as {"model_id": ..., "body": {...}}, or that there is none. */
static void save_choice(slot *s) {
    forget_save(s);
    s->saving = mem_alloc(1, sizeof *s->saving);
    *s->saving = (save){.slot = s, .kind = s->kind, .cleared = !s->model_id};
    if (!s->model_id) {
        recovery_clear(s->owner->app->db, s->name, on_saved, s->saving);
        return;
    }
    buf out;
    buf_init(&out, 1 << 20);
    buf_puts(&out, "{\"model_id\":");
    json_quote(&out, s->model_id);
    buf_printf(&out, ",\"body\":%s}", s->body);
    recovery_set(s->owner->app->db, s->name, buf_str(&out), on_saved, s->saving);
    buf_free(&out);
}

static void read_saved(slot *s) {
    err e = {0};
    char *text = recovery_get(s->owner->app->db, s->name, &e);
    if (!text) return;
    yyjson_doc *doc = json_parse(text, strlen(text), &e);
    json_in root = json_root(doc), body;
    const char *model_id = NULL;
    if (doc && json_need_str(&root, "model_id", &model_id, &e) && json_get_obj(&root, "body", true, &body, &e)) {
        char *raw = yyjson_val_write(body.val, 0, NULL);
        choose(s, model_id, raw);
        if (model_id[0] == '/') models_add(s->owner->app->models, model_id); /* it came by the command line */
        free(raw);
    } else {
        log_warn("server", "saved %s model state is not usable: %s", s->kind, e.msg);
    }
    yyjson_doc_free(doc);
    free(text);
}

/* ---- those who wait --------------------------------------------------------------------------------------------- */

static void start_load(slot *s, load_request *r);

bool slot_models_loading(const slot *s) {
    return s->load.body != NULL;
}

static worker_wait *take_wait(slot *s, bool process) {
    worker_wait **at = &s->waits;
    while (*at && (*at)->process != process) at = &(*at)->next;
    worker_wait *wait = *at;
    if (wait) *at = wait->next;
    return wait;
}

/* Answers everybody who waits for the model: NULL means ready. */
static void release_waits(slot *s, const err *why) {
    for (worker_wait *wait; (wait = take_wait(s, false));) {
        wait->fn(wait->ctx, why);
        free(wait);
    }
}

static bool can_load(const slot *s) {
    return (s->sup.state == SUP_READY || s->sup.state == SUP_SAFE_MODE) && !slot_models_loading(s) && !s->queued.body;
}

/* One after the other, for what the first one loads is in the way of the next. */
static void release_process_waits(slot *s, const err *stopping) {
    while (stopping || can_load(s)) {
        worker_wait *wait = take_wait(s, true);
        if (!wait) return;
        wait->fn(wait->ctx, stopping);
        free(wait);
    }
}

static void look_at_waits(uv_timer_t *t) {
    slot *s = t->data;
    err e = {0};
    if (!s->waits) return;
    const char *what = s->id == WORKER_SD ? "image model" : "LLM";
    if (s->owner->stopping) err_set(&e, ERR_BUSY, "the server is stopping");
    release_process_waits(s, e.code ? &e : NULL);
    if (e.code) {
        release_waits(s, &e);
        return;
    }
    if (s->sup.state == SUP_SAFE_MODE && !s->queued.body) {
        err_set(&e, ERR_BUSY, "the %s is in safe mode: %s", s->title, s->safe_mode_reason);
    } else if (!s->body && !slot_models_loading(s) && !s->queued.body) {
        err_set(&e, ERR_NOT_FOUND, "no %s is loaded", what);
    } else if (s->sup.state != SUP_READY || slot_models_loading(s)) {
        return; /* it comes */
    } else if (!s->loaded) {
        load_request again = {.reason = LOAD_AGAIN, .model_id = str_dup(s->model_id), .body = str_dup(s->body)};
        start_load(s, &again);
        return;
    }
    release_waits(s, e.code ? &e : NULL);
}

static void finish_load(slot *s, load_request r, const char *answer, const err *e);

void slot_models_alive(slot *s) {
    if (s->cut == LOAD_BROKEN) { /* the connection broke, and that was all */
        err e = {0};
        err_set(&e, ERR_CRASHED, "the connection to the worker broke while it loaded the model");
        load_request r = s->load;
        s->load = (load_request){0};
        s->cut = LOAD_OPEN;
        finish_load(s, r, NULL, &e);
    }
    slot_models_wake(s);
}

void slot_models_wake(slot *s) {
    if (s->waits) uv_timer_start(&s->soon, look_at_waits, 0, 0);
}

static worker_wait *add_wait(slot *s, worker_ready_fn *fn, void *ctx, bool process) {
    worker_wait *wait = mem_alloc(1, sizeof *wait);
    *wait = (worker_wait){.fn = fn, .ctx = ctx, .process = process, .slot = s};
    worker_wait **end = &s->waits;
    while (*end) end = &(*end)->next;
    *end = wait;
    slot_models_wake(s);
    return wait;
}

worker_wait *workers_when_ready(workers *w, worker_id id, worker_ready_fn *fn, void *ctx) {
    return add_wait(&w->slots[id], fn, ctx, false);
}

worker_wait *workers_when_up(workers *w, worker_id id, worker_ready_fn *fn, void *ctx) {
    return add_wait(&w->slots[id], fn, ctx, true);
}

void workers_wait_cancel(worker_wait *wait) {
    worker_wait **at = &wait->slot->waits;
    while (*at && *at != wait) at = &(*at)->next;
    if (*at) *at = wait->next;
    free(wait);
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* What the failed load left in the process: the model from before, or nothing. */
static bool kept_previous(const char *body, size_t len) {
    yyjson_doc *doc = json_parse(body, len, NULL);
    json_in root = json_root(doc);
    bool kept = doc && json_has(&root, "loaded");
    yyjson_doc_free(doc);
    return kept;
}

static void load_succeeded(slot *s, const load_request *r) {
    s->loaded = true;
    s->idle_since = clock_mono_ms();
    if (r->reason == LOAD_NEW) choose(s, r->model_id, r->body);
    if (r->reason == LOAD_RESTORE && !s->unsaved) log_info("server", "%s model restored successfully.", s->kind);
    if (r->reason == LOAD_NEW || s->unsaved) save_choice(s);
    s->unsaved = false;
}

static void load_failed(slot *s, const load_request *r, const err *e) {
    log_error("server", "%s model '%s' could not be loaded: %s", s->kind, r->model_id, e->msg);
    if (r->reason == LOAD_NEW || r->unwanted) return; /* told to who asked */
    buf text;
    buf_init(&text, 1024);
    buf_printf(&text, "The model '%.150s' could not be loaded again: %s. Choose another one.", r->model_id, e->msg);
    events_alert(s->owner->app->events, "error", "restore_failed", s->name, NULL, buf_str(&text));
    buf_free(&text);
}

/* Tells everybody concerned how the load ended; `e` NULL on success. Takes the request over. */
static void finish_load(slot *s, load_request r, const char *answer, const err *e) {
    if (e)
        load_failed(s, &r, e);
    else
        load_succeeded(s, &r);
    if (r.reason == LOAD_RESTORE || s->sup.state == SUP_RESTORING)
        slot_step(s, e && !r.unwanted ? SUP_EV_RESTORE_FAILED : SUP_EV_RESTORED);
    bool for_good = e && e->code != ERR_CRASHED && !r.unwanted; /* after a death the model comes back by itself */
    if (for_good && r.reason != LOAD_NEW) release_waits(s, e);
    if (r.fn) r.fn(r.ctx, answer, e);
    free_request(&r);
    slot_changed(s);
    slot_models_wake(s);
}

static void on_load_answer(void *ctx, int status, const char *body, size_t len, const err *why) {
    slot *s = ctx;
    load_request r = s->load;
    s->load_call = NULL;
    err e = {0};
    if (!why && status != 200) routes_read_error(body, len, &e);
    if (why || e.code == ERR_CANCELLED) { /* not by us: somebody ended the worker. Its exit will tell how */
        s->cut = why ? LOAD_BROKEN : LOAD_ENDING;
        s->loaded = false;
        return;
    }
    s->load = (load_request){0};
    if (status != 200)
        s->loaded = s->loaded && kept_previous(body, len);
    else if (r.unwanted)
        unloaded_meanwhile(&e, &r);
    finish_load(s, r, body, e.code ? &e : NULL);
}

/* Takes the request over. */
static void start_load(slot *s, load_request *r) {
    s->load = *r;
    *r = (load_request){0};
    const http_call_opts opts = {
        .method = "POST", .path = "/internal/load", .body = s->load.body, .body_len = strlen(s->load.body)};
    err e = {0};
    s->load_call = workers_fetch(s->owner, s->id, &opts, ANSWER_MAX, on_load_answer, s, &e);
    if (s->load_call) {
        slot_changed(s);
        return;
    }
    load_request failed = s->load;
    s->load = (load_request){0};
    finish_load(s, failed, NULL, &e);
}

void slot_models_restore(slot *s) {
    if (slot_models_loading(s)) return; /* finish_load() tells the supervisor */
    load_request r = s->queued;
    s->queued = (load_request){0};
    if (!r.body) {
        r = (load_request){.reason = LOAD_RESTORE, .model_id = str_dup(s->model_id), .body = str_dup(s->body)};
        log_info("server", s->unsaved ? "Loading %s model..." : "Restoring %s model...", s->kind);
    }
    start_load(s, &r);
}

void slot_models_died(slot *s) {
    s->loaded = false;
    s->cut = LOAD_OPEN;
    if (s->load_call) {
        http_call_abort(s->load_call);
        s->load_call = NULL;
    }
    load_request *lost[] = {&s->load, &s->queued};
    for (int i = 0; i < 2; i++) {
        if (!lost[i]->body) continue;
        err e = {0};
        err_set(&e, ERR_CRASHED, "the worker crashed while loading '%.100s': %s", lost[i]->model_id, s->last_crash);
        log_error("server", "%s", e.msg);
        refuse_request(lost[i], &e);
    }
}

void workers_load(workers *w, worker_id id, const char *model_id, const char *body, worker_load_fn *fn, void *ctx) {
    slot *s = &w->slots[id];
    err e = {0};
    if (slot_models_loading(s) || s->queued.body) {
        err_set(&e, ERR_BUSY, "another model is being loaded");
    } else if (s->sup.state != SUP_READY && s->sup.state != SUP_SAFE_MODE) {
        err_set(&e, ERR_BUSY, "the %s is %s; try again in a moment", s->title, sup_state_name(s->sup.state));
    } else {
        load_request r = {
            .reason = LOAD_NEW, .model_id = str_dup(model_id), .body = str_dup(body), .fn = fn, .ctx = ctx};
        if (s->sup.state == SUP_READY) {
            start_load(s, &r);
            return;
        }
        s->queued = r; /* safe mode: the worker is restarted or restored with this one */
        slot_step(s, SUP_EV_RETRY);
        return;
    }
    fn(ctx, NULL, &e);
}

void workers_choose(workers *w, worker_id id, const char *model_id, const char *body) {
    choose(&w->slots[id], model_id, body);
    w->slots[id].unsaved = true;
}

/* ---- unloading -------------------------------------------------------------------------------------------------- */

typedef struct unload_call {
    slot *slot;
    worker_load_fn *fn;
    void *ctx;
} unload_call;

static void on_unloaded(void *ctx, int status, const char *body, size_t len, const err *why) {
    unload_call *u = ctx;
    err e = {0};
    if (!why && status != 200) routes_read_error(body, len, &e);
    if (e.code == ERR_CANCELLED) e = (err){0}; /* the process ends: nothing is loaded, as when it broke off (`why`) */
    if (u->fn) u->fn(u->ctx, body, e.code ? &e : NULL);
    slot_changed(u->slot);
    free(u);
}

/* The process is told to free the model; whether it is still the chosen one is the caller's business. */
static void send_unload(slot *s, worker_load_fn *fn, void *ctx) {
    s->loaded = false;
    unload_call *u = mem_alloc(1, sizeof *u);
    *u = (unload_call){.slot = s, .fn = fn, .ctx = ctx};
    const http_call_opts opts = {.method = "POST", .path = "/internal/unload", .body = "{}", .body_len = 2};
    err e = {0};
    if (!workers_fetch(s->owner, s->id, &opts, ANSWER_MAX, on_unloaded, u, &e)) {
        free(u);
        if (fn) fn(ctx, "{}", NULL); /* no process: nothing is loaded */
    }
    slot_changed(s);
}

void workers_unload(workers *w, worker_id id, worker_load_fn *fn, void *ctx) {
    slot *s = &w->slots[id];
    choose(s, NULL, NULL);
    save_choice(s);
    s->load.unwanted = slot_models_loading(s);
    if (s->queued.body) {
        err e = {0};
        unloaded_meanwhile(&e, &s->queued);
        refuse_request(&s->queued, &e);
    }
    send_unload(s, fn, ctx);
}

static void look_whether_idle(slot *s) {
    const config *c = &s->owner->app->cfg;
    int64_t limit = s->id == WORKER_SD ? c->sd_idle_timeout : c->llm_idle_timeout;
    if (limit <= 0 || !s->loaded || s->working || slot_models_loading(s)) return;
    if (clock_mono_ms() - s->idle_since < limit * 1000) return;
    log_info("server", "%s model unused for %lld s: unloading it until it is needed", s->kind, (long long)limit);
    send_unload(s, NULL, NULL);
}

static void on_look(uv_timer_t *t) {
    slot *s = t->data;
    if (s->save_failed && !s->saving && !s->unsaved) save_choice(s); /* there may be room by now */
    look_whether_idle(s);
}

void workers_work_begin(workers *w, worker_id id) {
    w->slots[id].working++;
}

void workers_work_end(workers *w, worker_id id, bool ok) {
    slot *s = &w->slots[id];
    s->working--;
    s->idle_since = clock_mono_ms();
    if (ok) slot_step(s, SUP_EV_WORK_DONE);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

void slot_models_open(slot *s) {
    uv_timer_init(s->owner->app->loop, &s->soon);
    uv_timer_init(s->owner->app->loop, &s->look);
    s->soon.data = s->look.data = s;
    uv_timer_start(&s->look, on_look, LOOK_MS, LOOK_MS);
    if (!s->owner->app->cfg.no_restore) read_saved(s);
}

void slot_models_free(slot *s) {
    err e = {0};
    err_set(&e, ERR_BUSY, "the server is stopping");
    if (s->load_call) http_call_abort(s->load_call);
    forget_save(s);
    release_process_waits(s, &e);
    release_waits(s, &e);
    free_request(&s->load);
    free_request(&s->queued);
    choose(s, NULL, NULL);
}
