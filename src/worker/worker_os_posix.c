/* worker_os_posix.c - see worker_os.h. */
#include "worker/worker_os.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

bool worker_os_tie_to_parent(int pid) {
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    /* Only now: a parent that dies behind this line sends the signal, one that died before shows here. */
    return pid == 0 || getppid() == (pid_t)pid;
}

void worker_os_lower_priority(int nice) {
#ifdef __linux__
    setpriority(PRIO_PROCESS, 0, nice); /* on Linux: this thread, and threads inherit it */
#else
    (void)nice; /* elsewhere it would slow the loop thread down as well */
#endif
}

void worker_os_wipe_env(const char *name) {
    char *value = getenv(name);
    if (value) memset(value, 0, strlen(value)); /* the original block, which /proc shows */
    unsetenv(name);
}
