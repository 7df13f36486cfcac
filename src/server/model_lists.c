#include "server/model_lists.h"

#include "base/path.h"
#include "base/str.h"
#include "json/json.h"

#include <stdlib.h>
#include <string.h>

/* "esrgan-x4" -> 4 */
int model_list_scale(const model_entry *e) {
    const char *x = e->family ? strrchr(e->family, 'x') : NULL;
    int64_t scale;
    return x && str_to_i64(x + 1, &scale) && scale > 0 && scale <= 8 ? (int)scale : 0;
}

static void write_entry(const model_entry *e, buf *out) {
    char *name = path_stem(e->id);
    buf_puts(out, "{\"name\":");
    json_quote(out, name);
    json_write_member(out, "id", e->id);
    if (str_eq(e->type, "lora")) json_write_member(out, "alias", e->alias);
    if (str_eq(e->type, "lora") || str_eq(e->type, "controlnet")) json_write_member(out, "title", e->title);
    json_write_member(out, "family", e->family);
    if (str_eq(e->type, "upscaler")) buf_printf(out, ",\"scale\":%d", model_list_scale(e));
    buf_printf(out, ",\"size\":%lld,\"supported\":%s", (long long)e->size, e->supported ? "true" : "false");
    json_write_member(out, "reason", e->reason);
    buf_putc(out, '}');
    free(name);
}

void model_list_write(const models *m, const char *type, buf *out) {
    const char *comma = "";
    buf_putc(out, '[');
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *e = models_at(m, i);
        if (!str_eq(e->type, type)) continue;
        buf_puts(out, comma);
        write_entry(e, out);
        comma = ",";
    }
    buf_putc(out, ']');
}

void model_list_write_document(const models *m, const char *type, buf *out) {
    buf_puts(out, "{\"object\":\"list\",\"data\":");
    model_list_write(m, type, out);
    buf_putc(out, '}');
}
