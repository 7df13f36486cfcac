/* job_list.h - jobs in an order; it owns them. */
#ifndef MYSTI_SERVER_JOB_LIST_H
#define MYSTI_SERVER_JOB_LIST_H

#include "server/job.h"

typedef struct job_list {
    job **at;
    size_t count;
} job_list;

void job_list_insert(job_list *l, size_t index, job *j);
size_t job_list_index(const job_list *l, int64_t id); /* l->count when it is not there */
job *job_list_remove(job_list *l, size_t index);      /* the caller's from now on */
void job_list_free(job_list *l);                      /* and its jobs */

#endif
