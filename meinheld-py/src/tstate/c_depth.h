/* CPython 3.12 and 3.13: C recursion is counted, and a coroutine's stack is small. */

#ifndef MEINHELD_TSTATE_C_DEPTH_H
#define MEINHELD_TSTATE_C_DEPTH_H

/* What a level may take; CPython's own number supposes a stack of 8 MiB. */
#define C_DEPTH_BYTES 2048

static int
c_depth_max(uintptr_t low, uintptr_t high)
{
    return (int)((high - low) / C_DEPTH_BYTES);
}

static const char *
mend_c_depth(PyThreadState *ts, int c_depth)
{
    if (ts->c_recursion_remaining == c_depth) {
        return NULL;
    }
    ts->c_recursion_remaining = c_depth;
    return "a C recursion depth";
}

#endif
