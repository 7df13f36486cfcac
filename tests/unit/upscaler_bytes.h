/* upscaler_bytes.h - a small enlarging network for tests, with numbers that can be told. */
#ifndef MYSTI_TESTS_UPSCALER_BYTES_H
#define MYSTI_TESTS_UPSCALER_BYTES_H

#include "base/str.h"
#include "model_bytes.h"

static inline float next_number(void) {
    static uint32_t seed = 1;
    seed = seed * 1664525 + 1013904223;
    return (float)(seed >> 8) / (float)(1 << 23) - 1;
}

static inline void add_numbers(st_builder *s, const char *name, const char *dims, size_t n, float most) {
    float *values = mem_alloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = next_number() * most;
    st_add(s, name, "F32", dims, values, n * sizeof *values);
    free(values);
}

/* A compact network of three convolutions that doubles; with numbers up to `most`. Zeros leave each pixel as it is. The
 * path is freed by remove_temp(). */
static inline char *compact_file(float most) {
    enum { WIDTH = 8 };
    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    add_numbers(&s, "body.0.weight", "8,3,3,3", WIDTH * 3 * 9, most);
    add_numbers(&s, "body.0.bias", "8", WIDTH, most);
    add_numbers(&s, "body.1.weight", "8", WIDTH, most);
    add_numbers(&s, "body.2.weight", "8,8,3,3", WIDTH * WIDTH * 9, most);
    add_numbers(&s, "body.2.bias", "8", WIDTH, most);
    add_numbers(&s, "body.3.weight", "8", WIDTH, most);
    add_numbers(&s, "body.4.weight", "12,8,3,3", 12 * WIDTH * 9, most);
    add_numbers(&s, "body.4.bias", "12", 12, most);
    st_finish(&s, &b);
    char *path = write_temp(&b);
    buf_free(&b);
    return path;
}

#endif
