/* fuzz: drrecovery */
/* What a recovery reads that others may have written: a journal, and the SQL of a dump's table of
 * contents. The first byte chooses. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/recovery/db_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_sql(const uint8_t *data, size_t size)
{
    struct db d = {0};
    char *sql = malloc(size + 1);
    memcpy(sql, data, size);
    sql[size] = 0;
    db_expect_sql(&d.names, sql);
    free(sql);
    db_expect_fini(&d);
}

static void read_journal(const uint8_t *data, size_t size)
{
    static const char name[] = "journal/aaaaaaaaaaaaaaaa.log";
    char folder[] = "/tmp/dr-fuzz-XXXXXX"; /* the fuzzer ends without a word: nothing stays */
    struct dr_err err = {0};
    struct journal *j = NULL;
    int fd = mkdtemp(folder) ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0 || mkdirat(fd, "journal", 0700) != 0)
        abort();
    int log = openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (log < 0 || write(log, data, size) != (ssize_t)size)
        abort();
    (void)close(log);
    if (journal_peek(fd, "aaaaaaaaaaaaaaaa", &j, &err) == DR_OK) {
        (void)journal_last(j, "step-intent", "quiesce");
        (void)journal_is_closed(j);
    }
    journal_free(j);
    (void)unlinkat(fd, name, 0);
    (void)unlinkat(fd, "journal", AT_REMOVEDIR);
    (void)close(fd);
    (void)rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        read_journal(data + 1, size - 1);
    else
        read_sql(data + 1, size - 1);
    return 0;
}
