#include "diffusion/load/lora_file.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/tensor_convert.h"
#include "diffusion/load/tensor_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lora_file {
    tensor_file *file;
    lora_module *modules;
    size_t count, cap;
    name_index by_key;
};

/* --- names ------------------------------------------------------------------------------------------------------- */

typedef struct ending {
    const char *text;
    lora_part part;
} ending;

static const ending ENDINGS[] = {
    {".lora_up.weight", LORA_UP},
    {".lora_down.weight", LORA_DOWN},
    {".lora_mid.weight", LORA_MID},
    {".lora_B.weight", LORA_UP}, /* PEFT */
    {".lora_A.weight", LORA_DOWN},
    {".lora_B.default.weight", LORA_UP},
    {".lora_A.default.weight", LORA_DOWN},
    {".lora_magnitude_vector.default.weight", LORA_DORA},
    {".lora_magnitude_vector.weight", LORA_DORA},
    {".lora_magnitude_vector", LORA_DORA},
    {".lora.up.weight", LORA_UP}, /* diffusers, of several years */
    {".lora.down.weight", LORA_DOWN},
    {".lora_linear_layer.up.weight", LORA_UP},
    {".lora_linear_layer.down.weight", LORA_DOWN},
    {"_lora.up.weight", LORA_UP},
    {"_lora.down.weight", LORA_DOWN},
    {".alpha", LORA_ALPHA},
    {".scale", LORA_SCALE},
    {".dora_scale", LORA_DORA},
    {".hada_w1_a", LORA_HADA_W1_A},
    {".hada_w1_b", LORA_HADA_W1_B},
    {".hada_w2_a", LORA_HADA_W2_A},
    {".hada_w2_b", LORA_HADA_W2_B},
    {".hada_t1", LORA_HADA_T1},
    {".hada_t2", LORA_HADA_T2},
    {".lokr_w1", LORA_LOKR_W1},
    {".lokr_w1_a", LORA_LOKR_W1_A},
    {".lokr_w1_b", LORA_LOKR_W1_B},
    {".lokr_w2", LORA_LOKR_W2},
    {".lokr_w2_a", LORA_LOKR_W2_A},
    {".lokr_w2_b", LORA_LOKR_W2_B},
    {".lokr_t2", LORA_LOKR_T2},
    {".diff", LORA_DIFF},
    {".diff_b", LORA_DIFF_BIAS},
    {".w_norm", LORA_DIFF},
    {".b_norm", LORA_DIFF_BIAS},
};

typedef struct beginning {
    const char *text, *key;
} beginning;

/* The first that fits wins; without one a name is the UNet's. */
static const beginning BEGINNINGS[] = {
    {"lora_unet_", "unet_"},
    {"lora_te1_", "te_"},
    {"lora_te2_", "te2_"},
    {"lora_te_", "te_"},
    {"base_model.model.", "unet_"},
    {"model.diffusion_model.", "unet_"},
    {"diffusion_model.", "unet_"},
    {"unet.", "unet_"},
    {"text_encoder_2.", "te2_"},
    {"text_encoder.", "te_"},
    {"text_encoders.clip_l.transformer.", "te_"},
    {"text_encoders.clip_g.transformer.", "te2_"},
    {"clip_l.transformer.", "te_"},
    {"clip_g.transformer.", "te2_"},
};

/* What an attention's projections were called when its processor held the LoRA ("attn1.processor.to_out_lora"). */
static const beginning TAILS[] = {
    {"_self_attn_to_q", "_self_attn_q_proj"},
    {"_self_attn_to_k", "_self_attn_k_proj"},
    {"_self_attn_to_v", "_self_attn_v_proj"},
    {"_self_attn_to_out", "_self_attn_out_proj"},
    {"_to_out", "_to_out_0"},
};

/* Cuts the known ending off: the length of what is before it, 0 when there is none. */
static size_t cut_ending(const char *name, lora_part *part) {
    const size_t len = strlen(name);
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++) {
        if (!str_ends(name, ENDINGS[i].text)) continue;
        *part = ENDINGS[i].part;
        return len - strlen(ENDINGS[i].text);
    }
    return 0;
}

static const char *skip_beginning(const char *name, const char **key) {
    *key = "unet_";
    for (size_t i = 0; i < sizeof BEGINNINGS / sizeof *BEGINNINGS; i++) {
        if (!str_starts(name, BEGINNINGS[i].text)) continue;
        *key = BEGINNINGS[i].key;
        return name + strlen(BEGINNINGS[i].text);
    }
    return name;
}

static void swap_tail(char *key, size_t cap) {
    for (size_t i = 0; i < sizeof TAILS / sizeof *TAILS; i++) {
        if (!str_ends(key, TAILS[i].text)) continue;
        const size_t at = strlen(key) - strlen(TAILS[i].text);
        str_copy(key + at, cap - at, TAILS[i].key);
        return;
    }
}

static void make_key(const char *name, size_t len, char *out, size_t cap) {
    static const char processor[] = ".processor.";
    char *stem = str_ndup(name, len), *found = strstr(stem, processor);
    if (found) memmove(found + 1, found + strlen(processor), strlen(found + strlen(processor)) + 1);
    const char *key, *rest = skip_beginning(stem, &key);
    snprintf(out, cap, "%s%s", key, rest);
    for (char *p = out; *p; p++)
        if (*p == '.') *p = '_';
    swap_tail(out, cap);
    free(stem);
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static lora_module *module_of(lora_file *f, const char *key) {
    size_t i;
    if (name_index_get(&f->by_key, key, &i)) return &f->modules[i];
    if (f->count == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 256;
        f->modules = mem_resize(f->modules, f->cap * sizeof *f->modules);
    }
    lora_module *m = &f->modules[f->count];
    *m = (lora_module){.key = str_dup(key)};
    name_index_put(&f->by_key, m->key, f->count++);
    return m;
}

/* What people call a kind that is known and not done. */
static const char *foreign_kind(const char *name) {
    static const char *const KINDS[][2] = {{".oft_", "OFT"},
                                           {".boft_", "BOFT"},
                                           {".on_input", "IA3"},
                                           {".a1.weight", "GLoRA"},
                                           {".lora_a", "a language model's adapter"}};
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strstr(name, KINDS[i][0])) return KINDS[i][1];
    return "this kind of tensor";
}

static bool add_tensor(lora_file *f, const tensor_info *t, err *e) {
    char key[TENSOR_NAME_MAX + 16];
    lora_part part;
    if (str_starts(t->name, "bundle_emb.")) return true; /* a textual inversion that came along */
    const size_t len = cut_ending(t->name, &part);
    if (!len)
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': %s is not supported; LoRA, LoCon, LoHa, LoKr, DoRA are",
                       t->name, foreign_kind(t->name));
    make_key(t->name, len, key, sizeof key);
    lora_module *m = module_of(f, key);
    if (m->part[part]) return err_set(e, ERR_FORMAT, "tensor '%.100s' names a part of which there is one", t->name);
    m->part[part] = t;
    return true;
}

static bool has_factor(const lora_module *m, lora_part whole, lora_part a, lora_part b) {
    return m->part[whole] || (m->part[a] && m->part[b]);
}

static bool is_complete(const lora_module *m) {
    if (m->part[LORA_UP] || m->part[LORA_DOWN]) return m->part[LORA_UP] && m->part[LORA_DOWN];
    if (m->part[LORA_HADA_W1_A])
        return m->part[LORA_HADA_W1_B] && m->part[LORA_HADA_W2_A] && m->part[LORA_HADA_W2_B] &&
               !m->part[LORA_HADA_T1] == !m->part[LORA_HADA_T2];
    if (m->part[LORA_DIFF] || m->part[LORA_DIFF_BIAS]) return true;
    return has_factor(m, LORA_LOKR_W1, LORA_LOKR_W1_A, LORA_LOKR_W1_B) &&
           has_factor(m, LORA_LOKR_W2, LORA_LOKR_W2_A, LORA_LOKR_W2_B);
}

static bool fill(lora_file *f, err *e) {
    for (size_t i = 0; i < tensor_file_count(f->file); i++)
        if (!add_tensor(f, tensor_file_at(f->file, i), e)) return false;
    for (size_t i = 0; i < f->count; i++)
        if (!is_complete(&f->modules[i]))
            return err_set(e, ERR_FORMAT, "the tensors of '%.120s' are incomplete", f->modules[i].key);
    return f->count || err_set(e, ERR_FORMAT, "no LoRA in it");
}

lora_file *lora_file_open(const char *path, err *e) {
    tensor_file *file = tensor_file_open(path, e);
    if (!file) return NULL;
    lora_file *f = mem_alloc(1, sizeof *f);
    f->file = file;
    if (fill(f, e)) return f;
    err_wrap(e, "'%.60s'", path_base(path));
    lora_file_close(f);
    return NULL;
}

void lora_file_close(lora_file *f) {
    if (!f) return;
    for (size_t i = 0; i < f->count; i++) free(f->modules[i].key);
    free(f->modules);
    name_index_free(&f->by_key);
    tensor_file_close(f->file);
    free(f);
}

size_t lora_file_count(const lora_file *f) {
    return f->count;
}

const lora_module *lora_file_at(const lora_file *f, size_t i) {
    return &f->modules[i];
}

const tensor_file *lora_file_tensors(const lora_file *f) {
    return f->file;
}

float *lora_file_read(const lora_file *f, const tensor_info *part, err *e) {
    if (!tensor_convert_can(part->type) || tensor_type_is_quantized(part->type)) {
        err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': type %s is not supported in a LoRA", part->name,
                tensor_type_name(part->type));
        return NULL;
    }
    const int64_t total = part->ne[0] * part->ne[1] * part->ne[2] * part->ne[3];
    const char *from = tensor_file_data(f->file, part);
    const int64_t size = tensor_type_block_bytes(part->type);
    float *out = mem_alloc((size_t)total, sizeof *out);
    for (int64_t at = 0; at < total; at += TENSOR_CONVERT_PIECE) {
        const int64_t n = total - at < TENSOR_CONVERT_PIECE ? total - at : TENSOR_CONVERT_PIECE;
        tensor_convert_f32(part->type, from + at * size, out + at, n);
    }
    return out;
}
