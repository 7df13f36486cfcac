/* name_view.c - see name_view.h. */
#include "diffusion/load/name_view.h"
#include "base/str.h"
#include "diffusion/load/tensor_table.h"

#include <stdlib.h>
#include <string.h>

void name_view_init(name_view *v, const tensor_file *f, tensor_component component) {
    *v = (name_view){.file = f, .names = mem_alloc(tensor_file_count(f), sizeof *v->names)};
    tensor_names map;
    tensor_names_init(&map, f, component);
    for (size_t i = 0; i < tensor_file_count(f); i++) {
        char name[TENSOR_NAME_MAX + 128];
        if (!tensor_names_map(&map, tensor_file_at(f, i)->name, name, sizeof name)) continue;
        char *kept = str_dup(name);
        if (name_index_put(&v->by_name, kept, i))
            v->names[i] = kept;
        else
            free(kept);
    }
}

void name_view_free(name_view *v) {
    for (size_t i = 0; v->names && i < tensor_file_count(v->file); i++) free(v->names[i]);
    free(v->names);
    name_index_free(&v->by_name);
    *v = (name_view){0};
}

const tensor_info *name_view_find(const name_view *v, const char *name) {
    size_t i;
    return name_index_get(&v->by_name, name, &i) ? tensor_file_at(v->file, i) : NULL;
}

bool name_view_has_prefix(const name_view *v, const char *prefix) {
    for (size_t i = 0; i < tensor_file_count(v->file); i++)
        if (v->names[i] && str_starts(v->names[i], prefix)) return true;
    return false;
}

bool name_view_has_part(const name_view *v, const char *part) {
    for (size_t i = 0; i < tensor_file_count(v->file); i++)
        if (v->names[i] && strstr(v->names[i], part)) return true;
    return false;
}
