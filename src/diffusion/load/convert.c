/* convert.c - see convert.h. First what each tensor becomes is settled for all (a GGUF's head tells it), then their
 * numbers are converted piece by piece. */
#include "diffusion/load/convert.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/gguf_write.h"
#include "diffusion/load/model_kind.h"
#include "diffusion/load/tensor_convert.h"
#include "diffusion/load/tensor_names.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RULES_MAX = 64, PATTERN_MAX = 256, PIECE = TENSOR_CONVERT_PIECE };

const char *const convert_types[] = {"f32",  "f16",  "bf16", "q8_0", "q6_K", "q5_K",   "q5_1",   "q5_0",
                                     "q4_K", "q4_1", "q4_0", "q3_K", "q2_K", "iq4_nl", "iq4_xs", NULL};

typedef struct rule {
    char pattern[PATTERN_MAX];
    tensor_type type;
} rule;

typedef struct plan {
    const tensor_file *file;
    const tensor_info *from;
    const char *name;
    tensor_info to; /* type, shape and size as written */
} plan;

typedef struct conversion {
    const convert_request *r;
    model_desc desc;
    weights *w;
    tensor_type type;
    rule rules[RULES_MAX];
    size_t rule_count;
    plan *plans;
    size_t count;
    uint64_t total, done;
    convert_result *result;
} conversion;

/* --- what is asked for --- */

static bool read_type(const char *option, const char *name, tensor_type *out, err *e) {
    size_t n = 0;
    for (; convert_types[n]; n++) {
        if (!str_ieq(name, convert_types[n])) continue;
        for (int64_t t = 0; t < TENSOR_U8; t++)
            if (str_eq(tensor_type_name((tensor_type)t), convert_types[n])) *out = (tensor_type)t;
        return true;
    }
    const char *near = str_nearest(name, convert_types, n);
    return err_set(
        e, ERR_INVALID,
        "%s: unknown '%.40s'%s%s (f32 f16 bf16 q8_0 q6_K q5_K q5_1 q5_0 q4_K q4_1 q4_0 q3_K q2_K iq4_nl iq4_xs)",
        option, name, near ? ", perhaps " : "", near ? near : "");
}

static bool read_rule(conversion *c, const char *text, size_t len, err *e) {
    char *one = str_ndup(text, len), *sign = strrchr(one, '=');
    bool ok = sign && sign != one && (size_t)(sign - one) < PATTERN_MAX;
    if (!ok) {
        err_set(e, ERR_INVALID, "--tensor-types: '%.60s' is not PATTERN=TYPE", one);
    } else if (c->rule_count == RULES_MAX) {
        ok = err_set(e, ERR_INVALID, "--tensor-types: more than %d", RULES_MAX);
    } else {
        rule *r = &c->rules[c->rule_count++];
        *sign = 0;
        str_copy(r->pattern, sizeof r->pattern, one);
        ok = read_type("--tensor-types", sign + 1, &r->type, e);
    }
    free(one);
    return ok;
}

static bool read_request(conversion *c, err *e) {
    if (!str_iends(c->r->output, ".gguf")) return err_set(e, ERR_INVALID, "--output: the name must end in .gguf");
    if (!read_type("--type", c->r->type, &c->type, e)) return false;
    for (const char *p = c->r->rules; p && *p;) {
        size_t len = strcspn(p, ",");
        if (!read_rule(c, p, len, e)) return false;
        p += len + (p[len] == ',');
    }
    return true;
}

/* Both at their ends; `*` tries the shortest text first and is taken up again from the last one. */
static bool matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++, name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

/* --- what each tensor becomes --- */

static bool is_float(tensor_type t) {
    return t == TENSOR_F32 || t == TENSOR_F16 || t == TENSOR_BF16 || t == TENSOR_F64 || t == TENSOR_F8_E4M3 ||
           t == TENSOR_F8_E5M2 || tensor_type_is_quantized(t);
}

/* With blocks of 32, of about the same quality. */
static tensor_type smaller_blocks(tensor_type t) {
    switch (t) {
    case TENSOR_Q6_K:
        return TENSOR_Q8_0;
    case TENSOR_Q5_K:
        return TENSOR_Q5_1;
    case TENSOR_Q4_K:
        return TENSOR_Q5_0;
    default:
        return TENSOR_IQ4_NL;
    }
}

static tensor_type wanted_type(const conversion *c, const char *name) {
    for (size_t i = 0; i < c->rule_count; i++)
        if (matches(c->rules[i].pattern, name)) return c->rules[i].type;
    const bool is_vae = str_starts(name, tensor_component_prefix(COMPONENT_VAE));
    return is_vae && tensor_type_is_quantized(c->type) ? TENSOR_F16 : c->type;
}

static bool has_rule(const conversion *c, const char *name) {
    for (size_t i = 0; i < c->rule_count; i++)
        if (matches(c->rules[i].pattern, name)) return true;
    return false;
}

static tensor_type fitting_type(const tensor_info *t, tensor_type want, bool is_ruled) {
    if (t->n_dims < 2 && (!is_ruled || tensor_type_is_quantized(want))) return TENSOR_F32;
    if (!tensor_type_is_quantized(want)) return want;
    if (t->n_dims != 2) return TENSOR_F16;
    if (t->ne[0] % tensor_type_block_len(want) == 0) return want;
    want = smaller_blocks(want);
    return t->ne[0] % tensor_type_block_len(want) == 0 ? want : TENSOR_F16;
}

/* GGUF has no unsigned numbers, and no truth values. */
static tensor_type integer_type(tensor_type from) {
    switch (from) {
    case TENSOR_U8:
    case TENSOR_BOOL:
    case TENSOR_U16:
        return TENSOR_I32;
    case TENSOR_U32:
    case TENSOR_U64:
        return TENSOR_I64;
    default:
        return from;
    }
}

static bool fits_f16(const tensor_file *f, const tensor_info *t) {
    float piece[PIECE];
    const char *src = tensor_file_data(f, t);
    const int64_t n = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t some = n - at < PIECE ? n - at : PIECE;
        const size_t from = (size_t)(at / tensor_type_block_len(t->type) * tensor_type_block_bytes(t->type));
        tensor_convert_f32(t->type, src + from, piece, some);
        for (int64_t i = 0; i < some; i++)
            if (fabsf(piece[i]) > 65504.0f && !isinf(piece[i])) return false;
    }
    return true;
}

static bool plan_tensor(conversion *c, plan *p, err *e) {
    const tensor_info *t = p->from;
    p->to = *t;
    if (!tensor_convert_can(t->type))
        return err_set(e, ERR_UNSUPPORTED, "tensor '%.100s': type %s cannot be converted", p->name,
                       tensor_type_name(t->type));
    if (is_float(t->type)) {
        const tensor_type want = wanted_type(c, p->name);
        p->to.type = fitting_type(t, want, has_rule(c, p->name));
        if (p->to.type == TENSOR_F16 && t->type != TENSOR_F16 && !fits_f16(p->file, t)) p->to.type = TENSOR_F32;
        c->result->other += p->to.type != want;
    } else {
        p->to.type = integer_type(t->type);
    }
    int64_t bytes;
    if (!tensor_type_size(p->to.type, p->to.ne, &bytes))
        return err_set(e, ERR_FORMAT, "tensor '%.100s': size", p->name);
    p->to.nbytes = (uint64_t)bytes;
    c->total += p->to.nbytes;
    return true;
}

static bool keeps_names(model_kind kind) {
    return kind != MODEL_CHECKPOINT && kind != MODEL_DIFFUSION && kind != MODEL_VAE && kind != MODEL_TEXT_ENCODER;
}

static bool make_plan(conversion *c, err *e) {
    c->count = weights_size(c->w);
    c->plans = mem_alloc(c->count, sizeof *c->plans);
    for (size_t i = 0; i < c->count; i++) {
        plan *p = &c->plans[i];
        p->from = weights_stored(c->w, i, &p->file);
        p->name = keeps_names(c->desc.kind) ? p->from->name : weights_name(c->w, i);
        if (!plan_tensor(c, p, e)) return false;
        tensor_file_release(p->file, p->from->offset, p->from->nbytes);
    }
    return true;
}

/* --- the head --- */

static void copy_text(gguf_writer *g, const conversion *c, const char *key) {
    const char *text = NULL;
    const tensor_file *last = NULL;
    for (size_t i = 0; i < c->count; i++) {
        if (c->plans[i].file == last) continue;
        last = c->plans[i].file;
        if (!tensor_file_meta_str(last, key, &text)) continue;
        gguf_writer_str(g, key, text);
        return;
    }
}

static void declare(gguf_writer *g, const conversion *c) {
    static const char *const COPIED[] = {"modelspec.resolution", "modelspec.title",       "mysti.examples",
                                         "ss_output_name",       "ss_base_model_version", "sshs_model_hash"};
    gguf_writer_str(g, "general.architecture", c->desc.family[0] ? c->desc.family : model_kind_name(c->desc.kind));
    if (c->desc.name[0]) gguf_writer_str(g, "general.name", c->desc.name);
    gguf_writer_u32(g, "general.quantization_version", GGML_QNT_VERSION);
    if (c->desc.v_prediction)
        gguf_writer_str(g, "modelspec.prediction_type", "v");
    else
        copy_text(g, c, "modelspec.prediction_type");
    if (c->desc.zero_snr) gguf_writer_str(g, "mysti.zero_snr", "true");
    for (size_t i = 0; i < sizeof COPIED / sizeof *COPIED; i++) copy_text(g, c, COPIED[i]);
    for (size_t i = 0; i < c->count; i++) gguf_writer_tensor(g, c->plans[i].name, &c->plans[i].to);
}

/* --- the numbers --- */

static bool are_finite(const float *v, int64_t n) {
    bool ok = true;
    for (int64_t i = 0; i < n; i++) ok &= isfinite(v[i]) != 0;
    return ok;
}

/* n numbers of any type; `out` has room for n of the widest. The number of bytes, 0 when they cannot be quantised. */
static size_t convert_piece(const plan *p, const void *src, int64_t n, void *out) {
    float wide[PIECE];
    const tensor_type to = p->to.type;
    tensor_convert_f32(p->from->type, src, wide, n);
    if (to == TENSOR_F32) {
        memcpy(out, wide, (size_t)n * sizeof *wide);
    } else if (to == TENSOR_F16) {
        ggml_fp32_to_fp16_row(wide, out, n);
    } else if (to == TENSOR_BF16) {
        ggml_fp32_to_bf16_row(wide, out, n);
    } else if (to == TENSOR_I32) {
        for (int64_t i = 0; i < n; i++) ((int32_t *)out)[i] = (int32_t)wide[i];
    } else if (to == TENSOR_I64) {
        for (int64_t i = 0; i < n; i++) ((int64_t *)out)[i] = (int64_t)wide[i];
    } else {
        return are_finite(wide, n) ? ggml_quantize_chunk((enum ggml_type)to, wide, out, 0, 1, n, NULL) : 0;
    }
    return (size_t)n * (size_t)tensor_type_block_bytes(to);
}

static void tell(conversion *c, uint64_t bytes) {
    c->done += bytes;
    if (c->r->progress) c->r->progress(c->r->ctx, c->done, c->total);
}

static bool write_converted(conversion *c, const plan *p, file_out *f, err *e) {
    _Alignas(32) unsigned char out[PIECE * sizeof(int64_t)];
    const char *src = tensor_file_data(p->file, p->from);
    const int64_t total = p->to.ne[0] * p->to.ne[1] * p->to.ne[2] * p->to.ne[3];
    const tensor_type from = p->from->type;
    for (int64_t at = 0; at < total; at += PIECE) {
        const int64_t n = total - at < PIECE ? total - at : PIECE;
        const size_t offset = (size_t)(at / tensor_type_block_len(from) * tensor_type_block_bytes(from));
        const size_t bytes = convert_piece(p, src + offset, n, out);
        if (!bytes) return err_set(e, ERR_FORMAT, "tensor '%.100s' holds numbers that are not finite", p->name);
        if (!file_out_write(f, out, bytes, e)) return false;
        tell(c, bytes);
    }
    return true;
}

/* Rows that another shape in the metadata cut otherwise than the blocks are must be converted. */
static bool write_tensor(conversion *c, const plan *p, file_out *f, err *e) {
    const tensor_info *t = p->from;
    bool ok = true;
    if (t->type == p->to.type && t->nbytes == p->to.nbytes) {
        ok = file_out_write(f, tensor_file_data(p->file, t), (size_t)t->nbytes, e);
        tell(c, p->to.nbytes);
    } else {
        ok = write_converted(c, p, f, e);
    }
    tensor_file_release(p->file, t->offset, t->nbytes);
    return ok && gguf_writer_pad(f, p->to.nbytes, e);
}

static bool write_all(conversion *c, gguf_writer *g, err *e) {
    file_out *f = file_out_open(c->r->output, e);
    if (!f) return false;
    bool ok = gguf_writer_head(g, f, e);
    for (size_t i = 0; ok && i < c->count; i++) ok = write_tensor(c, &c->plans[i], f, e);
    if (ok) return file_out_commit(f, e);
    file_out_discard(f);
    return false;
}

static bool convert(conversion *c, err *e) {
    const weights_files *files = &c->r->files;
    const char *const paths[] = {files->model, files->diffusion_model, files->vae, files->clip_l, files->clip_g};
    const char *main_file = NULL;
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !main_file; i++) main_file = paths[i];
    if (!main_file) return err_set(e, ERR_INVALID, "--model: no file given");
    if (!model_describe_path(main_file, &c->desc, e)) return false;
    if (c->desc.kind == MODEL_LLM)
        return err_set(e, ERR_UNSUPPORTED, "a language model: only image models are converted");
    gguf_writer g;
    gguf_writer_init(&g);
    bool ok = (c->w = weights_open(files, e)) && make_plan(c, e);
    if (ok) declare(&g, c);
    ok = ok && write_all(c, &g, e);
    gguf_writer_free(&g);
    return ok;
}

bool convert_model(const convert_request *r, convert_result *out, err *e) {
    conversion c = {.r = r, .result = out};
    *out = (convert_result){0};
    bool ok = read_request(&c, e) && convert(&c, e);
    *out = (convert_result){.tensors = c.count, .other = out->other, .bytes = c.total};
    free(c.plans);
    weights_close(c.w);
    return ok;
}
