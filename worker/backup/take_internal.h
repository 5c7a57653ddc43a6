/* Shared by take*.c. */
#ifndef DR_WORKER_BACKUP_TAKE_INTERNAL_H
#define DR_WORKER_BACKUP_TAKE_INTERNAL_H

#include "common/pg_url.h"
#include "worker/backup/create.h"
#include "worker/backup/take.h"
#include "worker/job/job.h"

struct take_part;
/* One source; a backup of kind full has a part of each that is configured. */
struct take_kind {
    const char *name, *option; /* option: without a value there is nothing to take */
    unsigned objects;
    enum dr_rc (*begin)(struct take *t, struct take_part *p, struct dr_err *err);
    enum dr_rc (*data)(struct take *t, struct take_part *p, struct dr_err *err);
};
extern const struct take_kind take_kind_database, take_kind_files, take_kind_config;

enum { TAKE_PARTS_MAX = 3 };
struct take_part {
    const struct take_kind *kind;
    char **roots; /* files and config */
};

struct take {
    struct take_order o;
    const char *kind; /* of the order: a part's, or full; static */
    struct take_part parts[TAKE_PARTS_MAX];
    unsigned part_count;
    char job_id[DR_JOB_ID_MAX + 1], ticket[24], run[17];
    char series[MANIFEST_SERIES_MAX + 1];
    struct create *create;
    struct manifest *twin; /* published by an earlier delivery */
    struct take_sums sums;
    uint64_t expected_bytes;
    char **exclude; /* files and config */
    /* database */
    struct dr_pg_url url;
    char dbname[64];
    struct take_facts *facts;
};

struct pg_conn;
struct index_writer;
/* What a dump without -C loses, and how the server was found; take_facts.c. */
struct take_facts {
    char version_num[16], system_identifier[32];
    unsigned major;
    bool reads_passwords; /* the role may read them, so that globals hold them */
    struct pg_rows *database, *acl, *settings;
};
enum dr_rc take_facts_read(struct pg_conn *c, struct cancel *cancel, struct take_facts **out,
                           struct dr_err *err) DR_MUST_CHECK;
void take_facts_free(struct take_facts *f);
enum dr_rc take_facts_put(const struct take_facts *f, struct index_writer *w, struct dr_err *err);

#endif
