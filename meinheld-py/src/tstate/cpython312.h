/* The thread state of CPython 3.12. */

#include "internal/pycore_frame.h"

#define VERSION_FIELDS(X)         \
    X(_PyCFrame *, cframe)        \
    X(int, c_recursion_remaining) \
    X(struct _py_trashcan, trash)

/* The C frame below the first evaluation loop of the coroutine. */
#define VERSION_MEMBERS \
    _PyCFrame bottom;   \
    int c_depth;

#define DEPTH_LIMIT py_recursion_limit
#define DEPTH_REMAINING py_recursion_remaining
#define INNERMOST(state) ((state)->cframe->current_frame)
#define BOTTOM(own) NULL

#include "saved.h"

#include "c_depth.h"
#include "complete_frame.h"
#include "thread_locals.h"

static void
version_start(PyThreadState *ts, struct meinheld_tstate *own, uintptr_t low, uintptr_t high)
{
    own->bottom.previous = &ts->root_cframe;
    own->cframe = &own->bottom;
    own->c_depth = c_depth_max(low, high);
    own->c_recursion_remaining = own->c_depth;
}

static void
version_exchange(PyThreadState *ts, struct meinheld_tstate *own)
{
    (void)own;
    forget_dead_locals(ts->dict);
}

static const char *
version_mend(PyThreadState *ts, struct meinheld_tstate *own)
{
    const char *found = mend_c_depth(ts, own->c_depth);
    if (ts->cframe == &own->bottom && own->bottom.current_frame == NULL) {
        return found;
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
