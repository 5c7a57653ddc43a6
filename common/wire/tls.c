/* TLS. */
#include "common/wire/tls.h"

#include <arpa/inet.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum dr_rc dr_tls_context_new(const struct dr_redis_url *u, struct ssl_ctx_st **out,
                              struct dr_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx)
        return dr_fail(err, DR_E_CRYPTO, "TLS context");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    /* RESP knows where a reply ends: a close without close_notify hides nothing. */
    SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1;
    if (ok)
        ok = (u->ca_file[0] ? SSL_CTX_load_verify_locations(ctx, u->ca_file, NULL)
                            : SSL_CTX_set_default_verify_paths(ctx)) == 1;
    if (!ok) {
        SSL_CTX_free(ctx);
        ERR_clear_error();
        return dr_fail(err, DR_E_CONFIG, "TLS: cannot read certificates %s", u->ca_file);
    }
    *out = ctx;
    return DR_OK;
}

void dr_tls_context_free(struct ssl_ctx_st *ctx)
{
    SSL_CTX_free(ctx);
}

enum dr_rc dr_tls_new(struct ssl_ctx_st *ctx, const struct dr_redis_url *u, struct ssl_st **out,
                      struct dr_err *err)
{
    unsigned char address[16];
    SSL *ssl = SSL_new(ctx);
    bool literal =
        inet_pton(AF_INET, u->host, address) == 1 || inet_pton(AF_INET6, u->host, address) == 1;
    if (!ssl || SSL_set1_host(ssl, u->host) != 1 ||
        (!literal && SSL_set_tlsext_host_name(ssl, u->host) != 1)) {
        SSL_free(ssl);
        ERR_clear_error();
        return dr_fail(err, DR_E_CRYPTO, "TLS: host name %s", u->host);
    }
    *out = ssl;
    return DR_OK;
}

enum dr_rc dr_tls_explain(struct ssl_st *ssl, unsigned long code, struct dr_err *err)
{
    long verdict = SSL_get_verify_result(ssl);
    char text[160] = "handshake failed";
    if (ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER)
        (void)snprintf(text, sizeof text, "the other side does not speak TLS");
    else if (code)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return dr_fail(err, DR_E_UNREACHABLE, "TLS: %s",
                   verdict == X509_V_OK ? text : X509_verify_cert_error_string(verdict));
}
