/* log.h - "[HH:MM:SS.mmm] [LEVEL] [component] message" on stderr and, when asked, in a rotating file.
 *
 * One line per call, written whole, from any thread. Control characters in a message are written as \xNN, so that a
 * request cannot forge a line. */
#ifndef MYSTI_BASE_LOG_H
#define MYSTI_BASE_LOG_H

#include "base/err.h"

#include <stdarg.h>

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

/* Lines below `level` are dropped. Default: LOG_INFO. */
void log_set_level(log_level level);

/* Also appends to `path`; past `max_bytes` it becomes path.1 (one old file is kept). */
bool log_open_file(const char *path, long max_bytes, err *e);
void log_close_file(void);

void log_write(log_level level, const char *component, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Passes on a line that already has the format above (a worker's stderr) unchanged, or wraps any other text. */
void log_relay(const char *component, const char *line);

#define log_debug(component, ...) log_write(LOG_DEBUG, component, __VA_ARGS__)
#define log_info(component, ...) log_write(LOG_INFO, component, __VA_ARGS__)
#define log_warn(component, ...) log_write(LOG_WARN, component, __VA_ARGS__)
#define log_error(component, ...) log_write(LOG_ERROR, component, __VA_ARGS__)

#endif
