# One step of a stream's layers, shared by threads: parts of the rows, the panels of units, or both (kernel/team.h).
#
# A task goes through all layers, and a team stays together for all of them: the phases of a layer follow those of the
# layer below. Everything that does not change from step to step is prepared once.
#
# Uses Buffer (buffers), task, run_tasks, start_team, INFERENCE (threads), Parameters (parameters), split, make_team,
# team_bytes, member_of (calls), forward_args, poll_state, team_member (structs).

cdef struct layer_share:             # what a task does of one layer, from either set of the stream's buffers
    forward_args args[2]
    task_function forward

cdef struct step_share:              # what a task does
    layer_share* layers
    isize count
    int current


cdef class SharedStep:
    """The tasks of one step and what they work in; for compiled code alone.

    Parameters
    ----------
    parameters : list or tuple of Parameters
        Of a stack, one a layer.
    """

    cdef tuple parameters
    cdef list buffers                # what the pointers below point into
    cdef split s
    cdef isize count, team_step      # layers; bytes from a team to the next
    cdef double work                 # multiply-adds of a step of one part of the rows
    cdef task* tasks                 # [s.rows * s.team]: the members of a team follow each other
    cdef step_share* shares          # of each task
    cdef layer_share* layers         # [task][layer]
    cdef char* teams                 # [s.rows], or NULL
    cdef poll_state* poll            # the stream's

    def __cinit__(self, parameters):
        self.parameters, self.buffers, self.count = tuple(parameters), [], len(parameters)

    cdef void* new_buffer(self, isize count, isize size, bint zero) except NULL:
        cdef Buffer b = Buffer(max(<isize>1, count), size, 1, zero)
        self.buffers.append(b)
        return b.data

    # The memory of all tasks. The poll belongs to the stream, which owns this object.
    cdef int prepare(self, split s, poll_state* poll) except -1:
        cdef isize tasks = s.rows * s.team, i
        self.s, self.poll = s, poll
        self.tasks = <task*>self.new_buffer(tasks, sizeof(task), True)
        self.shares = <step_share*>self.new_buffer(tasks, sizeof(step_share), True)
        self.layers = <layer_share*>self.new_buffer(tasks * self.count, sizeof(layer_share), True)
        if s.team > 1:
            self.team_step = (team_bytes(s.team) + 63) // 64 * 64
            self.teams = <char*>self.new_buffer(s.rows, self.team_step, True)
        for i in range(tasks):
            self.shares[i].layers, self.shares[i].count = &self.layers[i * self.count], self.count
            self.tasks[i].function, self.tasks[i].argument = run_share_of_step, &self.shares[i]
        return 0

    # Layer i of a stream of N rows: args[2] are those of one thread.
    cdef int set_layer(self, isize i, const forward_args* args) except -1:
        cdef Parameters p = self.parameters[i]
        cdef isize N = args[0].run.N, row, k, set_
        cdef void* scratch
        cdef team_member* first
        cdef forward_args* own
        cdef layer_share* layer
        self.work = max(self.work, p.work((N + self.s.rows - 1) // self.s.rows))
        for row in range(self.s.rows):
            first = self.team_of(row)
            scratch = NULL
            for k in range(self.s.team):
                layer = &self.layers[(row * self.s.team + k) * self.count + i]
                layer.forward = p.table.forward
                for set_ in range(2):
                    own = &layer.args[set_]
                    own[0] = args[set_]
                    own.run.n0, own.run.n1 = N * row // self.s.rows, N * (row + 1) // self.s.rows
                    own.run.member = member_of(first, k)
                    if scratch == NULL:
                        scratch = self.new_buffer(p.table.plan_forward(own), p.table.itemsize, False)
                    own.run.scratch = scratch
        return 0

    # A new team in the memory of the last step's, for one part of the rows; NULL where one thread does all of it.
    cdef team_member* team_of(self, isize row) noexcept nogil:
        cdef team_member* first
        if self.teams == NULL:
            return NULL
        memset(self.teams + row * self.team_step, 0, self.team_step)
        first = make_team(self.teams + row * self.team_step, self.s.team, self.poll)
        start_team(first.team, INFERENCE, 1, self.work)
        return first

    # One step from this set of buffers to the other. -1: a signal handler has raised.
    cdef int run(self, int current, const void* x) noexcept nogil:
        cdef isize tasks = self.s.rows * self.s.team, i
        for i in range(self.s.rows):
            self.team_of(i)
        for i in range(tasks):
            self.shares[i].current, self.tasks[i].taken = current, 0
            self.shares[i].layers[0].args[current].x = x
        return run_tasks(self.tasks, <int>tasks, <int>tasks, self.poll)


cdef int run_share_of_step(void* argument) noexcept nogil:
    cdef step_share* share = <step_share*>argument
    cdef isize i
    for i in range(share.count):
        if share.layers[i].forward(&share.layers[i].args[share.current]):
            return -1
    return 0
