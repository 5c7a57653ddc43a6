/* What a store said, as data: the reply as it came, the class of what went wrong, and the fields
 * that an operation asks for. Owned by the caller of a row's parse; one owner, any thread. */
#ifndef DR_WORKER_STORAGE_ANSWER_H
#define DR_WORKER_STORAGE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* One row a class: what the engine does about it stands in classes.def. */
enum storage_class {
#define STORAGE_CLASS(NAME, rc, act, text) STORAGE_##NAME,
#include "worker/storage/classes.def"
#undef STORAGE_CLASS
};

enum storage_act {
    STORAGE_ACT_NONE,    /* it is done, or trying again changes nothing */
    STORAGE_ACT_RETRY,   /* backoff with full jitter, Retry-After, from the run's budget */
    STORAGE_ACT_SLOW,    /* the same with the long cap: the store asks for it */
    STORAGE_ACT_RESIGN,  /* once: the clock, region or token that the answer taught, then again */
    STORAGE_ACT_RESTART, /* the upload is unknown: is the object there? else begin it anew */
};

const char *storage_class_text(enum storage_class c); /* "clock-skew": also the error's reason */
enum storage_act storage_class_act(enum storage_class c);
enum dr_rc storage_class_rc(enum storage_class c);
/* Records the class's kind with its text as reason; returns c, so that it is one line. */
enum storage_class storage_fail(struct dr_err *err, enum storage_class c, const char *fmt, ...)
    DR_PRINTF(3, 4);

struct storage_reply { /* borrowed */
    unsigned status;
    const char *(*field)(const void *head,
                         const char *name); /* of a header, in any case; or NULL */
    const void *head;
    int64_t date_unix_s;    /* its Date; 0: none */
    uint64_t retry_after_s; /* 0: none */
    const void *body;       /* bounded by the request; empty where the bytes went to the caller */
    size_t body_len;
};
const char *storage_reply_field(const struct storage_reply *r, const char *name);

struct storage_part { /* one that the store has, as journaled and as listed */
    unsigned number;  /* from 1 */
    uint64_t offset, length;
    unsigned char sha256[32];
    bool has_sha256; /* the store told it, or we know it */
    char etag[128];  /* as it came, quotes included; Azure: the block's id */
};

struct storage_entry { /* of a listing: an object, or an upload that was begun */
    char *key;         /* without the target's prefix */
    char *upload_id;   /* of LIST_UPLOADS; else NULL */
    uint64_t size;
    int64_t at_unix_s; /* written, or begun; 0: not told */
};

enum { STORAGE_LABEL_MAX = 128 };

struct storage_answer {
    unsigned status;
    int64_t date_unix_s;    /* the store's clock; 0: not told */
    uint64_t retry_after_s; /* 0: not told */
    /* PUT, COMPLETE, HEAD, GET */
    uint64_t size; /* of the whole object; HEAD and GET */
    bool has_size, has_sha256;
    unsigned char sha256[32];          /* ours, from the metadata: of the whole object */
    char label[STORAGE_LABEL_MAX + 1]; /* ours, from the metadata */
    char etag[128];                    /* PUT, PART, HEAD, GET; as it came */
    char version_id[128];              /* "": the bucket keeps none */
    /* BEGIN */
    char *upload_id;
    /* PART and LIST_PARTS of rows with PARTS_IN_ORDER: bytes kept so far, may be less than sent */
    uint64_t kept;
    bool completed; /* such a row's last part made the object */
    /* LIST_PARTS */
    struct storage_part *parts;
    size_t part_count;
    /* LIST, LIST_UPLOADS */
    struct storage_entry *entries;
    size_t entry_count;
    char *next; /* the next page's `after`; NULL: this was the last one */
    /* AUTHORISE */
    char *token; /* wiped on fini */
    int64_t token_until_unix_s;
    /* class REGION: where the bucket is; "": not told, or not to be believed */
    char region[64];
    char host[256];
};
void storage_answer_fini(struct storage_answer *a); /* leaves it zeroed */

#endif
