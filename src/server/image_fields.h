/* image_fields.h - reading one field of an image request: numbers may come as text, for form fields always are.
 *
 * Missing, null and empty leave *out as it is. Errors name the field by its path ("hires.scale: 9 is not between 1 and
 * 8"). */
#ifndef MYSTI_SERVER_IMAGE_FIELDS_H
#define MYSTI_SERVER_IMAGE_FIELDS_H

#include "diffusion/image/metadata.h"
#include "json/json.h"

bool field_whole(const json_in *body, const char *key, int64_t *out, int64_t min, int64_t max, err *e);
bool field_int(const json_in *body, const char *key, int *out, int min, int max, err *e);
bool field_real(const json_in *body, const char *key, double *out, double min, double max, err *e);
bool field_bool(const json_in *body, const char *key, bool *out, err *e); /* true, false, 1, 0, and these as text */

/* Text that *out owns from then on. `required`: missing and empty are errors. */
bool field_text(const json_in *body, const char *key, bool required, char **out, err *e);

/* "start" and "end": shares of a run, 0..1, the one not behind the other. */
bool field_span(const json_in *body, double *start, double *end, err *e);

/* "Weight", "Guidance Start" and "Guidance End" of a picture's text, as far as they are in range. */
void field_metadata_share(const metadata *m, double *weight, double weight_max, double *start, double *end);

/* The one of `names` (NULL-terminated) that `name` is, whatever its case; NULL when it is none. */
const char *field_find(const char *name, const char *const *names);

/* One of `names`, which are static and told in the error. find: knows more words for them, or NULL. */
bool field_name(const json_in *body, const char *key, const char *(*find)(const char *), const char *const *names,
                const char **out, err *e);

/* ERR_INVALID: "field: 'value' is none of a, b, c", or of a long list the nearest. */
bool field_not_one_of(const char *field, const char *value, const char *const *names, err *e);

/* ERR_INVALID of a value that is in no list of GET /v1/options. near: what may have been meant, or NULL. */
bool field_not_listed(const char *field, const char *value, const char *near, err *e);

/* ERR_INVALID: "field: expected `what`". */
bool field_wrong_type(const json_in *in, const char *what, err *e);

/* An object or array, or its JSON as text (then *doc, else NULL, is to be freed); out->val is NULL when it is missing.
 */
void field_json(const json_in *body, const char *key, json_in *out, yyjson_doc **doc);

/* Appends "key":value, (with the comma); a number as the shortest text that reads back as the same. */
void field_write_string(buf *out, const char *key, const char *value);
void field_write_real(buf *out, const char *key, double v);
void field_write_share(buf *out, double weight, double start, double end);   /* "weight", "start", "end" */
void field_write_names(buf *out, const char *key, const char *const *names); /* NULL-terminated */

#endif
