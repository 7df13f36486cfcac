#include "server/image_ip_adapter.h"

#include "base/str.h"
#include "server/image_fields.h"

#include <stdlib.h>

static const char *const keys[] = {"model", "clip_vision", "image", "weight", "start", "end"};

void image_ip_adapter_free(image_ip_adapter *a) {
    free(a->model);
    free(a->clip_vision);
    free(a->image);
    *a = (image_ip_adapter){0};
}

void image_ip_adapter_copy(image_ip_adapter *to, const image_ip_adapter *from) {
    *to = *from;
    to->model = str_dup(from->model);
    to->clip_vision = str_dup(from->clip_vision);
    to->image = str_dup(from->image);
}

static bool read_text(const json_in *in, const char *key, bool is_required, char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(in, key, &text, e)) return false;
    if (is_required && str_empty(text)) return err_set(e, ERR_INVALID, "%s: required", json_at(in, key).path);
    if (!str_empty(text)) str_set(out, text);
    return true;
}

static bool read_object(image_ip_adapter *a, const json_in *in, bool strict, err *e) {
    *a = (image_ip_adapter){.weight = 1, .end = 1};
    if (!yyjson_is_obj(in->val)) return field_wrong_type(in, "object", e);
    if (strict && !json_check_keys(in, keys, sizeof keys / sizeof *keys, e)) return err_wrap(e, "%s", in->path);
    bool ok = read_text(in, "model", true, &a->model, e) && read_text(in, "image", true, &a->image, e) &&
              read_text(in, "clip_vision", false, &a->clip_vision, e) &&
              field_real(in, "weight", &a->weight, 0, IP_ADAPTER_WEIGHT_MAX, e) &&
              field_real(in, "start", &a->start, 0, 1, e) && field_real(in, "end", &a->end, 0, 1, e);
    if (!ok) return false;
    return a->start <= a->end || err_set(e, ERR_INVALID, "%s.end: %g is before start, %g", in->path, a->end, a->start);
}

bool image_ip_adapter_read(image_ip_adapter *a, const json_in *body, bool strict, err *e) {
    json_in in;
    yyjson_doc *doc;
    field_json(body, "ip_adapter", &in, &doc);
    const bool ok = !in.val || read_object(a, &in, strict, e);
    yyjson_doc_free(doc);
    return ok;
}

void image_ip_adapter_write_values(const image_ip_adapter *a, buf *out) {
    buf_putc(out, ',');
    field_write_real(out, "weight", a->weight);
    field_write_real(out, "start", a->start);
    field_write_real(out, "end", a->end);
    out->len--; /* the last comma */
}

void image_ip_adapter_write(const image_ip_adapter *a, buf *out) {
    if (!a->model) return;
    buf_puts(out, "\"ip_adapter\":{\"model\":");
    json_quote(out, a->model);
    if (a->clip_vision) json_write_member(out, "clip_vision", a->clip_vision);
    json_write_member(out, "image", a->image);
    image_ip_adapter_write_values(a, out);
    buf_puts(out, "},");
}
