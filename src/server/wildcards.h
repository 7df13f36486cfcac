/* wildcards.h - prompts with choices in them, made into one prompt by a seed.
 *
 *   {a|b|c}            one of these; {2::a|b}: a twice as often as b; they nest
 *   {2$$a|b|c}         two different ones, with ", " between; {1-3$$...}: one to three; {2$$ and $$...}: " and "
 * between
 *   __name__           a line of name.txt in one of the folders; __sub/name__ likewise; {2$$__name__}: two lines
 *   \{ \} \__          the characters themselves
 *
 * A file's empty lines and those that begin with '#' say nothing; a line may begin with a weight ("2::") and hold all
 * of this again. What is A1111's stays: braces without '|' are text, and so is a '|' in square brackets within braces;
 * in a <lora:...> tag "__" is text. The same text, seed and files give the same prompt. */
#ifndef MYSTI_SERVER_WILDCARDS_H
#define MYSTI_SERVER_WILDCARDS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { WILDCARDS_DEPTH_MAX = 20, WILDCARDS_FOLDERS = 2 };

/* Owns the files that were read so far. One thread. */
typedef struct wildcards wildcards;

/* folders: searched in this order; copied; they need not exist. */
wildcards *wildcards_open(const char *const folders[WILDCARDS_FOLDERS]);
void wildcards_close(wildcards *w);

/* False: the text says nothing of the kind, and is its own result. */
bool wildcards_are_in(const char *text);

/* The prompt; freed with free(). NULL: ERR_INVALID that names an unknown wildcard (with the nearest one), or one that
 * holds itself; ERR_TOO_LARGE beyond `max` bytes; ERR_FORMAT for a file that is no text. */
char *wildcards_resolve(wildcards *w, const char *text, uint64_t seed, size_t max, err *e);

#endif
