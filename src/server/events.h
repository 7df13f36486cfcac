/* events.h - the hub behind /v1/events, /v1/jobs/{id}/events and /v1/stream/progress.
 *
 * Every event gets an id "<start>-<n>"; the last 1,000 (at most 4 MB) are kept for replay. `start` is drawn at the
 * server's start, so that an id of an earlier run is recognised as such. A subscriber is a sink that takes bytes and
 * tells how many it still holds: one that falls behind loses previews first and is then cut off by its sink (it comes
 * back with Last-Event-ID). An event is formatted once for all; a subscriber costs about 100 bytes here. */
#ifndef MYSTI_SERVER_EVENTS_H
#define MYSTI_SERVER_EVENTS_H

#include "base/buf.h"

#include <stdint.h>
#include <uv.h>

typedef struct events events;
typedef struct event_sub event_sub;

enum event_flags {
    EVENT_VOLATILE = 1, /* not replayed, and skipped for readers that are behind: previews, memory */
    EVENT_PROGRESS = 2, /* of the same name: at most one per 100 ms goes out, the latest */
    EVENT_LAST = 4,     /* the job is over: its own streams end after it */
};

typedef struct event_sink {
    void *ctx;
    /* Takes the bytes of one or more whole events (borrowed). False: the reader is gone or too far behind; the sink's
     * owner will call events_unsubscribe() from the loop. */
    bool (*write)(void *ctx, const char *bytes, size_t len);
    size_t (*pending)(void *ctx); /* bytes accepted but not sent yet */
    void (*end)(void *ctx);       /* the hub lets go: finish the response. The subscription is gone already */
} event_sink;

/* `start` names this run of the server; copied. */
events *events_open(uv_loop_t *loop, const char *start);

/* Ends every subscriber and closes the timer; the loop must turn once more. NULL is fine. */
void events_close(events *h);

/* `job` is the id ("j-12") of the job concerned or NULL; `data` is JSON on one line. All are copied. */
void events_publish(events *h, const char *name, const char *job, const char *data, size_t len, unsigned flags);

typedef struct event_filter {
    const char *job;     /* only this job's events */
    const char *only;    /* only events of this name, and no `hello` */
    const char *last_id; /* the last event that the reader saw */
} event_filter;          /* NULL: all */

/* Sends `hello`, then what came after last_id, or `reset` when that is not known any more. */
event_sub *events_subscribe(events *h, const event_filter *filter, const event_sink *sink);

/* The reader went away; its sink is not called again. Not from within sink->write. */
void events_unsubscribe(events *h, event_sub *s);

size_t events_subscribers(const events *h);

/* {"level", "code", "worker", "message", "job", "at_ms"} as an `alert`; worker and job may be NULL. Also logged. */
void events_alert(events *h, const char *level, const char *code, const char *worker, const char *job,
                  const char *message);

#endif
