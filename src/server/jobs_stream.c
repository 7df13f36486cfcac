/* jobs_stream.c - the lines of the worker's stream: what they mean for the running job, and for those who follow it. */
#include "server/jobs_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "json/json.h"

void jobs_runner_phase(jobs *q, const char *phase) {
    job *j = q->running;
    if (!j || str_eq(j->phase, phase)) return;
    job_set_phase(j, phase);
    jobs_publish(q, j, 0);
}

static bool on_phase(jobs *q, job *j, const json_in *line, err *e) {
    const char *phase = NULL;
    if (!json_need_str(line, "phase", &phase, e)) return false;
    job_set_phase(j, phase);
    if (str_eq(j->phase, "sampling")) j->step = 0; /* of the next picture */
    jobs_publish(q, j, 0);
    return true;
}

static bool on_progress(jobs *q, job *j, const json_in *line, err *e) {
    const char *phase = j->phase;
    int step = 0, steps = 0;
    double step_ms = 0;
    if (!json_get_str(line, "phase", &phase, e) || !json_get_int(line, "step", &step, 0, 1 << 20, e) ||
        !json_get_int(line, "steps", &steps, 0, 1 << 20, e) ||
        !json_get_int(line, "image", &j->image, 0, PARAMS_BATCH_MAX, e) ||
        !json_get_num(line, "step_ms", &step_ms, 0, 1e9, e))
        return false;
    bool same = str_eq(j->phase, phase);
    char copy[sizeof j->phase]; /* phase may be j->phase itself */
    str_copy(copy, sizeof copy, phase);
    job_set_phase(j, copy);
    if (str_eq(j->phase, "upscaling")) j->tiles = steps;
    if (str_eq(j->phase, "sampling") || str_eq(j->phase, "upscaling")) {
        j->step = step;
        if (step_ms > 0) j->step_ms = j->step_ms > 0 ? 0.7 * j->step_ms + 0.3 * step_ms : step_ms;
    }
    jobs_publish(q, j, same ? EVENT_PROGRESS : 0);
    return true;
}

static bool on_preview(jobs *q, job *j, const json_in *line, err *e) {
    const char *jpeg = NULL;
    int step = 0, width = 0, height = 0;
    if (!json_need_str(line, "jpeg", &jpeg, e) || !json_get_int(line, "step", &step, 0, 1 << 20, e) ||
        !json_get_int(line, "width", &width, 1, PARAMS_SIZE_MAX, e) ||
        !json_get_int(line, "height", &height, 1, PARAMS_SIZE_MAX, e))
        return false;
    buf out;
    buf_init(&out, 1024 * 1024);
    buf_printf(&out, "{\"job\":\"%s\",\"step\":%d,\"width\":%d,\"height\":%d,\"jpeg\":", j->name, step, width, height);
    json_quote(&out, jpeg);
    buf_putc(&out, '}');
    if (!out.full) events_publish(q->events, "preview", j->name, buf_str(&out), out.len, EVENT_VOLATILE);
    buf_free(&out);
    return true;
}

static bool on_image(jobs *q, job *j, const json_in *line, err *e) {
    const char *file = NULL, *thumb = NULL, *parameters = "";
    history_picture p = {.job = j->id, .model = j->params.model, .seed = j->params.seed};
    if (!json_need_str(line, "file", &file, e) || !json_get_str(line, "thumb", &thumb, e) ||
        !json_get_str(line, "parameters", &parameters, e) ||
        !json_get_int(line, "index", &p.index, 0, PARAMS_BATCH_MAX - 1, e) ||
        !json_get_int(line, "width", &p.width, 1, 1 << 16, e) ||
        !json_get_int(line, "height", &p.height, 1, 1 << 16, e) ||
        !json_get_i64(line, "seed", &p.seed, 0, INT64_MAX, e) ||
        !json_get_i64(line, "bytes", &p.bytes, 0, INT64_MAX, e))
        return false;
    if (!str_starts(file, j->file_stem)) return err_set(e, ERR_FORMAT, "file '%.60s' is not of this job", file);
    if (str_eq(j->phase, "decoding") || str_eq(j->phase, "saving"))
        j->decode_ms = (double)(clock_mono_ms() - j->phase_since_ms);
    if (p.index + 1 < j->params.n) j->image = p.index + 1;
    p.file = file;
    p.thumb = thumb;
    p.parameters = parameters;
    jobs_record(q, j, &p);
    return true;
}

static bool on_error(jobs *q, const json_in *line, err *e) {
    json_in why;
    const char *code = "internal", *message = "the image worker gave no reason";
    if (!json_get_obj(line, "error", true, &why, e) || !json_get_str(&why, "code", &code, e) ||
        !json_get_str(&why, "message", &message, e))
        return false;
    q->finished = true;
    err_set(&q->outcome, err_from_name(code), "%s", message);
    return true;
}

static bool on_event(jobs *q, job *j, const json_in *line, err *e) {
    const char *event = NULL;
    if (!json_need_str(line, "event", &event, e)) return false;
    if (str_eq(event, "phase")) return on_phase(q, j, line, e);
    if (str_eq(event, "progress")) return on_progress(q, j, line, e);
    if (str_eq(event, "preview")) return on_preview(q, j, line, e);
    if (str_eq(event, "image")) return on_image(q, j, line, e);
    if (str_eq(event, "error")) return on_error(q, line, e);
    if (str_eq(event, "done")) q->finished = true;
    return true; /* events that a newer worker may add */
}

void jobs_runner_line(jobs *q, const char *line, size_t len) {
    job *j = q->running;
    if (!j || q->finished) return;
    err why = {0};
    yyjson_doc *doc = json_parse(line, len, &why);
    json_in root = json_root(doc);
    if (!doc || !on_event(q, j, &root, &why))
        log_warn("jobs", "%s: strange line from the worker: %s", j->name, why.msg);
    yyjson_doc_free(doc);
}
