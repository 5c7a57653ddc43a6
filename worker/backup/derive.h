/* Keys from keys and from secrets. Blocking (PBKDF2). Any thread. Source: formats.md 3. */
#ifndef DR_WORKER_BACKUP_DERIVE_H
#define DR_WORKER_BACKUP_DERIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/mem.h"

enum { DERIVE_KEY = 32, DERIVE_CODE_TEXT = 80 };
enum derive_kdf { DERIVE_PBKDF2_SHA256 = 1, DERIVE_PBKDF2_SHA512 = 2 }; /* as in a header */

/* derive(key, label, len): HKDF-SHA-512, empty salt, info "drworker/1/" label. */
enum dr_rc derive_key(const unsigned char key[DERIVE_KEY], const char *label, void *out, size_t len,
                      struct dr_err *err) DR_MUST_CHECK;
/* Rounds and salt were checked by the caller. */
enum dr_rc derive_kek(enum derive_kdf kdf, const void *secret, size_t secret_len, const void *salt,
                      size_t salt_len, unsigned rounds, unsigned char out[DERIVE_KEY],
                      struct dr_err *err) DR_MUST_CHECK;

/* Recovery code: DRK1-XXXXX-... of a 32-byte key. */
bool derive_is_code(const struct dr_secret *s);
enum dr_rc derive_code_text(const unsigned char key[DERIVE_KEY], char out[DERIVE_CODE_TEXT],
                            struct dr_err *err) DR_MUST_CHECK;
/* KEY, reason code-form or code-checksum. */
enum dr_rc derive_code_read(const void *text, size_t len, unsigned char key[DERIVE_KEY],
                            struct dr_err *err) DR_MUST_CHECK;
/* What PBKDF2 takes: the passphrase's bytes, or the key of the code. KEY as above, or wrong-secret
 * for a passphrase that is empty or over 1024 bytes. */
enum dr_rc derive_secret(const struct dr_secret *s, struct dr_secret *out,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
