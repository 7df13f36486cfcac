/* clock.h - time. Monotonic for intervals, wall for what people and databases see. */
#ifndef MYSTI_BASE_CLOCK_H
#define MYSTI_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_mono_ns(void);
int64_t clock_mono_ms(void);
int64_t clock_wall_ms(void); /* Unix time */

/* Local time "HH:MM:SS.mmm" (13 bytes) / "YYYY-MM-DD HH:MM:SS" (20 bytes) / HTTP date in GMT (30 bytes). */
void clock_format_time(int64_t wall_ms, char out[13]);
void clock_format_date(int64_t wall_ms, char out[20]);
void clock_format_http(int64_t wall_ms, char out[30]);

#endif
