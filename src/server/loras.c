#include "server/loras.h"

#include "base/path.h"
#include "base/str.h"
#include "diffusion/text/lora_tag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- finding by name --------------------------------------------------------------------------------------------- */

static bool is_lora(const model_entry *e) {
    return str_eq(e->type, "lora");
}

static bool fits_id(const model_entry *e, const char *name) {
    return str_eq(e->id, name);
}

/* The length of `name` without its ending. */
static size_t without_ending(const char *name) {
    return strlen(name) - strlen(path_ext(name));
}

static bool equals_start(const char *text, size_t len, const char *name) {
    return strlen(name) == len && strncmp(text, name, len) == 0;
}

static bool fits_whole_stem(const model_entry *e, const char *name) {
    return equals_start(e->id, without_ending(e->id), name);
}

static bool fits_file(const model_entry *e, const char *name) {
    const char *file = path_base(e->id);
    return str_eq(file, name) || equals_start(file, without_ending(file), name);
}

static bool fits_alias(const model_entry *e, const char *name) {
    return str_eq(e->alias, name);
}

typedef bool (*fits_fn)(const model_entry *e, const char *name);

/* "... 'a/x.safetensors', 'b/x.safetensors'" */
static bool is_ambiguous(const models *m, const char *field, const char *name, fits_fn fits, err *e) {
    char all[160] = "";
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        const size_t len = strlen(all);
        if (is_lora(entry) && fits(entry, name))
            snprintf(all + len, sizeof all - len, "%s'%.60s'", len ? ", " : "", entry->id);
    }
    return err_set(e, ERR_INVALID, "%s: LoRA '%.60s' may be %s", field, name, all);
}

/* Up to three names that are near. */
static bool is_unknown(const models *m, const char *field, const char *name, err *e) {
    enum { NEAR = 3 };
    const char **names = mem_alloc(2 * models_count(m) + 1, sizeof *names);
    char **stems = mem_alloc(models_count(m) + 1, sizeof *stems), near[120] = "";
    size_t count = 0, stem_count = 0;
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        if (!is_lora(entry)) continue;
        names[count++] = stems[stem_count++] = path_stem(entry->id);
        if (entry->alias) names[count++] = entry->alias;
    }
    const bool any = count > 0;
    for (int n = 0; n < NEAR; n++) {
        const char *one = str_nearest(name, names, count);
        if (!one) break;
        const size_t len = strlen(near);
        snprintf(near + len, sizeof near - len, "%s'%.30s'", len ? ", " : "", one);
        for (size_t i = 0; i < count; i++) /* out of the list: the next call gives the next nearest */
            while (i < count && str_eq(names[i], one)) names[i] = names[--count];
    }
    for (size_t i = 0; i < stem_count; i++) free(stems[i]);
    free(stems);
    free(names);
    if (near[0]) return err_set(e, ERR_INVALID, "%s: there is no LoRA '%.60s'; did you mean %s?", field, name, near);
    return err_set(e, ERR_INVALID, "%s: there is no LoRA '%.60s'%s", field, name,
                   any ? "; GET /v1/loras lists them" : ", nor any other in the model folder");
}

static const model_entry *find(const models *m, const char *field, const char *name, bool *unknown, err *e) {
    static const fits_fn ways[] = {fits_id, fits_whole_stem, fits_file, fits_alias};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        const model_entry *found = NULL;
        for (size_t i = 0; i < models_count(m); i++) {
            const model_entry *entry = models_at(m, i);
            if (!is_lora(entry) || !ways[w](entry, name)) continue;
            if (found) {
                is_ambiguous(m, field, name, ways[w], e);
                return NULL;
            }
            found = entry;
        }
        if (found && found->supported) return found;
        if (found) {
            err_set(e, ERR_UNSUPPORTED, "%s: '%.60s': %s", field, found->id,
                    found->reason ? found->reason : "unsupported");
            return NULL;
        }
    }
    *unknown = true;
    is_unknown(m, field, name, e);
    return NULL;
}

/* --- all of a request -------------------------------------------------------------------------------------------- */

typedef bool (*lora_fn)(void *ctx, const model_entry *m, const lora_tag *asked, bool is_in_prompt);

/* What a request asks for with one of its prompts. */
typedef struct asking {
    const models *m;
    const image_params *p;
    const char *prompt;
} asking;

/* The prompt's, then the list's. */
static bool each(const asking *a, lora_fn fn, void *ctx, bool *unknown, err *e) {
    const models *m = a->m;
    const image_params *p = a->p;
    lora_tag tags[LORA_TAGS_MAX];
    size_t count;
    if (!lora_tags_read(a->prompt, tags, &count, e)) return false;
    if (count + p->lora_count > LORA_TAGS_MAX)
        return err_set(e, ERR_INVALID, "loras: with those of the prompt more than %d", LORA_TAGS_MAX);
    for (size_t i = 0; i < count; i++) {
        const model_entry *found = find(m, "prompt", tags[i].name, unknown, e);
        if (!found || !fn(ctx, found, &tags[i], true)) return false;
    }
    for (size_t i = 0; i < p->lora_count; i++) {
        const image_lora *l = &p->loras[i];
        char field[32];
        lora_tag asked = {.te = l->te_weight, .unet = l->weight};
        snprintf(field, sizeof field, "loras[%zu].name", i);
        str_copy(asked.name, sizeof asked.name, l->name);
        const model_entry *found = find(m, field, l->name, unknown, e);
        if (!found || !fn(ctx, found, &asked, false)) return false;
    }
    return true;
}

static bool take_any(void *ctx, const model_entry *m, const lora_tag *asked, bool is_in_prompt) {
    (void)ctx, (void)m, (void)asked, (void)is_in_prompt;
    return true;
}

bool loras_check(const models *m, const image_params *p, bool *unknown, err *e) {
    const asking a = {m, p, p->prompt};
    *unknown = false;
    if (!p->texts.count) return each(&a, take_any, NULL, unknown, e);
    for (size_t i = 0; i < p->texts.count; i++)
        if (!each(&(asking){m, p, p->texts.each[i].prompt}, take_any, NULL, unknown, e)) return false;
    return true;
}

static bool write_one(void *ctx, const model_entry *m, const lora_tag *asked, bool is_in_prompt) {
    buf *out = ctx;
    char *name = path_stem(m->id);
    if (out->data[out->len - 1] != '[') buf_putc(out, ',');
    buf_puts(out, "{\"name\":");
    json_quote(out, is_in_prompt ? asked->name : name);
    json_write_member(out, "path", m->path);
    buf_printf(out, ",\"unet\":%.9g,\"te\":%.9g,\"in_prompt\":%s}", asked->unet, asked->te,
               is_in_prompt ? "true" : "false");
    free(name);
    return true;
}

bool loras_write(const models *m, const image_params *p, const char *prompt, buf *out, err *e) {
    const asking a = {m, p, prompt};
    bool unknown;
    buf_puts(out, "\"loras\":[");
    const bool ok = each(&a, write_one, out, &unknown, e);
    buf_putc(out, ']');
    return ok;
}
