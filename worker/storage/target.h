/* Where copies go: the settings of one off-site target, and what was learnt of it since the start.
 * Everything is borrowed; the owner keeps it while calls are made with it. Any thread may read. */
#ifndef DR_WORKER_STORAGE_TARGET_H
#define DR_WORKER_STORAGE_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/mem.h"

struct storage_target {
    const char *provider; /* a row's name: "aws_s3", "file" */
    const char *endpoint; /* "https://host[:port]", no path; NULL or "": the provider's own */
    const char *bucket;   /* of `file`: the absolute directory; of Azure: the container */
    const char *region;   /* NULL or "": the provider's default */
    const char *prefix;   /* before every key; "" or ends with a slash; NULL: none */
    const char *account;  /* Azure's account, Google's service account; NULL elsewhere */
    const char *ca_file;  /* in place of the system's; NULL: the system's */
    bool path_style;      /* bucket in the path, not in the host name */
    struct dr_secret access_key, secret_key; /* of Azure: the secret key only, base64 */
    struct dr_secret session_token;          /* len 0: none */
};

/* What answers taught: the engine holds one a target, the row reads it with every call. */
struct storage_route {
    char region[64];       /* "": the target's. From a redirect */
    char host[256];        /* "": the target's. host[:port] from a redirect the row let pass */
    int64_t clock_ahead_s; /* the store's clock against ours; `now` already has it */
};

#endif
