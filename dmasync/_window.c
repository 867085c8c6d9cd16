/* File and Window: what a signal handler's exception must not tear apart.
 *
 * CPython runs signal handlers between bytecodes, and a handler may raise. A system call and the line that records its
 * success are therefore one step in C here, with nothing between them that looks for signals: a START and `opened`, an
 * END and `opened`, a new descriptor and its owner. Everything that a person reads, configures or changes is Python
 * (retry.py, syncer.py), called only when the kernel says no. _window_py.py does the same work without C.
 */
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

/* linux/dma-buf.h, which old systems do not have; tests/unit/test_uapi.py compares the number. */
#define SYNC_REQUEST _IOW('b', 0, uint64_t)
enum { SYNC_START = 0, SYNC_RW = 3, SYNC_END = 4 };

/* Signals come to an end some time; a backend that never stops raising does not. */
enum { MOST_INTERRUPTS = 100 };

static PyObject *python;                     /* the half of a window's work that is Python: dmasync.retry */
static PyObject *linux_ioctl;                /* fcntl.ioctl: a backend that has it is Linux itself */
static PyObject *sync_request;               /* DMA_BUF_IOCTL_SYNC, for the other backends */
static PyObject *accesses[SYNC_RW + 1];      /* the members of SyncType, by value */
static PyObject *file_name, *release_name;
static PyTypeObject *file_type, *window_type;

#define OR_NONE(object) ((object) == NULL ? Py_None : (object))
#define COLD __attribute__((cold, noinline)) /* keeps what the kernel seldom asks for out of the short way */

/* How many forks lie between this process and the one that loaded the module. */
static unsigned generation;

static void count_fork(void) {
    generation++;
}

/* 0, or -1 with an exception set, of a call whose answer nobody needs; takes the reference. */
static int done(PyObject *answer) {
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static PyObject *none_or_error(int result) {
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

#if PY_VERSION_HEX < 0x030C0000
/* What CPython has from 3.12 on: the exception that is set, which is no longer set afterwards; NULL if none was. */
static PyObject *PyErr_GetRaisedException(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Takes the reference. */
static void PyErr_SetRaisedException(PyObject *value) {
    if (value != NULL)
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(value)), value, PyException_GetTraceback(value));
}
#endif

/* ---- File: a descriptor, its backend, and who still needs it ---------------------------------------------------- */

/* The state of a File is one number, so that "the last one closes" is one atomic step, also without the GIL. */
enum { OWNED = 1, CLOSED = 2, WINDOW = 4 };

typedef struct {
    PyObject_HEAD
    int fd;
    _Atomic uint64_t state; /* OWNED, CLOSED, and WINDOW times the number of windows that use it */
    PyObject *number;       /* fd as an int */
    PyObject *backend, *ioctl;
    PyObject *keeps; /* what must live as long: the object that a borrowed descriptor came from */
} File;

/* Close the number if it is owned, let go of, and used by no window. However many ask at once, one of them does it. */
static int close_if_unused(File *self) {
    uint64_t unused = OWNED | CLOSED;
    if (!atomic_compare_exchange_strong(&self->state, &unused, CLOSED))
        return 0;
    /* Forgotten first, closed second: whatever close() raises, the number may be another file's by now. */
    return done(PyObject_CallMethod(self->backend, "close", "O", self->number));
}

static int let_go(File *self) {
    atomic_fetch_or(&self->state, CLOSED);
    return close_if_unused(self);
}

static void stop_using(File *self) {
    atomic_fetch_sub(&self->state, WINDOW);
    if (close_if_unused(self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
}

/* A window will use the file: its number stays open until stop_using(). False if the owner has let go of it. */
static int start_using(File *self) {
    if (!(atomic_fetch_add(&self->state, WINDOW) & CLOSED))
        return 1;
    stop_using(self); /* which closes the number, if it was just now that the last other window let go */
    return 0;
}

static File *new_file(PyObject *backend, PyObject *keeps) {
    File *self = (File *)file_type->tp_alloc(file_type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    self->backend = Py_NewRef(backend);
    self->keeps = Py_XNewRef(keeps);
    self->ioctl = PyObject_GetAttrString(backend, "ioctl");
    if (self->ioctl == NULL)
        Py_CLEAR(self);
    return self;
}

static int set_number(File *self, PyObject *number, int owned) {
    self->fd = PyObject_AsFileDescriptor(number);
    if (self->fd < 0)
        return -1;
    self->number = Py_NewRef(number);
    atomic_store(&self->state, owned ? OWNED : 0);
    return 0;
}

static PyObject *file_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs) {
    static char *positional_only[] = {"", "", "", "", NULL};
    PyObject *number, *backend, *keeps = Py_None;
    int owned = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|pO:File", positional_only, &number, &backend, &owned, &keeps))
        return NULL;
    File *self = new_file(backend, keeps);
    if (self != NULL && set_number(self, number, owned) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* opened(backend, offset, call, *arguments): the File that owns the descriptor that the call returns or, where *offset*
 * is no None, that it writes at that offset of its last argument, a bytearray. */
static PyObject *file_opened(PyObject *Py_UNUSED(type), PyObject *const *args, Py_ssize_t count) {
    PyObject *last = count < 3 ? NULL : args[count - 1];
    Py_ssize_t offset = last == NULL || args[1] == Py_None ? -1 : PyLong_AsSsize_t(args[1]);
    if (last == NULL || (args[1] != Py_None && (!PyByteArray_Check(last) || offset < 0 ||
                                                PyByteArray_GET_SIZE(last) - offset < (Py_ssize_t)sizeof(int))))
        return PyErr_Format(PyExc_TypeError, "opened() takes a backend, an offset, a call and its arguments");
    File *self = new_file(args[0], Py_None);
    if (self == NULL)
        return NULL;
    PyObject *number = PyObject_Vectorcall(args[2], args + 3, (size_t)count - 3, NULL);
    if (number != NULL && offset >= 0) {
        int fd = -1; /* a backend that made the bytearray shorter has written none */
        if (PyByteArray_GET_SIZE(last) - offset >= (Py_ssize_t)sizeof fd)
            memcpy(&fd, PyByteArray_AS_STRING(last) + offset, sizeof fd);
        Py_SETREF(number, PyLong_FromLong(fd));
    }
    if (number == NULL || set_number(self, number, 1) < 0)
        Py_CLEAR(self);
    Py_XDECREF(number);
    return (PyObject *)self;
}

static PyObject *file_close(File *self, PyObject *Py_UNUSED(ignored)) {
    return none_or_error(let_go(self));
}

static PyObject *file_release(File *self, PyObject *Py_UNUSED(ignored)) {
    atomic_fetch_and(&self->state, ~(uint64_t)OWNED);
    atomic_fetch_or(&self->state, CLOSED);
    return Py_NewRef(self->number);
}

static void file_finalize(File *self) {
    PyObject *pending = PyErr_GetRaisedException();
    if (self->number != NULL && let_go(self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    PyErr_SetRaisedException(pending);
}

static int file_traverse(File *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->backend);
    Py_VISIT(self->ioctl);
    Py_VISIT(self->keeps);
    return 0;
}

static void file_dealloc(File *self) {
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->number);
    Py_XDECREF(self->backend);
    Py_XDECREF(self->ioctl);
    Py_XDECREF(self->keeps);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *file_get_closed(File *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong((long)(atomic_load(&self->state) & CLOSED));
}

static PyObject *file_get_windows(File *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(atomic_load(&self->state) / WINDOW);
}

/* ---- Window: START of each target in turn, END in reverse -------------------------------------------------------- */

typedef struct {
    File *file;
    PyObject *ioctl; /* NULL: ioctl(2) */
    unsigned access;
} Target;

typedef struct {
    PyObject *retry; /* NULL or None: the default */
    char timed;      /* it has a deadline, which begins with the first try, or waits for fences before a START */
    char log_only;
} Policy;

typedef struct {
    PyObject_HEAD
    Target *targets; /* NULL before __init__ and after a move */
    Target only;     /* where they lie if there is one, as in most windows */
    Py_ssize_t count;
    Py_ssize_t opened; /* the first so many targets are owed an END */
    Policy policy;
    PyObject *bytes; /* NULL or None, or the memoryview that a window gives its body a view of */
    PyObject *view;  /* that view */
    PyObject *weakrefs;
    unsigned made_in; /* the generation that opened it */
    atomic_bool busy; /* a START or END is being made */
    char using;       /* every target's file has been told so */
    char moved;
    char entering; /* _entered may be read: it opens the window, and inspect.getmembers() reads everything */
} Window;

/* The Python class says what is wrong, and raises; but "moved" may pass for a window that does nothing. */
static COLD int refuse(Window *self, const char *reason) {
    return done(PyObject_CallMethod((PyObject *)self, "_refuse", "s", reason));
}

static void stop_using_files(Window *self) {
    if (self->using) {
        self->using = 0;
        for (Py_ssize_t i = 0; i < self->count; i++)
            stop_using(self->targets[i].file);
    }
}

/* After a fork, what was open here is the parent's, who makes the END: to the kernel there is one buffer, not two. */
static COLD void disown(Window *self) {
    self->made_in = generation;
    self->busy = 1; /* whatever it was in the parent; inherited() may lead back here */
    self->opened = 0;
    if (self->using && done(PyObject_CallMethod(python, "inherited", NULL)) < 0)
        PyErr_WriteUnraisable(python);
    stop_using_files(self);
    self->busy = 0;
}

/* One START, END, move or __init__ of a window at a time: another thread, or a signal handler, is refused. */
static int claim(Window *self) {
    if (self->made_in != generation)
        disown(self);
    if (!atomic_exchange(&self->busy, 1))
        return 0;
    (void)refuse(self, "busy");
    return -1;
}

enum outcome { DONE, REFUSED, GIVEN_UP, INTERRUPTED };

/* One system call. *said* is the exception that came instead of a success. */
static inline enum outcome try_once(const Target *target, unsigned flags, PyObject **said) {
    if (target->ioctl == NULL) {
        uint64_t argument = flags;
        int result, code;
        /* START may sleep until fences have signalled, and END in an exporter's driver. */
        Py_BEGIN_ALLOW_THREADS
        result = ioctl(target->file->fd, SYNC_REQUEST, &argument);
        code = errno;
        Py_END_ALLOW_THREADS
        if (result >= 0)
            return DONE;
        if (code == EINTR && PyErr_CheckSignals() < 0) {
            *said = PyErr_GetRaisedException();
            return INTERRUPTED;
        }
        /* Not PyErr_SetFromErrno: that runs signal handlers, whose exception would replace the kernel's answer. */
        PyObject *text = PyUnicode_DecodeLocale(strerror(code), "surrogateescape"); /* in any locale */
        if ((*said = PyObject_CallFunction(PyExc_OSError, "iN", code, text)) != NULL)
            return REFUSED;
    } else {
        uint64_t bytes = flags; /* a bytearray of its own: the backend may change it in place */
        PyObject *arguments[] = {target->file->number, sync_request,
                                 PyByteArray_FromStringAndSize((const char *)&bytes, sizeof bytes)};
        PyObject *answer = arguments[2] == NULL ? NULL : PyObject_Vectorcall(target->ioctl, arguments, 3, NULL);
        Py_XDECREF(arguments[2]);
        if (answer != NULL) {
            Py_DECREF(answer);
            return DONE;
        }
    }
    *said = PyErr_GetRaisedException();
    return REFUSED;
}

/* After a refusal, or before the first try where the policy is timed: wait and try as the policy says. *attempts*
 * counts, also across interruptions. Python's refused() returns None to try, the error to give up with, or raises what
 * was no answer of a kernel. */
static COLD enum outcome try_again(Window *self, const Target *target, unsigned flags, PyObject **attempts,
                                   PyObject **said) {
    while (self->made_in == generation) {
        PyObject *answer = *said, *failure = NULL;
        if (*attempts == NULL)
            *attempts = PyObject_CallMethod(python, "Attempts", "(O)", OR_NONE(self->policy.retry));
        if (*attempts != NULL)
            failure = PyObject_CallMethod(python, "refused", "OOOI", *attempts, OR_NONE(answer), target->file, flags);
        Py_XDECREF(answer);
        if (failure != Py_None) {
            *said = failure == NULL ? PyErr_GetRaisedException() : failure;
            return failure == NULL ? INTERRUPTED : GIVEN_UP;
        }
        Py_DECREF(failure);
        *said = NULL;
        enum outcome outcome = try_once(target, flags, said);
        if (outcome != REFUSED)
            return outcome;
    }
    Py_CLEAR(*said);
    return DONE; /* as far as this child of a fork is concerned: the parent goes on with it */
}

/* One START or END, tried as often as the policy says. */
static inline enum outcome make_step(Window *self, const Target *target, unsigned flags, PyObject **attempts,
                                     PyObject **said) {
    enum outcome outcome = self->policy.timed ? REFUSED : try_once(target, flags, said);
    return outcome == REFUSED ? try_again(self, target, flags, attempts, said) : outcome;
}

/* END everything that is open, last first, whatever is raised meanwhile. *interrupt*: the first exception that was no
 * answer of the kernel; *failures*: the errors that it gave up with. */
static void make_ends(Window *self, PyObject **interrupt, PyObject **failures) {
    PyObject *attempts = NULL;
    int interrupts = 0;
    while (self->opened && self->made_in == generation) {
        const Target *target = &self->targets[self->opened - 1];
        PyObject *said = NULL;
        enum outcome outcome = make_step(self, target, target->access | SYNC_END, &attempts, &said);
        if (outcome == INTERRUPTED) {
            if (*interrupt == NULL)
                *interrupt = Py_XNewRef(said);
            if (++interrupts <= MOST_INTERRUPTS) {
                Py_XDECREF(said);
                continue;
            }
            Py_XSETREF(said, PyObject_CallMethod(python, "hopeless", "iIOi", target->file->fd,
                                                 target->access | SYNC_END, said, interrupts));
        }
        if (outcome != DONE) {
            if (said != NULL && (*failures != NULL || (*failures = PyList_New(0)) != NULL))
                (void)PyList_Append(*failures, said);
            PyErr_Clear(); /* out of memory: there is nothing left to tell it with */
            Py_XDECREF(said);
        }
        self->opened--;
        interrupts = 0;
        Py_CLEAR(attempts);
    }
    Py_CLEAR(attempts); /* left over where a signal handler or the backend has forked meanwhile */
    stop_using_files(self);
}

/* Logs, attaches and raises what there is; takes the references. */
static COLD int report(Window *self, PyObject *refusal, PyObject *interrupt, PyObject *failures, PyObject *body) {
    int result = 0;
    if (refusal != NULL || interrupt != NULL || failures != NULL)
        result = done(PyObject_CallMethod(python, "conclude", "OOOOi", OR_NONE(refusal), OR_NONE(interrupt),
                                          OR_NONE(failures), OR_NONE(body), self->policy.log_only));
    Py_XDECREF(refusal);
    Py_XDECREF(interrupt);
    Py_XDECREF(failures);
    return result;
}

/* The bytes are out of reach once the window is closed, unless something made from the view still looks at them. */
static void release_view(Window *self) {
    PyObject *view = self->view;
    self->view = NULL;
    if (view != NULL && done(PyObject_CallMethodNoArgs(view, release_name)) < 0)
        PyErr_Clear();
    Py_XDECREF(view);
}

static int use_files(Window *self) {
    Py_ssize_t used = 0;
    while (used < self->count && start_using(self->targets[used].file))
        used++;
    self->using = used == self->count;
    while (!self->using && used--)
        stop_using(self->targets[used].file);
    return self->using;
}

/* What START of every target came to, if not DONE: whatever was opened is ended. */
static COLD int start_failed(Window *self, enum outcome outcome, PyObject *said) {
    PyObject *interrupt = NULL, *failures = NULL;
    make_ends(self, &interrupt, &failures);
    if (outcome != GIVEN_UP || !self->policy.log_only)
        release_view(self);
    self->busy = 0;
    if (outcome == GIVEN_UP) /* 0 where it is only logged: the body runs, and no window is open */
        return report(self, said, interrupt, failures, NULL);
    /* Not PyErr_SetObject: that replaces its context by the exception that is being handled. */
    if (report(self, NULL, interrupt, failures, said) == 0)
        PyErr_SetRaisedException(Py_NewRef(said));
    Py_DECREF(said);
    return -1;
}

static int start(Window *self) {
    if (claim(self) < 0)
        return -1;
    if (self->opened || self->targets == NULL || !use_files(self)) {
        self->busy = 0;
        return refuse(self, self->opened ? "open" : self->targets ? "closed" : self->moved ? "moved" : "unset");
    }
    PyObject *said = NULL, *attempts = NULL;
    enum outcome outcome = DONE;
    /* Before the first START, so that nothing that can fail stands between START and the body. */
    if (self->bytes != NULL && self->bytes != Py_None) {
        PyObject *bytes = Py_NewRef(self->bytes); /* its __buffer__ may replace it here */
        Py_XSETREF(self->view, PyMemoryView_FromObject(bytes));
        Py_DECREF(bytes);
        if (self->view == NULL) {
            said = PyErr_GetRaisedException();
            outcome = INTERRUPTED;
        }
    }
    while (outcome == DONE && self->opened < self->count && self->made_in == generation) {
        const Target *target = &self->targets[self->opened];
        outcome = make_step(self, target, target->access | SYNC_START, &attempts, &said);
        if (outcome == DONE)
            self->opened++; /* nothing that looks for signals since ioctl() returned */
        Py_CLEAR(attempts);
    }
    if (outcome != DONE)
        return start_failed(self, outcome, said);
    self->busy = 0;
    return 0;
}

static int end(Window *self, PyObject *body) {
    if (claim(self) < 0)
        return -1;
    PyObject *interrupt = NULL, *failures = NULL;
    make_ends(self, &interrupt, &failures);
    if (self->view != NULL)
        release_view(self); /* while no other thread can start the window, whose view would then be another */
    self->busy = 0;
    return interrupt == NULL && failures == NULL ? 0 : report(self, NULL, interrupt, failures, body);
}

/* END of a window that nobody has any more; *subject* is named where an exception has nobody to go to. */
static void end_dropped(Window *self, PyObject *subject) {
    if (!self->using)
        return;
    PyObject *pending = PyErr_GetRaisedException(), *interrupt = NULL, *failures = NULL;
    if (self->made_in != generation)
        disown(self);
    if (self->opened) {
        /* A weak reference may still lead here, from another thread or a signal handler. */
        self->busy = 1;
        make_ends(self, &interrupt, &failures);
        release_view(self);
        self->busy = 0;
        if (done(PyObject_CallMethod(python, "dropped", "sOOO", Py_TYPE(self)->tp_name, OR_NONE(interrupt),
                                     OR_NONE(failures), self->targets[0].file)) < 0)
            PyErr_WriteUnraisable(subject);
    }
    Py_XDECREF(interrupt);
    Py_XDECREF(failures);
    PyErr_SetRaisedException(pending);
}

static PyObject *window_enter(Window *self, PyObject *Py_UNUSED(ignored)) {
    return start(self) < 0 ? NULL : Py_NewRef(self->view != NULL ? self->view : (PyObject *)self);
}

static PyObject *window_get_entered(Window *self, void *Py_UNUSED(closure)) {
    if (!self->entering)
        return PyErr_Format(PyExc_AttributeError, "_entered is for __enter__ alone");
    self->entering = 0;
    return window_enter(self, NULL);
}

static PyObject *window_exit(Window *self, PyObject *const *args, Py_ssize_t count) {
    return none_or_error(end(self, count > 1 && args[1] != Py_None ? args[1] : NULL));
}

static PyObject *window_start(Window *self, PyObject *Py_UNUSED(ignored)) {
    return none_or_error(start(self));
}

static PyObject *window_end(Window *self, PyObject *Py_UNUSED(ignored)) {
    return none_or_error(end(self, NULL));
}

static void drop_targets(Window *self) {
    Target only = self->only, *targets = self->targets == &self->only ? &only : self->targets;
    Py_ssize_t count = self->count;
    self->targets = NULL;
    self->count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_DECREF(targets[i].file);
        Py_XDECREF(targets[i].ioctl);
    }
    if (targets != &only)
        PyMem_Free(targets);
}

/* NULL for *ioctl* is the file's own. */
static void set_target(Target *target, PyObject *file, PyObject *ioctl, unsigned access) {
    if (ioctl == NULL)
        ioctl = ((File *)file)->ioctl;
    target->file = (File *)Py_NewRef(file);
    target->ioctl = ioctl == linux_ioctl ? NULL : Py_NewRef(ioctl);
    target->access = access & SYNC_RW;
}

/* _prepare(targets, ioctl, retry, timed, log_only): what the window is opened on, and how; see _window.pyi. */
static PyObject *window_prepare(Window *self, PyObject *args) {
    PyObject *pairs, *ioctl, *retry, *file;
    unsigned access;
    int timed, log_only;
    if (!PyArg_ParseTuple(args, "O!OOpp:_prepare", &PyTuple_Type, &pairs, &ioctl, &retry, &timed, &log_only))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(pairs);
    for (Py_ssize_t i = 0; i < count; i++)
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(pairs, i), "O!I", file_type, &file, &access))
            return NULL;
    if (claim(self) < 0)
        return NULL;
    if (self->using) {
        self->busy = 0;
        return none_or_error(refuse(self, "open"));
    }
    drop_targets(self);
    Target *targets = count == 1 ? &self->only : PyMem_New(Target, (size_t)count);
    for (Py_ssize_t i = 0; targets != NULL && i < count; i++) {
        PyArg_ParseTuple(PyTuple_GET_ITEM(pairs, i), "OI", &file, &access);
        set_target(&targets[i], file, ioctl == Py_None ? NULL : ioctl, access);
    }
    self->targets = targets;
    self->count = targets == NULL ? 0 : count;
    Py_XSETREF(self->policy.retry, Py_NewRef(retry));
    self->policy.timed = (char)timed;
    self->policy.log_only = (char)log_only;
    self->moved = 0;
    self->busy = 0;
    return targets == NULL ? PyErr_NoMemory() : none_or_error(0);
}

/* Sets up DmaSyncer(buffer) and DmaSyncer(buffer, access): 1; 0 for what is less usual, or wrong; -1: an exception. */
static inline int set_up_at_once(Window *self, PyObject *const *args, Py_ssize_t count) {
    if ((count != 1 && count != 2) || self->targets != NULL || PyLong_Check(args[0]))
        return 0;
    unsigned access = SYNC_RW;
    while (count == 2 && access && accesses[access] != args[1])
        access--;
    if (!access)
        return 0;
    PyObject *file = PyObject_GetAttr(args[0], file_name);
    if (file == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    /* Its getter may have led back here. */
    int usable = Py_IS_TYPE(file, file_type) && !(atomic_load(&((File *)file)->state) & CLOSED) &&
                 self->targets == NULL && !self->busy;
    if (usable) {
        set_target(&self->only, file, NULL, access);
        self->targets = &self->only;
        self->count = 1;
        self->made_in = generation;
    }
    Py_DECREF(file);
    return usable;
}

/* Everything else is for the Python method _set_up, which has the signature and says what is wrong. */
static int window_init(Window *self, PyObject *args, PyObject *kwargs) {
    int result = kwargs == NULL ? set_up_at_once(self, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args)) : 0;
    if (result == 0) {
        PyObject *method = PyObject_GetAttrString((PyObject *)self, "_set_up");
        result = method == NULL ? -1 : done(PyObject_Call(method, args, kwargs));
        Py_XDECREF(method);
    }
    return result < 0 ? -1 : 0;
}

/* A window for each access is common: making one is a third cheaper without a tuple of its arguments. */
static PyObject *window_vectorcall(PyObject *type, PyObject *const *args, size_t flags, PyObject *names) {
    PyObject *self = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0), *method = NULL;
    int usual = names == NULL && ((PyTypeObject *)type)->tp_init == (initproc)window_init;
    int result = self == NULL ? -1 : usual ? set_up_at_once((Window *)self, args, PyVectorcall_NARGS(flags)) : 0;
    if (result == 0 && (method = PyObject_GetAttrString(self, "__init__")) != NULL)
        result = done(PyObject_Vectorcall(method, args, flags & ~PY_VECTORCALL_ARGUMENTS_OFFSET, names)) + 1;
    Py_XDECREF(method);
    if (result <= 0)
        Py_CLEAR(self);
    return self;
}

/* _move(heir): everything but the bytes goes over to *heir*, a new window; exactly one of the two owes the END. */
static PyObject *window_move(Window *self, PyObject *argument) {
    if (!PyObject_TypeCheck(argument, window_type) || ((Window *)argument)->targets != NULL ||
        ((Window *)argument)->busy || argument == (PyObject *)self)
        return PyErr_Format(PyExc_TypeError, "heir must be a Window that is not set up");
    if (claim(self) < 0)
        return NULL;
    Window *heir = (Window *)argument;
    heir->only = self->only;
    heir->targets = self->targets == &self->only ? &heir->only : self->targets;
    heir->count = self->count;
    heir->opened = self->opened;
    heir->using = self->using;
    heir->policy = self->policy;
    heir->moved = self->targets == NULL;
    heir->made_in = self->made_in;
    self->targets = NULL;
    self->count = self->opened = 0;
    self->using = 0;
    self->policy = (Policy){NULL, 0, 0};
    self->moved = 1;
    self->busy = 0;
    return none_or_error(0);
}

static int window_traverse(Window *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->targets[i].file);
        Py_VISIT(self->targets[i].ioctl);
    }
    Py_VISIT(self->policy.retry);
    Py_VISIT(self->bytes);
    Py_VISIT(self->view);
    return 0;
}

static int window_clear(Window *self) {
    end_dropped(self, NULL); /* a finalizer of the same cycle may have opened it again */
    drop_targets(self);
    Py_CLEAR(self->policy.retry);
    Py_CLEAR(self->bytes);
    Py_CLEAR(self->view);
    return 0;
}

static void window_finalize(Window *self) {
    end_dropped(self, (PyObject *)self);
}

static void window_dealloc(Window *self) {
    /* The class may have been given a __del__ since. */
    int finalize = self->using || Py_TYPE(self)->tp_finalize != (destructor)window_finalize;
    if (finalize && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyTypeObject *type = Py_TYPE(self); /* a finalizer may have given it another */
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    window_clear(self); /* also the END of a window that was revived by a finalizer, opened and dropped again */
    type->tp_free(self);
    Py_DECREF(type);
}

/* quicken(class): what CPython does not hand down to a subclass, or does more slowly. Only for subclasses that add
 * neither members nor a finalizer; those that are derived from them in turn are made and freed in the ordinary way. */
static PyObject *quicken(PyObject *Py_UNUSED(module), PyObject *class) {
    PyTypeObject *type = (PyTypeObject *)class;
    type->tp_vectorcall = window_vectorcall;
    type->tp_dealloc = (destructor)window_dealloc;
    return Py_NewRef(class);
}

static PyObject *window_get_active(Window *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->opened > 0 && self->opened == self->count && self->made_in == generation);
}

static PyObject *window_get_targets(Window *self, void *Py_UNUSED(closure)) {
    /* A list first: what is collected meanwhile may move the window away, and leave fewer targets than there were. */
    PyObject *pairs = PyList_New(0);
    for (Py_ssize_t i = 0; pairs != NULL && i < self->count; i++) {
        PyObject *pair = Py_BuildValue("NI", Py_NewRef(self->targets[i].file), self->targets[i].access);
        if (pair == NULL || PyList_Append(pairs, pair) < 0)
            Py_CLEAR(pairs);
        Py_XDECREF(pair);
    }
    PyObject *all = pairs == NULL ? NULL : PyList_AsTuple(pairs);
    Py_XDECREF(pairs);
    return all;
}

/* ---- The module -------------------------------------------------------------------------------------------------- */

#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}

static PyMethodDef file_methods[] = {
    METHOD("opened", file_opened, METH_FASTCALL | METH_STATIC, NULL),
    METHOD("close", file_close, METH_NOARGS, NULL),
    METHOD("release", file_release, METH_NOARGS, NULL),
    {NULL, NULL, 0, NULL},
};
static PyMemberDef file_members[] = {
    {"fd", T_OBJECT_EX, offsetof(File, number), READONLY, NULL},
    {"backend", T_OBJECT_EX, offsetof(File, backend), READONLY, NULL},
    {"ioctl", T_OBJECT_EX, offsetof(File, ioctl), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef file_getset[] = {
    {"closed", (getter)file_get_closed, NULL, NULL, NULL},
    {"windows", (getter)file_get_windows, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot file_slots[] = {
    {Py_tp_doc, "A descriptor with its backend; closed when its owner and its last window have let go."},
    {Py_tp_new, file_new}, {Py_tp_finalize, file_finalize}, {Py_tp_dealloc, file_dealloc},
    {Py_tp_traverse, file_traverse}, {Py_tp_methods, file_methods}, {Py_tp_members, file_members},
    {Py_tp_getset, file_getset}, {0, NULL},
};
static PyType_Spec file_spec = {"dmasync._window.File", sizeof(File), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                                file_slots};

static PyMethodDef window_methods[] = {
    METHOD("__enter__", window_enter, METH_NOARGS, NULL),
    METHOD("__exit__", window_exit, METH_FASTCALL, NULL),
    METHOD("start", window_start, METH_NOARGS,
           "Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."),
    METHOD("end", window_end, METH_NOARGS,
           "Close the window; does nothing where none is open. Raises what leaving the with block would raise."),
    METHOD("_prepare", window_prepare, METH_VARARGS, NULL),
    METHOD("_move", window_move, METH_O, NULL),
    {NULL, NULL, 0, NULL},
};
static PyMemberDef window_members[] = {
    {"_bytes", T_OBJECT, offsetof(Window, bytes), 0, NULL},
    {"_entering", T_BOOL, offsetof(Window, entering), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Window, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef window_getset[] = {
    {"active", (getter)window_get_active, NULL, "Whether every START has succeeded and no END has run.", NULL},
    {"_targets", (getter)window_get_targets, NULL, NULL, NULL},
    {"_entered", (getter)window_get_entered, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot window_slots[] = {
    {Py_tp_doc, "START of one dma-buf or several, and the END that follows whatever happens."},
    {Py_tp_init, window_init}, {Py_tp_new, PyType_GenericNew}, {Py_tp_finalize, window_finalize},
    {Py_tp_dealloc, window_dealloc}, {Py_tp_traverse, window_traverse}, {Py_tp_clear, window_clear},
    {Py_tp_methods, window_methods}, {Py_tp_members, window_members}, {Py_tp_getset, window_getset}, {0, NULL},
};
static PyType_Spec window_spec = {"dmasync._window.Window", sizeof(Window), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, window_slots};

static int execute(PyObject *module) {
    static PyInterpreterState *home;
    if (home == NULL)
        pthread_atfork(NULL, NULL, count_fork);
    else if (home != PyInterpreterState_Get()) {
        PyErr_SetString(PyExc_ImportError, "dmasync._window serves one interpreter in a process");
        return -1;
    }
    home = PyInterpreterState_Get();
    PyObject *fcntl = PyImport_ImportModule("fcntl"), *access = PyImport_ImportModule("dmasync.access");
    python = PyImport_ImportModule("dmasync.retry");
    file_name = PyUnicode_InternFromString("_file");
    release_name = PyUnicode_InternFromString("release");
    if (fcntl == NULL || access == NULL || python == NULL || file_name == NULL || release_name == NULL ||
        (linux_ioctl = PyObject_GetAttrString(fcntl, "ioctl")) == NULL)
        return -1;
    for (int value = 1; value <= SYNC_RW; value++)
        if ((accesses[value] = PyObject_CallMethod(access, "SyncType", "i", value)) == NULL)
            return -1;
    Py_DECREF(fcntl);
    Py_DECREF(access);
    sync_request = PyLong_FromUnsignedLong(SYNC_REQUEST);
    file_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &file_spec, NULL);
    window_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &window_spec, NULL);
    if (sync_request == NULL || file_type == NULL || window_type == NULL || PyModule_AddType(module, file_type) < 0 ||
        PyModule_AddType(module, window_type) < 0 || PyModule_AddObjectRef(module, "SYNC_REQUEST", sync_request) < 0)
        return -1;
    return 0;
}

static PyMethodDef functions[] = {METHOD("quicken", quicken, METH_O, NULL), {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "dmasync._window", .m_methods = functions,
                                        .m_slots = slots};

PyMODINIT_FUNC PyInit__window(void) {
    return PyModuleDef_Init(&definition);
}
