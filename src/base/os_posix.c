/* os_posix.c - base on Linux and macOS. */
#include "base/os.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

char *os_realpath(const char *path) {
    return realpath(path, NULL);
}

int os_mkdir(const char *path) {
    return mkdir(path, 0755);
}

char *os_program_path(void) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    return n > 0 ? str_ndup(path, (size_t)n) : str_dup("./unknown");
}

char *os_user_data_dir(void) {
    const char *xdg = getenv("XDG_DATA_HOME");
    if (!str_empty(xdg)) return str_dup(xdg);
    const char *home = getenv("HOME");
    return str_fmt("%s/.local/share", str_empty(home) ? "." : home);
}

FILE *os_open_append(const char *path) {
    return fopen(path, "ae");
}

bool os_seek(FILE *f, uint64_t to) {
    return fseeko(f, (off_t)to, SEEK_SET) == 0;
}

bool os_sync(FILE *f) {
    return fsync(fileno(f)) == 0;
}

int os_replace(const char *from, const char *to) {
    return rename(from, to);
}

#ifdef __linux__
/* A container may have more processors than time on them: "quota period" in microseconds, or "max period". */
static int within_quota(int count) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return count;
    long quota = 0, period = 0;
    bool limited = fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0;
    fclose(f);
    long share = limited ? (quota + period - 1) / period : count;
    return share < count ? (int)share : count;
}

/* The first hardware thread of the core that `cpu` belongs to; itself where the system does not say. */
static int core_of(int cpu) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    int first = cpu;
    if (f && fscanf(f, "%d", &first) != 1) first = cpu;
    if (f) fclose(f);
    return first >= 0 && first < CPU_SETSIZE ? first : cpu;
}

int cpu_count(void) {
    cpu_set_t set; /* a container or taskset may allow fewer than there are */
    if (sched_getaffinity(0, sizeof set, &set) == 0) return within_quota(CPU_COUNT(&set));
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int cpu_cores(void) {
    cpu_set_t set, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return cpu_count();
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) CPU_SET((size_t)core_of((int)i), &cores);
    return within_quota(CPU_COUNT(&cores));
}
#else
int cpu_count(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int cpu_cores(void) {
    return cpu_count();
}
#endif

/* The number behind `key` in a file of "key number" lines; the file's first number for an empty key. 0: not there. */
static uint64_t number_in(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    char line[256];
    uint64_t n = 0;
    size_t len = strlen(key);
    while (n == 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, len) == 0) n = strtoull(line + len, NULL, 10); /* 0 for "max" */
    }
    fclose(f);
    return n;
}

void memory_prefer_large_pages(void *p, size_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGE_SIZE), start = ((uintptr_t)p + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)p + bytes) / page * page;
    if (end > start) madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
}

memory_info memory_status(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    memory_info m = {.total = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0};
    m.available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    if (m.available == 0) m.available = m.total;
    /* A container's own limit (cgroup 2); its file cache can be dropped. */
    uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "");
    if (limit == 0 || limit >= m.total) return m;
    uint64_t used = number_in("/sys/fs/cgroup/memory.stat", "anon ");
    uint64_t left = used < limit ? limit - used : 0;
    m.total = limit;
    if (left < m.available) m.available = left;
    return m;
}

int os_pid(void) {
    return (int)getpid();
}

bool file_map_open(file_map *m, const char *path, err *e) {
    *m = (file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_sys(e, errno, "open '%.150s'", path);
    struct stat st;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!ok) err_set(e, ERR_FORMAT, "'%.150s' is not a file", path);
    if (ok && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            ok = err_sys(e, errno, "map '%.150s'", path);
        } else {
            m->data = p;
            m->size = (size_t)st.st_size;
            m->handle = (void *)((intptr_t)fd + 1);
        }
    }
    if (!m->handle) close(fd);
    return ok;
}

/* A mapping's handle is one more than its file's descriptor, so that none is NULL. */
static int descriptor_of(const file_map *m) {
    return (int)((intptr_t)m->handle - 1);
}

void file_map_close(file_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    if (m->handle) close(descriptor_of(m));
    *m = (file_map){0};
}

void file_map_release(const file_map *m, size_t offset, size_t len) {
    if (!m->data || offset >= m->size) return;
    if (len > m->size - offset) len = m->size - offset;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = (offset + page - 1) / page * page; /* only pages that lie wholly inside */
    size_t to = (offset + len) / page * page;
    if (to > from) madvise((void *)(uintptr_t)(m->data + from), to - from, MADV_DONTNEED);
}

void file_map_copy(const file_map *m, size_t offset, size_t len, void *to) {
    char *at = to;
    while (len > 0) {
        const ssize_t n = pread(descriptor_of(m), at, len, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        at += n, offset += (size_t)n, len -= (size_t)n;
    }
    memcpy(at, m->data + offset, len); /* the rest of a file that cannot be read so */
}

bool file_list_dir(const char *path, bool (*fn)(void *ctx, const char *name), void *ctx, err *e) {
    DIR *dir = opendir(path);
    if (!dir) return err_sys(e, errno, "list '%.150s'", path);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, "..") && !fn(ctx, entry->d_name)) break;
    closedir(dir);
    return true;
}

int file_raise_limit(int wish) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256; /* what POSIX systems have at least by default */
    rlim_t want = (rlim_t)wish < limit.rlim_max ? (rlim_t)wish : limit.rlim_max;
    if (limit.rlim_cur < want) {
        struct rlimit raised = {.rlim_cur = want, .rlim_max = limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
    }
    return limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
}

void file_random(void *out, size_t len) {
    unsigned char *at = out;
    for (size_t n; len; at += n, len -= n) {
        n = len < 256 ? len : 256; /* getentropy gives no more at once */
        if (getentropy(at, n) != 0) abort();
    }
}
