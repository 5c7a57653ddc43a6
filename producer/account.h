/* What became of a job, as a person reads it: the result and the error of its record. */
#ifndef DR_PRODUCER_ACCOUNT_H
#define DR_PRODUCER_ACCOUNT_H

#include <stdio.h>

#include "producer/cmd.h"

/* Reads the ended job's record and prints its account; any bytes that stand there are printed as
 * text, cut, never as control characters. Redis that does not answer is no error: the exit code of
 * the job is known already. */
void account_print(struct cmd *c, const char *id, FILE *out);

#endif
