/* memory.h - the machine's memory. */
#ifndef MYSTI_BASE_MEMORY_H
#define MYSTI_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

typedef struct memory_info {
    uint64_t total; /* bytes this process may use at all: of the machine, or of its container when that allows less */
    uint64_t available; /* bytes that can be had without swapping; file cache counts as available */
} memory_info;

/* Zeros where the system does not say. */
memory_info memory_status(void);

/* For much memory that is about to be used for the first time: asks the system for large pages, which it brings in more
 * quickly than as many small ones. Where it has none, nothing happens. */
void memory_prefer_large_pages(void *p, size_t bytes);

#endif
