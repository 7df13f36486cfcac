/* LoRAs: tags in prompts, what a file holds, and the merge into weights. Numbers of every kind are compared with
 * references by parity_check and tools/ref/lora.py; here are the rules, and what is refused. */
#include "diffusion/load/lora_file.h"
#include "diffusion/model/lora.h"
#include "diffusion/text/lora_tag.h"

#include "base/str.h"
#include "model_bytes.h"

#include <ggml.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* --- tags -------------------------------------------------------------------------------------------------------- */

static void tags_are_read(void **state) {
    (void)state;
    lora_tag t[LORA_TAGS_MAX];
    size_t n;
    err e = {0};
    assert_true(lora_tags_read("a cat <lora:one> <lora:two words:0.8>,<lyco:x.y-z:-1:.5> <lora:n:te=0.25:unet=2>"
                               "<lora:m:0.5:unet=0> <lora: s : 1 >",
                               t, &n, &e));
    static const struct {
        const char *name;
        double te, unet;
    } want[] = {{"one", 1, 1}, {"two words", .8, .8}, {"x.y-z", -1, .5}, {"n", .25, 2}, {"m", .5, 0}, {"s", 1, 1}};
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(t[i].name, want[i].name);
        assert_true(t[i].te == want[i].te && t[i].unet == want[i].unet);
    }
    assert_true(lora_tags_read("<lora:> <lor:a> a < b > <hypernet:x:1> <lora:a <b>>", t, &n, &e));
    assert_int_equal(n, 1); /* up to the first > */
    assert_string_equal(t[0].name, "a <b");
}

static void bad_tags_are_quoted(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"<lora:a:b>", "prompt: '<lora:a:b>': not a number: b"},
        {"<lora:a:>", "not a number"},
        {"<lora:a:nan>", "not a number"},
        {"<lora:a:1:2:3>", "more than two weights: 3"},
        {"<lora:a:dyn=4>", "neither te nor unet: dyn"},
        {"<lora:a:101>", "beyond 100"},
        {"<lora::1>", "no name"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lora_tag t[LORA_TAGS_MAX];
        size_t n;
        err e = {0};
        assert_false(lora_tags_read(rows[i][0], t, &n, &e));
        if (e.code != ERR_INVALID || !strstr(e.msg, rows[i][1])) fail_msg("%s: %s", rows[i][0], e.msg);
    }
    buf many;
    buf_init(&many, 1 << 16);
    lora_tag t[LORA_TAGS_MAX];
    size_t n;
    for (int i = 0; i < LORA_TAGS_MAX; i++) buf_puts(&many, "<lora:a>");
    assert_true(lora_tags_read(buf_str(&many), t, &n, NULL));
    buf_puts(&many, "<lora:a>");
    assert_false(lora_tags_read(buf_str(&many), t, &n, NULL));
    buf_free(&many);
}

static void tags_are_cut_out(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"a <lora:x:1>cat", "a cat"},
                                          {"<lora:x><lyco:y:2>", ""},
                                          {"no tag, 1 < 2 > 0", "no tag, 1 < 2 > 0"},
                                          {"<lora:", "<lora:"},
                                          {"<lora:> <hypernet:a:1>", "<lora:> <hypernet:a:1>"},
                                          {"", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got = lora_tags_strip(rows[i][0]);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
}

static void tags_are_written(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1000);
    lora_tag_write("a b", 0.8, 0.8, &b);
    lora_tag_write("c", 1, -0.25, &b);
    lora_tag_write("not:this", 1, 1, &b);
    assert_string_equal(buf_str(&b), "<lora:a b:0.8><lora:c:1:-0.25>");
    buf_free(&b);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

#define Q "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
#define CONV_IN "model.diffusion_model.input_blocks.0.0"
#define FC "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1"

static char *save(st_builder *s) {
    buf b;
    buf_init(&b, 1 << 20);
    st_finish(s, &b);
    char *path = write_temp(&b);
    buf_free(&b);
    return path;
}

/* A file of F32 tensors: name, shape, name, shape, ..., NULL; all ones. */
static char *file_of(const char *const *names_and_shapes) {
    float ones[1024];
    for (int i = 0; i < 1024; i++) ones[i] = 1;
    st_builder s;
    st_init(&s);
    for (; *names_and_shapes; names_and_shapes += 2) {
        size_t n = 1;
        for (const char *p = names_and_shapes[1]; *p;) {
            n *= strtoul(p, (char **)(uintptr_t)&p, 10);
            if (*p) p++;
        }
        assert_true(n <= 1024);
        st_add(&s, names_and_shapes[0], "F32", names_and_shapes[1], ones, n * sizeof(float));
    }
    return save(&s);
}
#define FILE_OF(...) file_of((const char *const[]){__VA_ARGS__, NULL})

/* A model of three layers: [4, 3], [3, 9, 1, 1] (as for inpainting), [2, 5] with a bias. */
typedef struct world {
    char *path;
    weights *w;
    backend *b;
    struct ggml_tensor *q, *conv, *fc, *bias;
} world;

static world open_world(void) {
    err e = {0};
    world x = {.path = FILE_OF(Q ".weight", "4,3", CONV_IN ".weight", "3,9,1,1", FC ".weight", "2,5", FC ".bias", "2",
                               "model.diffusion_model.unused.weight", "1")};
    x.w = weights_open(&(weights_files){.model = x.path}, &e);
    if (!x.w) fail_msg("%s", e.msg);
    x.q = weights_tensor(x.w, &e, WEIGHTS_MATRIX, Q ".weight", 3, 4);
    x.conv = weights_tensor(x.w, &e, WEIGHTS_CONV, CONV_IN ".weight", 1, 1, 9, 3);
    x.fc = weights_tensor(x.w, &e, WEIGHTS_MATRIX, FC ".weight", 5, 2);
    x.bias = weights_tensor(x.w, &e, WEIGHTS_VECTOR, FC ".bias", 2);
    x.b = backend_open("cpu", 1, &e);
    assert_true(x.b && weights_commit(x.w, "", backend_handle(x.b), NULL, NULL, &e));
    return x;
}

static void close_world(world *x) {
    weights_close(x->w);
    backend_close(x->b);
    remove_temp(x->path);
}

static bool apply(world *x, char *path, float unet, float te, err *e) {
    const lora_use use = {path, unet, te};
    lora_plan *p = lora_plan_open(x->w, "sd1", &use, 1, e);
    const bool ok = p && lora_plan_run(p, x->b, NULL, NULL, e);
    lora_plan_close(p);
    return ok;
}

static void must_apply(world *x, char *path, float unet, float te) {
    err e = {0};
    if (!apply(x, path, unet, te, &e)) fail_msg("%s", e.msg);
    remove_temp(path);
}

static float at(const struct ggml_tensor *t, int64_t i) {
    assert_int_equal(t->type, GGML_TYPE_F32);
    return ((const float *)t->data)[i];
}

static void all_are(const struct ggml_tensor *t, float v) {
    for (int64_t i = 0; i < ggml_nelements(t); i++) assert_true(at(t, i) == v);
}

/* 1 + strength * alpha / rank * rank ones */
static void every_naming_finds_its_layer(void **state) {
    (void)state;
    static const char *const stems[][2] = {
        {"lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight",
         "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight"},
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
         "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight",
         "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"},
        {"base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.default.weight",
         "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight"},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight",
         "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight"},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_linear_layer.up.weight",
         "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_linear_layer.down.weight"},
        {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
         "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"},
        {"diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
         "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_down.weight"},
    };
    world x = open_world();
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        must_apply(&x, FILE_OF(stems[i][0], "4,2", stems[i][1], "2,3"), 0.5f, 9);
        all_are(x.q, 2);
    }
    must_apply(&x,
               FILE_OF("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "2,2",
                       "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "2,5",
                       "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", ""),
               9, 0.5f);
    all_are(x.q, 1); /* the one before is gone */
    all_are(x.fc, 1.5f);
    must_apply(&x, FILE_OF("text_encoder.text_model.encoder.layers.0.mlp.fc1.diff_b", "2"), 0, -1);
    all_are(x.fc, 1);
    all_are(x.bias, 0);
    close_world(&x);
}

/* An inpainting model's first convolution has more input channels than the model that the LoRA was made for. */
static void narrow_first_convolution(void **state) {
    (void)state;
    world x = open_world();
    must_apply(&x,
               FILE_OF("lora_unet_conv_in.lora_up.weight", "3,1,1,1", "lora_unet_conv_in.lora_down.weight", "1,4,1,1"),
               1, 1);
    for (int64_t i = 0; i < 27; i++) assert_true(at(x.conv, i) == (i % 9 < 4 ? 2.0f : 1.0f));
    close_world(&x);
}

static void several_add_up(void **state) {
    (void)state;
    world x = open_world();
    err e = {0};
    char *a = FILE_OF("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.diff", "4,3");
    char *b = FILE_OF("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lokr_w1", "2,1",
                      "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lokr_w2", "2,3");
    const lora_use uses[] = {{a, 0.25f, 0}, {b, -2, 0}, {a, 0.5f, 0}};
    lora_plan *p = lora_plan_open(x.w, "sd1", uses, 3, &e);
    assert_int_equal(lora_plan_tensors(p), 1);
    assert_true(lora_plan_bytes(p) >= ggml_nbytes(x.q)); /* it lies in the file */
    assert_true(lora_plan_run(p, x.b, NULL, NULL, &e));
    all_are(x.q, 1 + 0.25f - 2 + 0.5f);
    assert_int_equal(lora_plan_bytes(p), 0);
    assert_true(lora_plan_run(p, x.b, NULL, NULL, &e)); /* not on top of itself */
    all_are(x.q, 1 + 0.25f - 2 + 0.5f);
    lora_plan_close(p);
    p = lora_plan_open(x.w, "sd1", NULL, 0, &e);
    assert_true(lora_plan_run(p, x.b, NULL, NULL, &e));
    all_are(x.q, 1);
    lora_plan_close(p);
    remove_temp(a);
    remove_temp(b);
    close_world(&x);
}

static bool stop(void *ctx, size_t done, size_t all) {
    (void)ctx;
    (void)all;
    return done == 0;
}

static void what_fails_changes_nothing(void **state) {
    (void)state;
    world x = open_world();
    err e = {0};
    char *path = FILE_OF("lora_unet_conv_in.diff", "3,9,1,1",
                         "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.diff", "4,3");
    const lora_use use = {path, 1, 1};
    lora_plan *p = lora_plan_open(x.w, "sd1", &use, 1, &e);
    assert_false(lora_plan_run(p, x.b, stop, NULL, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    all_are(x.conv, 1);
    all_are(x.q, 1);
    lora_plan_close(p);
    remove_temp(path);
    close_world(&x);
}

#define LAYER "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q."

static void bad_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *tensors[9];
        int code;
        const char *part;
    } rows[] = {
        {{LAYER "oft_blocks", "4,3"}, ERR_UNSUPPORTED, "OFT is not supported"},
        {{LAYER "boft_blocks", "4,3"}, ERR_UNSUPPORTED, "BOFT"},
        {{"a.b.c", "4,3"}, ERR_UNSUPPORTED, "this kind of tensor"},
        {{LAYER "lora_up.weight", "4,2"}, ERR_FORMAT, "incomplete"},
        {{LAYER "alpha", ""}, ERR_FORMAT, "incomplete"},
        {{LAYER "hada_w1_a", "4,2", LAYER "hada_w1_b", "2,3", LAYER "hada_w2_a", "4,2"}, ERR_FORMAT, "incomplete"},
        {{LAYER "lokr_w1", "2,1"}, ERR_FORMAT, "incomplete"},
        {{LAYER "diff", "4,3", "lora_unet_input_blocks_1_1_transformer_blocks_0.attn1.to_q.diff", "4,3"},
         ERR_FORMAT,
         "of which there is one"},
        {{"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", "4,2",
          "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "2,3"},
         ERR_UNSUPPORTED,
         "a LoRA for Flux, the model is Stable Diffusion 1.x"},
        {{LAYER "lora_up.weight", "4,2", LAYER "lora_down.weight", "2,7"},
         ERR_UNSUPPORTED,
         "a weight of 4 x 7, the model's has 4 x 3"},
        {{LAYER "lora_up.weight", "4,2", LAYER "lora_down.weight", "3,3"}, ERR_FORMAT, "does not fit"},
        {{LAYER "lokr_w1", "3,1", LAYER "lokr_w2", "2,3"}, ERR_UNSUPPORTED, "a weight of 6 x 3"},
        {{LAYER "diff", "4,3", LAYER "dora_scale", "5,1"}, ERR_FORMAT, "dora_scale"},
        {{LAYER "diff", "3,3"}, ERR_UNSUPPORTED, "a weight of 3 x 3"},
        {{"lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b", "3"}, ERR_FORMAT, "diff_b"},
        {{LAYER "lora_up.weight", "4,0", LAYER "lora_down.weight", "0,3"}, ERR_FORMAT, "does not fit"},
    };
    world x = open_world();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = {0};
        char *path = file_of(rows[i].tensors);
        assert_false(apply(&x, path, 1, 1, &e));
        if (e.code != rows[i].code || !strstr(e.msg, rows[i].part)) fail_msg("row %zu: %d %s", i, e.code, e.msg);
        if (!strstr(e.msg, "mysti-")) fail_msg("row %zu does not name the file: %s", i, e.msg);
        all_are(x.q, 1);
        all_are(x.bias, 1);
        remove_temp(path);
    }
    close_world(&x);
}

static int next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    return (int)(*state >> 40);
}

/* A shape in which every number may be another one. */
static void spoil(const char *shape, uint64_t *state, char out[32]) {
    size_t i = 0;
    for (; shape[i]; i++) {
        out[i] = shape[i];
        if (shape[i] != ',' && next_random(state) % 12 == 0) out[i] = (char)('0' + next_random(state) % 5);
    }
    out[i] = 0;
}

/* Fitting files, and such with some wrong numbers: merged, or refused with a reason; nothing else. */
static void spoiled_shapes(void **state) {
    (void)state;
    static const char *const kinds[][11] = {
        {"lora_up.weight", "3,2,1,1", "lora_down.weight", "2,9", "lora_mid.weight", "2,2,1,1", "alpha", ""},
        {"hada_w1_a", "3,2", "hada_w1_b", "2,9", "hada_w2_a", "3,1", "hada_w2_b", "1,9", "dora_scale", "3,1"},
        {"hada_w1_a", "2,3", "hada_w1_b", "2,9", "hada_w2_a", "4,3", "hada_w2_b", "4,9", "hada_t1", "2,2,1,1"},
        {"lokr_w1", "1,3", "lokr_w2_a", "2,3", "lokr_w2_b", "2,3", "lokr_t2", "2,2,1,1"},
        {"lokr_w1_a", "3,2", "lokr_w1_b", "2,3", "lokr_w2", "1,3,1,1", "alpha", "1", "dora_scale", "1,9,1,1"},
        {"diff", "3,9,1,1", "dora_scale", "3", "alpha", "1"},
    };
    world x = open_world();
    uint64_t r = 1;
    int merged = 0, refused = 0;
    for (int i = 0; i < 900; i++) {
        const char *tensors[13] = {0}, *const *kind = kinds[i % 6];
        char names[6][128], shapes[6][32];
        for (int k = 0; k < 5 && kind[2 * k]; k++) {
            snprintf(names[k], sizeof names[k], "lora_unet_conv_in.%s", kind[2 * k]);
            spoil(kind[2 * k + 1], &r, shapes[k]);
            tensors[2 * k] = names[k];
            tensors[2 * k + 1] = shapes[k];
        }
        if (i % 6 == 2) { /* the row had no room for it */
            tensors[10] = "lora_unet_conv_in.hada_t2";
            tensors[11] = "4,4,1,1";
        }
        err e = {0};
        char *path = file_of(tensors);
        const bool ok = apply(&x, path, 1, 1, &e);
        merged += ok;
        refused += !ok && e.msg[0];
        remove_temp(path);
    }
    assert_int_equal(merged + refused, 900);
    assert_true(merged > 90 && refused > 90);
    close_world(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_are_read),
        cmocka_unit_test(bad_tags_are_quoted),
        cmocka_unit_test(tags_are_cut_out),
        cmocka_unit_test(tags_are_written),
        cmocka_unit_test(every_naming_finds_its_layer),
        cmocka_unit_test(narrow_first_convolution),
        cmocka_unit_test(several_add_up),
        cmocka_unit_test(what_fails_changes_nothing),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(spoiled_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
