/* Clocks and the kernel's random numbers. */
#include "common/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    if (clock_gettime(id, &ts) != 0)
        abort();
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t dr_clock_us(void)
{
    return read_us(CLOCK_BOOTTIME);
}

int64_t dr_clock_ms(void)
{
    return read_us(CLOCK_BOOTTIME) / 1000;
}

int64_t dr_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

void dr_random_bytes(void *out, unsigned long len)
{
    unsigned char *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len > 256 ? 256 : len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort();
        p += n;
        len -= (unsigned long)n;
    }
}

uint64_t dr_random_u64(void)
{
    uint64_t v;
    dr_random_bytes(&v, sizeof v);
    return v;
}

double dr_random_unit(void)
{
    return (double)(dr_random_u64() >> 11) * 0x1.0p-53;
}
