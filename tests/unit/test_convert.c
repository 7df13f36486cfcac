/* Models as GGUF: types, rules, what is kept bit by bit, and that a file is whole or absent. */
#include "diffusion/load/convert.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/tensor_convert.h"
#include "model_bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."

enum { ROWS = 8, WIDE = 512, NARROW = 96, ODD = 24 };

static float values[ROWS * WIDE];

static void add_f32(st_builder *s, const char *name, const char *dims, size_t n) {
    st_add(s, name, "F32", dims, values, n * sizeof(float));
}

/* A checkpoint that has every case in it. */
static char *model_file(void) {
    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    uint32_t seed = 12345;
    for (size_t i = 0; i < ROWS * WIDE; i++) {
        seed = seed * 1664525 + 1013904223;
        values[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
    }
    add_f32(&s, UNET "input_blocks.0.0.weight", "4,4,3,3", 144);
    add_f32(&s, UNET "wide.weight", "8,512", ROWS * WIDE);
    add_f32(&s, UNET "narrow.weight", "8,96", ROWS * NARROW);
    add_f32(&s, UNET "odd.weight", "8,24", ROWS * ODD);
    add_f32(&s, UNET "wide.bias", "512", WIDE);
    const float large[4] = {1, 70000, -3, 4};
    st_add(&s, UNET "large.weight", "F32", "1,1,2,2", large, sizeof large);
    const int64_t ids[3] = {0, 1, INT64_C(1) << 40};
    st_add(&s, "cond_stage_model.transformer.text_model.embeddings.position_ids", "I64", "1,3", ids, sizeof ids);
    add_f32(&s, VAE "decoder.conv_in.weight", "4,4,3,3", 144);
    add_f32(&s, VAE "decoder.mid.attn_1.q.weight", "32,32", 1024);
    st_finish(&s, &b);
    char *path = write_temp(&b);
    buf_free(&b);
    return path;
}

typedef struct made {
    char *path;
    tensor_file *f;
    convert_result result;
} made;

static made make(const char *model, const char *type, const char *rules) {
    err e = {0};
    made m = {.path = str_fmt("%s.gguf", model)};
    const convert_request r = {.files = {.model = model}, .type = type, .rules = rules, .output = m.path};
    if (!convert_model(&r, &m.result, &e) || !(m.f = tensor_file_open(m.path, &e))) fail_msg("%s: %s", type, e.msg);
    return m;
}

static void unmake(made *m) {
    tensor_file_close(m->f);
    remove_temp(m->path);
}

static tensor_type type_of(const made *m, const char *name) {
    const tensor_info *t = tensor_file_find(m->f, name);
    if (!t) fail_msg("'%s' is missing", name);
    return t->type;
}

/* The largest difference to what was there. */
static double error_of(const made *m, const char *name) {
    const tensor_info *t = tensor_file_find(m->f, name);
    const int64_t n = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    float *got = mem_alloc((size_t)n, sizeof *got);
    tensor_convert_f32(t->type, tensor_file_data(m->f, t), got, n);
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)got[i] - (double)values[i]));
    free(got);
    return most;
}

static void every_type(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double error; /* of numbers in -1..1: half a step of the type's */
    } TYPES[] = {{"f32", 0},     {"f16", 0.0003}, {"bf16", 0.004}, {"q8_0", 0.005}, {"q6_K", 0.04},
                 {"q5_K", 0.05}, {"q5_1", 0.04},  {"q5_0", 0.07},  {"q4_K", 0.09},  {"q4_1", 0.075},
                 {"q4_0", 0.14}, {"q3_K", 0.28},  {"q2_K", 0.45},  {"iq4_nl", 0.2}, {"iq4_xs", 0.2}};
    char *model = model_file();
    size_t n = 0;
    for (; convert_types[n]; n++) continue;
    assert_int_equal(n, sizeof TYPES / sizeof *TYPES);
    for (size_t i = 0; i < n; i++) {
        made m = make(model, TYPES[i].name, NULL);
        assert_string_equal(tensor_type_name(type_of(&m, UNET "wide.weight")), TYPES[i].name);
        const double error = error_of(&m, UNET "wide.weight");
        if (!(error <= TYPES[i].error)) fail_msg("%s: off by %g", TYPES[i].name, error);
        assert_true(error > 0 || i == 0);
        assert_int_equal(m.result.tensors, 9);
        unmake(&m);
    }
    remove_temp(model);
}

static void what_does_not_fit(void **state) {
    (void)state;
    char *model = model_file();
    made m = make(model, "Q4_k", NULL);
    assert_int_equal(type_of(&m, UNET "narrow.weight"), TENSOR_Q5_0);
    assert_int_equal(type_of(&m, UNET "odd.weight"), TENSOR_F16);
    assert_int_equal(type_of(&m, UNET "input_blocks.0.0.weight"), TENSOR_F16);
    assert_int_equal(type_of(&m, UNET "wide.bias"), TENSOR_F32);
    assert_int_equal(type_of(&m, UNET "large.weight"), TENSOR_F32); /* 70000 is no f16 */
    assert_int_equal(type_of(&m, VAE "decoder.mid.attn_1.q.weight"), TENSOR_F16);
    assert_int_equal(m.result.other, 5);
    const tensor_info *ids = tensor_file_find(m.f, "cond_stage_model.transformer.text_model.embeddings.position_ids");
    assert_true(ids && ids->type == TENSOR_I64);
    int64_t last;
    memcpy(&last, (const char *)tensor_file_data(m.f, ids) + 16, sizeof last);
    assert_true(last == INT64_C(1) << 40);
    unmake(&m);
    m = make(model, "f16", NULL);
    assert_int_equal(type_of(&m, UNET "large.weight"), TENSOR_F32);
    assert_int_equal(type_of(&m, UNET "wide.bias"), TENSOR_F32);
    unmake(&m);
    remove_temp(model);
}

static void rules(void **state) {
    (void)state;
    char *model = model_file();
    made m = make(model, "f16", VAE "*=q8_0," UNET "w?de.*=bf16,*wide*=q4_0,*.narrow.weight=F32");
    assert_int_equal(type_of(&m, UNET "wide.weight"), TENSOR_BF16); /* the first that fits */
    assert_int_equal(type_of(&m, UNET "wide.bias"), TENSOR_BF16);
    assert_int_equal(type_of(&m, UNET "narrow.weight"), TENSOR_F32);
    assert_int_equal(type_of(&m, UNET "odd.weight"), TENSOR_F16);
    assert_int_equal(type_of(&m, VAE "decoder.mid.attn_1.q.weight"), TENSOR_Q8_0);
    assert_int_equal(type_of(&m, VAE "decoder.conv_in.weight"), TENSOR_F16);
    unmake(&m);
    remove_temp(model);
}

static void refused(const char *model, const char *type, const char *with, const char *output, const char *text) {
    err e = {0};
    convert_result result;
    const convert_request r = {.files = {.model = model}, .type = type, .rules = with, .output = output};
    assert_false(convert_model(&r, &result, &e));
    if (!strstr(e.msg, text)) fail_msg("'%s' does not say '%s'", e.msg, text);
    assert_false(path_exists(output));
}

static void refusals(void **state) {
    (void)state;
    char *model = model_file(), *out = str_fmt("%s.gguf", model);
    refused(model, "q4_k_m", NULL, out, "--type: unknown 'q4_k_m', perhaps q4_K");
    refused(model, "iq2_xxs", NULL, out, "--type: unknown 'iq2_xxs'");
    refused(model, "f16", "a=f16,b", out, "--tensor-types: 'b' is not PATTERN=TYPE");
    refused(model, "f16", "a=f17", out, "--tensor-types: unknown 'f17', perhaps f16");
    refused(model, "f16", NULL, "/nowhere/out.bin", "--output: the name must end in .gguf");
    refused(model, "f16", NULL, "/nowhere/out.gguf", "create");
    refused("/nowhere", "f16", NULL, out, "/nowhere");
    refused(NULL, "f16", NULL, out, "--model: no file given");
    free(out);
    remove_temp(model);
}

/* The file before it stays when the new one cannot be made. */
static void whole_or_absent(void **state) {
    (void)state;
    st_builder s;
    buf b;
    err e = {0};
    convert_result result;
    buf_init(&b, 1 << 20);
    st_init(&s);
    const float bad[64] = {1, 2, NAN}, good[64] = {0};
    st_add(&s, UNET "good.weight", "F32", "2,32", good, sizeof good);
    st_add(&s, UNET "bad.weight", "F32", "2,32", bad, sizeof bad);
    st_finish(&s, &b);
    char *model = write_temp(&b), *out = str_fmt("%s.gguf", model), *tmp = str_fmt("%s.tmp-%d", out, (int)getpid());
    assert_true(file_write_atomic(out, "old", 3, &e));
    const convert_request r = {.files = {.model = model}, .type = "q8_0", .output = out};
    assert_false(convert_model(&r, &result, &e));
    assert_non_null(strstr(e.msg, "bad.weight' holds numbers that are not finite"));
    buf_clear(&b);
    assert_true(file_read(out, &b, &e));
    assert_string_equal(buf_str(&b), "old");
    assert_false(path_exists(tmp));
    buf_free(&b);
    free(tmp);
    remove_temp(out);
    remove_temp(model);
}

/* What comes from GGUF in the type asked for is the same, bit by bit, and so is a second conversion. */
static void again(void **state) {
    (void)state;
    char *model = model_file();
    made first = make(model, "q5_1", NULL), second = make(first.path, "q5_1", NULL);
    assert_int_equal(tensor_file_size(first.f), tensor_file_size(second.f));
    assert_memory_equal(tensor_file_base(first.f), tensor_file_base(second.f), tensor_file_size(first.f));
    unmake(&second);
    made f32 = make(first.path, "f32", NULL);
    assert_true(error_of(&f32, UNET "wide.weight") < 0.04);
    unmake(&f32);
    unmake(&first);
    remove_temp(model);
}

/* Files that are no part of a model keep their names; what they say of themselves is kept, too. */
static void other_files(void **state) {
    (void)state;
    st_builder s;
    buf b;
    buf_init(&b, 1 << 20);
    st_init(&s);
    buf_puts(&s.header, "\"__metadata__\":{\"ss_output_name\":\"Style\"}");
    add_f32(&s, "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "2,96", 192);
    add_f32(&s, "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "96,2", 192);
    st_finish(&s, &b);
    char *model = write_temp(&b);
    buf_free(&b);
    made m = make(model, "f16", NULL);
    const char *text = "";
    assert_int_equal(type_of(&m, "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"), TENSOR_F16);
    assert_true(tensor_file_meta_str(m.f, "ss_output_name", &text));
    assert_string_equal(text, "Style");
    unmake(&m);
    remove_temp(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),  cmocka_unit_test(what_does_not_fit), cmocka_unit_test(rules),
        cmocka_unit_test(refusals),    cmocka_unit_test(whole_or_absent),   cmocka_unit_test(again),
        cmocka_unit_test(other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
