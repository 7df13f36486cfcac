/* tile_log.h - finished tiles in a file, one behind the other, so that work that was broken off goes on behind the
 * last.
 *
 * A tile's numbers come back bit by bit, or not at all: each record has a checksum, and the first that is not whole
 * ends the reading. The file belongs to one piece of work, told by a key; another's is replaced. A log that cannot be
 * written is no reason to stop: then there is nothing to go on from. Nothing is flushed to the disk, for the system
 * keeps what a process wrote, however it ends. */
#ifndef MYSTI_DIFFUSION_TILE_LOG_H
#define MYSTI_DIFFUSION_TILE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tile_log tile_log;

/* path NULL: a log that holds nothing. Never NULL. */
tile_log *tile_log_open(const char *path, uint64_t key);

/* Fills in the next tile's n numbers if it was done before. */
bool tile_log_next(tile_log *l, float *out, size_t n);

/* Adds the tile that tile_log_next() did not have. */
void tile_log_add(tile_log *l, const float *data, size_t n);

/* is_done: the work is over, the file goes. */
void tile_log_close(tile_log *l, bool is_done);

#endif
