/* Globs against paths. Owns nothing; any thread. */
#include "worker/pipe/exclude.h"

#include <fnmatch.h>
#include <limits.h>
#include <string.h>

static bool glob_matches(const char *glob, const char *path, const char *base)
{
    char cut[PATH_MAX];
    size_t len = strlen(glob);

    while (len > 1 && glob[len - 1] == '/')
        len--;
    if (!len || len >= sizeof cut)
        return false;
    memcpy(cut, glob, len);
    cut[len] = 0;
    return fnmatch(cut, path, 0) == 0 || fnmatch(cut, base, 0) == 0;
}

bool exclude_match(const char *const *globs, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

    for (; globs && *globs; globs++)
        if (glob_matches(*globs, path, base))
            return true;
    return false;
}

bool exclude_covers(const char *const *globs, const char *root, const char *path)
{
    char part[PATH_MAX];
    size_t len = strlen(path), at = strlen(root);

    if (len >= sizeof part)
        return exclude_match(globs, path);
    for (at++; at <= len; at++) {
        if (path[at] != '/' && path[at])
            continue;
        memcpy(part, path, at);
        part[at] = 0;
        if (exclude_match(globs, part))
            return true;
    }
    return false;
}
