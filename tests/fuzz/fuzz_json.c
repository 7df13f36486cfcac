/* JSON request bodies through the typed readers; what is accepted must survive being written and read again. */
#include "json/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_fields(const json_in *obj) {
    static const char *const known[] = {"prompt", "steps", "cfg_scale", "seed", "stream", "messages"};
    const char *text = NULL;
    bool flag = false;
    int steps = 20;
    int64_t whole = 0;
    uint64_t seed = 0;
    double scale = 7;
    err e = {0};
    json_check_keys(obj, known, sizeof known / sizeof known[0], &e);
    if (!json_need_str(obj, "prompt", &text, &e) && !e.msg[0]) abort();
    if (json_get_int(obj, "steps", &steps, 1, 150, &e) && (steps < 1 || steps > 150)) abort();
    if (json_get_num(obj, "cfg_scale", &scale, 0, 30, &e) && !(scale >= 0 && scale <= 30)) abort();
    json_get_u64(obj, "seed", &seed, &e);
    json_get_i64(obj, "seed", &whole, INT64_MIN, INT64_MAX, &e);
    json_get_bool(obj, "stream", &flag, &e);
    json_in messages;
    if (!json_get_arr(obj, "messages", false, &messages, &e) || !messages.val) return;
    for (size_t i = 0; i < yyjson_arr_size(messages.val) && i < 8; i++) {
        json_in message = json_item(&messages, i);
        json_need_str(&message, "role", &text, &e);
        json_need_str(&message, "content", &text, &e);
    }
}

/* Numbers may be written in another form, so it is the second writing that must equal the first. */
static void write_twice(yyjson_doc *doc) {
    buf first, second;
    buf_init(&first, 1 << 22);
    buf_init(&second, 1 << 22);
    yyjson_mut_doc *copy = yyjson_doc_mut_copy(doc, NULL);
    if (!copy || !json_write(copy, &first)) abort();
    yyjson_doc *again = json_parse(first.data, first.len, NULL);
    if (!again) abort();
    yyjson_mut_doc *copy_again = yyjson_doc_mut_copy(again, NULL);
    if (!copy_again || !json_write(copy_again, &second)) abort();
    if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0) abort();
    yyjson_mut_doc_free(copy);
    yyjson_mut_doc_free(copy_again);
    yyjson_doc_free(again);
    buf_free(&first);
    buf_free(&second);
}

/* Any text makes a valid error body. */
static void quote(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text) abort();
    memcpy(text, data, size);
    text[size] = 0;
    buf out;
    buf_init(&out, 1 << 22);
    json_write_error(&out, "invalid_request_error", text, text, text);
    yyjson_doc *doc = json_parse(out.data, out.len, NULL);
    if (!doc) abort();
    yyjson_doc_free(doc);
    buf_free(&out);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    quote(data, size);
    err e = {0};
    yyjson_doc *doc = json_parse((const char *)data, size, &e);
    if (!doc) {
        if (e.code != ERR_FORMAT || !e.msg[0]) abort();
        return 0;
    }
    json_in root = json_root(doc);
    read_fields(&root);
    write_twice(doc);
    yyjson_doc_free(doc);
    return 0;
}
