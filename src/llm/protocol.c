/* protocol.c - see protocol.h. */
#include "llm/protocol.h"
#include "base/base64.h"
#include "base/str.h"

#include <stdlib.h>

enum { MESSAGES_MAX = 10000, RESUME_MAX = 1 << 20, INPUTS_MAX = 2048 };

static bool read_messages(llm_completion *c, const json_in *root, err *e) {
    json_in list;
    if (!json_get_arr(root, "messages", false, &list, e)) return false;
    if (!list.val) return true;
    size_t count = yyjson_arr_size(list.val);
    if (count < 1 || count > MESSAGES_MAX)
        return err_set(e, ERR_INVALID, "messages: expected 1 to %d of them", MESSAGES_MAX);
    c->messages = mem_alloc(count, sizeof *c->messages);
    for (size_t i = 0; i < count; i++) {
        json_in m = json_item(&list, i);
        c->messages[i].content = "";
        if (!json_need_str(&m, "role", &c->messages[i].role, e) ||
            !json_get_str(&m, "content", &c->messages[i].content, e))
            return false;
    }
    c->request.messages = c->messages;
    c->request.message_count = count;
    return true;
}

static bool read_stops(llm_completion *c, const json_in *root, err *e) {
    json_in list;
    if (!json_get_arr(root, "stop", false, &list, e)) return false;
    if (!list.val) return true;
    size_t count = yyjson_arr_size(list.val);
    if (count > LLM_STOPS_MAX) return err_set(e, ERR_INVALID, "stop: more than %d strings", (int)LLM_STOPS_MAX);
    c->stops = mem_alloc(count, sizeof *c->stops);
    for (size_t i = 0; i < count; i++) {
        json_in s = json_item(&list, i);
        if (!yyjson_is_str(s.val)) return err_set(e, ERR_INVALID, "%s: expected string", s.path);
        c->stops[i] = yyjson_get_str(s.val);
    }
    c->request.stop = c->stops;
    c->request.stop_count = count;
    return true;
}

/* An array of tokens; *tokens is freed with free(). */
static bool read_tokens(const json_in *list, int32_t **tokens, size_t *count, err *e) {
    size_t n = yyjson_arr_size(list->val);
    if (n > RESUME_MAX) return err_set(e, ERR_TOO_LARGE, "%s: more than %d tokens", list->path, RESUME_MAX);
    *tokens = mem_alloc(n, sizeof **tokens);
    *count = n;
    size_t i, max;
    yyjson_val *v;
    yyjson_arr_foreach(list->val, i, max, v) {
        if (!yyjson_is_int(v) || yyjson_get_sint(v) < 0 || yyjson_get_sint(v) > INT32_MAX)
            return err_set(e, ERR_INVALID, "%s[%zu]: expected a token", list->path, i);
        (*tokens)[i] = (int32_t)yyjson_get_sint(v);
    }
    return true;
}

static bool read_resume(llm_completion *c, const json_in *root, err *e) {
    json_in list;
    if (!json_get_arr(root, "resume", false, &list, e)) return false;
    if (!list.val) return true;
    bool ok = read_tokens(&list, &c->resume, &c->request.resume_count, e);
    c->request.resume = c->resume;
    return ok;
}

static bool read_numbers(llm_request *r, const json_in *root, err *e) {
    return json_get_int(root, "max_tokens", &r->max_tokens, -1, INT32_MAX, e) &&
           json_get_float(root, "temperature", &r->temperature, 0, 100, e) &&
           json_get_int(root, "top_k", &r->top_k, 0, INT32_MAX, e) &&
           json_get_float(root, "top_p", &r->top_p, 0, 1, e) && json_get_float(root, "min_p", &r->min_p, 0, 1, e) &&
           json_get_float(root, "repeat_penalty", &r->repeat_penalty, 0.01f, 100, e) &&
           json_get_float(root, "presence_penalty", &r->presence_penalty, -100, 100, e) &&
           json_get_float(root, "frequency_penalty", &r->frequency_penalty, -100, 100, e) &&
           json_get_u64(root, "seed", &r->seed, e) && json_get_bool(root, "ignore_eos", &r->ignore_eos, e);
}

bool llm_completion_parse(llm_completion *c, const char *json, size_t len, err *e) {
    *c = (llm_completion){.id = "", .request = llm_request_default()};
    c->doc = json_parse(json, len, e);
    if (!c->doc) return false;
    json_in root = json_root(c->doc);
    bool ok = yyjson_is_obj(root.val) || err_set(e, ERR_INVALID, "body: expected object");
    ok = ok && json_get_str(&root, "id", &c->id, e) && json_get_str(&root, "prompt", &c->request.prompt, e) &&
         read_messages(c, &root, e) && read_stops(c, &root, e) && read_resume(c, &root, e) &&
         read_numbers(&c->request, &root, e);
    if (!ok) llm_completion_free(c);
    return ok;
}

void llm_completion_free(llm_completion *c) {
    free(c->messages);
    free(c->stops);
    free(c->resume);
    yyjson_doc_free(c->doc);
    *c = (llm_completion){0};
}

static bool read_input(llm_embed_input *in, const json_in *item, err *e) {
    if (yyjson_is_str(item->val)) {
        in->text = yyjson_get_str(item->val);
        return true;
    }
    if (!yyjson_is_arr(item->val)) return err_set(e, ERR_INVALID, "%s: expected string or tokens", item->path);
    int32_t *tokens = NULL;
    bool ok = read_tokens(item, &tokens, &in->token_count, e);
    in->tokens = tokens;
    return ok;
}

static bool read_inputs(llm_embedding *m, const json_in *root, err *e) {
    json_in list;
    if (!json_get_arr(root, "input", true, &list, e)) return false;
    size_t count = yyjson_arr_size(list.val);
    if (count < 1 || count > INPUTS_MAX) return err_set(e, ERR_INVALID, "input: expected 1 to %d of them", INPUTS_MAX);
    m->inputs = mem_alloc(count, sizeof *m->inputs);
    m->request.inputs = m->inputs;
    m->request.count = count;
    for (size_t i = 0; i < count; i++) {
        json_in item = json_item(&list, i);
        if (!read_input(&m->inputs[i], &item, e)) return false;
    }
    return true;
}

bool llm_embedding_parse(llm_embedding *m, const char *json, size_t len, err *e) {
    *m = (llm_embedding){.id = ""};
    m->doc = json_parse(json, len, e);
    if (!m->doc) return false;
    json_in root = json_root(m->doc);
    bool ok = json_get_str(&root, "id", &m->id, e) && read_inputs(m, &root, e) &&
              json_get_int(&root, "dimensions", &m->request.dimensions, 0, INT32_MAX, e);
    if (!ok) llm_embedding_free(m);
    return ok;
}

void llm_embedding_free(llm_embedding *m) {
    for (size_t i = 0; i < m->request.count; i++) free((int32_t *)(uintptr_t)m->inputs[i].tokens);
    free(m->inputs);
    yyjson_doc_free(m->doc);
    *m = (llm_embedding){.id = ""};
}

bool llm_load_parse(const char *json, size_t len, char **path, llm_options *o, err *e) {
    *o = (llm_options){.n_gpu_layers = -1, .slots = 4};
    const char *file = NULL;
    yyjson_doc *doc = json_parse(json, len, e);
    if (!doc) return false;
    json_in root = json_root(doc);
    bool ok = json_need_str(&root, "path", &file, e) && json_get_int(&root, "n_ctx", &o->n_ctx, 0, 1 << 24, e) &&
              json_get_int(&root, "n_gpu_layers", &o->n_gpu_layers, -1, 10000, e) &&
              json_get_int(&root, "threads", &o->threads, 0, 1024, e) &&
              json_get_int(&root, "slots", &o->slots, 1, LLM_SLOTS_MAX, e);
    if (ok) *path = str_dup(file);
    yyjson_doc_free(doc);
    return ok;
}

bool llm_tokenize_parse(const char *json, size_t len, char **text, bool *add_special, err *e) {
    const char *s = NULL;
    *add_special = true;
    yyjson_doc *doc = json_parse(json, len, e);
    if (!doc) return false;
    json_in root = json_root(doc);
    bool ok = json_get_str(&root, "text", &s, e) && json_get_bool(&root, "add_special", add_special, e);
    if (ok && !s) ok = err_set(e, ERR_INVALID, "text: required");
    if (ok) *text = str_dup(s);
    yyjson_doc_free(doc);
    return ok;
}

/* ---- answers ---- */

void llm_write_info(buf *out, const llm_info *i) {
    buf_puts(out, "{\"model\":{\"architecture\":");
    json_quote(out, i->architecture);
    buf_puts(out, ",\"description\":");
    json_quote(out, i->description);
    buf_printf(out,
               ",\"parameters\":%llu,\"weights_bytes\":%llu,\"n_ctx\":%d,\"n_ctx_train\":%d,\"chat_template\":%s,"
               "\"generates\":%s,\"slots\":%d,\"threads\":%d}}",
               (unsigned long long)i->parameters, (unsigned long long)i->weights_bytes, i->n_ctx, i->n_ctx_train,
               i->chat_template ? "true" : "false", i->generates ? "true" : "false", i->slots, i->threads);
}

static void write_ids(buf *out, const int32_t *ids, size_t count) {
    buf_putc(out, '[');
    for (size_t i = 0; i < count; i++) buf_printf(out, "%s%d", i ? "," : "", (int)ids[i]);
    buf_putc(out, ']');
}

void llm_write_tokens(buf *out, const int32_t *tokens, size_t count) {
    buf_puts(out, "{\"tokens\":");
    write_ids(out, tokens, count);
    buf_putc(out, '}');
}

void llm_write_start(buf *out, const llm_usage *u) {
    buf_printf(out, "{\"event\":\"start\",\"prompt_tokens\":%d,\"cached_tokens\":%d}", u->prompt_tokens,
               u->cached_tokens);
}

void llm_write_text(buf *out, const int32_t *ids, size_t count, const char *text) {
    buf_puts(out, "{\"event\":\"token\",\"ids\":");
    write_ids(out, ids, count);
    buf_puts(out, ",\"text\":");
    json_quote(out, text);
    buf_putc(out, '}');
}

void llm_write_done(buf *out, llm_finish why, const llm_usage *u) {
    buf_printf(out,
               "{\"event\":\"done\",\"finish_reason\":\"%s\",\"prompt_tokens\":%d,\"cached_tokens\":%d,"
               "\"completion_tokens\":%d,\"prompt_ms\":%.3f,\"predict_ms\":%.3f}",
               llm_finish_name(why), u->prompt_tokens, u->cached_tokens, u->completion_tokens, u->prompt_ms,
               u->predict_ms);
}

void llm_write_vector(buf *out, size_t index, const float *v, int n) {
    buf_printf(out, "{\"event\":\"embedding\",\"index\":%zu,\"base64\":\"", index);
    base64_encode(out, v, (size_t)n * sizeof *v); /* every machine that this runs on has the low byte first */
    buf_puts(out, "\"}");
}

void llm_write_embedded(buf *out, int prompt_tokens) {
    buf_printf(out, "{\"event\":\"done\",\"finish_reason\":\"stop\",\"prompt_tokens\":%d,\"completion_tokens\":0}",
               prompt_tokens);
}

void llm_write_load_error(buf *out, const char *type, const err *e, const char *loaded) {
    json_write_error(out, type, err_name(e->code), NULL, e->msg);
    if (out->len) out->len--; /* the envelope's last brace */
    buf_puts(out, ",\"loaded\":");
    if (loaded)
        json_quote(out, loaded);
    else
        buf_puts(out, "null");
    buf_putc(out, '}');
}
