/* amx_system.c - asks processor and Linux for AMX. Tiles are so large that Linux makes room for them only in processes
 * that ask (Documentation/arch/x86/xstate.rst); a thread that uses them in any other is killed. Of other systems
 * nothing is known here, so it is not used there. */
#include "diffusion/cpu/amx_system.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* CPUID 7, EDX; CPUID 1, ECX. */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, OSXSAVE = 1 << 27 };
/* XCR0: what the system saves. */
enum { TILE_CONFIG = 1 << 17, TILE_DATA = 1 << 18 };
/* asm/prctl.h; older ones lack it. */
enum { REQUEST_PERMISSION = 0x1023, OF_TILE_DATA = 18 };

bool amx_in_processor(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_TILE) && (d & AMX_BF16);
}

bool amx_request(err *e) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE))
        return err_set(e, ERR_UNSUPPORTED, "the system saves no vectors");
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!(low & TILE_CONFIG) || !(low & TILE_DATA))
        return err_set(e, ERR_UNSUPPORTED, "the system does not save tiles");
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, OF_TILE_DATA) != 0)
        return err_set(e, ERR_IO, "the system does not allow tiles: %s", strerror(errno));
    return true;
}

#else

bool amx_in_processor(void) {
    return false;
}

bool amx_request(err *e) {
    return err_set(e, ERR_UNSUPPORTED, "not known of this system");
}

#endif
