/* os.h - what differs by operating system below base; os_posix.c and os_win.c implement it. Only base includes this. */
#ifndef MYSTI_BASE_OS_H
#define MYSTI_BASE_OS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

char *os_realpath(const char *path); /* NULL and errno on failure */
int os_mkdir(const char *path);
char *os_program_path(void);
char *os_user_data_dir(void);
FILE *os_open_append(const char *path);           /* not passed on to child processes; NULL and errno */
bool os_seek(FILE *f, uint64_t to);               /* from the start; errno on failure */
bool os_sync(FILE *f);                            /* to the disk; errno on failure */
int os_replace(const char *from, const char *to); /* rename that replaces */
int os_pid(void);

#endif
