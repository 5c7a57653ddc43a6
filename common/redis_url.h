/* REDIS_URL: redis://[user:pass@]host[:port][/db], rediss://…, unix://[user:pass@]/path[?db=N].
 * User and password are percent-decoded. Any thread, one owner. */
#ifndef DR_COMMON_REDIS_URL_H
#define DR_COMMON_REDIS_URL_H

#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

enum dr_redis_kind { DR_REDIS_TCP, DR_REDIS_TLS, DR_REDIS_UNIX };

struct dr_redis_url {
    enum dr_redis_kind kind;
    char host[256];
    uint16_t port;
    char path[108]; /* unix socket */
    char user[128]; /* "" : none */
    struct dr_secret password;
    unsigned db;
    char ca_file[512]; /* ?ca_file=PATH; "": the system's */
};

/* CONFIG; neither the message nor the value shows the password. */
enum dr_rc dr_redis_url_parse(const char *url, struct dr_redis_url *out,
                              struct dr_err *err) DR_MUST_CHECK;
void dr_redis_url_free(struct dr_redis_url *u);
/* Without user and password, for logs. */
void dr_redis_url_show(const struct dr_redis_url *u, char out[512]);

#endif
