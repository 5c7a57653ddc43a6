/* Allocation and secrets. Secrets lie in pages of their own: MADV_DONTDUMP, mlock where allowed. */
#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *must(void *p)
{
    if (!p) {
        static const char text[] = "out of memory\n";
        ssize_t ignored = write(2, text, sizeof text - 1);
        (void)ignored;
        abort();
    }
    return p;
}

void *dr_xalloc(size_t size)
{
    return must(calloc(1, size ? size : 1));
}

void *dr_xarray(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1));
}

void *dr_xrealloc(void *p, size_t size)
{
    return must(realloc(p, size ? size : 1));
}

char *dr_xstrdup(const char *s)
{
    return s ? must(strdup(s)) : NULL;
}

char *dr_xstrndup(const char *s, size_t n)
{
    return must(strndup(s, n));
}

char *dr_xasprintf(const char *fmt, ...)
{
    char *out = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    return must(n < 0 ? NULL : out);
}

void *dr_try_alloc(size_t size)
{
    return calloc(1, size ? size : 1);
}

void dr_wipe(void *p, size_t size)
{
    if (p)
        explicit_bzero(p, size);
}

static size_t pages(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (len + 1 + page - 1) / page * page;
}

void dr_secret_set(struct dr_secret *s, const void *bytes, size_t len)
{
    dr_secret_free(s);
    size_t size = pages(len);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(p == MAP_FAILED ? NULL : p);
    (void)madvise(p, size, MADV_DONTDUMP);
    (void)mlock(p, size); /* not allowed everywhere: then it may swap */
    if (len)
        memcpy(p, bytes, len);
    s->bytes = p;
    s->len = len;
}

void dr_secret_free(struct dr_secret *s)
{
    if (s->bytes) {
        dr_wipe(s->bytes, s->len);
        (void)munmap(s->bytes, pages(s->len));
    }
    s->bytes = NULL;
    s->len = 0;
}
