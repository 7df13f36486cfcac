/* image_controls.c - see image_controls.h. */
#include "server/image_controls.h"
#include "base/str.h"
#include "server/image_fields.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const modules[] = {"none", "canny", NULL};
static const char *const modes[] = {"balanced", "prompt", "control", NULL};
static const char *const keys[] = {"model",        "image",         "weight",         "start", "end",
                                   "preprocessor", "low_threshold", "high_threshold", "mode"};

static const image_control control_defaults = {
    .weight = 1, .end = 1, .module = "none", .low = 100, .high = 200, .mode = "balanced"};

void image_controls_free(image_controls *c) {
    for (size_t i = 0; i < c->count; i++) {
        free(c->at[i].model);
        free(c->at[i].image);
    }
    free(c->at);
    *c = (image_controls){0};
}

void image_controls_copy(image_controls *to, const image_controls *from) {
    *to = (image_controls){.count = from->count};
    if (from->count) to->at = mem_alloc(from->count, sizeof *to->at);
    for (size_t i = 0; i < from->count; i++) {
        to->at[i] = from->at[i];
        to->at[i].model = str_dup(from->at[i].model);
        to->at[i].image = str_dup(from->at[i].image);
    }
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool read_values(image_control *c, const json_in *in, err *e) {
    bool ok = field_real(in, "weight", &c->weight, 0, CONTROLS_WEIGHT_MAX, e) &&
              field_span(in, &c->start, &c->end, e) && field_name(in, "preprocessor", NULL, modules, &c->module, e) &&
              field_name(in, "mode", NULL, modes, &c->mode, e) &&
              field_int(in, "low_threshold", &c->low, 0, CONTROLS_THRESHOLD_MAX, e) &&
              field_int(in, "high_threshold", &c->high, 0, CONTROLS_THRESHOLD_MAX, e);
    if (!ok) return false;
    return c->low <= c->high ||
           err_set(e, ERR_INVALID, "%s.high_threshold: %d is below low_threshold, %d", in->path, c->high, c->low);
}

static bool read_one(image_control *c, const json_in *in, bool strict, err *e) {
    *c = control_defaults;
    if (!yyjson_is_obj(in->val)) return field_wrong_type(in, "object", e);
    if (strict && !json_check_keys(in, keys, sizeof keys / sizeof *keys, e)) return err_wrap(e, "%s", in->path);
    return field_text(in, "model", true, &c->model, e) && field_text(in, "image", true, &c->image, e) &&
           read_values(c, in, e);
}

bool image_controls_read(image_controls *c, const json_in *body, bool strict, err *e) {
    json_in list;
    yyjson_doc *doc;
    field_json(body, "controlnet", &list, &doc);
    const size_t count = yyjson_arr_size(list.val);
    bool ok = !list.val || yyjson_is_arr(list.val) || field_wrong_type(&list, "array", e);
    ok = ok && (count <= CONTROLS_MAX || err_set(e, ERR_INVALID, "controlnet: more than %d", CONTROLS_MAX));
    if (ok && count) c->at = mem_alloc(count, sizeof *c->at);
    for (size_t i = 0; ok && i < count; i++) {
        const json_in item = json_item(&list, i);
        c->count++;
        ok = read_one(&c->at[i], &item, strict, e);
    }
    yyjson_doc_free(doc);
    return ok;
}

/* What the text of A1111's extension says of one. Modules that are none of ours made a picture that is not there. */
static void read_unit(image_control *c, const metadata *unit) {
    const char *mode = metadata_get(unit, "Control Mode"), *module = metadata_get(unit, "Module");
    int64_t low, high;
    *c = control_defaults;
    c->model = str_dup(metadata_get(unit, "Model"));
    field_metadata_share(unit, &c->weight, CONTROLS_WEIGHT_MAX, &c->start, &c->end);
    if (mode && str_ieq(mode, "My prompt is more important")) c->mode = modes[1];
    if (mode && str_ieq(mode, "ControlNet is more important")) c->mode = modes[2];
    if (!module || !str_ieq(module, modules[1])) return;
    c->module = modules[1];
    if (metadata_get_i64(unit, "Threshold A", &low) && metadata_get_i64(unit, "Threshold B", &high) && low >= 0 &&
        low <= high && high <= CONTROLS_THRESHOLD_MAX) {
        c->low = (int)low;
        c->high = (int)high;
    }
}

void image_controls_read_metadata(image_controls *c, const metadata *m) {
    c->at = mem_alloc(CONTROLS_MAX, sizeof *c->at);
    for (int i = 0; i < CONTROLS_MAX; i++) {
        char key[24];
        snprintf(key, sizeof key, "ControlNet %d", i);
        const char *text = metadata_get(m, key);
        metadata unit = {0};
        if (text) metadata_parse(&unit, text);
        if (metadata_get(&unit, "Model")) read_unit(&c->at[c->count++], &unit);
        metadata_free(&unit);
    }
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

void image_control_write_values(const image_control *c, buf *out) {
    buf_putc(out, ',');
    field_write_share(out, c->weight, c->start, c->end);
    field_write_string(out, "preprocessor", c->module);
    field_write_string(out, "mode", c->mode);
    buf_printf(out, "\"low_threshold\":%d,\"high_threshold\":%d", c->low, c->high);
}

void image_controls_write(const image_controls *c, buf *out) {
    if (!c->count) return;
    buf_puts(out, "\"controlnet\":[");
    for (size_t i = 0; i < c->count; i++) {
        buf_puts(out, i ? ",{\"model\":" : "{\"model\":");
        json_quote(out, c->at[i].model);
        json_write_member(out, "image", c->at[i].image);
        image_control_write_values(&c->at[i], out);
        buf_putc(out, '}');
    }
    buf_puts(out, "],");
}

void image_controls_write_lists(buf *out) {
    field_write_names(out, "preprocessors", modules);
    field_write_names(out, "control_modes", modes);
}

void image_controls_write_limits(buf *out) {
    buf_printf(out, "\"controlnet\":%d,\"control_weight\":[0,%d],\"control_threshold\":[0,%d],", CONTROLS_MAX,
               CONTROLS_WEIGHT_MAX, CONTROLS_THRESHOLD_MAX);
}
