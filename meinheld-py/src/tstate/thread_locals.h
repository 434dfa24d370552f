/*
 * CPython 3.11 and 3.12: a threading.local that died while its dict was out of the thread state.
 *
 * There a local finds its values through the thread's dict, under a key made of its own address:
 *
 *      ts->dict["thread.local.0x7f.."] --> dummy --(borrowed)--> values, owned by the local
 *                                            ^-- weak reference, owned by the local
 *
 * A local that dies takes its entry out of the dict of each thread state, but it cannot see those
 * of parked coroutines. Its dummy stays there with a dangling pointer, and the next local at that
 * address would follow it. Such a dummy is known by the weak reference that it no longer has.
 */

#ifndef MEINHELD_TSTATE_THREAD_LOCALS_H
#define MEINHELD_TSTATE_THREAD_LOCALS_H

/* The type of the dummies, which has no name in Python; NULL until the first one is met. */
static PyTypeObject *dummy_type = NULL;

static int
is_dead_local(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (dummy_type == NULL && strcmp(type->tp_name, "_thread._localdummy") == 0) {
        dummy_type = type;
    }
    return type == dummy_type && *(PyObject **)((char *)value + type->tp_weaklistoffset) == NULL;
}

/* Apart from what is done at each switch, which most often finds no dict. */
static __attribute__((noinline)) void
sweep_dead_locals(PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (is_dead_local(value)) {
            PyDict_DelItem(dict, key);
            position = 0;
        }
    }
}

/* Takes the entries of dead locals out of a thread's dict; runs no Python code. */
static void
forget_dead_locals(PyObject *dict)
{
    if (dict != NULL) {
        sweep_dead_locals(dict);
    }
}

#endif
