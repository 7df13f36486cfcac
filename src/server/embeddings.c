#include "server/embeddings.h"

#include "base/path.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool same_letters(const char *a, const char *b, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((a[i] | 0x20) != (b[i] | 0x20)) return false;
    return true;
}

/* A run of letters that begins and ends where one does in the text, or a digit, which is a token by itself. */
static bool has_run(const char *text, const char *run, size_t len) {
    const bool letters = is_letter(run[0]);
    const size_t all = strlen(text);
    for (size_t i = 0; i + len <= all; i++) {
        if (!same_letters(text + i, run, len)) continue;
        if (!letters || ((i == 0 || !is_letter(text[i - 1])) && !is_letter(text[i + len]))) return true;
    }
    return false;
}

/* Whether all words of the name stand in the text, in whatever order and whatever is between them: brackets of prompt
 * editing may be. */
static bool is_named(const char *text, const char *name) {
    for (size_t i = 0, len; name[i]; i += len) {
        len = 1;
        if (is_letter(name[i]))
            while (is_letter(name[i + len])) len++;
        else if (!is_digit(name[i]))
            continue;
        if (!has_run(text, name + i, len)) return false;
    }
    return true;
}

static bool is_named_in(const image_params *p, const char *name) {
    if (!p->texts.count) return is_named(p->prompt, name) || is_named(p->negative_prompt, name);
    for (size_t i = 0; i < p->texts.count; i++)
        if (is_named(p->texts.each[i].prompt, name) || is_named(p->texts.each[i].negative_prompt, name)) return true;
    return false;
}

bool embeddings_choose(const models *m, image_params *p, err *e) {
    image_texts_forget_embeddings(&p->texts);
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        if (!str_eq(entry->type, "embedding") || !entry->supported) continue;
        char *name = path_stem(entry->id);
        const bool named = is_named_in(p, name);
        free(name);
        if (!named) continue;
        if (p->texts.embedding_count == EMBEDDINGS_MAX)
            return err_set(e, ERR_INVALID, "prompt: it names more than %d embeddings", EMBEDDINGS_MAX);
        image_texts_add_embedding(&p->texts, entry->id);
    }
    return true;
}

static const model_entry *find(const models *m, const char *id) {
    for (size_t i = 0; i < models_count(m); i++)
        if (str_eq(models_at(m, i)->id, id)) return models_at(m, i);
    return NULL;
}

bool embeddings_write(const models *m, const image_params *p, buf *out, err *e) {
    buf_puts(out, "\"embeddings\":[");
    for (size_t i = 0; i < p->texts.embedding_count; i++) {
        const char *id = p->texts.embeddings[i];
        const model_entry *entry = find(m, id);
        if (!entry) return err_set(e, ERR_NOT_FOUND, "prompt: the embedding '%.80s' is gone from the model folder", id);
        char *name = path_stem(id);
        buf_puts(out, i ? ",{" : "{");
        json_write_member(out, "name", name);
        json_write_member(out, "path", entry->path);
        buf_putc(out, '}');
        free(name);
    }
    buf_putc(out, ']');
    return true;
}
