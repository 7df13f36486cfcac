/* os_win.c - base on Windows. */
#include "base/os.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <bcrypt.h>

#include <direct.h>
#include <errno.h>
#include <io.h>
#include <process.h>
#include <stdlib.h>
#include <string.h>

char *os_realpath(const char *path) {
    HANDLE h = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                           FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (h == INVALID_HANDLE_VALUE) {
        errno = GetLastError() == ERROR_ACCESS_DENIED ? EACCES : ENOENT;
        return NULL;
    }
    char out[4096];
    DWORD n = GetFinalPathNameByHandleA(h, out, sizeof out, FILE_NAME_NORMALIZED);
    CloseHandle(h);
    if (n == 0 || n >= sizeof out) {
        errno = ENOENT;
        return NULL;
    }
    for (char *p = out; *p; p++)
        if (*p == '\\') *p = '/';
    return str_dup(str_starts(out, "//?/") ? out + 4 : out);
}

int os_mkdir(const char *path) {
    return _mkdir(path);
}

char *os_program_path(void) {
    char path[4096];
    DWORD n = GetModuleFileNameA(NULL, path, sizeof path);
    return str_ndup(path, n);
}

char *os_user_data_dir(void) {
    const char *local = getenv("LOCALAPPDATA");
    return str_dup(str_empty(local) ? "." : local);
}

FILE *os_open_append(const char *path) {
    return fopen(path, "aN");
}

bool os_seek(FILE *f, uint64_t to) {
    return _fseeki64(f, (long long)to, SEEK_SET) == 0;
}

bool os_sync(FILE *f) {
    return _commit(_fileno(f)) == 0;
}

int os_replace(const char *from, const char *to) {
    if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return 0;
    errno = GetLastError() == ERROR_DISK_FULL ? ENOSPC : EACCES;
    return -1;
}

int cpu_count(void) {
    DWORD n = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    return n > 0 ? (int)n : 1;
}

int cpu_cores(void) {
    return cpu_count();
}

void memory_prefer_large_pages(void *p, size_t bytes) {
    (void)p, (void)bytes; /* only with a privilege that users do not have */
}

memory_info memory_status(void) {
    MEMORYSTATUSEX s = {.dwLength = sizeof s};
    if (!GlobalMemoryStatusEx(&s)) return (memory_info){0};
    return (memory_info){.total = s.ullTotalPhys, .available = s.ullAvailPhys};
}

int os_pid(void) {
    return _getpid();
}

bool file_map_open(file_map *m, const char *path, err *e) {
    *m = (file_map){0};
    HANDLE file = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) return err_sys(e, ENOENT, "open '%.150s'", path);
    LARGE_INTEGER size;
    bool ok = GetFileSizeEx(file, &size);
    if (ok && size.QuadPart > 0) {
        HANDLE map = CreateFileMappingA(file, NULL, PAGE_READONLY, 0, 0, NULL);
        m->data = map ? MapViewOfFile(map, FILE_MAP_READ, 0, 0, 0) : NULL;
        m->handle = map;
        m->size = (size_t)size.QuadPart;
        if (!m->data) {
            if (map) CloseHandle(map);
            *m = (file_map){0};
            ok = false;
        }
    }
    CloseHandle(file);
    return ok ? true : err_set(e, ERR_IO, "map '%.150s'", path);
}

void file_map_close(file_map *m) {
    if (m->data) UnmapViewOfFile(m->data);
    if (m->handle) CloseHandle(m->handle);
    *m = (file_map){0};
}

/* VirtualUnlock on unlocked pages removes them from the working set. */
void file_map_release(const file_map *m, size_t offset, size_t len) {
    if (!m->data || offset >= m->size) return;
    if (len > m->size - offset) len = m->size - offset;
    VirtualUnlock((void *)(uintptr_t)(m->data + offset), len);
}

void file_map_copy(const file_map *m, size_t offset, size_t len, void *to) {
    memcpy(to, m->data + offset, len);
}

bool file_list_dir(const char *path, bool (*fn)(void *ctx, const char *name), void *ctx, err *e) {
    char *pattern = str_fmt("%s\\*", path);
    WIN32_FIND_DATAA entry;
    HANDLE h = FindFirstFileA(pattern, &entry);
    free(pattern);
    if (h == INVALID_HANDLE_VALUE) return err_sys(e, ENOENT, "list '%.150s'", path);
    do {
        if (!str_eq(entry.cFileName, ".") && !str_eq(entry.cFileName, "..") && !fn(ctx, entry.cFileName)) break;
    } while (FindNextFileA(h, &entry));
    FindClose(h);
    return true;
}

int file_raise_limit(int wish) {
    return wish; /* handles are limited by memory only */
}

void file_random(void *out, size_t len) {
    if (BCryptGenRandom(NULL, out, (ULONG)len, BCRYPT_USE_SYSTEM_PREFERRED_RNG) != 0) abort();
}
