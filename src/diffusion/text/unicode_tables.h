/* unicode_tables.h - what a tokenizer has to know of Unicode: which characters are letters and numbers, and their lower
 * case. Sorted by code point. */
#ifndef MYSTI_DIFFUSION_UNICODE_TABLES_H
#define MYSTI_DIFFUSION_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

typedef struct unicode_range {
    uint32_t first, last;
} unicode_range;

/* Every step-th character from first to last has its lower case `distance` further on. */
typedef struct unicode_lower_run {
    uint32_t first, last;
    int32_t step, distance;
} unicode_lower_run;

extern const unicode_range unicode_letters[]; /* general category L */
extern const size_t unicode_letters_count;
extern const unicode_range unicode_numbers[]; /* general category N */
extern const size_t unicode_numbers_count;
extern const unicode_lower_run unicode_lower[];
extern const size_t unicode_lower_count;

#endif
