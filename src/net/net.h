/* net.h - what every program that opens sockets does once. */
#ifndef MYSTI_NET_NET_H
#define MYSTI_NET_NET_H

/* Ignores SIGPIPE: a peer that went away is an error of the write, not the end of the process. */
void net_init(void);

#endif
