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

static bool read_object(image_ip_adapter *a, const json_in *in, bool strict, err *e) {
    *a = (image_ip_adapter){.weight = 1, .end = 1};
    if (!yyjson_is_obj(in->val)) return field_wrong_type(in, "object", e);
    if (strict && !json_check_keys(in, keys, sizeof keys / sizeof *keys, e)) return err_wrap(e, "%s", in->path);
    return field_text(in, "model", true, &a->model, e) && field_text(in, "image", true, &a->image, e) &&
           field_text(in, "clip_vision", false, &a->clip_vision, e) &&
           field_real(in, "weight", &a->weight, 0, IP_ADAPTER_WEIGHT_MAX, e) && field_span(in, &a->start, &a->end, e);
}

bool image_ip_adapter_read(image_ip_adapter *a, const json_in *body, bool strict, err *e) {
    json_in in;
    yyjson_doc *doc;
    field_json(body, "ip_adapter", &in, &doc);
    const bool ok = !in.val || read_object(a, &in, strict, e);
    yyjson_doc_free(doc);
    return ok;
}

void image_ip_adapter_read_metadata(image_ip_adapter *a, const metadata *m) {
    const char *text = metadata_get(m, "IP-Adapter");
    metadata told = {0};
    if (text) metadata_parse(&told, text);
    if (metadata_get(&told, "Model")) {
        *a = (image_ip_adapter){.model = str_dup(metadata_get(&told, "Model")), .weight = 1, .end = 1};
        field_metadata_share(&told, &a->weight, IP_ADAPTER_WEIGHT_MAX, &a->start, &a->end);
    }
    metadata_free(&told);
}

void image_ip_adapter_write_values(const image_ip_adapter *a, buf *out) {
    buf_putc(out, ',');
    field_write_share(out, a->weight, a->start, a->end);
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
