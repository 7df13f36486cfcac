#include "diffusion/load/ip_adapter_form.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { SDXL_WIDTH = 2048, SD2_WIDTH = 1024, SD_CROSSES = 16, CROSSES_MAX = 256 };

void ip_adapter_key_name(int i, char out[IP_ADAPTER_NAME_MAX]) {
    snprintf(out, IP_ADAPTER_NAME_MAX, "ip_adapter.%d.to_k_ip", 2 * i + 1);
}

void ip_adapter_value_name(int i, char out[IP_ADAPTER_NAME_MAX]) {
    snprintf(out, IP_ADAPTER_NAME_MAX, "ip_adapter.%d.to_v_ip", 2 * i + 1);
}

static const tensor_info *key_of(const tensor_file *f, int i) {
    char layer[IP_ADAPTER_NAME_MAX], name[IP_ADAPTER_NAME_MAX + 8];
    ip_adapter_key_name(i, layer);
    snprintf(name, sizeof name, "%s.weight", layer);
    return tensor_file_find(f, name);
}

/* Stable Diffusion 1 and 2 have 16 cross-attentions, XL 70. */
static const char *family_of(int64_t width, int count) {
    if (width == SDXL_WIDTH || count > SD_CROSSES) return "sdxl";
    return width == SD2_WIDTH ? "sd2" : "sd1";
}

/* Those that need a face recognised, or read one in another way. */
static const char *unsupported(const tensor_file *f) {
    for (size_t i = 0; i < tensor_file_count(f); i++)
        if (strstr(tensor_file_at(f, i)->name, "_lora.")) return "IP-Adapter FaceID";
    if (tensor_file_find(f, "image_proj.perceiver_resampler.proj_in.weight")) return "IP-Adapter FaceID plus";
    if (tensor_file_find(f, "image_proj.proj.3.weight")) return "IP-Adapter full-face";
    if (tensor_file_find(f, "image_proj.proj.0.weight")) return "IP-Adapter FaceID";
    return NULL;
}

bool ip_adapter_form_read(const tensor_file *f, ip_adapter_form *out, err *e) {
    *out = (ip_adapter_form){.family = ""};
    const tensor_info *key = key_of(f, 0);
    if (!key) return err_set(e, ERR_UNSUPPORTED, "the file holds no IP-Adapter");
    out->is_ip_adapter = true;
    while (out->count < CROSSES_MAX && key_of(f, out->count)) out->count++;
    out->family = family_of(key->ne[0], out->count);
    const char *kind = unsupported(f);
    if (kind) return err_set(e, ERR_UNSUPPORTED, "%s: not supported yet", kind);
    out->has_resampler = tensor_file_find(f, "image_proj.latents") != NULL;
    return out->has_resampler || tensor_file_find(f, "image_proj.proj.weight") ||
           err_set(e, ERR_UNSUPPORTED, "IP-Adapter with an unknown projection of the picture");
}
