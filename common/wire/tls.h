/* TLS for Redis: CA and host name are checked, TLS 1.2 at least. One
 * thread a connection. */
#ifndef DR_COMMON_WIRE_TLS_H
#define DR_COMMON_WIRE_TLS_H

#include "common/err.h"
#include "common/redis_url.h"

struct ssl_st;
struct ssl_ctx_st;

enum dr_rc dr_tls_context_new(const struct dr_redis_url *u, struct ssl_ctx_st **out,
                              struct dr_err *err) DR_MUST_CHECK;
void dr_tls_context_free(struct ssl_ctx_st *ctx);
/* A client connection that expects u->host. */
enum dr_rc dr_tls_new(struct ssl_ctx_st *ctx, const struct dr_redis_url *u, struct ssl_st **out,
                      struct dr_err *err) DR_MUST_CHECK;
/* Records why the handshake failed, from OpenSSL's verdict. */
enum dr_rc dr_tls_explain(struct ssl_st *ssl, unsigned long code, struct dr_err *err);

#endif
