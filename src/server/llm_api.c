/* llm_api.c - see llm_api.h. OpenAI's API reference (chat, completions) is the source for names and shapes. */
#include "server/llm_api.h"
#include "base/file.h"
#include "base/str.h"
#include "server/llm_embeddings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_MAX = 32 << 20, STOPS_MAX = 4, COMPLETION_TOKENS = 16, ENHANCE_TOKENS = 200 };

const char llm_enhance_instruction[] =
    "You improve prompts for an image generator. Rewrite the user's prompt as one richer prompt: keep every subject, colour, "
    "number and relation that it names, and add fitting details of setting, light, composition and style. Answer with the "
    "prompt alone: no quotes, no explanation, at most 80 words.";

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool refuse(const json_in *body, const char *key, bool when, err *e) {
    return when ? err_set(e, ERR_UNSUPPORTED, "%s: not supported", json_at(body, key).path) : true;
}

/* What we would otherwise ignore although it changes the meaning of the answer. */
static bool check_unsupported(const json_in *body, err *e) {
    json_in tools = json_at(body, "tools"), functions = json_at(body, "functions"),
            format = json_at(body, "response_format");
    const char *type = "text";
    int n = 1;
    bool logprobs = false, echo = false;
    if (yyjson_is_obj(format.val) && !json_get_str(&format, "type", &type, e)) return false;
    if (yyjson_is_bool(json_at(body, "logprobs").val) && !json_get_bool(body, "logprobs", &logprobs, e)) return false;
    if (yyjson_is_int(json_at(body, "logprobs").val)) logprobs = true;
    const char *suffix = NULL;
    return json_get_int(body, "n", &n, 1, 1, e) && json_get_bool(body, "echo", &echo, e) &&
           json_get_str(body, "suffix", &suffix, e) && refuse(body, "suffix", !str_empty(suffix), e) &&
           refuse(body, "logit_bias", yyjson_obj_size(json_at(body, "logit_bias").val) > 0, e) &&
           refuse(body, "tools", yyjson_arr_size(tools.val) > 0, e) &&
           refuse(body, "functions", yyjson_arr_size(functions.val) > 0, e) &&
           refuse(body, "response_format", !str_eq(type, "text"), e) && refuse(body, "logprobs", logprobs, e) &&
           refuse(body, "echo", echo, e);
}

/* Content as a string, null, or OpenAI's parts: [{"type": "text", "text": ...}]. */
static bool read_content(const json_in *message, buf *out, err *e) {
    json_in content = json_at(message, "content");
    if (!yyjson_is_arr(content.val)) {
        const char *text = "";
        return json_get_str(message, "content", &text, e) && buf_puts(out, text);
    }
    for (size_t i = 0; i < yyjson_arr_size(content.val); i++) {
        json_in part = json_item(&content, i);
        const char *type = "text", *text = NULL;
        if (!yyjson_is_obj(part.val)) return err_set(e, ERR_INVALID, "%s: expected object", part.path);
        if (!json_get_str(&part, "type", &type, e)) return false;
        if (!str_eq(type, "text"))
            return err_set(e, ERR_UNSUPPORTED, "%s.type: '%.30s' is not supported, only text", part.path, type);
        if (!json_get_str(&part, "text", &text, e)) return false;
        buf_puts(out, text ? text : "");
    }
    return true;
}

static bool write_message(buf *out, const json_in *message, err *e) {
    const char *role = NULL;
    if (!yyjson_is_obj(message->val)) return err_set(e, ERR_INVALID, "%s: expected object", message->path);
    if (!json_need_str(message, "role", &role, e)) return false;
    if (str_eq(role, "developer")) role = "system";
    if (str_eq(role, "tool") || str_eq(role, "function")) role = "user"; /* few templates have a place for results */
    if (!str_eq(role, "system") && !str_eq(role, "user") && !str_eq(role, "assistant"))
        return err_set(e, ERR_INVALID, "%s.role: '%.30s' is none of system, user, assistant, tool", message->path,
                       role);
    /* An assistant that called a tool said nothing; anybody else forgot the text. */
    if (!str_eq(role, "assistant") && !json_has(message, "content"))
        return err_set(e, ERR_INVALID, "%s.content: required", message->path);
    buf text;
    buf_init(&text, REQUEST_MAX);
    bool ok = read_content(message, &text, e);
    if (ok) {
        buf_puts(out, "{\"role\":");
        json_quote(out, role);
        buf_puts(out, ",\"content\":");
        json_quote(out, buf_str(&text));
        buf_puts(out, "}");
    }
    buf_free(&text);
    return ok;
}

static bool write_messages(buf *out, const json_in *body, err *e) {
    json_in messages;
    if (!json_get_arr(body, "messages", true, &messages, e)) return false;
    size_t n = yyjson_arr_size(messages.val);
    if (n == 0) return err_set(e, ERR_INVALID, "messages: at least one is needed");
    buf_puts(out, "\"messages\":[");
    for (size_t i = 0; i < n; i++) {
        json_in message = json_item(&messages, i);
        if (i) buf_putc(out, ',');
        if (!write_message(out, &message, e)) return false;
    }
    buf_putc(out, ']');
    return true;
}

/* A string, or an array with one string. */
static bool write_prompt(buf *out, const json_in *body, err *e) {
    json_in prompt = json_at(body, "prompt");
    if (yyjson_is_arr(prompt.val) && yyjson_arr_size(prompt.val) == 1) prompt = json_item(&prompt, 0);
    if (!prompt.val) return err_set(e, ERR_INVALID, "prompt: required");
    if (!yyjson_is_str(prompt.val)) return err_set(e, ERR_INVALID, "%s: expected one string", prompt.path);
    buf_puts(out, "\"prompt\":");
    json_quote(out, yyjson_get_str(prompt.val));
    return true;
}

static bool write_enhance(buf *out, const json_in *body, err *e) {
    const char *prompt = NULL;
    if (!json_need_str(body, "prompt", &prompt, e)) return false;
    buf_puts(out, "\"messages\":[{\"role\":\"system\",\"content\":");
    json_quote(out, llm_enhance_instruction);
    buf_puts(out, "},{\"role\":\"user\",\"content\":");
    json_quote(out, prompt);
    buf_puts(out, "}]");
    return true;
}

static bool write_stops(buf *out, const json_in *body, err *e) {
    json_in stop = json_at(body, "stop");
    if (!stop.val || yyjson_is_null(stop.val)) return true;
    bool many = yyjson_is_arr(stop.val);
    size_t n = many ? yyjson_arr_size(stop.val) : 1;
    if (n > STOPS_MAX) return err_set(e, ERR_INVALID, "stop: at most %d strings", STOPS_MAX);
    buf_puts(out, ",\"stop\":[");
    for (size_t i = 0; i < n; i++) {
        json_in item = many ? json_item(&stop, i) : stop;
        if (!yyjson_is_str(item.val)) return err_set(e, ERR_INVALID, "%s: expected string", item.path);
        if (i) buf_putc(out, ',');
        json_quote(out, yyjson_get_str(item.val));
    }
    buf_putc(out, ']');
    return true;
}

typedef struct number_field {
    const char *name;
    double fallback, min, max;
} number_field;

static const number_field numbers[] = {
    {"temperature", 0.8, 0, 5},      {"top_p", 0.95, 0, 1},          {"min_p", 0.05, 0, 1},
    {"repeat_penalty", 1, 0.01, 10}, {"presence_penalty", 0, -2, 2}, {"frequency_penalty", 0, -2, 2},
};

/* Any 64 bits; none, null or -1: a drawn one. */
static bool read_seed(const json_in *body, uint64_t *seed, err *e) {
    json_in in = json_at(body, "seed");
    file_random(seed, sizeof *seed);
    if (!json_has(body, "seed")) return true;
    if (!yyjson_is_int(in.val)) return err_set(e, ERR_INVALID, "seed: expected a whole number of 64 bits");
    if (yyjson_is_uint(in.val) || yyjson_get_sint(in.val) != -1) *seed = yyjson_get_uint(in.val);
    return true;
}

static bool write_sampling(buf *out, llm_shape shape, const json_in *body, err *e) {
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        double v = numbers[i].fallback;
        if (!json_get_num(body, numbers[i].name, &v, numbers[i].min, numbers[i].max, e)) return false;
        buf_printf(out, ",\"%s\":%.9g", numbers[i].name, v);
    }
    int top_k = 40, max_tokens = shape == LLM_CHAT ? -1 : shape == LLM_ENHANCE ? ENHANCE_TOKENS : COMPLETION_TOKENS;
    uint64_t seed;
    bool ignore_eos = false;
    if (!json_get_int(body, "top_k", &top_k, -1, 100000, e) ||
        !json_get_int(body, "max_tokens", &max_tokens, -1, 1 << 24, e) ||
        !json_get_int(body, "max_completion_tokens", &max_tokens, -1, 1 << 24, e) || !read_seed(body, &seed, e) ||
        !json_get_bool(body, "ignore_eos", &ignore_eos, e))
        return false;
    if (top_k < 0) top_k = 0; /* other servers' word for "all" */
    buf_printf(out, ",\"top_k\":%d,\"max_tokens\":%d,\"seed\":%llu,\"ignore_eos\":%s", top_k, max_tokens,
               (unsigned long long)seed, ignore_eos ? "true" : "false");
    return true;
}

static bool write_params(buf *out, llm_shape shape, const json_in *body, err *e) {
    bool ok = shape == LLM_CHAT         ? write_messages(out, body, e)
              : shape == LLM_COMPLETION ? write_prompt(out, body, e)
                                        : write_enhance(out, body, e);
    ok = ok && write_sampling(out, shape, body, e) && write_stops(out, body, e);
    if (ok && out->full) return err_set(e, ERR_TOO_LARGE, "the request is too long");
    return ok;
}

bool llm_request_read(llm_request *r, llm_shape shape, const json_in *body, err *e) {
    *r = (llm_request){.shape = shape};
    if (!yyjson_is_obj(body->val)) return err_set(e, ERR_INVALID, "body: expected object");
    if (shape == LLM_EMBEDDING) return llm_embeddings_read(r, body, e);
    const char *model = NULL;
    json_in options;
    if (!json_get_str(body, "model", &model, e) || !json_get_bool(body, "stream", &r->stream, e) ||
        !check_unsupported(body, e) || !json_get_obj(body, "stream_options", false, &options, e) ||
        (options.val && !json_get_bool(&options, "include_usage", &r->include_usage, e)))
        return false;
    buf params;
    buf_init(&params, REQUEST_MAX);
    bool ok = write_params(&params, shape, body, e);
    if (ok) {
        r->params = buf_take(&params, NULL);
        r->model = str_empty(model) ? NULL : str_dup(model);
    }
    buf_free(&params);
    return ok;
}

void llm_request_free(llm_request *r) {
    free(r->model);
    free(r->params);
    *r = (llm_request){0};
}

void llm_request_write(const llm_request *r, const char *id, const int32_t *resume, size_t resume_count, buf *out) {
    buf_printf(out, "{\"id\":\"%s\",%s", id, r->params);
    if (r->shape == LLM_EMBEDDING) {
        buf_putc(out, '}');
        return;
    }
    buf_puts(out, ",\"resume\":[");
    for (size_t i = 0; i < resume_count; i++) buf_printf(out, "%s%d", i ? "," : "", resume[i]);
    buf_puts(out, "]}");
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void begin(const llm_head *h, bool chunk, buf *out) {
    const char *object = h->shape == LLM_COMPLETION ? "text_completion"
                         : chunk                    ? "chat.completion.chunk"
                                                    : "chat.completion";
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", h->id, object,
               (long long)h->created);
    json_quote(out, h->model);
}

static void quote_or_null(buf *out, const char *s) {
    if (s)
        json_quote(out, s);
    else
        buf_puts(out, "null");
}

static void write_chunk(const llm_head *h, const char *delta, const char *text, const char *finish, buf *out) {
    buf_puts(out, "data: ");
    begin(h, true, out);
    buf_puts(out, ",\"choices\":[{\"index\":0,");
    if (h->shape == LLM_COMPLETION) {
        buf_puts(out, "\"text\":");
        json_quote(out, text ? text : "");
        buf_puts(out, ",\"logprobs\":null");
    } else {
        buf_printf(out, "\"delta\":{%s", delta);
        if (text) {
            buf_puts(out, "\"content\":");
            json_quote(out, text);
        }
        buf_puts(out, "},\"logprobs\":null");
    }
    buf_puts(out, ",\"finish_reason\":");
    quote_or_null(out, finish);
    buf_puts(out, "}]}\n\n");
}

void llm_write_first_chunk(const llm_head *h, buf *out) {
    if (h->shape != LLM_COMPLETION) write_chunk(h, "\"role\":\"assistant\",", "", NULL, out);
}

void llm_write_text_chunk(const llm_head *h, const char *text, buf *out) {
    write_chunk(h, "", text, NULL, out);
}

void llm_write_last_chunk(const llm_head *h, const char *finish_reason, buf *out) {
    write_chunk(h, "", NULL, finish_reason, out);
}

static void write_usage(const llm_usage *u, buf *out) {
    buf_printf(out, "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}", u->prompt_tokens,
               u->completion_tokens, u->prompt_tokens + u->completion_tokens);
}

void llm_write_usage_chunk(const llm_head *h, const llm_usage *u, buf *out) {
    buf_puts(out, "data: ");
    begin(h, true, out);
    buf_puts(out, ",\"choices\":[],");
    write_usage(u, out);
    buf_puts(out, "}\n\n");
}

void llm_write_error_event(const err *e, buf *out) {
    buf_puts(out, "data: ");
    json_write_error(out, "server_error", err_name(e->code), NULL, e->msg);
    buf_puts(out, "\n\n");
}

void llm_write_completion(const llm_head *h, const char *text, const char *finish_reason, const llm_usage *u,
                          buf *out) {
    begin(h, false, out);
    buf_puts(out, ",\"choices\":[{\"index\":0,");
    if (h->shape == LLM_COMPLETION) {
        buf_puts(out, "\"text\":");
        json_quote(out, text);
    } else {
        buf_puts(out, "\"message\":{\"role\":\"assistant\",\"content\":");
        json_quote(out, text);
        buf_puts(out, ",\"refusal\":null}");
    }
    buf_puts(out, ",\"logprobs\":null,\"finish_reason\":");
    quote_or_null(out, finish_reason);
    buf_puts(out, "}],");
    write_usage(u, out);
    buf_puts(out, "}");
}
