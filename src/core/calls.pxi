# The tasks of one call, the memory they work in, and the poll they share; what a direction saves for backward.
#
# Uses Buffer (buffers), task, task_function, start_poll, run_tasks (threads), Parameters (parameters), Batch (batch),
# layer_run, forward_args, backward_args, poll_state (structs).

cdef double ONE_THREAD = 2.0e6   # multiply-adds of a call up to which one thread does the work: some 50 microseconds


# Threads worth using for so many multiply-adds.
cdef isize worthwhile(isize threads, double multiply_adds) noexcept:
    return threads if multiply_adds > ONE_THREAD else 1


# Into how many parts the rows of each of D directions are split.
cdef isize row_parts(Batch batch, isize threads, isize directions) noexcept:
    return max(<isize>1, min((threads + directions - 1) // directions, batch.N))


cdef class Call:
    """The tasks of one call and the memory they work in; for compiled code alone.

    Parameters
    ----------
    capacity : int
        The most tasks.
    threads : int
        The most threads.
    """

    cdef list buffers                # what the tasks' arguments point into: alive as long as the call
    cdef task* tasks
    cdef int count
    cdef isize capacity, threads
    cdef poll_state poll

    def __cinit__(self, isize capacity, isize threads):
        cdef Buffer b = Buffer(capacity, sizeof(task), 1, True)
        self.buffers = [b]
        self.tasks = <task*>b.data
        self.capacity, self.threads = capacity, threads

    # Keeps a buffer for as long as the call lives; returns its data.
    cdef void* hold(self, Buffer b):
        self.buffers.append(b)
        return b.data

    # Zeroed memory for `count` structs of arguments, for as long as the call lives.
    cdef void* new_args(self, isize count, size_t size):
        return self.hold(Buffer(count, size, 1, True))

    cdef void add(self, task_function function, void* args) noexcept:
        CHECK(self.count < self.capacity)
        self.tasks[self.count].function = function
        self.tasks[self.count].argument = args
        self.count += 1

    # Adds one direction's pass forward in `parts` tasks of rows; args[0] is prepared, the others are filled from it.
    cdef int add_forward(self, forward_args* args, isize parts, Batch batch, Parameters p) except -1:
        cdef isize i
        args.run.poll = &self.poll
        if batch.rows == 0:
            return 0
        for i in range(1, parts):
            args[i] = args[0]
        for i in range(parts):
            args[i].run.n0, args[i].run.n1 = batch.split(i, parts), batch.split(i + 1, parts)
            args[i].run.scratch = self.new_scratch(p, p.table.plan_forward(&args[i]))
            self.add(<task_function>p.table.forward, &args[i])
        return 0

    cdef int add_backward(self, backward_args* args, isize parts, Batch batch, Parameters p) except -1:
        cdef isize i
        args.run.poll = &self.poll
        if batch.rows == 0:
            return 0
        for i in range(1, parts):
            args[i] = args[0]
        for i in range(parts):
            args[i].run.n0, args[i].run.n1 = batch.split(i, parts), batch.split(i + 1, parts)
            args[i].run.scratch = self.new_scratch(p, p.table.plan_backward(&args[i]))
            self.add(<task_function>p.table.backward, &args[i])
        return 0

    cdef void* new_scratch(self, Parameters p, isize size):
        return self.hold(Buffer(max(<isize>1, size), 1, p.table.itemsize))

    # Runs the tasks.
    cdef int go(self) except -1:
        cdef int result
        with nogil:
            start_poll(&self.poll)
            result = run_tasks(self.tasks, self.count, <int>self.threads, &self.poll)
        return result       # -1: look() has set the exception of a signal handler


cdef class Saved:
    """What one direction saves in forward for backward; for compiled code alone."""

    cdef Parameters parameters
    cdef Batch batch
    cdef object x                    # the Buffer or the caller's array that x_data points into
    cdef const void* x_data
    cdef isize x_step                # from a packed row of x to the next, in elements
    cdef Buffer h, c, gates, extra, reset       # as layer_run has them; None where it has NULL
    cdef bint reverse


# The part of the arguments that forward and backward share, all but the state, from what was saved or is to be.
cdef void set_run(layer_run* run, Saved saved, bint keep) noexcept:
    cdef Batch batch = saved.batch
    run.cell = &saved.parameters.cell
    run.T, run.N, run.lengths, run.rows = batch.T, batch.N, batch.length, batch.rows
    run.packed, run.keep = batch.offset != NULL, keep
