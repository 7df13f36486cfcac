/* Textual inversions in the engine: what they change, and what is left out or refused. Numbers:
 * tools/ref/embeddings.py. */
#include "diffusion_test.h"
#include "model_bytes.h"

enum { WIDTH = 32 }; /* of tiny-sd1's text encoder */

static char scratch[] = "/tmp/mysti-test-XXXXXX";

/* `count` vectors of numbers that follow from `seed`; NULL for `name` of the tensor: emb_params. */
static char *write_file(const char *file, const char *tensor, int count, int width, float seed) {
    float values[8 * 64];
    char dims[32];
    for (int i = 0; i < count * width; i++) values[i] = 0.5f * sinf(seed * (float)(i + 1));
    snprintf(dims, sizeof dims, "%d,%d", count, width);
    st_builder s;
    buf out;
    err e;
    st_init(&s);
    buf_init(&out, 1 << 20);
    st_add(&s, tensor ? tensor : "emb_params", "F32", dims, values, sizeof(float) * (size_t)(count * width));
    st_finish(&s, &out);
    char *path = path_join(scratch, file);
    if (!file_write_atomic(path, out.data, out.len, &e)) fail_msg("%s", e.msg);
    buf_free(&out);
    return path;
}

/* The picture of "a fox" with these files. */
static image drawn(diffusion *d, const char *prompt, const diffusion_embedding *list, size_t count) {
    diffusion_params p = small_params();
    p.prompt = prompt;
    p.embeddings = list;
    p.embedding_count = count;
    return picture_of(d, &p);
}

static void assert_same(image a, image b, bool wanted) {
    if (same(&a, &b) != wanted) fail_msg("%s", wanted ? "the pictures differ" : "the pictures are the same");
    image_free(&a);
    image_free(&b);
}

static void test_names_and_widths(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    char *one = write_file("one.safetensors", NULL, 3, WIDTH, 1),
         *two = write_file("two.safetensors", NULL, 2, WIDTH, 2);
    char *wide = write_file("wide.safetensors", NULL, 3, WIDTH + 8, 1),
         *l = write_file("l.safetensors", "clip_l", 3, WIDTH, 1);
    const diffusion_embedding list[] = {{"fox", one}, {"other", two}}, foreign[] = {{"fox", wide}},
                              both[] = {{"fox", wide}, {"fox", one}, {"FOX", two}}, of_l[] = {{"fox", l}};
    assert_same(drawn(d, "a fox", list, 2), drawn(d, "a fox", NULL, 0), false);
    assert_same(drawn(d, "a FOX", list, 2), drawn(d, "a embedding:fox", list, 2), true);
    assert_same(drawn(d, "a fox", list, 2), drawn(d, "a other", list, 2), false);
    assert_same(drawn(d, "a dog", list, 2), drawn(d, "a dog", NULL, 0), true);    /* not named */
    assert_same(drawn(d, "a fox", foreign, 1), drawn(d, "a fox", NULL, 0), true); /* of another width: text */
    assert_same(drawn(d, "a fox", both, 3), drawn(d, "a fox", list, 1), true);    /* the first that fits */
    assert_same(drawn(d, "a fox", of_l, 1), drawn(d, "a fox", list, 1), true);
    assert_same(drawn(d, "(fox:1.3) a", list, 1), drawn(d, "fox a", list, 1), false);
    char *again = write_file("one.safetensors", NULL, 4, WIDTH, 3); /* another file under the name of before */
    const diffusion_embedding same_as_two[] = {{"fox", two}};
    assert_same(drawn(d, "a fox", list, 2), drawn(d, "a fox", same_as_two, 1), false);
    free(again);
    free(one);
    free(two);
    free(wide);
    free(l);
    diffusion_close(d);
}

static void assert_refused(diffusion *d, const char *path, int code, const char *message) {
    diffusion_params p = small_params();
    const diffusion_embedding list[] = {{"fox", path}};
    witness w = {0};
    err e = {0};
    p.embeddings = list;
    p.embedding_count = 1;
    assert_false(generate(d, &p, &w, NULL, &e));
    if (e.code != code || !strstr(e.msg, message)) fail_msg("%d: %s", e.code, e.msg);
    witness_free(&w);
}

static void test_bad_files_are_refused_by_name(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sd1-f32.safetensors");
    char *infinite = write_file("infinite.safetensors", NULL, 1, WIDTH, INFINITY),
         *model = path_join(folder, "tiny-vae.safetensors");
    assert_refused(d, infinite, ERR_FORMAT, "embedding 'infinite.safetensors': tensor 'emb_params' is not finite");
    assert_refused(d, model, ERR_FORMAT, "embedding 'tiny-vae.safetensors': no textual inversion in it");
    assert_refused(d, "/nowhere/gone.pt", ERR_NOT_FOUND, "embedding 'fox'");
    assert_same(drawn(d, "a fox", NULL, 0), drawn(d, "a fox", NULL, 0), true); /* the engine goes on */
    free(infinite);
    free(model);
    diffusion_close(d);
}

static void test_xl_needs_both_halves(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sdxl-f32.safetensors");
    char *half = write_file("half.safetensors", "clip_l", 3, WIDTH, 1),
         *plain = write_file("plain.safetensors", NULL, 3, WIDTH, 1);
    const diffusion_embedding list[] = {{"fox", half}, {"fox", plain}};
    assert_same(drawn(d, "a fox", list, 2), drawn(d, "a fox", NULL, 0), true);
    free(half);
    free(plain);
    diffusion_close(d);
}

/* A refiner reads them with the encoder that it has. */
static void test_a_refiner_knows_them(void **state) {
    (void)state;
    diffusion *d = open_tiny("tiny-sdxl-f32.safetensors"), *refiner = open_tiny("tiny-sdxl-refiner-f32.safetensors");
    float values[2 * 64];
    for (int i = 0; i < 2 * 64; i++) values[i] = 0.5f * sinf((float)i);
    st_builder s;
    buf out;
    err e;
    st_init(&s);
    buf_init(&out, 1 << 20);
    st_add(&s, "clip_l", "F32", "2,32", values, sizeof(float) * 2 * 32);
    st_add(&s, "clip_g", "F32", "2,64", values, sizeof(float) * 2 * 64);
    st_finish(&s, &out);
    char *path = path_join(scratch, "both.safetensors");
    if (!file_write_atomic(path, out.data, out.len, &e)) fail_msg("%s", e.msg);
    buf_free(&out);
    const diffusion_embedding list[] = {{"fox", path}};
    diffusion_params p = small_params();
    p.prompt = "a fox";
    p.refiner = (diffusion_refiner){.model = refiner, .switch_at = 0}; /* all steps are the refiner's */
    image plain = picture_of(d, &p);
    p.embeddings = list;
    p.embedding_count = 1;
    assert_same(plain, picture_of(d, &p), false);
    free(path);
    diffusion_close(refiner);
    diffusion_close(d);
}

int main(int argc, char **argv) {
    if (!find_models(argc, argv)) return SKIPPED;
    if (!mkdtemp(scratch)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_widths),
        cmocka_unit_test(test_bad_files_are_refused_by_name),
        cmocka_unit_test(test_xl_needs_both_halves),
        cmocka_unit_test(test_a_refiner_knows_them),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char *command = str_fmt("rm -rf '%s'", scratch);
    if (system(command) != 0) printf("%s is left\n", scratch);
    free(command);
    return failed;
}
