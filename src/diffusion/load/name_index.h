/* name_index.h - finds a number by name. Keys are borrowed and must outlive the index. Names come from strange files,
 * so the hash has a random seed: nobody can prepare names that collide. */
#ifndef MYSTI_DIFFUSION_LOAD_NAME_INDEX_H
#define MYSTI_DIFFUSION_LOAD_NAME_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct name_slot {
    const char *key; /* NULL: empty */
    size_t value;
} name_slot;

/* Start from {0}. */
typedef struct name_index {
    name_slot *slots; /* open addressing; a power of two, at most half full */
    size_t cap, count;
    uint64_t seed;
} name_index;

bool name_index_put(name_index *ix, const char *key, size_t value); /* false when the key is there already */
bool name_index_get(const name_index *ix, const char *key, size_t *value);
void name_index_free(name_index *ix);

#endif
