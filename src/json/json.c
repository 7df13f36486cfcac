/* json.c - see json.h. */
#include "json/json.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

/* yyjson parses iteratively, but whoever walks a document recursively relies on this bound. */
static bool is_shallow(const char *text, size_t len) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX) return false;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

yyjson_doc *json_parse(const char *text, size_t len, err *e) {
    if (!is_shallow(text, len)) {
        err_set(e, ERR_FORMAT, "JSON is nested deeper than %d", DEPTH_MAX);
        return NULL;
    }
    yyjson_read_err why;
    /* yyjson reads, never writes, without YYJSON_READ_INSITU. */
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, len, 0, NULL, &why);
    if (!doc) err_set(e, ERR_FORMAT, "not valid JSON: %s at byte %zu", len ? why.msg : "empty body", why.pos);
    return doc;
}

json_in json_root(yyjson_doc *doc) {
    return (json_in){.val = yyjson_doc_get_root(doc)};
}

json_in json_at(const json_in *obj, const char *key) {
    json_in in = {.val = yyjson_obj_get(obj->val, key)};
    snprintf(in.path, sizeof in.path, "%.80s%s%.28s", obj->path, obj->path[0] ? "." : "", key);
    return in;
}

json_in json_item(const json_in *arr, size_t index) {
    json_in in = {.val = yyjson_arr_get(arr->val, index)};
    snprintf(in.path, sizeof in.path, "%.80s[%zu]", arr->path, index);
    return in;
}

static bool is_missing(const json_in *in) {
    return !in->val || yyjson_is_null(in->val);
}

bool json_has(const json_in *obj, const char *key) {
    json_in in = json_at(obj, key);
    return !is_missing(&in);
}

static bool expected(const json_in *in, const char *what, err *e) {
    return err_set(e, ERR_INVALID, "%s: expected %s", in->path[0] ? in->path : "body", what);
}

bool json_get_str(const json_in *obj, const char *key, const char **out, err *e) {
    json_in in = json_at(obj, key);
    if (is_missing(&in)) return true;
    if (!yyjson_is_str(in.val)) return expected(&in, "string", e);
    const char *s = yyjson_get_str(in.val);
    if (strlen(s) != yyjson_get_len(in.val)) return expected(&in, "string without NUL characters", e);
    *out = s;
    return true;
}

bool json_need_str(const json_in *obj, const char *key, const char **out, err *e) {
    const char *s = NULL;
    if (!json_get_str(obj, key, &s, e)) return false;
    if (str_empty(s)) {
        json_in in = json_at(obj, key);
        return err_set(e, ERR_INVALID, "%s: required", in.path);
    }
    *out = s;
    return true;
}

bool json_get_bool(const json_in *obj, const char *key, bool *out, err *e) {
    json_in in = json_at(obj, key);
    if (is_missing(&in)) return true;
    if (!yyjson_is_bool(in.val)) return expected(&in, "true or false", e);
    *out = yyjson_get_bool(in.val);
    return true;
}

/* A number without a fraction, however it was written ("20.0" is 20: many clients send floats). */
static bool whole_number(yyjson_val *v, int64_t *out) {
    if (yyjson_is_sint(v)) {
        *out = yyjson_get_sint(v);
        return true;
    }
    if (yyjson_is_uint(v)) {
        if (yyjson_get_uint(v) > (uint64_t)INT64_MAX) return false;
        *out = (int64_t)yyjson_get_uint(v);
        return true;
    }
    double d = yyjson_get_real(v);
    if (!yyjson_is_real(v) || d != floor(d) || fabs(d) > 9e15) return false;
    *out = (int64_t)d;
    return true;
}

bool json_get_i64(const json_in *obj, const char *key, int64_t *out, int64_t min, int64_t max, err *e) {
    json_in in = json_at(obj, key);
    if (is_missing(&in)) return true;
    int64_t v;
    if (!whole_number(in.val, &v)) return expected(&in, "whole number", e);
    if (v < min || v > max)
        return err_set(e, ERR_INVALID, "%s: %lld is not between %lld and %lld", in.path, (long long)v, (long long)min,
                       (long long)max);
    *out = v;
    return true;
}

bool json_get_int(const json_in *obj, const char *key, int *out, int min, int max, err *e) {
    int64_t v = *out;
    if (!json_get_i64(obj, key, &v, min, max, e)) return false;
    *out = (int)v;
    return true;
}

bool json_get_u64(const json_in *obj, const char *key, uint64_t *out, err *e) {
    json_in in = json_at(obj, key);
    if (is_missing(&in)) return true;
    if (!yyjson_is_uint(in.val)) return expected(&in, "whole number of at most 64 bits, not negative", e);
    *out = yyjson_get_uint(in.val);
    return true;
}

bool json_get_num(const json_in *obj, const char *key, double *out, double min, double max, err *e) {
    json_in in = json_at(obj, key);
    if (is_missing(&in)) return true;
    if (!yyjson_is_num(in.val)) return expected(&in, "number", e);
    double v = yyjson_get_num(in.val);
    if (!(v >= min && v <= max))
        return err_set(e, ERR_INVALID, "%s: %g is not between %g and %g", in.path, v, min, max);
    *out = v;
    return true;
}

bool json_get_float(const json_in *obj, const char *key, float *out, float min, float max, err *e) {
    double v = (double)*out;
    if (!json_get_num(obj, key, &v, (double)min, (double)max, e)) return false;
    *out = (float)v;
    return true;
}

static bool get_container(const json_in *obj, const char *key, bool required, bool (*is)(yyjson_val *),
                          const char *what, json_in *out, err *e) {
    *out = json_at(obj, key);
    if (is_missing(out)) {
        out->val = NULL;
        return required ? err_set(e, ERR_INVALID, "%s: required", out->path) : true;
    }
    return is(out->val) ? true : expected(out, what, e);
}

bool json_get_arr(const json_in *obj, const char *key, bool required, json_in *out, err *e) {
    return get_container(obj, key, required, yyjson_is_arr, "array", out, e);
}

bool json_get_obj(const json_in *obj, const char *key, bool required, json_in *out, err *e) {
    return get_container(obj, key, required, yyjson_is_obj, "object", out, e);
}

/* A short list is told as a whole, of a longer one the nearest. */
static bool unknown_key(const char *name, const char *const *known, size_t count, err *e) {
    enum { TOLD_MAX = 10 };
    const char *near = str_nearest(name, known, count);
    if (near) return err_set(e, ERR_INVALID, "unknown key '%.60s'; did you mean '%s'?", name, near);
    if (count > TOLD_MAX) return err_set(e, ERR_INVALID, "unknown key '%.60s'", name);
    char all[160] = "";
    size_t len = 0;
    for (size_t i = 0; i < count && len < sizeof all - 1; i++) {
        const int n = snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", known[i]);
        len += n > 0 ? (size_t)n : 0;
    }
    return err_set(e, ERR_INVALID, "unknown key '%.60s' beside %s", name, all);
}

bool json_check_keys(const json_in *obj, const char *const *known, size_t count, err *e) {
    if (!yyjson_is_obj(obj->val)) return expected(obj, "object", e);
    yyjson_obj_iter it = yyjson_obj_iter_with(obj->val);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&it));) {
        const char *name = yyjson_get_str(key);
        bool ok = false;
        for (size_t i = 0; i < count && !ok; i++) ok = str_eq(name, known[i]);
        if (!ok) return unknown_key(name, known, count, e);
    }
    return true;
}

bool json_write(yyjson_mut_doc *doc, buf *out) {
    size_t len;
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE | YYJSON_WRITE_INF_AND_NAN_AS_NULL, &len);
    if (!text) return false;
    bool ok = buf_append(out, text, len);
    free(text);
    return ok;
}

void json_quote(buf *out, const char *s) {
    buf_putc(out, '"');
    for (size_t n = strlen(s); n;) {
        size_t step = 1;
        while (step < n && step < 4 && ((unsigned char)s[step] & 0xC0) == 0x80) step++;
        unsigned char c = (unsigned char)*s;
        if (!str_is_utf8(s, step)) {
            buf_puts(out, "\xEF\xBF\xBD");
            step = 1;
        } else if (c == '"' || c == '\\') {
            buf_putc(out, '\\');
            buf_putc(out, (char)c);
        } else if (c == '\n') {
            buf_puts(out, "\\n");
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append(out, s, step);
        }
        s += step;
        n -= step;
    }
    buf_putc(out, '"');
}

void json_write_member(buf *out, const char *key, const char *value) {
    bool first = out->len && out->data[out->len - 1] == '{';
    buf_printf(out, "%s\"%s\":", first ? "" : ",", key);
    if (value)
        json_quote(out, value);
    else
        buf_puts(out, "null");
}

void json_write_error(buf *out, const char *type, const char *code, const char *param, const char *message) {
    buf_puts(out, "{\"error\":{\"message\":");
    json_quote(out, message);
    buf_puts(out, ",\"type\":");
    json_quote(out, type);
    buf_puts(out, ",\"code\":");
    json_quote(out, code);
    buf_puts(out, ",\"param\":");
    if (param)
        json_quote(out, param);
    else
        buf_puts(out, "null");
    buf_puts(out, "}}");
}
