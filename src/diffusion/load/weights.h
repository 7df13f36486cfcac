/* weights.h - the weights of one image model, from one or several files, as ggml tensors.
 *
 * Names are canonical (tensor_names.h): those of the original Stable Diffusion checkpoints, whatever the files use.
 *   model.diffusion_model.*   first_stage_model.*   cond_stage_model.transformer.text_model.*
 *
 * Use in two phases: a model builder asks for its tensors one by one (shapes are checked, nothing is read); then
 * weights_commit() gives all of them memory. On the CPU a tensor whose stored type can be computed with points straight
 * into the mapped file, so weights cost no memory of their own and can be dropped and re-read by the system. The others
 * (f16 vectors, f8, odd alignment) are converted once. Not for use by several threads at a time. */
#ifndef MYSTI_DIFFUSION_LOAD_WEIGHTS_H
#define MYSTI_DIFFUSION_LOAD_WEIGHTS_H

#include "base/err.h"
#include "diffusion/load/tensor_file.h"

#include <ggml-backend.h>
#include <ggml.h>

typedef struct weights weights;

/* Paths; NULL where there is none. `model` is a whole checkpoint (or a diffusers folder); each other file brings one
 * component and hides that component of `model`. */
typedef struct weights_files {
    const char *model;
    const char *diffusion_model;
    const char *vae;
    const char *clip_l;
    const char *clip_g;
} weights_files;

/* How a tensor is used decides its type once committed. */
typedef enum weights_use {
    WEIGHTS_MATRIX,    /* f32, f16, bf16 and quantised stay; f8 -> f16; other -> f32 */
    WEIGHTS_CONV,      /* f32 and f16 stay; bf16 -> f16, or f32 when a value is beyond f16's range; other -> f16 */
    WEIGHTS_VECTOR,    /* always f32: biases, norms */
    WEIGHTS_EMBEDDING, /* rows picked by index; as WEIGHTS_MATRIX */
} weights_use;

/* NULL on failure. Copies the paths; owns the mapped files until weights_close(). */
weights *weights_open(const weights_files *files, err *e);
void weights_close(weights *w); /* frees all tensors handed out; NULL is fine */

/* Queries, so that widths and depths are read from the tensors. Names are canonical. */
bool weights_has(const weights *w, const char *name);
bool weights_has_prefix(const weights *w, const char *prefix); /* any tensor whose name starts so */

/* n such that "<prefix>0", ..., "<prefix>n-1" all begin some tensor's name, each followed by '.': the depth of a list,
 * e.g. weights_count(w, "cond_stage_model.transformer.text_model.encoder.layers."). */
int weights_count(const weights *w, const char *prefix);

/* Size in ggml's order (ne[0] fastest, unused ones are 1). False when there is no such tensor. */
bool weights_shape(const weights *w, const char *name, int64_t ne[4]);

/* One dimension: 0 when there is no such tensor, so that a chain of look-ups needs one check at the end. */
int64_t weights_dim(const weights *w, const char *name, int dim);

/* Stored bytes of all tensors whose name starts with prefix. */
uint64_t weights_bytes(const weights *w, const char *prefix);

/* Bytes of those that were asked for, as they are computed with: what a device has to hold. */
size_t weights_asked_bytes(const weights *w, const char *prefix);

/* Phase 1. A tensor without memory; owned by the weights. NULL with ERR_NOT_FOUND, or ERR_FORMAT when its shape is not
 * the expected one: "tensor 'a.b': expected [320,4,3,3], got [320,9,3,3]" (PyTorch's order). Sizes are given in ggml's
 * order, -1 for any:
 *     weights_tensor(w, e, WEIGHTS_CONV, name, 3, 3, in, out)
 *     weights_tensor(w, e, WEIGHTS_MATRIX, name, in, out)
 *     weights_tensor(w, e, WEIGHTS_VECTOR, name, n)
 * A linear layer stored as 1x1 convolution and the reverse are the same thing and get the shape asked for.
 * The tensor's type is final; asking twice gives the same tensor. */
#define weights_tensor(w, e, use, name, ...)                                                                           \
    weights_tensor_nd((w), (e), (use), (name), (const int64_t[]){__VA_ARGS__},                                         \
                      (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
struct ggml_tensor *weights_tensor_nd(weights *w, err *e, weights_use use, const char *name, const int64_t *ne,
                                      int n_dims);

/* Called now and then with the part done (0..1); false stops the commit with ERR_CANCELLED. */
typedef bool (*weights_progress)(void *ctx, float done);

/* Phase 2. Gives memory on `backend` and contents to every tensor asked for since the last commit whose name starts
 * with `prefix` (so components may go to different backends); "" for all. Buffers are marked as weights for
 * ggml_backend_sched. `progress` may be NULL. After a failure some tensors have no contents: close the weights, or
 * evict them. */
bool weights_commit(weights *w, const char *prefix, ggml_backend_t backend, weights_progress progress, void *ctx,
                    err *e);

/* Takes the memory that weights_commit() and weights_change() gave away again; the next commit, to any backend, brings
 * the files' contents back. */
void weights_evict(weights *w);

/* ---- contents in another order ------------------------------------------------------------------------------------
 */

/* Room for a tensor's numbers in an order that suits whoever computes with them. The tensor's `extra` points to it if
 * the tensor is a matrix or a kernel of a network that runs once for each step, and lies in the host's memory; NULL
 * elsewhere. It belongs to the weights, which empty it, and free its memory, when the tensor's contents change or go.
 */
typedef struct weights_kept {
    float *data;             /* from a cache line on; NULL: nothing is kept */
    int form;                /* the order, which the owner of data chose */
    bool is_done;            /* data is filled */
    void *memory;            /* private: what data is in */
    const tensor_file *file; /* private: where the tensor lies mapped; NULL: it has memory of its own */
    const tensor_info *info; /* private */
} weights_kept;

/* Gives it memory for so many floats in this order, if it has none; what is in it is undefined. Memory of another order
 * is freed. Without memory the process ends, as with mem_alloc(). */
void weights_keep_room(weights_kept *k, int form, size_t floats);

/* Whether the tensor lies mapped. */
bool weights_is_mapped(const weights_kept *k);

/* Copies a part of a mapped tensor, which must lie inside, to `to`, as file_map_copy() does; from any thread. */
void weights_copy(const weights_kept *k, size_t from, size_t bytes, void *to);

/* data is filled: the tensor's mapped pages leave resident memory; they stay usable. */
void weights_keep(weights_kept *k);

/* ---- contents other than the file's (lora.h) -----------------------------------------------------------------------
 */

/* Canonical names, i < weights_size(). */
size_t weights_size(const weights *w);
const char *weights_name(const weights *w, size_t i);

/* Where tensor i of those lies as it is stored; borrowed. */
const tensor_info *weights_stored(const weights *w, size_t i, const tensor_file **file);

/* The weights' own copy of this name; NULL unless the tensor was asked for. */
const char *weights_asked(const weights *w, const char *name);

/* For a committed tensor, by name (weights_change_bytes() also before that, as it will be on the CPU). weights_read():
 * its numbers as the file has them, whatever it holds now;
 * ggml_nelements() floats. weights_change() gives it other numbers, each rounded once to the tensor's type; a tensor
 * that lies in the file, or is quantised (it becomes f16), moves to memory of its own for that, of
 * weights_change_bytes(). ERR_MEMORY; ERR_FORMAT for a number that the type cannot hold: the contents are undefined
 * then. weights_restore() gives it the file's contents, bit for bit, and frees that memory; fine when nothing was
 * changed. */
void weights_read(const weights *w, const char *name, float *out);
size_t weights_change_bytes(const weights *w, const char *name);
size_t weights_changed_bytes(const weights *w); /* of all that have such memory now */
bool weights_change(weights *w, const char *name, const float *values, err *e);
void weights_restore(weights *w, const char *name);

/* The mapped pages of every tensor whose name starts with prefix leave resident memory; they stay usable and are read
 * again when touched. For a component that is not needed for now: "model.diffusion_model.". */
void weights_release(weights *w, const char *prefix);

#endif
