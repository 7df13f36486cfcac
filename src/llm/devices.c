/* devices.c - see devices.h. */
#include "llm/devices.h"
#include "base/memory.h"
#include "base/str.h"
#include "json/json.h"

#include <ggml-backend.h>

static const char *type_name(enum ggml_backend_dev_type type) {
    if (type == GGML_BACKEND_DEVICE_TYPE_GPU) return "gpu";
    if (type == GGML_BACKEND_DEVICE_TYPE_IGPU) return "igpu";
    return "cpu";
}

/* ggml calls all of the machine's memory free. */
static void device_memory(ggml_backend_dev_t dev, size_t *total, size_t *available) {
    ggml_backend_dev_memory(dev, available, total);
    memory_info machine = memory_status();
    if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU || !machine.total) return;
    *total = (size_t)machine.total;
    *available = (size_t)machine.available;
}

void llm_devices_write(buf *out) {
    buf_puts(out, "{\"devices\":[");
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        size_t total, available;
        device_memory(dev, &total, &available);
        buf_puts(out, i ? ",{\"name\":" : "{\"name\":");
        json_quote(out, ggml_backend_dev_name(dev));
        buf_puts(out, ",\"description\":");
        json_quote(out, ggml_backend_dev_description(dev));
        buf_printf(out, ",\"type\":\"%s\",\"total\":%zu,\"free\":%zu}", type_name(ggml_backend_dev_type(dev)), total,
                   available);
    }
    buf_puts(out, "]}");
}

size_t llm_devices_memory(worker_memory *out, size_t cap) {
    size_t n = ggml_backend_dev_count();
    if (n > cap) n = cap;
    for (size_t i = 0; i < n; i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        size_t total, available;
        device_memory(dev, &total, &available);
        str_copy(out[i].device, sizeof out[i].device, ggml_backend_dev_name(dev));
        out[i].total = total;
        out[i].free = available;
    }
    return n;
}
