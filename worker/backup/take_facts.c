/* How a server was found, and what a dump without -C loses: owner, privileges, settings, comment of
 * the database itself. Fiber. Source: formats.md 5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/index.h"
#include "worker/backup/take_internal.h"
#include "worker/core/pg.h"

enum { ACL_MAX = 4096, SETTINGS_MAX = 4096 };

/* The name of the locale column moved with the majors; a row as JSON hides that. */
static const char database_sql[] =
    "SELECT current_setting('server_version_num'), (SELECT system_identifier FROM "
    "pg_control_system()), has_table_privilege('pg_catalog.pg_authid', 'SELECT'), d.datname, "
    "pg_get_userbyid(d.datdba), t.spcname, pg_encoding_to_char(d.encoding), d.datlocprovider, "
    "d.datcollate, d.datctype, coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'), "
    "shobj_description(d.oid, 'pg_database'), d.datconnlimit, d.datacl IS NOT NULL, "
    "current_setting('lc_monetary') "
    "FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace "
    "WHERE d.datname = current_database()";
enum { /* columns of it */
       COL_VERSION,
       COL_SYSTEM,
       COL_PASSWORDS,
       COL_NAME,
       COL_OWNER,
       COL_TABLESPACE,
       COL_ENCODING,
       COL_PROVIDER,
       COL_COLLATE,
       COL_CTYPE,
       COL_LOCALE,
       COL_COMMENT,
       COL_CONNLIMIT,
       COL_HAS_ACL,
       COL_MONETARY
};
static const char acl_sql[] =
    "SELECT unnest(datacl)::text FROM pg_database WHERE datname = current_database()";
static const char settings_sql[] =
    "SELECT coalesce(pg_get_userbyid(nullif(s.setrole, 0)), ''), unnest(s.setconfig) "
    "FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
    "WHERE d.datname = current_database() ORDER BY 1, 2";

enum dr_rc take_facts_read(struct pg_conn *c, struct cancel *cancel, struct take_facts **out,
                           struct dr_err *err)
{
    struct take_facts *f = dr_xalloc(sizeof *f);
    uint64_t version = 0;
    if (pg_query(c, cancel, &f->database, err, database_sql, NULL) ||
        pg_query(c, cancel, &f->acl, err, acl_sql, NULL) ||
        pg_query(c, cancel, &f->settings, err, settings_sql, NULL)) {
        (void)dr_wrap(err, "properties of the database");
        goto failed;
    }
    const char *text = pg_rows_value(f->database, 0, COL_VERSION),
               *system = pg_rows_value(f->database, 0, COL_SYSTEM),
               *passwords = pg_rows_value(f->database, 0, COL_PASSWORDS);
    if (!text || !dr_parse_u64(text, 90000, 9999999, &version) || pg_rows_count(f->acl) > ACL_MAX ||
        pg_rows_count(f->settings) > SETTINGS_MAX) {
        (void)dr_fail(err, DR_E_PROTOCOL, "the server does not describe its database");
        goto failed;
    }
    (void)snprintf(f->version_num, sizeof f->version_num, "%s", text);
    (void)snprintf(f->system_identifier, sizeof f->system_identifier, "%s", system ? system : "");
    f->major = (unsigned)(version / 10000);
    f->reads_passwords = passwords && passwords[0] == 't';
    *out = f;
    return DR_OK;
failed:
    take_facts_free(f);
    return err->rc;
}

void take_facts_free(struct take_facts *f)
{
    if (!f)
        return;
    pg_rows_free(f->database);
    pg_rows_free(f->acl);
    pg_rows_free(f->settings);
    free(f);
}

static struct pipe_bytes bytes_of(const struct pg_rows *rows, unsigned row, unsigned col)
{
    const char *s = pg_rows_value(rows, row, col);
    return (struct pipe_bytes){(const unsigned char *)s, s ? strlen(s) : 0};
}

enum dr_rc take_facts_put(const struct take_facts *f, struct index_writer *w, struct dr_err *err)
{
    const struct pg_rows *d = f->database;
    const char *limit = pg_rows_value(d, 0, COL_CONNLIMIT),
               *has_acl = pg_rows_value(d, 0, COL_HAS_ACL);
    unsigned acls = pg_rows_count(f->acl), settings = pg_rows_count(f->settings);
    struct index_properties p = {
        .name = bytes_of(d, 0, COL_NAME),
        .owner = bytes_of(d, 0, COL_OWNER),
        .tablespace = bytes_of(d, 0, COL_TABLESPACE),
        .encoding = bytes_of(d, 0, COL_ENCODING),
        .provider = bytes_of(d, 0, COL_PROVIDER),
        .collate = bytes_of(d, 0, COL_COLLATE),
        .ctype = bytes_of(d, 0, COL_CTYPE),
        .locale = bytes_of(d, 0, COL_LOCALE),
        .comment = bytes_of(d, 0, COL_COMMENT),
        .lc_monetary = bytes_of(d, 0, COL_MONETARY),
        .has_acl = has_acl && has_acl[0] == 't',
        .acl = dr_xarray(acls + 1, sizeof *p.acl),
        .acl_count = acls,
        .settings = dr_xarray(settings + 1, sizeof *p.settings),
        .setting_count = settings,
    };
    if (!limit || !dr_parse_i64(limit, -2, INT32_MAX, &p.connlimit))
        p.connlimit = -1;
    for (unsigned i = 0; i < acls; i++)
        p.acl[i] = bytes_of(f->acl, i, 0);
    for (unsigned i = 0; i < settings; i++)
        p.settings[i] =
            (struct index_setting){bytes_of(f->settings, i, 0), bytes_of(f->settings, i, 1)};
    enum dr_rc rc = index_put_properties(w, &p, err);
    free(p.acl);
    free(p.settings);
    return rc;
}
