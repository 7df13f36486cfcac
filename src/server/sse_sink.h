/* sse_sink.h - a subscriber of the hub that is an HTTP event stream. */
#ifndef MYSTI_SERVER_SSE_SINK_H
#define MYSTI_SERVER_SSE_SINK_H

#include "net/http_sse.h"
#include "server/events.h"

/* Called instead of passing an event on, to send something else for it. */
typedef void (*sse_translate)(void *ctx, http_sse *s);

/* Takes over the request and subscribes it until the client leaves or the hub ends it. filter->last_id is taken from
 * the request (Last-Event-ID, or ?last_event_id=) when NULL. Without one, `now` (may be NULL) is sent as the first
 * `job` event. `translate` may be NULL. */
void sse_sink_start(events *h, http_req *req, const event_filter *filter, const char *now, sse_translate translate,
                    void *ctx);

#endif
