/* name_view.h - a file's tensors under their canonical names. Borrows the file, which must outlive it. */
#ifndef MYSTI_DIFFUSION_LOAD_NAME_VIEW_H
#define MYSTI_DIFFUSION_LOAD_NAME_VIEW_H

#include "diffusion/load/name_index.h"
#include "diffusion/load/tensor_names.h"

typedef struct name_view {
    const tensor_file *file;
    char **names; /* canonical, parallel to the file's tensors; NULL where two tensors claim one name */
    name_index by_name;
} name_view;

void name_view_init(name_view *v, const tensor_file *f, tensor_component component);
void name_view_free(name_view *v);

const tensor_info *name_view_find(const name_view *v, const char *name);
bool name_view_has_prefix(const name_view *v, const char *prefix);
bool name_view_has_part(const name_view *v, const char *part); /* anywhere in a name */

#endif
