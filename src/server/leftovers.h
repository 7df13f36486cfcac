/* leftovers.h - half-written files (NAME.tmp-PID, see file_write_atomic()) of processes that were killed. */
#ifndef MYSTI_SERVER_LEFTOVERS_H
#define MYSTI_SERVER_LEFTOVERS_H

#include "server/app.h"

/* At the start, before any worker runs: those of all processes. Waits for the disk. */
void leftovers_sweep_all(const app *a);

/* Those of the process `pid`, which has ended; on the disk thread, later. */
void leftovers_sweep_of(const app *a, int pid);

#endif
