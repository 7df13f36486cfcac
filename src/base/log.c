/* log.c - see log.h. One lock covers level, file and the write itself, so that lines never mix. */
#include "base/log.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/os.h"
#include "base/str.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8192 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static log_level threshold = LOG_INFO;
static FILE *file;
static char *file_path;
static long file_max;

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};

void log_set_level(log_level level) {
    pthread_mutex_lock(&lock);
    threshold = level;
    pthread_mutex_unlock(&lock);
}

static void close_locked(void) {
    if (file) fclose(file);
    free(file_path);
    file = NULL;
    file_path = NULL;
}

bool log_open_file(const char *path, long max_bytes, err *e) {
    FILE *f = os_open_append(path);
    if (!f) return err_sys(e, errno, "open log file '%s'", path);
    pthread_mutex_lock(&lock);
    close_locked();
    file = f;
    file_path = str_dup(path);
    file_max = max_bytes;
    pthread_mutex_unlock(&lock);
    return true;
}

void log_close_file(void) {
    pthread_mutex_lock(&lock);
    close_locked();
    pthread_mutex_unlock(&lock);
}

/* On failure logging goes on to stderr alone. */
static void rotate_if_large(void) {
    if (file_max <= 0 || ftell(file) < file_max) return;
    char *old = str_fmt("%s.1", file_path);
    fclose(file);
    remove(old); /* rename() does not replace on Windows */
    rename(file_path, old);
    free(old);
    file = os_open_append(file_path);
}

static void emit(const char *line, size_t len) {
    fwrite(line, 1, len, stderr);
    if (!file) return;
    fwrite(line, 1, len, file);
    fflush(file);
    rotate_if_large();
}

/* Writes `text` into `to` with control characters escaped; returns the length. */
static size_t escape(char *to, size_t cap, const char *text) {
    size_t n = 0;
    for (; *text && n + 5 < cap; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != 0x7F)
            to[n++] = (char)c;
        else
            n += (size_t)snprintf(to + n, cap - n, "\\x%02X", c);
    }
    return n;
}

static void write_line(log_level level, const char *component, const char *text) {
    char line[LINE_MAX_BYTES], time[13];
    clock_format_time(clock_wall_ms(), time);
    int n = snprintf(line, sizeof line, "[%s] [%s] [%s] ", time, level_names[level], component);
    if (n < 0) return;
    size_t len = (size_t)n + escape(line + n, sizeof line - (size_t)n - 1, text);
    line[len++] = '\n';
    pthread_mutex_lock(&lock);
    if (level >= threshold) emit(line, len);
    pthread_mutex_unlock(&lock);
}

void log_write(log_level level, const char *component, const char *fmt, ...) {
    char text[LINE_MAX_BYTES / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    write_line(level, component, text);
}

/* The level of a line in our own format, or -1. */
static int formatted_level(const char *line) {
    if (line[0] != '[' || strlen(line) < 18 || strncmp(line + 13, "] [", 3) != 0) return -1;
    for (int i = 0; i < 4; i++) {
        size_t n = strlen(level_names[i]);
        if (strncmp(line + 16, level_names[i], n) == 0 && line[16 + n] == ']') return i;
    }
    return -1;
}

void log_relay(const char *component, const char *line) {
    int level = formatted_level(line);
    if (level < 0) {
        write_line(LOG_INFO, component, line);
        return;
    }
    char copy[LINE_MAX_BYTES];
    size_t len = escape(copy, sizeof copy - 1, line);
    copy[len++] = '\n';
    pthread_mutex_lock(&lock);
    if ((log_level)level >= threshold) emit(copy, len);
    pthread_mutex_unlock(&lock);
}
