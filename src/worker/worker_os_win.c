/* worker_os_win.c - see worker_os.h. The parent's job object ends this process with it. */
#include "worker/worker_os.h"

#include <windows.h>

bool worker_os_tie_to_parent(int pid) {
    (void)pid;
    return true;
}

void worker_os_lower_priority(int nice) {
    if (nice > 0) SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_BELOW_NORMAL);
}

void worker_os_wipe_env(const char *name) {
    SetEnvironmentVariableA(name, NULL);
}
