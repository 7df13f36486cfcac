/* The LLM worker's request bodies: what is accepted is within its bounds, what is refused says why; and the bytes as
 * pieces of an answer: what is shown is always UTF-8 and makes valid event lines. */
#include "base/str.h"
#include "llm/protocol.h"
#include "llm/text_out.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void complete(const char *json, size_t len) {
    llm_completion c;
    err e = {0};
    if (!llm_completion_parse(&c, json, len, &e)) {
        if (!e.code || !e.msg[0]) abort();
        return;
    }
    const llm_request *r = &c.request;
    if (r->max_tokens < -1 || r->top_k < 0 || !(r->top_p >= 0 && r->top_p <= 1) || r->stop_count > LLM_STOPS_MAX)
        abort();
    for (size_t i = 0; i < r->message_count; i++)
        if (!r->messages[i].role || !r->messages[i].content) abort();
    for (size_t i = 0; i < r->resume_count; i++)
        if (r->resume[i] < 0) abort();
    llm_completion_free(&c);
}

static void load(const char *json, size_t len) {
    llm_options o;
    char *path = NULL, *text = NULL;
    bool special;
    err e = {0};
    if (llm_load_parse(json, len, &path, &o, &e) && (o.slots < 1 || o.slots > LLM_SLOTS_MAX || o.n_ctx < 0)) abort();
    if (llm_tokenize_parse(json, len, &text, &special, &e) && !text) abort();
    free(path);
    free(text);
}

static void event(const buf *shown) {
    static const int32_t ids[] = {1, 2};
    buf line;
    buf_init(&line, 1 << 20);
    llm_write_text(&line, ids, 2, buf_str(shown));
    yyjson_doc *doc = json_parse(line.data, line.len, NULL);
    if (!doc || yyjson_get_len(yyjson_obj_get(yyjson_doc_get_root(doc), "text")) != shown->len) abort();
    yyjson_doc_free(doc);
    buf_free(&line);
}

/* The first byte cuts the rest into pieces. */
static void pieces(const char *bytes, size_t len) {
    static const char *const stops[] = {"ab", "\xC3\xA9x", "\n\n"};
    if (!len) return;
    size_t step = 1 + (unsigned char)bytes[0] % 7;
    text_out t;
    buf shown;
    buf_init(&shown, 1 << 20);
    text_out_init(&t, stops, 3);
    bool stopped = false;
    for (size_t at = 1; at < len && !stopped; at += step) {
        buf_clear(&shown);
        stopped = text_out_push(&t, bytes + at, len - at < step ? len - at : step, &shown);
        if (!str_is_utf8(buf_str(&shown), shown.len)) abort();
        event(&shown);
    }
    text_out_free(&t);
    buf_free(&shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = str_ndup((const char *)data, size);
    complete(text, size);
    load(text, size);
    pieces(text, size);
    free(text);
    return 0;
}
