"""Mutants of dmasync/_window.c: who closes a number, who holds a reference."""

from __future__ import annotations

from tests.support.c_mutant import mutant

MUTANTS_OF_FILE = [
    # Who closes a number, and when
    mutant("File: close does not mark it closed", "atomic_fetch_or(&self->state, CLOSED);\n    return close_if_unused"),
    mutant("File: the number is closed at every close", "&unused, CLOSED))", "&unused, OWNED | CLOSED))"),
    mutant(
        "File: closed first, forgotten second",
        """    if (!atomic_compare_exchange_strong(&self->state, &unused, CLOSED))
        return 0;
    /* Forgotten first, closed second: whatever close() raises, the number may be another file's by now. */
    return done(PyObject_CallMethod(self->backend, "close", "O", self->number));""",
        """    if (atomic_load(&self->state) != unused)
        return 0;
    int result = done(PyObject_CallMethod(self->backend, "close", "O", self->number));
    if (result == 0)
        atomic_store(&self->state, CLOSED);
    return result;""",
    ),
    mutant("File: a window never stops using it", "    atomic_fetch_sub(&self->state, WINDOW);\n"),
    mutant(
        "File: the last window does not close the number",
        "    if (close_if_unused(self) < 0)\n        PyErr_WriteUnraisable((PyObject *)self);\n"
        "}\n\n/* A window will use",
        "}\n\n/* A window will use",
    ),
    mutant(
        "File: an error of the last window's close is lost",
        "    if (close_if_unused(self) < 0)\n        PyErr_WriteUnraisable((PyObject *)self);",
        "    if (close_if_unused(self) < 0)\n        PyErr_Clear();",
    ),
    mutant(
        "File: windows use one that is closed",
        "if (!(atomic_fetch_add(&self->state, WINDOW) & CLOSED))",
        "atomic_fetch_add(&self->state, WINDOW);\n    if (1)",
    ),
    mutant(
        "File: a window that uses it is not counted",
        "atomic_fetch_add(&self->state, WINDOW)",
        "atomic_load(&self->state)",
    ),
    mutant("File: a released number stays owned", "    atomic_fetch_and(&self->state, ~(uint64_t)OWNED);\n"),
    mutant("File: released is not closed", "OWNED);\n    atomic_fetch_or(&self->state, CLOSED);", "OWNED);"),
    mutant("File: a dropped one is not closed", "self->number != NULL && let_go(self)", "0 && let_go(self)"),
    mutant(
        "File: a finalizer loses the exception on its way",
        "        PyErr_WriteUnraisable((PyObject *)self);\n    PyErr_SetRaisedException(pending);\n}",
        "        PyErr_WriteUnraisable((PyObject *)self);\n    Py_XDECREF(pending);\n}",
    ),
    mutant("File: opened() owns nothing", "set_number(self, number, 1)", "set_number(self, number, 0)"),
    mutant("File: opened() takes the call's answer for the number", "if (number != NULL && offset >= 0)", "if (0)"),
    mutant("File: what is no number passes", "    if (self->fd < 0)\n        return -1;\n"),
    # References
    mutant("File: keeps nothing alive", "Py_XNewRef(keeps)", "Py_NewRef(Py_None)"),
    mutant("File: keeps is not traversed", "    Py_VISIT(self->keeps);\n", tests="compiled"),
    mutant("File: backend is not traversed", "    Py_VISIT(self->backend);\n", tests="compiled"),
    mutant("File: ioctl is not traversed", "    Py_VISIT(self->ioctl);\n", tests="compiled"),
    mutant("File: number leaks", "    Py_XDECREF(self->number);\n", tests="compiled"),
    mutant("File: backend leaks", "    Py_XDECREF(self->backend);\n", tests="compiled"),
    mutant("File: ioctl leaks", "    Py_XDECREF(self->ioctl);\n", tests="compiled"),
    mutant("File: opened() leaks the number", "    Py_XDECREF(number);\n", tests="compiled"),
    mutant(
        "Window: the backend's answer leaks",
        "            Py_DECREF(answer);\n            return DONE;",
        "            return DONE;",
        tests="compiled",
    ),
    mutant("Window: a refusal leaks", "        Py_XDECREF(answer);\n", tests="compiled"),
    mutant(
        "Window: an interrupt at END leaks",
        "                Py_XDECREF(said);\n                continue;",
        "                continue;",
        tests="compiled",
    ),
    mutant(
        "Window: an interrupt at START leaks",
        "    Py_DECREF(said);\n    return -1;",
        "    return -1;",
        tests="compiled",
    ),
    mutant(
        "Window: what was reported leaks",
        "    Py_XDECREF(refusal);\n    Py_XDECREF(interrupt);\n    Py_XDECREF(failures);\n    return result;",
        "    return result;",
        tests="compiled",
    ),
    mutant(
        "Window: an error of a dropped one leaks",
        "    Py_XDECREF(failures);\n    PyErr_SetRaisedException(pending);",
        "    PyErr_SetRaisedException(pending);",
        tests="compiled",
    ),
    mutant(
        "Window: its attempts leak",
        "        self->opened--;\n        interrupts = 0;\n        Py_CLEAR(attempts);",
        "        self->opened--;\n        interrupts = 0;\n        attempts = NULL;",
        tests="compiled",
    ),
    mutant("Window: its file leaks", "        Py_DECREF(targets[i].file);\n", tests="compiled"),
    mutant("Window: its ioctl leaks", "        Py_XDECREF(targets[i].ioctl);\n", tests="compiled"),
    mutant(
        "Window: the memory of several targets leaks", "        PyMem_Free(targets);", "        ;", tests="compiled"
    ),
    mutant("Window: its file is only borrowed", "(File *)Py_NewRef(file);", "(File *)file;", tests="compiled"),
    mutant("Window: the buffer's file leaks", "    Py_DECREF(file);\n    return usable;", "    return usable;"),
    mutant(
        "Window: set up again, it keeps the old targets",
        "    drop_targets(self);\n    Target *targets",
        "    Target *targets",
        tests="compiled",
    ),
    mutant("Window: its policy leaks", "    Py_CLEAR(self->policy.retry);\n", tests="compiled"),
    mutant("Window: its bytes leak", "    Py_CLEAR(self->bytes);\n", tests="compiled"),
    mutant("Window: files are not traversed", "        Py_VISIT(self->targets[i].file);\n", tests="cycles"),
    mutant("Window: ioctls are not traversed", "        Py_VISIT(self->targets[i].ioctl);\n", tests="compiled"),
    mutant("Window: retry is not traversed", "    Py_VISIT(self->policy.retry);\n", tests="compiled"),
    mutant("Window: bytes are not traversed", "    Py_VISIT(self->bytes);\n", tests="compiled"),
    mutant(
        "Window: weak references outlive it",
        "        PyObject_ClearWeakRefs((PyObject *)self);",
        "        ;",
        tests="compiled",
    ),
]
