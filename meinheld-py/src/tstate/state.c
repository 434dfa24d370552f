/*
 * The exchange of CPython's per-execution state between a thread and its coroutines.
 *
 * CPython keeps what belongs to one line of execution inside the PyThreadState of the OS thread.
 * Each coroutine has a copy of those fields, and one symmetric exchange before and after each
 * switch makes the thread state speak for the stack that runs:
 *
 *       PyThreadState, one per thread               struct meinheld_tstate, one per coroutine
 *      +--------------------------------+          +--------------------------------------+
 *      | innermost frame                | <------> | innermost frame                      |
 *      | exc_info --> exc_state of hub  | <------> | exc_info --> exc_bottom (below)      |
 *      | data stack: chunk, top, limit  | <------> | data stack --> carved (see below)    |
 *      | recursion: limit - remaining   | <------> | depth                                |
 *      | context, tracing, gilstate ... | <------> | context, tracing, gilstate ...       |
 *      | dict, id, async hooks          | <------> | dict, id, async hooks                |
 *      +--------------------------------+          +--------------------------------------+
 *      | trace functions, GIL, pending  |          | exc_bottom: the lowest exc_info item |
 *      | signals, async exceptions,     |          | carved: the first chunk of the data  |
 *      | breaker: stay, for every       |          |   stack, which is never freed        |
 *      | coroutine of the thread        |          | version members: bottom frame, ...   |
 *      +--------------------------------+          +--------------------------------------+
 *
 * This copy and the first data-stack chunk lie at the top of the coroutine's own stack, so that they
 * and the C frames of a short request share one page:
 *
 *      low                                 reserved.start                           reserved.end
 *      | guard |  ....  <-- C frames of the task | this copy | Python frames -->  ....  |
 *
 * CPython's data[0] of a first chunk is left unused: CPython frees the chunk whose data[0] it
 * pops, and so never this one.
 *
 * Everything here runs with the GIL held, on the thread that owns the PyThreadState; the Rust
 * side (mod.rs) keeps that promise. One header for each CPython minor names what differs:
 *
 *      VERSION_FIELDS(X)        its further fields to exchange, as X(type, name)
 *      VERSION_MEMBERS          what a coroutine keeps besides
 *      DEPTH_LIMIT, DEPTH_REMAINING   the fields that count Python recursion
 *      INNERMOST(state)         the innermost frame, of a PyThreadState or of a saved state
 *      BOTTOM(own)              what INNERMOST says when no frame is left
 *      version_start(...)       fills a new coroutine's copy
 *      version_exchange(...)    exchanges or computes what is not a plain field
 *      version_mend(...)        puts right what a task left, and names it
 *      version_release(...)     drops the references only this version keeps
 *      version_location(...)    code and instruction of the innermost complete frame
 */

#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>

#include <stddef.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#  error "meinheld needs a CPython with the GIL: its thread state is exchanged under it"
#endif

#if PY_VERSION_HEX < 0x030B0000
#  error "meinheld knows the thread state of CPython 3.11 to 3.15, and this one is older"
#elif PY_VERSION_HEX < 0x030C0000
#  include "cpython311.h"
#elif PY_VERSION_HEX < 0x030D0000
#  include "cpython312.h"
#elif PY_VERSION_HEX < 0x030E0000
#  include "cpython313.h"
#elif PY_VERSION_HEX < 0x030F0000
#  include "cpython314.h"
#elif PY_VERSION_HEX < 0x03100000
#  include "cpython315.h"
#else
#  error "meinheld knows the thread state of CPython 3.11 to 3.15, and this one is newer"
#endif

#include "modules.h"

#define MEINHELD_IN_CALLBACK 1
#define MEINHELD_MODULES_CHANGED 2

/* What is reserved on a stack has room for a coroutine's copy, and for some frames. */
#define RESERVED_BYTES_MIN (sizeof(struct meinheld_tstate) + 16384)

/* The ids of CPython's own thread states count up from 1 and do not come this far. */
static uint64_t next_id = (uint64_t)1 << 40;

uint32_t
meinheld_tstate_built_for(void)
{
    return PY_VERSION_HEX;
}

static void
start_data_stack(struct meinheld_tstate *own, void *start, size_t size)
{
    _PyStackChunk *chunk = start;
    chunk->previous = NULL;
    chunk->size = size;
    chunk->top = 0;
    own->carved = chunk;
    own->datastack_chunk = chunk;
    own->datastack_top = &chunk->data[1];
    own->datastack_limit = (PyObject **)((char *)start + size);
}

/*
 * The state of a new coroutine whose C frames lie in [low, high). It lies in the reserved bytes, of
 * which there must be RESERVED_BYTES_MIN at the least; NULL if there are fewer.
 */
struct meinheld_tstate *
meinheld_tstate_new(PyThreadState *ts, uintptr_t low, uintptr_t high, void *reserved, size_t size)
{
    if (size < RESERVED_BYTES_MIN) {
        return NULL;
    }
    struct meinheld_tstate *own = reserved;
    memset(own, 0, sizeof *own);
    own->id = next_id++;
    own->gilstate_counter = 1;
    own->exc_info = &own->exc_bottom;
    start_data_stack(own, own + 1, size - sizeof *own);
    version_start(ts, own, low, high);
    return own;
}

/* What is a plain field. The two lie apart, of which the compiler is told here. */
static inline void
exchange_fields(PyThreadState *restrict ts, struct meinheld_tstate *restrict own)
{
#define EXCHANGE(type, name)     \
    {                            \
        type running = ts->name; \
        ts->name = own->name;    \
        own->name = running;     \
    }
    ALWAYS_EXCHANGED(EXCHANGE)
    VERSION_FIELDS(EXCHANGE)
#undef EXCHANGE
    /* As a depth, because sys.setrecursionlimit moves the limit under what is parked. */
    int depth = ts->DEPTH_LIMIT - ts->DEPTH_REMAINING;
    ts->DEPTH_REMAINING = ts->DEPTH_LIMIT - own->depth;
    own->depth = depth;
}

void
meinheld_tstate_exchange(PyThreadState *ts, struct meinheld_tstate *own)
{
    exchange_fields(ts, own);
    /* A ContextVar trusts its cached value for as long as this number stands. */
    ts->context_ver++;
    version_exchange(ts, own);
}

/* Frees the chunks that CPython pushed above the carved one. */
static void
free_pushed_chunks(_PyStackChunk *chunk, const _PyStackChunk *carved)
{
    PyObjectArenaAllocator arena;
    PyObject_GetArenaAllocator(&arena);
    while (chunk != NULL && chunk != carved) {
        _PyStackChunk *previous = chunk->previous;
        arena.free(arena.ctx, chunk, chunk->size);
        chunk = previous;
    }
}

static void
mend_data_stack(PyThreadState *ts, struct meinheld_tstate *own)
{
    free_pushed_chunks(ts->datastack_chunk, own->carved);
    start_data_stack(own, own->carved, own->carved->size);
    ts->datastack_chunk = own->datastack_chunk;
    ts->datastack_top = own->datastack_top;
    ts->datastack_limit = own->datastack_limit;
}

/* Puts right what a task must not leave behind; returns what it found, or NULL. */
static const char *
mend(PyThreadState *ts, struct meinheld_tstate *own)
{
    const char *found = version_mend(ts, own);
#define MEND(broken, name, repair) \
    if (broken) {                  \
        found = (name);            \
        repair;                    \
    }
    PyObject *handled = own->exc_bottom.exc_value;
    MEND(ts->datastack_top != &own->carved->data[1], "frames on its data stack",
         mend_data_stack(ts, own))
    MEND(ts->exc_info != &own->exc_bottom, "a foreign exc_info", ts->exc_info = &own->exc_bottom)
    MEND(handled != NULL && handled != Py_None, "an exception being handled", (void)0)
    MEND(ts->DEPTH_REMAINING != ts->DEPTH_LIMIT, "a recursion depth",
         ts->DEPTH_REMAINING = ts->DEPTH_LIMIT)
    MEND(ts->gilstate_counter != 1, "an unmatched PyGILState_Ensure", ts->gilstate_counter = 1)
    MEND(ts->tracing != 0, "tracing switched off", ts->tracing = 0)
    MEND(PyErr_Occurred() != NULL, "an exception set", PyErr_Clear())
#undef MEND
    return found;
}

/*
 * Called on the coroutine, with its fields in the thread state: a task has ended. The context and
 * the exception go; the dict, and so the thread-locals, stay with the coroutine. Returns NULL, or
 * the name of what the task had left inconsistent.
 */
const char *
meinheld_tstate_task_end(PyThreadState *ts, struct meinheld_tstate *own)
{
    const char *found = mend(ts, own);
    Py_CLEAR(own->exc_bottom.exc_value);
    /* A destructor may set a variable again, and with that make another context. */
    while (ts->context != NULL) {
        Py_CLEAR(ts->context);
        ts->context_ver++;
    }
    return found;
}

/* Whether no Python frame lies on the coroutine, which is out of the thread state. */
int
meinheld_tstate_is_idle(const struct meinheld_tstate *own)
{
    return INNERMOST(own) == BOTTOM(own);
}

/* Drops all that an idle coroutine holds. The memory of its state is the caller's. */
void
meinheld_tstate_free(struct meinheld_tstate *own)
{
    Py_CLEAR(own->exc_bottom.exc_value);
    Py_CLEAR(own->context);
    Py_CLEAR(own->dict);
    Py_CLEAR(own->async_gen_firstiter);
    Py_CLEAR(own->async_gen_finalizer);
    version_release(own);
    free_pushed_chunks(own->datastack_chunk, own->carved);
}

/*
 * A new reference to the code object of the innermost complete frame that runs, or NULL; stores
 * the offset of its instruction in bytes. Makes no frame object.
 */
PyObject *
meinheld_tstate_location(int *instruction)
{
    return version_location(PyThreadState_Get(), instruction);
}

/*
 * What is to be known before a switch: MEINHELD_IN_CALLBACK inside a C library's callback, else
 * MEINHELD_MODULES_CHANGED if sys.modules may have changed since this was told last, else 0.
 */
int
meinheld_tstate_before_switch(void)
{
    /* Outside of all callbacks one PyGILState_Ensure counts as open. */
    if (PyThreadState_Get()->gilstate_counter > 1) {
        return MEINHELD_IN_CALLBACK;
    }
    return take_modules_changed() ? MEINHELD_MODULES_CHANGED : 0;
}
