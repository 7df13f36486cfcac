#include "server/image_texts.h"

#include "base/str.h"
#include "server/image_fields.h"

#include <stdlib.h>

enum { EACH_MAX = 16, LIST_MAX = 1024 };

const char *const image_texts_keys[IMAGE_TEXTS_KEYS] = {"prompts", "prompt_template", "negative_template",
                                                        "embeddings"};

void image_texts_forget_embeddings(image_texts *t) {
    for (size_t i = 0; i < t->embedding_count; i++) free(t->embeddings[i]);
    free(t->embeddings);
    t->embeddings = NULL;
    t->embedding_count = 0;
}

void image_texts_add_embedding(image_texts *t, const char *id) {
    t->embeddings = mem_resize(t->embeddings, (t->embedding_count + 1) * sizeof *t->embeddings);
    t->embeddings[t->embedding_count++] = str_dup(id);
}

void image_texts_add(image_texts *t, char *prompt, char *negative_prompt) {
    t->each = mem_resize(t->each, (t->count + 1) * sizeof *t->each);
    t->each[t->count++] = (image_text){prompt, negative_prompt};
}

bool image_texts_differ(const image_texts *t) {
    for (size_t i = 1; i < t->count; i++)
        if (!str_eq(t->each[i].prompt, t->each[0].prompt) ||
            !str_eq(t->each[i].negative_prompt, t->each[0].negative_prompt))
            return true;
    return false;
}

/* *from becomes `own`, and the template where they differ. */
static void pick(const char *own, char **from, char **template) {
    if (str_eq(own, *from)) return;
    free(*template);
    *template = *from;
    *from = str_dup(own);
}

static void free_each(image_texts *t) {
    for (size_t i = 0; i < t->count; i++) {
        free(t->each[i].prompt);
        free(t->each[i].negative_prompt);
    }
    free(t->each);
    t->each = NULL;
    t->count = 0;
}

void image_texts_pick(image_texts *t, size_t i, char **prompt, char **negative_prompt) {
    if (i >= t->count) return;
    pick(t->each[i].prompt, prompt, &t->prompt_template);
    pick(t->each[i].negative_prompt, negative_prompt, &t->negative_template);
    free_each(t);
}

void image_texts_free(image_texts *t) {
    free_each(t);
    free(t->prompt_template);
    free(t->negative_template);
    image_texts_forget_embeddings(t);
    *t = (image_texts){0};
}

void image_texts_copy(image_texts *to, const image_texts *from) {
    *to = (image_texts){.prompt_template = str_dup(from->prompt_template),
                        .negative_template = str_dup(from->negative_template)};
    for (size_t i = 0; i < from->count; i++)
        image_texts_add(to, str_dup(from->each[i].prompt), str_dup(from->each[i].negative_prompt));
    for (size_t i = 0; i < from->embedding_count; i++) image_texts_add_embedding(to, from->embeddings[i]);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

/* Its own document where a form has the list as text. */
static bool read_list(const json_in *body, const char *key, size_t max, json_in *list, yyjson_doc **doc, err *e) {
    field_json(body, key, list, doc);
    if (list->val && !yyjson_is_arr(list->val)) return field_wrong_type(list, "array", e);
    return yyjson_arr_size(list->val) <= max || err_set(e, ERR_INVALID, "%s: more than %zu", key, max);
}

static bool read_each(image_texts *t, const json_in *list, err *e) {
    const size_t count = yyjson_arr_size(list->val);
    for (size_t i = 0; i < count; i++) {
        const json_in item = json_item(list, i);
        const char *prompt = "", *negative = "";
        if (!yyjson_is_obj(item.val)) return field_wrong_type(&item, "object", e);
        if (!json_get_str(&item, "prompt", &prompt, e) || !json_get_str(&item, "negative_prompt", &negative, e))
            return false;
        image_texts_add(t, str_dup(prompt), str_dup(negative));
    }
    return true;
}

static bool read_embeddings(image_texts *t, const json_in *list, err *e) {
    for (size_t i = 0; i < yyjson_arr_size(list->val); i++) {
        const json_in item = json_item(list, i);
        if (!yyjson_is_str(item.val)) return field_wrong_type(&item, "string", e);
        image_texts_add_embedding(t, yyjson_get_str(item.val));
    }
    return true;
}

static bool read_template(const json_in *body, const char *key, char **out, err *e) {
    const char *text = NULL;
    if (!json_get_str(body, key, &text, e)) return false;
    if (!str_empty(text)) str_set(out, text);
    return true;
}

bool image_texts_read(image_texts *t, const json_in *body, err *e) {
    json_in list;
    yyjson_doc *doc = NULL;
    bool ok = read_template(body, "prompt_template", &t->prompt_template, e) &&
              read_template(body, "negative_template", &t->negative_template, e) &&
              read_list(body, "prompts", EACH_MAX, &list, &doc, e) && read_each(t, &list, e);
    yyjson_doc_free(doc);
    doc = NULL;
    ok = ok && read_list(body, "embeddings", LIST_MAX, &list, &doc, e) && read_embeddings(t, &list, e);
    yyjson_doc_free(doc);
    return ok;
}

static void write_each(const image_texts *t, buf *out) {
    buf_puts(out, "\"prompts\":[");
    for (size_t i = 0; i < t->count; i++) {
        buf_puts(out, i ? ",{" : "{");
        json_write_member(out, "prompt", t->each[i].prompt);
        json_write_member(out, "negative_prompt", t->each[i].negative_prompt);
        buf_putc(out, '}');
    }
    buf_puts(out, "],");
}

void image_texts_write(const image_texts *t, buf *out) {
    if (t->count) write_each(t, out);
    if (t->prompt_template) field_write_string(out, "prompt_template", t->prompt_template);
    if (t->negative_template) field_write_string(out, "negative_template", t->negative_template);
    if (!t->embedding_count) return;
    buf_puts(out, "\"embeddings\":[");
    for (size_t i = 0; i < t->embedding_count; i++) {
        if (i) buf_putc(out, ',');
        json_quote(out, t->embeddings[i]);
    }
    buf_puts(out, "],");
}
