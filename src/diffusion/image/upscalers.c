#include "diffusion/image/upscalers.h"

#include "base/str.h"

#include <stddef.h>
#include <string.h>

const char *const upscaler_names[] = {"latent",
                                      "latent-antialiased",
                                      "latent-bicubic",
                                      "latent-bicubic-antialiased",
                                      "latent-nearest",
                                      "latent-nearest-exact",
                                      "lanczos",
                                      "nearest",
                                      NULL};

static const upscaler upscalers[] = {
    {"latent", "Latent", UPSCALE_LATENTS, RESAMPLE_BILINEAR},
    {"latent-antialiased", "Latent (antialiased)", UPSCALE_LATENTS, RESAMPLE_BILINEAR_ANTIALIAS},
    {"latent-bicubic", "Latent (bicubic)", UPSCALE_LATENTS, RESAMPLE_BICUBIC},
    {"latent-bicubic-antialiased", "Latent (bicubic antialiased)", UPSCALE_LATENTS, RESAMPLE_BICUBIC_ANTIALIAS},
    {"latent-nearest", "Latent (nearest)", UPSCALE_LATENTS, RESAMPLE_NEAREST},
    {"latent-nearest-exact", "Latent (nearest-exact)", UPSCALE_LATENTS, RESAMPLE_NEAREST_EXACT},
    {"lanczos", "Lanczos", UPSCALE_PIXELS_LANCZOS, 0},
    {"nearest", "Nearest", UPSCALE_PIXELS_NEAREST, 0},
};

const upscaler *upscaler_find(const char *name) {
    for (size_t i = 0; i < sizeof upscalers / sizeof *upscalers; i++)
        if (str_ieq(name, upscalers[i].name) || str_ieq(name, upscalers[i].label)) return &upscalers[i];
    return NULL;
}

static bool enlarge_nearest(const image *small, int width, int height, image *out) {
    if (!image_alloc(out, width, height, small->channels)) return false;
    const size_t channels = (size_t)small->channels;
    unsigned char *to = out->px;
    for (int y = 0; y < height; y++) {
        const size_t row = (size_t)y * (size_t)small->height / (size_t)height * (size_t)small->width;
        for (int x = 0; x < width; x++, to += channels)
            memcpy(to, small->px + (row + (size_t)x * (size_t)small->width / (size_t)width) * channels, channels);
    }
    return true;
}

bool upscaler_enlarge(const upscaler *u, const image *small, int width, int height, image *out) {
    return u->space == UPSCALE_PIXELS_NEAREST ? enlarge_nearest(small, width, height, out)
                                              : image_resize(out, small, width, height);
}
