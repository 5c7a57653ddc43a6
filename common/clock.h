/* Time. Durations use CLOCK_BOOTTIME (it counts suspend), wall time CLOCK_REALTIME. Any thread. */
#ifndef DR_COMMON_CLOCK_H
#define DR_COMMON_CLOCK_H

#include <stdint.h>

int64_t dr_clock_ms(void); /* since boot, for durations and deadlines */
int64_t dr_clock_us(void);
int64_t dr_wall_ms(void);     /* unix time */
uint64_t dr_random_u64(void); /* from the kernel; never fails */
double dr_random_unit(void);  /* [0, 1) */
void dr_random_bytes(void *out, unsigned long len);

#endif
