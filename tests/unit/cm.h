/* cmocka with what its header wants first. */
#ifndef DR_TESTS_CM_H
#define DR_TESTS_CM_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#define CM_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#endif
