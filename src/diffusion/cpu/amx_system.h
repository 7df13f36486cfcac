/* amx_system.h - whether AMX may be used: the processor has it, and the system lets this process. */
#ifndef MYSTI_DIFFUSION_CPU_AMX_SYSTEM_H
#define MYSTI_DIFFUSION_CPU_AMX_SYSTEM_H

#include "base/err.h"

/* The processor multiplies tiles of bfloat16. */
bool amx_in_processor(void);

/* Asks the system for all threads of this process, those to come included. Fails where it does not keep tiles when it
 * changes threads, or refuses. Not before amx_in_processor(). */
bool amx_request(err *e);

#endif
