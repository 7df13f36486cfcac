/* Opening networks that are not whole: each tensor of a UNet, a VAE and a text encoder in turn is missing or has
 * another shape. All of it has to be noticed when the model is opened, for nothing is checked again while it computes.
 * The lists of tensors are those of the recorded parity vectors. */
#include "diffusion/load/tensor_file.h"
#include "diffusion/model/unet.h"
#include "diffusion/model/vae.h"
#include "diffusion/text/clip.h"

#include "base/buf.h"
#include "base/str.h"
#include "json/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef enum change { CHANGE_NONE, CHANGE_DROP, CHANGE_GROW } change;
typedef bool (*opens)(weights *w, backend *b, err *e);

static bool opens_unet(weights *w, backend *b, err *e) {
    unet *u = unet_open(w, b, e);
    unet_close(u);
    return u != NULL;
}

static bool opens_vae(weights *w, backend *b, err *e) {
    vae *v = vae_open(w, b, 1.0f, e);
    vae_close(v);
    return v != NULL;
}

static bool opens_clip(weights *w, backend *b, err *e) {
    clip *c = clip_open(w, b, &clip_sd1, e);
    clip_close(c);
    return c != NULL;
}

static bool opens_open_clip(weights *w, backend *b, err *e) {
    clip *c = clip_open(w, b, &clip_sd2, e);
    clip_close(c);
    return c != NULL;
}

static bool opens_sdxl_clip(weights *w, backend *b, err *e) {
    clip *c = clip_open(w, b, &clip_sdxl_g, e);
    clip_close(c);
    return c != NULL;
}

/* Appends the entry to the header; returns its bytes. */
static size_t put_entry(buf *header, yyjson_val *item, size_t from, bool grow) {
    size_t count = 1, k, n;
    yyjson_val *d;
    const char *name = yyjson_get_str(yyjson_arr_get(item, 0));
    assert_non_null(name);
    buf_printf(header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", header->len > 1 ? "," : "", name ? name : "");
    yyjson_arr_foreach(yyjson_arr_get(item, 1), k, n, d) {
        const size_t size = (size_t)yyjson_get_sint(d) + (grow && k == 0 ? 1 : 0);
        count *= size;
        buf_printf(header, "%s%zu", k ? "," : "", size);
    }
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", from, from + count * sizeof(float));
    return count * sizeof(float);
}

/* A file of the listed tensors with one changed. Its data is a hole: only names and shapes matter. */
static weights *changed(yyjson_val *list, size_t which, change how) {
    char path[] = "/tmp/mysti-networks-XXXXXX.safetensors";
    const int fd = mkstemps(path, 12);
    assert_true(fd >= 0);
    buf header;
    buf_init(&header, 1 << 20);
    buf_putc(&header, '{');
    size_t i, n, at = 0;
    yyjson_val *item;
    yyjson_arr_foreach(list, i, n, item) {
        if (i == which && how == CHANGE_DROP) continue;
        at += put_entry(&header, item, at, i == which && how == CHANGE_GROW);
    }
    buf_putc(&header, '}');
    while (header.len % 8) buf_putc(&header, ' ');
    const uint64_t length = header.len;
    assert_int_equal(write(fd, &length, 8), 8);
    assert_int_equal(write(fd, header.data, header.len), (ssize_t)header.len);
    assert_int_equal(ftruncate(fd, (off_t)(8 + header.len + at)), 0);
    close(fd);
    buf_free(&header);
    err e;
    weights *w = weights_open(&(weights_files){.model = path}, &e);
    unlink(path);
    if (!w) fail_msg("%s", e.msg);
    return w;
}

/* Some linear layers have no bias in some models, and nothing else tells. */
static bool may_be_missing(const char *name) {
    static const char *const linear[] = {"time_embed.", "label_emb.", "emb_layers.", "proj_",
                                         "to_out.",     "ff.net.",    "self_attn.",  "mlp.",
                                         "attn_1.q.",   "attn_1.k.",  "attn_1.v.",   "attn."};
    if (!str_ends(name, "bias")) return false;
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++)
        if (strstr(name, linear[i])) return true;
    return false;
}

static void check_all(const char *vector, opens open) {
    err e;
    char path[160];
    const char *listing = NULL;
    snprintf(path, sizeof path, "tests/parity/vectors/%s.safetensors", vector);
    tensor_file *f = tensor_file_open(path, &e);
    if (!f || !tensor_file_meta_str(f, "weights", &listing)) fail_msg("%s", path);
    yyjson_doc *doc = json_parse(listing, strlen(listing), &e);
    yyjson_val *list = yyjson_doc_get_root(doc);
    backend *b = backend_open("cpu", 1, &e);
    weights *w = changed(list, 0, CHANGE_NONE);
    if (!open(w, b, &e)) fail_msg("%s: %s", vector, e.msg);
    weights_close(w);
    for (size_t i = 0; i < 2 * yyjson_arr_size(list); i++) {
        const change how = i % 2 ? CHANGE_GROW : CHANGE_DROP;
        const char *name = yyjson_get_str(yyjson_arr_get(yyjson_arr_get(list, i / 2), 0));
        w = changed(list, i / 2, how);
        e.msg[0] = 0;
        if (open(w, b, &e)) {
            if (how != CHANGE_DROP || !may_be_missing(name)) fail_msg("%s: change %d not noticed", name, how);
        } else {
            assert_true(e.msg[0] && (e.code == ERR_FORMAT || e.code == ERR_NOT_FOUND || e.code == ERR_UNSUPPORTED));
        }
        weights_close(w);
    }
    backend_close(b);
    yyjson_doc_free(doc);
    tensor_file_close(f);
}

static void test_unet(void **state) {
    (void)state;
    check_all("unet_tiny", opens_unet);
    check_all("unet_sd2", opens_unet);
    check_all("unet_sdxl", opens_unet);
    check_all("unet_tiny_sd", opens_unet);
}

static void test_vae(void **state) {
    (void)state;
    check_all("vae_decode_tiny", opens_vae);
}

static void test_clip(void **state) {
    (void)state;
    check_all("clip_tiny", opens_clip);
    check_all("clip_sd2_tiny", opens_open_clip);
    check_all("clip_sdxl_g", opens_sdxl_clip);
}

/* Every network says that it is not there, whatever else is. */
static void test_nothing_there(void **state) {
    (void)state;
    err e;
    const char *list = "[[\"model.diffusion_model.other.weight\",[4,4]]]";
    yyjson_doc *doc = json_parse(list, strlen(list), &e);
    weights *w = changed(yyjson_doc_get_root(doc), 0, CHANGE_NONE);
    backend *b = backend_open("cpu", 1, &e);
    const opens all[] = {opens_unet, opens_vae, opens_clip};
    for (int i = 0; i < 3; i++) {
        assert_false(all[i](w, b, &e));
        assert_int_equal(e.code, ERR_NOT_FOUND);
    }
    backend_close(b);
    weights_close(w);
    yyjson_doc_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unet),
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_nothing_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
