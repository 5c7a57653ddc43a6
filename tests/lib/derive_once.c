/* PBKDF2 once for the same input (ld --wrap): programs about the store open the same keyring
 * hundreds of times, and each time costs 100,000 rounds, under address sanitizer with several
 * allocations a round. Programs about derivation itself are linked without it. Any thread; children
 * share what is known, and one that is killed on the way leaves a place that nobody reads. */
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

int __real_PKCS5_PBKDF2_HMAC(const char *pass, int passlen, const unsigned char *salt, int saltlen,
                             int iter, const EVP_MD *digest, int keylen, unsigned char *out);
int __wrap_PKCS5_PBKDF2_HMAC(const char *pass, int passlen, const unsigned char *salt, int saltlen,
                             int iter, const EVP_MD *digest, int keylen, unsigned char *out);

enum { KNOWN_MAX = 64, FIELD_MAX = 128 };

struct input {
    int passlen, saltlen, iter, keylen, digest;
    unsigned char pass[FIELD_MAX], salt[FIELD_MAX];
};
static struct known {
    atomic_uint taken;
    struct place {
        atomic_bool whole;
        struct input input;
        unsigned char key[FIELD_MAX];
    } places[KNOWN_MAX];
} * known;

__attribute__((constructor)) static void share(void)
{
    void *p = mmap(NULL, sizeof *known, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    known = p == MAP_FAILED ? NULL : p;
}

int __wrap_PKCS5_PBKDF2_HMAC(const char *pass, int passlen, const unsigned char *salt, int saltlen,
                             int iter, const EVP_MD *digest, int keylen, unsigned char *out)
{
    struct input in;
    if (!known || passlen < 0 || passlen > FIELD_MAX || saltlen > FIELD_MAX || keylen > FIELD_MAX)
        return __real_PKCS5_PBKDF2_HMAC(pass, passlen, salt, saltlen, iter, digest, keylen, out);
    memset(&in, 0, sizeof in);
    in.passlen = passlen;
    in.saltlen = saltlen;
    in.iter = iter;
    in.keylen = keylen;
    in.digest = EVP_MD_get_type(digest);
    memcpy(in.pass, pass, (size_t)passlen);
    memcpy(in.salt, salt, (size_t)saltlen);
    for (size_t i = 0; i < KNOWN_MAX; i++) {
        const struct place *p = &known->places[i];
        if (atomic_load(&p->whole) && memcmp(&p->input, &in, sizeof in) == 0) {
            memcpy(out, p->key, (size_t)keylen);
            return 1;
        }
    }
    int ok = __real_PKCS5_PBKDF2_HMAC(pass, passlen, salt, saltlen, iter, digest, keylen, out);
    unsigned at = ok == 1 ? atomic_fetch_add(&known->taken, 1) : KNOWN_MAX;
    if (at < KNOWN_MAX) {
        known->places[at].input = in;
        memcpy(known->places[at].key, out, (size_t)keylen);
        atomic_store(&known->places[at].whole, true);
    }
    return ok;
}
