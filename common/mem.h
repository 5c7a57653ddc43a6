/* Memory and secrets. dr_xalloc is for small objects of fixed size: running out of memory there
 * ends the process. Sizes that come from outside are bounded first and use dr_try_alloc, which
 * returns NULL. Any thread. */
#ifndef DR_COMMON_MEM_H
#define DR_COMMON_MEM_H

#include <stddef.h>

void *dr_xalloc(size_t size);               /* zeroed, never NULL */
void *dr_xarray(size_t count, size_t size); /* zeroed, overflow-checked, never NULL */
void *dr_xrealloc(void *p, size_t size);    /* never NULL */
char *dr_xstrdup(const char *s);            /* NULL in, NULL out */
char *dr_xstrndup(const char *s, size_t n);
char *dr_xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *dr_try_alloc(size_t size);    /* zeroed, NULL when there is no memory */
void dr_wipe(void *p, size_t size); /* overwrites, not optimised away */

/* A secret has one owner, no copy function, is kept out of core files, wiped on free. */
struct dr_secret {
    unsigned char *bytes;
    size_t len;
};
void dr_secret_set(struct dr_secret *s, const void *bytes, size_t len); /* replaces, NUL appended */
void dr_secret_free(struct dr_secret *s);

#define DR_CLEANUP(fn) __attribute__((cleanup(fn)))

#endif
