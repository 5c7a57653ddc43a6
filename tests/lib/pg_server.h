/* A private PostgreSQL for one test program: in a folder of its own, on a socket there and, with a
 * password, on a port that the kernel gave; it dies with the program. initdb refuses root: then as
 * user postgres. One thread. */
#ifndef DR_TESTS_LIB_PG_SERVER_H
#define DR_TESTS_LIB_PG_SERVER_H

#include <sys/types.h>

#define PG_SERVER_PASSWORD "p:a\\ss word'@/\"" /* of user postgres, asked for over TCP only */

struct pg_server {
    char dir[64]; /* the socket is here, a file `log`, and server.crt for localhost */
    char bin[256];
    int port;
    pid_t pid; /* of the postmaster */
};

int pg_server_start(struct pg_server *s); /* 0: it takes connections */
void pg_server_stop(struct pg_server *s); /* and removes the folder */

#endif
