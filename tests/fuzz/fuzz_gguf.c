/* The input is a GGUF file from its magic on. */
#include "fuzz_model_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    fuzz_model_file(data, size);
    return 0;
}
