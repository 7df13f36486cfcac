/* err.h - one error type for every module.
 *
 * A function that can fail returns bool or NULL and takes an `err *` last. The message is written where the fact is
 * known and gains context on the way up: err_wrap() puts "load model 'x': " in front. `e` may be NULL. */
#ifndef MYSTI_BASE_ERR_H
#define MYSTI_BASE_ERR_H

#include <stdbool.h>

/* What kind of failure: decides the HTTP status, and whether trying again can help. */
typedef enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,     /* the caller's input is wrong */
    ERR_NOT_FOUND,   /* no such thing */
    ERR_CONFLICT,    /* not in this state */
    ERR_DENIED,      /* not allowed */
    ERR_FORMAT,      /* a file or message is malformed */
    ERR_UNSUPPORTED, /* well-formed, but not something we do */
    ERR_TOO_LARGE,   /* beyond a limit */
    ERR_MEMORY,      /* host or device memory does not suffice */
    ERR_DEVICE,      /* the compute backend failed */
    ERR_IO,          /* the operating system refused */
    ERR_BUSY,        /* try again later */
    ERR_CANCELLED,   /* asked to stop */
    ERR_TIMEOUT,
    ERR_CRASHED, /* the process doing it died */
    ERR_INTERNAL,
} err_code;

typedef struct err {
    int code; /* err_code */
    char msg[256];
} err;

/* Sets code and message (truncated to fit); always returns false, so that `return err_set(...)` reads well. */
bool err_set(err *e, err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the message; always returns false. */
bool err_wrap(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ERR_IO (or NOT_FOUND, DENIED, MEMORY by errno) with ": strerror(errno)" behind the message; always returns false. */
bool err_sys(err *e, int sys_errno, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Stable lower-case name for the code ("invalid", "not_found", ...), and back (ERR_INTERNAL when unknown). */
const char *err_name(int code);
err_code err_from_name(const char *name);

#endif
