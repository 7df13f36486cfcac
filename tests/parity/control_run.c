/* control_run - ControlNets over numbers from a file, for comparison with a reference (tools/ref/controlnet.py).
 *
 *     control_run unet UNET IN OUT [CONTROLNET WEIGHT]...
 *         IN: safetensors with what case_input() reads, and a picture "hint0", "hint1", ... [1, 3, 8 h, 8 w] for each
 *         ControlNet; OUT: what the UNet says with all of them, as floats
 *     control_run canny LOW HIGH W H CHANNELS IN OUT
 *         bytes, as they are in memory */
#include "base/file.h"
#include "base/str.h"
#include "diffusion/image/canny.h"
#include "diffusion/model/controlnet.h"
#include "unet_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FACTOR = 8 };

/* Adds one ControlNet's share to sum. */
static bool add_control(backend *b, const unet *u, const tensor_file *f, const unet_input *in, int index,
                        const char *path, const char *weight, float *sum, err *e) {
    char name[16];
    double w = 1;
    snprintf(name, sizeof name, "hint%d", index);
    const float *rgb = case_numbers(f, name, NULL);
    if (!rgb || !str_to_f64(weight, &w)) return err_set(e, ERR_INVALID, "no '%s', or no weight", name);
    controlnet *c = controlnet_open(path, unet_first_half(u), LATENT, b, e);
    if (!c) return false;
    const size_t n = (size_t)in->n * control_values(unet_first_half(u), in->h, in->w);
    float *hint = mem_alloc(controlnet_hint_values(c, in->h, in->w), sizeof *hint), *one = mem_alloc(n, sizeof *one);
    const bool ok =
        controlnet_hint(c, rgb, in->w * FACTOR, in->h * FACTOR, hint, e) && controlnet_eval(c, in, hint, one, e);
    for (size_t i = 0; ok && i < n; i++) sum[i] += (float)w * one[i];
    free(hint);
    free(one);
    controlnet_close(c);
    return ok;
}

static bool ask(backend *b, unet *u, const tensor_file *f, int argc, char **argv, err *e) {
    unet_input in = case_input(f);
    const size_t values = (size_t)in.n * LATENT * (size_t)in.h * (size_t)in.w;
    float *sum = mem_alloc((size_t)in.n * control_values(unet_first_half(u), in.h, in.w), sizeof *sum);
    float *out = mem_alloc(values, sizeof *out);
    bool ok = true;
    for (int i = 5; ok && i + 1 < argc; i += 2)
        ok = add_control(b, u, f, &in, (i - 5) / 2, argv[i], argv[i + 1], sum, e);
    if (argc > 5) in.control = sum;
    ok = ok && unet_eval(u, &in, out, e) && file_write_atomic(argv[4], out, values * sizeof *out, e);
    free(out);
    free(sum);
    return ok;
}

static bool run_unet(int argc, char **argv, err *e) {
    unet_case c;
    tensor_file *f = unet_case_open(&c, argv[2], e) ? tensor_file_open(argv[3], e) : NULL;
    const bool ok = f && ask(c.b, c.u, f, argc, argv, e);
    tensor_file_close(f);
    unet_case_close(&c);
    return ok;
}

static bool run_canny(char **argv, err *e) {
    int64_t v[5] = {0};
    for (int i = 0; i < 5; i++)
        if (!str_to_i64(argv[2 + i], &v[i])) return err_set(e, ERR_INVALID, "'%s' is no number", argv[2 + i]);
    image in = {0}, out = {0};
    buf bytes;
    buf_init(&bytes, 1 << 28);
    bool ok = image_alloc(&in, (int)v[2], (int)v[3], (int)v[4]) && file_read(argv[7], &bytes, e) &&
              (bytes.len == image_bytes(&in) || err_set(e, ERR_FORMAT, "'%s' has another size", argv[7]));
    if (ok) memcpy(in.px, bytes.data, bytes.len);
    ok = ok && canny(&out, &in, (int)v[0], (int)v[1]) && file_write_atomic(argv[8], out.px, image_bytes(&out), e);
    buf_free(&bytes);
    image_free(&in);
    image_free(&out);
    return ok;
}

int main(int argc, char **argv) {
    err e = {0};
    bool ok;
    if (argc >= 5 && argc % 2 == 1 && str_eq(argv[1], "unet")) {
        ok = run_unet(argc, argv, &e);
    } else if (argc == 9 && str_eq(argv[1], "canny")) {
        ok = run_canny(argv, &e);
    } else {
        fprintf(stderr,
                "usage: control_run unet UNET IN OUT [CONTROLNET WEIGHT]... | canny LOW HIGH W H CHANNELS IN OUT\n");
        return 2;
    }
    if (!ok) fprintf(stderr, "control_run: %s\n", e.msg);
    return ok ? 0 : 1;
}
