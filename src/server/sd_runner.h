/* sd_runner.h - the job queue's runner over the real image worker. Loop thread only. */
#ifndef MYSTI_SERVER_SD_RUNNER_H
#define MYSTI_SERVER_SD_RUNNER_H

#include "server/app.h"
#include "server/jobs.h"

typedef struct sd_runner sd_runner;

sd_runner *sd_runner_new(app *a);
void sd_runner_free(sd_runner *r);

/* For jobs_config. */
job_runner sd_runner_interface(sd_runner *r);

/* From workers_listener: the process is gone. */
void sd_runner_worker_died(sd_runner *r, const char *cause);

#endif
