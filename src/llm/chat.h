/* chat.h - messages to prompt text, by the model's chat template.
 *
 * libllama knows the common templates by their patterns and has no template interpreter; a model whose template it does
 * not know, or that has none, gets ChatML. */
#ifndef MYSTI_LLM_CHAT_H
#define MYSTI_LLM_CHAT_H

#include "llm/engine.h"

/* The template to use for a model whose metadata says `own` (may be NULL): `own` itself or the name of ChatML. */
const char *chat_template_choose(const char *own);

/* The prompt text up to where the assistant speaks; freed with free(). ERR_INVALID for an unknown role, no message, or
 * text that is not UTF-8; ERR_TOO_LARGE. */
char *chat_render(const char *chat_template, const llm_message *messages, size_t count, err *e);

#endif
