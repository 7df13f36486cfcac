/* events.c - see events.h. */
#include "server/events.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "json/json.h"
#include "net/http_sse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RING_EVENTS = 1000,
    RING_BYTES = 4 * 1024 * 1024,
    PROGRESS_MS = 100,        /* between two events of the same name and job */
    BEHIND_BYTES = 64 * 1024, /* a reader with more than this waiting gets no volatile events */
    EVENT_BYTES_MAX = 20 * 1024 * 1024,
    JOB_NAME = 24,
};

/* One event as it goes over the wire. */
typedef struct event {
    uint64_t seq;
    char name[16], job[JOB_NAME];
    char *text;
    size_t len;
} event;

/* The latest of a stream of progress events, waiting until the last one is PROGRESS_MS old. */
typedef struct progress_slot {
    char name[16], job[JOB_NAME];
    int64_t sent_ms;
    char *data; /* NULL: nothing waits */
    size_t len;
} progress_slot;

struct event_sub {
    event_sink sink;
    char job[JOB_NAME], only[16]; /* "": no filter */
    event_sub *next, **link;      /* link points at what points here */
};

struct events {
    uv_timer_t *timer; /* for the slot */
    char start[24];
    uint64_t seq;     /* of the last event */
    uint64_t dropped; /* the highest that fell out of the ring */
    event ring[RING_EVENTS];
    size_t first, count, bytes;
    progress_slot slot;
    event_sub *subs;
    size_t sub_count;
    event_sub *cursor; /* the next one of the walk under way: moves on when that one leaves */
};

/* ---- the ring --------------------------------------------------------------------------------------------------- */

static void drop_oldest(events *h) {
    event *e = &h->ring[h->first];
    h->dropped = e->seq;
    h->bytes -= e->len;
    free(e->text);
    h->first = (h->first + 1) % RING_EVENTS;
    h->count--;
}

/* Takes over e->text. */
static void keep(events *h, const event *e) {
    while (h->count && (h->count == RING_EVENTS || h->bytes + e->len > RING_BYTES)) drop_oldest(h);
    h->ring[(h->first + h->count++) % RING_EVENTS] = *e;
    h->bytes += e->len;
}

/* The number in "<start>-<n>", if it is one of this run and nothing after it has fallen out of the ring. */
static bool known_id(const events *h, const char *id, uint64_t *seq) {
    size_t n = strlen(h->start);
    if (!id || strncmp(id, h->start, n) != 0 || id[n] != '-' || !str_to_u64(id + n + 1, seq)) return false;
    return *seq >= h->dropped && *seq <= h->seq;
}

/* ---- subscribers ------------------------------------------------------------------------------------------------ */

static bool wants(const event_sub *s, const event *e) {
    return (!s->job[0] || str_eq(s->job, e->job)) && (!s->only[0] || str_eq(s->only, e->name));
}

static void unlink_sub(events *h, event_sub *s) {
    if (h->cursor == s) h->cursor = s->next;
    *s->link = s->next;
    if (s->next) s->next->link = s->link;
    h->sub_count--;
    free(s);
}

void events_unsubscribe(events *h, event_sub *s) {
    unlink_sub(h, s);
}

static void end_sub(events *h, event_sub *s) {
    event_sink sink = s->sink;
    unlink_sub(h, s);
    sink.end(sink.ctx);
}

static void deliver(events *h, const event *e, unsigned flags) {
    for (event_sub *s = h->subs; s; s = h->cursor) {
        h->cursor = s->next;
        if (!wants(s, e)) continue;
        if ((flags & EVENT_VOLATILE) && s->sink.pending(s->sink.ctx) > BEHIND_BYTES) continue;
        s->sink.write(s->sink.ctx, e->text, e->len);
        if ((flags & EVENT_LAST) && s->job[0]) end_sub(h, s);
    }
    h->cursor = NULL;
}

static void say_hello(const events *h, event_sub *s, uint64_t seq) {
    char id[48], data[96];
    buf text;
    buf_init(&text, 1024);
    snprintf(id, sizeof id, "%s-%" PRIu64, h->start, seq);
    snprintf(data, sizeof data, "{\"server\":\"%s\",\"version\":\"%s\"}", h->start, MYSTI_VERSION);
    http_sse_format(&text, id, "hello", data);
    s->sink.write(s->sink.ctx, buf_str(&text), text.len);
    buf_free(&text);
}

static void say_reset(event_sub *s) {
    buf text;
    buf_init(&text, 256);
    http_sse_format(&text, NULL, "reset", "{}");
    s->sink.write(s->sink.ctx, buf_str(&text), text.len);
    buf_free(&text);
}

/* `hello` carries the id from which the stream goes on: a reader that is cut off before the next event comes back with
 * it and misses nothing. */
event_sub *events_subscribe(events *h, const event_filter *filter, const event_sink *sink) {
    static const event_filter all = {0};
    if (!filter) filter = &all;
    event_sub *s = mem_alloc(1, sizeof *s);
    s->sink = *sink;
    str_copy(s->job, sizeof s->job, filter->job ? filter->job : "");
    str_copy(s->only, sizeof s->only, filter->only ? filter->only : "");

    bool asked = !str_empty(filter->last_id);
    uint64_t seen = h->seq;
    bool lost = asked && !known_id(h, filter->last_id, &seen);
    if (lost) seen = h->seq;
    if (!s->only[0]) say_hello(h, s, seen);
    if (lost && !s->only[0]) say_reset(s);
    for (size_t i = 0; i < h->count; i++) {
        const event *e = &h->ring[(h->first + i) % RING_EVENTS];
        if (e->seq > seen && wants(s, e)) sink->write(sink->ctx, e->text, e->len);
    }
    s->next = h->subs;
    s->link = &h->subs;
    if (s->next) s->next->link = &s->next;
    h->subs = s;
    h->sub_count++;
    return s;
}

size_t events_subscribers(const events *h) {
    return h->sub_count;
}

/* ---- publishing ------------------------------------------------------------------------------------------------- */

static void send_event(events *h, const char *name, const char *job, const char *data, unsigned flags) {
    event e = {.seq = ++h->seq};
    char id[48];
    buf text;
    buf_init(&text, EVENT_BYTES_MAX);
    str_copy(e.name, sizeof e.name, name);
    str_copy(e.job, sizeof e.job, job ? job : "");
    snprintf(id, sizeof id, "%s-%" PRIu64, h->start, e.seq);
    http_sse_format(&text, id, name, data);
    e.text = buf_take(&text, &e.len);
    deliver(h, &e, flags);
    if (flags & (EVENT_VOLATILE | EVENT_PROGRESS))
        free(e.text);
    else
        keep(h, &e);
}

static void flush_slot(events *h, bool send) {
    char *data = h->slot.data;
    h->slot.data = NULL;
    uv_timer_stop(h->timer);
    if (data && send) {
        h->slot.sent_ms = clock_mono_ms();
        send_event(h, h->slot.name, h->slot.job, data, EVENT_PROGRESS);
    }
    free(data);
}

static void on_slot_due(uv_timer_t *t) {
    flush_slot(t->data, true);
}

static bool is_slots(const events *h, const char *name, const char *job) {
    return str_eq(h->slot.name, name) && str_eq(h->slot.job, job);
}

/* Progress of one thing at a time: another one's pushes it out of the slot. */
static void publish_progress(events *h, const char *name, const char *job, const char *data, size_t len) {
    if (!is_slots(h, name, job)) {
        flush_slot(h, true);
        str_copy(h->slot.name, sizeof h->slot.name, name);
        str_copy(h->slot.job, sizeof h->slot.job, job);
        h->slot.sent_ms = 0;
    }
    int64_t wait = h->slot.sent_ms + PROGRESS_MS - clock_mono_ms();
    free(h->slot.data);
    h->slot.data = str_ndup(data, len);
    h->slot.len = len;
    if (wait <= 0 || !h->slot.sent_ms)
        flush_slot(h, true);
    else
        uv_timer_start(h->timer, on_slot_due, (uint64_t)wait, 0);
}

void events_publish(events *h, const char *name, const char *job, const char *data, size_t len, unsigned flags) {
    const char *of = job ? job : "";
    if (len > EVENT_BYTES_MAX / 2) {
        log_error("events", "an event '%s' of %zu bytes is dropped", name, len);
        return;
    }
    if (flags & EVENT_PROGRESS) {
        publish_progress(h, name, of, data, len);
        return;
    }
    if (is_slots(h, name, of)) flush_slot(h, false); /* this one is newer */
    char *line = str_ndup(data, len);
    send_event(h, name, of, line, flags);
    free(line);
}

void events_alert(events *h, const char *level, const char *code, const char *worker, const char *job,
                  const char *message) {
    buf json;
    buf_init(&json, 64 * 1024);
    buf_putc(&json, '{');
    json_write_member(&json, "level", level);
    json_write_member(&json, "code", code);
    json_write_member(&json, "worker", worker);
    json_write_member(&json, "job", job);
    json_write_member(&json, "message", message);
    buf_printf(&json, ",\"at_ms\":%lld}", (long long)clock_wall_ms());
    log_level at = str_eq(level, "error") ? LOG_ERROR : str_eq(level, "warning") ? LOG_WARN : LOG_INFO;
    log_write(at, worker ? worker : "server", "%s", message);
    events_publish(h, "alert", job, buf_str(&json), json.len, 0);
    buf_free(&json);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

events *events_open(uv_loop_t *loop, const char *start) {
    events *h = mem_alloc(1, sizeof *h);
    str_copy(h->start, sizeof h->start, start);
    h->timer = mem_alloc(1, sizeof *h->timer);
    uv_timer_init(loop, h->timer);
    uv_unref((uv_handle_t *)h->timer);
    h->timer->data = h;
    return h;
}

static void free_timer(uv_handle_t *t) {
    free(t);
}

void events_close(events *h) {
    if (!h) return;
    while (h->subs) end_sub(h, h->subs);
    flush_slot(h, false);
    uv_close((uv_handle_t *)h->timer, free_timer);
    while (h->count) drop_oldest(h);
    free(h);
}
