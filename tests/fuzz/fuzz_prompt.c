/* Prompts: planned for some calls of the network, then each text cut into chunks of tokens. */
#include "diffusion/text/prompt.h"
#include "diffusion/text/prompt_plan.h"
#include "diffusion/text/tok_clip.h"
#include "base/str.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAT = 2368, VECTORS = 40 };

/* "cat" stands for so many vectors that two of them do not fit into a chunk; they stay together. */
static void check_text(const char *text) {
    int32_t name[] = {CAT};
    const prompt_word word = {.tokens = name, .count = 1, .first = 0, .vectors = VECTORS};
    prompt p;
    err e = {0};
    if (!prompt_parse(&p, text, &(prompt_words){&word, 1}, &e)) {
        if (!e.msg[0]) abort();
        return;
    }
    for (int i = 0; i < p.chunks * PROMPT_CHUNK; i++) {
        const int learned = p.tokens[i] - PROMPT_LEARNED, before = i ? p.tokens[i - 1] - PROMPT_LEARNED : 0;
        const bool together = learned > 0 ? before == learned - 1 : before < 0 || before == VECTORS - 1 || i == 0;
        const bool ok = p.tokens[i] >= 0 && learned < VECTORS && together && isfinite(p.weights[i]);
        if (!ok || (i % PROMPT_CHUNK == 0 && p.tokens[i] != TOK_CLIP_BOS)) abort();
    }
    prompt_free(&p);
}

static void check_part(const prompt_plan *p, const plan_part *part, int calls) {
    int before = 0;
    if (!isfinite(part->weight) || part->count < 1) abort();
    for (int i = 0; i < part->count; i++) {
        if (part->pieces[i].until <= before || part->pieces[i].text >= p->text_count) abort();
        before = part->pieces[i].until;
    }
    if (before != calls || plan_part_at(part, calls) != part->count - 1 || plan_part_at(part, 0) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    prompt_plan p;
    err e = {0};
    const plan_span span = {.calls = 1 + data[0] % 20, .before = data[1] % 3 * 5, .compose = data[1] % 2};
    char *text = str_ndup((const char *)data + 2, size - 2);
    if (prompt_plan_parse(&p, text, &span, &e)) {
        for (int i = 0; i < p.count; i++) check_part(&p, &p.parts[i], span.calls);
        for (int i = 0; i < p.text_count && i < 4; i++) check_text(p.texts[i]);
        prompt_plan_free(&p);
    } else if (!e.msg[0]) {
        abort();
    }
    free(text);
    return 0;
}
