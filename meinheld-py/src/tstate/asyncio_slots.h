/*
 * CPython 3.13 and later: what asyncio's C module keeps in the tail of the thread state.
 *
 *      PyThreadState (its layout stands for a whole minor) | tail: ... loop, task ... |
 *
 * The tail moves between patch releases. The offsets here are those of the headers; where another
 * patch release runs, the Rust side has asyncio store two marks and find_slot looks for them.
 */

#ifndef MEINHELD_TSTATE_ASYNCIO_SLOTS_H
#define MEINHELD_TSTATE_ASYNCIO_SLOTS_H

/* By how much a tail may have grown since the headers. */
#define TAIL_GROWTH_MAX 64

/* An offset of 0 says that there is no slot, because there is no C module that would use it. */
static size_t loop_slot = offsetof(_PyThreadStateImpl, asyncio_running_loop);

static PyObject **
slot_at(PyThreadState *ts, size_t offset)
{
    return (PyObject **)((char *)ts + offset);
}

/* Where the mark lies in the tail; 0 if it does not, or if it is NULL. */
static size_t
find_slot(PyThreadState *ts, PyObject *mark)
{
    if (mark == NULL) {
        return 0;
    }
    size_t end = sizeof(_PyThreadStateImpl) + TAIL_GROWTH_MAX;
    for (size_t offset = sizeof(PyThreadState); offset < end; offset += sizeof(PyObject *)) {
        if (*slot_at(ts, offset) == mark) {
            return offset;
        }
    }
    return 0;
}

static void
exchange_slot(PyThreadState *ts, size_t offset, PyObject **own)
{
    if (offset != 0) {
        PyObject *running = *slot_at(ts, offset);
        *slot_at(ts, offset) = *own;
        *own = running;
    }
}

/* Returns whether there was something in the slot. */
static int
clear_slot(PyThreadState *ts, size_t offset)
{
    if (offset == 0 || *slot_at(ts, offset) == NULL) {
        return 0;
    }
    Py_CLEAR(*slot_at(ts, offset));
    return 1;
}

#endif
