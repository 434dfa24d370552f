/*
 * CPython 3.15: what is traced, profiled or monitored changes while a chain of frames is parked.
 *
 * It is written into code objects, and counted: the upper bits of a thread state's breaker are the number
 * of the last change. Code that a call enters compares that number with its own. Code that runs is not
 * asked again, so that whoever makes a change at once instruments the code of the frames of all threads:
 *
 *      tool is set ──► count up ──► thread state ──► frame ──► frame ──► bottom      instrumented
 *                                   parked chain ──► frame ──► frame ──► bottom      unreachable
 *
 * An exception in code that was never instrumented is told to the tools that the code object names, and
 * there is nothing where it would name them: CPython 3.15 crashes. (Before, only the interpreter's own
 * list of tools was asked; a parked chain there tells what was asked for when it was left.)
 *
 * A chain therefore keeps the number it was left with, and is instrumented when it comes back to
 * another one.
 */

#ifndef MEINHELD_TSTATE_INSTRUMENTATION_H
#define MEINHELD_TSTATE_INSTRUMENTATION_H

#include "internal/pycore_ceval.h"
#include "internal/pycore_code.h"

/*
 * Instruments the code of the frames that have just come back. Runs no Python. Code for which there is
 * no memory stays as it was, since a switch has nobody to tell.
 */
static void __attribute__((cold, noinline))
instrument_frames(PyThreadState *ts)
{
    struct _PyInterpreterFrame *frame = ts->current_frame;
    for (; frame != NULL; frame = frame->previous) {
        if (frame->owner < FRAME_OWNED_BY_INTERPRETER
            && _Py_Instrument(_PyFrame_GetCode(frame), ts->interp) < 0) {
            PyErr_Clear();
        }
    }
}

static inline void
exchange_instrumentation(PyThreadState *ts, uintptr_t *own)
{
    uintptr_t now = ts->eval_breaker & ~(uintptr_t)_PY_EVAL_EVENTS_MASK;
    uintptr_t left_at = *own;
    *own = now;
    if (left_at != now) {
        instrument_frames(ts);
    }
}

#endif
