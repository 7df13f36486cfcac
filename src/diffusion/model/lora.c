#include "diffusion/model/lora.h"

#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/lora_names.h"
#include "diffusion/load/model_kind.h"
#include "diffusion/load/tensor_names.h"
#include "diffusion/model/lora_delta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of the model that one layer of one LoRA changes. */
typedef struct target {
    const char *name; /* canonical; the weights' own */
    size_t lora;
    const lora_module *module;
    bool is_bias;
    float strength; /* not 0 */
} target;

struct lora_plan {
    weights *w;
    const char *family;
    lora_use *uses; /* owned; paths are not */
    lora_file **files;
    size_t file_count;
    target *targets; /* sorted by name; those of one tensor in the LoRAs' order */
    size_t count, cap;
};

/* --- matching ---------------------------------------------------------------------------------------------------- */

static void add_target(lora_plan *p, const char *name, const lora_module *m, bool is_bias) {
    const size_t lora = p->file_count - 1;
    const bool is_unet = str_starts(name, tensor_component_prefix(COMPONENT_DIFFUSION));
    const float strength = is_unet ? p->uses[lora].unet : p->uses[lora].te;
    if (strength == 0) return;
    if (p->count == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 512;
        p->targets = mem_resize(p->targets, p->cap * sizeof *p->targets);
    }
    p->targets[p->count++] = (target){name, lora, m, is_bias, strength};
}

/* The bias beside a weight; NULL when there is none. */
static const char *bias_of(const weights *w, const char *weight) {
    char name[1024];
    const int stem = (int)(strlen(weight) - strlen("weight"));
    snprintf(name, sizeof name, "%.*sbias", stem, weight);
    return weights_asked(w, name);
}

static bool changes_weight(const lora_module *m) {
    for (int i = 0; i < LORA_PARTS; i++)
        if (i != LORA_DIFF_BIAS && m->part[i]) return true;
    return false;
}

/* False when some of the layer finds no place. */
static bool add_module(lora_plan *p, const lora_names *names, const lora_module *m) {
    const char *weight = lora_names_find(names, m->key);
    if (!weight) return false;
    if (changes_weight(m)) add_target(p, weight, m, false);
    if (!m->part[LORA_DIFF_BIAS]) return true;
    const char *bias = bias_of(p->w, weight);
    if (bias) add_target(p, bias, m, true);
    return bias != NULL;
}

/* "a LoRA for Stable Diffusion XL, the model is Stable Diffusion 1.x" */
static void say_families(const lora_plan *p, size_t lora, char *out, size_t cap) {
    model_desc desc = {0};
    model_describe(lora_file_tensors(p->files[lora]), &desc);
    snprintf(out, cap, "a LoRA for %s, the model is %s", model_family_title(desc.family),
             model_family_title(p->family));
}

static bool add_file(lora_plan *p, const lora_names *names, err *e) {
    const char *path = p->uses[p->file_count].path;
    lora_file *f = lora_file_open(path, e);
    if (!f) return false;
    p->files[p->file_count++] = f;
    const size_t all = lora_file_count(f);
    size_t missed = 0;
    for (size_t i = 0; i < all; i++) missed += !add_module(p, names, lora_file_at(f, i));
    if (missed == all) {
        char families[120];
        say_families(p, p->file_count - 1, families, sizeof families);
        return err_set(e, ERR_UNSUPPORTED, "'%.80s' fits nowhere: %s", path_base(path), families);
    }
    if (missed) log_warn("lora", "'%s': %zu of its %zu layers are not in the model", path_base(path), missed, all);
    return true;
}

static int compare_targets(const void *a, const void *b) {
    const target *x = a, *y = b;
    const int by_name = strcmp(x->name, y->name);
    return by_name ? by_name : x->lora < y->lora ? -1 : x->lora > y->lora;
}

lora_plan *lora_plan_open(weights *w, const char *family, const lora_use *uses, size_t count, err *e) {
    lora_plan *p = mem_alloc(1, sizeof *p);
    *p = (lora_plan){.w = w,
                     .family = family,
                     .uses = mem_alloc(count + 1, sizeof *p->uses),
                     .files = mem_alloc(count + 1, sizeof(lora_file *))};
    if (count) memcpy(p->uses, uses, count * sizeof *uses);
    lora_names names;
    lora_names_init(&names, w);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++) ok = add_file(p, &names, e);
    lora_names_free(&names);
    if (p->count) qsort(p->targets, p->count, sizeof *p->targets, compare_targets);
    if (ok) return p;
    lora_plan_close(p);
    return NULL;
}

void lora_plan_close(lora_plan *p) {
    if (!p) return;
    for (size_t i = 0; i < p->file_count; i++) lora_file_close(p->files[i]);
    free(p->files);
    free(p->uses);
    free(p->targets);
    free(p);
}

/* The end of the run of targets that are the same tensor. */
static size_t next_tensor(const lora_plan *p, size_t from) {
    size_t end = from + 1;
    while (end < p->count && p->targets[end].name == p->targets[from].name) end++;
    return end;
}

size_t lora_plan_bytes(const lora_plan *p) {
    size_t sum = 0;
    for (size_t i = 0; i < p->count; i = next_tensor(p, i)) sum += weights_change_bytes(p->w, p->targets[i].name);
    return sum;
}

size_t lora_plan_tensors(const lora_plan *p) {
    size_t sum = 0;
    for (size_t i = 0; i < p->count; i = next_tensor(p, i)) sum++;
    return sum;
}

/* --- merging ----------------------------------------------------------------------------------------------------- */

static lora_shape shape_of(const char *name, const int64_t ne[4]) {
    lora_shape s = {.rows = ne[0], .columns = 1, .kernel = 1}; /* a vector */
    if (ne[2] > 1 || ne[3] > 1)
        s = (lora_shape){.rows = ne[3], .columns = ne[0] * ne[1] * ne[2], .kernel = ne[0] * ne[1]};
    else if (ne[1] > 1)
        s = (lora_shape){.rows = ne[1], .columns = ne[0], .kernel = 1};
    s.may_be_partial = str_ends(name, ".input_blocks.0.0.weight");
    return s;
}

static bool add_one(const lora_plan *p, const target *t, backend *b, const lora_shape *shape, float *numbers, err *e) {
    const lora_file *f = p->files[t->lora];
    if (t->is_bias) return lora_add_bias(f, t->module, shape->rows, t->strength, numbers, e);
    return lora_add(b, f, t->module, shape, t->strength, numbers, e);
}

/* What does not fit is most often another family's. */
static bool wrap_failure(const lora_plan *p, size_t lora, err *e) {
    const char *file = path_base(p->uses[lora].path);
    char families[120];
    if (!e || e->code != ERR_UNSUPPORTED) return err_wrap(e, "'%.60s'", file);
    say_families(p, lora, families, sizeof families);
    return err_wrap(e, "'%.60s', %s", file, families);
}

/* All that changes one tensor: targets [from, end). */
static bool merge(lora_plan *p, size_t from, size_t end, backend *b, err *e) {
    const char *name = p->targets[from].name;
    int64_t ne[4];
    weights_shape(p->w, name, ne);
    const lora_shape shape = shape_of(name, ne);
    float *numbers = mem_alloc((size_t)(shape.rows * shape.columns), sizeof *numbers);
    weights_read(p->w, name, numbers);
    bool ok = true;
    for (size_t i = from; i < end && ok; i++)
        ok = add_one(p, &p->targets[i], b, &shape, numbers, e) || wrap_failure(p, p->targets[i].lora, e);
    ok = ok && (weights_change(p->w, name, numbers, e) || wrap_failure(p, p->targets[from].lora, e));
    free(numbers);
    return ok;
}

static int compare_name(const void *key, const void *t) {
    return strcmp(key, ((const target *)t)->name);
}

/* Takes off what is not the plan's. */
static void restore_others(lora_plan *p) {
    for (size_t i = 0; i < weights_size(p->w); i++) {
        const char *name = weights_name(p->w, i);
        if (!p->count || !bsearch(name, p->targets, p->count, sizeof *p->targets, compare_name))
            weights_restore(p->w, name);
    }
}

bool lora_plan_run(lora_plan *p, backend *b, lora_progress progress, void *ctx, err *e) {
    bool ok = true;
    restore_others(p); /* first: its memory may be needed */
    for (size_t i = 0, end; i < p->count && ok; i = end) {
        end = next_tensor(p, i);
        ok = (!progress || progress(ctx, i, p->count)) || err_set(e, ERR_CANCELLED, "cancelled");
        ok = ok && merge(p, i, end, b, e);
    }
    if (!ok) p->count = 0;
    if (!ok) restore_others(p);
    return ok;
}
