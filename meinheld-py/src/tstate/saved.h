/*
 * What a coroutine keeps of the thread state while it does not run; see the picture in state.c.
 *
 * Included by the version's header, after it has defined VERSION_FIELDS and VERSION_MEMBERS.
 */

#ifndef MEINHELD_TSTATE_SAVED_H
#define MEINHELD_TSTATE_SAVED_H

/* The fields that are exchanged on every CPython, as X(type, name). */
#define ALWAYS_EXCHANGED(X)                 \
    X(PyObject *, context)                  \
    X(_PyErr_StackItem *, exc_info)         \
    X(_PyStackChunk *, datastack_chunk)     \
    X(PyObject **, datastack_top)           \
    X(PyObject **, datastack_limit)         \
    X(int, recursion_headroom)              \
    X(int, gilstate_counter)                \
    X(int, tracing)                         \
    X(int, coroutine_origin_tracking_depth) \
    X(PyObject *, dict)                     \
    X(uint64_t, id)                         \
    X(PyObject *, async_gen_firstiter)      \
    X(PyObject *, async_gen_finalizer)

struct meinheld_tstate {
#define MEMBER(type, name) type name;
    ALWAYS_EXCHANGED(MEMBER)
    VERSION_FIELDS(MEMBER)
#undef MEMBER
    int depth;
    _PyErr_StackItem exc_bottom;
    _PyStackChunk *carved;
    VERSION_MEMBERS
};

#endif
