/* Trees in a temporary folder, which is the working directory of a test. */
#ifndef DR_TESTS_TREE_MAKER_H
#define DR_TESTS_TREE_MAKER_H

#include "tests/unit/cm.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[PATH_MAX]; /* temporary folder; it is the working directory */

static inline void remove_below(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            remove_below(fd, e->d_name);
    if (d)
        closedir(d);
    unlinkat(dir, name, d ? AT_REMOVEDIR : 0);
}

static inline int setup(void **state)
{
    char name[] = "/tmp/dr-tree-XXXXXX";

    (void)state;
    if (!mkdtemp(name) || !realpath(name, base) || chdir(base) || chmod(base, 0755))
        return -1;
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    if (chdir("/"))
        return -1;
    remove_below(AT_FDCWD, base);
    return 0;
}

static inline void put(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(close(fd), 0);
}

static inline void text(const char *path, const char *content)
{
    put(path, content, strlen(content));
}

static inline void folder(const char *path)
{
    assert_int_equal(mkdir(path, 0755), 0);
}

static inline const char *full(const char *name)
{
    static char paths[8][PATH_MAX + 64];
    static unsigned next;
    char *p = paths[next++ % 8];

    (void)snprintf(p, sizeof paths[0], "%s/%s", base, name);
    return p;
}

static inline bool root_user(void)
{
    if (geteuid() == 0)
        return true;
    print_message("not run: needs root\n");
    return false;
}

#endif
