/* text_out.h - from token pieces to the text a reader may see.
 *
 * Pieces are bytes: a character may be spread over several, and so may a stop string. What could still become either is
 * held back. Concatenated, what comes out is the pieces' text up to the first stop string; bytes that can't become a
 * character come out as U+FFFD. */
#ifndef MYSTI_LLM_TEXT_OUT_H
#define MYSTI_LLM_TEXT_OUT_H

#include "base/buf.h"

typedef struct text_out {
    buf held;     /* not shown yet */
    char **stops; /* owned */
    size_t stop_count;
} text_out;

/* Copies the stop strings; empty ones are ignored. */
void text_out_init(text_out *t, const char *const *stops, size_t count);
void text_out_free(text_out *t);

/* Takes a piece and appends to `shown` what can be shown now. True when a stop string was reached: nothing follows. */
bool text_out_push(text_out *t, const char *piece, size_t len, buf *shown);

/* The end came without a stop string: what was held back is shown, except for an unfinished character. */
void text_out_finish(text_out *t, buf *shown);

#endif
