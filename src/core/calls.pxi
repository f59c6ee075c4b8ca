# The tasks of one call, the memory they work in, and the poll they share; what a direction saves for backward.
#
# Uses Buffer (buffers), task, task_function, start_poll, run_tasks, start_team, INFERENCE, TRAINING, BACKWARD,
# team_threads, assumed_cpus, unpaid (threads), Parameters (parameters), Batch (batch), layer_run, forward_args,
# backward_args, poll_state, team, team_part, team_member (structs).

from libc.math cimport sqrt

cdef enum: LEAST_ROWS = 6
cdef double PHASE_WORK = 1.0e4  # multiply-adds that take as long as a barrier of two threads
cdef double ONE_THREAD = 2.0e6   # multiply-adds of a call up to which one thread does the work: some 50 microseconds


# Threads worth using for so many multiply-adds.
cdef isize worthwhile(isize threads, double multiply_adds) noexcept:
    return threads if multiply_adds > ONE_THREAD else 1


# How the work of one direction is split: its rows into parts, and the panels of each part among a team (kernel/team.h).
cdef struct split:
    isize rows, team


# Rows need no barrier, but each part of the rows reads all the weights, and tiles of few rows read them more often: a
# part has at least LEAST_ROWS. Then the panels are split. What a barrier costs grows with the members, what it saves
# shrinks: the best number is a square root of the step's work. Few rows of a cell too small for a team are split, too.
cdef split best_split(Batch batch, Parameters p, isize threads, isize directions, bint backward) noexcept:
    cdef split s
    cdef isize each = (threads + directions - 1) // directions, cpus = team_threads()
    s.rows = max(<isize>1, min(each, batch.N // LEAST_ROWS))
    s.team = team_size(p, min(each, cpus // directions) // s.rows, <double>batch.N / s.rows, backward)
    if s.team == 1 and cpus > 1 and not unpaid(p.work(batch.N)):
        s.rows = max(<isize>1, min(each, batch.N))
    return s


# The panels of the product of a step that has the fewest.
cdef isize fewest_panels(const packed_cell* cell, bint backward) noexcept:
    cdef isize panels = cell.w_hh_t.panels if backward else cell.w_ih.panels
    if cell.w_hr.data != NULL:
        panels = min(panels, cell.w_hr_t.panels if backward else cell.w_hr.panels)
    return panels


# The best number of members of a team for steps of so many rows.
cdef isize team_size(Parameters p, isize threads, double rows, bint backward) noexcept:
    cdef isize most = max(<isize>1, min(threads, fewest_panels(&p.cell, backward)))
    if assumed_cpus > 0 and p.table.teams:
        return most
    if most == 1 or not p.table.teams or unpaid(p.work(rows)):
        return 1
    return max(<isize>1, min(most, <isize>(sqrt(p.work(rows) / PHASE_WORK) + 0.5)))


cdef inline team_member* member_of(team_member* first, isize k) noexcept nogil:
    return NULL if first == NULL else &first[k]


cdef inline isize team_bytes(isize members) noexcept nogil:
    return sizeof(team) + 64 + members * (sizeof(team_part) + sizeof(team_member))


# A team in zeroed memory of team_bytes, aligned to 64: the parts, the team, the members. Returns the first member.
cdef team_member* make_team(void* memory, isize members, poll_state* poll) noexcept nogil:
    cdef team_part* part = <team_part*>memory
    cdef team* t = <team*>&part[members]
    cdef team_member* first = <team_member*>(<char*>t + (sizeof(team) + 63) // 64 * 64)
    cdef isize k
    t.parts, t.part, t.poll = members, part, poll
    for k in range(members):
        first[k].team, first[k].index = t, k
    return first


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
        start_poll(&self.poll)

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

    # Adds one direction's pass forward; args[0] is prepared, the others are filled from it.
    cdef int add_forward(self, forward_args* args, split s, Batch batch, Parameters p) except -1:
        cdef isize i, k
        cdef forward_args* first
        args.run.poll = &self.poll
        if batch.rows == 0:
            return 0
        for i in range(s.rows - 1, -1, -1):
            first = &args[i * s.team]
            first[0] = args[0]
            first.run.n0, first.run.n1 = batch.split(i, s.rows), batch.split(i + 1, s.rows)
            first.run.member = self.new_team(s.team, TRAINING if args.run.keep else INFERENCE, batch.T,
                                             p.work(first.run.n1 - first.run.n0))
            first.run.scratch = self.new_scratch(p, p.table.plan_forward(first))
            for k in range(s.team):
                first[k] = first[0]
                first[k].run.member = member_of(first.run.member, k)
                self.add(p.table.forward, &first[k])
        return 0

    cdef int add_backward(self, backward_args* args, split s, Batch batch, Parameters p) except -1:
        cdef isize i, k
        cdef backward_args* first
        args.run.poll = &self.poll
        if batch.rows == 0:
            return 0
        for i in range(s.rows - 1, -1, -1):
            first = &args[i * s.team]
            first[0] = args[0]
            first.run.n0, first.run.n1 = batch.split(i, s.rows), batch.split(i + 1, s.rows)
            first.run.member = self.new_team(s.team, BACKWARD, batch.T,
                                             p.multiply_adds * (first.run.n1 - first.run.n0))
            first.run.scratch = self.new_scratch(p, p.table.plan_backward(first))
            for k in range(s.team):
                first[k] = first[0]
                first[k].run.member = member_of(first.run.member, k)
                self.add(p.table.backward, &first[k])
        return 0

    # The first of `members` members of a new team, the others follow it; NULL where one thread does all.
    cdef team_member* new_team(self, isize members, isize kind, isize T, double work) except? NULL:
        cdef Buffer b
        cdef team_member* first
        if members == 1:
            return NULL
        b = Buffer(team_bytes(members), 1, 1, True)
        first = make_team(self.hold(b), members, &self.poll)
        start_team(first.team, kind, T, work)
        return first

    cdef void* new_scratch(self, Parameters p, isize size):
        return self.hold(Buffer(max(<isize>1, size), 1, p.table.itemsize))

    # Has the looks for signals go on where those of an earlier call of this thread were: between the two, none ran.
    cdef void follow(self, Call earlier) noexcept:
        self.poll = earlier.poll

    # Runs the tasks.
    cdef int go(self) except -1:
        cdef int result
        with nogil:
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
