/* Globs of BACKUP_EXCLUDE. A path is excluded when a glob matches its whole (absolute) path or its
 * last name by fnmatch(3) without flags: `*` and `?` also match slashes and leading dots, `[..]`
 * and backslash as in the shell. Slashes at the end of a glob are ignored. So `*.tmp` and `cache`
 * name entries anywhere, `/srv/uploads/cache` one folder, `/srv/a*.iso` files at any depth below
 * /srv. What lies below an excluded folder is not looked at. Any thread. */
#ifndef DR_WORKER_PIPE_EXCLUDE_H
#define DR_WORKER_PIPE_EXCLUDE_H

#include <stdbool.h>

/* globs NULL-ended, or NULL. */
bool exclude_match(const char *const *globs, const char *path);
/* As exclude_match, for the path or any folder above it that lies below root. */
bool exclude_covers(const char *const *globs, const char *root, const char *path);

#endif
