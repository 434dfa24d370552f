/* The thread state of CPython 3.13. */

#include "internal/pycore_frame.h"
#include "internal/pycore_tstate.h"

#define VERSION_FIELDS(X)                          \
    X(struct _PyInterpreterFrame *, current_frame) \
    X(int, c_recursion_remaining)                  \
    X(PyObject *, delete_later)                    \
    X(uintptr_t, critical_section)                 \
    X(PyObject *, previous_executor)               \
    X(PyObject *, threading_local_key)             \
    X(PyObject *, threading_local_sentinel)

#define VERSION_MEMBERS     \
    PyObject *running_loop; \
    int c_depth;

#define DEPTH_LIMIT py_recursion_limit
#define DEPTH_REMAINING py_recursion_remaining
#define INNERMOST(state) ((state)->current_frame)
#define BOTTOM(own) NULL

#include "saved.h"

#include "asyncio_slots.h"
#include "c_depth.h"
#include "complete_frame.h"

static void
version_start(PyThreadState *ts, struct meinheld_tstate *own, uintptr_t low, uintptr_t high)
{
    (void)ts;
    own->c_depth = c_depth_max(low, high);
    own->c_recursion_remaining = own->c_depth;
}

static void
version_exchange(PyThreadState *ts, struct meinheld_tstate *own)
{
    exchange_slot(ts, loop_slot, &own->running_loop);
}

static const char *
version_mend(PyThreadState *ts, struct meinheld_tstate *own)
{
    const char *found = mend_c_depth(ts, own->c_depth);
    if (clear_slot(ts, loop_slot)) {
        found = "a running event loop";
    }
    if (ts->current_frame != NULL) {
        ts->current_frame = NULL;
        found = "a frame being evaluated";
    }
    return found;
}

static void
version_release(struct meinheld_tstate *own)
{
    Py_CLEAR(own->threading_local_sentinel);
    Py_CLEAR(own->threading_local_key);
    Py_CLEAR(own->running_loop);
}

int
meinheld_tstate_find_slots(PyObject *loop, PyObject *task)
{
    (void)task;
    loop_slot = find_slot(PyThreadState_Get(), loop);
    return loop_slot != 0;
}
