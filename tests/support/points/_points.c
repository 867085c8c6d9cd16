/* Raises an exception at the k-th place where the interpreter looks for signals: at every place, none by chance.

   The handler of the signal asks for the signal again, so that each look calls it once. It is C: nothing of the
   interpreter runs in it, and no look is its own. The step to be tried is called from C as well, so that the counting
   begins with it and ends with it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

#include <string.h>

#include "kernel.h"

enum { MOST_PLACES = 8 };

static PyObject *exception; /* borrowed from run()'s arguments while armed */
static long looks, wanted[MOST_PLACES];
static int armed, number, places, raised;
static PyObject *where[MOST_PLACES];

static PyObject *place_of(PyObject *frame)
{
    PyCodeObject *code;
    PyObject *place;

    if (!PyFrame_Check(frame))
        return PyUnicode_FromString("no frame");
    code = PyFrame_GetCode((PyFrameObject *)frame);
    place = PyUnicode_FromFormat("%U:%d %U", code->co_filename, PyFrame_GetLineNumber((PyFrameObject *)frame),
                                 code->co_name);
    Py_DECREF(code);
    return place;
}

/* Whether the code is another package's: an audit hook, say, whose exceptions the interpreter ignores. */
static int is_foreign(PyObject *frame)
{
    PyCodeObject *code;
    const char *file;
    int foreign;

    if (!PyFrame_Check(frame))
        return 0;
    code = PyFrame_GetCode((PyFrameObject *)frame);
    file = PyUnicode_AsUTF8(code->co_filename);
    foreign = file && strstr(file, "/site-packages/") && !strstr(file, "/dmasync/");
    Py_DECREF(code);
    PyErr_Clear();
    return foreign;
}

static PyObject *look(PyObject *module, PyObject *args)
{
    int signum;
    PyObject *frame;

    (void)module;
    if (!PyArg_ParseTuple(args, "iO", &signum, &frame))
        return NULL;
    if (!armed)
        Py_RETURN_NONE;
    PyErr_SetInterruptEx(number);
    if (is_foreign(frame))
        Py_RETURN_NONE;
    looks++;
    if (raised < places && looks == wanted[raised]) {
        where[raised] = place_of(frame);
        if (!where[raised])
            return NULL;
        raised++;
        PyErr_SetNone(exception);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *caught(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_DECREF(type);
    return value;
#endif
}

static PyObject *run(PyObject *module, PyObject *args)
{
    PyObject *step, *numbers, *result, *outcome, *lines;

    (void)module;
    if (!PyArg_ParseTuple(args, "iOOO!", &number, &step, &exception, &PyTuple_Type, &numbers))
        return NULL;
    if (PyTuple_GET_SIZE(numbers) > MOST_PLACES)
        return PyErr_Format(PyExc_ValueError, "at most %d places", MOST_PLACES);
    places = (int)PyTuple_GET_SIZE(numbers);
    for (int i = 0; i < places; i++)
        wanted[i] = PyLong_AsLong(PyTuple_GET_ITEM(numbers, i));
    if (PyErr_Occurred())
        return NULL;
    looks = raised = 0;
    armed = 1;
    PyErr_SetInterruptEx(number);
    result = PyObject_CallNoArgs(step);
    armed = 0;
    outcome = caught();
    Py_XDECREF(result);
    if (PyErr_CheckSignals()) { /* takes the last request off: the handler does nothing any more */
        Py_XDECREF(outcome);
        return NULL;
    }
    lines = PyTuple_New(raised);
    for (int i = 0; i < raised; i++) {
        if (lines)
            PyTuple_SET_ITEM(lines, i, where[i]);
        else
            Py_DECREF(where[i]);
    }
    if (!lines) {
        Py_XDECREF(outcome);
        return NULL;
    }
    if (!outcome)
        outcome = Py_NewRef(Py_None);
    return Py_BuildValue("lNN", looks, lines, outcome);
}

static PyObject *reset(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    kernel_reset();
    Py_RETURN_NONE;
}

static PyObject *refuse(PyObject *module, PyObject *args)
{
    int end, error, times, after;

    (void)module;
    if (!PyArg_ParseTuple(args, "piii", &end, &error, &times, &after))
        return NULL;
    kernel_refuse(end, error, times, after);
    Py_RETURN_NONE;
}

/* Not PyErr_SetFromErrno: on EINTR that runs signal handlers, and this call must hold no such place. */
static PyObject *refused(int error)
{
    PyObject *instance = PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error));

    if (instance) {
        PyErr_SetObject(PyExc_OSError, instance);
        Py_DECREF(instance);
    }
    return NULL;
}

static PyObject *points_ioctl(PyObject *module, PyObject *args)
{
    int fd, result;
    unsigned long request;
    PyObject *argument;
    Py_buffer bytes;

    (void)module;
    if (!PyArg_ParseTuple(args, "ikO", &fd, &request, &argument))
        return NULL;
    if (PyLong_Check(argument)) {
        void *pointer = PyLong_AsVoidPtr(argument);

        if (!pointer && PyErr_Occurred())
            return NULL;
        if (pointer)
            return refused(EFAULT);
        result = kernel_ioctl(fd, request, NULL);
    } else {
        if (PyObject_GetBuffer(argument, &bytes, PyBUF_WRITABLE))
            return NULL;
        result = kernel_ioctl(fd, request, bytes.buf);
        PyBuffer_Release(&bytes);
    }
    if (result == KERNEL_NOT_MINE)
        return refused(ENOTTY);
    return result < 0 ? refused(errno) : PyLong_FromLong(result);
}

static PyObject *calls(PyObject *module, PyObject *ignored)
{
    const struct kernel_call *call;
    int count = kernel_calls(&call);
    PyObject *list;

    (void)module, (void)ignored;
    if (count > KERNEL_MOST_CALLS)
        return PyErr_Format(PyExc_OverflowError, "%d calls: more than are kept", count);
    list = PyList_New(0);
    for (int i = 0; list && i < count; i++) {
        PyObject *row = Py_BuildValue("iKKi", call[i].fd, call[i].flags, call[i].file, call[i].error);

        if (!row || PyList_Append(list, row))
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static PyObject *strays(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    return PyLong_FromLong(kernel_strays());
}

static PyMethodDef methods[] = {
    {"look", look, METH_VARARGS, "The signal's handler: signal.signal(number, look)."},
    {"run", run, METH_VARARGS, "run(signal, step, exception, places) -> (looks, where it raised, what came out or None)"},
    {"reset", reset, METH_NOARGS, "Forget all calls and refusals."},
    {"refuse", refuse, METH_VARARGS, "refuse(of END?, errno, times, after that many successes)"},
    {"ioctl", points_ioctl, METH_VARARGS, "ioctl(fd, request, a bytearray or 0)"},
    {"calls", calls, METH_NOARGS, "[(fd, flags, inode, errno or 0), ...] of all SYNCs"},
    {"strays", strays, METH_NOARGS, "How many SYNCs came for a number that was not open."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_points", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__points(void)
{
    PyObject *module = PyModule_Create(&definition);

#ifdef Py_GIL_DISABLED
    if (module)
        PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
