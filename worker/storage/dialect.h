/* What a provider is: one row of pure functions that write a request and read a reply. No I/O, no
 * clock, no globals; any thread. One engine does the rest for all of them: flow, parts in flight,
 * retry by class, resume, abort. A row is one file or a few, and one line in dialects.def.
 *
 * How the providers that come later fit: their rows and the flags below, no other interface.
 *
 * azure_blob: BEGIN and ABORT send nothing (method NULL): the upload is call.token, each block's id
 * base64(token || part number), equally long. PART: Put Block with x-ms-content-crc64 (needs
 * CRC64). LIST_PARTS: Get Block List, uncommitted, those with our token. COMPLETE: Put Block List
 * from call.parts, with If-None-Match and x-ms-meta-*. LIST_UPLOADS: List Blobs with
 * include=uncommittedblobs; what nobody commits goes by itself after a week. SharedKey is signed in
 * build, a SAS goes to the query.
 *
 * google_cloud: PARTS_IN_ORDER | LAST_COMPLETES | TOKEN, part_multiple 256 KiB. AUTHORISE: the
 * RS256 assertion as a POST, its answer is call.bearer. BEGIN: uploadType=resumable with
 * ifGenerationMatch=0, metadata and crc32c; the Location is the upload_id. PART: PUT to it with
 * Content-Range; 308 and its Range say `kept`, 200 says `completed`. LIST_PARTS: PUT that asks for
 * the offset. COMPLETE sends nothing. ABORT: DELETE, 499 is OK. LIST_UPLOADS sends nothing and is
 * an empty page: sessions end after a week. PUT: multipart/related, `before` holds JSON and
 * boundary, then the payload, `after` the last boundary.
 *
 * file: `local` in place of build and parse: the same call, the same answer, but run() on a pool
 * thread. A directory has no protocol that could be written down as text; what it shares with the
 * others is everything around a call. As a row a NAS is retried, resumed, journaled and confirmed
 * by the very code that serves buckets. */
#ifndef DR_WORKER_STORAGE_DIALECT_H
#define DR_WORKER_STORAGE_DIALECT_H

#include "common/buf.h"
#include "worker/core/cancel.h"
#include "worker/storage/answer.h"
#include "worker/storage/target.h"

enum storage_op {              /* answers: see storage_answer */
                  STORAGE_PUT, /* a whole object in one request */
                  STORAGE_BEGIN,
                  STORAGE_PART,
                  STORAGE_COMPLETE,
                  STORAGE_ABORT, /* of an upload that is unknown: OK */
                  STORAGE_LIST_PARTS,
                  STORAGE_GET, /* a range; the bytes go to the caller */
                  STORAGE_HEAD,
                  STORAGE_LIST, /* a page; stale and reordered pages are expected of some */
                  STORAGE_LIST_UPLOADS,
                  STORAGE_DELETE, /* of an object that is not there: OK */
                  STORAGE_AUTHORISE,
};

struct storage_digests { /* of the payload of one request; a row says which it needs */
    unsigned char sha256[32];
    uint64_t crc64; /* CRC-64/NVME */
    uint32_t crc32c;
};

struct storage_call { /* borrowed until build and parse have returned */
    enum storage_op op;
    const struct storage_target *target;
    const struct storage_route *route; /* never NULL */
    int64_t now_unix_s;                /* the store's clock, as well as we know it */
    const char *bearer;                /* of rows with TOKEN */
    const char *key;                   /* without the target's prefix; of listings: its beginning */
    uint64_t size;                     /* of the whole object: PUT, BEGIN, PART, COMPLETE */
    uint64_t offset, length; /* payload of PUT and PART; range of GET, length 0: all of it */
    struct storage_digests payload;
    unsigned char sha256[32];         /* of the whole object: goes to the metadata */
    const char *label;                /* printable ASCII, goes to the metadata; NULL: none */
    bool create_only;                 /* PUT, COMPLETE: EXISTS rather than replace */
    const char *etag;                 /* GET: of this version, else CHANGED; NULL: any */
    const char *token;                /* BEGIN: 32 random hex digits of the engine's */
    const char *upload_id;            /* PART to LIST_PARTS */
    unsigned part_number;             /* PART: from 1 */
    const struct storage_part *parts; /* COMPLETE: all, in order */
    size_t part_count;
    const char *after; /* LIST_PARTS, LIST, LIST_UPLOADS: answer.next of the page before; or NULL */
    unsigned page_max; /* 0: as many as the store gives */
};

struct storage_request {
    const char *method; /* static; NULL: nothing to send, the answer is an empty OK */
    char *url;          /* as it goes over the wire: not to be normalised */
    char **fields;      /* "Name: value", NULL-ended; holds secrets, wiped on fini */
    size_t field_count;
    struct dr_buf before, after; /* sent around the payload; their lengths count */
    bool payload;                /* call.length bytes from call.offset are sent */
    bool body_to_caller;         /* a 2xx's body is object data; others still go to parse */
    size_t answer_max;           /* of a body that goes to parse */
};
void storage_request_fini(struct storage_request *r);

enum storage_flag {
    STORAGE_PARTS_IN_ORDER = 1, /* one part at a time, the next one begins at answer.kept */
    STORAGE_LAST_COMPLETES = 2, /* no COMPLETE */
    STORAGE_TOKEN = 4,          /* AUTHORISE before the first call and a minute before its end */
    STORAGE_NEEDS_CRC64 = 8,
    STORAGE_NEEDS_CRC32C = 16,
};

struct storage_local { /* a pool thread calls it; blocking; comes back soon once cancelled */
    /* PUT, PART: call.length bytes at `payload`. GET: into `into`, which has room for length. */
    enum storage_class (*run)(const struct storage_call *c, const void *payload, void *into,
                              struct cancel *cancel, struct storage_answer *out,
                              struct dr_err *err);
};

struct storage_dialect {
    const char *provider;
    unsigned flags;                                      /* enum storage_flag */
    uint64_t put_max, part_min, part_max, part_multiple; /* bytes; the last part may be smaller */
    unsigned parts_max;
    /* The settings before the first call: CONFIG names field and value. */
    enum dr_rc (*check)(const struct storage_target *t, struct dr_err *err);
    /* Writes the request. BUG, or INVALID for a key that this provider cannot hold. */
    enum dr_rc (*build)(const struct storage_call *c, struct storage_request *out,
                        struct dr_err *err);
    /* Reads a reply of any status and any bytes; fills out, or err with the class's kind. The
     * caller calls storage_answer_fini always. Never OK for what is not a complete answer. */
    enum storage_class (*parse)(const struct storage_call *c, const struct storage_reply *r,
                                struct storage_answer *out, struct dr_err *err);
    const struct storage_local *local; /* in place of build and parse; else NULL */
};
const struct storage_dialect *storage_dialect_find(const char *provider); /* NULL: none */

#endif
