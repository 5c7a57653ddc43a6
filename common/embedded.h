/* Text files that the build put into the program (cmake/Embed.cmake). */
#ifndef DR_COMMON_EMBEDDED_H
#define DR_COMMON_EMBEDDED_H

struct dr_embedded {
    const char *name; /* file name without extension; NULL ends the table */
    const char *text;
};

#endif
