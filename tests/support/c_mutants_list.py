"""Mutants of dmasync/_window.c: START and END, views, threads, processes, setting up, moving; and all of them."""

from __future__ import annotations

from tests.support.c_mutant import mutant
from tests.support.c_mutants_file import MUTANTS_OF_FILE

MUTANTS = [
    *MUTANTS_OF_FILE,
    # START and END
    mutant(
        "START: opened is counted before the ioctl",
        "        outcome = make_step(self, target, target->access | SYNC_START",
        "        self->opened++;\n        outcome = make_step(self, target, target->access | SYNC_START",
        ("        if (outcome == DONE)\n            self->opened++;", "       "),
    ),
    mutant(
        "START: the first refusal of a group stops nothing",
        "while (outcome == DONE && self->opened <",
        "while (self->opened <",
        tests="group",
    ),
    mutant(
        "START: a refusal is the first's and the next buffer's",
        "since ioctl() returned */\n        Py_CLEAR(attempts);",
        "since ioctl() returned */",
        tests="group",
    ),
    mutant(
        "START: closed files before this one stay in use",
        "while (!self->using && used--)",
        "while (0)",
        tests="compiled",
    ),
    mutant(
        "START: nobody knows that files are in use",
        "self->using = used == self->count;",
        "self->using = 0;",
        tests="core",
    ),
    mutant(
        "START: a failed one logs and raises nothing",
        "        PyErr_SetRaisedException(Py_NewRef(said));",
        "        ;",
        tests="syncer",
    ),
    mutant(
        "START: an exception in its place gets another context",
        "        PyErr_SetRaisedException(Py_NewRef(said));",
        "        PyErr_SetObject((PyObject *)Py_TYPE(said), said);",
        tests="compiled",
    ),
    mutant(
        "ioctl: EINTR through PyErr_SetFromErrno, which runs handlers",
        """        if (code == EINTR && PyErr_CheckSignals() < 0) {
            *said = PyErr_GetRaisedException();
            return INTERRUPTED;
        }""",
        """        errno = code;
        if (code == EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            *said = PyErr_GetRaisedException();
            return REFUSED;
        }""",
        tests="real_ioctl",
    ),
    mutant(
        "ioctl: other threads wait",
        "        Py_BEGIN_ALLOW_THREADS\n",
        "        {\n",
        ("        Py_END_ALLOW_THREADS\n", "        }\n"),
        tests="real_ioctl",
    ),
    mutant("ioctl: the error has no errno", '"iN", code, text)', '"N", text)', tests="real_ioctl"),
    mutant(
        "START: what was opened before a failure stays open",
        "    make_ends(self, &interrupt, &failures);\n    if (outcome != GIVEN_UP",
        "    if (outcome != GIVEN_UP",
        tests="group",
    ),
    mutant(
        "END: the flag is missing",
        "make_step(self, target, target->access | SYNC_END,",
        "make_step(self, target, target->access,",
        tests="syncer",
    ),
    mutant(
        "END: forward", "&self->targets[self->opened - 1]", "&self->targets[self->count - self->opened]", tests="group"
    ),
    mutant(
        "END: counted off before the ioctl",
        "&self->targets[self->opened - 1]",
        "&self->targets[--self->opened]",
        ("        self->opened--;\n        interrupts = 0;\n", ""),
        tests="syncer",
    ),
    mutant(
        "END: the files are closed before it",
        "    PyObject *attempts = NULL;\n    int interrupts = 0;",
        "    PyObject *attempts = NULL;\n    int interrupts = 0;\n    stop_using_files(self);",
        tests="core",
    ),
    mutant(
        "END: the files stay in use",
        "forked meanwhile */\n    stop_using_files(self);",
        "forked meanwhile */",
        tests="core",
    ),
    mutant("END: files are told twice", "        self->using = 0;\n", tests="core"),
    mutant(
        "END: an interrupt is lost",
        "                *interrupt = Py_XNewRef(said);",
        "                ;",
        tests="syncer",
    ),
    mutant(
        "END: the last interrupt is raised",
        "            if (*interrupt == NULL)\n                *interrupt =",
        "                *interrupt =",
        tests="syncer",
    ),
    mutant("END: an interrupt ends it", "++interrupts <= MOST_INTERRUPTS", "++interrupts <= 0", tests="syncer"),
    mutant("END: interrupts never come to an end", "++interrupts <= MOST_INTERRUPTS", "++interrupts", tests="syncer"),
    mutant(
        "END: attempts are forgotten at an interrupt",
        "                Py_XDECREF(said);\n                continue;",
        "                Py_DECREF(said);\n                Py_CLEAR(attempts);\n                continue;",
        tests="compiled",
    ),
    mutant(
        "END: attempts go on with the next buffer",
        "        self->opened--;\n        interrupts = 0;\n        Py_CLEAR(attempts);",
        "        self->opened--;",
        tests="group",
    ),
    mutant(
        "END: only the last failure is told",
        "(*failures != NULL || (*failures = PyList_New(0)) != NULL)",
        "((*failures = PyList_New(0)) != NULL)",
        tests="group",
    ),
    mutant(
        "END: the body's exception is replaced",
        "report(self, NULL, interrupt, failures, body)",
        "report(self, NULL, interrupt, failures, NULL)",
        tests="syncer",
    ),
    mutant(
        "END: a deadline begins with the first refusal",
        "self->policy.timed ? REFUSED : try_once",
        "0 ? REFUSED : try_once",
        tests="syncer",
    ),
    mutant(
        "END: a dropped window loses the exception on its way",
        "    Py_XDECREF(failures);\n    PyErr_SetRaisedException(pending);",
        "    Py_XDECREF(failures);\n    Py_XDECREF(pending);",
        tests="compiled",
    ),
    mutant("END: a dropped window opened again loses it", "    end_dropped(self, NULL); /*", "    /*", tests="cycles"),
    # Views
    mutant(
        "view: not released at END",
        "    if (self->view != NULL)\n        release_view(self); /*",
        "    /*",
        tests="buffer",
    ),
    mutant(
        "view: something that looks at it makes END fail",
        "        PyErr_Clear();\n    Py_XDECREF(view);",
        "        ;\n    Py_XDECREF(view);",
        tests="buffer",
    ),
    mutant(
        "view: made only if START succeeded", "        if (self->view == NULL) {", "        if (0) {", tests="compiled"
    ),
    # One at a time
    mutant(
        "busy: never looked at",
        "    if (!atomic_exchange(&self->busy, 1))\n        return 0;",
        "    self->busy = 1;\n    return 0;",
    ),
    mutant(
        "busy: never cleared after START",
        "return start_failed(self, outcome, said);\n    self->busy = 0;",
        "return start_failed(self, outcome, said);",
    ),
    mutant(
        "busy: never cleared after a failed START",
        "    self->busy = 0;\n    if (outcome == GIVEN_UP)",
        "    if (outcome == GIVEN_UP)",
        tests="syncer",
    ),
    mutant(
        "busy: never cleared after END",
        "    self->busy = 0;\n    return interrupt == NULL",
        "    return interrupt == NULL",
    ),
    mutant(
        "busy: never cleared where START may not be",
        "        self->busy = 0;\n        return refuse(",
        "        return refuse(",
    ),
    mutant("busy: never cleared by _prepare", "    self->moved = 0;\n    self->busy = 0;", "    self->moved = 0;"),
    mutant(
        "busy: never cleared by _prepare of an open one",
        "        self->busy = 0;\n        return none_or_error(refuse",
        "        return none_or_error(refuse",
    ),
    mutant(
        "busy: never cleared by a move",
        "    self->moved = 1;\n    self->busy = 0;",
        "    self->moved = 1;",
        tests="syncer",
    ),
    # Processes
    mutant("fork: not counted", "pthread_atfork(NULL, NULL, count_fork)", "pthread_atfork(NULL, NULL, NULL)"),
    mutant(
        "fork: END is the child's too",
        "    if (self->made_in != generation)\n        disown(self);\n    if (!atomic",
        "    if (!atomic",
    ),
    mutant(
        "fork: a child that drops the window makes its END",
        "    if (self->made_in != generation)\n        disown(self);\n    if (self->opened) {",
        "    if (self->opened) {",
    ),
    mutant(
        "fork: active in the child",
        "self->opened == self->count && self->made_in == generation",
        "self->opened == self->count",
    ),
    mutant("fork: the child repeats the parent's call", "    while (self->made_in == generation) {", "    for (;;) {"),
    mutant(
        "fork: the child makes the ENDs left",
        "while (self->opened && self->made_in == generation)",
        "while (self->opened)",
    ),
    mutant(
        "fork: the child makes the STARTs left",
        "self->opened < self->count && self->made_in == generation",
        "self->opened < self->count",
    ),
    mutant(
        "fork: busy in the child for ever",
        "    stop_using_files(self);\n    self->busy = 0;\n}",
        "    stop_using_files(self);\n}",
        tests="compiled",
    ),
    mutant(
        "fork: the child's files stay in use",
        "    stop_using_files(self);\n    self->busy = 0;\n}",
        "    self->busy = 0;\n}",
        tests="compiled",
    ),
    mutant(
        "fork: nothing is said",
        'if (self->using && done(PyObject_CallMethod(python, "inherited"',
        'if (0 && done(PyObject_CallMethod(python, "inherited"',
    ),
    # Setting up and moving
    mutant(
        "set up: an open one again", "    if (self->using) {\n        self->busy", "    if (0) {\n        self->busy"
    ),
    mutant(
        "set up: a closed file",
        "Py_IS_TYPE(file, file_type) && !(atomic_load(&((File *)file)->state) & CLOSED)",
        "Py_IS_TYPE(file, file_type)",
        tests="syncer",
    ),
    mutant(
        "set up: what is no File",
        "int usable = Py_IS_TYPE(file, file_type) && !(atomic_load(&((File *)file)->state) & CLOSED)",
        "int usable = !(atomic_load(&((File *)file)->state) & CLOSED)",
        tests="compiled",
    ),
    mutant(
        "set up: an exception of the buffer is lost",
        "        if (!PyErr_ExceptionMatches(PyExc_AttributeError))\n            return -1;\n",
        tests="compiled",
    ),
    mutant("set up: a failed one is returned", "    if (result <= 0)\n        Py_CLEAR(self);", "    ;"),
    mutant(
        "set up: the real kernel is asked like any backend",
        "target->ioctl = ioctl == linux_ioctl ? NULL",
        "target->ioctl = ioctl != linux_ioctl ? NULL",
        tests="syncer",
    ),
    mutant(
        "move: it keeps its targets",
        "    self->targets = NULL;\n    self->count = self->opened = 0;",
        "    self->opened = 0;",
        tests="syncer",
    ),
    mutant(
        "move: the heir looks at its ancestor's targets",
        "&self->only ? &heir->only : self->targets",
        "&self->only ? &self->only : self->targets",
        tests="syncer",
    ),
    mutant("move: the END is lost", "    heir->opened = self->opened;\n", tests="syncer"),
    mutant("move: both owe the END", "self->count = self->opened = 0;", "self->count = 0;", tests="syncer"),
    mutant("move: the heir does not use the files", "    heir->using = self->using;\n", tests="syncer"),
    mutant(
        "move: it goes on using the files",
        "    self->using = 0;\n    self->policy = (Policy){NULL, 0, 0};",
        "    self->policy = (Policy){NULL, 0, 0};",
        tests="compiled",
    ),
    mutant(
        "move: both own the policy",
        "    self->using = 0;\n    self->policy = (Policy){NULL, 0, 0};",
        "    self->using = 0;",
        tests="compiled",
    ),
    mutant(
        "set up: again while it reads its argument", "self->targets == NULL && !self->busy;", "1;", tests="compiled"
    ),
    mutant("END: one count of interruptions for all", "        interrupts = 0;\n"),
    mutant(
        "END: the view of a dropped window stays",
        "        release_view(self);\n        self->busy = 0;\n        if (done",
        "        self->busy = 0;\n        if (done",
    ),
    mutant("_entered: opens for whoever reads it", "    if (!self->entering)\n", "    if (0)\n"),
    mutant("group: active after its first START", "self->opened == self->count && ", ""),
    mutant(
        "targets: as many as there were",
        "pairs != NULL && i < self->count; i++",
        "pairs != NULL && i < 3; i++",
        tests="compiled",
    ),
    mutant(
        "move: the deadline is lost",
        "    heir->policy = self->policy;\n",
        "    heir->policy = self->policy;\n    heir->policy.timed = 0;\n",
        tests="compiled",
    ),
    mutant(
        "move: logging only is lost",
        "    heir->policy = self->policy;\n",
        "    heir->policy = self->policy;\n    heir->policy.log_only = 0;\n",
        tests="syncer",
    ),
    mutant("move: the heir is of another process", "    heir->made_in = self->made_in;\n", tests="compiled"),
    mutant(
        "move: it still only logs",
        "    self->policy = (Policy){NULL, 0, 0};\n",
        "    self->policy.retry = NULL;\n",
        tests="compiled",
    ),
    mutant("bytes: none are viewed too", " && self->bytes != Py_None", tests="compiled"),
    mutant(
        "interpreters: a second one takes it over",
        "else if (home !=",
        "else if (0 && home !=",
        tests="compiled",
    ),
    mutant("move: nobody knows", "    self->moved = 1;\n", tests="syncer"),
    mutant("move: to a window that is set up", " || ((Window *)argument)->targets != NULL", "", tests="compiled"),
]
