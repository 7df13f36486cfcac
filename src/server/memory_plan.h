/* memory_plan.h - will it fit? Pure arithmetic over the figures that a worker reports.
 *
 * On the CPU, weights that are mapped from the file cost file cache, which the system takes back as it needs: only
 * scratch memory counts there, as for pictures on a device, where weights without room are streamed. The estimates are meant to catch what cannot work and to
 * say so with figures, not to be exact: in doubt the work is tried. */
#ifndef MYSTI_SERVER_MEMORY_PLAN_H
#define MYSTI_SERVER_MEMORY_PLAN_H

#include "base/err.h"
#include "json/json.h"

#include <stdint.h>

typedef struct memory_device {
    char name[64];       /* "CPU", "CUDA0" */
    int64_t total, free; /* bytes */
} memory_device;

enum { MEMORY_DEVICES_MAX = 16 };

typedef struct memory_state {
    memory_device devices[MEMORY_DEVICES_MAX];
    int count;
} memory_state;

/* Reads the `memory` array of a worker's health; entries that make no sense are left out. */
void memory_state_read(memory_state *s, const json_in *health);

/* The device that will compute: the first that is not the CPU, else the CPU; NULL when nothing is known yet. */
const memory_device *memory_plan_device(const memory_state *s);

/* Bytes of scratch that a picture of this size needs in an SD-like model: the larger of UNet and (tiled) VAE. */
int64_t memory_plan_scratch(int width, int height);

/* May a picture of this size be made with the loaded model? `reclaim`: what its weights give back when they are streamed
 * (docs/image-engine.md). ERR_MEMORY: "a picture of 4096 x 4096 needs about 6.5 GB, 3.1 GB free on CUDA0". */
bool memory_plan_generate(const memory_state *s, int width, int height, int64_t reclaim, err *e);

/* An LLM (`reclaim`: what unloading the present one gives back): weights plus the KV cache for n_ctx positions of kv_bytes_per_position (0: unknown, taken as 128 KiB). */
bool memory_plan_llm(const memory_state *s, int64_t weight_bytes, int64_t n_ctx, int64_t kv_bytes_per_position,
                     int64_t reclaim, err *e);

/* "7.2 GB", "310 MB". */
void memory_plan_format(int64_t bytes, char out[16]);

#endif
