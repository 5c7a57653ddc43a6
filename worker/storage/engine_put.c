/* Uploads. The file is read once, in order, by the pool: each piece is hashed for its request, and
 * all of them for the object, so that a file that is not what it should be is never completed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/core/pool.h"
#include "worker/storage/engine_internal.h"

enum { PARTS_WANTED = 9000, ABORT_MS = 30000, ROUND = 1 << 20 };

struct upload {
    struct engine *engine;
    const struct engine_put *p;
    struct engine_stored *stored;
    EVP_MD_CTX *whole;
    char *id;
    uint64_t part_bytes;
    bool begun;  /* there is something to abort, or to go on with */
    bool orphan; /* nobody would find it to go on with */
    struct storage_part *parts;
    size_t count;
    struct cancel *cancel;
};

struct piece { /* of the file; in memory until it is sent */
    struct upload *u;
    unsigned number;
    uint64_t offset;
    size_t len;
    unsigned char *bytes;
    unsigned char sha256[32];
};

static enum dr_rc changed(struct dr_err *err, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "the file is not what it was: %s", what);
    (void)dr_err_reason(err, "file-changed");
    return DR_E_INTEGRITY;
}

static enum dr_rc read_piece(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct piece *p = item;
    (void)cancel;
    if (p->offset == 0 && EVP_DigestInit_ex(p->u->whole, EVP_sha256(), NULL) != 1)
        return dr_fail(err, DR_E_CRYPTO, "hash");
    for (size_t done = 0; done < p->len;) {
        ssize_t n = pread(p->u->p->fd, p->bytes + done, p->len - done, (off_t)(p->offset + done));
        if (n == 0)
            return changed(err, "it became shorter");
        if (n < 0 && errno != EINTR)
            return dr_fail_errno(err, DR_E_IO, "read");
        done += n > 0 ? (size_t)n : 0;
    }
    if (EVP_Digest(p->bytes, p->len, p->sha256, NULL, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(p->u->whole, p->bytes, p->len) != 1)
        return dr_fail(err, DR_E_CRYPTO, "hash");
    return DR_OK;
}

static enum dr_rc load(struct upload *u, struct piece *p, struct dr_err *err)
{
    p->u = u;
    p->bytes = dr_try_alloc(p->len ? p->len : 1);
    if (!p->bytes)
        return dr_fail(err, DR_E_NOMEM, "put %s: %zu bytes", u->p->key, p->len);
    return pool_run(u->engine->o.pool, read_piece, p, u->cancel, err);
}

/* All of it was read: is it what it should be? */
static enum dr_rc judge_file(struct upload *u, struct dr_err *err)
{
    unsigned char sum[32];
    if (EVP_DigestFinal_ex(u->whole, sum, NULL) != 1)
        return dr_fail(err, DR_E_CRYPTO, "hash");
    if (memcmp(sum, u->p->sha256, sizeof sum) == 0)
        return DR_OK;
    return changed(err, u->p->key);
}

static struct storage_call prepare(struct upload *u, enum storage_op op)
{
    struct storage_call c = engine_prepare(u->engine, op, u->p->key);
    c.size = u->p->size;
    c.label = u->p->label;
    c.create_only = u->p->create_only;
    c.upload_id = u->id;
    memcpy(c.sha256, u->p->sha256, sizeof c.sha256);
    return c;
}

static void note_stored(struct upload *u, const struct storage_answer *a)
{
    memcpy(u->stored->etag, a->etag, sizeof a->etag);
    memcpy(u->stored->version_id, a->version_id, sizeof a->version_id);
}

/* Somebody's answer got lost, or another worker was faster: is our object there? */
static bool is_there(struct upload *u)
{
    struct storage_answer a;
    bool ours = engine_head(u->engine, u->p->key, u->cancel, &a, NULL) == DR_OK &&
                a.size == u->p->size && a.has_sha256 &&
                memcmp(a.sha256, u->p->sha256, sizeof a.sha256) == 0;
    if (ours) {
        note_stored(u, &a);
        u->stored->already = true;
    }
    storage_answer_fini(&a);
    return ours;
}

static enum dr_rc put_whole(struct upload *u, struct dr_err *err)
{
    struct piece p = {.len = (size_t)u->p->size};
    struct storage_call c = prepare(u, STORAGE_PUT);
    struct storage_answer a = {0};
    enum storage_class class = STORAGE_PERMANENT;
    struct dr_err why = {0};
    enum dr_rc rc = load(u, &p, &why);
    if (!rc)
        rc = judge_file(u, &why);
    if (!rc) {
        c.length = p.len;
        memcpy(c.payload.sha256, p.sha256, sizeof p.sha256);
        rc = engine_call(u->engine, &c, p.bytes, NULL, u->cancel, &a, &class, &why);
    }
    if (!rc)
        note_stored(u, &a);
    else if (class == STORAGE_EXISTS && is_there(u))
        rc = DR_OK;
    storage_answer_fini(&a);
    free(p.bytes);
    if (rc && err && !err->rc)
        *err = why;
    return rc;
}

static enum dr_rc begin(struct upload *u, struct dr_err *err)
{
    unsigned char random[16];
    char token[33];
    struct storage_answer a;
    enum storage_class class;
    struct storage_call c = prepare(u, STORAGE_BEGIN);
    dr_random_bytes(random, sizeof random);
    dr_hex(random, sizeof random, token);
    c.token = token;
    enum dr_rc rc = engine_call(u->engine, &c, NULL, NULL, u->cancel, &a, &class, err);
    if (!rc) {
        u->id = dr_xstrdup(a.upload_id ? a.upload_id : token);
        u->begun = true;
    }
    storage_answer_fini(&a);
    if (!rc && u->p->journal)
        rc = u->p->journal->begun(u->p->journal->arg, u->id, u->part_bytes, err);
    u->orphan = rc != DR_OK;
    return rc;
}

static void divide(struct upload *u, uint64_t part_bytes)
{
    uint64_t least = (u->p->size + PARTS_WANTED - 1) / PARTS_WANTED;
    u->part_bytes = part_bytes;
    if (part_bytes < least)
        u->part_bytes = (least + ROUND - 1) / ROUND * ROUND;
    u->count = (size_t)((u->p->size + u->part_bytes - 1) / u->part_bytes);
    free(u->parts);
    u->parts = dr_xarray(u->count + 1, sizeof *u->parts);
}

static enum dr_rc list_parts(struct upload *u, enum storage_class *class, struct dr_err *err)
{
    char *after = NULL;
    enum dr_rc rc;
    do {
        struct storage_answer a;
        struct storage_call c = prepare(u, STORAGE_LIST_PARTS);
        c.after = after;
        rc = engine_call(u->engine, &c, NULL, NULL, u->cancel, &a, class, err);
        for (size_t i = 0; !rc && i < a.part_count; i++)
            if (a.parts[i].number <= u->count)
                u->parts[a.parts[i].number - 1] = a.parts[i];
        free(after);
        after = a.next;
        a.next = NULL;
        storage_answer_fini(&a);
    } while (!rc && after);
    free(after);
    return rc;
}

/* What the journaled upload has already. It may be gone: completed before a crash, or ended. */
static enum dr_rc take_up(struct upload *u, struct dr_err *err)
{
    const struct engine_put *p = u->p;
    enum storage_class class;
    struct dr_err why = {0};
    if (!p->resume_id || !p->resume_part_bytes || p->size / p->resume_part_bytes >= 10000)
        return DR_OK;
    divide(u, p->resume_part_bytes);
    u->id = dr_xstrdup(p->resume_id);
    enum dr_rc rc = list_parts(u, &class, &why);
    u->begun = u->stored->resumed = rc == DR_OK;
    if (!rc)
        return DR_OK;
    if (class == STORAGE_NO_UPLOAD) {
        rc = DR_OK;
        if (!is_there(u)) {
            free(u->id);
            u->id = NULL;
        }
    } else if (err && !err->rc) {
        *err = why;
    }
    return rc;
}

static enum dr_rc send_piece(void *arg, struct dr_err *err)
{
    struct piece *p = arg;
    struct upload *u = p->u;
    struct storage_call c = prepare(u, STORAGE_PART);
    struct storage_part *part = &u->parts[p->number - 1];
    struct storage_answer a;
    enum storage_class class;
    c.part_number = p->number;
    c.offset = p->offset;
    c.length = p->len;
    memcpy(c.payload.sha256, p->sha256, sizeof p->sha256);
    enum dr_rc rc = engine_call(u->engine, &c, p->bytes, NULL, u->cancel, &a, &class, err);
    *part = (struct storage_part){.number = p->number, .offset = p->offset, .length = p->len};
    memcpy(part->sha256, p->sha256, sizeof part->sha256);
    memcpy(part->etag, a.etag, sizeof part->etag);
    part->has_sha256 = true;
    storage_answer_fini(&a);
    free(p->bytes);
    p->bytes = NULL;
    return rc;
}

static bool kept(struct upload *u, const struct piece *p)
{
    struct storage_part *have = &u->parts[p->number - 1];
    if (have->number != p->number || have->length != p->len || !have->has_sha256 ||
        memcmp(have->sha256, p->sha256, sizeof p->sha256) != 0)
        return false;
    have->offset = p->offset;
    u->stored->kept_parts++;
    return true;
}

static enum dr_rc send_parts(struct upload *u, struct dr_err *err)
{
    struct piece *pieces = dr_xarray(u->count + 1, sizeof *pieces);
    struct cancel *outer = u->cancel;
    struct dr_err why = {0};
    struct fiber_group g;
    unsigned limit = engine_at_once(u->engine, u->part_bytes);
    enum dr_rc rc = DR_OK;
    /* one more is read while so many are under way */
    fiber_group_init(&g, u->engine->o.loop, limit > 1 ? limit - 1 : 1, outer);
    u->cancel = &g.cancel;
    for (size_t i = 0; i < u->count && !rc && !g.err.rc; i++) {
        struct piece *p = &pieces[i];
        p->number = (unsigned)i + 1;
        p->offset = i * u->part_bytes;
        uint64_t left = u->p->size - p->offset;
        p->len = (size_t)(left < u->part_bytes ? left : u->part_bytes);
        rc = load(u, p, &why);
        if (!rc && kept(u, p)) {
            free(p->bytes);
            p->bytes = NULL;
        } else if (!rc) {
            fiber_group_go(&g, send_piece, p);
        }
    }
    if (g.err.rc) /* a part failed, and that ended the reading */
        rc = DR_OK;
    if (rc)
        cancel_fire(&g.cancel, DR_E_CANCELLED, "the file cannot be read");
    enum dr_rc sent = fiber_group_wait(&g, rc ? NULL : err);
    if (rc && err && !err->rc)
        *err = why;
    u->cancel = outer;
    for (size_t i = 0; i < u->count; i++)
        free(pieces[i].bytes);
    free(pieces);
    return rc ? rc : sent;
}

static enum dr_rc complete(struct upload *u, struct dr_err *err)
{
    struct storage_call c = prepare(u, STORAGE_COMPLETE);
    struct storage_answer a;
    enum storage_class class;
    struct dr_err why = {0};
    c.parts = u->parts;
    c.part_count = u->count;
    enum dr_rc rc = engine_call(u->engine, &c, NULL, NULL, u->cancel, &a, &class, &why);
    if (!rc)
        note_stored(u, &a);
    else if ((class == STORAGE_EXISTS || class == STORAGE_NO_UPLOAD) && is_there(u))
        rc = DR_OK; /* ours: its answer was lost */
    if (!rc && !u->stored->already)
        u->begun = false;
    storage_answer_fini(&a);
    if (rc && err && !err->rc)
        *err = why;
    return rc;
}

/* With time of its own: the job may have been cancelled. */
static void give_up(struct upload *u)
{
    struct cancel fresh;
    cancel_init(&fresh, u->engine->o.loop);
    cancel_deadline(&fresh, ABORT_MS);
    enum dr_rc rc = engine_abort(u->engine, u->p->key, u->id, &fresh, NULL);
    cancel_fini(&fresh);
    if (rc == DR_OK && u->p->journal)
        u->p->journal->ended(u->p->journal->arg);
}

static void end_upload(struct upload *u, enum dr_rc rc)
{
    bool may_pass = dr_rc_class(rc) == DR_CLASS_RETRY || dr_rc_class(rc) == DR_CLASS_CANCELLED;
    if (!u->begun) {
        if (rc == DR_OK && u->p->journal && u->id)
            u->p->journal->ended(u->p->journal->arg);
    } else if (rc == DR_OK || !may_pass || !u->p->journal || u->orphan) {
        give_up(u);
    }
}

static bool upload_is_gone(enum dr_rc rc, const struct dr_err *err)
{
    return rc == DR_E_NOT_FOUND && strcmp(err->reason, storage_class_text(STORAGE_NO_UPLOAD)) == 0;
}

static enum dr_rc put_parts_once(struct upload *u, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    if (!u->id) {
        divide(u, u->engine->o.part_bytes);
        rc = begin(u, err);
    }
    u->stored->parts = (unsigned)u->count;
    if (!rc)
        rc = send_parts(u, err);
    if (!rc)
        rc = judge_file(u, err);
    return rc ? rc : complete(u, err);
}

static enum dr_rc put_parts(struct upload *u, struct dr_err *err)
{
    struct dr_err why = {0};
    enum dr_rc rc = take_up(u, &why);
    if (!rc && !u->stored->already)
        rc = put_parts_once(u, &why);
    if (upload_is_gone(rc, &why)) { /* ended by a rule of the bucket, or by somebody: once more */
        free(u->id);
        u->id = NULL;
        u->begun = false;
        u->stored->kept_parts = 0;
        u->stored->resumed = false;
        dr_err_clear(&why);
        rc = put_parts_once(u, &why);
    }
    end_upload(u, rc);
    free(u->id);
    free(u->parts);
    if (rc && err && !err->rc)
        *err = why;
    return rc;
}

enum dr_rc engine_put(struct engine *e, const struct engine_put *p, struct cancel *cancel,
                      struct engine_stored *out, struct dr_err *err)
{
    struct dr_err own = {0}, *er = err ? err : &own;
    struct upload u = {.engine = e, .p = p, .stored = out, .cancel = cancel};
    enum dr_rc rc = DR_OK;
    memset(out, 0, sizeof *out);
    u.whole = EVP_MD_CTX_new();
    if (!u.whole)
        rc = dr_fail(er, DR_E_NOMEM, "hash");
    if (!rc)
        rc = p->size <= e->o.whole_bytes ? put_whole(&u, er) : put_parts(&u, er);
    EVP_MD_CTX_free(u.whole);
    return rc;
}
