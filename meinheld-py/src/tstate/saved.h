/*
 * What a coroutine keeps of the thread state while it does not run; see the picture in state.c.
 *
 * Included by the version's header, after it has defined VERSION_FIELDS and VERSION_MEMBERS.
 */

#ifndef MEINHELD_TSTATE_SAVED_H
#define MEINHELD_TSTATE_SAVED_H

/*
 * The fields that are exchanged on every CPython, as X(type, name). In the order in which they lie in
 * the thread state: neighbours are moved together.
 */
#define ALWAYS_EXCHANGED(X)                 \
    X(int, recursion_headroom)              \
    X(int, tracing)                         \
    X(_PyErr_StackItem *, exc_info)         \
    X(PyObject *, dict)                     \
    X(PyObject *, async_gen_firstiter)      \
    X(PyObject *, async_gen_finalizer)      \
    X(PyObject *, context)                  \
    X(uint64_t, id)                         \
    X(_PyStackChunk *, datastack_chunk)     \
    X(PyObject **, datastack_top)           \
    X(PyObject **, datastack_limit)         \
    X(int, gilstate_counter)                \
    X(int, coroutine_origin_tracking_depth)

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
