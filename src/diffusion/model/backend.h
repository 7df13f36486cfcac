/* backend.h - the compute device: opening one, its memory, and the one place where a graph is run.
 *
 * A backend is an accelerator with the CPU behind it (for operations the accelerator lacks), or the CPU alone. It
 * owns the compute buffer, which grows to the largest graph and is kept between runs; backend_trim() gives it back when
 * that is worth it. One thread uses a backend at a time. */
#ifndef MYSTI_DIFFUSION_BACKEND_H
#define MYSTI_DIFFUSION_BACKEND_H

#include "base/err.h"
#include "diffusion/cpu/kernels.h"

#include <ggml-backend.h>
#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct backend backend;

typedef struct backend_device {
    char name[48];         /* what backend_open() takes: "CPU", "CUDA0", "Vulkan0" */
    char description[128]; /* the vendor's name for it */
    bool gpu;
    size_t memory_total; /* bytes; 0 when the device does not say */
    size_t memory_free;
} backend_device;

/* Fills `out` with up to `max` devices in the order of their index; returns how many there are. */
int backend_list(backend_device *out, int max);

/* name: a device name or its beginning without the number, upper or lower case ("cpu", "cuda", "vulkan1"), or its index
 * in backend_list(); NULL or "" takes the best one. threads: for the CPU part; <= 0 takes one per core.
 * NULL on failure, with the reason and the known names in `e`. */
backend *backend_open(const char *name, int threads, err *e);
void backend_close(backend *b); /* NULL is fine */

const char *backend_name(const backend *b);
bool backend_is_cpu(const backend *b);
int backend_threads(const backend *b);

/* Free and total bytes of the device the backend computes on; either may be NULL. */
void backend_memory(const backend *b, size_t *free_bytes, size_t *total_bytes);

/* For whoever places weights: the device's backend, or the CPU's, both owned by b. Weights on the CPU of a graph that
 * the device computes are streamed: each goes to the device for as long as the operations that read it take. */
ggml_backend_t backend_handle(const backend *b);
ggml_backend_t backend_host(const backend *b);

/* From now on networks that come and go have their weights on the CPU: backend_handle() is backend_host(). */
void backend_stream_weights(backend *b, bool on);
bool backend_streams_weights(const backend *b);

/* Asked on the computing thread between the operations of a graph (CPU: many times a second; accelerators: before each
 * graph). When it returns true, the running and all further computations end with ERR_CANCELLED until it returns
 * false. NULL: never. A call is also a sign that the computation moves on. */
void backend_set_cancel(backend *b, bool (*should_cancel)(void *ctx), void *ctx);

/* Whether graphs may hold custom operations, which only the CPU runs. A test may forbid them, so that graphs are built
 * as for an accelerator. */
bool backend_custom_ops(const backend *b);

/* Those of custom operations. At first CPU_F32's. */
const cpu_kernels *backend_kernels(const backend *b);

/* False when the processor has no kernels of that precision: nothing has changed then. CPU_INT8 is of the products
 * alone and comes on top of either of the others, which is set before. */
bool backend_set_precision(backend *b, cpu_precision precision);

/* The same, of products whose weights are quantised; nothing where the processor does not have it. */
void backend_prefer_int8(backend *b);

/* What was set, in words: "f32", "bf16", "int8", and where quantised weights go otherwise than the rest
 * "bf16, quantised int8" or "f32, quantised int8". */
const char *backend_precision(const backend *b);

/* The products of custom operations: of the kernels, and CPU_INT8's (NULL where it is not used), which is for weights
 * that can be kept (weights_kept): what is computed once for a picture takes no time worth rounding. */
typedef enum backend_product_kind { PRODUCT_OF_KERNELS, PRODUCT_INT8, BACKEND_PRODUCTS } backend_product_kind;
const cpu_product *backend_product(const backend *b, backend_product_kind kind);
backend_product_kind backend_product_for(const backend *b, const struct ggml_tensor *weights);

void backend_forbid_custom_ops(backend *b);

/* Small graphs are computed by one thread, because there meeting the others takes longer than the work. A test may have
 * all threads at any size. */
void backend_force_threads(backend *b);

/* Frees the compute buffer, for the next graph to allocate its own. On the CPU up to 32 MB stay: making what goes with
 * them anew takes longer than the small graphs that they serve. */
void backend_trim(backend *b);

/* Bytes of compute buffer now held on all devices (without weights). */
size_t backend_scratch(const backend *b);

/* --- Graphs ------------------------------------------------------------------------------------------------------ */

/* A graph under construction, alive only inside backend_compute(). Shapes are in ggml order, fastest first:
 * PyTorch's [n, c, h, w] is ggml's [w, h, c, n]. */
typedef struct graph {
    struct ggml_context *ctx; /* holds tensor descriptions only, no data */
    backend *b;
    struct graph_io *io; /* private: what to copy in and out */
    bool overflow;       /* private: too many inputs and outputs */
    bool too_large;      /* private: see graph_has_room() */

    /* private: of nn_cpu; the same packed for each backend_product_kind, NULL: not packed */
    struct ggml_tensor *rows, *packed_rows[BACKEND_PRODUCTS];
} graph;

/* Inputs and outputs that a graph may have together. */
enum { GRAPH_IO_MAX = 320 };

/* A new F32 / I32 tensor that is filled from `data` before the run. The data stays the caller's and must be valid until
 * backend_compute() returns. */
struct ggml_tensor *graph_input_f32(graph *g, const float *data, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3);
struct ggml_tensor *graph_input_i32(graph *g, const int32_t *data, int64_t ne0);

/* Marks an F32 tensor as a result, copied to `dst` (ggml_nelements floats) after the run. */
void graph_output(graph *g, struct ggml_tensor *t, float *dst);

/* Whether this many more operations fit: ggml ends the process when they do not. Asked wherever a model or a size
 * decides how often something is repeated. After the first no, what is built only has to end soon: backend_compute()
 * fails with ERR_TOO_LARGE. */
bool graph_has_room(graph *g, int64_t operations);

/* Adds to the multiplications of the graph, which decide whether several threads are worth it; for custom operations
 * (ggml's own are counted). */
void graph_add_work(graph *g, double multiplications);

/* Zeroed memory that lives as long as the graph: parameters of custom operations. */
void *graph_note(graph *g, size_t size);

/* True when the device itself can run this operation (not the CPU in its place). */
bool graph_supports(const graph *g, const struct ggml_tensor *op);

/* Builds a graph by calling build(g, ctx, e), allocates it, feeds the inputs, runs it and reads the outputs.
 * `build` returns false with its reason in `e` to give up. ERR_MEMORY when the device has too little, ERR_CANCELLED
 * when asked to stop, ERR_DEVICE when the device failed. Outputs are written only on success. */
typedef bool (*graph_build)(graph *g, void *ctx, err *e);
bool backend_compute(backend *b, graph_build build, void *ctx, err *e);

#endif
