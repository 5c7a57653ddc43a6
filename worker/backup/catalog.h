/* A chained log of JSON lines and its signed head: the catalog, and in the same form the audit log
 * (audit.h). Order of an append: line, fsync, head, fsync. What lies behind the head is not
 * believed; the next writer cuts it off. Writers hold the log's lock. Blocking. Source:
 * formats-bytes 5. */
#ifndef DR_WORKER_BACKUP_CATALOG_H
#define DR_WORKER_BACKUP_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/backup/keyring.h"

enum {
    CATALOG_LINE_MAX = 65536, /* with its newline */
    CATALOG_FILE_RECORDS = 1000,
    CATALOG_HEAD_MAX = 512,
};

/* Which of them: catalog_log or audit_log fill it in. */
struct catalog_log {
    int dirfd;          /* the store; borrowed */
    const char *folder; /* head.json, log/ and lock lie in it; errors and their classes name it */
    enum keyring_signer signer;
};
struct catalog_log catalog_log(int store_dirfd); /* catalog/ */

struct catalog_head {
    uint64_t seq; /* 0: no record yet */
    unsigned char sha256[32];
    unsigned generation; /* whose key signed it */
};

struct catalog_record {
    uint64_t seq;
    unsigned char sha256[32], prev[32]; /* of the line, and of the one before it */
    char type[24], backup_id[64];
    int64_t at_ms;
    /* of data, where the type has them */
    bool has_manifest_sha256, has_ok, ok, differs; /* differs: failed by what was compared */
    bool has_unreadable;
    uint64_t unreadable;
    unsigned char manifest_sha256[32];
    int64_t verified_at_ms;
    const char *data_json; /* until the callback returns */
};
typedef enum dr_rc catalog_fn(void *arg, const struct catalog_record *r, struct dr_err *err);

void catalog_log_name(uint64_t seq, char out[24]); /* "000001.jsonl" */

/* head.json: INTEGRITY, reason head-missing, head-form or head-sig. */
enum dr_rc catalog_read_head(const struct catalog_log *log, const struct keyring *keys,
                             struct catalog_head *out, struct dr_err *err) DR_MUST_CHECK;
/* Records from..head.seq in order; prev: SHA-256 of record from-1. INTEGRITY: catalog-form,
 * catalog-chain, catalog-short (audit-.. for the audit log), head-mismatch; missing-file. ahead:
 * bytes lie behind the head. */
enum dr_rc catalog_replay(const struct catalog_log *log, const struct catalog_head *head,
                          uint64_t from, const unsigned char prev[32], catalog_fn *fn, void *arg,
                          bool *ahead, struct dr_err *err) DR_MUST_CHECK;
/* Cuts off what lies behind the head. Under the lock. */
enum dr_rc catalog_cut(const struct catalog_log *log, const struct catalog_head *head,
                       struct dr_err *err) DR_MUST_CHECK;
/* One record and the new head, signed by the current generation; head is updated. Under the lock,
 * after catalog_cut. */
enum dr_rc catalog_append(const struct catalog_log *log, const struct keyring *keys,
                          struct catalog_head *head, const char *type, const char *backup_id,
                          int64_t at_ms, const char *data_json, struct dr_err *err) DR_MUST_CHECK;
/* Signs the head anew (a new generation). Under the lock. */
enum dr_rc catalog_sign(const struct catalog_log *log, const struct keyring *keys,
                        struct catalog_head *head, struct dr_err *err) DR_MUST_CHECK;
/* One line without its newline, strictly: INTEGRITY, catalog-form. data: freed by free(). */
enum dr_rc catalog_parse(const char *line, size_t len, struct catalog_record *out, char **data,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
