/* app.h - what the server's parts share. main.c owns it all; everything here is used on the loop thread only. */
#ifndef MYSTI_SERVER_APP_H
#define MYSTI_SERVER_APP_H

#include "server/config.h"

#include <uv.h>

typedef struct app {
    uv_loop_t *loop;
    config cfg;
    int64_t started_ms;       /* wall time */
    char start_id[17];        /* random, new at every start: tells a client that event ids began anew */
    struct db *db;            /* db.h */
    struct events *events;    /* events.h */
    struct models *models;    /* models.h */
    struct jobs *jobs;        /* jobs.h */
    struct history *history;  /* history.h */
    struct uploads *uploads;  /* uploads.h */
    struct workers *workers;  /* workers.h */
    struct llm_relay *llm;    /* llm_relay.h */
    struct sd_runner *runner; /* sd_runner.h */
} app;

#endif
