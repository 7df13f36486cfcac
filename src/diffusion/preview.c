#include "diffusion/preview.h"

#include <math.h>

/* A regression of pixels in -1..1 on latents, widely used with Stable Diffusion 1.x. */
static const float colours[4][3] = {
    {0.298f, 0.207f, 0.208f},
    {0.187f, 0.286f, 0.173f},
    {-0.158f, 0.189f, 0.264f},
    {-0.184f, -0.271f, -0.473f},
};

static unsigned char to_byte(float v) {
    return (unsigned char)lrintf(fminf(fmaxf((v + 1.0f) * 127.5f, 0.0f), 255.0f));
}

bool preview_render(const latent *z, image *out) {
    *out = (image){0};
    if (z->c != 4 || !image_alloc(out, z->w, z->h, 3)) return false;
    size_t plane = (size_t)z->w * (size_t)z->h;
    for (size_t i = 0; i < plane; i++) {
        for (int k = 0; k < 3; k++) {
            float v = 0.0f;
            for (size_t c = 0; c < 4; c++) v += colours[c][k] * z->data[c * plane + i];
            out->px[3 * i + (size_t)k] = to_byte(v);
        }
    }
    return true;
}
