/* See who.h. */
#include "common/who.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

void dr_who(char out[DR_WHO_MAX])
{
    char host[65] = "";
    const struct passwd *who = getpwuid(geteuid());
    (void)gethostname(host, sizeof host - 1);
    if (who)
        (void)snprintf(out, DR_WHO_MAX, "%.60s@%s", who->pw_name, host);
    else
        (void)snprintf(out, DR_WHO_MAX, "uid %u@%s", (unsigned)geteuid(), host);
}
