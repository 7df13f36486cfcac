/* image_fields.c - see image_fields.h. */
#include "server/image_fields.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool field_not_listed(const char *field, const char *value, const char *near, err *e) {
    return err_set(e, ERR_INVALID, "%s: '%.40s' is not known%s%s%s; /v1/options lists all", field, value,
                   near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

bool field_not_one_of(const char *field, const char *value, const char *const *names, err *e) {
    enum { TOLD_MAX = 10 };
    char all[160] = "";
    size_t len = 0, count = 0;
    while (names[count]) count++;
    if (count > TOLD_MAX) return field_not_listed(field, value, str_nearest(value, names, count), e);
    for (; *names && len < sizeof all - 1; names++) {
        int n = snprintf(all + len, sizeof all - len, "%s%s", len ? ", " : "", *names);
        len += n > 0 ? (size_t)n : 0;
    }
    return err_set(e, ERR_INVALID, "%s: '%.40s' is none of %s", field, value, all);
}

const char *field_find(const char *name, const char *const *names) {
    for (; *names; names++)
        if (str_ieq(name, *names)) return *names;
    return NULL;
}

bool field_name(const json_in *body, const char *key, const char *(*find)(const char *), const char *const *names,
                const char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, key, &text, e)) return false;
    if (str_empty(text)) return true;
    const char *name = find ? find(text) : field_find(text, names);
    if (!name) return field_not_one_of(json_at(body, key).path, text, names, e);
    *out = name;
    return true;
}

bool field_text(const json_in *body, const char *key, bool required, char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, key, &text, e)) return false;
    if (required && str_empty(text)) return err_set(e, ERR_INVALID, "%s: required", json_at(body, key).path);
    if (!str_empty(text)) str_set(out, text);
    return true;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

bool field_wrong_type(const json_in *in, const char *what, err *e) {
    return err_set(e, ERR_INVALID, "%s: expected %s", in->path, what);
}

/* A number, or text that is one: form fields are always text. False with e set; *there false when absent. */
static bool number_of(const json_in *body, const char *key, const char *what, double *out, bool *there, err *e) {
    json_in in = json_at(body, key);
    *there = in.val && !yyjson_is_null(in.val);
    if (yyjson_is_str(in.val) && str_empty(yyjson_get_str(in.val))) *there = false;
    if (!*there) return true;
    if (yyjson_is_num(in.val)) {
        *out = yyjson_get_num(in.val);
        return true;
    }
    if (yyjson_is_str(in.val) && str_to_f64(yyjson_get_str(in.val), out) && isfinite(*out)) return true;
    return field_wrong_type(&in, what, e);
}

/* Doubles hold every whole number up to 2^53, the largest that any field takes. */
bool field_whole(const json_in *body, const char *key, int64_t *out, int64_t min, int64_t max, err *e) {
    double v = 0;
    bool there;
    if (!number_of(body, key, "a whole number", &v, &there, e)) return false;
    if (!there) return true;
    const json_in in = json_at(body, key);
    if (v != floor(v)) return err_set(e, ERR_INVALID, "%s: %g is not a whole number", in.path, v);
    if (v < (double)min || v > (double)max)
        return err_set(e, ERR_INVALID, "%s: %.17g is not between %lld and %lld", in.path, v, (long long)min,
                       (long long)max);
    *out = (int64_t)v;
    return true;
}

bool field_int(const json_in *body, const char *key, int *out, int min, int max, err *e) {
    int64_t v = *out;
    bool ok = field_whole(body, key, &v, min, max, e);
    *out = (int)v;
    return ok;
}

bool field_real(const json_in *body, const char *key, double *out, double min, double max, err *e) {
    double v = 0;
    bool there;
    if (!number_of(body, key, "a number", &v, &there, e)) return false;
    if (there && !(v >= min && v <= max))
        return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", json_at(body, key).path, v, min, max);
    if (there) *out = v;
    return true;
}

bool field_span(const json_in *body, double *start, double *end, err *e) {
    if (!field_real(body, "start", start, 0, 1, e) || !field_real(body, "end", end, 0, 1, e)) return false;
    return *start <= *end ||
           err_set(e, ERR_INVALID, "%s: %g is before start, %g", json_at(body, "end").path, *end, *start);
}

bool field_bool(const json_in *body, const char *key, bool *out, err *e) {
    static const char *const words[] = {"false", "true", "0", "1"};
    json_in in = json_at(body, key);
    const char *text = yyjson_get_str(in.val);
    if (!in.val || yyjson_is_null(in.val) || (text && str_empty(text))) return true;
    if (yyjson_is_bool(in.val) || (yyjson_is_uint(in.val) && yyjson_get_uint(in.val) <= 1)) {
        *out = yyjson_is_true(in.val) || yyjson_get_uint(in.val) == 1;
        return true;
    }
    for (int i = 0; text && i < 4; i++) {
        if (!str_ieq(text, words[i])) continue;
        *out = i % 2 == 1;
        return true;
    }
    return field_wrong_type(&in, "true or false", e);
}

static void metadata_in_range(const metadata *m, const char *key, double *out, double max) {
    double v;
    if (metadata_get_f64(m, key, &v) && v >= 0 && v <= max) *out = v;
}

void field_metadata_share(const metadata *m, double *weight, double weight_max, double *start, double *end) {
    double from = *start, until = *end;
    metadata_in_range(m, "Weight", weight, weight_max);
    metadata_in_range(m, "Guidance Start", &from, 1);
    metadata_in_range(m, "Guidance End", &until, 1);
    if (from > until) return;
    *start = from;
    *end = until;
}

void field_json(const json_in *body, const char *key, json_in *out, yyjson_doc **doc) {
    *out = json_at(body, key);
    *doc = NULL;
    if (yyjson_is_null(out->val)) out->val = NULL;
    const char *text = yyjson_get_str(out->val);
    if (!text) return;
    if (str_empty(text)) {
        out->val = NULL;
        return;
    }
    *doc = json_parse(text, yyjson_get_len(out->val), NULL);
    if (*doc) out->val = yyjson_doc_get_root(*doc); /* else it stays text, which no reader takes for an object */
}

void field_write_string(buf *out, const char *key, const char *value) {
    buf_printf(out, "\"%s\":", key);
    json_quote(out, value);
    buf_putc(out, ',');
}

/* The shortest text that reads back as the same number. */
void field_write_real(buf *out, const char *key, double v) {
    char text[32];
    snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) < v || strtod(text, NULL) > v) snprintf(text, sizeof text, "%.17g", v);
    buf_printf(out, "\"%s\":%s,", key, text);
}

void field_write_share(buf *out, double weight, double start, double end) {
    field_write_real(out, "weight", weight);
    field_write_real(out, "start", start);
    field_write_real(out, "end", end);
}

void field_write_names(buf *out, const char *key, const char *const *names) {
    buf_printf(out, "\"%s\":[", key);
    for (size_t i = 0; names[i]; i++) buf_printf(out, "%s\"%s\"", i ? "," : "", names[i]);
    buf_puts(out, "],");
}
