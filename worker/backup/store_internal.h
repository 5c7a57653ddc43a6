/* Shared by the parts of the store. */
#ifndef DR_WORKER_BACKUP_STORE_INTERNAL_H
#define DR_WORKER_BACKUP_STORE_INTERNAL_H

#include <pthread.h>

#include "worker/backup/store.h"
#include "worker/backup/trash.h"

enum { STORE_FORMER_MAX = 64, STORE_LOCK_WAIT_MS = 60000 };

struct store_item {
    struct store_entry entry; /* entry.bad: why its manifest was not believed when last read */
    bool loaded, purged;
    unsigned key_generation;
    struct store_pin *pin;        /* owned; NULL: not pinned */
    char (*bases)[NAMES_ID_SIZE]; /* owned: the other backups its chain needs */
    unsigned base_count;
};

struct store {
    char *path;
    int dirfd;
    char id[33];
    struct keyring *_Atomic keys;
    pthread_mutex_t mutex;            /* guards what follows; never held while waiting for a lock */
    unsigned char keyring_sha256[32]; /* of keyring.json as last read */
    struct keyring *former[STORE_FORMER_MAX]; /* replaced, but borrowed by whoever asked before */
    unsigned former_count;
    struct catalog_head head;
    uint64_t about;                /* newest record about a backup, or about what becomes of them */
    char policy[STORE_POLICY_MAX]; /* of retention, as last applied; "": never */
    struct store_item *items;      /* in the catalog's order */
    size_t count, cap;             /* cap: a power of two */
    size_t *slots, slot_count;     /* by id: place in items + 1; 0: free */
};

/* store.c */
enum dr_rc store_lock_catalog(struct store *s, int *fd, struct dr_err *err) DR_MUST_CHECK;

/* store_keys.c: another process changed the slots of keyring.json; renewed says whether it did. */
enum dr_rc store_renew_keys(struct store *s, bool *renewed, struct dr_err *err) DR_MUST_CHECK;

/* store_state.c: all with the mutex held. */
/* Reads head and new records; manifests of new items. INTEGRITY when the catalog went back. */
enum dr_rc store_refresh(struct store *s, struct dr_err *err) DR_MUST_CHECK;
void store_load_manifests(struct store *s);
struct store_item *store_find(struct store *s, const char *backup_id); /* NULL: none */
void store_forget(struct store *s);                                    /* all items */
/* Some manifest's generation is above the head's: INTEGRITY, head-generation. */
enum dr_rc store_check_generation(struct store *s, struct dr_err *err) DR_MUST_CHECK;
/* Folders of backups/ that no record names. */
enum dr_rc store_each_unrecorded(struct store *s,
                                 enum dr_rc (*fn)(void *arg, const char *id, struct dr_err *err),
                                 void *arg, struct dr_err *err) DR_MUST_CHECK;

/* handle.c: manifest of <folder>/<backup_id>, verified. NOT_FOUND: no such folder. */
enum dr_rc handle_read_manifest(struct store *s, const char *folder, const char *backup_id,
                                struct manifest **out, unsigned char sha256[32],
                                struct dr_err *err) DR_MUST_CHECK;

/* Whether a pin holds at that time; it may have an end. */
bool store_is_pinned(const struct store_item *it, int64_t now_ms);

/* store_trash.c: with the catalog lock held. Folders of backups that somebody was killed over go
 * where the catalog says; what cannot go is logged and stays. */
void store_settle_folders(struct store *s);

/* store_publish.c: with the catalog lock held. */
enum dr_rc store_adopt_all(struct store *s, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc store_append_locked(struct store *s, const struct keyring *keys, const char *type,
                               const char *backup_id, const char *data_json,
                               struct dr_err *err) DR_MUST_CHECK;

#endif
