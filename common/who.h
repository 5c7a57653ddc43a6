/* Who runs a command, by their own words. For programs with one thread (getpwuid). */
#ifndef DR_COMMON_WHO_H
#define DR_COMMON_WHO_H

enum { DR_WHO_MAX = 128 };

/* "user@host", or "uid N@host" where the id has no name. */
void dr_who(char out[DR_WHO_MAX]);

#endif
