/* What the files of the aws_s3 dialect share. Pure, any thread. */
#ifndef DR_WORKER_STORAGE_S3_INTERNAL_H
#define DR_WORKER_STORAGE_S3_INTERNAL_H

#include "worker/storage/dialect.h"

#define S3_META_SHA256 "x-amz-meta-dr-sha256"
#define S3_META_LABEL  "x-amz-meta-dr-label"

enum { S3_HOST_MAX = 320, S3_KEY_MAX = 1024, S3_UPLOAD_ID_MAX = 2048, S3_PARTS_MAX = 10000 };

struct s3_place {           /* where a call goes, from target and route */
    char host[S3_HOST_MAX]; /* [bucket.]host[:port], the port unless it is the scheme's own */
    char region[64];        /* of the signature */
    bool plain, bucket_in_path;
};
/* CONFIG: names the setting that is wrong. */
enum dr_rc s3_place(const struct storage_target *t, const struct storage_route *route,
                    struct s3_place *out, struct dr_err *err) DR_MUST_CHECK;
/* May a redirect send us from where we are to host[:port]? The same host, one below it, or AWS to
 * AWS: the signature is worth nothing elsewhere, but the data would be. */
bool s3_redirect_allowed(const struct s3_place *from, const char *host);

extern const struct storage_dialect storage_aws_s3;
enum dr_rc s3_check(const struct storage_target *t, struct dr_err *err);
enum dr_rc s3_build(const struct storage_call *c, struct storage_request *out, struct dr_err *err);
enum storage_class s3_parse(const struct storage_call *c, const struct storage_reply *r,
                            struct storage_answer *out, struct dr_err *err);

/* Bodies of the answers that are XML: a class, and err with the reason. */
enum storage_class s3_read_error(const struct storage_call *c, const struct storage_reply *r,
                                 struct storage_answer *out, struct dr_err *err);
enum storage_class s3_read_begin(const struct storage_reply *r, struct storage_answer *out,
                                 struct dr_err *err);
enum storage_class s3_read_complete(const struct storage_call *c, const struct storage_reply *r,
                                    struct storage_answer *out, struct dr_err *err);
enum storage_class s3_read_parts(const struct storage_call *c, const struct storage_reply *r,
                                 struct storage_answer *out, struct dr_err *err);
/* LIST and LIST_UPLOADS. */
enum storage_class s3_read_page(const struct storage_call *c, const struct storage_reply *r,
                                struct storage_answer *out, struct dr_err *err);

/* base64 of SHA-256: 44 characters and NUL. */
void s3_base64(const unsigned char sha256[32], char out[45]);
bool s3_unbase64(const char *text, unsigned char sha256[32]);
/* SHA-256 over the parts' hashes, base64, "-count": what a store tells of a multipart object. */
void s3_composite(const struct storage_part *parts, size_t count, char out[64]);
/* The marker of a page of uploads is two texts in one. */
void s3_marker_join(struct dr_buf *out, const char *key, const char *upload_id);
bool s3_marker_split(const char *marker, char *key, size_t key_size, char *upload_id,
                     size_t upload_size);

#endif
