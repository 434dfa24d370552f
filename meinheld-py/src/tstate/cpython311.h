/* The thread state of CPython 3.11. */

#include "internal/pycore_frame.h"
#include "internal/pycore_pystate.h"

#define VERSION_FIELDS(X)        \
    X(_PyCFrame *, cframe)       \
    X(int, trash_delete_nesting) \
    X(PyObject *, trash_delete_later)

/* The C frame below the first evaluation loop of the coroutine. */
#define VERSION_MEMBERS _PyCFrame bottom;

#define DEPTH_LIMIT recursion_limit
#define DEPTH_REMAINING recursion_remaining
#define INNERMOST(state) ((state)->cframe->current_frame)
#define BOTTOM(own) NULL

#include "saved.h"

#include "thread_locals.h"

static void
version_start(PyThreadState *ts, struct meinheld_tstate *own, uintptr_t low, uintptr_t high)
{
    (void)low;
    (void)high;
    own->bottom.previous = &ts->root_cframe;
    own->cframe = &own->bottom;
}

static void
version_exchange(PyThreadState *ts, struct meinheld_tstate *own)
{
    (void)own;
    /* The C frame caches whether the thread traces, and that may have changed meanwhile. */
    _PyThreadState_UpdateTracingState(ts);
    forget_dead_locals(ts->dict);
}

static const char *
version_mend(PyThreadState *ts, struct meinheld_tstate *own)
{
    if (ts->cframe == &own->bottom && own->bottom.current_frame == NULL) {
        return NULL;
    }
    own->bottom.current_frame = NULL;
    ts->cframe = &own->bottom;
    return "a frame being evaluated";
}

static void
version_release(struct meinheld_tstate *own)
{
    (void)own;
}

static PyObject *
version_location(PyThreadState *ts, int *instruction)
{
    _PyInterpreterFrame *frame = ts->cframe->current_frame;
    while (frame != NULL && _PyFrame_IsIncomplete(frame)) {
        frame = frame->previous;
    }
    if (frame == NULL) {
        return NULL;
    }
    *instruction = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    return Py_NewRef(frame->f_code);
}
