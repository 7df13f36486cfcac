/* net.c - see net.h. */
#include "net/net.h"

#include <signal.h>

void net_init(void) {
#ifdef SIGPIPE /* Windows has none */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
#endif
}
