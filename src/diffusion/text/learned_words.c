#include "diffusion/text/learned_words.h"

#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/embedding_form.h"
#include "diffusion/load/tensor_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct learned_words {
    prompt_word *items; /* [count]; their tokens are owned */
    prompt_words names;
    const float *vectors[TEXT_ENCODERS_MAX]; /* owned */
    int count;                               /* of vectors */
};

/* The tensor for one encoder of `encoders`; NULL when the file has none of its width. */
static const tensor_info *tensor_for(const embedding_form *form, const clip *c, int encoders) {
    const bool is_g = str_eq(clip_form_of(c)->option, "clip_g");
    const tensor_info *t = is_g ? form->clip_g : form->clip_l;
    if (!t && encoders == 1) t = form->only;
    if (encoders == 1 && !is_g && form->clip_g) t = NULL; /* its other half would be missing */
    return t && t->ne[0] == clip_dim(c) ? t : NULL;
}

static bool fits(const embedding_form *form, const text_encoders *t) {
    const int encoders = text_encoders_count(t);
    for (int i = 0; i < encoders; i++)
        if (!tensor_for(form, text_encoders_at(t, i), encoders)) return false;
    return true;
}

/* --- the vectors ------------------------------------------------------------------------------------------------- */

/* Behind those that there are. */
static bool add_vectors(learned_words *w, int encoder, const tensor_file *f, const tensor_info *t, err *e) {
    const size_t dim = (size_t)t->ne[0], had = (size_t)w->count * dim;
    const size_t count = dim * (size_t)(t->n_dims == 1 ? 1 : t->ne[1]);
    float *all = mem_resize((float *)(uintptr_t)w->vectors[encoder], (had + count) * sizeof *all);
    w->vectors[encoder] = all;
    if (tensor_values_read(f, t, all + had, count) != count)
        return err_set(e, ERR_FORMAT, "tensor '%.60s' cannot be read", t->name);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(all[had + i])) return err_set(e, ERR_FORMAT, "tensor '%.60s' is not finite", t->name);
    return true;
}

static bool add_all_vectors(learned_words *w, const tensor_file *f, const embedding_form *form, const text_encoders *t,
                            err *e) {
    const int encoders = text_encoders_count(t);
    for (int i = 0; i < encoders; i++)
        if (!add_vectors(w, i, f, tensor_for(form, text_encoders_at(t, i), encoders), e)) return false;
    return true;
}

/* --- the names --------------------------------------------------------------------------------------------------- */

static bool is_known(const learned_words *w, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < w->names.count; i++)
        if (w->items[i].count == count && memcmp(w->items[i].tokens, tokens, count * sizeof *tokens) == 0) return true;
    return false;
}

/* The tokens of a name; free with free(). */
static int32_t *name_tokens(const char *name, size_t *count) {
    const size_t max = 3 * strlen(name);
    int32_t *tokens = mem_alloc(max + 1, sizeof *tokens);
    *count = tok_clip_encode(name, strlen(name), tokens, max);
    return tokens;
}

static int longest_first(const void *a, const void *b) {
    const prompt_word *l = a, *r = b;
    if (l->count != r->count) return l->count < r->count ? 1 : -1;
    return l->first - r->first; /* in the order of the list, whatever qsort() does */
}

/* "768 values for clip_l and 1280 for clip_g" */
static void describe_widths(const embedding_form *form, char *out, size_t cap) {
    if (form->only)
        snprintf(out, cap, "%d values for a single encoder", (int)form->only->ne[0]);
    else if (form->clip_l && form->clip_g)
        snprintf(out, cap, "%d values for clip_l and %d for clip_g", (int)form->clip_l->ne[0],
                 (int)form->clip_g->ne[0]);
    else
        snprintf(out, cap, "%d values for %s alone", (int)(form->clip_l ? form->clip_l : form->clip_g)->ne[0],
                 form->clip_l ? "clip_l" : "clip_g");
}

static void leave_out(const learned_file *file, const embedding_form *form, const text_encoders *t) {
    char own[80], wanted[80] = "";
    describe_widths(form, own, sizeof own);
    for (int i = 0; i < text_encoders_count(t); i++) {
        const size_t len = strlen(wanted);
        snprintf(wanted + len, sizeof wanted - len, "%s%d for %s", i ? " and " : "", clip_dim(text_encoders_at(t, i)),
                 clip_form_of(text_encoders_at(t, i))->option);
    }
    log_warn("embedding", "'%s' is left out, its name is text: its vectors have %s, the model takes %s",
             path_base(file->path), own, wanted);
}

/* Takes over the tokens on success. */
static bool add_word(learned_words *w, const tensor_file *f, const learned_file *file, const text_encoders *t,
                     int32_t *tokens, size_t count, bool *added, err *e) {
    embedding_form form;
    if (!embedding_form_read(f, &form, e)) return false;
    if (!fits(&form, t)) {
        leave_out(file, &form, t);
        return true;
    }
    if (!add_all_vectors(w, f, &form, t, e)) return false;
    w->items[w->names.count++] = (prompt_word){tokens, count, w->count, form.vectors};
    w->count += form.vectors;
    *added = true;
    return true;
}

static bool add_file(learned_words *w, const learned_file *file, const text_encoders *t, err *e) {
    size_t count;
    int32_t *tokens = name_tokens(file->name, &count);
    tensor_file *f = NULL;
    bool added = false, ok = true;
    if (count && !is_known(w, tokens, count))
        ok = (f = tensor_file_open(file->path, e)) && add_word(w, f, file, t, tokens, count, &added, e);
    tensor_file_close(f);
    if (!added) free(tokens);
    return ok || err_wrap(e, "embedding '%.60s'", path_base(file->path));
}

learned_words *learned_words_open(const learned_file *files, size_t count, const text_encoders *t, err *e) {
    learned_words *w = mem_alloc(1, sizeof *w);
    w->items = mem_alloc(count + 1, sizeof *w->items);
    w->names.items = w->items;
    for (size_t i = 0; i < count; i++) {
        if (add_file(w, &files[i], t, e)) continue;
        learned_words_free(w);
        return NULL;
    }
    if (w->names.count) qsort(w->items, w->names.count, sizeof *w->items, longest_first);
    return w;
}

void learned_words_free(learned_words *w) {
    if (!w) return;
    for (size_t i = 0; i < w->names.count; i++) free(w->items[i].tokens);
    for (int i = 0; i < TEXT_ENCODERS_MAX; i++) free((float *)(uintptr_t)w->vectors[i]);
    free(w->items);
    free(w);
}

const prompt_words *learned_words_names(const learned_words *w) {
    return &w->names;
}

const float *const *learned_words_vectors(const learned_words *w) {
    return w->vectors;
}
