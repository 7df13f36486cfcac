/* The input is the JSON header and the data behind it; the length in front is made to fit, so that the fuzzer need not
 * guess it. The header ends at the first NUL. */
#include "fuzz_model_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    const unsigned char *end = memchr(data, 0, size);
    size_t header = end ? (size_t)(end - data) : size;
    unsigned char *file = malloc(size + 8);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(header >> (8 * i));
    memcpy(file + 8, data, size);
    fuzz_model_file(file, size + 8);
    free(file);
    return 0;
}
