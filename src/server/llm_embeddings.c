/* llm_embeddings.c - see llm_embeddings.h. OpenAI's API reference (embeddings) is the source for names and shapes. */
#include "server/llm_embeddings.h"
#include "base/base64.h"
#include "base/str.h"

#include <string.h>

enum { REQUEST_MAX = 32 << 20, TOKENS_MAX = 1 << 20, VECTOR_BYTES_MAX = 1 << 20 };

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool write_tokens(buf *out, const json_in *list, err *e) {
    size_t n = yyjson_arr_size(list->val);
    if (n == 0 || n > TOKENS_MAX) return err_set(e, ERR_INVALID, "%s: expected 1 to %d tokens", list->path, TOKENS_MAX);
    for (size_t i = 0; i < n; i++) {
        json_in item = json_item(list, i);
        if (!yyjson_is_int(item.val) || yyjson_get_sint(item.val) < 0 || yyjson_get_sint(item.val) > INT32_MAX)
            return err_set(e, ERR_INVALID, "%s: expected a token", item.path);
        buf_printf(out, "%s%d", i ? "," : "[", (int)yyjson_get_sint(item.val));
    }
    return buf_putc(out, ']');
}

static bool write_input(buf *out, const json_in *item, err *e) {
    if (yyjson_is_arr(item->val)) return write_tokens(out, item, e);
    if (!yyjson_is_str(item->val))
        return err_set(e, ERR_INVALID, "%s: expected string or an array of tokens", item->path);
    if (str_empty(yyjson_get_str(item->val))) return err_set(e, ERR_INVALID, "%s: must not be empty", item->path);
    json_quote(out, yyjson_get_str(item->val));
    return true;
}

/* A string, strings, tokens, or arrays of tokens. */
static bool write_inputs(buf *out, const json_in *body, err *e) {
    json_in input = json_at(body, "input");
    if (!input.val || yyjson_is_null(input.val)) return err_set(e, ERR_INVALID, "input: required");
    size_t n = yyjson_arr_size(input.val);
    json_in first = json_item(&input, 0);
    bool many = yyjson_is_arr(input.val) && !yyjson_is_int(first.val);
    if (many && (n == 0 || n > EMBEDDINGS_MAX))
        return err_set(e, ERR_INVALID, "input: expected 1 to %d texts", EMBEDDINGS_MAX);
    buf_puts(out, "\"input\":[");
    for (size_t i = 0; i < (many ? n : 1); i++) {
        json_in item = many ? json_item(&input, i) : input;
        if (i) buf_putc(out, ',');
        if (!write_input(out, &item, e)) return false;
    }
    return buf_putc(out, ']');
}

static bool read_params(llm_request *r, const json_in *body, buf *params, err *e) {
    const char *model = NULL, *format = "float";
    int dimensions = 0;
    if (!json_get_str(body, "model", &model, e) || !json_get_str(body, "encoding_format", &format, e) ||
        !json_get_int(body, "dimensions", &dimensions, 1, 1 << 20, e) || !write_inputs(params, body, e))
        return false;
    if (!str_eq(format, "float") && !str_eq(format, "base64"))
        return err_set(e, ERR_INVALID, "encoding_format: '%.30s' is neither float nor base64", format);
    buf_printf(params, ",\"dimensions\":%d", dimensions);
    if (params->full) return err_set(e, ERR_TOO_LARGE, "the request is too long");
    r->base64 = str_eq(format, "base64");
    r->model = str_empty(model) ? NULL : str_dup(model);
    return true;
}

bool llm_embeddings_read(llm_request *r, const json_in *body, err *e) {
    buf params;
    buf_init(&params, REQUEST_MAX);
    bool ok = read_params(r, body, &params, e);
    if (ok) r->params = buf_take(&params, NULL);
    buf_free(&params);
    return ok;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static bool add_numbers(const char *base64, buf *items, err *e) {
    buf raw;
    buf_init(&raw, VECTOR_BYTES_MAX);
    bool ok = base64_decode(&raw, base64, strlen(base64)) && raw.len >= sizeof(float) && raw.len % sizeof(float) == 0;
    for (size_t i = 0; ok && i < raw.len; i += sizeof(float)) {
        float v;
        memcpy(&v, raw.data + i, sizeof v);
        buf_printf(items, "%s%.9g", i ? "," : "[", (double)v);
    }
    buf_free(&raw);
    return ok ? buf_putc(items, ']') : err_set(e, ERR_FORMAT, "the worker's vector cannot be read");
}

bool llm_embeddings_add(const llm_request *r, const json_in *line, buf *items, err *e) {
    const char *vector = NULL;
    int index = 0;
    if (!json_need_str(line, "base64", &vector, e) || !json_get_int(line, "index", &index, 0, EMBEDDINGS_MAX, e))
        return false;
    buf_printf(items, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":", items->len ? "," : "", index);
    if (!r->base64 && !add_numbers(vector, items, e)) return false;
    if (r->base64) json_quote(items, vector);
    return buf_putc(items, '}') || err_set(e, ERR_TOO_LARGE, "the answer is longer than %zu bytes", items->max);
}

void llm_embeddings_write(const llm_head *h, const buf *items, const llm_usage *u, buf *out) {
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    buf_append(out, items->data, items->len);
    buf_puts(out, "],\"model\":");
    json_quote(out, h->model);
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d}}", u->prompt_tokens, u->prompt_tokens);
}
