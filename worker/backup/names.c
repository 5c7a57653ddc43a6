/* Names that go to disk. */
#include "worker/backup/names.h"

#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/buf.h"
#include "common/str.h"

static const char *const kinds[] = {"database", "files", "config", "full"};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

void names_run(const char *ns, const char *job_id, char out[NAMES_RUN_SIZE])
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    char text[56];
    struct dr_buf b;
    dr_buf_init(&b, 4096);
    dr_buf_add(&b, "dr-run", 7); /* with its NUL */
    dr_buf_add(&b, ns, strlen(ns) + 1);
    dr_buf_str(&b, job_id);
    (void)SHA256(b.data, b.len, hash);
    dr_base32(hash, sizeof hash, text);
    (void)snprintf(out, NAMES_RUN_SIZE, "%s", text);
    dr_buf_fini(&b);
}

void names_job(const char *job_id, char out[NAMES_JOB_SIZE])
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    char text[56];
    (void)SHA256((const unsigned char *)job_id, strlen(job_id), hash);
    dr_base32(hash, sizeof hash, text);
    (void)snprintf(out, NAMES_JOB_SIZE, "%s", text);
}

void names_backup_id(int64_t t_start_ms, const char *kind, const char *job_id,
                     char out[NAMES_ID_SIZE])
{
    char t[DR_TIME_TEXT], job[NAMES_JOB_SIZE];
    dr_format_time(t_start_ms, t); /* 2026-01-02T03:04:05.678Z */
    names_job(job_id, job);
    (void)snprintf(out, NAMES_ID_SIZE, "%.4s%.2s%.2sT%.2s%.2s%.2sZ-%s-%s", t, t + 5, t + 8, t + 11,
                   t + 14, t + 17, kind, job);
}

bool names_is_kind(const char *s)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strcmp(s, kinds[i]) == 0)
            return true;
    return false;
}

bool names_is_backup_id(const char *s)
{
    static const char shape[] = "ddddddddTddddddZ-";
    size_t kind = 0;
    if (strlen(s) < sizeof shape)
        return false;
    for (size_t i = 0; shape[i]; i++)
        if (shape[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != shape[i])
            return false;
    s += sizeof shape - 1;
    for (size_t i = 0; i < KINDS && !kind; i++)
        if (dr_starts(s, kinds[i]) && s[strlen(kinds[i])] == '-')
            kind = strlen(kinds[i]) + 1;
    if (!kind || strlen(s) != kind + 8)
        return false;
    for (s += kind; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= '2' && *s <= '7')))
            return false;
    return true;
}

bool names_is_of_job(const char *id, const char *kind, const char job[NAMES_JOB_SIZE])
{
    char tail[NAMES_ID_SIZE];
    (void)snprintf(tail, sizeof tail, "Z-%s-%s", kind, job);
    return names_is_backup_id(id) && strcmp(id + 15, tail) == 0;
}

void names_series(const char *kind, const void *name, size_t len, char out[NAMES_SERIES_SIZE])
{
    const unsigned char *p = name;
    size_t at = (size_t)snprintf(out, NAMES_SERIES_SIZE, "%s:%s", kind, len ? "" : "default");
    for (size_t i = 0; i < len && at + 4 < NAMES_SERIES_SIZE;) {
        size_t n = dr_utf8_len(p + i, len - i);
        if (n == 0 || p[i] < 0x20 || p[i] == 0x7f || p[i] == '%') {
            at += (size_t)snprintf(out + at, NAMES_SERIES_SIZE - at, "%%%02X", p[i]);
            i++;
        } else {
            memcpy(out + at, p + i, n);
            at += n;
            i += n;
        }
    }
    out[at] = 0;
}
