/* name_view.h - a file's tensors under their canonical names. Borrows the file, which must outlive it.
 *
 * OpenCLIP keeps an attention's query, key and value matrices as one tensor ("in_proj"). It is shown as the three that
 * it consists of, so that every text encoder has the same tensors. */
#ifndef MYSTI_DIFFUSION_LOAD_NAME_VIEW_H
#define MYSTI_DIFFUSION_LOAD_NAME_VIEW_H

#include "diffusion/load/name_index.h"
#include "diffusion/load/tensor_names.h"

typedef struct name_entry {
    char *name;              /* canonical; owned */
    const tensor_info *info; /* the file's, or one of `parts`; its own name is the file's */
} name_entry;

typedef struct name_view {
    const tensor_file *file;
    name_entry *entries; /* in the file's order, without those whose name another tensor has already */
    size_t count;
    tensor_info *parts; /* thirds of tensors that hold three */
    name_index by_name; /* of entries */
} name_view;

void name_view_init(name_view *v, const tensor_file *f, tensor_component component);
void name_view_free(name_view *v);

const tensor_info *name_view_find(const name_view *v, const char *name);
bool name_view_has_prefix(const name_view *v, const char *prefix);
const tensor_info *name_view_find_part(const name_view *v, const char *part); /* the first with `part` in its name */
bool name_view_has_part(const name_view *v, const char *part);

#endif
