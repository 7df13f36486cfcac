/* ip_adapter_form.h - what kind of IP-Adapter a file holds (Ye et al. 2023), told from its tensors' names and shapes:
 * "image_proj.*", which makes tokens of a picture's encoding, and "ip_adapter.N.to_k_ip.weight", "...to_v_ip.weight"
 * for each cross-attention of the UNet; N is odd, for diffusers counts self-attentions, too. */
#ifndef MYSTI_DIFFUSION_LOAD_IP_ADAPTER_FORM_H
#define MYSTI_DIFFUSION_LOAD_IP_ADAPTER_FORM_H

#include "diffusion/load/tensor_file.h"

enum { IP_ADAPTER_NAME_MAX = 48 };

typedef struct ip_adapter_form {
    bool is_ip_adapter; /* it is one, be it of a kind that we cannot do */
    bool has_resampler; /* the plus kind: a small transformer reads all patches; else a projection of the whole */
    const char *family; /* static: "sd1", "sd2", "sdxl" */
    int count;          /* cross-attentions */
} ip_adapter_form;

/* False, with a reason, when it is none (is_ip_adapter false), or one that we cannot do: "IP-Adapter FaceID". */
bool ip_adapter_form_read(const tensor_file *f, ip_adapter_form *out, err *e);

/* Of the layer for cross-attention i, without ".weight". */
void ip_adapter_key_name(int i, char out[IP_ADAPTER_NAME_MAX]);
void ip_adapter_value_name(int i, char out[IP_ADAPTER_NAME_MAX]);

#endif
