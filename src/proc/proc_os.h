/* proc_os.h - what differs by operating system below proc; proc_posix.c and proc_win.c implement it, together with
 * proc_port_owner(). Only proc.c includes this. */
#ifndef MYSTI_PROC_PROC_OS_H
#define MYSTI_PROC_PROC_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

unsigned proc_os_spawn_flags(void); /* for uv_process_options_t */

/* Right after the start: priority and, on Windows, the job object, which is returned as the handle (else NULL). */
void *proc_os_adopt(int pid, int nice);
void proc_os_release(void *handle);

/* Asks the process to end; false when this system has no way but closing its stdin. */
bool proc_os_ask_to_end(uv_process_t *process);

/* Ends the process and all that belong to it. */
void proc_os_kill_group(int pid, void *handle);

/* Reads what already waits in the pipe of a process that ended; returns the number of bytes, 0 when there is none. */
size_t proc_os_read_rest(uv_pipe_t *pipe, char *out, size_t cap);

/* How often the system has killed for lack of memory since it booted; 0 where that is not known. */
int64_t proc_os_oom_kills(void);

const char *proc_os_signal_name(int signal); /* "SIGKILL", or NULL */

#endif
