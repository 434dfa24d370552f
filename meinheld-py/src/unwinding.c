/* Calls of Python code in which a thread may be unwound; see unwinding.rs. Compiled with -fexceptions. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <unistd.h>

/* Stops the thread for good: it is unwound only while the process ends. */
static void
hang(int *returned)
{
    while (!*returned) {
        pause();
    }
}

#define HANG_UNLESS_RETURNED int returned __attribute__((cleanup(hang))) = 0

PyObject *
meinheld_call(PyObject *function, PyObject *const *arguments, size_t count)
{
    HANG_UNLESS_RETURNED;
    PyObject *result = PyObject_Vectorcall(function, arguments, count, NULL);
    returned = 1;
    return result;
}

PyObject *
meinheld_call_with(PyObject *function, PyObject *arguments, PyObject *keywords)
{
    HANG_UNLESS_RETURNED;
    PyObject *result = PyObject_Call(function, arguments, keywords);
    returned = 1;
    return result;
}

PyObject *
meinheld_next(PyObject *iterator)
{
    HANG_UNLESS_RETURNED;
    PyObject *item = PyIter_Next(iterator);
    returned = 1;
    return item;
}
