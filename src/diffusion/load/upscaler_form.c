/* upscaler_form.c - see upscaler_form.h. */
#include "diffusion/load/upscaler_form.h"

#include <stdio.h>

/* BasicSR's names; those of the first ESRGAN; and the numbers that torch.nn.Sequential gave before. */
enum { NAMED, FIRST_NAMES, NUMBERED, NAMINGS };

enum { COLOURS = 3, SHRINK_MAX = 4 };

/* --- names --- */

static void plain(char out[UPSCALER_NAME_MAX], const upscaler_form *u, const char *named, const char *first,
                  int number) {
    if (u->naming == NUMBERED)
        snprintf(out, UPSCALER_NAME_MAX, "model.%d", number);
    else
        snprintf(out, UPSCALER_NAME_MAX, "%s", u->naming == NAMED ? named : first);
}

void upscaler_name_first(const upscaler_form *u, char out[UPSCALER_NAME_MAX]) {
    plain(out, u, "conv_first", "conv_first", 0);
}

void upscaler_name_dense(const upscaler_form *u, int block, int third, int conv, char out[UPSCALER_NAME_MAX]) {
    if (u->naming == NAMED)
        snprintf(out, UPSCALER_NAME_MAX, "body.%d.rdb%d.conv%d", block, third + 1, conv + 1);
    else if (u->naming == FIRST_NAMES)
        snprintf(out, UPSCALER_NAME_MAX, "RRDB_trunk.%d.RDB%d.conv%d", block, third + 1, conv + 1);
    else
        snprintf(out, UPSCALER_NAME_MAX, "model.1.sub.%d.RDB%d.conv%d.0", block, third + 1, conv + 1);
}

void upscaler_name_body(const upscaler_form *u, char out[UPSCALER_NAME_MAX]) {
    if (u->naming == NUMBERED)
        snprintf(out, UPSCALER_NAME_MAX, "model.1.sub.%d", u->blocks);
    else
        plain(out, u, "conv_body", "trunk_conv", 0);
}

/* Each doubling counts for three: the enlarging, the convolution, the activation. */
void upscaler_name_up(const upscaler_form *u, int index, char out[UPSCALER_NAME_MAX]) {
    if (u->naming == NUMBERED)
        snprintf(out, UPSCALER_NAME_MAX, "model.%d", 3 * (index + 1));
    else
        snprintf(out, UPSCALER_NAME_MAX, "%s%d", u->naming == NAMED ? "conv_up" : "upconv", index + 1);
}

void upscaler_name_full(const upscaler_form *u, char out[UPSCALER_NAME_MAX]) {
    plain(out, u, "conv_hr", "HRconv", 3 * u->ups + 2);
}

void upscaler_name_last(const upscaler_form *u, char out[UPSCALER_NAME_MAX]) {
    plain(out, u, "conv_last", "conv_last", 3 * u->ups + 4);
}

/* --- shapes --- */

static const tensor_info *find_conv(const tensor_file *f, const char *layer) {
    char name[UPSCALER_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s.weight", layer);
    const tensor_info *t = tensor_file_find(f, name);
    return t && t->n_dims == 4 ? t : NULL;
}

static bool has_dense(const tensor_file *f, const upscaler_form *u, int block) {
    char name[UPSCALER_NAME_MAX];
    upscaler_name_dense(u, block, 0, 0, name);
    return find_conv(f, name) != NULL;
}

static void count_ups(const tensor_file *f, upscaler_form *u) {
    char name[UPSCALER_NAME_MAX];
    for (u->ups = 0; u->ups <= UPSCALER_UPS_MAX; u->ups++) {
        if (u->naming == NUMBERED) { /* the number of the last convolution tells */
            upscaler_name_last(u, name);
            if (find_conv(f, name) && find_conv(f, name)->ne[3] == COLOURS) return;
        } else {
            upscaler_name_up(u, u->ups, name);
            if (!find_conv(f, name)) return;
        }
    }
}

static bool read_rrdb(const tensor_file *f, upscaler_form *u, err *e) {
    char name[UPSCALER_NAME_MAX];
    u->kind = UPSCALER_RRDB;
    while (u->blocks <= UPSCALER_BLOCKS_MAX && has_dense(f, u, u->blocks)) u->blocks++;
    count_ups(f, u);
    if (u->blocks > UPSCALER_BLOCKS_MAX || u->ups > UPSCALER_UPS_MAX)
        return err_set(e, ERR_UNSUPPORTED, "an upscaler with more than %d blocks or %d doublings", UPSCALER_BLOCKS_MAX,
                       UPSCALER_UPS_MAX);
    upscaler_name_first(u, name);
    const tensor_info *first = find_conv(f, name);
    const int64_t channels = first ? first->ne[2] : 0;
    for (u->shrink = 1; u->shrink <= SHRINK_MAX; u->shrink *= 2)
        if (channels == COLOURS * u->shrink * u->shrink) break;
    if (u->shrink > SHRINK_MAX || (1 << u->ups) < u->shrink)
        return err_set(e, ERR_UNSUPPORTED, "an upscaler that takes %d channels, not three colours", (int)channels);
    u->scale = (1 << u->ups) / u->shrink;
    return true;
}

static bool read_compact(const tensor_file *f, upscaler_form *u, err *e) {
    char name[UPSCALER_NAME_MAX];
    const tensor_info *last = NULL;
    int convs = 0;
    u->kind = UPSCALER_COMPACT;
    for (; convs <= UPSCALER_BLOCKS_MAX + 2; convs++) {
        snprintf(name, sizeof name, "body.%d", 2 * convs);
        const tensor_info *t = find_conv(f, name);
        if (!t) break;
        last = t;
    }
    u->blocks = convs - 2;
    u->shrink = 1;
    if (u->blocks < 0 || u->blocks > UPSCALER_BLOCKS_MAX)
        return err_set(e, ERR_UNSUPPORTED, "a compact upscaler of %d convolutions", convs);
    for (u->scale = 1; u->scale <= 8; u->scale++)
        if (last->ne[3] == COLOURS * u->scale * u->scale) return true;
    return err_set(e, ERR_UNSUPPORTED, "a compact upscaler that gives %d channels", (int)last->ne[3]);
}

/* Slopes of an activation behind the first of a stack of convolutions. */
static bool is_compact(const tensor_file *f) {
    const tensor_info *first = find_conv(f, "body.0"), *slopes = tensor_file_find(f, "body.1.weight");
    return first && slopes && slopes->n_dims == 1 && slopes->ne[0] == first->ne[3] && first->ne[2] == COLOURS;
}

bool upscaler_form_read(const tensor_file *f, upscaler_form *out, err *e) {
    *out = (upscaler_form){0};
    for (out->naming = 0; out->naming < NAMINGS; out->naming++)
        if (has_dense(f, out, 0)) return read_rrdb(f, out, e);
    out->naming = 0;
    return !is_compact(f) || read_compact(f, out, e);
}
