/* clock.c - see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_mono_ns(void) {
    return read_ns(CLOCK_MONOTONIC);
}
int64_t clock_mono_ms(void) {
    return clock_mono_ns() / 1000000;
}
int64_t clock_wall_ms(void) {
    return read_ns(CLOCK_REALTIME) / 1000000;
}

static struct tm split(int64_t wall_ms, int utc) {
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    memset(&tm, 0, sizeof tm);
#ifdef _WIN32
    if (utc)
        gmtime_s(&tm, &s);
    else
        localtime_s(&tm, &s);
#else
    if (utc)
        gmtime_r(&s, &tm);
    else
        localtime_r(&s, &tm);
#endif
    return tm;
}

void clock_format_time(int64_t wall_ms, char out[13]) {
    struct tm tm = split(wall_ms, 0);
    strftime(out, 13, "%H:%M:%S", &tm);
    snprintf(out + 8, 5, ".%03u", (unsigned)(wall_ms % 1000) % 1000u);
}

void clock_format_date(int64_t wall_ms, char out[20]) {
    struct tm tm = split(wall_ms, 0);
    strftime(out, 20, "%Y-%m-%d %H:%M:%S", &tm);
}

/* Not strftime("%a, %d %b"): those names follow the locale, HTTP's don't (RFC 9110, 5.6.7). */
void clock_format_http(int64_t wall_ms, char out[30]) {
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm = split(wall_ms, 1);
    char clock[16];
    strftime(clock, sizeof clock, "%Y %H:%M:%S", &tm);
    snprintf(out, 30, "%.3s, %02u %.3s %s GMT", days[tm.tm_wday % 7], (unsigned)tm.tm_mday % 100u,
             months[tm.tm_mon % 12], clock);
}
