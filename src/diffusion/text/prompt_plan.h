/* prompt_plan.h - what a prompt says at each call of the network: AUTOMATIC1111's composition and prompt editing.
 *
 *   a AND b :0.5   two prompts with a weight each (1 where none is given), mixed by the network's answers
 *   [a:b:when]     a first, b after `when`;  [b:when] nothing, then b;  [a::when] a, then nothing
 *   [a|b|c]        in turn, another one at each call; an empty one is fine
 *
 * They nest, also with attention brackets. `when` with a point is a share of the calls ("0.5", "1.0"), else a number of
 * them. Calls count from 0, and `when` is the last one of the first text: [a:b:3] is "a" in four calls, as A1111 has
 * it. A backslash takes the meaning from the next character. Brackets that form none of this are ordinary text, and so
 * is a prompt as a whole where a '|' stands outside of square brackets or a backslash at the very end: A1111's grammar
 * knows no reading for these. Different from A1111: a number at the end is a weight only where the prompt has an AND,
 * so that "aspect ratio 16:9" stays what it is. */
#ifndef MYSTI_DIFFUSION_TEXT_PROMPT_PLAN_H
#define MYSTI_DIFFUSION_TEXT_PROMPT_PLAN_H

#include "base/err.h"

enum { PROMPT_PLAN_PARTS = 32 };

typedef struct plan_piece {
    int until; /* the last call that it serves */
    int text;  /* index into the plan's texts */
} plan_piece;

/* One side of an AND. */
typedef struct plan_part {
    float weight;
    plan_piece *pieces; /* owned; at least one; `until` rises, and the last one serves all calls that are left */
    int count;
} plan_part;

typedef struct prompt_plan {
    plan_part *parts; /* owned; at least one */
    int count;
    char **texts; /* owned, each once; for prompt_parse() */
    int text_count;
} prompt_plan;

typedef struct plan_span {
    int calls;    /* of the network, at least 1 */
    int before;   /* calls of a first pass: in a second one, numbers count on from there and shares from 1.0; else 0 */
    bool compose; /* AND splits; the negative prompt has none */
} plan_span;

/* ERR_TOO_LARGE: more than PROMPT_MAX_BYTES, too many parts or too deep brackets; ERR_INVALID: a weight out of range.
 * p is set on success only; free with prompt_plan_free(). */
bool prompt_plan_parse(prompt_plan *p, const char *text, const plan_span *span, err *e);
void prompt_plan_free(prompt_plan *p);

/* The piece that serves a call: its index. */
int plan_part_at(const plan_part *part, int call);

#endif
