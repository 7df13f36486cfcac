/* adapter_run UNET ADAPTER VISION IN WEIGHT OUT - an IP-Adapter over numbers from a file, for comparison with a
 * reference (tools/ref/ip_adapter.py).
 *
 * IN: safetensors with x [2, 4, h, w], t, context, perhaps label, and a picture "rgb" [h, w, 3] of 0..255. The first
 * of the batch is shown the picture, the second none. OUT: the tokens of both, then what the UNet says, as floats. */
#include "base/file.h"
#include "base/str.h"
#include "diffusion/model/ip_adapter.h"
#include "unet_case.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 2 };

static bool read_picture(const tensor_file *f, image *out) {
    int64_t ne[4];
    const float *rgb = case_numbers(f, "rgb", ne);
    if (!rgb || !image_alloc(out, (int)ne[1], (int)ne[2], 3)) return false;
    for (size_t i = 0; i < image_bytes(out); i++) out->px[i] = (unsigned char)rgb[i];
    return true;
}

static bool ask(unet *u, ip_adapter *a, clip_vision *v, const tensor_file *f, double weight, const char *path, err *e) {
    unet_input in = case_input(f);
    const size_t values = BATCH * LATENT * (size_t)in.h * (size_t)in.w;
    const size_t one = (size_t)ip_adapter_tokens(a) * (size_t)unet_describe(u).context_dim;
    image picture = {0};
    float *all = mem_alloc(BATCH * one + values, sizeof *all), *out = all + BATCH * one;
    const unet_image shown = {ip_adapter_layers(a), all, ip_adapter_tokens(a), (float)weight};
    in.image = &shown;
    const bool ok = read_picture(f, &picture) && ip_adapter_encode(a, v, &picture, all, all + one, e) &&
                    unet_eval(u, &in, out, e) && file_write_atomic(path, all, (BATCH * one + values) * sizeof *all, e);
    image_free(&picture);
    free(all);
    return ok;
}

static bool run(char **argv, err *e) {
    double weight = 0;
    unet_case c;
    ip_adapter *a = unet_case_open(&c, argv[1], e) ? ip_adapter_open(argv[2], c.u, c.b, e) : NULL;
    clip_vision *v = a ? clip_vision_open(argv[3], c.b, e) : NULL;
    tensor_file *f = v && str_to_f64(argv[5], &weight) ? tensor_file_open(argv[4], e) : NULL;
    const bool ok = f && ask(c.u, a, v, f, weight, argv[6], e);
    tensor_file_close(f);
    clip_vision_close(v);
    ip_adapter_close(a);
    unet_case_close(&c);
    return ok;
}

int main(int argc, char **argv) {
    err e = {0};
    if (argc != 7) {
        fprintf(stderr, "usage: adapter_run UNET ADAPTER VISION IN WEIGHT OUT\n");
        return 2;
    }
    const bool ok = run(argv, &e);
    if (!ok) fprintf(stderr, "adapter_run: %s\n", e.msg);
    return ok ? 0 : 1;
}
