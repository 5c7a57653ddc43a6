/* Shared by the reading and the writing half of the catalog. */
#ifndef DR_WORKER_BACKUP_CATALOG_INTERNAL_H
#define DR_WORKER_BACKUP_CATALOG_INTERNAL_H

#include "worker/backup/catalog.h"

/* head.json's one form: seq, sha256, sig. */
#define CATALOG_HEAD_FORM "{\"seq\":%llu,\"sha256\":\"%s\",\"sig\":\"%s\"}\n"

enum { CATALOG_MESSAGE = 40, CATALOG_WHY = 96 };

/* INTEGRITY, reason <folder>-<class>. */
enum dr_rc catalog_refuse(const struct catalog_log *log, const char *class, const char *what,
                          uint64_t seq, struct dr_err *err);
enum dr_rc catalog_mismatch(const struct catalog_log *log, uint64_t seq, struct dr_err *err);
/* As catalog_parse; false: why says what is wrong. */
bool catalog_read_line(const char *line, size_t len, struct catalog_record *out, char **data,
                       char why[CATALOG_WHY]);

/* What the head's signature is over, behind the keyring's domain: seq u64, sha256. */
void catalog_head_message(uint64_t seq, const unsigned char sha256[32],
                          unsigned char out[CATALOG_MESSAGE]);

/* One open log file and the lines in it. fd -1: none. */
struct catalog_lines {
    const struct catalog_log *log;
    int fd;
    char *piece; /* CATALOG_LINE_MAX bytes */
    size_t at, have;
    bool ended;
};
/* The file of that record; one that is not there has no lines. */
enum dr_rc catalog_lines_open(struct catalog_lines *l, uint64_t seq, struct dr_err *err);
/* The next line, with its newline; NULL: there is no whole line, len bytes are left. */
enum dr_rc catalog_lines_next(struct catalog_lines *l, const char **line, size_t *len,
                              struct dr_err *err);

#endif
