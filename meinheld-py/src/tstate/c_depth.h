/* CPython 3.12 and 3.13: C recursion is counted, and a coroutine's stack is small. */

#ifndef MEINHELD_TSTATE_C_DEPTH_H
#define MEINHELD_TSTATE_C_DEPTH_H

/* What fits the stack that mod.rs asks for; CPython's own number supposes a stack of 8 MiB. */
#define C_DEPTH_MAX 500

static const char *
mend_c_depth(PyThreadState *ts)
{
    if (ts->c_recursion_remaining == C_DEPTH_MAX) {
        return NULL;
    }
    ts->c_recursion_remaining = C_DEPTH_MAX;
    return "a C recursion depth";
}

#endif
