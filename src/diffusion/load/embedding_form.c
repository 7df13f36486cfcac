#include "diffusion/load/embedding_form.h"

#include "base/str.h"

#include <string.h>

static bool is_encoder_width(int64_t width) {
    return width == 768 || width == 1024 || width == 1280;
}

/* diffusers' concepts: one tensor, called as the word that was trained ("<cat-toy>"). */
static const tensor_info *find_concept(const tensor_file *f) {
    const tensor_info *t = tensor_file_count(f) == 1 ? tensor_file_at(f, 0) : NULL;
    if (!t || t->n_dims < 1 || t->n_dims > 2) return NULL;
    const bool is_marked = t->name[0] == '<' && str_ends(t->name, ">");
    return is_marked || (is_encoder_width(t->ne[0]) && !strchr(t->name, '.')) ? t : NULL;
}

/* A1111's own and the first trainer's: "string_to_param", with "*" or the trained word in it. */
static const tensor_info *find_param(const tensor_file *f, int *count) {
    const tensor_info *first = NULL;
    *count = 0;
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        const tensor_info *t = tensor_file_at(f, i);
        if (!str_starts(t->name, "string_to_param.")) continue;
        if (!first) first = t;
        ++*count;
    }
    return first;
}

/* *terms: how many trained words the file holds. */
static bool find(const tensor_file *f, embedding_form *out, int *terms) {
    *out = (embedding_form){.only = tensor_file_find(f, "emb_params")};
    *terms = 1;
    if (out->only || (out->only = find_param(f, terms))) return true;
    if (tensor_file_count(f) <= 2) {
        out->clip_l = tensor_file_find(f, "clip_l");
        out->clip_g = tensor_file_find(f, "clip_g");
    }
    if (!out->clip_l && !out->clip_g) out->only = find_concept(f);
    *terms = 1;
    return out->only || out->clip_l || out->clip_g;
}

bool embedding_form_is(const tensor_file *f) {
    embedding_form form;
    int terms;
    return find(f, &form, &terms);
}

static bool check(const tensor_info *t, int *vectors, err *e) {
    if (!t) return true;
    const int64_t count = t->n_dims == 1 ? 1 : t->ne[1];
    if (t->n_dims < 1 || t->n_dims > 2 || t->ne[0] < 1 || count < 1)
        return err_set(e, ERR_FORMAT, "tensor '%.60s' is no list of vectors", t->name);
    if (t->type != TENSOR_F32 && t->type != TENSOR_F16 && t->type != TENSOR_BF16)
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.60s': numbers of type %s are not supported", t->name,
                       tensor_type_name(t->type));
    if (count > EMBEDDING_VECTORS_MAX)
        return err_set(e, ERR_UNSUPPORTED, "%lld vectors are more than the %d of a chunk", (long long)count,
                       EMBEDDING_VECTORS_MAX);
    if (*vectors && *vectors != count)
        return err_set(e, ERR_FORMAT, "%d vectors for one text encoder, %lld for the other", *vectors,
                       (long long)count);
    *vectors = (int)count;
    return true;
}

bool embedding_form_read(const tensor_file *f, embedding_form *out, err *e) {
    int terms;
    if (!find(f, out, &terms)) return err_set(e, ERR_FORMAT, "no textual inversion in it");
    if (terms > 1) return err_set(e, ERR_UNSUPPORTED, "%d trained words in one file; one is supported", terms);
    return check(out->only, &out->vectors, e) && check(out->clip_l, &out->vectors, e) &&
           check(out->clip_g, &out->vectors, e);
}

const char *embedding_form_family(const embedding_form *form) {
    if (form->clip_g) return "sdxl";
    const int64_t width = form->only ? form->only->ne[0] : form->clip_l ? form->clip_l->ne[0] : 0;
    return width == 1024 ? "sd2" : width == 1280 ? "sdxl-refiner" : "sd1";
}
