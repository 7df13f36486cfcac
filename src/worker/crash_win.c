/* crash_win.c - see crash.h. */
#include "worker/crash.h"

#include <windows.h>
#include <stdio.h>
#include <string.h>

static const char *program = "worker", *component = "worker";
static char job[64], model[512];

static LONG WINAPI on_exception(EXCEPTION_POINTERS *p) {
    void *frames[62];
    SYSTEMTIME t;
    GetLocalTime(&t);
    fprintf(stderr, "[%02u:%02u:%02u.%03u] [ERROR] [%s] %s crashed: exception 0x%08lX at %p, job %s, model %s\n",
            t.wHour, t.wMinute, t.wSecond, t.wMilliseconds, component, program, p->ExceptionRecord->ExceptionCode,
            p->ExceptionRecord->ExceptionAddress, job[0] ? job : "none", model[0] ? model : "none");
    USHORT n = CaptureStackBackTrace(0, 62, frames, NULL);
    for (USHORT i = 0; i < n; i++) fprintf(stderr, "  %p\n", frames[i]);
    fflush(stderr);
    return EXCEPTION_CONTINUE_SEARCH;
}

void crash_install(const char *program_name, const char *component_name) {
    program = program_name;
    component = component_name;
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX); /* no dialog that waits for somebody */
    SetUnhandledExceptionFilter(on_exception);
}

void crash_thread_begin(void) {
    ULONG bytes = 32 * 1024; /* left over for the handler after a stack overflow */
    SetThreadStackGuarantee(&bytes);
}

void crash_thread_end(void) {}

void crash_note_job(const char *id) {
    snprintf(job, sizeof job, "%s", id);
}

void crash_note_model(const char *path) {
    snprintf(model, sizeof model, "%s", path);
}
