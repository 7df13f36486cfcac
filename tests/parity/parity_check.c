/* parity_check.c - compares the networks with vectors that tools/ref/parity.py made with PyTorch.
 *
 *   parity_check FILE.safetensors ...   one case per file; prints each result's error, exit code 1 when one is too
 * large parity_check --tokens TOKENS.txt    prompts and their tokens, two lines each parity_check --tokenize prompts on
 * stdin, tokens on stdout
 *
 * The weights of a case are made from its seed, or those of the file that it names as its model (tools/parity).
 * The error of a result is max |ours - theirs| / max |theirs|. It may be 2e-4 with F32 weights (1e-3 with a model's
 * own) and 2e-2 with F16 ones (whose activations ggml rounds to F16, too). Without our own operations attention has F16
 * keys and values: 2e-2. */
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/tensor_file.h"
#include "diffusion/model/lora.h"
#include "diffusion/model/unet.h"
#include "diffusion/model/unet_blocks.h"
#include "diffusion/model/unet_texts.h"
#include "diffusion/model/unet_times.h"
#include "diffusion/model/vae.h"
#include "diffusion/model/vae_blocks.h"
#include "diffusion/text/clip.h"
#include "diffusion/text/tok_clip.h"
#include "json/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WEIGHTS_BYTES = 256 << 20 };

/* One vector file, and what its network needs. */
typedef struct test {
    tensor_file *file;
    const char *name, *kind;
    backend *b;
    weights *w;
    bool half, plain, bf16, int8;
    bool is_own; /* the weights are those of a model file */
    int checked;
    bool ok;
} test;

static _Noreturn void die(const char *what, const err *e) {
    fprintf(stderr, "parity: %s: %s\n", what, e ? e->msg : "failed");
    exit(2);
}

/* --- Weights from seed and name (the twin of weight() in parity.py) ----------------------------------------------- */

static double next_uniform(uint64_t key, uint64_t i) {
    uint64_t z = key + i * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) / 8388608.0 - 1.0;
}

static float weight_value(const char *name, size_t dims, int64_t fan_in, double u) {
    if (dims == 1) return (float)(u * 0.1 + (str_ends(name, "bias") ? 0.0 : 1.0));
    if (strstr(name, "embedding")) return (float)(u * 0.5);
    return (float)(u * sqrt(3.0 / (double)fan_in));
}

/* Appends one tensor's bytes; returns how many numbers. */
static void put_weight(buf *data, const char *name, size_t dims, int64_t count, int64_t fan_in, uint64_t seed,
                       bool half) {
    const uint64_t key = str_hash(name, strlen(name), seed);
    for (int64_t i = 0; i < count; i++) {
        const float v = weight_value(name, dims, fan_in, next_uniform(key, (uint64_t)i + 1));
        const ggml_fp16_t h = ggml_fp32_to_fp16(v);
        buf_append(data, half ? (const void *)&h : (const void *)&v, half ? sizeof h : sizeof v);
    }
}

/* A safetensors file with the weights that the vector file lists. */
static void write_weights(const test *t, const char *path) {
    const char *listing = NULL, *seed_text = NULL;
    uint64_t seed = 0;
    err e;
    tensor_file_meta_str(t->file, "weights", &listing);
    tensor_file_meta_str(t->file, "seed", &seed_text);
    if (!listing || !str_to_u64(seed_text, &seed)) die("no weights in the file", NULL);
    yyjson_doc *doc = json_parse(listing, strlen(listing), &e);
    if (!doc) die("weights", &e);
    buf header, data;
    buf_init(&header, 1 << 20);
    buf_init(&data, MAX_WEIGHTS_BYTES);
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, item) {
        const char *name = yyjson_get_str(yyjson_arr_get(item, 0));
        yyjson_val *shape = yyjson_arr_get(item, 1), *d;
        const size_t dims = yyjson_arr_size(shape), from = data.len;
        const bool half = t->half && dims > 1;
        int64_t count = 1, first = 1;
        size_t k, m;
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", name, half ? "F16" : "F32");
        yyjson_arr_foreach(shape, k, m, d) {
            count *= yyjson_get_sint(d);
            if (k == 0) first = yyjson_get_sint(d);
            buf_printf(&header, "%s%lld", k ? "," : "", (long long)yyjson_get_sint(d));
        }
        put_weight(&data, name, dims, count, count / first, seed, half);
        buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", from, data.len);
    }
    buf_putc(&header, '}');
    while (header.len % 8) buf_putc(&header, ' ');
    if (header.full || data.full) die("the network is too large", NULL);
    FILE *f = fopen(path, "wb");
    const uint64_t length = header.len;
    if (!f || fwrite(&length, 8, 1, f) != 1 || fwrite(header.data, header.len, 1, f) != 1 ||
        fwrite(data.data, data.len, 1, f) != 1 || fclose(f))
        die("cannot write the weights", NULL);
    buf_free(&header);
    buf_free(&data);
    yyjson_doc_free(doc);
}

/* --- A vector file ------------------------------------------------------------------------------------------------ */

typedef struct array {
    const float *data;
    int64_t ne[4]; /* ggml order */
    size_t count;
} array;

static array find_array(const test *t, const char *name) {
    const tensor_info *info = tensor_file_find(t->file, name);
    if (!info) die(name, NULL);
    array a = {.data = tensor_file_data(t->file, info), .count = info->nbytes / sizeof(float)};
    memcpy(a.ne, info->ne, sizeof a.ne);
    return a;
}

static int setting(const test *t, const char *name) {
    const char *text;
    int64_t v = 0;
    if (!tensor_file_meta_str(t->file, name, &text) || !str_to_i64(text, &v)) die(name, NULL);
    return (int)v;
}

static tensor *input(graph *g, const test *t, const char *name) {
    const array a = find_array(t, name);
    return graph_input_f32(g, a.data, a.ne[0], a.ne[1], a.ne[2], a.ne[3]);
}

static void compare(test *t, const char *name, const float *ours) {
    const array a = find_array(t, name);
    double difference = 0, largest = 0;
    for (size_t i = 0; i < a.count; i++) {
        const double d = fabs((double)ours[i] - (double)a.data[i]);
        if (!(d <= difference)) difference = d; /* a NaN stays */
        largest = fmax(largest, fabs((double)a.data[i]));
    }
    /* Operands of bfloat16 are off by 2^-9 at most; through a whole network of random weights that grows to 2.6e-2 (the
     * refiner's: between 1.8e-2 and that in 42 runs whose time embeddings differed in the last bits). Those of 8 bits
     * are off by a 254th of the largest among their 128, which grows to 3.6e-2. */
    const double exact = t->is_own ? 1e-3 : 2e-4, rounded = t->half || t->plain ? 2e-2 : exact;
    const double limit = t->int8 ? 5e-2 : t->bf16 ? 3e-2 : rounded;
    const double error = difference / largest;
    const bool ok = error <= limit && largest > 0;
    printf("%-4s %-32s %-8s error %.1e (limit %.0e, %zu numbers)\n", ok ? "ok" : "FAIL", t->name, name, error, limit,
           a.count);
    t->checked++;
    t->ok = t->ok && ok;
}

static void open_weights(test *t) {
    char path[] = "/tmp/mysti-parity-XXXXXX.safetensors";
    const char *model;
    err e;
    t->is_own = tensor_file_meta_str(t->file, "model", &model);
    if (t->is_own) {
        t->w = weights_open(&(weights_files){.model = model}, &e);
        if (!t->w) die(model, &e);
        return;
    }
    const int fd = mkstemps(path, 12);
    if (fd < 0) die("cannot make a temporary file", NULL);
    close(fd);
    write_weights(t, path);
    t->w = weights_open(&(weights_files){.model = path}, &e);
    unlink(path); /* the mapping keeps it */
    if (!t->w) die(t->name, &e);
}

static float strength(const test *t, const char *key) {
    const char *text;
    double v;
    if (!tensor_file_meta_str(t->file, key, &text) || !str_to_f64(text, &v)) die(key, NULL);
    return (float)v;
}

/* The LoRA that a vector file names stands beside it. */
static void merge_lora(test *t) {
    const char *name;
    err e;
    if (!tensor_file_meta_str(t->file, "lora", &name)) return;
    char *dir = path_dir(tensor_file_path(t->file)), *path = path_join(dir, name);
    const lora_use use = {path, strength(t, "lora_unet"), strength(t, "lora_te")};
    lora_plan *p = lora_plan_open(t->w, "sd1", &use, 1, &e);
    if (!p || !lora_plan_run(p, t->b, NULL, NULL, &e)) die(t->name, &e);
    lora_plan_close(p);
    free(path);
    free(dir);
}

static void commit(test *t) {
    err e;
    if (!weights_commit(t->w, "", backend_handle(t->b), NULL, NULL, &e)) die(t->name, &e);
    merge_lora(t);
}

/* --- Cases: layers and blocks ------------------------------------------------------------------------------------- */

/* Builds the case's result from the inputs. */
typedef tensor *(*build_case)(graph *g, test *t);

/* A layer whose weights are inputs. */
static layer input_layer(graph *g, const test *t) {
    return (layer){input(g, t, "in.weight"), input(g, t, "in.bias")};
}

static tensor *case_conv(graph *g, test *t) {
    const layer l = input_layer(g, t);
    return nn_conv2d(g, input(g, t, "in.x"), &l, setting(t, "stride"), setting(t, "pad"));
}

static tensor *case_downsample(graph *g, test *t) {
    const layer l = input_layer(g, t);
    return nn_downsample_asym(g, input(g, t, "in.x"), &l);
}

static tensor *case_upsample(graph *g, test *t) {
    return nn_upsample2(g, input(g, t, "in.x"));
}

static tensor *case_group_norm(graph *g, test *t) {
    const layer l = input_layer(g, t);
    return nn_group_norm(g, input(g, t, "in.x"), &l, 1e-5f);
}

static tensor *case_layer_norm(graph *g, test *t) {
    const layer l = input_layer(g, t);
    return nn_layer_norm(g, input(g, t, "in.x"), &l);
}

static tensor *case_linear(graph *g, test *t) {
    const layer l = input_layer(g, t);
    return nn_linear(g, input(g, t, "in.x"), &l);
}

static tensor *case_geglu(graph *g, test *t) {
    return nn_geglu(g, input(g, t, "in.x"));
}
static tensor *case_gelu_quick(graph *g, test *t) {
    return nn_gelu_quick(g, input(g, t, "in.x"));
}
static tensor *case_silu(graph *g, test *t) {
    return nn_silu(g, input(g, t, "in.x"));
}
static tensor *case_timestep(graph *g, test *t) {
    return nn_timestep_embedding(g, input(g, t, "in.t"), setting(t, "dim"));
}

static tensor *case_attention(graph *g, test *t) {
    return nn_attention(g, input(g, t, "in.q"), input(g, t, "in.k"), input(g, t, "in.v"), setting(t, "heads"),
                        setting(t, "causal") != 0);
}

/* Blocks read their weights below "block." before the graph is built. */
static layers block_layers(test *t, bool *ok, err *e) {
    return layers_at(t->w, "block.", ok, e);
}

static tensor *case_unet_resnet(graph *g, test *t) {
    bool ok = true;
    err e;
    int64_t out;
    const layers l = block_layers(t, &ok, &e);
    tensor *x = input(g, t, "in.x"), *emb = input(g, t, "in.emb");
    const unet_resnet r = unet_resnet_load(&l, setting(t, "channels"), emb->ne[0], &out);
    if (!ok) die(t->name, &e);
    commit(t);
    return unet_resnet_forward(g, &r, x, unet_resnet_time(g, &r, emb));
}

static tensor *case_unet_transformer(graph *g, test *t) {
    bool ok = true;
    err e;
    const layers l = block_layers(t, &ok, &e);
    unet_transformer block = unet_transformer_load(&l, setting(t, "channels"));
    if (!ok) die(t->name, &e);
    commit(t);
    const unet_context context = {.text = input(g, t, "in.context")};
    tensor *y = unet_transformer_forward(g, &block, input(g, t, "in.x"), &context);
    unet_transformer_free(&block);
    return y;
}

static tensor *case_vae_resnet(graph *g, test *t) {
    bool ok = true;
    err e;
    const layers l = block_layers(t, &ok, &e);
    const vae_resnet r = vae_resnet_load(&l, setting(t, "channels"), setting(t, "out"));
    if (!ok) die(t->name, &e);
    commit(t);
    return vae_resnet_forward(g, &r, input(g, t, "in.x"));
}

static tensor *case_vae_middle(graph *g, test *t) {
    bool ok = true;
    err e;
    const layers l = block_layers(t, &ok, &e);
    const vae_middle m = vae_middle_load(&l, setting(t, "channels"));
    if (!ok) die(t->name, &e);
    commit(t);
    return vae_middle_forward(g, &m, input(g, t, "in.x"));
}

static const struct {
    const char *kind;
    build_case build;
    bool weights;
} graph_cases[] = {
    {"conv", case_conv, false},
    {"downsample", case_downsample, false},
    {"upsample", case_upsample, false},
    {"group_norm", case_group_norm, false},
    {"layer_norm", case_layer_norm, false},
    {"linear", case_linear, false},
    {"geglu", case_geglu, false},
    {"gelu_quick", case_gelu_quick, false},
    {"silu", case_silu, false},
    {"timestep", case_timestep, false},
    {"attention", case_attention, false},
    {"unet_resnet", case_unet_resnet, true},
    {"unet_transformer", case_unet_transformer, true},
    {"vae_resnet", case_vae_resnet, true},
    {"vae_middle", case_vae_middle, true},
};

typedef struct graph_call {
    test *t;
    build_case build;
    float *out;
} graph_call;

static bool build_graph_case(graph *g, void *ctx, err *e) {
    graph_call *call = ctx;
    tensor *y = call->build(g, call->t);
    const array want = find_array(call->t, "out.y");
    if ((size_t)ggml_nelements(y) != want.count || y->ne[0] != want.ne[0] || y->ne[1] != want.ne[1])
        return err_set(e, ERR_INTERNAL, "the result has another shape");
    graph_output(g, y, call->out);
    return true;
}

static bool run_graph_case(test *t) {
    for (size_t i = 0; i < sizeof graph_cases / sizeof *graph_cases; i++) {
        if (!str_eq(t->kind, graph_cases[i].kind)) continue;
        err e;
        graph_call call = {t, graph_cases[i].build, mem_alloc(find_array(t, "out.y").count, sizeof(float))};
        if (graph_cases[i].weights) open_weights(t);
        if (!backend_compute(t->b, build_graph_case, &call, &e)) die(t->name, &e);
        compare(t, "out.y", call.out);
        free(call.out);
        return true;
    }
    return false;
}

/* --- Cases: whole networks ---------------------------------------------------------------------------------------- */

/* With keys and values of the text kept from before, the result is the same to the last bit. */
static void check_texts(const test *t, unet *u, const unet_input *in, const float *want, size_t count) {
    err e = {.msg = "not the same with kept keys"};
    unet_texts *texts = unet_texts_open(u);
    unet_input known = *in;
    const unet_keys *first;
    const size_t values = (size_t)in->n * (size_t)in->tokens * (size_t)unet_describe(u).context_dim;
    float *other = mem_alloc(values, sizeof *other), *out = mem_alloc(count, sizeof *out);
    if (!unet_texts_find(texts, in->context, in->n, in->tokens, &first, &e) ||
        !unet_texts_find(texts, other, in->n, in->tokens, &known.keys, &e) || known.keys == first ||
        !unet_texts_find(texts, in->context, in->n, in->tokens, &known.keys, &e) || known.keys != first ||
        !unet_eval(u, &known, out, &e) || memcmp(out, want, count * sizeof *out) != 0)
        die(t->name, &e);
    unet_texts_close(texts);
    free(other);
    free(out);
}

/* So it is with what the time makes of a schedule kept from before; a step that is not the schedule's has none. Not
 * with ggml's own products: what they make of a row depends on how many there are, in the last bit. */
static void check_times(const test *t, unet *u, const unet_input *in, size_t count) {
    enum { STEPS = 21, BATCH_MAX = 8 };
    err e = {.msg = "not the same with kept times"};
    float schedule[STEPS], at[BATCH_MAX], *want = mem_alloc(count, sizeof *want), *out = mem_alloc(count, sizeof *out);
    for (int i = 0; i < STEPS; i++) schedule[i] = 999.0f - 47.3f * (float)i;
    unet_times *times = unet_times_open(u, schedule, STEPS);
    unet_input plain = *in, known = *in;
    plain.timesteps = known.timesteps = at;
    if (in->n > BATCH_MAX) die(t->name, NULL);
    for (int step = 0; step < STEPS; step += 17) {
        for (int i = 0; i < in->n; i++) at[i] = schedule[step];
        if (!unet_times_find(times, &known, &e) || !known.times || !unet_eval(u, &plain, want, &e) ||
            !unet_eval(u, &known, out, &e) || memcmp(out, want, count * sizeof *out) != 0)
            die(t->name, &e);
    }
    at[0] = 0.5f;
    if (!unet_times_find(times, &known, &e) || known.times) die(t->name, &e);
    unet_times_close(times);
    free(want);
    free(out);
}

static void run_unet(test *t) {
    err e;
    open_weights(t);
    unet *u = unet_open(t->w, t->b, &e);
    if (!u) die(t->name, &e);
    commit(t);
    const array x = find_array(t, "in.x"), c = find_array(t, "in.context"), y = find_array(t, "out.y");
    const unet_input in = {.x = x.data,
                           .n = (int)x.ne[3],
                           .h = (int)x.ne[1],
                           .w = (int)x.ne[0],
                           .timesteps = find_array(t, "in.t").data,
                           .context = c.data,
                           .tokens = (int)c.ne[1],
                           .label = tensor_file_find(t->file, "in.label") ? find_array(t, "in.label").data : NULL};
    float *out = mem_alloc(y.count, sizeof *out);
    if (unet_describe(u).in_channels != x.ne[2] || !unet_describe(u).label_dim != !in.label) die(t->name, NULL);
    if (!unet_eval(u, &in, out, &e)) die(t->name, &e);
    compare(t, "out.y", out);
    if (unet_is_on_cpu(u)) check_texts(t, u, &in, out, y.count);
    if (unet_is_on_cpu(u) && !t->plain) check_times(t, u, &in, y.count);
    free(out);
    unet_close(u);
}

static vae *open_vae(test *t) {
    err e;
    open_weights(t);
    vae *v = vae_open(t->w, t->b, 0.18215f, &e);
    if (!v) die(t->name, &e);
    commit(t);
    return v;
}

static void run_vae_decode(test *t) {
    err e;
    vae *v = open_vae(t);
    const array z = find_array(t, "in.z"), rgb = find_array(t, "out.rgb");
    latent l = {1, (int)z.ne[2], (int)z.ne[1], (int)z.ne[0], mem_alloc(z.count, sizeof(float))};
    memcpy(l.data, z.data, z.count * sizeof(float));
    float *out = mem_alloc(rgb.count, sizeof *out);
    if (!vae_decode(v, &l, out, NULL, NULL, &e)) die(t->name, &e);
    compare(t, "out.rgb", out);
    free(out);
    free(l.data);
    vae_close(v);
}

static void run_vae_encode(test *t) {
    err e;
    vae *v = open_vae(t);
    const array rgb = find_array(t, "in.rgb"), z = find_array(t, "out.z");
    latent out = {.data = mem_alloc(z.count, sizeof(float))};
    const float *noise = find_array(t, "in.noise").data;
    if (!vae_encode(v, rgb.data, (int)rgb.ne[0], (int)rgb.ne[1], noise, &out, NULL, NULL, &e)) die(t->name, &e);
    compare(t, "out.z", out.data);
    if (!vae_encode(v, rgb.data, (int)rgb.ne[0], (int)rgb.ne[1], NULL, &out, NULL, NULL, &e)) die(t->name, &e);
    compare(t, "out.mean", out.data);
    free(out.data);
    vae_close(v);
}

static const clip_form *form_of(const test *t) {
    const char *name = "";
    tensor_file_meta_str(t->file, "form", &name);
    return str_eq(name, "sdxl_l")   ? &clip_sdxl_l
           : str_eq(name, "sdxl_g") ? &clip_sdxl_g
           : str_eq(name, "sd2")    ? &clip_sd2
                                    : &clip_sd1;
}

static void run_clip(test *t) {
    err e;
    open_weights(t);
    clip *c = clip_open(t->w, t->b, form_of(t), &e);
    if (!c) die(t->name, &e);
    commit(t);
    const array tokens = find_array(t, "in.tokens"), z = find_array(t, "out.z");
    prompt p = {.chunks = (int)tokens.ne[1],
                .tokens = mem_alloc(tokens.count, sizeof(int32_t)),
                .weights = mem_alloc(tokens.count, sizeof(float))};
    const char *emphasis = "";
    tensor_file_meta_str(t->file, "emphasis", &emphasis);
    if (str_eq(emphasis, "comfy")) p.emphasis = PROMPT_EMPHASIS_COMFY;
    memcpy(p.tokens, tokens.data, tokens.count * sizeof(int32_t));
    memcpy(p.weights, find_array(t, "in.weights").data, tokens.count * sizeof(float));
    float *out = mem_alloc(z.count, sizeof *out);
    float *pooled = mem_alloc((size_t)clip_pooled_dim(c), sizeof *pooled);
    if (!clip_encode(c, &p, NULL, setting(t, "skip"), out, pooled, &e)) die(t->name, &e);
    compare(t, "out.z", out);
    if (clip_pooled_dim(c)) compare(t, "out.pooled", pooled);
    free(pooled);
    free(out);
    prompt_free(&p);
    clip_close(c);
}

static void run_network(test *t) {
    if (str_eq(t->kind, "unet"))
        run_unet(t);
    else if (str_eq(t->kind, "vae_decode"))
        run_vae_decode(t);
    else if (str_eq(t->kind, "vae_encode"))
        run_vae_encode(t);
    else if (str_eq(t->kind, "clip"))
        run_clip(t);
}

static bool run_file(backend *b, const char *path) {
    err e;
    const char *half = "0";
    test t = {.b = b,
              .name = path_base(path),
              .file = tensor_file_open(path, &e),
              .plain = !backend_custom_ops(b),
              .bf16 = backend_kernels(b)->precision == CPU_BF16,
              .int8 = backend_product(b, PRODUCT_INT8) != NULL,
              .ok = true};
    if (!t.file || !tensor_file_meta_str(t.file, "case", &t.kind)) die(path, &e);
    tensor_file_meta_str(t.file, "half", &half);
    t.half = str_eq(half, "1");
    if (!run_graph_case(&t)) run_network(&t);
    if (!t.checked) die("unknown case", NULL);
    weights_close(t.w);
    tensor_file_close(t.file);
    return t.ok;
}

/* --- Tokens ------------------------------------------------------------------------------------------------------- */

enum { LINE = 1 << 16 };

static size_t print_tokens(const char *line, size_t len, char *out, size_t cap) {
    static int32_t tokens[LINE * 3];
    const size_t n = tok_clip_encode(line, len, tokens, LINE * 3);
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%d", i ? " " : "", tokens[i]);
    return n;
}

static int tokenize_stdin(void) {
    static char line[LINE], out[LINE * 8];
    while (fgets(line, sizeof line, stdin)) {
        print_tokens(line, strcspn(line, "\n"), out, sizeof out);
        puts(out);
    }
    return 0;
}

static int check_tokens(const char *path) {
    static char line[LINE], want[LINE], got[LINE * 8];
    FILE *f = fopen(path, "rb");
    int wrong = 0, count = 0;
    if (!f) die(path, NULL);
    while (fgets(line, sizeof line, f) && fgets(want, sizeof want, f)) {
        print_tokens(line, strcspn(line, "\n"), got, sizeof got);
        want[strcspn(want, "\n")] = 0;
        count++;
        if (strcmp(want, got) == 0) continue;
        wrong++;
        printf("FAIL %sexpected %s\ngot      %s\n", line, want, got);
    }
    fclose(f);
    printf("%d prompts, %d differ\n", count, wrong);
    return wrong || !count;
}

int main(int argc, char **argv) {
    err e;
    bool ok = argc > 1;
    if (!ok) return 2;
    if (argc == 2 && str_eq(argv[1], "--tokenize")) return tokenize_stdin();
    if (argc == 3 && str_eq(argv[1], "--tokens")) return check_tokens(argv[2]);
    backend *b = backend_open("cpu", 2, &e);
    if (!b) die("backend", &e);
    const bool plain = str_eq(argv[1], "--plain"), threads = str_eq(argv[1], "--threads");
    const bool bf16 = str_eq(argv[1], "--bf16"), int8 = str_eq(argv[1], "--int8");
    if ((bf16 && !backend_set_precision(b, CPU_BF16)) || (int8 && !backend_set_precision(b, CPU_INT8))) {
        printf("SKIP: this processor has no kernels for %s\n", argv[1] + 2);
        backend_close(b);
        return 77;
    }
    if (threads) backend_force_threads(b);
    if (plain) backend_forbid_custom_ops(b);
    for (int i = plain || threads || bf16 || int8 ? 2 : 1; i < argc; i++) ok = run_file(b, argv[i]) && ok;
    backend_close(b);
    return ok ? 0 : 1;
}
