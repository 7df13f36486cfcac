/* A worker's health answer: a crashing worker may send anything. What is understood means the same when written again.
 */
#include "proc/health.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static worker_health first, second;
    if (!worker_health_parse((const char *)data, size, &first, NULL)) return 0;
    buf json;
    buf_init(&json, 1 << 20);
    worker_health_write(&first, &json);
    if (json.full || !worker_health_parse(json.data, json.len, &second, NULL)) abort();
    if (memcmp(&first, &second, sizeof first) != 0) abort();
    buf_free(&json);
    return 0;
}
