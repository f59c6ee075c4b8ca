# Threads: a pool of plain OS threads that wait on CPython's own locks. Without OpenMP, whose runtimes clash with each
# other and hang after a fork.
#
# run_tasks() gives task i to thread i % threads; thread 0 is the caller. Tasks write disjoint memory and a split never
# changes the order of a sum, so results do not depend on how many threads there are, nor on whether the pool was free.
#
# Uses fp_mode, read_fp, flush_subnormals, restore_fp (_core), poll_state, clock_seconds (structs).

from libc.stdlib cimport malloc

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
    PyThread_type_lock PyThread_allocate_lock()
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible)
    void PyThread_release_lock(PyThread_type_lock lock)
    unsigned long PyThread_get_thread_ident()
    unsigned long PyThread_start_new_thread(void (*function)(void*) noexcept nogil, void* argument)

cdef extern from "Python.h" nogil:
    int PyErr_CheckSignals()         # look() holds the GIL when it calls this; an exception stays with its thread
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure()
    void PyGILState_Release(PyGILState_STATE state)

cdef enum: MAX_THREADS = 256
cdef double LOOK_INTERVAL = 0.05     # seconds between looks for Ctrl-C
cdef unsigned long NOT_STARTED = <unsigned long>-1

ctypedef int (*task_function)(void*) noexcept nogil

cdef struct task:
    task_function function
    void* argument
    int result

cdef struct worker:
    PyThread_type_lock go, done      # both held while the worker is idle
    task* tasks                      # its share: tasks first, first + step, ... below count
    int first, step, count

cdef worker* workers[MAX_THREADS]
cdef int started = 0
cdef int generation = 1              # one more in every child of a fork: tells this process's threads from its parent's
cdef PyThread_type_lock pool_lock = PyThread_allocate_lock()


cdef void run_share(task* tasks, int first, int step, int count) noexcept nogil:
    cdef fp_mode mode = flush_subnormals()
    cdef int i = first
    while i < count:
        tasks[i].result = tasks[i].function(tasks[i].argument)
        i += step
    restore_fp(mode)


cdef void work(void* argument) noexcept nogil:
    cdef worker* self = <worker*>argument
    while True:
        PyThread_acquire_lock(self.go, 1)
        run_share(self.tasks, self.first, self.step, self.count)
        PyThread_release_lock(self.done)


cdef bint start_worker(int i) noexcept nogil:
    cdef worker* w = <worker*>malloc(sizeof(worker))
    if w == NULL:
        return False
    w.go = PyThread_allocate_lock()
    w.done = PyThread_allocate_lock()
    if w.go == NULL or w.done == NULL:
        return False
    PyThread_acquire_lock(w.go, 1)
    PyThread_acquire_lock(w.done, 1)
    workers[i] = w
    return PyThread_start_new_thread(work, w) != NOT_STARTED


# Runs signal handlers; nonzero when one raised. Only the caller's thread does, and only every LOOK_INTERVAL.
cdef int look(poll_state* poll) noexcept nogil:
    cdef fp_mode mode = read_fp()
    cdef PyGILState_STATE gil = PyGILState_Ensure()
    restore_fp(poll.mode)
    if PyErr_CheckSignals():
        poll.cancelled = 1
    PyGILState_Release(gil)
    restore_fp(mode)
    poll.next = clock_seconds() + LOOK_INTERVAL
    return poll.cancelled


cdef void start_poll(poll_state* poll) noexcept nogil:
    poll.cancelled = 0
    poll.look = look
    poll.thread = PyThread_get_thread_ident()
    poll.mode = read_fp()
    poll.next = clock_seconds() + LOOK_INTERVAL


# 0, or -1 with the exception of a signal handler set.
cdef int run_tasks(task* tasks, int count, int threads, poll_state* poll) noexcept nogil:
    global started
    cdef int i, used = 1, wanted = min(min(threads, count), <int>MAX_THREADS)
    cdef bint pooled = wanted > 1 and PyThread_acquire_lock(pool_lock, 0) != 0
    if pooled:      # else another call has the pool, and this one does the same work on its own thread
        while started < wanted - 1 and start_worker(started):
            started += 1
        used = min(wanted, started + 1)
        for i in range(1, used):
            workers[i - 1].tasks = tasks
            workers[i - 1].first = i
            workers[i - 1].step = used
            workers[i - 1].count = count
            PyThread_release_lock(workers[i - 1].go)
    run_share(tasks, 0, used, count)
    if pooled:
        for i in range(1, used):
            while PyThread_acquire_lock_timed(workers[i - 1].done, 20000, 0) != PY_LOCK_ACQUIRED:
                look(poll)
        PyThread_release_lock(pool_lock)
    for i in range(count):
        if tasks[i].result:
            return -1
    return -1 if poll.cancelled else 0      # a handler may have raised after the last task


def forget_pool():
    """Start a new pool of threads. Called in the child after a fork, which has none of its parent's threads."""
    global started, pool_lock, generation
    generation += 1
    started = 0
    pool_lock = PyThread_allocate_lock()
