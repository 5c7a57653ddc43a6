/* What the files of the `file` row share: paths below the target's directory, publication, our
 * metadata. Blocking, for pool threads. Every open refuses symbolic links. */
#ifndef DR_WORKER_STORAGE_FILE_INTERNAL_H
#define DR_WORKER_STORAGE_FILE_INTERNAL_H

#include <sys/types.h>

#include "worker/storage/dialect.h"

#define FILE_UPLOADS ".dr-uploads" /* unfinished ones, below the directory, on its file system */

enum { FILE_KEY_MAX = 1024, FILE_DEPTH_MAX = 16, FILE_ID = 32, FILE_NAME_MAX = 48 };

extern const struct storage_dialect storage_file;

struct file_place { /* of an object, or of FILE_UPLOADS */
    int root, dir;  /* -1: not open */
    char name[256]; /* of the object in dir */
};
void file_place_close(struct file_place *p);

/* The class of errno for this operation, recorded. */
enum storage_class file_errno(const struct storage_call *c, struct dr_err *err, const char *what);
enum storage_class file_open_root(const struct storage_call *c, int *root, struct dr_err *err);
/* Opens the folder of call.key; make: creates what is missing and makes that last. NO_KEY. */
enum storage_class file_open_place(const struct storage_call *c, bool make, struct file_place *out,
                                   struct dr_err *err);
int file_open_uploads(int root, bool make); /* -1 with errno */
bool file_id_valid(const char *id);

bool file_write_all(int fd, const void *bytes, size_t len, off_t at);

/* Gives what stands in `fd`, named `temp` in `from`, its name: create-only or in place of another,
 * synced before and after, call.sha256 and label its extended attributes. EXISTS. The temporary
 * name is gone afterwards only if it succeeded. */
enum storage_class file_publish(const struct storage_call *c, int fd, int from, const char *temp,
                                const struct file_place *to, struct dr_err *err);

/* What was marked at publication as extended attributes, while size and time are those of then;
 * otherwise the object is read, and marked again where that is possible. */
enum storage_class file_hash(const struct storage_call *c, int fd, struct cancel *cancel,
                             struct storage_answer *out, struct dr_err *err);
void file_etag(const struct storage_answer *a, int64_t mtime_ns, uint64_t ino, char out[128]);

/* Unfinished uploads: file_upload.c. */
enum storage_class file_begin(const struct storage_call *c, struct storage_answer *out,
                              struct dr_err *err);
enum storage_class file_part(const struct storage_call *c, const void *payload,
                             struct storage_answer *out, struct dr_err *err);
enum storage_class file_parts(const struct storage_call *c, struct storage_answer *out,
                              struct dr_err *err);
enum storage_class file_complete(const struct storage_call *c, struct storage_answer *out,
                                 struct dr_err *err);
enum storage_class file_abort(const struct storage_call *c, struct dr_err *err);
enum storage_class file_uploads(const struct storage_call *c, struct storage_answer *out,
                                struct dr_err *err);

#endif
