#include "diffusion/family.h"

#include "base/str.h"

#include <stddef.h>

static const family families[] = {
    {"sd1", {&clip_sd1}, .vae_scale = 0.18215f},
    {"sd2", {&clip_sd2}, .vae_scale = 0.18215f},
    {"sdxl", {&clip_sdxl_l, &clip_sdxl_g}, .vae_scale = 0.13025f, .label = LABEL_SIZE, .is_silence_zero = true},
    {"sdxl-refiner", {&clip_sdxl_g}, .vae_scale = 0.13025f, .label = LABEL_SCORE, .is_silence_zero = true},
};

const family *family_find(const char *name) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (str_eq(families[i].name, name)) return &families[i];
    return NULL;
}
