/* proc_win.c - children on Windows. A job object stands for the group: it ends with its last handle, so the child
 * cannot outlive this process, however that one ends. */
#include "proc/proc_os.h"
#include "proc/proc.h"

#include <winsock2.h>
#include <windows.h>
#include <iphlpapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unsigned proc_os_spawn_flags(void) {
    return UV_PROCESS_WINDOWS_HIDE;
}

void *proc_os_adopt(int pid, int nice) {
    HANDLE process = OpenProcess(PROCESS_SET_QUOTA | PROCESS_TERMINATE | PROCESS_SET_INFORMATION, FALSE, (DWORD)pid);
    if (!process) return NULL;
    if (nice > 0) SetPriorityClass(process, nice >= 10 ? IDLE_PRIORITY_CLASS : BELOW_NORMAL_PRIORITY_CLASS);
    HANDLE job = CreateJobObjectW(NULL, NULL);
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    if (job && (!SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits) ||
                !AssignProcessToJobObject(job, process))) {
        CloseHandle(job);
        job = NULL;
    }
    CloseHandle(process);
    return job;
}

void proc_os_release(void *handle) {
    if (handle) CloseHandle(handle);
}

bool proc_os_ask_to_end(uv_process_t *process) {
    (void)process;
    return false;
}

void proc_os_kill_group(int pid, void *handle) {
    if (handle)
        TerminateJobObject(handle, 1);
    else
        uv_kill(pid, SIGKILL);
}

/* The loop delivers the rest itself, behind the exit: a read is always under way, and cannot be overtaken. */
size_t proc_os_read_rest(uv_pipe_t *pipe, char *out, size_t cap) {
    (void)pipe;
    (void)out;
    (void)cap;
    return 0;
}

int64_t proc_os_oom_kills(void) {
    return 0;
}

const char *proc_os_signal_name(int signal) {
    (void)signal;
    return NULL;
}

static DWORD listening_pid(int port) {
    DWORD size = 0, pid = 0;
    GetExtendedTcpTable(NULL, &size, FALSE, AF_INET, TCP_TABLE_OWNER_PID_LISTENER, 0);
    MIB_TCPTABLE_OWNER_PID *table = malloc(size);
    if (table && GetExtendedTcpTable(table, &size, FALSE, AF_INET, TCP_TABLE_OWNER_PID_LISTENER, 0) == NO_ERROR)
        for (DWORD i = 0; i < table->dwNumEntries && !pid; i++)
            if (ntohs((u_short)table->table[i].dwLocalPort) == port) pid = table->table[i].dwOwningPid;
    free(table);
    return pid;
}

bool proc_port_owner(int port, char *out, size_t cap) {
    DWORD pid = listening_pid(port);
    if (!pid) return false;
    char path[MAX_PATH] = "a process";
    DWORD len = sizeof path;
    HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid);
    if (process) {
        QueryFullProcessImageNameA(process, 0, path, &len);
        CloseHandle(process);
    }
    const char *name = strrchr(path, '\\');
    snprintf(out, cap, "%s (pid %lu)", name ? name + 1 : path, pid);
    return true;
}
