#include "diffusion/load/lora_names.h"

#include "base/str.h"
#include "diffusion/load/tensor_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY = 1280 };
static const char WEIGHT[] = ".weight";

/* The layer's name without ".weight", with '_' for '.', behind the component. */
static void add_key(lora_names *n, const char *component, const char *name, size_t index) {
    char key[KEY];
    const int len = (int)(strlen(name) - strlen(WEIGHT));
    if (snprintf(key, sizeof key, "%s%.*s", component, len, name) >= (int)sizeof key) return;
    for (char *p = key; *p; p++)
        if (*p == '.') *p = '_';
    char *kept = str_dup(key);
    if (name_index_put(&n->by_key, kept, index))
        n->keys[n->count++] = kept;
    else
        free(kept);
}

static bool unet_has(const void *ctx, const char *start) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", tensor_component_prefix(COMPONENT_DIFFUSION), start);
    return weights_has_prefix(ctx, full);
}

static void add_unet(lora_names *n, const tensor_names_places *places, const char *name, size_t index) {
    char nested[KEY];
    add_key(n, "unet_", name, index);
    if (tensor_names_to_diffusers(places, name, nested, sizeof nested)) add_key(n, "unet_", nested, index);
}

static void add_name(lora_names *n, const tensor_names_places *places, const char *name, size_t index) {
    static const struct {
        tensor_component component;
        const char *key;
    } TEXT[] = {{COMPONENT_CLIP_L, "te_"}, {COMPONENT_CLIP_G, "te2_"}};
    if (!str_ends(name, WEIGHT)) return;
    const char *unet = tensor_component_prefix(COMPONENT_DIFFUSION);
    if (str_starts(name, unet)) add_unet(n, places, name + strlen(unet), index);
    for (size_t i = 0; i < sizeof TEXT / sizeof *TEXT; i++) {
        const char *prefix = tensor_component_prefix(TEXT[i].component);
        if (str_starts(name, prefix)) add_key(n, TEXT[i].key, name + strlen(prefix), index);
    }
}

void lora_names_init(lora_names *n, const weights *w) {
    tensor_names_places places = {0};
    tensor_names_find_places(&places, unet_has, w);
    *n = (lora_names){.w = w, .keys = mem_alloc(2 * weights_size(w), sizeof *n->keys)};
    for (size_t i = 0; i < weights_size(w); i++) add_name(n, &places, weights_name(w, i), i);
}

void lora_names_free(lora_names *n) {
    for (size_t i = 0; i < n->count; i++) free(n->keys[i]);
    free(n->keys);
    name_index_free(&n->by_key);
    *n = (lora_names){0};
}

const char *lora_names_find(const lora_names *n, const char *key) {
    size_t i;
    return name_index_get(&n->by_key, key, &i) ? weights_asked(n->w, weights_name(n->w, i)) : NULL;
}
