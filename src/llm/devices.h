/* devices.h - the compute devices ggml knows on this machine, and their memory. */
#ifndef MYSTI_LLM_DEVICES_H
#define MYSTI_LLM_DEVICES_H

#include "base/buf.h"
#include "proc/health.h"

/* The answer to GET /internal/devices. */
void llm_devices_write(buf *out);

/* Fills in at most cap devices; returns how many. */
size_t llm_devices_memory(worker_memory *out, size_t cap);

#endif
