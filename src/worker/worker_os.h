/* worker_os.h - what differs by operating system in a worker, beside crash.h. */
#ifndef MYSTI_WORKER_WORKER_OS_H
#define MYSTI_WORKER_WORKER_OS_H

#include <stdbool.h>

/* Asks the system to kill this process when its parent dies. False when the parent (`pid`, 0 if it did not say) is
 * dead already: it may have died between the start of this process and the request. */
bool worker_os_tie_to_parent(int pid);

/* Lowers the priority of the calling thread and of those it will start. */
void worker_os_lower_priority(int nice);

/* Overwrites an environment variable's value where other programs could read it, and removes it. */
void worker_os_wipe_env(const char *name);

#endif
