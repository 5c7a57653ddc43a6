/* What a dump without -C loses: owner, ACL, connection limit, settings, comment; laid on the
 * scratch database before it goes live. In a fiber. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "common/mem.h"
#include "worker/recovery/db_internal.h"

/* Variables whose value is a list of quoted names (GUC_LIST_QUOTE): one literal for all of it would
 * be one name. */
static bool is_name_list(const char *name)
{
    static const char *const names[] = {
        "search_path",      "local_preload_libraries",  "session_preload_libraries",
        "temp_tablespaces", "shared_preload_libraries", "unix_socket_directories"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static void add_literal(struct dr_buf *sql, const char *text, size_t len)
{
    char *plain = dr_xstrndup(text, len), *quoted = pg_quote_literal(plain);
    dr_buf_str(sql, quoted);
    free(quoted);
    free(plain);
}

/* a, "b c" -> 'a', 'b c' */
static void add_names(struct dr_buf *sql, const char *value)
{
    const char *p = value;
    bool first = true;
    while (*p) {
        struct dr_buf name;
        dr_buf_init(&name, 4096);
        p += strspn(p, " ,");
        bool quoted = *p == '"';
        p += quoted;
        while (*p && (quoted ? !(*p == '"' && p[1] != '"') : *p != ',')) {
            if (quoted && *p == '"')
                p++;
            dr_buf_add(&name, p++, 1);
        }
        p += quoted && *p == '"';
        if (name.len || quoted) {
            dr_buf_str(sql, first ? "" : ", ");
            add_literal(sql, name.len ? (const char *)name.data : "", name.len);
            first = false;
        }
        dr_buf_fini(&name);
    }
    if (first)
        dr_buf_str(sql, "''");
}

static enum dr_rc apply_setting(struct recovery *r, const struct db_setting *s, struct dr_err *err)
{
    struct db *d = db_of(r);
    const char *equals = strchr(s->value, '=');
    struct dr_buf value;
    if (!equals || equals == s->value)
        return dr_fail(err, DR_E_INTEGRITY, "a setting of the database without a name");
    char *name = dr_xstrndup(s->value, (size_t)(equals - s->value));
    dr_buf_init(&value, 65536);
    if (is_name_list(name))
        add_names(&value, equals + 1);
    else
        add_literal(&value, equals + 1, strlen(equals + 1));
    enum dr_rc rc = DR_OK;
    if (value.failed)
        rc = dr_fail(err, DR_E_TOO_BIG, "setting %s of the database", name);
    else if (s->role[0])
        rc = db_conn_run(r, d->lock, err, "ALTER ROLE %I IN DATABASE %I SET %I TO %s", s->role,
                         d->scratch, name, (const char *)value.data);
    else
        rc = db_conn_run(r, d->lock, err, "ALTER DATABASE %I SET %I TO %s", d->scratch, name,
                         (const char *)value.data);
    if (rc)
        (void)dr_wrap(err, "setting %s", name);
    dr_buf_fini(&value);
    free(name);
    return rc;
}

/* Grantee of "role=privileges/grantor" (quoted as the server quotes it); *rest: behind the '='. */
static char *read_grantee(const char *item, const char **rest)
{
    struct dr_buf name;
    const char *p = item;
    dr_buf_init(&name, 512);
    bool quoted = *p == '"';
    p += quoted;
    while (*p && (quoted ? !(*p == '"' && p[1] != '"') : *p != '=')) {
        if (quoted && *p == '"')
            p++;
        dr_buf_add(&name, p++, 1);
    }
    p += quoted && *p == '"';
    *rest = *p == '=' ? p + 1 : NULL;
    char *text = name.len ? dr_buf_take(&name) : dr_xstrdup("");
    dr_buf_fini(&name);
    return text;
}

static const char *privilege(char letter)
{
    return letter == 'C'   ? "CREATE"
           : letter == 'T' ? "TEMPORARY"
           : letter == 'c' ? "CONNECT"
                           : NULL;
}

static enum dr_rc apply_acl(struct recovery *r, const char *item, struct dr_err *err)
{
    struct db *d = db_of(r);
    const char *rest = NULL;
    char *grantee = read_grantee(item, &rest);
    enum dr_rc rc = rest ? DR_OK : dr_fail(err, DR_E_INTEGRITY, "an ACL item without '='");
    char *to = grantee[0] ? pg_quote_ident(grantee) : dr_xstrdup("PUBLIC");
    for (const char *p = rest; !rc && *p && *p != '/'; p++) {
        const char *word = privilege(*p);
        bool option = p[1] == '*';
        if (!word)
            rc = dr_fail(err, DR_E_INTEGRITY, "unknown privilege %c on a database", *p);
        else
            rc = db_conn_run(r, d->lock, err, "GRANT %s ON DATABASE %I TO %s%s", word, d->scratch,
                             to, option ? " WITH GRANT OPTION" : "");
        p += option;
    }
    free(to);
    free(grantee);
    return rc;
}

static enum dr_rc apply_acls(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    if (!e->has_acl) /* the default, which was taken away while nobody should come in */
        return db_conn_run(r, d->lock, err, "GRANT CONNECT, TEMPORARY ON DATABASE %I TO PUBLIC",
                           d->scratch);
    if (e->owner &&
        db_conn_run(r, d->lock, err, "REVOKE ALL ON DATABASE %I FROM %I", d->scratch, e->owner))
        return err->rc;
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; i < e->acl_count && !rc; i++)
        rc = apply_acl(r, e->acl[i], err);
    return rc;
}

enum dr_rc db_properties(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    char number[32];
    if (!e->has_properties) {
        recovery_step_outcome(r, "skipped (not recorded)");
        return db_lock_take(r, 10000, err)
                   ? err->rc
                   : db_conn_run(r, d->lock, err,
                                 "GRANT CONNECT, TEMPORARY ON DATABASE %I TO PUBLIC", d->scratch);
    }
    (void)snprintf(number, sizeof number, "%lld", (long long)e->connlimit);
    if (db_lock_take(r, 10000, err) ||
        (e->owner &&
         db_conn_run(r, d->lock, err, "ALTER DATABASE %I OWNER TO %I", d->scratch, e->owner)) ||
        apply_acls(r, err) ||
        db_conn_run(r, d->lock, err, "ALTER DATABASE %I CONNECTION LIMIT %s", d->scratch, number))
        return err->rc;
    for (unsigned i = 0; i < e->setting_count; i++)
        if (apply_setting(r, &e->settings[i], err))
            return err->rc;
    if (e->comment)
        return db_conn_run(r, d->lock, err, "COMMENT ON DATABASE %I IS %L", d->scratch, e->comment);
    return DR_OK;
}
