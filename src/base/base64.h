/* base64.h - RFC 4648 base64. */
#ifndef MYSTI_BASE_BASE64_H
#define MYSTI_BASE_BASE64_H

#include "base/buf.h"

/* Appends the encoding of `data`, padded. */
bool base64_encode(buf *out, const void *data, size_t len);

/* Appends the decoded bytes. Accepts the standard and the URL alphabet, missing padding and line breaks; false on
 * anything else, or when `out` is full. */
bool base64_decode(buf *out, const char *text, size_t len);

#endif
