/* HTTP/1.1 as far as a scraper needs it; the address's text. Pure. Source: RFC 9110, 9112. */
#include "worker/core/httpd_internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <time.h>

#include "common/str.h"

static enum dr_rc bad(struct dr_err *err, const char *text, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG,
                  "DR_HTTP_LISTEN: %s; it is ADDRESS:PORT, [ADDRESS]:PORT, "
                  "unix:/PATH or off",
                  why);
    return dr_err_field(err, "DR_HTTP_LISTEN", text, strlen(text));
}

static enum dr_rc parse_unix(const char *text, const char *path, struct httpd_address *out,
                             struct dr_err *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&out->at;
    if (path[0] != '/')
        return bad(err, text, "the socket's path is not absolute");
    if (strlen(path) >= sizeof un->sun_path)
        return bad(err, text, "the socket's path is over 107 bytes");
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, strlen(path) + 1);
    out->len = sizeof *un;
    return DR_OK;
}

enum dr_rc httpd_parse(const char *text, struct httpd_address *out, struct dr_err *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->at;
    char host[64];
    uint64_t port;
    memset(out, 0, sizeof *out);
    out->off = strcmp(text, "off") == 0;
    if (out->off)
        return DR_OK;
    if (dr_starts(text, "unix:"))
        return parse_unix(text, text + 5, out, err);
    bool six = text[0] == '[';
    const char *end = six ? strstr(text, "]:") : strchr(text, ':'), *begin = text + six;
    if (!end || (size_t)(end - begin) >= sizeof host)
        return bad(err, text, "there is no port");
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = 0;
    if (!dr_parse_u64(end + 1 + six, 0, 65535, &port))
        return bad(err, text, "the port is not 0..65535");
    if (six ? inet_pton(AF_INET6, host, &v6->sin6_addr) != 1
            : inet_pton(AF_INET, host, &v4->sin_addr) != 1)
        return bad(err, text, "the address is not a numeric one");
    if (six) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
    } else {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
    }
    out->len = six ? sizeof *v6 : sizeof *v4;
    return DR_OK;
}

/* A header that announces a body. */
static bool has_body(const char *line, size_t len)
{
    static const char length[] = "content-length:", coding[] = "transfer-encoding:";
    if (len >= sizeof coding - 1 && strncasecmp(line, coding, sizeof coding - 1) == 0)
        return true;
    if (len < sizeof length - 1 || strncasecmp(line, length, sizeof length - 1) != 0)
        return false;
    for (size_t i = sizeof length - 1; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '0' && line[i] != '\r')
            return true;
    return false;
}

static unsigned read_target(const char *target, size_t len, struct httpd_request *out)
{
    if (len >= 7 && strncasecmp(target, "http://", 7) == 0) { /* absolute form: ours anyway */
        const char *slash = memchr(target + 7, '/', len - 7);
        if (!slash)
            return 404;
        len -= (size_t)(slash - target);
        target = slash;
    }
    const char *query = memchr(target, '?', len);
    if (query)
        len = (size_t)(query - target);
    if (len == 0 || target[0] != '/' || memchr(target, 0, len))
        return 400;
    if (len >= sizeof out->path)
        return 404;
    memcpy(out->path, target, len);
    out->path[len] = 0;
    return 200;
}

static unsigned read_line(const char *line, size_t len, struct httpd_request *out)
{
    const char *one = memchr(line, ' ', len);
    const char *two = one ? memchr(one + 1, ' ', len - (size_t)(one + 1 - line)) : NULL;
    if (!two || one == line)
        return 400;
    const char *version = two + 1;
    size_t left = len - (size_t)(version - line), method = (size_t)(one - line);
    if (left != 8 || memcmp(version, "HTTP/", 5) != 0)
        return 400;
    if (memcmp(version, "HTTP/1.1", 8) != 0 && memcmp(version, "HTTP/1.0", 8) != 0)
        return 505;
    out->head = method == 4 && memcmp(line, "HEAD", 4) == 0;
    if (!out->head && !(method == 3 && memcmp(line, "GET", 3) == 0))
        return 405;
    return read_target(one + 1, (size_t)(two - one - 1), out);
}

unsigned httpd_read_head(const char *head, size_t len, struct httpd_request *out)
{
    const char *line = head, *end = head + len, *nl = memchr(head, '\n', len);
    memset(out, 0, sizeof *out);
    if (!nl)
        return 400;
    size_t n = (size_t)(nl - line);
    unsigned status = read_line(line, n && line[n - 1] == '\r' ? n - 1 : n, out);
    for (line = nl + 1; status == 200 && line < end; line = nl + 1) {
        nl = memchr(line, '\n', (size_t)(end - line));
        if (!nl)
            return 400;
        if (has_body(line, (size_t)(nl - line)))
            return 413;
    }
    return status;
}

static const char *reason_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } known[] = {{200, "OK"},
                 {400, "Bad Request"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {413, "Content Too Large"},
                 {431, "Request Header Fields Too Large"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].status == status)
            return known[i].text;
    return "Internal Server Error";
}

void httpd_write(struct dr_buf *out, const struct httpd_reply *r, bool head_only, int64_t now_ms)
{
    char date[48] = "";
    time_t now_s = (time_t)(now_ms / 1000);
    struct tm tm;
    if (gmtime_r(&now_s, &tm)) /* the locale is C */
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    dr_buf_printf(out,
                  "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%s"
                  "Connection: close\r\n\r\n",
                  r->status, reason_of(r->status), date, r->content_type, r->body.len,
                  r->status == 405 ? "Allow: GET, HEAD\r\n" : "");
    if (!head_only && r->body.len)
        dr_buf_add(out, r->body.data, r->body.len);
}
