/* fuzz_model_file.h - what the safetensors and GGUF targets have in common: whatever is accepted must be usable. */
#ifndef MYSTI_TESTS_FUZZ_MODEL_FILE_H
#define MYSTI_TESTS_FUZZ_MODEL_FILE_H

#include "diffusion/load/model_kind.h"
#include "diffusion/load/name_view.h"

#include <stdlib.h>
#include <string.h>

/* Reads every byte the file lets us see. */
static inline void walk_tensors(const tensor_file *f) {
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const tensor_info *t = tensor_file_at(f, i);
        const unsigned char *p = tensor_file_data(f, t);
        for (uint64_t k = 0; k < t->nbytes; k++) {
            volatile unsigned char byte = p[k];
            (void)byte;
        }
        if (tensor_file_find(f, t->name) != t) abort();
        if (t->offset > tensor_file_size(f) || t->nbytes > tensor_file_size(f) - t->offset) abort();
    }
}

static inline void fuzz_model_file(const void *data, size_t size) {
    err e = {0};
    tensor_file *f = tensor_file_open_memory("fuzz", data, size, &e);
    if (!f) {
        if (!e.code || !e.msg[0]) abort(); /* a refusal says why */
        return;
    }
    walk_tensors(f);
    model_desc d;
    model_describe(f, &d);
    name_view v;
    name_view_init(&v, f, COMPONENT_ANY);
    name_view_free(&v);
    tensor_file_close(f);
}

#endif
