/* cpu.h - the machine's processors. */
#ifndef MYSTI_BASE_CPU_H
#define MYSTI_BASE_CPU_H

/* How many this process may run on; at least 1. A container's share of processor time counts. */
int cpu_count(void);

/* The same in cores: two hardware threads of one core count once, because they share what computing needs. */
int cpu_cores(void);

#endif
