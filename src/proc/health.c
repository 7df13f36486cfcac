/* health.c - see health.h. */
#include "proc/health.h"
#include "base/str.h"
#include "json/json.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

static const char *const activity_names[] = {"idle", "loading", "busy"};

const char *worker_activity_name(worker_activity a) {
    return a <= WORKER_BUSY ? activity_names[a] : "unknown";
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* "" is null. */
static void write_text(buf *out, const char *key, const char *text) {
    json_write_member(out, key, text[0] ? text : NULL);
}

static void write_progress(const worker_progress_info *p, buf *out) {
    buf_printf(out, ",\"progress\":{\"step\":%d,\"steps\":%d,\"stamp_ms\":%" PRId64, p->step, p->steps, p->stamp_ms);
    write_text(out, "job", p->job);
    write_text(out, "phase", p->phase);
    buf_putc(out, '}');
}

static void write_memory(const worker_health *h, buf *out) {
    buf_puts(out, ",\"memory\":[");
    for (size_t i = 0; i < h->memory_count; i++) {
        const worker_memory *m = &h->memory[i];
        buf_puts(out, i ? ",{\"device\":" : "{\"device\":");
        json_quote(out, m->device);
        buf_printf(out, ",\"total\":%" PRIu64 ",\"free\":%" PRIu64 "}", m->total, m->free);
    }
    buf_putc(out, ']');
}

void worker_health_write(const worker_health *h, buf *out) {
    buf_printf(out, "{\"ok\":%s,\"pid\":%d,\"state\":\"%s\",\"rss\":%" PRIu64, h->ok ? "true" : "false", h->pid,
               worker_activity_name(h->state), h->rss);
    write_text(out, "service", h->service);
    write_text(out, "version", h->version);
    write_text(out, "model", h->model);
    write_progress(&h->progress, out);
    write_memory(h, out);
    buf_putc(out, '}');
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static bool read_text(const json_in *in, const char *key, char *out, size_t cap, err *e) {
    const char *text = "";
    if (!json_get_str(in, key, &text, e)) return false;
    if (!str_copy(out, cap, text)) return err_set(e, ERR_INVALID, "%s: longer than %zu bytes", key, cap - 1);
    return true;
}

static bool read_activity(const json_in *in, worker_activity *out, err *e) {
    const char *text;
    if (!json_need_str(in, "state", &text, e)) return false;
    for (int i = 0; i <= WORKER_BUSY; i++) {
        if (!str_eq(text, activity_names[i])) continue;
        *out = (worker_activity)i;
        return true;
    }
    return err_set(e, ERR_INVALID, "state: unknown value '%.32s'", text);
}

static bool read_progress(const json_in *in, worker_progress_info *p, err *e) {
    json_in o;
    if (!json_get_obj(in, "progress", false, &o, e)) return false;
    if (!o.val) return true;
    return read_text(&o, "job", p->job, sizeof p->job, e) && read_text(&o, "phase", p->phase, sizeof p->phase, e) &&
           json_get_int(&o, "step", &p->step, 0, INT_MAX, e) && json_get_int(&o, "steps", &p->steps, 0, INT_MAX, e) &&
           json_get_i64(&o, "stamp_ms", &p->stamp_ms, 0, INT64_MAX, e);
}

static bool read_memory(const json_in *in, worker_health *h, err *e) {
    json_in list;
    if (!json_get_arr(in, "memory", false, &list, e)) return false;
    size_t count = list.val ? yyjson_arr_size(list.val) : 0;
    for (size_t i = 0; i < count && i < WORKER_MEMORY_MAX; i++) {
        json_in item = json_item(&list, i);
        worker_memory *m = &h->memory[i];
        if (!yyjson_is_obj(item.val)) return err_set(e, ERR_INVALID, "%s: expected an object", item.path);
        if (!read_text(&item, "device", m->device, sizeof m->device, e) ||
            !json_get_u64(&item, "total", &m->total, e) || !json_get_u64(&item, "free", &m->free, e))
            return false;
        h->memory_count = i + 1;
    }
    return true;
}

static bool read_health(const json_in *in, worker_health *h, err *e) {
    return json_get_bool(in, "ok", &h->ok, e) && json_get_int(in, "pid", &h->pid, 0, INT_MAX, e) &&
           json_get_u64(in, "rss", &h->rss, e) && read_activity(in, &h->state, e) &&
           read_text(in, "service", h->service, sizeof h->service, e) &&
           read_text(in, "version", h->version, sizeof h->version, e) &&
           read_text(in, "model", h->model, sizeof h->model, e) && read_progress(in, &h->progress, e) &&
           read_memory(in, h, e);
}

bool worker_health_parse(const char *json, size_t len, worker_health *out, err *e) {
    memset(out, 0, sizeof *out);
    yyjson_doc *doc = json_parse(json, len, e);
    if (!doc) return false;
    json_in root = json_root(doc);
    bool ok = yyjson_is_obj(root.val) ? read_health(&root, out, e) : err_set(e, ERR_INVALID, "expected an object");
    yyjson_doc_free(doc);
    return ok;
}
