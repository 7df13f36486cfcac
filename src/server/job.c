/* job.c - see job.h. */
#include "server/job.h"
#include "server/history.h"
#include "base/clock.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMS_JSON_MAX = 1024 * 1024 };

static const char *const status_names[] = {"queued", "running", "done", "failed", "cancelled", "interrupted"};

const char *job_status_name(job_status s) {
    return status_names[s];
}

bool job_status_from_name(const char *name, job_status *out) {
    for (size_t i = 0; i < sizeof status_names / sizeof *status_names; i++) {
        if (!str_eq(name, status_names[i])) continue;
        *out = (job_status)i;
        return true;
    }
    return false;
}

bool job_is_over(job_status s) {
    return s == JOB_DONE || s == JOB_FAILED || s == JOB_CANCELLED;
}

static void set_id(job *j, int64_t id) {
    j->id = id;
    snprintf(j->name, sizeof j->name, "j-%lld", (long long)id);
}

job *job_new(const image_params *p) {
    job *j = mem_alloc(1, sizeof *j);
    image_params_copy(&j->params, p);
    return j;
}

void job_free(job *j) {
    if (!j) return;
    for (size_t i = 0; i < j->result_count; i++) {
        free(j->results[i].file);
        free(j->results[i].json);
    }
    free(j->results);
    free(j->file_stem);
    image_params_free(&j->params);
    free(j);
}

const char *job_type(const job *j) {
    return j->params.is_upscale ? "upscale" : j->params.init_image ? "img2img" : "txt2img";
}

int job_steps(const job *j) {
    return j->params.is_upscale ? j->tiles : j->params.steps;
}

void job_set_phase(job *j, const char *phase) {
    if (str_eq(j->phase, phase)) return;
    str_copy(j->phase, sizeof j->phase, phase);
    j->phase_since_ms = clock_mono_ms();
}

int64_t job_id_from_name(const char *name) {
    int64_t id;
    bool ok = name && str_starts(name, "j-") && name[2] >= '1' && name[2] <= '9' && str_to_i64(name + 2, &id);
    return ok ? id : 0;
}

void job_add_result(job *j, int64_t id, int64_t seed, const char *file, const char *json) {
    job_result *r = NULL;
    for (size_t i = 0; i < j->result_count && !r; i++)
        if (str_eq(j->results[i].file, file)) r = &j->results[i];
    if (!r) {
        j->results = mem_resize(j->results, (j->result_count + 1) * sizeof *j->results);
        r = &j->results[j->result_count++];
        *r = (job_result){.seed = seed, .file = str_dup(file)};
    }
    if (!json) return;
    r->id = id;
    str_set(&r->json, json);
}

void job_drop_result(job *j, const char *file) {
    for (size_t i = 0; i < j->result_count; i++) {
        if (!str_eq(j->results[i].file, file)) continue;
        free(j->results[i].file);
        free(j->results[i].json);
        j->result_count--;
        memmove(j->results + i, j->results + i + 1, (j->result_count - i) * sizeof *j->results);
        return;
    }
}

bool job_all_recorded(const job *j) {
    for (size_t i = 0; i < j->result_count; i++)
        if (!j->results[i].json) return false;
    return true;
}

/* Steps that are left of this picture, and whole pictures behind it. */
int64_t job_eta_ms(const job *j) {
    if (j->status != JOB_RUNNING || j->made || j->step_ms <= 0) return -1;
    int steps_left = job_steps(j) - j->step, pictures_left = j->params.n - j->image - 1;
    if (str_eq(j->phase, "decoding") || str_eq(j->phase, "saving")) steps_left = 0;
    if (steps_left < 0) steps_left = 0;
    if (pictures_left < 0) pictures_left = 0;
    double decode = j->decode_ms > 0 ? j->decode_ms : j->step_ms; /* a first guess */
    double ms = steps_left * j->step_ms + decode + pictures_left * (j->params.steps * j->step_ms + decode);
    return (int64_t)ms;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void write_ms(buf *out, const char *key, int64_t ms, bool known) {
    if (known)
        buf_printf(out, ",\"%s\":%lld", key, (long long)ms);
    else
        buf_printf(out, ",\"%s\":null", key);
}

static void write_error(const err *why, buf *out) {
    if (!why->code) {
        buf_puts(out, ",\"error\":null");
        return;
    }
    buf_puts(out, ",\"error\":{\"message\":");
    json_quote(out, why->msg);
    buf_printf(out, ",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}",
               why->code == ERR_INVALID ? "invalid_request_error" : "server_error", err_name(why->code));
}

static void write_results(const job *j, buf *out) {
    buf_puts(out, ",\"results\":[");
    bool first = true;
    for (size_t i = 0; i < j->result_count; i++) {
        if (!j->results[i].json) continue;
        if (!first) buf_putc(out, ',');
        buf_puts(out, j->results[i].json);
        first = false;
    }
    buf_putc(out, ']');
}

void job_write(const job *j, int position, buf *out) {
    buf_printf(out, "{\"id\":\"%s\",\"type\":\"%s\",\"status\":\"%s\"", j->name, job_type(j),
               job_status_name(j->status));
    write_ms(out, "position", position, position > 0);
    write_ms(out, "created_ms", j->created_ms, true);
    write_ms(out, "started_ms", j->started_ms, j->started_ms > 0);
    write_ms(out, "finished_ms", j->finished_ms, j->finished_ms > 0);
    buf_puts(out, ",\"phase\":");
    if (j->phase[0])
        json_quote(out, j->phase);
    else
        buf_puts(out, "null");
    bool made = j->made || j->status == JOB_DONE;
    buf_printf(out, ",\"step\":%d,\"steps\":%d,\"image\":%d,\"images\":%d", made ? job_steps(j) : j->step, job_steps(j),
               made ? j->params.n : j->image, j->params.n);
    write_ms(out, "step_ms", (int64_t)llround(j->step_ms), j->step_ms > 0);
    write_ms(out, "eta_ms", job_eta_ms(j), job_eta_ms(j) >= 0);
    buf_printf(out, ",\"attempts\":%d,\"params\":", j->attempts);
    image_params_write(&j->params, out);
    write_results(j, out);
    write_error(&j->error, out);
    buf_putc(out, '}');
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

/* "20260102-030405-12": sorts by time, and the id makes it unique. */
static char *make_stem(const job *j) {
    char d[20]; /* "YYYY-MM-DD HH:MM:SS" */
    clock_format_date(j->created_ms, d);
    return str_fmt("%.4s%.2s%.2s-%.2s%.2s%.2s-%lld", d, d + 5, d + 8, d + 11, d + 14, d + 17, (long long)j->id);
}

static bool insert_row(db_conn *c, job *j, const char *params, err *e) {
    if (!db_exec(c, e, "INSERT INTO jobs (status, params, file_stem, created_ms) VALUES ('queued', ?, '', ?)", "si",
                 params, j->created_ms))
        return false;
    set_id(j, db_last_id(c));
    free(j->file_stem);
    j->file_stem = make_stem(j);
    return db_exec(c, e, "UPDATE jobs SET file_stem = ? WHERE id = ?", "si", j->file_stem, j->id);
}

bool job_insert(db_conn *c, job *j, err *e) {
    buf params;
    buf_init(&params, PARAMS_JSON_MAX);
    image_params_write(&j->params, &params);
    j->created_ms = clock_wall_ms();
    bool ok = !params.full || err_set(e, ERR_TOO_LARGE, "the parameters are too large");
    ok = ok && db_begin(c, e);
    if (ok) {
        ok = insert_row(c, j, buf_str(&params), e);
        if (ok)
            ok = db_commit(c, e);
        else
            db_rollback(c);
    }
    buf_free(&params);
    return ok;
}

bool job_update(db_conn *c, const job *j, err *e) {
    bool failed = j->error.code != 0;
    return db_exec(c, e,
                   "UPDATE jobs SET status = ?, started_ms = ?, finished_ms = ?, attempts = ?, deaths = ?,"
                   " error_code = ?, error = ? WHERE id = ?",
                   "siiiissi", job_status_name(j->status), j->started_ms, j->finished_ms, (int64_t)j->attempts,
                   (int64_t)j->deaths, failed ? err_name(j->error.code) : NULL, failed ? j->error.msg : NULL, j->id);
}

static bool read_params(job *j, const char *text, err *e) {
    yyjson_doc *doc = json_parse(text, strlen(text), e);
    if (!doc) return false;
    json_in root = json_root(doc);
    bool ok = image_params_read(&j->params, &root, 0, e);
    yyjson_doc_free(doc);
    return ok;
}

static bool fill_from_row(job *j, sqlite3_stmt *s, err *e) {
    set_id(j, db_int(s, 0));
    job_status_from_name(db_text(s, 1), &j->status);
    j->file_stem = str_dup(db_text(s, 3));
    j->created_ms = db_int(s, 4);
    j->started_ms = db_int(s, 5);
    j->finished_ms = db_int(s, 6);
    j->attempts = (int)db_int(s, 7);
    j->deaths = (int)db_int(s, 8);
    if (db_text(s, 9)) err_set(&j->error, err_from_name(db_text(s, 9)), "%s", db_text(s, 10) ? db_text(s, 10) : "");
    return read_params(j, db_text(s, 2), e) || err_wrap(e, "parameters of %s", j->name);
}

static void add_result(void *ctx, int64_t id, const char *file, int64_t seed, const char *json) {
    job_add_result(ctx, id, seed, file, json);
}

job *job_select(db_conn *c, int64_t id, err *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why,
                               "SELECT id, status, params, file_stem, created_ms, started_ms, finished_ms, attempts,"
                               " deaths, error_code, error FROM jobs WHERE id = ?",
                               "i", id);
    bool found = s && db_next(c, s, &why);
    if (!found && !why.code) err_set(&why, ERR_NOT_FOUND, "there is no job j-%lld", (long long)id);
    job *j = NULL;
    if (found) {
        j = mem_alloc(1, sizeof *j);
        bool ok = fill_from_row(j, s, &why);
        db_end(s);
        if (!ok || !history_of_job(c, id, add_result, j, &why)) {
            job_free(j);
            j = NULL;
        }
    }
    if (!j && e) *e = why;
    return j;
}
