/* job_list.c - see job_list.h. */
#include "server/job_list.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

void job_list_insert(job_list *l, size_t index, job *j) {
    l->at = mem_resize(l->at, (l->count + 1) * sizeof *l->at);
    memmove(l->at + index + 1, l->at + index, (l->count - index) * sizeof *l->at);
    l->at[index] = j;
    l->count++;
}

size_t job_list_index(const job_list *l, int64_t id) {
    size_t i = 0;
    while (i < l->count && l->at[i]->id != id) i++;
    return i;
}

job *job_list_remove(job_list *l, size_t index) {
    job *j = l->at[index];
    l->count--;
    memmove(l->at + index, l->at + index + 1, (l->count - index) * sizeof *l->at);
    return j;
}

void job_list_free(job_list *l) {
    for (size_t i = 0; i < l->count; i++) job_free(l->at[i]);
    free(l->at);
}
