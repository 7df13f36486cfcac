/* multipart/form-data bodies: the first line is the content type. Parts must lie inside the body. */
#include "net/http_multipart.h"
#include "base/str.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    const char *eol = size ? memchr(text, '\n', size) : NULL;
    if (!eol) return 0;
    char *type = str_ndup(text, (size_t)(eol - text));
    const char *body = eol + 1;
    size_t len = size - (size_t)(body - text);
    http_multipart *m = http_multipart_parse(type, body, len, NULL);
    for (size_t i = 0; m && i < http_multipart_count(m); i++) {
        const http_part *part = http_multipart_part(m, i);
        if (!part->name || part->data < body || part->data + part->len > body + len) abort();
        free(http_multipart_text(m, part->name));
    }
    http_multipart_free(m);
    free(type);
    return 0;
}
