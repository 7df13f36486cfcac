/* proc_child.c - a child process for tests. Plain C without the project's flags, so that its crashes are real ones.
 *
 *   proc_child COMMAND [ARG] ...   performs the commands in order */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void wait_for_eof(void) {
    char c;
    while (read(0, &c, 1) > 0) {
    }
}

/* A grandchild that would live for a minute, holding all pipes. */
static void leave_grandchild(void) {
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGTERM, SIG_IGN);
        sleep(60);
        _exit(0);
    }
    printf("grandchild %d\n", (int)pid);
}

static void print_long(int n) {
    for (int i = 0; i < n; i++) putchar('a' + i % 26);
    putchar('\n');
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(word, "out"))
            printf("%s\n", next), i++;
        else if (!strcmp(word, "err"))
            fprintf(stderr, "%s\n", next), i++;
        else if (!strcmp(word, "part"))
            printf("%s", next), i++;
        else if (!strcmp(word, "long"))
            print_long(atoi(next)), i++;
        else if (!strcmp(word, "env"))
            printf("%s=%s\n", next, getenv(next) ? getenv(next) : "(unset)"), i++;
        else if (!strcmp(word, "nice"))
            printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
        else if (!strcmp(word, "ids"))
            printf("ids %d %d\n", (int)getpid(), (int)getpgrp());
        else if (!strcmp(word, "lines"))
            for (int k = 0; k < atoi(next); k++) fprintf(stderr, "line %d\n", k);
        else if (!strcmp(word, "ignore-term"))
            signal(SIGTERM, SIG_IGN);
        else if (!strcmp(word, "grandchild"))
            leave_grandchild();
        else if (!strcmp(word, "eof"))
            wait_for_eof();
        else if (!strcmp(word, "sleep"))
            sleep(60);
        else if (!strcmp(word, "crash"))
            raise(SIGSEGV);
        else if (!strcmp(word, "abort"))
            abort();
        else if (!strcmp(word, "exit"))
            return atoi(next);
    }
    return 0;
}
