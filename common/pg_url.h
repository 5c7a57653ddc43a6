/* DATABASE_URL and its relatives, as libpq and SQLAlchemy write them. Any thread, one owner.
 *
 * postgres://, postgresql://, postgresql+DRIVER:// then [user[:password]@][host][:port][/dbname]
 * and ?key=value&…; every part is percent-decoded. A host that begins with / (as %2F, or ?host=)
 * is a socket directory. One host only.
 *
 * Query keys taken: host port user password dbname sslmode sslrootcert sslcert sslkey
 *   application_name connect_timeout (seconds) options; ssl (asyncpg's name of sslmode; true is
 *   require). A key given twice, or once more than the authority gave it, must agree.
 * Ignored, as they change neither where nor as whom we connect: client_encoding charset
 *   fallback_application_name gssencmode keepalives keepalives_idle keepalives_interval
 *   keepalives_count tcp_user_timeout target_session_attrs schema async_fallback
 *   connection_limit pool_timeout prepared_statement_cache_size prepared_statement_name_func
 * Every other key is an error: it may be one that matters. pgbouncer=true too: the lock of a
 *   recovery lives in a session. */
#ifndef DR_COMMON_PG_URL_H
#define DR_COMMON_PG_URL_H

#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

struct dr_pg_url {
    char host[256];            /* name, address or socket directory; "": libpq's default socket */
    char port[8];              /* "5432" */
    char user[64];             /* "": the user we run as */
    char dbname[64];           /* never "": the user's name when not given */
    struct dr_secret password; /* no bytes: none given */
    char sslmode[16];          /* "prefer" */
    char sslrootcert[512], sslcert[512], sslkey[512]; /* "": libpq's default */
    char application_name[64];                        /* "": none given */
    char options[256];                                /* as PGOPTIONS */
    uint64_t connect_timeout_ms;                      /* 0: none given */
};

/* CONFIG; neither the message nor the value shows any part of the URL but accepted keys. */
enum dr_rc dr_pg_url_parse(const char *url, struct dr_pg_url *out,
                           struct dr_err *err) DR_MUST_CHECK;
void dr_pg_url_free(struct dr_pg_url *u);
/* Without user and password, for logs. */
void dr_pg_url_show(const struct dr_pg_url *u, char out[512]);

#endif
