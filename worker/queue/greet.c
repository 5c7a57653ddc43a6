/* Greeting. */
#include "worker/queue/greet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"

enum { AUTH, SELECT, NAME, ROLE, MEMORY, END };

static void command(struct greet *g, int argc, const char *a, const char *b, const char *c)
{
    const char *all[] = {a, b, c};
    g->argc = argc;
    for (int i = 0; i < argc; i++) {
        g->argv[i] = all[i];
        g->len[i] = strlen(all[i]);
    }
}

/* Prepares the first step from `step` on that has something to say. */
static enum greet_result prepare(struct greet *g)
{
    for (;; g->step++) {
        switch (g->step) {
        case AUTH:
            if (!g->url->password.len)
                break;
            const char *password = (const char *)g->url->password.bytes;
            if (g->url->user[0])
                command(g, 3, "AUTH", g->url->user, password);
            else
                command(g, 2, "AUTH", password, NULL);
            return GREET_MORE;
        case SELECT:
            if (!g->url->db)
                break;
            (void)snprintf(g->db, sizeof g->db, "%u", g->url->db);
            command(g, 2, "SELECT", g->db, NULL);
            return GREET_MORE;
        case NAME:
            command(g, 3, "CLIENT", "SETNAME", g->name);
            return GREET_MORE;
        case ROLE:
            command(g, 1, "ROLE", NULL, NULL);
            return GREET_MORE;
        case MEMORY:
            command(g, 2, "INFO", "memory", NULL);
            return GREET_MORE;
        default:
            return GREET_DONE;
        }
    }
}

void greet_begin(struct greet *g, const struct dr_redis_url *url, const char *name)
{
    memset(g, 0, sizeof *g);
    g->url = url;
    g->name = name;
    (void)prepare(g);
}

static enum dr_rc check_role(const redisReply *r, struct dr_err *err)
{
    if (r->type == REDIS_REPLY_ERROR) /* an ACL may forbid it */
        return DR_OK;
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 1 || !r->element[0]->str)
        return dr_fail(err, DR_E_PROTOCOL, "Redis: ROLE answered no role");
    if (strcmp(r->element[0]->str, "master") != 0)
        return dr_fail(err, DR_E_UNREACHABLE, "Redis: it is a %.20s, not a master",
                       r->element[0]->str);
    return DR_OK;
}

/* The value behind "name:" in INFO's text, into out; "" when it is not there. */
static void info_value(const char *text, const char *name, char *out, size_t size)
{
    const char *p = strstr(text, name);
    size_t n = p ? strcspn(p + strlen(name), "\r\n") : 0;
    if (n >= size)
        n = size - 1;
    memcpy(out, p ? p + strlen(name) : "", n);
    out[n] = 0;
}

static enum dr_rc check_memory(const redisReply *r, struct dr_err *err)
{
    char max[24], policy[32];
    if (r->type != REDIS_REPLY_STRING)
        return DR_OK;
    info_value(r->str, "\nmaxmemory:", max, sizeof max);
    info_value(r->str, "\nmaxmemory_policy:", policy, sizeof policy);
    if (!max[0] || strcmp(max, "0") == 0 || strcmp(policy, "noeviction") == 0 || !policy[0])
        return DR_OK;
    return dr_fail(err, DR_E_CONFIG,
                   "Redis: maxmemory is %s and maxmemory-policy %s would evict jobs; "
                   "set it to noeviction",
                   max, policy);
}

/* What we ask only to know may be forbidden by an ACL, or renamed away. Every other error says that
 * this server does not serve us now. */
static bool forbidden(const redisReply *r)
{
    return dr_starts(r->str, "NOPERM") || dr_starts(r->str, "ERR unknown") ||
           dr_starts(r->str, "ERR Unknown");
}

enum greet_result greet_step(struct greet *g, const redisReply *r, struct dr_err *err)
{
    bool asked = g->step == ROLE || g->step == MEMORY || g->step == NAME;
    if (r->type == REDIS_REPLY_ERROR && !(asked && forbidden(r))) {
        (void)dr_fail(err, DR_E_UNREACHABLE, "Redis: %.160s", r->str);
        return GREET_FAILED;
    }
    if ((g->step == ROLE && check_role(r, err)) || (g->step == MEMORY && check_memory(r, err)))
        return GREET_FAILED;
    g->step++;
    return prepare(g);
}
