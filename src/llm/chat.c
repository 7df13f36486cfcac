/* chat.c - see chat.h. */
#include "llm/chat.h"
#include "base/str.h"

#include <llama.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 20 };

const char *chat_template_choose(const char *own) {
    struct llama_chat_message probe = {.role = "user", .content = "x"};
    if (own && llama_chat_apply_template(own, &probe, 1, true, NULL, 0) > 0) return own;
    return "chatml";
}

/* libllama's name for a role, or NULL. */
static const char *known_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant"};
    if (str_eq(role, "developer")) return "system";
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (str_eq(role, roles[i])) return roles[i];
    return NULL;
}

static bool convert(const llm_message *in, size_t count, struct llama_chat_message *out, size_t *total, err *e) {
    *total = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct llama_chat_message){.role = known_role(in[i].role), .content = in[i].content};
        if (!out[i].role)
            return err_set(e, ERR_INVALID, "messages[%zu].role: '%.40s' is not system, user or assistant", i,
                           in[i].role ? in[i].role : "");
        if (!out[i].content) return err_set(e, ERR_INVALID, "messages[%zu].content: required", i);
        size_t len = strlen(out[i].content);
        if (!str_is_utf8(out[i].content, len))
            return err_set(e, ERR_INVALID, "messages[%zu].content: not valid UTF-8", i);
        *total += len + 64;
        if (*total > TEXT_MAX) return err_set(e, ERR_TOO_LARGE, "messages: more than %d MB of text", TEXT_MAX >> 20);
    }
    return true;
}

static char *apply(const char *chat_template, const struct llama_chat_message *list, size_t count, size_t guess,
                   err *e) {
    char *text = mem_alloc(guess + 1, 1);
    int32_t need = llama_chat_apply_template(chat_template, list, count, true, text, (int32_t)guess);
    if (need > 0 && (size_t)need > guess) {
        text = mem_resize(text, (size_t)need + 1);
        need = llama_chat_apply_template(chat_template, list, count, true, text, need);
    }
    if (need < 0) {
        err_set(e, ERR_UNSUPPORTED, "the model's chat template can't render these messages");
        free(text);
        return NULL;
    }
    text[need] = 0;
    return text;
}

char *chat_render(const char *chat_template, const llm_message *messages, size_t count, err *e) {
    if (!count) {
        err_set(e, ERR_INVALID, "messages: at least one is required");
        return NULL;
    }
    struct llama_chat_message *list = mem_alloc(count, sizeof *list);
    size_t total;
    char *text = convert(messages, count, list, &total, e) ? apply(chat_template, list, count, 2 * total, e) : NULL;
    free(list);
    return text;
}
