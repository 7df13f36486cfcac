/* Prompts with choices in them: resolved twice by one seed, in a place without files. */
#include "server/wildcards.h"

#include "base/str.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RESULT_MAX = 100000 };

static char *resolve(const char *text, uint64_t seed, err *e) {
    wildcards *w = wildcards_open((const char *const[]){"/nowhere/a", "/nowhere/b"});
    char *got = wildcards_resolve(w, text, seed, RESULT_MAX, e);
    wildcards_close(w);
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    err e = {0};
    char *text = str_ndup((const char *)data + 1, size - 1);
    char *one = resolve(text, data[0], &e), *two = resolve(text, data[0], NULL);
    if (!str_eq(one, two) || (!one && !e.msg[0])) abort();
    if (!wildcards_are_in(text) && !strchr(text, '\\') && !str_eq(one, text)) abort();
    free(one);
    free(two);
    free(text);
    return 0;
}
