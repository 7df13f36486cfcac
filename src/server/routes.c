/* routes.c - see routes.h: what the handlers share. */
#include "server/routes.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

void route_list_add(route_list *l, const http_route *routes, size_t count) {
    l->items = mem_resize(l->items, (l->count + count) * sizeof l->items[0]);
    memcpy(l->items + l->count, routes, count * sizeof l->items[0]);
    l->count += count;
}

yyjson_doc *routes_body(http_req *req, json_in *root) {
    size_t len;
    const char *body = http_req_body(req, &len);
    err e = {0};
    yyjson_doc *doc = json_parse(body, len, &e);
    *root = json_root(doc);
    if (doc && !yyjson_is_obj(root->val)) {
        err_set(&e, ERR_INVALID, "body: expected object");
        yyjson_doc_free(doc);
        doc = NULL;
    }
    if (!doc) routes_reply_invalid(req, &e);
    return doc;
}

/* "steps: 0 is not between 1 and 200" -> "steps"; "messages[2].role: ..." -> "messages[2].role"; "unknown key 'stepz'"
 * -> "stepz". */
static bool leading_field(const char *message, char *out, size_t cap) {
    static const char unknown[] = "unknown key '";
    if (str_starts(message, unknown)) {
        const char *key = message + sizeof unknown - 1;
        size_t len = strcspn(key, "'");
        if (len < cap) str_copy(out, len + 1, key);
        return len > 0 && len < cap;
    }
    size_t n = strspn(message, "abcdefghijklmnopqrstuvwxyz_.[]0123456789");
    if (n == 0 || n >= cap || message[n] != ':' || message[n + 1] != ' ') return false;
    memcpy(out, message, n);
    out[n] = 0;
    return true;
}

void routes_reply_named(http_req *req, int status, const char *code, const char *param, const err *e) {
    char field[112];
    bool named = leading_field(e->msg, field, sizeof field);
    if (status == 429 || status == 503) http_header_add(req, "Retry-After", "2");
    http_reply_error(req, status, code, named ? field : param, "%s", e->msg);
}

void routes_reply_invalid(http_req *req, const err *e) {
    routes_reply_named(req, e->code == ERR_FORMAT ? 400 : http_status_of(e->code), err_name(e->code), NULL, e);
}

void routes_reply_json(http_req *req, int status, buf *json) {
    http_reply(req, status, "application/json", json->data, json->len);
    buf_free(json);
}

void routes_reply_result(void *ctx, const err *why, const char *json, size_t len) {
    http_req *req = ctx;
    if (why)
        routes_reply_invalid(req, why);
    else
        http_reply(req, 200, "application/json", json, len);
}

bool routes_read_error(const char *body, size_t len, err *e) {
    err parse = {0};
    yyjson_doc *doc = json_parse(body, len, &parse);
    json_in root = json_root(doc), error;
    const char *message = NULL, *code = "internal";
    if (doc && json_get_obj(&root, "error", true, &error, &parse) &&
        json_need_str(&error, "message", &message, &parse) && json_get_str(&error, "code", &code, &parse))
        err_set(e, err_from_name(code), "%s", message);
    else
        err_set(e, ERR_INTERNAL, "the worker gave no reason");
    yyjson_doc_free(doc);
    return false;
}

bool routes_query_int(http_req *req, const char *name, int64_t *out, int64_t min, int64_t max) {
    const char *text = http_req_query(req, name);
    int64_t v;
    if (str_empty(text)) return true;
    if (str_to_i64(text, &v) && v >= min && v <= max) {
        *out = v;
        return true;
    }
    http_reply_error(req, 400, "invalid", name, "%s: '%.40s' is not a number between %lld and %lld", name, text,
                     (long long)min, (long long)max);
    return false;
}
