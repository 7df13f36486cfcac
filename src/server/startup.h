/* startup.h - what is checked and chosen before the server runs. */
#ifndef MYSTI_SERVER_STARTUP_H
#define MYSTI_SERVER_STARTUP_H

#include "server/workers.h"

/* The three ports must be free, or ERR_CONFLICT names the port and, where it can be known, who has it. */
bool startup_check_ports(const config *c, err *e);

/* "port 1234 is taken by nginx (pid 812)" for a port that could not be listened on. */
bool startup_port_taken(int port, err *e);

/* Takes the models of the command line over those of the last run, and the demo models where there are neither those
 * nor others in the model folder. A file that is missing or of the wrong kind is logged, and the server starts without
 * it. */
void startup_choose_models(app *a);

#endif
