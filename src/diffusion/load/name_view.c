/* name_view.c - see name_view.h. */
#include "diffusion/load/name_view.h"
#include "base/str.h"
#include "diffusion/load/tensor_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = TENSOR_NAME_MAX + 128, THIRDS = 3 };

static const char FUSED[] = ".self_attn.in_proj.";

static void add_entry(name_view *v, const char *name, const tensor_info *info) {
    char *kept = str_dup(name);
    if (name_index_put(&v->by_name, kept, v->count))
        v->entries[v->count++] = (name_entry){kept, info};
    else
        free(kept);
}

/* Cut along the outermost dimension: the rows of a matrix stand one behind the other. False when that gives no three
 * tensors of whole blocks. */
static bool cut_in_three(const tensor_info *whole, tensor_info thirds[THIRDS]) {
    const int outer = whole->n_dims - 1;
    int64_t size = 0;
    tensor_info one = *whole;
    if (outer < 0 || one.ne[outer] % THIRDS != 0) return false;
    one.ne[outer] /= THIRDS;
    if (!tensor_type_size(one.type, one.ne, &size) || (uint64_t)size * THIRDS != whole->nbytes) return false;
    one.nbytes = (uint64_t)size;
    for (int i = 0; i < THIRDS; i++) {
        thirds[i] = one;
        thirds[i].offset += (uint64_t)i * one.nbytes;
    }
    return true;
}

/* "a.self_attn.in_proj.bias" -> "a.self_attn.q_proj.bias", "a.self_attn.k_proj.bias", ... */
static void add_thirds(name_view *v, const char *name, const char *fused, const tensor_info thirds[THIRDS]) {
    static const char *const projections[THIRDS] = {"q_proj", "k_proj", "v_proj"};
    char third[NAME];
    for (int i = 0; i < THIRDS; i++) {
        const int stem = (int)(fused - name);
        const char *rest = fused + strlen(FUSED);
        if (snprintf(third, sizeof third, "%.*s.self_attn.%s.%s", stem, name, projections[i], rest) < (int)sizeof third)
            add_entry(v, third, &thirds[i]);
    }
}

static size_t count_fused(const tensor_names *map, const tensor_file *f) {
    char name[NAME];
    size_t n = 0;
    for (size_t i = 0; i < tensor_file_count(f); i++)
        n += tensor_names_map(map, tensor_file_at(f, i)->name, name, sizeof name) && strstr(name, FUSED) != NULL;
    return n;
}

void name_view_init(name_view *v, const tensor_file *f, tensor_component component) {
    tensor_names map;
    tensor_names_init(&map, f, component);
    const size_t fused_count = count_fused(&map, f);
    *v = (name_view){.file = f,
                     .entries = mem_alloc(tensor_file_count(f) + (THIRDS - 1) * fused_count, sizeof *v->entries),
                     .parts = mem_alloc(THIRDS * fused_count, sizeof *v->parts)};
    tensor_info *thirds = v->parts;
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        char name[NAME];
        const tensor_info *info = tensor_file_at(f, i);
        if (!tensor_names_map(&map, info->name, name, sizeof name)) continue;
        const char *fused = strstr(name, FUSED);
        if (fused && cut_in_three(info, thirds)) {
            add_thirds(v, name, fused, thirds);
            thirds += THIRDS;
        } else {
            add_entry(v, name, info);
        }
    }
}

void name_view_free(name_view *v) {
    for (size_t i = 0; i < v->count; i++) free(v->entries[i].name);
    free(v->entries);
    free(v->parts);
    name_index_free(&v->by_name);
    *v = (name_view){0};
}

const tensor_info *name_view_find(const name_view *v, const char *name) {
    size_t i;
    return name_index_get(&v->by_name, name, &i) ? v->entries[i].info : NULL;
}

bool name_view_has_prefix(const name_view *v, const char *prefix) {
    for (size_t i = 0; i < v->count; i++)
        if (str_starts(v->entries[i].name, prefix)) return true;
    return false;
}

const tensor_info *name_view_find_part(const name_view *v, const char *part) {
    for (size_t i = 0; i < v->count; i++)
        if (strstr(v->entries[i].name, part)) return v->entries[i].info;
    return NULL;
}

bool name_view_has_part(const name_view *v, const char *part) {
    return name_view_find_part(v, part) != NULL;
}
