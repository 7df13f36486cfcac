/* crash.h - last words: when the process is about to die of a signal, it says on stderr which, where, and at what work.
 * The state is global because a signal handler has no argument; it is written before a crash and read in it. */
#ifndef MYSTI_WORKER_CRASH_H
#define MYSTI_WORKER_CRASH_H

/* For SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT (Windows: unhandled exceptions). The process still dies of the same
 * signal afterwards. Call it on the first thread. Both names are borrowed for ever. */
void crash_install(const char *program, const char *component);

/* On each further thread of ours, at its start: gives the handler a stack of its own there, for stack overflows.
 * crash_thread_end() gives it back. */
void crash_thread_begin(void);
void crash_thread_end(void);

void crash_note_job(const char *id);     /* copied; "" for none */
void crash_note_model(const char *path); /* copied; "" for none */

#endif
