/* weights.c - see weights.h.
 * An `item` is one canonical name and where its bytes lie. Once asked for, it has a ggml tensor; once committed, that
 * has memory: a place in the mapped file, or in a buffer of the backend filled piece by piece. */
#include "diffusion/load/weights.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/model_kind.h"
#include "diffusion/load/name_view.h"
#include "diffusion/load/tensor_convert.h"

#include <ggml-alloc.h>
#include <float.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOURCES_MAX = 8, BUFFERS_MAX = 256, COPY_BYTES = 4 << 20, PAGE = 4096 };

typedef struct source {
    tensor_file *file;
    name_view view;
    ggml_backend_buffer_t mapped; /* over the whole mapping; NULL until a commit on the CPU needs it */
} source;

typedef struct item {
    const char *name; /* borrowed from the source's view */
    source *from;
    const tensor_info *info;
    struct ggml_tensor *tensor; /* NULL until asked for */
    struct ggml_tensor *home;   /* what *tensor was before it moved to memory of its own; NULL: it did not */
    bool is_changed;            /* its contents are not the file's */
    weights_kept kept;
} item;

struct weights {
    source sources[SOURCES_MAX];
    size_t source_count;
    item *items;
    size_t count, cap;
    name_index by_name;
    struct ggml_context *ctx; /* the tensors, without their data */
    ggml_backend_buffer_t buffers[BUFFERS_MAX];
    size_t buffer_count;
};

/* --- opening --- */

typedef struct component_file {
    tensor_component component;
    const char *path;   /* NULL: not given */
    const char *folder; /* in a diffusers folder */
} component_file;

enum { COMPONENTS = 4 };

static void list_components(component_file out[COMPONENTS], const weights_files *files) {
    out[0] = (component_file){COMPONENT_DIFFUSION, files->diffusion_model, "unet"};
    out[1] = (component_file){COMPONENT_VAE, files->vae, "vae"};
    out[2] = (component_file){COMPONENT_CLIP_L, files->clip_l, "text_encoder"};
    out[3] = (component_file){COMPONENT_CLIP_G, files->clip_g, "text_encoder_2"};
}

/* True when a file of its own replaces the component this name belongs to. */
static bool is_hidden(const char *name, const component_file *components) {
    for (int i = 0; i < COMPONENTS; i++)
        if (components[i].path && str_starts(name, tensor_component_prefix(components[i].component))) return true;
    return false;
}

static void add_item(weights *w, source *s, const name_entry *entry) {
    if (!name_index_put(&w->by_name, entry->name, w->count)) return;
    if (w->count == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 1024;
        w->items = mem_resize(w->items, w->cap * sizeof *w->items);
    }
    w->items[w->count++] = (item){.name = entry->name, .from = s, .info = entry->info};
}

static source *open_source(weights *w, const char *path, tensor_component component, err *e) {
    tensor_file *f = tensor_file_open(path, e);
    if (!f) return NULL;
    source *s = &w->sources[w->source_count++];
    s->file = f;
    name_view_init(&s->view, f, component);
    return s;
}

/* One component's own file. */
static bool add_component(weights *w, const char *path, tensor_component component, err *e) {
    if (!path) return true;
    source *s = open_source(w, path, component, e);
    if (!s) return false;
    size_t before = w->count;
    const char *prefix = tensor_component_prefix(component);
    for (size_t i = 0; i < s->view.count; i++)
        if (str_starts(s->view.entries[i].name, prefix)) add_item(w, s, &s->view.entries[i]);
    if (w->count > before) return true;
    return err_set(e, ERR_FORMAT, "'%.100s': holds no tensor named %s*", path_base(path), prefix);
}

static bool add_dir(weights *w, const char *dir, const component_file *components, err *e) {
    for (int i = 0; i < COMPONENTS; i++) {
        if (components[i].path) continue;
        char *path = model_diffusers_file(dir, components[i].folder);
        bool ok = add_component(w, path, components[i].component, e);
        free(path);
        if (!ok) return err_wrap(e, "%s", components[i].folder);
    }
    return true;
}

static bool add_model(weights *w, const char *path, const component_file *components, err *e) {
    if (!path) return true;
    if (path_is_dir(path)) return add_dir(w, path, components, e);
    source *s = open_source(w, path, COMPONENT_ANY, e);
    if (!s) return false;
    for (size_t i = 0; i < s->view.count; i++)
        if (!is_hidden(s->view.entries[i].name, components)) add_item(w, s, &s->view.entries[i]);
    return true;
}

static bool open_all(weights *w, const weights_files *files, err *e) {
    component_file components[COMPONENTS];
    list_components(components, files);
    for (int i = 0; i < COMPONENTS; i++)
        if (!add_component(w, components[i].path, components[i].component, e)) return false;
    if (!add_model(w, files->model, components, e)) return false;
    if (w->count == 0) return err_set(e, ERR_INVALID, "no model file with tensors given");
    w->ctx =
        ggml_init((struct ggml_init_params){.mem_size = ggml_tensor_overhead() * (w->count + 1), .no_alloc = true});
    return w->ctx || err_set(e, ERR_MEMORY, "no memory for %zu tensors", w->count);
}

weights *weights_open(const weights_files *files, err *e) {
    weights *w = mem_alloc(1, sizeof *w);
    if (open_all(w, files, e)) return w;
    weights_close(w);
    return NULL;
}

static void forget_kept(item *it) {
    free(it->kept.memory);
    it->kept = (weights_kept){0};
}

/* Of a UNet, or of a ControlNet by either of its names. Texts' keys and values are computed once, not at each step. */
static bool is_read_often(const item *it) {
    const bool is_of_step = str_starts(it->name, "model.diffusion_model.") || str_starts(it->name, "control_model.");
    return is_of_step && !strstr(it->name, ".attn2.to_k.") && !strstr(it->name, ".attn2.to_v.");
}

static void offer_kept(item *it) {
    const bool is_matrix = ggml_n_dims(it->tensor) > 1, is_host = ggml_backend_buffer_is_host(it->tensor->buffer);
    if (!is_matrix || !is_host || !is_read_often(it)) return;
    const bool is_mapped = it->tensor->buffer == it->from->mapped;
    it->kept.file = is_mapped ? it->from->file : NULL;
    it->kept.info = it->info;
    it->tensor->extra = &it->kept;
}

void weights_keep_room(weights_kept *k, int form, size_t floats) {
    enum { LINE = 64 };
    if (k->data && k->form == form) return;
    free(k->memory);
    k->form = form;
    k->is_done = false;
    const size_t bytes = floats * sizeof *k->data;
    k->memory = mem_alloc(bytes + LINE, 1);
    memory_prefer_large_pages(k->memory, bytes + LINE);
    k->data = (float *)(void *)((char *)k->memory + (LINE - (uintptr_t)k->memory % LINE));
}

bool weights_is_mapped(const weights_kept *k) {
    return k->file != NULL;
}

void weights_copy(const weights_kept *k, size_t from, size_t bytes, void *to) {
    tensor_file_copy(k->file, k->info->offset + from, bytes, to);
}

void weights_keep(weights_kept *k) {
    k->is_done = true;
    if (k->file) tensor_file_release(k->file, k->info->offset, k->info->nbytes);
}

/* Back to where it was committed; its own memory is freed. */
static void move_home(item *it) {
    if (!it->home) return;
    ggml_backend_buffer_free(it->tensor->buffer);
    *it->tensor = *it->home;
    free(it->home);
    it->home = NULL;
}

static void free_buffers(weights *w) {
    for (size_t i = 0; i < w->buffer_count; i++) ggml_backend_buffer_free(w->buffers[i]);
    w->buffer_count = 0;
}

void weights_close(weights *w) {
    if (!w) return;
    for (size_t i = 0; i < w->count; i++) {
        forget_kept(&w->items[i]);
        move_home(&w->items[i]);
    }
    free_buffers(w);
    if (w->ctx) ggml_free(w->ctx);
    name_index_free(&w->by_name);
    free(w->items);
    for (size_t i = 0; i < w->source_count; i++) {
        if (w->sources[i].mapped) ggml_backend_buffer_free(w->sources[i].mapped);
        name_view_free(&w->sources[i].view);
        tensor_file_close(w->sources[i].file);
    }
    free(w);
}

/* --- queries --- */

static item *find_item(const weights *w, const char *name) {
    size_t i;
    return name_index_get(&w->by_name, name, &i) ? &w->items[i] : NULL;
}

bool weights_has(const weights *w, const char *name) {
    return find_item(w, name) != NULL;
}

bool weights_has_prefix(const weights *w, const char *prefix) {
    for (size_t i = 0; i < w->count; i++)
        if (str_starts(w->items[i].name, prefix)) return true;
    return false;
}

int weights_count(const weights *w, const char *prefix) {
    char numbered[1024];
    for (int n = 0;; n++) {
        int len = snprintf(numbered, sizeof numbered, "%s%d.", prefix, n);
        if (len >= (int)sizeof numbered || !weights_has_prefix(w, numbered)) return n;
    }
}

bool weights_shape(const weights *w, const char *name, int64_t ne[4]) {
    const item *it = find_item(w, name);
    if (!it) return false;
    memcpy(ne, it->info->ne, sizeof it->info->ne);
    return true;
}

int64_t weights_dim(const weights *w, const char *name, int dim) {
    const item *it = find_item(w, name);
    return it && dim >= 0 && dim < 4 ? it->info->ne[dim] : 0;
}

uint64_t weights_bytes(const weights *w, const char *prefix) {
    uint64_t sum = 0;
    for (size_t i = 0; i < w->count; i++)
        if (str_starts(w->items[i].name, prefix)) sum += w->items[i].info->nbytes;
    return sum;
}

size_t weights_asked_bytes(const weights *w, const char *prefix) {
    size_t sum = 0;
    for (size_t i = 0; i < w->count; i++)
        if (w->items[i].tensor && str_starts(w->items[i].name, prefix)) sum += ggml_nbytes(w->items[i].tensor);
    return sum;
}

/* --- phase 1: shapes and types --- */

typedef struct shape {
    int n;
    int64_t ne[4];
} shape;

static bool matches(const shape *want, const int64_t ne[4]) {
    for (int i = 0; i < 4; i++) {
        int64_t expected = i < want->n ? want->ne[i] : 1;
        if (expected != -1 && expected != ne[i]) return false;
    }
    return true;
}

/* The stored sizes as the caller wants them: as they are, or with the kernel's 1x1 taken away (a linear layer stored as
 * convolution), or added (the reverse), or a vector that was stored with sizes of 1 around it. */
static bool fit_shape(const shape *want, const int64_t stored[4], int64_t ne[4]) {
    memcpy(ne, stored, 4 * sizeof *ne);
    if (matches(want, ne)) return true;
    if (want->n <= 2 && stored[0] == 1 && stored[1] == 1) {
        ne[0] = stored[2], ne[1] = stored[3], ne[2] = ne[3] = 1;
        if (matches(want, ne)) return true;
    }
    if (want->n == 4 && stored[2] == 1 && stored[3] == 1) {
        ne[0] = ne[1] = 1, ne[2] = stored[0], ne[3] = stored[1];
        if (matches(want, ne)) return true;
    }
    if (want->n == 1) {
        int64_t total = 1, longest = 1;
        for (int i = 0; i < 4; i++) {
            total *= stored[i];
            if (stored[i] > longest) longest = stored[i];
        }
        ne[0] = total, ne[1] = ne[2] = ne[3] = 1;
        return total == longest && matches(want, ne);
    }
    return false;
}

/* PyTorch's order, "*" for any. */
static void print_shape(char *out, size_t cap, int n, const int64_t *ne) {
    int len = snprintf(out, cap, "[");
    for (int i = n - 1; i >= 0 && len < (int)cap; i--)
        len += ne[i] == -1 ? snprintf(out + len, cap - (size_t)len, "*%s", i ? "," : "")
                           : snprintf(out + len, cap - (size_t)len, "%" PRId64 "%s", ne[i], i ? "," : "");
    if (len < (int)cap) snprintf(out + len, cap - (size_t)len, "]");
}

static bool bad_shape(const item *it, const shape *want, err *e) {
    char expected[96], got[96];
    print_shape(expected, sizeof expected, want->n, want->ne);
    print_shape(got, sizeof got, it->info->n_dims, it->info->ne);
    return err_set(e, ERR_FORMAT, "tensor '%.100s': expected %s, got %s", it->name, expected, got);
}

static bool can_multiply(tensor_type t) {
    if (t == TENSOR_F32 || t == TENSOR_F16 || t == TENSOR_BF16) return true;
    return tensor_type_is_quantized(t) && t != TENSOR_Q8_1 && t != TENSOR_Q8_K && tensor_convert_can(t);
}

static bool is_f8(tensor_type t) {
    return t == TENSOR_F8_E4M3 || t == TENSOR_F8_E5M2;
}

/* Kernels are half or single precision: im2col and the backends' convolutions take nothing else. */
static enum ggml_type conv_type(const item *it) {
    tensor_type t = it->info->type;
    if (t == TENSOR_F32) return GGML_TYPE_F32;
    if (t != TENSOR_BF16) return GGML_TYPE_F16;
    int64_t n = (int64_t)(it->info->nbytes / 2);
    return tensor_convert_bf16_fits_f16(tensor_file_data(it->from->file, it->info), n) ? GGML_TYPE_F16 : GGML_TYPE_F32;
}

static enum ggml_type type_for(const item *it, weights_use use) {
    switch (use) {
    case WEIGHTS_VECTOR:
        return GGML_TYPE_F32;
    case WEIGHTS_CONV:
        return conv_type(it);
    case WEIGHTS_MATRIX:
    case WEIGHTS_EMBEDDING:
        break;
    }
    if (can_multiply(it->info->type)) return (enum ggml_type)it->info->type;
    return is_f8(it->info->type) ? GGML_TYPE_F16 : GGML_TYPE_F32;
}

/* Scaled f8 keeps a factor in a tensor beside it; without it the numbers would be nonsense. */
static bool check_scale(const weights *w, const item *it, err *e) {
    static const char SUFFIX[] = ".weight";
    if (!is_f8(it->info->type) || !str_ends(it->name, SUFFIX)) return true;
    int stem = (int)(strlen(it->name) - strlen(SUFFIX));
    static const char *const SCALES[] = {"scale_weight", "weight_scale"};
    for (size_t i = 0; i < sizeof SCALES / sizeof *SCALES; i++) {
        char *name = str_fmt("%.*s.%s", stem, it->name, SCALES[i]);
        bool is_scaled = weights_has(w, name);
        free(name);
        if (is_scaled) return err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': scaled f8 is not supported yet", it->name);
    }
    return true;
}

static bool make_tensor(weights *w, item *it, weights_use use, const int64_t ne[4], int n_dims, err *e) {
    if (!tensor_convert_can(it->info->type))
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': type %s can't be computed with", it->name,
                       tensor_type_name(it->info->type));
    if (it->info->nbytes == 0) return err_set(e, ERR_FORMAT, "tensor '%.100s' is empty", it->name);
    if (!check_scale(w, it, e)) return false;
    enum ggml_type type = type_for(it, use);
    if (ne[0] % ggml_blck_size(type) != 0) type = GGML_TYPE_F16; /* blocks run along ne[0] */
    it->tensor = ggml_new_tensor(w->ctx, type, n_dims, ne);
    ggml_set_name(it->tensor, it->name);
    return true;
}

struct ggml_tensor *weights_tensor_nd(weights *w, err *e, weights_use use, const char *name, const int64_t *ne,
                                      int n_dims) {
    item *it = find_item(w, name);
    shape want = {.n = n_dims < 4 ? n_dims : 4};
    for (int i = 0; i < want.n; i++) want.ne[i] = ne[i];
    int64_t fitted[4];
    if (!it) {
        err_set(e, ERR_NOT_FOUND, "tensor '%.150s' is missing", name);
    } else if (it->tensor ? !matches(&want, it->tensor->ne) : !fit_shape(&want, it->info->ne, fitted)) {
        bad_shape(it, &want, e);
    } else if (it->tensor || make_tensor(w, it, use, fitted, want.n, e)) {
        return it->tensor;
    }
    return NULL;
}

/* --- phase 2: memory and contents --- */

/* What one commit works on. */
typedef struct commit {
    weights *w;
    const char *prefix; /* of the names that it is about */
    ggml_backend_t backend;
    ggml_backend_buffer_type_t buft;
    item **todo; /* tensors that need memory of their own */
    size_t count;
    uint64_t total, done; /* bytes to copy */
    weights_progress progress;
    void *ctx;
} commit;

/* Where the system's pages can be computed on as they are. */
static bool is_usable_in_place(const item *it) {
    uintptr_t address = (uintptr_t)tensor_file_data(it->from->file, it->info);
    return (tensor_type)it->tensor->type == it->info->type &&
           address % (uintptr_t)tensor_type_align(it->info->type) == 0;
}

static bool place_in_file(item *it, err *e) {
    source *s = it->from;
    if (!s->mapped) {
        /* ggml's CPU code reads weights only; the mapping is read-only and would fault otherwise. */
        void *base = (void *)(uintptr_t)tensor_file_base(s->file);
        s->mapped = ggml_backend_cpu_buffer_from_ptr(base, (size_t)tensor_file_size(s->file));
        if (!s->mapped) return err_set(e, ERR_MEMORY, "no buffer over the mapped file");
        ggml_backend_buffer_set_usage(s->mapped, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    }
    void *data = (void *)(uintptr_t)tensor_file_data(s->file, it->info);
    if (ggml_backend_tensor_alloc(s->mapped, it->tensor, data) != GGML_STATUS_SUCCESS)
        return err_set(e, ERR_DEVICE, "tensor '%.100s': the backend refused it", it->name);
    return true;
}

/* Splits the new tensors: in place, or on the list of those to copy. */
static bool sort_out(commit *c, err *e) {
    bool is_host = ggml_backend_buft_is_host(c->buft);
    c->todo = mem_alloc(c->w->count, sizeof *c->todo);
    for (size_t i = 0; i < c->w->count; i++) {
        item *it = &c->w->items[i];
        if (!it->tensor || it->tensor->data || !str_starts(it->name, c->prefix)) continue;
        if (is_host && is_usable_in_place(it)) {
            if (!place_in_file(it, e)) return false;
            continue;
        }
        c->todo[c->count++] = it;
        c->total += ggml_nbytes(it->tensor);
    }
    return true;
}

/* Gives memory to todo[first...] as far as one buffer of the backend may hold; *next is the first one left. */
static bool allocate_some(commit *c, size_t first, size_t *next, err *e) {
    size_t align = ggml_backend_buft_get_alignment(c->buft), most = ggml_backend_buft_get_max_size(c->buft);
    size_t size = 0, end = first;
    for (; end < c->count; end++) {
        size_t one = GGML_PAD(ggml_backend_buft_get_alloc_size(c->buft, c->todo[end]->tensor), align);
        if (end > first && (size > most || one > most - size)) break;
        size += one;
    }
    weights *w = c->w;
    if (w->buffer_count == BUFFERS_MAX) return err_set(e, ERR_DEVICE, "weights need more than %d buffers", BUFFERS_MAX);
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(c->buft, size + align);
    if (!buffer)
        return err_set(e, ERR_MEMORY, "%s: no %zu MiB free for weights", ggml_backend_name(c->backend), size >> 20);
    w->buffers[w->buffer_count++] = buffer;
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    struct ggml_tallocr place = ggml_tallocr_new(buffer);
    for (size_t i = first; i < end; i++)
        if (ggml_tallocr_alloc(&place, c->todo[i]->tensor) != GGML_STATUS_SUCCESS)
            return err_set(e, ERR_DEVICE, "tensor '%.100s': the backend refused it", c->todo[i]->name);
    *next = end;
    return true;
}

static bool report(commit *c, size_t bytes, err *e) {
    c->done += bytes;
    if (c->progress && !c->progress(c->ctx, (float)((double)c->done / (double)c->total)))
        return err_set(e, ERR_CANCELLED, "loading was cancelled");
    return true;
}

static bool copy_same(commit *c, item *it, err *e) {
    const char *src = tensor_file_data(it->from->file, it->info);
    size_t size = (size_t)it->info->nbytes;
    for (size_t at = 0; at < size; at += COPY_BYTES) {
        size_t n = size - at < COPY_BYTES ? size - at : COPY_BYTES;
        ggml_backend_tensor_set(it->tensor, src + at, at, n);
        if (!report(c, n, e)) return false;
    }
    return true;
}

static bool copy_converted(commit *c, item *it, err *e) {
    union {
        float f32[TENSOR_CONVERT_PIECE];
        ggml_fp16_t f16[TENSOR_CONVERT_PIECE];
    } piece;
    tensor_type from = it->info->type;
    bool is_half = it->tensor->type == GGML_TYPE_F16;
    const char *src = tensor_file_data(it->from->file, it->info);
    int64_t total = ggml_nelements(it->tensor);
    size_t width = is_half ? sizeof(ggml_fp16_t) : sizeof(float);
    for (int64_t at = 0; at < total; at += TENSOR_CONVERT_PIECE) {
        int64_t n = total - at < TENSOR_CONVERT_PIECE ? total - at : TENSOR_CONVERT_PIECE;
        const void *p = src + at / tensor_type_block_len(from) * tensor_type_block_bytes(from);
        if (is_half)
            tensor_convert_f16(from, p, piece.f16, n);
        else
            tensor_convert_f32(from, p, piece.f32, n);
        ggml_backend_tensor_set(it->tensor, &piece, (size_t)at * width, (size_t)n * width);
        if (!report(c, (size_t)n * width, e)) return false;
    }
    return true;
}

/* The file's pages are let go as soon as they are copied, so a load never holds a model twice. */
static bool fill(commit *c, item *it, err *e) {
    bool is_same = (tensor_type)it->tensor->type == it->info->type;
    if (!(is_same ? copy_same(c, it, e) : copy_converted(c, it, e))) return false;
    tensor_file_release(it->from->file, it->info->offset, it->info->nbytes);
    return true;
}

static bool copy_all(commit *c, err *e) {
    for (size_t i = 0; i < c->count; i++)
        if (!fill(c, c->todo[i], e)) return false;
    return true;
}

static bool run_commit(commit *c, err *e) {
    if (!sort_out(c, e)) return false;
    for (size_t next = 0; next < c->count;)
        if (!allocate_some(c, next, &next, e)) return false;
    if (!copy_all(c, e)) return false;
    for (size_t i = 0; i < c->w->count; i++) {
        item *it = &c->w->items[i];
        if (it->tensor && it->tensor->data && !it->tensor->extra && str_starts(it->name, c->prefix)) offer_kept(it);
    }
    return true;
}

bool weights_commit(weights *w, const char *prefix, ggml_backend_t backend, weights_progress progress, void *ctx,
                    err *e) {
    commit c = {.w = w,
                .prefix = prefix,
                .backend = backend,
                .buft = ggml_backend_get_default_buffer_type(backend),
                .progress = progress,
                .ctx = ctx};
    bool ok = run_commit(&c, e);
    free(c.todo);
    return ok;
}

/* --- contents other than the file's --- */

size_t weights_size(const weights *w) {
    return w->count;
}

const char *weights_name(const weights *w, size_t i) {
    return w->items[i].name;
}

const tensor_info *weights_stored(const weights *w, size_t i, const tensor_file **file) {
    *file = w->items[i].from->file;
    return w->items[i].info;
}

const char *weights_asked(const weights *w, const char *name) {
    const item *it = find_item(w, name);
    return it && it->tensor ? it->name : NULL;
}

void weights_read(const weights *w, const char *name, float *out) {
    const item *it = find_item(w, name);
    const tensor_type from = it->info->type;
    const char *src = tensor_file_data(it->from->file, it->info);
    const int64_t total = ggml_nelements(it->tensor);
    for (int64_t at = 0; at < total; at += TENSOR_CONVERT_PIECE) {
        int64_t n = total - at < TENSOR_CONVERT_PIECE ? total - at : TENSOR_CONVERT_PIECE;
        tensor_convert_f32(from, src + at / tensor_type_block_len(from) * tensor_type_block_bytes(from), out + at, n);
    }
    tensor_file_release(it->from->file, it->info->offset, it->info->nbytes);
}

static bool is_in_file(const item *it) {
    return it->tensor->buffer ? it->tensor->buffer == it->from->mapped : is_usable_in_place(it);
}

/* The file must not be written to, and a quantised tensor would lose the change. */
static bool must_move(const item *it) {
    return is_in_file(it) || ggml_is_quantized(it->tensor->type);
}

/* The tensor as it is to be in memory of its own: not allocated. */
static struct ggml_tensor as_moved(const item *it) {
    struct ggml_tensor t = *it->tensor;
    if (ggml_is_quantized(t.type)) t.type = GGML_TYPE_F16;
    t.nb[0] = ggml_type_size(t.type);
    t.nb[1] = t.nb[0] * (size_t)t.ne[0];
    for (int i = 2; i < GGML_MAX_DIMS; i++) t.nb[i] = t.nb[i - 1] * (size_t)t.ne[i - 1];
    t.buffer = NULL;
    t.data = NULL;
    t.extra = NULL;
    return t;
}

static ggml_backend_buffer_type_t type_to_move(const item *it) {
    if (!it->tensor->buffer || is_in_file(it)) return ggml_backend_cpu_buffer_type();
    return ggml_backend_buffer_get_type(it->tensor->buffer);
}

size_t weights_change_bytes(const weights *w, const char *name) {
    const item *it = find_item(w, name);
    if (it->home || !must_move(it)) return 0;
    const struct ggml_tensor t = as_moved(it);
    return ggml_backend_buft_get_alloc_size(type_to_move(it), &t);
}

size_t weights_changed_bytes(const weights *w) {
    size_t sum = 0;
    for (size_t i = 0; i < w->count; i++)
        if (w->items[i].home) sum += ggml_backend_buffer_get_size(w->items[i].tensor->buffer);
    return sum;
}

static bool move_out(item *it, err *e) {
    struct ggml_tensor t = as_moved(it);
    const ggml_backend_buffer_type_t buft = type_to_move(it);
    const size_t size = ggml_backend_buft_get_alloc_size(buft, &t) + ggml_backend_buft_get_alignment(buft);
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(buft, size);
    if (!buffer) return err_set(e, ERR_MEMORY, "no %zu MiB free for a changed '%.100s'", (size >> 20) + 1, it->name);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    struct ggml_tallocr place = ggml_tallocr_new(buffer);
    if (ggml_tallocr_alloc(&place, &t) != GGML_STATUS_SUCCESS) {
        ggml_backend_buffer_free(buffer);
        return err_set(e, ERR_DEVICE, "tensor '%.100s': the backend refused it", it->name);
    }
    it->home = mem_alloc(1, sizeof *it->home);
    *it->home = *it->tensor;
    *it->tensor = t;
    return true;
}

/* Not-a-number fails the comparison. */
static bool fit(const float *v, int64_t n, float most) {
    bool ok = true;
    for (int64_t i = 0; i < n; i++) ok &= v[i] >= -most && v[i] <= most;
    return ok;
}

static bool write_numbers(const item *it, const float *values, err *e) {
    union {
        ggml_fp16_t f16[TENSOR_CONVERT_PIECE];
        ggml_bf16_t bf16[TENSOR_CONVERT_PIECE];
    } piece;
    const enum ggml_type type = it->tensor->type;
    const int64_t total = ggml_nelements(it->tensor);
    const size_t width = ggml_type_size(type);
    const float most = type == GGML_TYPE_F16 ? 65504.0f : FLT_MAX;
    for (int64_t at = 0; at < total; at += TENSOR_CONVERT_PIECE) {
        const int64_t n = total - at < TENSOR_CONVERT_PIECE ? total - at : TENSOR_CONVERT_PIECE;
        const void *from = type == GGML_TYPE_F32 ? (const void *)(values + at) : &piece;
        if (!fit(values + at, n, most))
            return err_set(e, ERR_FORMAT, "'%.100s' would hold numbers beyond the range of %s", it->name,
                           ggml_type_name(type));
        if (type == GGML_TYPE_F16) ggml_fp32_to_fp16_row(values + at, piece.f16, n);
        if (type == GGML_TYPE_BF16) ggml_fp32_to_bf16_row(values + at, piece.bf16, n);
        ggml_backend_tensor_set(it->tensor, from, (size_t)at * width, (size_t)n * width);
    }
    return true;
}

bool weights_change(weights *w, const char *name, const float *values, err *e) {
    item *it = find_item(w, name);
    forget_kept(it);
    if (!it->home && must_move(it) && !move_out(it, e)) return false;
    it->is_changed = true;
    if (!write_numbers(it, values, e)) return false;
    offer_kept(it);
    return true;
}

void weights_restore(weights *w, const char *name) {
    item *it = find_item(w, name);
    if (!it->is_changed) return;
    forget_kept(it);
    if (it->home)
        move_home(it);
    else
        fill(&(commit){.w = w}, it, NULL);
    offer_kept(it);
    it->is_changed = false;
}

void weights_evict(weights *w) {
    for (size_t i = 0; i < w->count; i++) {
        item *it = &w->items[i];
        forget_kept(it);
        move_home(it);
        it->is_changed = false;
        if (!it->tensor) continue;
        it->tensor->buffer = NULL;
        it->tensor->data = NULL;
        it->tensor->extra = NULL;
    }
    free_buffers(w);
}

/* --- giving pages back --- */

static int compare_place(const void *a, const void *b) {
    const item *x = *(const item *const *)a, *y = *(const item *const *)b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return x->info->offset < y->info->offset ? -1 : x->info->offset > y->info->offset;
}

/* Neighbours in the file are released as one range: else every border between two tensors would keep a page. */
void weights_release(weights *w, const char *prefix) {
    const item **list = mem_alloc(w->count, sizeof *list);
    size_t n = 0;
    for (size_t i = 0; i < w->count; i++)
        if (str_starts(w->items[i].name, prefix)) list[n++] = &w->items[i];
    qsort(list, n, sizeof *list, compare_place);
    for (size_t i = 0; i < n;) {
        const item *first = list[i];
        uint64_t end = first->info->offset;
        for (; i < n && list[i]->from == first->from && list[i]->info->offset <= end + PAGE; i++)
            end = list[i]->info->offset + list[i]->info->nbytes;
        tensor_file_release(first->from->file, first->info->offset, end - first->info->offset);
    }
    free(list);
}
