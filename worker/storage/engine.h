/* What is done with a store, for every dialect alike: one call with its repeats, objects in one or
 * many requests, downloads by ranges, listings. Loop thread, in fibers; files are read, hashed and
 * written in the pool. One engine a target.
 *
 * Repeats: by the class of the answer (classes.def), full jitter below a doubling cap, Retry-After
 * honoured, from a budget that all calls of a run share. Errors carry the class's text as reason;
 * those of worker/core/http pass through (a certificate: AUTH, reason certificate). */
#ifndef DR_WORKER_STORAGE_ENGINE_H
#define DR_WORKER_STORAGE_ENGINE_H

#include "worker/core/cancel.h"
#include "worker/storage/dialect.h"

struct engine;
struct http;
struct loop;
struct pool;

struct engine_options { /* borrowed as long as the engine; 0 is the default in brackets */
    struct loop *loop;
    struct pool *pool;
    struct http *http; /* of this engine alone; NULL: the row is local */
    const struct storage_dialect *dialect;
    const struct storage_target *target;
    uint64_t whole_bytes;  /* up to here in one request [32 MiB] */
    uint64_t part_bytes;   /* [16 MiB]; grows so that 9,000 parts suffice */
    uint64_t memory_bytes; /* of parts that are read or under way [96 MiB]; one always is */
    unsigned at_once;      /* parts or ranges [4] */
    unsigned tries;        /* of one call [8] */
    unsigned budget;       /* repeats of all calls until engine_refill [200] */
    uint64_t backoff_ms, backoff_cap_ms, slow_cap_ms; /* [200 ms, 20 s, 120 s] */
    uint64_t min_bytes_s; /* deadline of a request: 30 s and its bytes at this rate [32 KiB] */
    uint64_t stall_ms;    /* fewer than 1 KiB/s over so long ends a request [60 s] */
    uint64_t max_bytes_s; /* of all transfers together [none] */
};
/* CONFIG: what the row's check says. BUG for a row with flags (parts in order, tokens, CRCs): the
 * interface has them, this engine does not honour them yet. */
enum dr_rc engine_new(const struct engine_options *o, struct engine **out,
                      struct dr_err *err) DR_MUST_CHECK;
void engine_free(struct engine *e);   /* nothing may be under way; NULL is allowed */
void engine_refill(struct engine *e); /* a new run: the whole budget again */

struct engine_numbers { /* since the start */
    uint64_t requests, repeats, sent_bytes, received_bytes;
    int64_t clock_ahead_s; /* of the store, as its last Date said */
};
void engine_look(const struct engine *e, struct engine_numbers *out);

struct engine_journal { /* of one upload; called in the fiber */
    void *arg;
    /* Before the first part is sent. An error ends the upload. */
    enum dr_rc (*begun)(void *arg, const char *upload_id, uint64_t part_bytes, struct dr_err *err);
    void (*ended)(void *arg); /* completed or aborted: nothing is left to go on with */
};

struct engine_put {
    const char *key, *label;
    int fd;                      /* read by offset from 0 */
    uint64_t size;               /* of the file */
    const unsigned char *sha256; /* what the file must be; goes to the metadata */
    bool create_only;
    const struct engine_journal *journal; /* NULL: an upload that fails is always aborted */
    const char *resume_id;                /* as journaled; NULL: none */
    uint64_t resume_part_bytes;
};
struct engine_stored {
    bool already;               /* the very object was there */
    bool resumed;               /* the journaled upload was gone on with */
    unsigned parts, kept_parts; /* kept: found there and not sent */
    char etag[128], version_id[128];
};
/* DR_OK: the store took exactly these bytes. INTEGRITY, reason file-changed: the file is not what
 * sha256 says, nothing was completed. EXISTS: create_only and another object is there. A failure
 * that may pass keeps a journaled upload, any other aborts what was begun. */
enum dr_rc engine_put(struct engine *e, const struct engine_put *p, struct cancel *cancel,
                      struct engine_stored *out, struct dr_err *err) DR_MUST_CHECK;

/* Size, hash and label of an object. NOT_FOUND, reason no-object or no-bucket. */
enum dr_rc engine_head(struct engine *e, const char *key, struct cancel *cancel,
                       struct storage_answer *out, struct dr_err *err) DR_MUST_CHECK;
/* Fills fd from offset 0. INTEGRITY: the object has another size, or its bytes another hash, or it
 * changed meanwhile; what was written is then worth nothing. Not synced. */
enum dr_rc engine_get(struct engine *e, const char *key, int fd, uint64_t size,
                      const unsigned char sha256[32], struct cancel *cancel,
                      struct dr_err *err) DR_MUST_CHECK;
enum dr_rc engine_delete(struct engine *e, const char *key, struct cancel *cancel,
                         struct dr_err *err) DR_MUST_CHECK;

typedef enum dr_rc engine_entry_fn(void *arg, const struct storage_entry *entry,
                                   struct dr_err *err);
/* Every object, or every unfinished upload, whose key begins so. fn may suspend; its error ends. */
enum dr_rc engine_list(struct engine *e, const char *prefix, struct cancel *cancel,
                       engine_entry_fn *fn, void *arg, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc engine_list_uploads(struct engine *e, const char *prefix, struct cancel *cancel,
                               engine_entry_fn *fn, void *arg, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc engine_abort(struct engine *e, const char *key, const char *upload_id,
                        struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

#endif
