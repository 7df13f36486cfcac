/* The parameters text: any text can be read, and what was read and written again reads the same. */
#include "diffusion/image/metadata.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *text = str_ndup((const char *)data, size);
    metadata m = {0};
    metadata_parse(&m, text);
    if (!m.prompt || !m.negative_prompt || m.count > METADATA_FIELDS_MAX) abort();
    if (strlen(m.prompt) + strlen(m.negative_prompt) > size) abort();
    buf out;
    buf_init(&out, 16 << 20);
    metadata_format(&m, &out);
    buf_free(&out);
    metadata_free(&m);
    free(text);
    return 0;
}
