/* fuzz: drrecovery. Any text as the plan of a swap: no name may leave its root. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/recovery/swap_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int what)
{
    if (!what)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char first[] = "drworker-swap 1 abcdefghijklmnop\n";
    struct swap *s = swap_new("abcdefghijklmnop");
    struct swap_root *roots = dr_xarray(SWAP_ROOTS_MAX, sizeof *roots);
    char **paths = dr_xarray(SWAP_ROOTS_MAX + 1, sizeof *paths);
    char *text = dr_xalloc(sizeof first + size);
    memcpy(text, first, sizeof first - 1);
    memcpy(text + sizeof first - 1, data, size);
    if (swap_file_parse(s, text, paths, roots))
        for (size_t i = 0; i < s->pair_count; i++) {
            const char *name = s->pairs[i].name;
            demand(name[0] && name[0] != '/' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
            demand(strncmp(name, "../", 3) != 0 && !strstr(name, "/../") && !strstr(name, "//"));
            demand(paths[s->pairs[i].root] && paths[s->pairs[i].root][0] == '/');
        }
    for (unsigned i = 0; paths[i]; i++)
        free(paths[i]);
    free(paths);
    free(roots);
    free(text);
    swap_close(s);
    return 0;
}
