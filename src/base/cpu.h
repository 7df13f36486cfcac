/* cpu.h - the machine's processors. */
#ifndef MYSTI_BASE_CPU_H
#define MYSTI_BASE_CPU_H

/* How many this process may run on; at least 1. */
int cpu_count(void);

#endif
