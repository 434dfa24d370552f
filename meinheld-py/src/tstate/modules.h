/*
 * Whether sys.modules has changed: asked before each switch, so that a look at the modules
 * themselves is needed after an import only.
 */

#ifndef MEINHELD_TSTATE_MODULES_H
#define MEINHELD_TSTATE_MODULES_H

#if PY_VERSION_HEX < 0x030C0000

/* No two states of dicts have one number. */
static uint64_t modules_version = 0;

/* The interpreter's own, which it keeps; NULL until it is asked for it. */
static PyDictObject *modules = NULL;

static int
take_modules_changed(void)
{
    if (modules == NULL) {
        modules = (PyDictObject *)PyImport_GetModuleDict();
    }
    uint64_t before = modules_version;
    modules_version = modules->ma_version_tag;
    return modules_version != before;
}

#else

static int modules_changed = 1;
static int modules_watched = 0;

static int
note_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    (void)event;
    (void)dict;
    (void)key;
    (void)value;
    modules_changed = 1;
    return 0;
}

/* There are eight watchers in an interpreter. Without one it has changed each time. */
static void
watch_modules(void)
{
    modules_watched = 1;
    int watcher = PyDict_AddWatcher(note_change);
    if (watcher < 0 || PyDict_Watch(watcher, PyImport_GetModuleDict()) < 0) {
        PyErr_Clear();
        modules_watched = -1;
    }
}

static int
take_modules_changed(void)
{
    if (modules_watched == 0) {
        watch_modules();
    }
    int changed = modules_changed;
    modules_changed = modules_watched < 0;
    return changed;
}

#endif

#endif
