/* CPython 3.12 and later: where the innermost complete frame stands. */

#ifndef MEINHELD_TSTATE_COMPLETE_FRAME_H
#define MEINHELD_TSTATE_COMPLETE_FRAME_H

static PyObject *
version_location(PyThreadState *ts, int *instruction)
{
    struct _PyInterpreterFrame *frame = _PyThreadState_GetFrame(ts);
    if (frame == NULL) {
        return NULL;
    }
    *instruction = PyUnstable_InterpreterFrame_GetLasti(frame);
    return PyUnstable_InterpreterFrame_GetCode(frame);
}

#endif
