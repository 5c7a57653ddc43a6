/* What the children of test_proc do: `test_proc child MODE [FD]`. FD is a leash: a child that reads
 * it lives until the test lets go. */
#ifndef DR_TESTS_PROC_MODES_H
#define DR_TESTS_PROC_MODES_H

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int child_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    bool first = true;
    for (int fd = 0; fd < 1024; fd++) {
        if (fd == dirfd(d) || fcntl(fd, F_GETFD) < 0)
            continue;
        (void)printf("%s%d", first ? "" : " ", fd);
        first = false;
    }
    (void)printf("\n");
    (void)closedir(d);
    return 0;
}

static void wait_for_end(const char *number)
{
    char bytes[16];
    while (read((int)strtol(number, NULL, 10), bytes, sizeof bytes) > 0)
        continue;
}

static _Noreturn void child_stubborn(bool with_another)
{
    (void)signal(SIGTERM, SIG_IGN);
    if (with_another && fork() == 0)
        for (;;)
            (void)pause();
    (void)!write(1, "r", 1);
    for (;;)
        (void)pause();
}

static int proc_mode(int argc, char **argv)
{
    const char *mode = argv[2], *number = argc > 3 ? argv[3] : "-1";
    if (strcmp(mode, "env") == 0)
        for (char **e = environ; *e; e++)
            (void)printf("%s\n", *e);
    else if (strcmp(mode, "fds") == 0)
        return child_fds();
    else if (strcmp(mode, "pause") == 0)
        (void)pause();
    else if (strcmp(mode, "stubborn") == 0)
        child_stubborn(true);
    else if (strcmp(mode, "stubborn-alone") == 0)
        child_stubborn(false);
    else if (strcmp(mode, "stderr") == 0) {
        for (int i = 0; i < 100000; i++)
            (void)fprintf(stderr, "line %d\n", i);
        (void)fprintf(stderr, "caf\xc3\xa9 \xff end\n\n");
        return 5;
    } else if (strcmp(mode, "leave") == 0) {
        (void)!write(1, "hello\n", 6);
        if (fork() == 0)
            wait_for_end(number);
    } else if (strcmp(mode, "silent") == 0) {
        (void)close(1);
        (void)close(2);
        wait_for_end(number);
        _exit(7); /* a sanitizer's own words have no place to go */
    }
    return 0;
}

#endif
