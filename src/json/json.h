/* json.h - typed readers over yyjson that name what is wrong: "messages[2].role: expected string".
 *
 * A `json_in` is a value and where it stands. It borrows the document. A missing value is not an error until a
 * reader needs it: json_at() of a missing key gives a json_in with val == NULL that still knows its path.
 * Numbers keep all 64 bits (seeds). JSON is written with yyjson's own mutable API and json_write(). */
#ifndef MYSTI_JSON_JSON_H
#define MYSTI_JSON_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>
#include <yyjson.h>

typedef struct json_in {
    yyjson_val *val; /* NULL when missing */
    char path[112];
} json_in;

/* NULL with ERR_FORMAT and the position when `text` is not JSON, or is nested deeper than 64. Freed with
 * yyjson_doc_free(). */
yyjson_doc *json_parse(const char *text, size_t len, err *e);

json_in json_root(yyjson_doc *doc);
json_in json_at(const json_in *obj, const char *key);
json_in json_item(const json_in *arr, size_t index);
bool json_has(const json_in *obj, const char *key); /* present and not null */

/* Each reads obj[key]. Missing or null leaves *out as it is (so set the default before) and succeeds; a wrong type or
 * a value out of range is ERR_INVALID with the path. Strings are borrowed from the document. */
bool json_get_str(const json_in *obj, const char *key, const char **out, err *e);
bool json_get_bool(const json_in *obj, const char *key, bool *out, err *e);
bool json_get_int(const json_in *obj, const char *key, int *out, int min, int max, err *e);
bool json_get_i64(const json_in *obj, const char *key, int64_t *out, int64_t min, int64_t max, err *e);
bool json_get_u64(const json_in *obj, const char *key, uint64_t *out, err *e);
bool json_get_num(const json_in *obj, const char *key, double *out, double min, double max, err *e);
bool json_get_float(const json_in *obj, const char *key, float *out, float min, float max, err *e);

/* As json_get_str, but missing, null or empty is "path: required". */
bool json_need_str(const json_in *obj, const char *key, const char **out, err *e);

/* An array / object below key; missing is ERR_INVALID "path: required" when `required`, else out->val == NULL. */
bool json_get_arr(const json_in *obj, const char *key, bool required, json_in *out, err *e);
bool json_get_obj(const json_in *obj, const char *key, bool required, json_in *out, err *e);

/* ERR_INVALID naming the first key of obj that is not in `known`, with the nearest known one, else all when they are few. */
bool json_check_keys(const json_in *obj, const char *const *known, size_t count, err *e);

/* Writes the document compactly at the end of `out`; false when `out` is full. */
bool json_write(yyjson_mut_doc *doc, buf *out);

/* The error envelope every route answers with: {"error": {message, type, code, param}}; param may be NULL. */
void json_write_error(buf *out, const char *type, const char *code, const char *param, const char *message);

/* Appends "key":"value", or "key":null for NULL, behind a comma unless the object has just been opened. */
void json_write_member(buf *out, const char *key, const char *value);

/* Appends s as a JSON string with quotes; bytes that are not UTF-8 become U+FFFD. */
void json_quote(buf *out, const char *s);

#endif
