/* worker/core/http over TLS, against a server with certificates of the test's own making: which one
 * is refused, and that the message says why; parts; an end that anybody could have made. */
#include "tests/unit/cm.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tests/unit/core/http_case.h"

enum { PART = 2 << 20, DAY_S = 86400 };

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static struct identity ours, theirs, good, elsewhere, expired, early, strange;
static char ca_file[] = "/tmp/dr-http-ca-XXXXXX", no_ca_file[] = "/tmp/dr-http-no-ca-XXXXXX";
static unsigned char part[PART];
static SSL_CTX *context; /* of the server's next connections */

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX c;
    X509V3_set_ctx(&c, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(cert, e, -1), 1);
    X509_EXTENSION_free(e);
}

/* names: subjectAltName; NULL: an authority. Valid from..to, in days from now. */
static void identify(struct identity *out, const char *name, const char *names,
                     const struct identity *issuer, long from, long to)
{
    static long serial;
    out->key = EVP_EC_gen("P-256");
    out->cert = X509_new();
    assert_non_null(out->key);
    if (!issuer)
        issuer = out;
    X509_NAME *subject = X509_get_subject_name(out->cert);
    (void)X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                     -1, 0);
    (void)X509_set_version(out->cert, 2);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(out->cert), ++serial);
    (void)X509_gmtime_adj(X509_getm_notBefore(out->cert), from * DAY_S);
    (void)X509_gmtime_adj(X509_getm_notAfter(out->cert), to * DAY_S);
    (void)X509_set_issuer_name(out->cert, X509_get_subject_name(issuer->cert));
    (void)X509_set_pubkey(out->cert, out->key);
    if (names) {
        extend(out->cert, issuer->cert, NID_subject_alt_name, names);
    } else {
        extend(out->cert, issuer->cert, NID_basic_constraints, "critical,CA:TRUE");
        extend(out->cert, issuer->cert, NID_key_usage, "critical,keyCertSign");
    }
    assert_true(X509_sign(out->cert, issuer->key, EVP_sha256()) > 0);
}

static void write_ca(char *name, X509 *cert)
{
    int fd = mkstemp(name);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    if (cert)
        assert_int_equal(PEM_write_X509(f, cert), 1);
    (void)fclose(f);
}

/* A head, and its body as it comes; false: the peer has gone. */
static bool hear_tls(SSL *ssl, char *text, size_t size)
{
    size_t len = 0, left;
    const char *end = NULL;
    while (!end) {
        int n = len < size - 1 ? SSL_read(ssl, text + len, (int)(size - 1 - len)) : 0;
        if (n <= 0)
            return false;
        len += (size_t)n;
        text[len] = 0;
        end = strstr(text, "\r\n\r\n");
    }
    const char *told = strstr(text, "Content-Length: ");
    static _Thread_local char rest[16384];
    left = told ? strtoul(told + 16, NULL, 10) : 0;
    left -= len - (size_t)(end + 4 - text);
    while (left > 0) {
        int n = SSL_read(ssl, rest, left < sizeof rest ? (int)left : (int)sizeof rest);
        if (n <= 0)
            return false;
        left -= (size_t)n;
    }
    return true;
}

static bool say_tls(SSL *ssl, const char *text)
{
    return SSL_write(ssl, text, (int)strlen(text)) > 0;
}

static void talk(SSL *ssl)
{
    char text[4096];
    while (hear_tls(ssl, text, sizeof text)) {
        atomic_fetch_add(&server.requests, 1);
        if (strstr(text, " /cut ")) { /* no length, and no word of good-bye */
            (void)say_tls(ssl, "HTTP/1.1 200 OK\r\n\r\nhalf of");
            return;
        }
        if (!say_tls(ssl, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
            return;
    }
}

static bool over_tls(int fd)
{
    SSL *ssl = SSL_new(context);
    (void)SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1)
        talk(ssl);
    SSL_free(ssl);
    ERR_clear_error();
    return false;
}

static void be(const struct identity *who)
{
    SSL_CTX_free(context);
    context = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(context, who->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, who->key), 1);
}

static void fetch_tls(struct seen *s, const char *host, const char *path)
{
    char url[128];
    (void)snprintf(url, sizeof url, "https://%s:%u%s", host, server.port, path);
    s->url = url;
    if (!s->r.ca_file)
        s->r.ca_file = ca_file;
    fetch(s);
    s->url = NULL;
}

static void parts_over_tls_and_the_connection_is_kept(void **state)
{
    (void)state;
    be(&good);
    for (int i = 0; i < 3; i++) {
        struct seen s = {.r = {.method = "PUT", .body = part, .body_len = PART, .no_expect = true}};
        fetch_tls(&s, i < 2 ? "localhost" : "127.0.0.1", "/");
        assert_int_equal(s.rc, DR_OK);
        assert_int_equal(s.out.sent_bytes, PART);
        assert_string_equal(BODY(s), "ok");
        http_response_fini(&s.out);
    }
    assert_int_equal(server.connections, 2); /* one a name */
}

static void which_certificates_are_refused_and_why(void **state)
{
    static const struct {
        const struct identity *who;
        const char *why;
    } cases[] = {{&elsewhere, "certificate: it is for another host: "},
                 {&expired, "certificate: it has expired: "},
                 {&early, "certificate: it is not valid yet: "},
                 {&strange, "certificate: it is of another authority: "},
                 {&theirs, "certificate: it is of another authority: "}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct seen s = {.r = {.method = "PUT", .body = part, .body_len = PART}};
        be(cases[i].who);
        fetch_tls(&s, "localhost", "/");
        assert_int_equal(s.rc, DR_E_AUTH);
        assert_string_equal(s.err.reason, "certificate");
        if (strncmp(s.err.msg, cases[i].why, strlen(cases[i].why)) != 0)
            fail_msg("%s, not %s", s.err.msg, cases[i].why);
        assert_int_equal(s.out.sent_bytes, 0);
        assert_int_equal(s.out.status, 0);
        http_response_fini(&s.out);
    }
    assert_int_equal(server.requests, 0);
}

static void authorities_that_cannot_be_read(void **state)
{
    const char *const files[] = {"/nonexistent/ca.pem", no_ca_file};
    (void)state;
    be(&good);
    for (size_t i = 0; i < CM_COUNT(files); i++) {
        struct seen s = {.r.ca_file = files[i]};
        fetch_tls(&s, "localhost", "/");
        assert_int_equal(s.rc, DR_E_AUTH);
        assert_string_equal(s.err.reason, "certificate");
        assert_non_null(strstr(s.err.msg, "those to trust cannot be read"));
        http_response_fini(&s.out);
    }
    assert_int_equal(server.requests, 0);
}

static void an_end_that_anybody_could_have_made_is_none(void **state)
{
    (void)state;
    be(&good);
    unsigned char into[16];
    struct seen s = {.r = {.into = into, .into_max = sizeof into}};
    fetch_tls(&s, "localhost", "/cut");
    /* libcurl 7.88 does not mind, 8.14 does */
    assert_true(s.rc == DR_E_PROTOCOL || s.rc == DR_E_UNREACHABLE);
    http_response_fini(&s.out);
}

static void old_tls_is_not_spoken(void **state)
{
    (void)state;
    be(&good);
    SSL_CTX_set_security_level(context, 0);
    assert_int_equal(SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION), 1);
    struct seen s = {0};
    fetch_tls(&s, "localhost", "/");
    assert_int_equal(s.rc, DR_E_UNREACHABLE);
    assert_int_equal(server.requests, 0);
    http_response_fini(&s.out);
}

static int make_identities(void **state)
{
    static const char names[] = "DNS:localhost,IP:127.0.0.1";
    (void)state;
    server_connection = over_tls;
    identify(&ours, "ours", NULL, NULL, -1, 1);
    identify(&theirs, "theirs", NULL, NULL, -1, 1);
    identify(&good, "good", names, &ours, -1, 1);
    identify(&elsewhere, "localhost", "DNS:elsewhere.example", &ours, -1, 1);
    identify(&expired, "expired", names, &ours, -2, -1);
    identify(&early, "early", names, &ours, 1, 2);
    identify(&strange, "strange", names, &theirs, -1, 1);
    write_ca(ca_file, ours.cert);
    write_ca(no_ca_file, NULL);
    return 0;
}

static int drop_identities(void **state)
{
    struct identity *all[] = {&ours, &theirs, &good, &elsewhere, &expired, &early, &strange};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(all); i++) {
        X509_free(all[i]->cert);
        EVP_PKEY_free(all[i]->key);
    }
    SSL_CTX_free(context);
    (void)unlink(ca_file);
    (void)unlink(no_ca_file);
    return 0;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(parts_over_tls_and_the_connection_is_kept),
        CASE(which_certificates_are_refused_and_why),
        CASE(authorities_that_cannot_be_read),
        CASE(an_end_that_anybody_could_have_made_is_none),
        CASE(old_tls_is_not_spoken),
    };
    return cmocka_run_group_tests(tests, make_identities, drop_identities);
}
