/* net.h - what every program that opens sockets does once. */
#ifndef MYSTI_NET_NET_H
#define MYSTI_NET_NET_H

/* Ignores SIGPIPE and SIGXFSZ: a peer that went away, or a file at its size limit, is an error of the write, not the
 * end of the process. */
void net_init(void);

#endif
