/* small_device.h - a ggml device for tests of what happens on an accelerator with little memory, on machines that have
 * none: its memory is its own (no other backend's tensors can be read), counted, and ends at a limit; the work is done
 * by ggml's CPU code. */
#ifndef MYSTI_TESTS_SMALL_DEVICE_H
#define MYSTI_TESTS_SMALL_DEVICE_H

#include <stddef.h>

#define SMALL_DEVICE "SMALL0"

typedef struct small_device {
    size_t limit;      /* bytes; allocations beyond it fail */
    size_t claimed;    /* what it says that it has; 0: the limit */
    size_t used, peak; /* bytes now, and at most since this was set to 0 */
} small_device;

/* Adds it to ggml's list, once; there is one in a program. Set its limit before it is used. */
small_device *small_device_register(void);

#endif
