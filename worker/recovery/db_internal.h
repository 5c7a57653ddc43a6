/* Shared by the steps of database_recovery. Not for other folders. */
#ifndef DR_WORKER_RECOVERY_DB_INTERNAL_H
#define DR_WORKER_RECOVERY_DB_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/pg_url.h"
#include "worker/backup/index.h"
#include "worker/backup/prove.h"
#include "worker/core/pg.h"
#include "worker/recovery/procedure.h"

enum { DB_NAME_MAX = 63, DB_LIVE_MAX = 38 };

/* The application's own tables: not the system's, not a session's. */
#define DB_TABLES                                                                                  \
    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE "   \
    "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relpersistence <> "   \
    "'t' "                                                                                         \
    "AND c.relkind "
#define DB_COUNT_RELATIONS "SELECT count(*) " DB_TABLES "IN ('r', 'p')"
#define DB_LIST_TABLES     "SELECT n.nspname, c.relname " DB_TABLES "= 'r' ORDER BY 1, 2"

struct db_table {
    char *schema, *name;
    char *columns; /* "(a, b)" quoted, "" for a table without columns */
    bool has_rows, has_digest;
    uint64_t rows;
    unsigned char digest[16];
};

struct db_sequence {
    char *schema, *name;
    int64_t last;
    bool called;
};

struct db_setting {
    char *role, *value; /* role "": of the database; value "name=value" */
};

/* What the index says the restored database must be: filled while the backup is proven. */
struct db_expected {
    struct db_table *tables;
    struct db_sequence *sequences;
    size_t table_count, table_cap, sequence_count, sequence_cap;
    bool has_blobs, blobs_digest;
    uint64_t blob_count, blob_bytes;
    unsigned char blob_digest[16];
    bool has_properties;
    char *owner, *tablespace, *encoding, *provider, *collate, *ctype, *locale, *comment,
        *lc_monetary;
    int64_t connlimit;
    bool has_acl;
    char **acl;
    struct db_setting *settings;
    unsigned acl_count, setting_count;
};

struct db_names { /* roles and extensions that the dump's own SQL speaks of */
    char **roles, **extensions;
    size_t role_count, role_cap, extension_count, extension_cap;
    uint64_t not_valid; /* constraints that are NOT VALID in the dump already */
};

struct db {
    struct dr_pg_url app, admin; /* DATABASE_URL; DATABASE_ADMIN_URL or the same */
    char live[256], scratch[DB_NAME_MAX + 1], before[DB_NAME_MAX + 1], tool[256];
    const char *maintenance;
    struct pg_conn *lock; /* session in the maintenance database that holds the advisory lock */
    bool contended;       /* somebody else had it when we asked last: we do not wait again */
    struct db_expected expected;
    struct db_names names;
    struct prove_sums proven;
    struct db_dump *dump; /* NULL: not written yet, or no longer needed */
    uint64_t prove_ms, restore_ms;
    /* As observed; 0: no such database. */
    uint32_t live_oid, scratch_oid;
    bool live_lost;            /* no database of that name: nothing to protect */
    bool live_damaged;         /* it could not be dumped */
    bool superuser, live_ours; /* ours: live is what an exercise made, nobody misses it */
    unsigned verified_tables, verified_digests, verified_unknown;
    uint64_t verified_rows;
    char *report; /* dry run: msgpack pairs plan, would_lose, eta_ms, ... */
    size_t report_len;
    unsigned report_pairs;
};

struct db *db_of(struct recovery *r);

/* db_conn.c: sessions (options go behind PG_NO_TIMEOUTS) and single values. */
enum dr_rc db_conn_urls(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_conn_open(struct recovery *r, const char *dbname, const char *options,
                        struct pg_conn **out, struct dr_err *err) DR_MUST_CHECK;
/* First value of the first row into out ("" for NULL or no row). */
enum dr_rc db_conn_text(struct recovery *r, struct pg_conn *c, char *out, size_t size,
                        struct dr_err *err, const char *sql, const char *const *params);
enum dr_rc db_conn_u64(struct recovery *r, struct pg_conn *c, uint64_t *out, struct dr_err *err,
                       const char *sql, const char *const *params);
/* A statement with names in it: each %I takes a const char * and becomes a quoted identifier, each
 * %L a quoted literal, %s text as it is. */
enum dr_rc db_conn_run(struct recovery *r, struct pg_conn *c, struct dr_err *err, const char *fmt,
                       ...) DR_MUST_CHECK;
char *db_conn_format(const char *fmt, ...);

/* db_lock.c: the one session that holds the lock and swaps. */
/* Holds the lock when it returns DR_OK: reconnects when the session was lost. LOCKED: somebody else
 * has it, after waiting wait_ms. */
enum dr_rc db_lock_take(struct recovery *r, uint64_t wait_ms, struct dr_err *err) DR_MUST_CHECK;
void db_lock_drop(struct recovery *r);
/* OID of a database by name, through the lock session; 0: there is none. */
enum dr_rc db_lock_oid(struct recovery *r, const char *name, uint32_t *out,
                       struct dr_err *err) DR_MUST_CHECK;
enum db_state { DB_UNCHANGED, DB_SWAPPED, DB_STRANGE };
/* Takes the lock and compares names and OIDs with the quiesce intent. */
enum dr_rc db_lock_observe(struct recovery *r, enum db_state *out,
                           struct dr_err *err) DR_MUST_CHECK;

enum dr_rc db_expect_record(void *arg, const char *object, const struct index_record *rec,
                            struct dr_err *err);
void db_expect_sql(struct db_names *n, char *sql); /* cuts sql up */
enum dr_rc db_expect_names(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
void db_expect_fini(struct db *d);

enum dr_rc db_preflight(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_restore(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Where the plain dump lies while pg_restore reads it. */
const char *db_restore_folder(struct recovery *r, char out[4096]);
/* Drops the scratch database of this run, unless it was live at some time. */
enum dr_rc db_restore_drop(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
void db_restore_drop_dump(struct recovery *r); /* the plain dump that was kept, if any */
enum dr_rc db_verify(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_properties(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_swap_quiesce(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Undo of quiesce while nothing is swapped: connections allowed, services started. */
enum dr_rc db_swap_release(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_swap(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Undo of swap by observation: nothing when nothing is swapped; else the reverse transaction. */
enum dr_rc db_swap_back(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
bool db_swap_was_live(const struct recovery *r); /* the scratch database, as the journal knows it */
enum dr_rc db_after_start(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_after_check(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_after_keep(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Undo of restore: drops the scratch database, or counts what was live in between. */
enum dr_rc db_after_undone(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_settle(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_report(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;

#endif
