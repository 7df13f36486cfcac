/* name_index.c - see name_index.h. */
#include "diffusion/load/name_index.h"
#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* The slot that holds `key`, or the empty one where it belongs. */
static name_slot *find_slot(const name_index *ix, const char *key) {
    size_t i = (size_t)str_hash(key, strlen(key), ix->seed) & (ix->cap - 1);
    while (ix->slots[i].key && strcmp(ix->slots[i].key, key) != 0) i = (i + 1) & (ix->cap - 1);
    return &ix->slots[i];
}

static void grow(name_index *ix) {
    name_index bigger = {.cap = ix->cap ? ix->cap * 2 : 64, .count = ix->count, .seed = ix->seed};
    if (!ix->cap) file_random(&bigger.seed, sizeof bigger.seed);
    bigger.slots = mem_alloc(bigger.cap, sizeof *bigger.slots);
    for (size_t i = 0; i < ix->cap; i++)
        if (ix->slots[i].key) *find_slot(&bigger, ix->slots[i].key) = ix->slots[i];
    free(ix->slots);
    *ix = bigger;
}

bool name_index_put(name_index *ix, const char *key, size_t value) {
    if (ix->count * 2 >= ix->cap) grow(ix);
    name_slot *slot = find_slot(ix, key);
    if (slot->key) return false;
    *slot = (name_slot){.key = key, .value = value};
    ix->count++;
    return true;
}

bool name_index_get(const name_index *ix, const char *key, size_t *value) {
    if (!ix->cap) return false;
    const name_slot *slot = find_slot(ix, key);
    if (!slot->key) return false;
    *value = slot->value;
    return true;
}

void name_index_free(name_index *ix) {
    free(ix->slots);
    *ix = (name_index){0};
}
