/* metadata.h - the text in which A1111 and its kin keep how a picture was made.
 *
 *     a cat
 *     Negative prompt: blurry
 *     Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: x
 */
#ifndef MYSTI_DIFFUSION_IMAGE_METADATA_H
#define MYSTI_DIFFUSION_IMAGE_METADATA_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

/* One "Key: value" of the last line. */
typedef struct metadata_field {
    char *key;
    char *value;
} metadata_field;

enum { METADATA_FIELDS_MAX = 256 };

/* Owned strings. Start from {0}. */
typedef struct metadata {
    char *prompt;          /* may span lines; NULL reads as "" */
    char *negative_prompt; /* likewise */
    metadata_field *fields;
    size_t count;
} metadata;

void metadata_free(metadata *m);

/* Appends a field, or replaces the value of one with this key. Keys are letters, digits, '_', ' ', '-', '/', at least
 * two of them: what readers look for. */
void metadata_set(metadata *m, const char *key, const char *value);
void metadata_setf(metadata *m, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* NULL when missing. Keys are compared without case. */
const char *metadata_get(const metadata *m, const char *key);
bool metadata_get_i64(const metadata *m, const char *key, int64_t *out);
bool metadata_get_f64(const metadata *m, const char *key, double *out);
bool metadata_get_size(const metadata *m, int *width, int *height); /* "Size: 512x768" */

/* The text. Values with ',', ':' or a line break are written as JSON strings, as A1111 quotes them. */
void metadata_format(const metadata *m, buf *out);

/* Reads any such text, foreign ones included, into an empty `m`; a text without a parameter line is all prompt. Never
 * fails; at most METADATA_FIELDS_MAX fields are kept. */
void metadata_parse(metadata *m, const char *text);

/* The embedded text of a PNG, JPEG or WebP file, appended to `out` as UTF-8. False with ERR_NOT_FOUND when there is
 * none, ERR_FORMAT when the file is damaged. */
bool metadata_read(buf *out, const void *data, size_t len, err *e);

#endif
