/* Weights: types, shapes, several files, and that the CPU computes on the mapped file itself.
 * test_weights --record > tests/unit/grid_vectors.h writes what is recorded here. */
#include "diffusion/load/tensor_convert.h"
#include "diffusion/load/weights.h"

#include "base/base64.h"
#include "base/str.h"
#include "diffusion/model/backend.h"
#include "diffusion/model/nn.h"
#include "model_bytes.h"

#include <ggml-cpu.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."

/* 1, 2, 3, ... as IEEE halves. */
static uint16_t half(float v) {
    return ggml_fp32_to_fp16(v);
}

static uint16_t bf16(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static char *main_file(void) {
    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    uint16_t matrix[6], vector[3], small[36], large[36];
    unsigned char f8[4] = {0x38, 0xb8, 0x7e, 0x01}; /* 1, -1, 448, 2^-9 */
    float wide[4] = {1, 2, 3, 4};
    for (int i = 0; i < 6; i++) matrix[i] = half((float)i + 0.5f);
    for (int i = 0; i < 3; i++) vector[i] = half((float)-i);
    for (int i = 0; i < 36; i++) small[i] = bf16((float)i), large[i] = bf16(i == 35 ? 70000.0f : 1.0f);
    st_add(&s, UNET "m.weight", "F16", "3,2", matrix, sizeof matrix);
    st_add(&s, UNET "v.bias", "F16", "3", vector, sizeof vector);
    st_add(&s, "odd", "U8", "1", "x", 1); /* what follows lies at odd offsets */
    st_add(&s, UNET "odd.weight", "F32", "2,2", wide, sizeof wide);
    st_add(&s, UNET "small.weight", "BF16", "2,2,3,3", small, sizeof small);
    st_add(&s, UNET "large.weight", "BF16", "2,2,3,3", large, sizeof large);
    st_add(&s, UNET "f8.weight", "F8_E4M3", "2,2", f8, sizeof f8);
    st_add(&s, UNET "scaled.weight", "F8_E4M3", "2,2", f8, sizeof f8);
    st_add(&s, UNET "scaled.scale_weight", "F32", "", wide, 4);
    st_add(&s, UNET "one.weight", "F16", "3,2,1,1", matrix, sizeof matrix);
    st_add(&s, UNET "blocks.0.a", "F32", "1", wide, 4);
    st_add(&s, UNET "blocks.1.a", "F32", "1", wide, 4);
    st_add(&s, UNET "blocks.3.a", "F32", "1", wide, 4);
    st_add(&s, VAE "decoder.conv_in.bias", "F32", "2", wide, 8);
    st_add(&s, VAE "encoder.conv_in.bias", "F32", "2", wide, 8);
    st_finish(&s, &b);
    char *path = write_temp(&b);
    buf_free(&b);
    return path;
}

static char *vae_file(void) {
    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    float values[2] = {7, 8};
    st_add(&s, "decoder.conv_in.bias", "F32", "2", values, sizeof values);
    st_finish(&s, &b);
    char *path = write_temp(&b);
    buf_free(&b);
    return path;
}

static float value_at(const struct ggml_tensor *t, int64_t i) {
    return t->type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(((const ggml_fp16_t *)t->data)[i])
                                    : ((const float *)t->data)[i];
}

static weights *open_model(const char *model, const char *vae) {
    err e = {0};
    weights *w = weights_open(&(weights_files){.model = model, .vae = vae}, &e);
    if (!w) fail_msg("%s", e.msg);
    return w;
}

static void queries(void **state) {
    (void)state;
    char *path = main_file();
    weights *w = open_model(path, NULL);
    int64_t ne[4];
    assert_true(weights_has(w, UNET "m.weight"));
    assert_false(weights_has(w, UNET "n.weight"));
    assert_true(weights_has_prefix(w, VAE "decoder."));
    assert_false(weights_has_prefix(w, "cond_stage_model."));
    assert_int_equal(weights_count(w, UNET "blocks."), 2); /* 3 does not follow on 1 */
    assert_true(weights_shape(w, UNET "m.weight", ne) && ne[0] == 2 && ne[1] == 3 && ne[2] == 1);
    assert_int_equal(weights_dim(w, UNET "m.weight", 1), 3);
    assert_int_equal(weights_dim(w, UNET "absent", 1), 0);
    assert_int_equal(weights_bytes(w, VAE), 16);
    weights_close(w);
    remove_temp(path);
}

static void shapes(void **state) {
    (void)state;
    char *path = main_file();
    weights *w = open_model(path, NULL);
    err e = {0};
    assert_null(weights_tensor(w, &e, WEIGHTS_CONV, UNET "small.weight", 3, 3, 4, 2));
    assert_string_equal(e.msg, "tensor '" UNET "small.weight': expected [2,4,3,3], got [2,2,3,3]");
    assert_null(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "m.weight", -1, 5));
    assert_string_equal(e.msg, "tensor '" UNET "m.weight': expected [5,*], got [3,2]");
    assert_null(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "absent", 1));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_null(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "scaled.weight", 2, 2));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    /* 1x1 kernel as a matrix and the reverse */
    struct ggml_tensor *matrix = weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "one.weight", 2, 3);
    struct ggml_tensor *conv = weights_tensor(w, &e, WEIGHTS_CONV, UNET "m.weight", 1, 1, 2, -1);
    assert_non_null(matrix);
    assert_non_null(conv);
    assert_int_equal(matrix->ne[1], 3);
    assert_int_equal(conv->ne[3], 3);
    assert_ptr_equal(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "one.weight", 2, 3), matrix);
    assert_null(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "one.weight", 3, 2));
    weights_close(w);
    remove_temp(path);
}

static bool count_calls(void *ctx, float done) {
    assert_true(done > 0 && done <= 1);
    ++*(int *)ctx;
    return true;
}

static bool refuse(void *ctx, float done) {
    (void)ctx;
    (void)done;
    return false;
}

static void contents(void **state) {
    (void)state;
    char *path = main_file();
    weights *w = open_model(path, NULL);
    err e = {0};
    struct ggml_tensor *m = weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "m.weight", 2, 3);
    struct ggml_tensor *v = weights_tensor(w, &e, WEIGHTS_VECTOR, UNET "v.bias", 3);
    struct ggml_tensor *odd = weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "odd.weight", 2, 2);
    struct ggml_tensor *small = weights_tensor(w, &e, WEIGHTS_CONV, UNET "small.weight", 3, 3, 2, 2);
    struct ggml_tensor *large = weights_tensor(w, &e, WEIGHTS_CONV, UNET "large.weight", 3, 3, 2, 2);
    struct ggml_tensor *f8 = weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "f8.weight", 2, 2);
    assert_true(m && v && odd && small && large && f8);
    assert_int_equal(m->type, GGML_TYPE_F16);
    assert_int_equal(v->type, GGML_TYPE_F32);
    assert_int_equal(small->type, GGML_TYPE_F16);
    assert_int_equal(large->type, GGML_TYPE_F32);
    assert_int_equal(f8->type, GGML_TYPE_F16);

    ggml_backend_t cpu = ggml_backend_cpu_init();
    int calls = 0;
    assert_true(weights_commit(w, "", cpu, count_calls, &calls, &e));
    assert_true(calls > 0);
    for (int i = 0; i < 6; i++) assert_true(value_at(m, i) == (float)i + 0.5f);
    for (int i = 0; i < 3; i++) assert_true(value_at(v, i) == (float)-i);
    for (int i = 0; i < 4; i++) assert_true(value_at(odd, i) == (float)i + 1);
    for (int i = 0; i < 36; i++) assert_true(value_at(small, i) == (float)i);
    assert_true(fabsf(value_at(large, 35) - 70000.0f) < 512);
    assert_true(value_at(f8, 0) == 1 && value_at(f8, 1) == -1 && value_at(f8, 2) == 448 &&
                value_at(f8, 3) == 1.0f / 512);
    assert_int_equal((uintptr_t)odd->data % 4, 0);
    assert_true(ggml_backend_buffer_get_usage(m->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    assert_true(m->buffer != v->buffer); /* the one is the file, the other was converted */

    weights_release(w, UNET); /* all of it stays readable */
    assert_true(value_at(m, 5) == 5.5f && value_at(v, 2) == -2);

    struct ggml_tensor *later = weights_tensor(w, &e, WEIGHTS_VECTOR, VAE "decoder.conv_in.bias", 2);
    assert_true(weights_commit(w, "", cpu, NULL, NULL, &e)); /* a second commit takes only what is new */
    assert_true(value_at(later, 1) == 2);
    assert_true(weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "scaled.weight", 2, 2) == NULL);
    ggml_backend_free(cpu);
    weights_close(w);
    remove_temp(path);
}

static void cancelled(void **state) {
    (void)state;
    char *path = main_file();
    weights *w = open_model(path, NULL);
    err e = {0};
    ggml_backend_t cpu = ggml_backend_cpu_init();
    assert_non_null(weights_tensor(w, &e, WEIGHTS_VECTOR, UNET "v.bias", 3));
    assert_false(weights_commit(w, "", cpu, refuse, NULL, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    ggml_backend_free(cpu);
    weights_close(w);
    remove_temp(path);
}

static void separate_files(void **state) {
    (void)state;
    char *model = main_file(), *vae = vae_file();
    weights *w = open_model(model, vae);
    err e = {0};
    struct ggml_tensor *bias = weights_tensor(w, &e, WEIGHTS_VECTOR, VAE "decoder.conv_in.bias", 2);
    assert_false(weights_has(w, VAE "encoder.conv_in.bias")); /* the model's VAE is hidden as a whole */
    ggml_backend_t cpu = ggml_backend_cpu_init();
    assert_true(weights_commit(w, "", cpu, NULL, NULL, &e));
    assert_true(value_at(bias, 0) == 7 && value_at(bias, 1) == 8);
    weights_close(w);

    assert_null(weights_open(&(weights_files){.model = model, .clip_l = vae}, &e)); /* not a text encoder */
    assert_non_null(strstr(e.msg, "cond_stage_model.transformer."));
    assert_null(weights_open(&(weights_files){0}, &e));
    ggml_backend_free(cpu);
    remove_temp(model);
    remove_temp(vae);
}

/* Quantised rows through a GGUF: kept for a matrix, taken apart for a vector. Reference: the definition of Q8_0. */
static void quantised(void **state) {
    (void)state;
    const uint64_t dims[] = {32, 2};
    buf b;
    buf_init(&b, 1 << 20);
    gguf_head(&b, 3, 2, 0);
    gguf_tensor(&b, UNET "q.weight", 2, dims, TENSOR_Q8_0, 0);
    gguf_tensor(&b, UNET "c.weight", 2, dims, TENSOR_Q8_0, 96);
    put_pad(&b, 32);
    for (int copy = 0; copy < 2; copy++) {
        for (int row = 0; row < 2; row++) {
            put_le(&b, half(0.5f), 2);
            for (int i = 0; i < 32; i++) buf_putc(&b, (char)(i - 16 + row));
        }
        put_pad(&b, 32);
    }
    char *path = write_temp(&b);
    weights *w = open_model(path, NULL);
    err e = {0};
    struct ggml_tensor *q = weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "q.weight", 32, 2);
    struct ggml_tensor *c = weights_tensor(w, &e, WEIGHTS_CONV, UNET "c.weight", 1, 1, 32, 2);
    assert_int_equal(q->type, GGML_TYPE_Q8_0);
    assert_int_equal(c->type, GGML_TYPE_F16);
    ggml_backend_t cpu = ggml_backend_cpu_init();
    assert_true(weights_commit(w, "", cpu, NULL, NULL, &e));
    assert_int_equal(((const signed char *)q->data)[2 + 3], 3 - 16);
    for (int i = 0; i < 64; i++) assert_true(value_at(c, i) == 0.5f * (float)(i % 32 - 16 + i / 32));
    /* changed, it is a half precision tensor for as long */
    float values[64];
    struct ggml_tensor before = *q;
    weights_read(w, UNET "q.weight", values);
    for (int i = 0; i < 64; i++) assert_true(values[i] == value_at(c, i));
    for (int i = 0; i < 64; i++) values[i] += 0.125f;
    assert_true(weights_change_bytes(w, UNET "q.weight") >= 128);
    assert_true(weights_change(w, UNET "q.weight", values, &e));
    assert_true(q->type == GGML_TYPE_F16 && q->nb[1] == 64 && ggml_nbytes(q) == 128);
    for (int i = 0; i < 64; i++) assert_true(value_at(q, i) == values[i]);
    weights_restore(w, UNET "q.weight");
    assert_memory_equal(q, &before, sizeof before);
    ggml_backend_free(cpu);
    weights_close(w);
    remove_temp(path);
    buf_free(&b);
}

enum { ROWS = 3, COLUMNS = 512, NUMBERS = ROWS * COLUMNS };

typedef struct product {
    layer l;
    const float *x; /* [COLUMNS] */
    float *y;       /* [ROWS] */
} product;

static bool build_product(graph *g, void *ctx, err *e) {
    const product *p = ctx;
    (void)e;
    graph_output(g, nn_linear(g, graph_input_f32(g, p->x, COLUMNS, 1, 1, 1), &p->l), p->y);
    return true;
}

/* How far `got` is from `want`, by the lengths of both as vectors. */
static double far_from(const float *got, const float *want, size_t n) {
    double difference = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        length += (double)want[i] * (double)want[i];
    }
    return sqrt(difference / length);
}

/* The numbers of every_quantised_type: NUMBERS between -1 and 1. */
static void fill_values(float *values) {
    uint32_t seed = 20261128;
    for (int i = 0; i < NUMBERS; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
    }
}

static size_t type_bytes(enum ggml_type type) {
    return ROWS * ggml_row_size(type, COLUMNS);
}

static void quantise(enum ggml_type type, const float *values, void *data) {
    float importance[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) importance[i] = 1;
    assert_int_equal(ggml_quantize_chunk(type, values, data, 0, ROWS, COLUMNS, importance), type_bytes(type));
}

/* For these types ggml sorts tables first, 14 s long: what it makes of fill_values() is recorded. */
static const enum ggml_type grid_types[] = {GGML_TYPE_IQ1_S, GGML_TYPE_IQ1_M,   GGML_TYPE_IQ2_XXS, GGML_TYPE_IQ2_XS,
                                            GGML_TYPE_IQ2_S, GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_S};
enum { GRID_TYPES = sizeof grid_types / sizeof *grid_types };
#include "grid_vectors.h" /* grid_blocks[GRID_TYPES], base64 */

static void record_grid_blocks(void) {
    float values[NUMBERS];
    fill_values(values);
    puts("/* Made by test_weights --record. Do not edit. */\n// clang-format off\n"
         "static const char *const grid_blocks[GRID_TYPES] = {");
    for (int i = 0; i < GRID_TYPES; i++) {
        unsigned char *data = mem_alloc(type_bytes(grid_types[i]), 1);
        buf text;
        buf_init(&text, 1 << 20);
        quantise(grid_types[i], values, data);
        assert_true(base64_encode(&text, data, type_bytes(grid_types[i])));
        for (size_t at = 0; at < text.len; at += 120)
            printf("    \"%.*s\"\n", (int)(text.len - at < 120 ? text.len - at : 120), text.data + at);
        puts("    ,");
        buf_free(&text);
        free(data);
    }
    puts("};");
    ggml_quantize_free();
}

static bool recorded(enum ggml_type type, void *data) {
    for (int i = 0; i < GRID_TYPES; i++) {
        if (grid_types[i] != type) continue;
        buf b;
        buf_init(&b, 1 << 20);
        assert_true(base64_decode(&b, grid_blocks[i], strlen(grid_blocks[i])));
        assert_int_equal(b.len, type_bytes(type));
        memcpy(data, b.data, b.len);
        buf_free(&b);
        return true;
    }
    return false;
}

static char *file_of(enum ggml_type type, const float *values) {
    const uint64_t dims[] = {COLUMNS, ROWS};
    const size_t bytes = type_bytes(type);
    unsigned char *data = mem_alloc(bytes, 1);
    buf b;
    if (!recorded(type, data)) quantise(type, values, data);
    buf_init(&b, 1 << 20);
    gguf_head(&b, 3, 2, 0);
    gguf_tensor(&b, UNET "q.weight", 2, dims, (tensor_type)type, 0);
    gguf_tensor(&b, UNET "c.weight", 2, dims, (tensor_type)type, (bytes + 31) / 32 * 32);
    put_pad(&b, 32);
    for (int copy = 0; copy < 2; copy++) {
        for (size_t i = 0; i < bytes; i++) buf_putc(&b, (char)data[i]);
        put_pad(&b, 32);
    }
    char *path = write_temp(&b);
    buf_free(&b);
    free(data);
    return path;
}

/* A matrix stays in its type, and products are made with it; a convolution becomes f16. Both hold numbers that are as
 * near those written as so many bits allow. */
static void check_type(enum ggml_type type, backend *b, const float *values) {
    const char *name = ggml_type_name(type);
    err e = {0};
    char *path = file_of(type, values);
    weights *w = open_model(path, NULL);
    float numbers[NUMBERS], kernel[NUMBERS], y[ROWS], want[ROWS] = {0};
    product p = {
        .l = {weights_tensor(w, &e, WEIGHTS_MATRIX, UNET "q.weight", COLUMNS, ROWS), NULL}, .x = values, .y = y};
    struct ggml_tensor *c = weights_tensor(w, &e, WEIGHTS_CONV, UNET "c.weight", 1, 1, COLUMNS, ROWS);
    if (!p.l.weight || !c || !weights_commit(w, "", backend_handle(b), NULL, NULL, &e)) fail_msg("%s: %s", name, e.msg);
    assert_int_equal(p.l.weight->type, type);
    assert_int_equal(c->type, GGML_TYPE_F16);
    weights_read(w, UNET "q.weight", numbers);
    for (int i = 0; i < NUMBERS; i++) kernel[i] = value_at(c, i);
    const double bits = 8.0 * (double)ggml_type_size(type) / (double)ggml_blck_size(type);
    const double lost = far_from(numbers, values, NUMBERS);
    if (lost > fmin(0.6, 2 * exp2(-bits / 1.5)))
        fail_msg("%s, %.2f bits: %.3f of the numbers is lost", name, bits, lost);
    assert_true(far_from(kernel, numbers, NUMBERS) < 1e-3);
    if (!backend_compute(b, build_product, &p, &e)) fail_msg("%s: %s", name, e.msg);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < COLUMNS; i++) sum += (double)numbers[r * COLUMNS + i] * (double)values[i];
        want[r] = (float)sum;
    }
    const double off = far_from(y, want, ROWS);
    if (off > 1e-3) fail_msg("%s: the product is off by %.4f", name, off);
    weights_close(w);
    remove_temp(path);
}

static void every_quantised_type(void **state) {
    (void)state;
    err e = {0};
    float values[NUMBERS];
    int checked = 0;
    fill_values(values);
    backend *b = backend_open("cpu", 1, &e);
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const enum ggml_type type = (enum ggml_type)t;
        /* q8_1 and q8_K hold what a product rounds its other side to, and are in no file */
        if (!ggml_is_quantized(type) || type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) continue;
        check_type(type, b, values);
        checked++;
    }
    assert_true(checked >= 20);
    backend_close(b);
    ggml_quantize_free();
}

/* A type of each way of lying in memory: in the file, converted to a vector, converted from bf16, quantised. */
static void changes_come_and_go(void **state) {
    (void)state;
    static const char *const names[] = {UNET "m.weight", UNET "v.bias", UNET "small.weight", UNET "odd.weight"};
    char *path = main_file();
    weights *w = open_model(path, NULL);
    err e = {0};
    struct ggml_tensor *t[4] = {weights_tensor(w, &e, WEIGHTS_MATRIX, names[0], 2, 3),
                                weights_tensor(w, &e, WEIGHTS_VECTOR, names[1], 3),
                                weights_tensor(w, &e, WEIGHTS_CONV, names[2], 3, 3, 2, 2),
                                weights_tensor(w, &e, WEIGHTS_MATRIX, names[3], 2, 2)};
    ggml_backend_t cpu = ggml_backend_cpu_init();
    assert_true(weights_commit(w, "", cpu, NULL, NULL, &e));
    assert_string_equal(weights_asked(w, names[0]), names[0]);
    assert_null(weights_asked(w, UNET "large.weight"));
    assert_true(weights_change_bytes(w, names[0]) >= 12); /* in the file: a copy */
    assert_int_equal(weights_change_bytes(w, names[1]), 0);
    for (int i = 0; i < 4; i++) {
        float before[36], values[36];
        char bytes[36 * sizeof(float)];
        const int64_t n = ggml_nelements(t[i]);
        const void *place = t[i]->data;
        memcpy(bytes, t[i]->data, ggml_nbytes(t[i]));
        for (int round = 0; round < 2; round++) { /* what is read is the file's, also while it is changed */
            weights_read(w, names[i], before);
            for (int64_t k = 0; k < n; k++) values[k] = before[k] + 0.5f + (float)round;
            assert_true(weights_change(w, names[i], values, &e));
            for (int64_t k = 0; k < n; k++) assert_true(value_at(t[i], k) == values[k]);
        }
        weights_restore(w, names[i]);
        assert_memory_equal(t[i]->data, bytes, ggml_nbytes(t[i]));
        assert_ptr_equal(t[i]->data, place);
        weights_restore(w, names[i]);
    }
    float huge[6] = {0, 0, 70000, 0, 0, 0};
    assert_false(weights_change(w, names[0], huge, &e));
    assert_non_null(strstr(e.msg, "beyond the range of f16"));
    weights_restore(w, names[0]);
    assert_true(value_at(t[0], 2) == 2.5f);
    assert_true(weights_change(w, names[0], (float[6]){1, 2, 3}, &e)); /* left so at the end */
    ggml_backend_free(cpu);
    weights_close(w);
    remove_temp(path);
}

/* Copies and conversions go piece by piece: tensors of several pieces, the last one short. */
static void long_tensors(void **state) {
    (void)state;
    enum { VECTOR = 2 * TENSOR_CONVERT_PIECE + 5, MATRIX = 1500001 };
    uint16_t *vector = malloc(VECTOR * sizeof *vector);
    float *matrix = malloc(MATRIX * sizeof *matrix);
    for (int i = 0; i < VECTOR; i++) vector[i] = half((float)(i % 1000));
    for (int i = 0; i < MATRIX; i++) matrix[i] = (float)i;
    char dims[32];
    st_builder s;
    buf b;
    buf_init(&b, 16 << 20);
    st_init(&s);
    snprintf(dims, sizeof dims, "%d", VECTOR);
    st_add(&s, "v", "F16", dims, vector, VECTOR * sizeof *vector);
    st_add(&s, "odd", "U8", "1", "x", 1);
    snprintf(dims, sizeof dims, "1,%d", MATRIX);
    st_add(&s, "m", "F32", dims, matrix, MATRIX * sizeof *matrix);
    st_finish(&s, &b);
    char *path = write_temp(&b);
    weights *w = open_model(path, NULL);
    err e = {0};
    struct ggml_tensor *v = weights_tensor(w, &e, WEIGHTS_VECTOR, "v", VECTOR);
    struct ggml_tensor *m = weights_tensor(w, &e, WEIGHTS_MATRIX, "m", MATRIX, 1);
    ggml_backend_t cpu = ggml_backend_cpu_init();
    assert_true(weights_commit(w, "", cpu, NULL, NULL, &e));
    for (int i = 0; i < VECTOR; i++) assert_true(value_at(v, i) == (float)(i % 1000));
    assert_memory_equal(m->data, matrix, MATRIX * sizeof *matrix);
    ggml_backend_free(cpu);
    weights_close(w);
    remove_temp(path);
    buf_free(&b);
    free(vector);
    free(matrix);
}

static void conversions(void **state) {
    (void)state;
    float out[4];
    const double f64[] = {1.25, -3};
    const int16_t i16[] = {-300, 7};
    const unsigned char e5m2[] = {0x3c, 0xc0, 0x7b, 0x01}; /* 1, -2, 57344, 2^-16 */
    const unsigned char e4m3[] = {0x7f, 0xff, 0x00, 0x80};
    tensor_convert_f32(TENSOR_F64, f64, out, 2);
    assert_true(out[0] == 1.25f && out[1] == -3);
    tensor_convert_f32(TENSOR_I16, i16, out, 2);
    assert_true(out[0] == -300 && out[1] == 7);
    tensor_convert_f32(TENSOR_F8_E5M2, e5m2, out, 4);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 57344 && out[3] == ldexpf(1, -16));
    tensor_convert_f32(TENSOR_F8_E4M3, e4m3, out, 4);
    assert_true(isnan(out[0]) && isnan(out[1]) && out[2] == 0 && out[3] == 0);
    assert_false(tensor_convert_can(TENSOR_Q8_1));
    /* every type of ggml's that this table calls convertible has the same block layout there */
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        if (!tensor_type_is_valid(t)) {
            assert_int_equal(ggml_blck_size((enum ggml_type)t), 0);
            continue;
        }
        assert_int_equal(tensor_type_block_len((tensor_type)t), ggml_blck_size((enum ggml_type)t));
        assert_int_equal(tensor_type_block_bytes((tensor_type)t), ggml_type_size((enum ggml_type)t));
        assert_string_equal(tensor_type_name((tensor_type)t), ggml_type_name((enum ggml_type)t));
    }
}

/* Every code of both, counted up from zero by the step that the exponent gives: no bit of the codes is looked at.
 * `steps` numbers lie between two powers of two; the first two rows of them have the same step. */
static void check_codes(tensor_type type, int steps, float first_step, int finite_codes, bool has_infinity) {
    unsigned char codes[256];
    float got[256], value = 0, step = first_step;
    for (int i = 0; i < 256; i++) codes[i] = (unsigned char)i;
    tensor_convert_f32(type, codes, got, 256);
    for (int i = 0; i < 128; i++) {
        if (i >= 2 * steps && i % steps == 0) step *= 2;
        if (i < finite_codes) {
            assert_true(got[i] == value && got[i + 128] == -value);
            assert_true(signbit(got[i + 128]) && !signbit(got[i]));
        } else if (i == finite_codes && has_infinity) {
            assert_true(isinf(got[i]) && got[i] > 0 && isinf(got[i + 128]) && got[i + 128] < 0);
        } else {
            assert_true(isnan(got[i]) && isnan(got[i + 128]));
        }
        value += step;
    }
}

static void f8_codes(void **state) {
    (void)state;
    check_codes(TENSOR_F8_E4M3, 8, ldexpf(1, -9), 127, false); /* 0x7e is 448 */
    check_codes(TENSOR_F8_E5M2, 4, ldexpf(1, -16), 124, true); /* 0x7b is 57344 */
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--record") == 0) {
        record_grid_blocks();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries),
        cmocka_unit_test(shapes),
        cmocka_unit_test(contents),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(separate_files),
        cmocka_unit_test(quantised),
        cmocka_unit_test(long_tensors),
        cmocka_unit_test(conversions),
        cmocka_unit_test(changes_come_and_go),
        cmocka_unit_test(f8_codes),
        cmocka_unit_test(every_quantised_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
