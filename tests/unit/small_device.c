#include "small_device.h"

#include <ggml-backend-impl.h>
#include <ggml-cpu.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static small_device small;

/* --- memory --- */

static struct ggml_backend_device device;
static struct ggml_backend_buffer_type memory;

static void buffer_free(ggml_backend_buffer_t buffer) {
    small.used -= buffer->size;
    free(buffer->context);
}

static void *buffer_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

static void tensor_fill(ggml_backend_buffer_t buffer, struct ggml_tensor *t, uint8_t value, size_t at, size_t size) {
    (void)buffer;
    memset((char *)t->data + at, value, size);
}

static void tensor_set(ggml_backend_buffer_t buffer, struct ggml_tensor *t, const void *from, size_t at, size_t size) {
    (void)buffer;
    memcpy((char *)t->data + at, from, size);
}

static void tensor_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *t, void *to, size_t at, size_t size) {
    (void)buffer;
    memcpy(to, (const char *)t->data + at, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    memset(buffer->context, value, buffer->size);
}

static ggml_backend_buffer_t buffer_new(ggml_backend_buffer_type_t type, size_t size) {
    static const struct ggml_backend_buffer_i iface = {.free_buffer = buffer_free,
                                                       .get_base = buffer_base,
                                                       .memset_tensor = tensor_fill,
                                                       .set_tensor = tensor_set,
                                                       .get_tensor = tensor_get,
                                                       .clear = buffer_clear};
    if (size > small.limit || small.used > small.limit - size) return NULL;
    void *data = aligned_alloc(ALIGNMENT, (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
    if (!data) return NULL;
    small.used += size;
    if (small.used > small.peak) small.peak = small.used;
    return ggml_backend_buffer_init(type, iface, data, size);
}

static const char *memory_name(ggml_backend_buffer_type_t type) {
    (void)type;
    return SMALL_DEVICE;
}

static size_t memory_alignment(ggml_backend_buffer_type_t type) {
    (void)type;
    return ALIGNMENT;
}

static struct ggml_backend_buffer_type memory = {
    .iface = {.get_name = memory_name, .alloc_buffer = buffer_new, .get_alignment = memory_alignment},
    .device = &device};

/* --- computing --- */

static const char *backend_label(ggml_backend_t b) {
    (void)b;
    return SMALL_DEVICE;
}

static void backend_end(ggml_backend_t b) {
    ggml_backend_free(b->context);
    free(b);
}

static bool is_here(const struct ggml_tensor *t) {
    const ggml_backend_buffer_t home = t->view_src ? t->view_src->buffer : t->buffer;
    return home && home->buft == &memory;
}

static bool is_view(const struct ggml_tensor *t) {
    return t->op == GGML_OP_NONE || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW || t->op == GGML_OP_PERMUTE ||
           t->op == GGML_OP_TRANSPOSE;
}

/* What an accelerator could not read ends the program. */
static enum ggml_status backend_run(ggml_backend_t b, struct ggml_cgraph *g) {
    for (int i = 0; i < ggml_graph_n_nodes(g); i++) {
        const struct ggml_tensor *t = ggml_graph_node(g, i);
        if (is_view(t)) continue; /* nothing is done for one */
        if (!is_here(t)) GGML_ABORT("%s is not in the device's memory", t->name);
        for (int k = 0; k < GGML_MAX_SRC && t->src[k]; k++)
            if (!is_here(t->src[k])) GGML_ABORT("%s cannot read %s", t->name, t->src[k]->name);
    }
    return ggml_backend_graph_compute(b->context, g);
}

/* --- the device --- */

static const char *device_name(ggml_backend_dev_t dev) {
    (void)dev;
    return SMALL_DEVICE;
}

static void device_memory(ggml_backend_dev_t dev, size_t *free_bytes, size_t *total) {
    (void)dev;
    *total = small.claimed ? small.claimed : small.limit;
    *free_bytes = *total > small.used ? *total - small.used : 0;
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t dev) {
    (void)dev;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props *props) {
    *props = (struct ggml_backend_dev_props){
        .name = SMALL_DEVICE, .description = SMALL_DEVICE, .type = GGML_BACKEND_DEVICE_TYPE_GPU};
    device_memory(dev, &props->memory_free, &props->memory_total);
}

static ggml_backend_t device_open(ggml_backend_dev_t dev, const char *params) {
    static uint8_t id[16] = "small device";
    static const struct ggml_backend_i iface = {
        .get_name = backend_label, .free = backend_end, .graph_compute = backend_run};
    (void)params;
    ggml_backend_t b = calloc(1, sizeof *b), cpu = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(cpu, 1);
    *b = (struct ggml_backend){.guid = &id, .iface = iface, .device = dev, .context = cpu};
    return b;
}

static ggml_backend_buffer_type_t device_memory_type(ggml_backend_dev_t dev) {
    (void)dev;
    return &memory;
}

static bool device_can(ggml_backend_dev_t dev, const struct ggml_tensor *op) {
    (void)dev;
    return ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), op);
}

static bool device_reads(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) {
    (void)dev;
    return type == &memory;
}

static struct ggml_backend_device device = {.iface = {.get_name = device_name,
                                                      .get_description = device_name,
                                                      .get_memory = device_memory,
                                                      .get_type = device_type,
                                                      .get_props = device_props,
                                                      .init_backend = device_open,
                                                      .get_buffer_type = device_memory_type,
                                                      .supports_op = device_can,
                                                      .supports_buft = device_reads}};

small_device *small_device_register(void) {
    static bool is_known;
    if (!is_known) ggml_backend_device_register(&device);
    is_known = true;
    return &small;
}
