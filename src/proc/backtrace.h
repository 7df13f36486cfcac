/* backtrace.h - names for the frames in a worker's last words (worker/crash.h).
 *
 * The crash handler may only write where it was: "/opt/mysti_sd_worker(+0x31c7a)[0x55d0e3]". What stands there is
 * looked up afterwards, by another process that has all the time, in the program's own file: no outside tool is
 * needed, and static functions have names too. */
#ifndef MYSTI_PROC_BACKTRACE_H
#define MYSTI_PROC_BACKTRACE_H

#include "base/buf.h"

#include <stdint.h>

/* Appends a line for each frame behind the crash report in `lines`, the innermost first, beginning with the function
 * that crashed; nothing where there is no report. With what is known:
 *     run_euler+0x4c (sampler.c) [mysti_sd_worker+0x31c7a]
 *     llama_context::decode+0x1f [mysti_llm_worker+0x9f01]
 *     uv_run+0xfc [libuv.so.1]
 *     [libgomp.so.1+0x1d9a1]
 * A file that was changed after `started_ms` (wall time) is not the one that crashed: its frames get no names.
 * The lines are untrusted. Reads files: off the loop thread. */
void backtrace_name(const char *lines, int64_t started_ms, buf *out);

#endif
