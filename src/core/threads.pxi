# Threads: a pool of plain OS threads that wait on CPython's own locks. Without OpenMP, whose runtimes clash with each
# other and hang after a fork.
#
# run_tasks() gives task i to thread i % threads; thread 0 is the caller. Tasks write disjoint memory, or are members of
# a team (kernel/team.h), and a split never changes the order of a sum: results do not depend on how many threads there
# are, nor on whether the pool was free.
#
# Nobody waits for a thread that does not run. A worker is offered its share; a thread that has done its own takes the
# tasks that nobody has begun; and the caller withdraws what a worker has not accepted. What has begun, it waits for.
#
#     worker.state    idle -> offered (caller) -> running (worker) -> idle (worker); or offered -> idle (caller)
#
# Uses fp_mode, read_fp, flush_subnormals, restore_fp, usable_cpus (_core), poll_state, clock_seconds, should_stop,
# task_function, team, team_member, atomic_get, atomic_release, atomic_swap, atomic_change, pause_cpu (structs).

from libc.stdlib cimport calloc

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
    void PyErr_SetString(object kind, const char* message)
    int PyErr_CheckSignals()         # look() holds the GIL when it calls this; an exception stays with its thread
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure()
    void PyGILState_Release(PyGILState_STATE state)

cdef enum: MAX_THREADS = 256
cdef double LOOK_INTERVAL = 0.05     # seconds between looks for Ctrl-C
cdef unsigned long NOT_STARTED = <unsigned long>-1

cdef struct task:
    task_function function
    void* argument
    long long taken                  # a thread has begun it

cdef enum: IDLE, OFFERED, RUNNING

cdef struct worker:
    PyThread_type_lock go, done      # both held; released by the caller to wake the worker, and the other way round
    long long state, asleep          # asleep: the worker waits for `go`, or will. Who clears it has to release `go`
    long long awaited                # the same of the caller and `done`
    task* tasks                      # its share: tasks first, first + step, ... below count
    int first, step, count

cdef worker* workers[MAX_THREADS]
cdef int started = 0
cdef int generation = 1              # one more in every child of a fork: tells this process's threads from its parent's
cdef PyThread_type_lock pool_lock = PyThread_allocate_lock()

# A signal handler may fork in the midst of a call that has the pool: its child goes on in that call, without the
# threads.
cdef unsigned long pool_owner = 0    # the thread whose call has the pool, or 0
cdef unsigned long orphan = 0        # in the child of such a fork, the thread whose call lost the pool's threads, or 0

cdef PyThread_type_lock never = PyThread_allocate_lock()     # held: to wait for it is to sleep
PyThread_acquire_lock(never, 1)

cdef double SPIN = 3.0e-5            # seconds for which a thread that waits keeps its CPU; waking one takes as long


cdef inline bint take_task(task* t) noexcept nogil:
    return atomic_get(&t.taken) == 0 and atomic_change(&t.taken, 0, 1)


cdef void run_share(task* tasks, int first, int step, int count) noexcept nogil:
    cdef fp_mode mode = flush_subnormals()
    cdef int i, k
    for k in range(count):           # its own, then what other threads have not begun
        i = first + k * step
        if i < count and take_task(&tasks[i]):
            tasks[i].function(tasks[i].argument)
    for i in range(count):
        if take_task(&tasks[i]):
            tasks[i].function(tasks[i].argument)
    restore_fp(mode)


# Whether *p becomes `value` within the time for which a thread spins.
cdef bint spin_until(const long long* p, long long value) noexcept nogil:
    cdef double end = clock_seconds() + SPIN
    cdef int i
    while atomic_get(p) != value:
        for i in range(16):
            pause_cpu()
        if clock_seconds() > end:
            return False
    return True


cdef void work(void* argument) noexcept nogil:
    cdef worker* self = <worker*>argument
    while True:
        if not spin_until(&self.state, OFFERED):
            atomic_swap(&self.asleep, 1)
            if atomic_get(&self.state) != OFFERED or not atomic_swap(&self.asleep, 0):
                PyThread_acquire_lock(self.go, 1)
        if atomic_change(&self.state, OFFERED, RUNNING):
            run_share(self.tasks, self.first, self.step, self.count)
            atomic_swap(&self.state, IDLE)
            if atomic_swap(&self.awaited, 0):
                PyThread_release_lock(self.done)


cdef void offer(worker* w, task* tasks, int first, int step, int count) noexcept nogil:
    w.tasks, w.first, w.step, w.count = tasks, first, step, count
    atomic_swap(&w.state, OFFERED)
    if atomic_swap(&w.asleep, 0):
        PyThread_release_lock(w.go)


# Whether this call lost the pool's threads, because a signal handler forked in it and this is the child.
cdef inline bint orphaned() noexcept nogil:
    return orphan != 0 and orphan == PyThread_get_thread_ident()


# Until the worker does nothing for this call, and will not begin to.
cdef void withdraw(worker* w, poll_state* poll) noexcept nogil:
    if orphaned() or atomic_change(&w.state, OFFERED, IDLE) or spin_until(&w.state, IDLE):
        return
    atomic_swap(&w.awaited, 1)
    if atomic_get(&w.state) == IDLE and atomic_swap(&w.awaited, 0):
        return
    while not orphaned() and PyThread_acquire_lock_timed(w.done, 20000, 0) != PY_LOCK_ACQUIRED:
        look(poll)
    atomic_get(&w.state)    # ThreadSanitizer does not know sem_clockwait, by which CPython waits; this it understands


cdef bint start_worker(int i) noexcept nogil:
    cdef worker* w = <worker*>calloc(1, sizeof(worker))
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


# Runs signal handlers; nonzero when one raised, or forked and this is the child. Only the caller's thread does, and
# only every LOOK_INTERVAL.
cdef int look(poll_state* poll) noexcept nogil:
    cdef fp_mode mode = read_fp()
    cdef PyGILState_STATE gil = PyGILState_Ensure()
    restore_fp(poll.mode)
    if PyErr_CheckSignals():
        atomic_release(&poll.cancelled, 1)
    elif orphaned() and poll.cancelled == 0:
        PyErr_SetString(RuntimeError, "a signal handler forked in the midst of a call of several threads, which the "
                                      "child of the fork does not have: the call cannot be finished there")
        atomic_release(&poll.cancelled, 1)
    PyGILState_Release(gil)
    restore_fp(mode)
    poll.next = clock_seconds() + LOOK_INTERVAL
    return poll.cancelled != 0


cdef void start_poll(poll_state* poll) noexcept nogil:
    poll.cancelled = 0
    poll.look = look
    poll.thread = PyThread_get_thread_ident()
    poll.mode = read_fp()
    poll.next = clock_seconds() + LOOK_INTERVAL


# 0, or -1 with the exception of a signal handler set.
cdef int run_tasks(task* tasks, int count, int threads, poll_state* poll) noexcept nogil:
    global started, pool_owner, orphan
    cdef int i, used = 1, wanted = min(min(threads, count), <int>MAX_THREADS)
    cdef bint pooled = wanted > 1 and PyThread_acquire_lock(pool_lock, 0) != 0
    cdef unsigned long outer = orphan if orphaned() else 0
    if outer != 0:  # this call is a signal handler's, within a call that lost its threads
        orphan = 0
    if pooled:      # else another call has the pool, and this one does the same work on its own thread
        pool_owner = PyThread_get_thread_ident()
        while started < wanted - 1 and start_worker(started):
            started += 1
        used = min(wanted, started + 1)
        for i in range(1, used):
            offer(workers[i - 1], tasks, i, used, count)
    run_share(tasks, 0, used, count)
    if pooled:
        for i in range(1, used):
            withdraw(workers[i - 1], poll)
        if orphaned():              # the pool is a new one, and not this call's
            orphan = 0
        else:
            pool_owner = 0
            PyThread_release_lock(pool_lock)
    if outer != 0:
        orphan = outer
    return -1 if poll.cancelled else 0      # a handler may have raised after the last task, too


def look_every(double seconds):
    """Let long calls look for signals so often, where their kernels come to a place to look: for tests.

    Parameters
    ----------
    seconds : float
        From one look to the next.

    Returns
    -------
    float
        What it was before.
    """
    global LOOK_INTERVAL
    before, LOOK_INTERVAL = LOOK_INTERVAL, seconds
    return before


def forget_pool():
    """Start a new pool of threads. Called in the child after a fork, which has none of its parent's threads."""
    global started, pool_lock, pool_owner, orphan, generation, never
    generation += 1
    orphan = pool_owner if pool_owner == PyThread_get_thread_ident() else 0
    pool_owner = 0
    started = 0
    pool_lock = PyThread_allocate_lock()
    never = PyThread_allocate_lock()
    PyThread_acquire_lock(never, 1)


# ---- Teams: waiting for a thread that the system has stopped -----------------------------------------

# Lateness: the time that members waited for others beyond what an uneven split explains, less a sixteenth of all time.
# Above LATE one member goes on alone for sixteen times as long, and calls that begin meanwhile form no teams: so
# waiting never takes more than some sixteenth of the time. Nanoseconds, on the clock of clock_seconds().
cdef enum: LATE = 200000
cdef double TRIED_WORK = 3.0e5        # multiply-adds of a step above which a team pays in any case
cdef long long lateness = 0, lateness_at = 0, alone_until = 0
cdef int assumed_cpus = 0


cdef inline long long nanoseconds(double seconds) noexcept nogil:
    return <long long>(seconds * 1e9)


# How long a phase takes: on average, or where this one is longer, what the own part of it took.
cdef inline double phase_seconds(const team_member* m, double now) noexcept nogil:
    cdef double average = (now - m.team.start) / (m.phase + 1)
    return max(average, m.waits_since - m.long_began) if m.long_phase == m.phase + 1 else average


cdef int wait_longer(team_member* m) noexcept nogil:
    cdef double now = clock_seconds()
    cdef int i
    if m.waits_since == 0:
        m.waits_since = now
    if ((atomic_get(&m.team.alone) == 0 or m.phase < atomic_get(&m.team.trial))
            and now - m.waits_since < SPIN + 0.5 * phase_seconds(m, now)):
        for i in range(32):
            pause_cpu()
        return 0
    if atomic_get(&m.team.closed) and m.index > 0:
        return 1
    PyThread_acquire_lock_timed(never, 50, 0)
    return should_stop(m.team.poll)


cdef void end_wait(team_member* m) noexcept nogil:
    cdef double now = clock_seconds()
    cdef long long at = nanoseconds(now), late, alone = atomic_get(&m.team.alone)
    if m.index == 0 and m.phase < m.team.trial:
        end_of_trial_phase(m, now)
    elif alone == 0 and m.did == m.phase + 1:       # a member that came too late for the phase has waited in vain
        late = nanoseconds(now - m.waits_since - 0.5 * phase_seconds(m, now))
        if late > 0:
            late += max(<long long>0, atomic_get(&lateness) - (at - atomic_get(&lateness_at)) // 16)
            atomic_release(&lateness, late)
            atomic_release(&lateness_at, at)
            if late > LATE:
                atomic_release(&alone_until, at + 16 * late)
                forget_paid()
                atomic_change(&m.team.alone, 0, m.index + 1)
    elif alone == m.index + 1 and at > atomic_get(&alone_until) and not atomic_get(&m.team.closed):
        atomic_release(&m.team.alone, 0)
    m.waits_since = 0


# After the first phase, which may be a long one, member 0 does some alone, then the team does some; where that is no
# faster, member 0 does the others, and for some time no team is formed for as little work. Where it is faster, for some
# time no team with as much work makes a trial. The first phase of either kind does not count: the threads have to come,
# and the caches to fill. Of the team's, the mean counts, for a phase that goes on where the last one was waited for is
# short; but not the longest, in which the system may have stopped a thread.
#
# In training a team has to save more: what its members have stored comes from core to core in the passes after it. And
# since that is so, all passes of a training step go together: where one was too slow, none has a team; but each has a
# trial of its own.
cdef enum: ALONE_PHASES = 4, TRIAL_PHASES = 20, REMEMBERED = 20000000, PAID_REMEMBERED = 100000000     # nanoseconds
cdef enum: INFERENCE, TRAINING, BACKWARD, KINDS_OF_PASS      # team.kind
cdef double[KINDS_OF_PASS] MOST_OF_ALONE = [0.95, 0.9, 0.9]
cdef long long unpaid_work = 0, unpaid_until = 0
cdef long long[KINDS_OF_PASS] paid_work, paid_until


cdef void end_of_trial_phase(team_member* m, double now) noexcept nogil:
    cdef team* t = m.team
    cdef double seconds = now - t.began
    t.began = now
    if m.phase == 0:
        t.alone_best = 1e9
        atomic_release(&t.alone, 1)
    elif m.phase > ALONE_PHASES and m.took == m.phase + 1:
        atomic_release(&t.trial, t.trial + 1)       # another member is still to come: this phase says nothing
    elif 1 < m.phase <= ALONE_PHASES:
        t.alone_best = min(t.alone_best, seconds)
    elif m.phase > ALONE_PHASES + 1:
        t.team_phases += 1
        t.team_total += seconds
        t.team_longest = max(t.team_longest, seconds)
    if m.phase == ALONE_PHASES:
        atomic_release(&t.alone, 0)
    elif m.phase == t.trial - 1:
        remember_trial(t, nanoseconds(now))


cdef void remember_trial(team* t, long long now) noexcept nogil:
    if t.team_total - t.team_longest > MOST_OF_ALONE[t.kind] * t.alone_best * (t.team_phases - 1):
        atomic_release(&unpaid_work, <long long>t.work)
        atomic_release(&unpaid_until, now + REMEMBERED)
        atomic_release(&t.closed, 1)
        atomic_release(&t.alone, 1)
    else:
        atomic_release(&paid_work[t.kind], <long long>t.work)
        atomic_release(&paid_until[t.kind], now + PAID_REMEMBERED)


# Whether a team was found too slow for so many multiply-adds a step, a short while ago.
cdef bint unpaid(double work) noexcept nogil:
    return work <= <double>atomic_get(&unpaid_work) and nanoseconds(clock_seconds()) < atomic_get(&unpaid_until)


# Whether a team was found to be faster in such a pass.
cdef bint paid(isize kind, double work, double now) noexcept nogil:
    return work >= <double>atomic_get(&paid_work[kind]) and nanoseconds(now) < atomic_get(&paid_until[kind])


cdef void forget_paid() noexcept nogil:
    cdef isize kind
    for kind in range(KINDS_OF_PASS):
        atomic_release(&paid_until[kind], 0)


# phases: how many there will be, at least; work: multiply-adds of a step.
cdef void start_team(team* t, isize kind, isize phases, double work) noexcept nogil:
    t.wait_longer, t.end_wait, t.work, t.kind = wait_longer, end_wait, work, kind
    t.start = t.began = clock_seconds()
    if phases > 2 * TRIAL_PHASES and work < TRIED_WORK and assumed_cpus == 0 and not paid(kind, work, t.start):
        t.trial = TRIAL_PHASES


# The most threads that a team may have now: the CPUs that this process may use.
cdef int team_threads() noexcept:
    if assumed_cpus > 0:
        return assumed_cpus
    if nanoseconds(clock_seconds()) < atomic_get(&alone_until):
        return 1
    return usable_cpus()


def assume_cpus(int n):
    """Let teams of threads be as large as they can be on a machine with n CPUs, whether it pays or not: for tests.

    Parameters
    ----------
    n : int
        The number of CPUs. 0: those that the process may use.
    """
    global assumed_cpus
    assumed_cpus = n
