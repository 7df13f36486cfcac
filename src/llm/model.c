/* model.c - see model.h. */
#include "llm/model.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "llm/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 20, SPLITS_MAX = 999 };
static const double GB = 1e9;

/* libllama says why something failed only in its log: the first complaint is kept while a model is opened (the later
 * ones only say that this made something else fail). */
typedef struct complaint {
    char text[200];
} complaint;

/* The text behind "function_name: ". */
static const char *without_function(const char *text) {
    const char *colon = strstr(text, ": ");
    return colon && strcspn(text, " ") == (size_t)(colon - text) + 1 ? colon + 2 : text;
}

static void take_log(enum ggml_log_level level, const char *text, void *ctx) {
    complaint *c = ctx;
    size_t n = strcspn(text, "\r\n");
    if (!n) return;
    log_write(LOG_DEBUG, "llama", "%.*s", (int)n, text);
    if (level != GGML_LOG_LEVEL_ERROR || !c || c->text[0]) return;
    snprintf(c->text, sizeof c->text, "%.*s", (int)(n - (size_t)(without_function(text) - text)),
             without_function(text));
}

/* ---- memory: asked for before it is taken, so that the answer has figures ---- */

/* Bytes of the file, and of its other parts when it is one of "name-00001-of-00003.gguf". */
static bool file_bytes(const char *path, uint64_t *bytes, err *e) {
    file_info info;
    if (!file_stat(path, &info, e)) return false;
    if (info.is_dir) return err_set(e, ERR_INVALID, "'%s' is a folder", path);
    *bytes = (uint64_t)info.size;
    const char *of = strstr(path, "-of-");
    int64_t parts = 0;
    if (!of || strlen(of) != strlen("-of-00003.gguf")) return true;
    char digits[6] = {0};
    memcpy(digits, of + 4, 5);
    char prefix[4096];
    if (!str_to_i64(digits, &parts) || parts > SPLITS_MAX ||
        llama_split_prefix(prefix, sizeof prefix, path, 0, (int)parts) <= 0)
        return true;
    for (int i = 1; i < parts; i++) {
        char part[4200];
        llama_split_path(part, sizeof part, prefix, i, (int)parts);
        if (!file_stat(part, &info, e)) return err_wrap(e, "part %d of %d", i + 1, (int)parts);
        *bytes += (uint64_t)info.size;
    }
    return true;
}

static bool uses_device(const llm_options *o) {
    return o->n_gpu_layers != 0 && llama_supports_gpu_offload() &&
           (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) ||
            ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU));
}

/* Weights are mapped: they may exceed what is free now, because the file cache gives way, but not the machine. */
static bool check_weights(uint64_t bytes, const llm_options *o, err *e) {
    memory_info mem = memory_status();
    if (!mem.available || uses_device(o) || bytes <= mem.available) return true;
    return err_set(e, ERR_MEMORY, "the model's file has %.2f GB, but only %.2f GB of %.2f GB memory are available",
                   (double)bytes / GB, (double)mem.available / GB, (double)mem.total / GB);
}

uint64_t llm_model_meta_number(const llm_model *m, const char *name, uint64_t otherwise) {
    char key[128], text[32];
    uint64_t v;
    snprintf(key, sizeof key, "%s.%s", m->info.architecture, name);
    if (llama_model_meta_val_str(m->weights, key, text, sizeof text) < 0 || !str_to_u64(text, &v) || !v)
        return otherwise;
    return v;
}

/* Bytes of the cache for one slot of n tokens: K and V in half precision for each layer. An upper bound: layers with a
 * sliding window or a recurrent state keep less. */
static uint64_t cache_bytes(const llm_model *m, int n) {
    int heads = llama_model_n_head(m->weights), kv_heads = llama_model_n_head_kv(m->weights);
    uint64_t width = (uint64_t)llama_model_n_embd(m->weights) / (uint64_t)(heads > 0 ? heads : 1);
    uint64_t kv = llm_model_meta_number(m, "attention.key_length", width) +
                  llm_model_meta_number(m, "attention.value_length", width);
    return 2 * kv * (uint64_t)(kv_heads > 0 ? kv_heads : 1) * (uint64_t)llama_model_n_layer(m->weights) * (uint64_t)n;
}

/* How many of the wished slots fit; 0 with the figures when not even one does. */
static int fit_slots(const llm_model *m, int n_ctx, int wished, bool on_device, err *e) {
    uint64_t each = cache_bytes(m, n_ctx), room = memory_status().available;
    if (on_device) {
        size_t device_free = 0, total = 0;
        ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
        if (!dev) dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
        ggml_backend_dev_memory(dev, &device_free, &total);
        room = device_free;
    }
    if (!room || !each) return wished;
    /* Mapped weights count as available, but a second slot is not worth reading them from the disk again and again. */
    uint64_t weights = on_device ? 0 : m->info.weights_bytes, spare = weights < room ? room - weights : 0;
    uint64_t fit = spare >= each ? spare / each : room >= each ? 1 : 0;
    if (fit == 0)
        err_set(e, ERR_MEMORY,
                "a context of %d tokens needs %.2f GB beside the weights, but only %.2f GB are available; "
                "a smaller n_ctx needs less",
                n_ctx, (double)each / GB, (double)room / GB);
    return fit < (uint64_t)wished ? (int)fit : wished;
}

/* ---- opening ---- */

static bool loading(float done, void *ctx) {
    const llm_hooks *h = ctx;
    return !h->loading || h->loading(h->ctx, done);
}

static bool computing_must_stop(void *ctx) {
    const llm_hooks *h = ctx;
    return h->computing && !h->computing(h->ctx);
}

static bool cannot_use(const llm_model *m, err *e) {
    return err_set(e, ERR_UNSUPPORTED, "a model of architecture '%s' makes neither text token by token nor embeddings",
                   m->info.architecture);
}

static bool is_usable(const llm_model *m, err *e) {
    if (llama_model_has_encoder(m->weights) || !llama_model_has_decoder(m->weights) ||
        llama_model_is_diffusion(m->weights))
        return cannot_use(m, e);
    if (llama_vocab_type(m->vocab) == LLAMA_VOCAB_TYPE_NONE || m->n_vocab < 1)
        return err_set(e, ERR_UNSUPPORTED, "the model has no vocabulary");
    return true;
}

static void read_info(llm_model *m) {
    llm_info *i = &m->info;
    if (llama_model_meta_val_str(m->weights, "general.architecture", i->architecture, sizeof i->architecture) < 0)
        str_copy(i->architecture, sizeof i->architecture, "unknown");
    llama_model_desc(m->weights, i->description, sizeof i->description);
    i->parameters = llama_model_n_params(m->weights);
    i->weights_bytes = llama_model_size(m->weights);
    i->n_ctx_train = llama_model_n_ctx_train(m->weights);
    m->vocab = llama_model_get_vocab(m->weights);
    m->n_vocab = llama_vocab_n_tokens(m->vocab);
    m->n_swa = llama_model_n_swa(m->weights);
}

static void read_vocabulary(llm_model *m) {
    m->end_tokens = mem_alloc((size_t)m->n_vocab, sizeof *m->end_tokens);
    for (llama_token t = 0; t < m->n_vocab; t++)
        if (llama_vocab_is_eog(m->vocab, t)) m->end_tokens[m->end_count++] = t;
    const char *own = llama_model_chat_template(m->weights, NULL);
    m->chat_template = chat_template_choose(own);
    m->info.chat_template = own && m->chat_template == own;
    if (!m->info.chat_template)
        log_warn("llm", "the model %s; chats are rendered as ChatML",
                 own ? "has a chat template of an unknown kind" : "has no chat template");
}

static bool load_weights(llm_model *m, const char *path, const llm_options *o, const llm_hooks *hooks, complaint *why,
                         err *e) {
    struct llama_model_params p = llama_model_default_params();
    p.n_gpu_layers = o->n_gpu_layers;
    p.progress_callback = loading;
    p.progress_callback_user_data = (void *)(uintptr_t)hooks;
    m->weights = llama_model_load_from_file(path, p);
    if (m->weights) return true;
    if (hooks->loading && !hooks->loading(hooks->ctx, 0)) return err_set(e, ERR_CANCELLED, "loading was cancelled");
    return err_set(e, ERR_FORMAT, "%s", why->text[0] ? why->text : "not a model that can be read");
}

static int choose_ctx(const llm_model *m, int wished) {
    int train = m->info.n_ctx_train;
    if (wished <= 0) return train > 0 && train < LLM_CTX_DEFAULT_MAX ? train : LLM_CTX_DEFAULT_MAX;
    if (train > 0 && wished > train)
        log_warn("llm", "n_ctx %d is more than the %d tokens the model was trained for", wished, train);
    return wished;
}

static int choose_threads(const llm_model *m, const llm_options *o) {
    if (o->threads > 0) return o->threads;
    int most = cpu_cores();
    if (o->max_threads > 0 && o->max_threads < most) most = o->max_threads;
    uint64_t useful = 1 + m->info.weights_bytes / LLM_BYTES_PER_THREAD;
    return useful < (uint64_t)most ? (int)useful : most;
}

static bool make_context(llm_model *m, const llm_options *o, const llm_hooks *hooks, const complaint *why, err *e) {
    bool on_device = uses_device(o);
    int n_ctx = choose_ctx(m, o->n_ctx);
    int slots = fit_slots(m, n_ctx, o->slots, on_device, e);
    if (!slots) return false;
    if (slots < o->slots) log_warn("llm", "memory suffices for %d of %d slots of %d tokens", slots, o->slots, n_ctx);
    m->chunk = on_device ? LLM_CHUNK_DEVICE : LLM_CHUNK;
    m->info.n_ctx = n_ctx;
    m->info.slots = slots;
    m->info.generates = true;
    m->info.threads = choose_threads(m, o);

    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)n_ctx * (uint32_t)slots;
    p.n_seq_max = (uint32_t)slots;
    p.kv_unified = false;
    p.n_batch = p.n_ubatch = (uint32_t)(m->chunk > slots ? m->chunk : slots);
    p.n_outputs_max = (uint32_t)slots; /* logits of the last token of each sequence: a row is n_vocab floats */
    p.swa_full = false;
    p.n_threads = p.n_threads_batch = m->info.threads;
    p.no_perf = true;
    p.abort_callback = computing_must_stop;
    p.abort_callback_data = (void *)(uintptr_t)hooks;
    m->ctx = llama_init_from_model(m->weights, p);
    if (m->ctx && !llama_get_memory(m->ctx)) { /* BERT and its kin keep nothing: they make embeddings */
        llama_free(m->ctx);
        m->ctx = NULL;
        m->info.generates = false;
        m->info.slots = 0;
        return true;
    }
    if (m->ctx) return true;
    return err_set(e, ERR_MEMORY, "a context of %d tokens for %d slots (%.2f GB) can't be made: %s", n_ctx, slots,
                   (double)(cache_bytes(m, n_ctx) * (uint64_t)slots) / GB, why->text);
}

struct llama_context *llm_model_embedding_context(const llm_model *m, int n_ctx, int n_batch, const llm_hooks *hooks,
                                                  err *e) {
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)n_ctx;
    p.n_batch = p.n_ubatch = (uint32_t)n_batch;
    p.n_seq_max = 1;
    p.embeddings = true;
    p.n_threads = p.n_threads_batch = m->info.threads;
    p.no_perf = true;
    p.abort_callback = computing_must_stop;
    p.abort_callback_data = (void *)(uintptr_t)hooks;
    uint64_t needed = cache_bytes(m, n_ctx), room = memory_status().available;
    if (m->info.generates && room && needed > room) {
        err_set(e, ERR_MEMORY, "embeddings need %.2f GB beside the model, but only %.2f GB are available",
                (double)needed / GB, (double)room / GB);
        return NULL;
    }
    struct llama_context *ctx = llama_init_from_model(m->weights, p);
    if (!ctx) err_set(e, ERR_MEMORY, "a context for embeddings of %d tokens can't be made", n_ctx);
    return ctx;
}

/* One set of threads for the life of the model, which sleeps (poll 0) between graphs: an idle worker takes no processor
 * time, and a token does not pay for starting threads. The functions are asked for by name because the CPU backend may
 * be a library of its own. */
static void attach_threads(llm_model *m) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t reg = cpu ? ggml_backend_dev_backend_reg(cpu) : NULL;
    if (!reg || !m->ctx || m->info.threads < 2) return;
    struct ggml_threadpool *(*create)(struct ggml_threadpool_params *);
    *(void **)&create = ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    if (!create) return;
    struct ggml_threadpool_params p = ggml_threadpool_params_default(m->info.threads);
    p.poll = 0;
    m->pool = create(&p);
    if (m->pool) llama_attach_threadpool(m->ctx, m->pool, NULL);
}

static void free_threads(llm_model *m) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    void (*destroy)(struct ggml_threadpool *);
    if (!m->pool) return;
    *(void **)&destroy = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_threadpool_free");
    if (destroy) destroy(m->pool);
}

static bool open_all(llm_model *m, const char *path, const llm_options *o, const llm_hooks *hooks, complaint *why,
                     err *e) {
    uint64_t bytes;
    if (!file_bytes(path, &bytes, e) || !check_weights(bytes, o, e)) return false;
    if (!load_weights(m, path, o, hooks, why, e)) return false;
    read_info(m);
    if (!is_usable(m, e)) return false;
    read_vocabulary(m);
    if (!make_context(m, o, hooks, why, e)) return false;
    attach_threads(m);
    return true;
}

bool llm_model_open(llm_model *m, const char *path, const llm_options *o, const llm_hooks *hooks, err *e) {
    *m = (llm_model){0};
    if (o->slots < 1 || o->slots > LLM_SLOTS_MAX)
        return err_set(e, ERR_INVALID, "slots: %d is not between 1 and %d", o->slots, LLM_SLOTS_MAX);
    complaint why = {0};
    llama_log_set(take_log, &why);
    bool ok = open_all(m, path, o, hooks, &why, e);
    llama_log_set(take_log, NULL);
    if (!ok) llm_model_close(m);
    return ok;
}

void llm_model_close(llm_model *m) {
    if (m->ctx) llama_free(m->ctx);
    free_threads(m);
    if (m->weights) llama_model_free(m->weights);
    free(m->end_tokens);
    *m = (llm_model){0};
}

/* ---- vocabulary ---- */

bool llm_model_tokenize(const llm_model *m, const char *text, bool add_special, llama_token **tokens, size_t *count,
                        err *e) {
    size_t len = strlen(text);
    if (len > TEXT_MAX) return err_set(e, ERR_TOO_LARGE, "more than %d MB of text", TEXT_MAX >> 20);
    if (!str_is_utf8(text, len)) return err_set(e, ERR_INVALID, "the text is not valid UTF-8");
    int32_t cap = (int32_t)len + 16; /* a token is hardly ever less than a byte */
    llama_token *list = mem_alloc((size_t)cap, sizeof *list);
    int32_t n = llama_tokenize(m->vocab, text, (int32_t)len, list, cap, add_special, true);
    if (n < 0 && n != INT32_MIN) {
        cap = -n;
        list = mem_resize(list, (size_t)cap * sizeof *list);
        n = llama_tokenize(m->vocab, text, (int32_t)len, list, cap, add_special, true);
    }
    if (n < 0) {
        free(list);
        return err_set(e, ERR_INVALID, "the text can't be tokenized");
    }
    *tokens = list;
    *count = (size_t)n;
    return true;
}

void llm_model_piece(const llm_model *m, llama_token token, buf *out) {
    char piece[256];
    int32_t n = llama_token_to_piece(m->vocab, token, piece, sizeof piece, 0, false);
    if (n >= 0) {
        buf_append(out, piece, (size_t)n);
        return;
    }
    char *at = buf_reserve(out, (size_t)-n);
    if (!at) return;
    n = llama_token_to_piece(m->vocab, token, at, -n, 0, false);
    if (n > 0) out->len += (size_t)n;
}
