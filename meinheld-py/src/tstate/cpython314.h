/* The thread state of CPython 3.14; cpython315.h tells what differs in 3.15. */

#include "internal/pycore_interpframe.h"
#include "internal/pycore_pythonrun.h"
#include "internal/pycore_tstate.h"

#ifndef BOTTOM_OF_THREAD
#  define BOTTOM_OF_THREAD(ts) NULL
#  define INSTRUMENTATION_MEMBERS
#  define EXCHANGE_INSTRUMENTATION(ts, own) (void)0
#endif

#define VERSION_FIELDS(X)                          \
    X(struct _PyInterpreterFrame *, current_frame) \
    X(PyObject *, delete_later)                    \
    X(uintptr_t, critical_section)                 \
    X(PyObject *, current_executor)                \
    X(PyObject *, threading_local_key)             \
    X(PyObject *, threading_local_sentinel)

#define VERSION_MEMBERS                            \
    struct _PyInterpreterFrame *bottom;            \
    PyObject *running_loop;                        \
    PyObject *running_task;                        \
    uintptr_t c_stack_top;                         \
    uintptr_t c_stack_soft_limit;                  \
    uintptr_t c_stack_hard_limit;                  \
    INSTRUMENTATION_MEMBERS

#define DEPTH_LIMIT py_recursion_limit
#define DEPTH_REMAINING py_recursion_remaining
#define INNERMOST(state) ((state)->current_frame)
#define BOTTOM(own) ((own)->bottom)

#include "saved.h"

#include "asyncio_slots.h"
#include "complete_frame.h"

static size_t task_slot = offsetof(_PyThreadStateImpl, asyncio_running_task);

static void
version_start(PyThreadState *ts, struct meinheld_tstate *own, uintptr_t low, uintptr_t high)
{
    (void)ts;
    own->bottom = BOTTOM_OF_THREAD(ts);
    own->current_frame = own->bottom;
    /* As CPython sets them for a thread: RecursionError below soft, a fatal error below hard. */
    own->c_stack_top = high;
    own->c_stack_soft_limit = low + 2 * _PyOS_STACK_MARGIN_BYTES;
    own->c_stack_hard_limit = low + _PyOS_STACK_MARGIN_BYTES;
}

static void
exchange_address(uintptr_t *running, uintptr_t *own)
{
    uintptr_t kept = *running;
    *running = *own;
    *own = kept;
}

static void
version_exchange(PyThreadState *ts, struct meinheld_tstate *own)
{
    _PyThreadStateImpl *whole = (_PyThreadStateImpl *)ts;
    exchange_address(&whole->c_stack_top, &own->c_stack_top);
    exchange_address(&whole->c_stack_soft_limit, &own->c_stack_soft_limit);
    exchange_address(&whole->c_stack_hard_limit, &own->c_stack_hard_limit);
    exchange_slot(ts, loop_slot, &own->running_loop);
    exchange_slot(ts, task_slot, &own->running_task);
    EXCHANGE_INSTRUMENTATION(ts, own);
}

static const char *
version_mend(PyThreadState *ts, struct meinheld_tstate *own)
{
    const char *found = NULL;
    if (clear_slot(ts, task_slot)) {
        found = "a running asyncio task";
    }
    if (clear_slot(ts, loop_slot)) {
        found = "a running event loop";
    }
    if (ts->current_frame != own->bottom) {
        ts->current_frame = own->bottom;
        found = "a frame being evaluated";
    }
    return found;
}

static void
version_release(struct meinheld_tstate *own)
{
    Py_CLEAR(own->threading_local_sentinel);
    Py_CLEAR(own->threading_local_key);
    Py_CLEAR(own->running_task);
    Py_CLEAR(own->running_loop);
}

int
meinheld_tstate_find_slots(PyObject *loop, PyObject *task)
{
    PyThreadState *ts = PyThreadState_Get();
    loop_slot = find_slot(ts, loop);
    task_slot = find_slot(ts, task);
    return loop_slot != 0 && task_slot != 0;
}

/* Whether the stack limits of this thread lie where the headers say: they enclose this frame. */
int
meinheld_tstate_c_stack_is_known(void)
{
    const _PyThreadStateImpl *whole = (_PyThreadStateImpl *)PyThreadState_Get();
    uintptr_t here = (uintptr_t)&whole;
    return whole->c_stack_hard_limit < whole->c_stack_soft_limit
        && whole->c_stack_soft_limit < here && here < whole->c_stack_top;
}
