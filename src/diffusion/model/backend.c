/* backend.c - see backend.h. Everything that is ggml's device, scheduler and thread interface is here. */
#include "diffusion/model/backend.h"

#include "base/cpu.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "diffusion/model/profile.h"

#include <ggml-cpu.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest graph, a UNet at a big size with its convolutions in bands, stays well below. */
enum { GRAPH_NODES = 32768, GRAPH_SPARE = 2048, SCHED_TENSORS = 512, WORK_PER_NODE = 4 * 1000 * 1000 };

/* Bytes of the machine's own memory that are not worth a new scheduler for the next graph. */
enum { SCRATCH_KEPT = 32 << 20 };

struct backend {
    ggml_backend_t device; /* what computes; == cpu without an accelerator */
    ggml_backend_t cpu;
    ggml_backend_sched_t sched; /* NULL until the first graph and after a trim */
    size_t sched_tensors;       /* that a graph may have for it */
    profile *profile;           /* of sched; NULL: not wanted */
    uint64_t plan;              /* shape of the graph that the compute buffer is laid out for; 0: none */
    struct ggml_threadpool *pool;
    void *graph_memory; /* tensor descriptions of the graph under construction */
    size_t graph_memory_size;
    int threads;
    const cpu_kernels *kernels;
    const cpu_product *int8; /* NULL: not used */
    bool only_quantised;     /* weights have it */
    bool streams;            /* weights stay on the CPU */
    bool plain_ops;          /* no custom operations, even on the CPU */
    bool all_threads;        /* also for small graphs */
    bool (*should_cancel)(void *ctx);
    void *cancel_ctx;
};

/* --- Devices ----------------------------------------------------------------------------------------------------- */

static void log_from_ggml(enum ggml_log_level level, const char *text, void *ctx) {
    (void)ctx;
    static const log_level levels[] = {[GGML_LOG_LEVEL_WARN] = LOG_WARN, [GGML_LOG_LEVEL_ERROR] = LOG_ERROR};
    if (level != GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_ERROR) return; /* the rest is chatter */
    size_t len = strcspn(text, "\n");
    if (len) log_write(levels[level], "ggml", "%.*s", (int)len, text);
}

/* Registers the devices; ggml keeps the list, and doing this again changes nothing. */
static size_t device_count(void) {
    ggml_log_set(log_from_ggml, NULL);
    if (ggml_backend_dev_count() == 0) ggml_backend_load_all(); /* backends built as plug-ins */
    return ggml_backend_dev_count();
}

static bool device_is_gpu(ggml_backend_dev_t dev) {
    enum ggml_backend_dev_type type = ggml_backend_dev_type(dev);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

int backend_list(backend_device *out, int max) {
    int n = (int)device_count();
    for (int i = 0; i < n && i < max; i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get((size_t)i);
        backend_device *d = &out[i];
        str_copy(d->name, sizeof d->name, ggml_backend_dev_name(dev));
        str_copy(d->description, sizeof d->description, ggml_backend_dev_description(dev));
        d->gpu = device_is_gpu(dev);
        ggml_backend_dev_memory(dev, &d->memory_free, &d->memory_total);
    }
    return n;
}

static ggml_backend_dev_t best_device(void) {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    if (!dev) dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
    return dev ? dev : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

/* "cuda" names "CUDA0" (the first one), "cuda1" only "CUDA1". */
static bool name_matches(const char *device, const char *name) {
    while (*name && tolower((unsigned char)*name) == tolower((unsigned char)*device)) name++, device++;
    return !*name && (!*device || (isdigit((unsigned char)*device) && !isdigit((unsigned char)name[-1])));
}

static ggml_backend_dev_t find_device(const char *name, err *e) {
    size_t n = device_count();
    if (str_empty(name)) return best_device();
    int64_t index;
    if (str_to_i64(name, &index) && index >= 0 && index < (int64_t)n) return ggml_backend_dev_get((size_t)index);
    char known[160] = "";
    for (size_t i = 0; i < n; i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        const char *device = ggml_backend_dev_name(dev);
        if (name_matches(device, name)) return dev;
        size_t len = strlen(known);
        if (len < sizeof known) snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", device);
    }
    err_set(e, ERR_INVALID, "no compute device '%s' (there is: %s)", name, known);
    return NULL;
}

/* --- Opening ----------------------------------------------------------------------------------------------------- */

static bool should_abort(void *ctx) {
    const backend *b = ctx;
    return b->should_cancel && b->should_cancel(b->cancel_ctx);
}

/* Our own pool, so that the threads sleep between graphs: ggml's default polls for work first. */
static bool open_cpu(backend *b, err *e) {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    b->cpu = dev ? ggml_backend_dev_init(dev, NULL) : NULL;
    if (!b->cpu) return err_set(e, ERR_DEVICE, "the CPU backend does not start");
    struct ggml_threadpool_params params = ggml_threadpool_params_default(b->threads);
    params.poll = 0;
    b->pool = ggml_threadpool_new(&params);
    if (!b->pool) return err_set(e, ERR_DEVICE, "cannot start %d compute threads", b->threads);
    ggml_backend_cpu_set_n_threads(b->cpu, b->threads);
    ggml_backend_cpu_set_threadpool(b->cpu, b->pool);
    ggml_backend_cpu_set_abort_callback(b->cpu, should_abort, b);
    return true;
}

static bool open_device(backend *b, ggml_backend_dev_t dev, err *e) {
    if (!open_cpu(b, e)) return false;
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        b->device = b->cpu;
        return true;
    }
    b->device = ggml_backend_dev_init(dev, NULL);
    if (!b->device) return err_set(e, ERR_DEVICE, "device %s does not start", ggml_backend_dev_name(dev));
    return true;
}

backend *backend_open(const char *name, int threads, err *e) {
    ggml_backend_dev_t dev = find_device(name, e);
    if (!dev) return NULL;
    backend *b = mem_alloc(1, sizeof *b);
    b->kernels = cpu_kernels_best(CPU_F32);
    b->threads = threads > 0 ? threads : cpu_cores();
    if (b->threads > GGML_MAX_N_THREADS) b->threads = GGML_MAX_N_THREADS;
    b->graph_memory_size = ggml_tensor_overhead() * GRAPH_NODES + ggml_graph_overhead_custom(GRAPH_NODES, false);
    b->graph_memory = mem_alloc(1, b->graph_memory_size);
    if (open_device(b, dev, e)) return b;
    backend_close(b);
    return NULL;
}

static void drop_sched(backend *b) {
    if (b->sched) ggml_backend_sched_free(b->sched);
    profile_close(b->profile);
    b->sched = NULL;
    b->profile = NULL;
    b->plan = 0;
}

void backend_close(backend *b) {
    if (!b) return;
    drop_sched(b);
    if (b->device && b->device != b->cpu) ggml_backend_free(b->device);
    if (b->cpu) ggml_backend_free(b->cpu);
    if (b->pool) ggml_threadpool_free(b->pool);
    free(b->graph_memory);
    free(b);
}

const char *backend_name(const backend *b) {
    return ggml_backend_dev_name(ggml_backend_get_device(b->device));
}
bool backend_is_cpu(const backend *b) {
    return b->device == b->cpu;
}
int backend_threads(const backend *b) {
    return b->threads;
}
ggml_backend_t backend_handle(const backend *b) {
    return b->streams ? b->cpu : b->device;
}
ggml_backend_t backend_host(const backend *b) {
    return b->cpu;
}
void backend_stream_weights(backend *b, bool on) {
    b->streams = on;
}
bool backend_streams_weights(const backend *b) {
    return b->streams;
}

void backend_memory(const backend *b, size_t *free_bytes, size_t *total_bytes) {
    size_t f = 0, t = 0;
    ggml_backend_dev_memory(ggml_backend_get_device(b->device), &f, &t);
    if (free_bytes) *free_bytes = f;
    if (total_bytes) *total_bytes = t;
}

void backend_set_cancel(backend *b, bool (*should_cancel)(void *ctx), void *ctx) {
    b->should_cancel = should_cancel;
    b->cancel_ctx = ctx;
}

bool backend_custom_ops(const backend *b) {
    return backend_is_cpu(b) && !b->plain_ops;
}

const cpu_kernels *backend_kernels(const backend *b) {
    return b->kernels;
}

bool backend_set_precision(backend *b, cpu_precision precision) {
    if (precision == CPU_INT8) {
        const cpu_product *p = cpu_int8_product(b->kernels);
        if (!p) return false;
        b->int8 = p;
        b->only_quantised = false;
        return true;
    }
    const cpu_kernels *k = cpu_kernels_best(precision);
    if (!k) return false;
    b->kernels = k;
    b->int8 = NULL;
    return true;
}

void backend_prefer_int8(backend *b) {
    b->int8 = cpu_int8_product(b->kernels);
    b->only_quantised = true;
}

const char *backend_precision(const backend *b) {
    if (b->int8 && !b->only_quantised) return "int8";
    const bool is_bf16 = b->kernels->precision == CPU_BF16;
    if (b->int8) return is_bf16 ? "bf16, quantised int8" : "f32, quantised int8";
    return is_bf16 ? "bf16" : "f32";
}

const cpu_product *backend_product(const backend *b, backend_product_kind kind) {
    return kind == PRODUCT_INT8 ? b->int8 : b->kernels->product;
}

backend_product_kind backend_product_for(const backend *b, const struct ggml_tensor *weights) {
    const bool is_int8 = b->int8 && (!b->only_quantised || ggml_is_quantized(weights->type));
    return is_int8 && weights->extra ? PRODUCT_INT8 : PRODUCT_OF_KERNELS;
}

void backend_forbid_custom_ops(backend *b) {
    b->plain_ops = true;
}

void backend_force_threads(backend *b) {
    b->all_threads = true;
}

size_t backend_scratch(const backend *b) {
    if (!b->sched) return 0;
    size_t sum = 0;
    for (int i = 0; i < ggml_backend_sched_get_n_backends(b->sched); i++)
        sum += ggml_backend_sched_get_buffer_size(b->sched, ggml_backend_sched_get_backend(b->sched, i));
    return sum;
}

void backend_trim(backend *b) {
    if (!backend_is_cpu(b) || backend_scratch(b) > (size_t)SCRATCH_KEPT) drop_sched(b);
}

/* --- Graphs ------------------------------------------------------------------------------------------------------ */

typedef struct port {
    struct ggml_tensor *tensor;
    const void *from; /* an input's data */
    float *to;        /* an output's place */
} port;

/* Parameters of custom operations live here, as long as the graph. */
typedef struct note {
    struct note *next;
    max_align_t data[];
} note;

struct graph_io {
    port ports[GRAPH_IO_MAX];
    int count;
    note *notes;
    double work; /* multiplications in custom operations */
};

static void add_port(graph *g, port p) {
    if (g->io->count == GRAPH_IO_MAX)
        g->overflow = true;
    else
        g->io->ports[g->io->count++] = p;
}

static struct ggml_tensor *add_input(graph *g, struct ggml_tensor *t, const void *data) {
    ggml_set_input(t);
    add_port(g, (port){.tensor = t, .from = data});
    return t;
}

struct ggml_tensor *graph_input_f32(graph *g, const float *data, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3) {
    return add_input(g, ggml_new_tensor_4d(g->ctx, GGML_TYPE_F32, ne0, ne1, ne2, ne3), data);
}

struct ggml_tensor *graph_input_i32(graph *g, const int32_t *data, int64_t ne0) {
    return add_input(g, ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, ne0), data);
}

void graph_output(graph *g, struct ggml_tensor *t, float *dst) {
    t = ggml_cont(g->ctx, t); /* a view has no memory of its own to read */
    ggml_set_output(t);
    add_port(g, (port){.tensor = t, .to = dst});
}

bool graph_has_room(graph *g, int64_t operations) {
    const int64_t used = (int64_t)(ggml_used_mem(g->ctx) / ggml_tensor_overhead());
    if (operations > GRAPH_NODES - GRAPH_SPARE - used) g->too_large = true;
    return !g->too_large;
}

void graph_add_work(graph *g, double multiplications) {
    g->io->work += multiplications;
}

void *graph_note(graph *g, size_t size) {
    note *n = mem_alloc(1, sizeof *n + size);
    n->next = g->io->notes;
    g->io->notes = n;
    return n->data;
}

bool graph_supports(const graph *g, const struct ggml_tensor *op) {
    return ggml_backend_supports_op(g->b->device, op);
}

static struct ggml_cgraph *collect(graph *g) {
    struct ggml_cgraph *cg = ggml_new_graph_custom(g->ctx, GRAPH_NODES, false);
    for (int i = 0; i < g->io->count; i++)
        if (g->io->ports[i].to) ggml_build_forward_expand(cg, g->io->ports[i].tensor);
    return cg;
}

/* At least the number of operations and of what they read that is none. */
static size_t tensors_in(struct ggml_cgraph *cg) {
    size_t n = 0;
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++, n++)
        for (int k = 0; k < GGML_MAX_SRC; k++) {
            const struct ggml_tensor *from = ggml_graph_node(cg, i)->src[k];
            n += from && from->op == GGML_OP_NONE;
        }
    return n;
}

/* A scheduler takes some 20 KB for each tensor that it may meet: one for all that GRAPH_NODES allows would take more
 * than a gigabyte of address space. It looks them up in a hash table, of which a third stays empty. */
static bool need_sched(backend *b, struct ggml_cgraph *cg, err *e) {
    const size_t tensors = tensors_in(cg) * 3 / 2;
    if (b->sched && tensors <= b->sched_tensors) return true;
    drop_sched(b);
    b->sched_tensors = (tensors / SCHED_TENSORS + 1) * SCHED_TENSORS;
    ggml_backend_t both[2] = {b->device, b->cpu};
    b->sched = ggml_backend_sched_new(both, NULL, b->device == b->cpu ? 1 : 2, b->sched_tensors, false, true);
    if (!b->sched) return err_set(e, ERR_DEVICE, "cannot create the graph scheduler");
    b->profile = profile_open(b->sched);
    return true;
}

/* What decides how a graph is laid out in memory: its operations, shapes and edges. Tensors of equal graphs have equal
 * addresses, because every graph is built in the same place. Never 0. */
static uint64_t shape_of(struct ggml_cgraph *cg) {
    uint64_t h = 0;
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++) {
        const struct ggml_tensor *t = ggml_graph_node(cg, i);
        h = str_hash(&t->op, sizeof t->op, h);
        h = str_hash(t->ne, sizeof t->ne, h);
        h = str_hash(t->src, sizeof t->src, h);
    }
    return h ? h : 1;
}

/* The compute buffer is used for the first time while computing: bringing in small pages took a third of a decoding's
 * time on a virtual machine. */
static void prefer_large_pages(struct ggml_cgraph *cg) {
    ggml_backend_buffer_t last = NULL;
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++) {
        ggml_backend_buffer_t buffer = ggml_graph_node(cg, i)->buffer;
        if (!buffer || buffer == last || !ggml_backend_buffer_is_host(buffer)) continue;
        memory_prefer_large_pages(ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer));
        last = buffer;
    }
}

static bool is_streamed(const struct ggml_tensor *t) {
    const ggml_backend_buffer_t home = t->view_src ? t->view_src->buffer : t->buffer;
    return home && ggml_backend_buffer_get_usage(home) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS &&
           ggml_backend_buffer_is_host(home);
}

static bool streams_any(struct ggml_cgraph *cg) {
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++)
        for (int k = 0; k < GGML_MAX_SRC; k++) {
            const struct ggml_tensor *from = ggml_graph_node(cg, i)->src[k];
            if (from && is_streamed(from)) return true;
        }
    return false;
}

/* Left alone, the scheduler computes an operation where its weights are. Told to do it on the device, it copies them
 * there just before, into memory that the next ones take over. Rows are picked where the table is, for they are few;
 * views are where what they view is. */
static void keep_on_device(backend *b, struct ggml_cgraph *cg) {
    if (b->device == b->cpu || !streams_any(cg)) return;
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++) {
        struct ggml_tensor *t = ggml_graph_node(cg, i);
        if (t->view_src || t->op == GGML_OP_NONE || t->op == GGML_OP_GET_ROWS) continue;
        if (ggml_backend_supports_op(b->device, t)) ggml_backend_sched_set_tensor_backend(b->sched, t, b->device);
    }
}

/* To measure a graph the scheduler puts copies for the device in the place of what operations read. They are its own,
 * and gone with the next graph; what was there before comes back. */
static bool measure(backend *b, struct ggml_cgraph *cg) {
    typedef struct edges {
        struct ggml_tensor *node, *src[GGML_MAX_SRC];
    } edges;
    const int n = ggml_graph_n_nodes(cg);
    edges *all = mem_alloc((size_t)n, sizeof *all);
    for (int i = 0; i < n; i++) {
        all[i].node = ggml_graph_node(cg, i);
        memcpy(all[i].src, all[i].node->src, sizeof all[i].src);
    }
    const bool ok = ggml_backend_sched_reserve(b->sched, cg);
    for (int i = 0; i < n; i++) memcpy(all[i].node->src, all[i].src, sizeof all[i].src);
    free(all);
    return ok;
}

/* The allocator takes its last layout for any graph with as many tensors that are no larger, whatever their edges; so a
 * graph of another shape has its layout made anew. That forgets what is computed where. */
static bool lay_out(backend *b, struct ggml_cgraph *cg) {
    const uint64_t plan = shape_of(cg);
    ggml_backend_sched_reset(b->sched);
    keep_on_device(b, cg);
    const bool is_new = plan != b->plan;
    if (is_new) {
        if (!measure(b, cg)) return false;
        keep_on_device(b, cg);
    }
    b->plan = plan;
    if (!ggml_backend_sched_alloc_graph(b->sched, cg)) return false;
    if (is_new) prefer_large_pages(cg);
    return true;
}

static bool allocate(backend *b, struct ggml_cgraph *cg, err *e) {
    size_t free_bytes;
    if (!need_sched(b, cg, e)) return false;
    if (lay_out(b, cg)) return true;
    drop_sched(b); /* it may be half allocated */
    backend_memory(b, &free_bytes, NULL);
    return err_set(e, ERR_MEMORY, "not enough memory on %s for the computation (%zu MB free)", backend_name(b),
                   free_bytes >> 20);
}

/* Multiplications in convolutions, matrix products and attention: nearly all of a graph's work. */
static double work_of(const graph *g, struct ggml_cgraph *cg) {
    double work = g->io->work;
    for (int i = 0; i < ggml_graph_n_nodes(cg); i++) {
        const struct ggml_tensor *t = ggml_graph_node(cg, i);
        if (t->op == GGML_OP_MUL_MAT) work += (double)ggml_nelements(t) * (double)t->src[0]->ne[0];
        if (t->op == GGML_OP_FLASH_ATTN_EXT) work += 2.0 * (double)ggml_nelements(t) * (double)t->src[1]->ne[1];
    }
    return work;
}

/* Threads meet after every operation, spinning until the last one comes. Where operations are short that costs more
 * than a second thread saves, and very much more while other processes want the cores. */
static void choose_threads(const graph *g, struct ggml_cgraph *cg) {
    const backend *b = g->b;
    const bool worth_it = work_of(g, cg) / (1.0 + ggml_graph_n_nodes(cg)) > WORK_PER_NODE;
    ggml_backend_cpu_set_n_threads(b->cpu, worth_it || b->all_threads ? b->threads : 1);
}

static bool execute(backend *b, struct ggml_cgraph *cg, err *e) {
    switch (ggml_backend_sched_graph_compute(b->sched, cg)) {
    case GGML_STATUS_SUCCESS:
        return true;
    case GGML_STATUS_ABORTED:
        return err_set(e, ERR_CANCELLED, "cancelled");
    case GGML_STATUS_ALLOC_FAILED:
        return err_set(e, ERR_MEMORY, "out of memory on %s", backend_name(b));
    default:
        return err_set(e, ERR_DEVICE, "computation failed on %s", backend_name(b));
    }
}

static void feed(const graph *g) {
    for (int i = 0; i < g->io->count; i++) {
        const port *p = &g->io->ports[i];
        /* An input that nothing reads has no memory. */
        if (p->from && p->tensor->buffer) ggml_backend_tensor_set(p->tensor, p->from, 0, ggml_nbytes(p->tensor));
    }
}

static void read_back(const graph *g) {
    for (int i = 0; i < g->io->count; i++) {
        const port *p = &g->io->ports[i];
        if (p->to) ggml_backend_tensor_get(p->tensor, p->to, 0, ggml_nbytes(p->tensor));
    }
}

static bool run(graph *g, graph_build build, void *ctx, err *e) {
    if (should_abort(g->b)) return err_set(e, ERR_CANCELLED, "cancelled");
    if (!build(g, ctx, e)) return false;
    if (g->too_large) return err_set(e, ERR_TOO_LARGE, "the model has too many operations at this size");
    if (g->overflow) return err_set(e, ERR_INTERNAL, "more than %d inputs and outputs in a graph", GRAPH_IO_MAX);
    struct ggml_cgraph *cg = collect(g);
    if (!allocate(g->b, cg, e)) return false;
    choose_threads(g, cg);
    feed(g);
    profile_begin(g->b->profile);
    if (!execute(g->b, cg, e)) return false;
    profile_end(g->b->profile);
    read_back(g);
    return true;
}

bool backend_compute(backend *b, graph_build build, void *ctx, err *e) {
    struct graph_io io = {0};
    graph g = {.b = b, .io = &io};
    g.ctx = ggml_init((struct ggml_init_params){b->graph_memory_size, b->graph_memory, true});
    if (!g.ctx) return err_set(e, ERR_MEMORY, "cannot create a graph");
    bool ok = run(&g, build, ctx, e);
    while (io.notes) {
        note *n = io.notes;
        io.notes = n->next;
        free(n);
    }
    ggml_free(g.ctx);
    return ok;
}
