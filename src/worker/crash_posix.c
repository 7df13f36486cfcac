/* crash_posix.c - see crash.h. Only async-signal-safe calls inside the handler: write(), backtrace_symbols_fd() (its
 * library is loaded beforehand), sigaction(), raise(). */
#include "worker/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 64, STACK_BYTES = 64 * 1024 };

static const char *program = "worker", *component = "worker";
static long utc_offset_s; /* of local time, found beforehand */
static char job[64], model[512];
static _Atomic int crashing; /* the first thread to crash reports */
static _Thread_local void *handler_stack;

static const struct {
    int number;
    const char *name;
} signals[] = {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"}, {SIGABRT, "SIGABRT"}};

/* A line in the making, without the C library's streams. */
typedef struct line {
    char text[1024];
    size_t len;
} line;

static void put(line *l, const char *s) {
    for (; *s && l->len + 1 < sizeof l->text; s++) l->text[l->len++] = *s;
}

static void put_number(line *l, uintptr_t value, unsigned base) {
    char digits[24];
    size_t n = sizeof digits - 1;
    digits[n] = 0;
    do digits[--n] = "0123456789abcdef"[value % base];
    while ((value /= base) && n > 0);
    put(l, digits + n);
}

/* At least `width` decimal digits. */
static void put_padded(line *l, unsigned value, unsigned width) {
    for (unsigned limit = 10; width > 1; width--, limit *= 10)
        if (value < limit) put(l, "0");
    put_number(l, value, 10);
}

/* "[12:00:01.002] [ERROR] [sd] ", as log.h writes it: the server takes the line for what it is. */
static void put_log_head(line *l) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned s = (unsigned)((now.tv_sec + utc_offset_s) % 86400);
    put(l, "[");
    put_padded(l, s / 3600, 2);
    put(l, ":");
    put_padded(l, s / 60 % 60, 2);
    put(l, ":");
    put_padded(l, s % 60, 2);
    put(l, ".");
    put_padded(l, (unsigned)(now.tv_nsec / 1000000), 3);
    put(l, "] [ERROR] [");
    put(l, component);
    put(l, "] ");
}

static void write_line(line *l) {
    l->text[l->len++] = '\n';
    ssize_t n = write(STDERR_FILENO, l->text, l->len);
    (void)n; /* nobody is left to tell */
}

static void report(int number, const siginfo_t *info) {
    line l = {.len = 0};
    put_log_head(&l);
    put(&l, program);
    put(&l, " crashed: signal ");
    put_number(&l, (uintptr_t)number, 10);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        if (signals[i].number != number) continue;
        put(&l, " (");
        put(&l, signals[i].name);
        put(&l, ")");
    }
    if (info->si_code <= 0 && number != SIGABRT) {
        put(&l, " sent by process ");
        put_number(&l, (uintptr_t)info->si_pid, 10);
    } else if (number != SIGABRT) {
        put(&l, " at address 0x");
        put_number(&l, (uintptr_t)info->si_addr, 16);
    }
    put(&l, ", job ");
    put(&l, job[0] ? job : "none");
    put(&l, ", model ");
    put(&l, model[0] ? model : "none");
    write_line(&l);
}

static void on_crash(int number, siginfo_t *info, void *context) {
    (void)context;
    if (atomic_exchange(&crashing, 1) == 0) {
        report(number, info);
        void *frames[FRAMES];
        backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
    }
    struct sigaction plain;
    memset(&plain, 0, sizeof plain);
    plain.sa_handler = SIG_DFL;
    sigaction(number, &plain, NULL);
    raise(number); /* it is not blocked here (SA_NODEFER): the process ends now */
}

void crash_thread_begin(void) {
    stack_t stack = {.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};
    if (!stack.ss_sp) return;
    handler_stack = stack.ss_sp;
    sigaltstack(&stack, NULL);
}

void crash_thread_end(void) {
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    free(handler_stack);
    handler_stack = NULL;
}

void crash_install(const char *program_name, const char *component_name) {
    program = program_name;
    component = component_name;
    time_t now = time(NULL);
    struct tm local;
    utc_offset_s = localtime_r(&now, &local) ? local.tm_gmtoff : 0;
    void *frames[2];
    backtrace(frames, 2); /* loads what it needs, while loading is allowed */
    crash_thread_begin();
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) sigaction(signals[i].number, &action, NULL);
}

/* A crash in the middle of the copy would report a mixture: better than a lock that a crash could meet held. */
static void note(char *to, size_t cap, const char *text) {
    size_t n = strlen(text);
    if (n >= cap) n = cap - 1;
    memcpy(to, text, n);
    to[n] = 0;
}

void crash_note_job(const char *id) {
    note(job, sizeof job, id);
}

void crash_note_model(const char *path) {
    note(model, sizeof model, path);
}
