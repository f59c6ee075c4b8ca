# Pools of streams: which stream lies where, and one step of any of them.
#
# The states of a pool lie in one array of records, [capacity, 2, width]: each stream has two records, one of which is
# its state, as `side` tells. A step reads the one and writes the other; whoever asked for the step turns the sides of
# its rows when all of it is done, so that a step that is interrupted leaves every state as it was.
#
# A step takes its rows in blocks that stay in a core's cache: their states are copied from the records to padded rows,
# go through all layers, and are copied back. Threads share the rows. A row's result does not depend on its block.
#
# Uses Buffer (buffers), task, run_tasks, start_poll, generation (threads), Parameters, state_row, units_row
# (parameters), worthwhile (calls), HOLD_GIL (streams), forward_args, poll_state (structs), flush_subnormals, restore_fp
# (_core).

from cpython.object cimport PyObject
from cpython.dict cimport PyDict_GetItemWithError
from cpython.long cimport PyLong_AsSsize_t

cdef enum: BLOCK_BYTES = 131072      # bytes of the padded states of a block: a part of a core's L2 cache
cdef enum: MOST_BLOCK = 256, LEAST_BLOCK = 16       # rows of a block

cdef struct pool_layer:              # one layer of a task; every pointer is owned by RowSteps.buffers
    forward_args args
    task_function forward
    isize (*plan)(forward_args*) noexcept nogil
    isize h_at, h_bytes, h_row       # where h lies in a record, how long it is, and from one padded row to the next
    isize c_at, c_bytes, c_row       # the same of c; c_bytes is 0 but in an LSTM

cdef struct pool_task:               # the rows first..last of a step
    pool_layer* layers
    isize count, block, first, last
    char* records
    isize record                     # bytes of one record
    const isize* rows
    const unsigned char* side
    char* x                          # only read
    isize x_row
    char* y
    isize y_row


# Copies `size` bytes; common short sizes without a call of memcpy.
cdef inline void copy_part(char* out, const char* part, isize size) noexcept nogil:
    if size == 64:
        memcpy(out, part, 64)
    elif size == 128:
        memcpy(out, part, 128)
    elif size == 256:
        memcpy(out, part, 256)
    elif size > 0:
        memcpy(out, part, size)


# Copies n states between padded rows and the records of the rows: to the padded rows, or back.
cdef void copy_states(pool_task* t, pool_layer* layer, const isize* rows, isize n, bint back) noexcept nogil:
    cdef isize i
    cdef char* record
    cdef char* h = <char*>(layer.args.h_n if back else layer.args.run.h)
    cdef char* c = <char*>(layer.args.c_n if back else layer.args.run.c)
    for i in range(n):
        record = t.records + (2 * rows[i] + (t.side[rows[i]] ^ back)) * t.record
        if back:
            copy_part(record + layer.h_at, h, layer.h_bytes)
            copy_part(record + layer.c_at, c, layer.c_bytes)
        else:
            copy_part(h, record + layer.h_at, layer.h_bytes)
            copy_part(c, record + layer.c_at, layer.c_bytes)
        h += layer.h_row
        c += layer.c_row


cdef int run_pool_task(void* argument) noexcept nogil:
    cdef pool_task* t = <pool_task*>argument
    cdef pool_layer* layer
    cdef fp_mode mode = flush_subnormals()
    cdef isize start = t.first, n, i
    cdef int result = 0
    while start < t.last and not result:
        n = min(t.block, t.last - start)
        for i in range(t.count):
            layer = &t.layers[i]
            if layer.args.run.N != n:
                layer.args.run.N = layer.args.run.n1 = layer.args.run.rows = n
                layer.plan(&layer.args)
            copy_states(t, layer, t.rows + start, n, False)
            layer.args.x = t.x + start * t.x_row if i == 0 else t.layers[i - 1].args.h_n
            result = layer.forward(&layer.args)
            if result:
                break
            copy_states(t, layer, t.rows + start, n, True)
        if not result:
            layer = &t.layers[t.count - 1]
            copy_rows(t.y + start * t.y_row, t.y_row, <const char*>layer.args.h_n, layer.h_row, t.y_row, n)
        start += n
    restore_fp(mode)
    return result


cdef class RowSteps:
    """Steps of a stack of layers for any rows of an array of states; for fastrnn.scale.

    Parameters
    ----------
    parameters : list of Parameters
        Of a stack, one a layer.
    block : int, default 0
        Rows that one thread takes at a time; 0: as many as its cache holds.

    Attributes
    ----------
    input_size, output_size, width : int
        I, S, and the numbers of one row's state: h of every layer, then for an LSTM c of every layer.
    block : int
        Rows that one thread takes at a time.
    """

    cdef readonly tuple parameters
    cdef readonly isize input_size, output_size, width, block
    cdef isize count, itemsize
    cdef double multiply_adds        # of a step of one row
    cdef list buffers                # what the tasks point into
    cdef list tasks                  # a Buffer of one pool_task for each thread that was used so far
    cdef poll_state poll

    def __cinit__(self, list parameters, isize block=0):
        cdef Parameters p
        cdef isize bytes = 0, width = 0
        self.parameters, self.count, self.buffers, self.tasks = tuple(parameters), len(parameters), [], []
        for p in parameters:
            bytes += 2 * (state_row(&p.cell, p.table.vlen) + units_row(&p.cell, p.table.vlen)) * p.table.itemsize
            width += p.cell.state + (p.cell.hidden if p.cell.kind == LSTM else 0)
            self.multiply_adds += p.multiply_adds
        p = parameters[0]
        self.input_size, self.itemsize, self.width = p.cell.input, p.table.itemsize, width
        p = parameters[self.count - 1]
        self.output_size = p.cell.state
        self.block = block
        if block < 1:
            self.block = min(<isize>MOST_BLOCK, max(<isize>LEAST_BLOCK, BLOCK_BYTES // bytes // 16 * 16))

    cdef void* new_buffer(self, isize rows, isize row, isize itemsize) except NULL:
        cdef Buffer b = Buffer(rows, row, itemsize, True)
        self.buffers.append(b)
        return b.data

    # The memory of one more task.
    cdef int add_task(self) except -1:
        cdef Buffer b = Buffer(1, sizeof(pool_task), 1, True)
        cdef pool_task* t = <pool_task*>b.data
        cdef Parameters p
        cdef pool_layer* layer
        cdef isize i, V, N = self.block, n, scratch, h_at = 0, c_at = 0
        t.layers = <pool_layer*>self.new_buffer(self.count, sizeof(pool_layer), 1)
        t.count, t.block = self.count, N
        t.y_row, t.x_row = self.output_size * self.itemsize, self.input_size * self.itemsize
        for p in self.parameters:
            c_at += p.cell.state * self.itemsize
        for i in range(self.count):
            p, layer = self.parameters[i], &t.layers[i]
            V, layer.forward, layer.plan = p.table.vlen, p.table.forward, p.table.plan_forward
            layer.h_row, layer.c_row = state_row(&p.cell, V) * self.itemsize, units_row(&p.cell, V) * self.itemsize
            layer.h_at, layer.c_at, layer.h_bytes = h_at, c_at, p.cell.state * self.itemsize
            layer.c_bytes = p.cell.hidden * self.itemsize if p.cell.kind == LSTM else 0
            h_at += layer.h_bytes
            c_at += layer.c_bytes
            layer.args.run.cell, layer.args.run.T, layer.args.run.poll = &p.cell, 1, &self.poll
            layer.args.x_n = p.cell.input if i == 0 else t.layers[i - 1].h_row // self.itemsize
            layer.args.run.h, layer.args.h_n = self.new_buffer(N, layer.h_row, 1), self.new_buffer(N, layer.h_row, 1)
            layer.args.run.c, layer.args.c_n = self.new_buffer(N, layer.c_row, 1), self.new_buffer(N, layer.c_row, 1)
            layer.args.run.extra = self.new_buffer(N, layer.c_row, 1)
            scratch = 1
            for n in range(1, N + 1):
                layer.args.run.N = layer.args.run.n1 = layer.args.run.rows = n
                scratch = max(scratch, layer.plan(&layer.args))
            layer.args.run.scratch = self.new_buffer(scratch, 1, self.itemsize)
        self.tasks.append(b)
        return 0

    def step(self, cnp.ndarray x not None, cnp.ndarray out not None, cnp.ndarray records not None, isize offset,
             cnp.ndarray side not None, cnp.ndarray rows not None, isize threads):
        """Take one step of the streams in these rows, none twice, and write their new states to their other records.

        Parameters
        ----------
        x : ndarray, [n, I]
            Contiguous, of the model's dtype.
        out : ndarray, [n, S]
            Contiguous; the last layer's output is written to it.
        records : ndarray, [capacity, 2, record]
            Contiguous, of the model's dtype.
        offset : int
            Where the state of this stack begins in a record.
        side : ndarray of uint8, [capacity]
            Which of its records is each stream's state. The caller turns those of the rows afterwards.
        rows : ndarray of intp, [n]
            The rows of the records.
        threads : int
            The most threads.

        Raises
        ------
        ValueError
            A row is not below the capacity, or the arrays do not fit each other.
        """
        cdef isize n = cnp.PyArray_DIM(rows, 0), capacity = cnp.PyArray_DIM(records, 0), i, used
        cdef const isize* row = <const isize*>cnp.PyArray_DATA(rows)
        cdef pool_task* t
        cdef Buffer b, tasks
        cdef task* each
        if (cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_DIM(x, 0) != n or cnp.PyArray_DIM(x, 1) != self.input_size
                or cnp.PyArray_NDIM(out) != 2 or cnp.PyArray_DIM(out, 0) != n
                or cnp.PyArray_DIM(out, 1) != self.output_size or cnp.PyArray_DIM(side, 0) != capacity
                or offset < 0 or offset + self.width > cnp.PyArray_DIM(records, 2)):
            raise ValueError("x, out, records, side and rows do not fit each other")
        for i in range(n):
            if not 0 <= row[i] < capacity:
                raise ValueError(f"rows: expected numbers below {capacity}, got {row[i]}")
        if n == 0:
            return
        used = max(<isize>1, min(worthwhile(threads, self.multiply_adds * n), n // LEAST_BLOCK))
        while len(self.tasks) < used:
            self.add_task()
        tasks = Buffer(used, sizeof(task), 1, True)
        each = <task*>tasks.data
        for i in range(used):
            b = self.tasks[i]
            t = <pool_task*>b.data
            t.first, t.last = n * i // used, n * (i + 1) // used
            t.records = <char*>cnp.PyArray_DATA(records) + offset * self.itemsize
            t.record = cnp.PyArray_DIM(records, 2) * self.itemsize
            t.rows, t.side = row, <const unsigned char*>cnp.PyArray_DATA(side)
            t.x, t.y = <char*>cnp.PyArray_DATA(x), <char*>cnp.PyArray_DATA(out)
            each[i].function, each[i].argument = run_pool_task, t
        self.go(each, <int>used, self.multiply_adds * n > HOLD_GIL)

    cdef int go(self, task* tasks, int count, bint long_step) except -1:
        cdef int result
        start_poll(&self.poll)
        if long_step:
            with nogil:
                result = run_tasks(tasks, count, count, &self.poll)
        else:
            self.poll.next = 1e300           # too short to look for signals
            result = run_tasks(tasks, count, count, &self.poll)
        return result                        # -1: look() has set the exception of a signal handler


def turn_sides(cnp.ndarray side not None, cnp.ndarray rows not None):
    """Let the other record of each row be its state.

    Parameters
    ----------
    side : ndarray of uint8, [capacity]
        Written in place.
    rows : ndarray of intp, [n]
        None twice; ``RowSteps.step`` has checked them.
    """
    cdef unsigned char* sides = <unsigned char*>cnp.PyArray_DATA(side)
    cdef const isize* row = <const isize*>cnp.PyArray_DATA(rows)
    cdef isize i
    for i in range(cnp.PyArray_DIM(rows, 0)):
        sides[row[i]] ^= 1


cdef class Slots:
    """Which key has which slot, and in what order they were used last; for fastrnn.scale.

    A look-up and a use cost the same however many there are: the slots in use form a ring of links, from the least
    recently used to the most recently used.

    Parameters
    ----------
    capacity : int
        Number of slots.
    """

    cdef readonly isize capacity
    cdef dict index                  # key -> slot
    cdef list slot_keys              # slot -> key, or None
    cdef list unused                 # slots without a key, those to be given first at the end
    cdef Buffer links
    cdef isize* later                # of each slot, and of the ring's head at `capacity`: the next and
    cdef isize* earlier              # the one before
    cdef isize* last                 # the number of the look-up that used the slot last
    cdef isize lookups

    def __cinit__(self, isize capacity):
        self.capacity, self.index, self.slot_keys = capacity, {}, [None] * capacity
        self.unused = list(range(capacity - 1, -1, -1))
        self.links = Buffer(capacity + 1, 3 * sizeof(isize), 1, True)
        self.later = <isize*>self.links.data
        self.earlier, self.last = self.later + capacity + 1, self.later + 2 * (capacity + 1)
        self.later[capacity] = self.earlier[capacity] = capacity

    cdef inline void unlink(self, isize slot) noexcept:
        self.later[self.earlier[slot]] = self.later[slot]
        self.earlier[self.later[slot]] = self.earlier[slot]

    cdef inline void link_last(self, isize slot) noexcept:
        cdef isize end = self.earlier[self.capacity]
        self.later[end], self.earlier[slot] = slot, end
        self.later[slot], self.earlier[self.capacity] = self.capacity, slot

    def __len__(self):
        return len(self.index)

    def __contains__(self, key):
        return key in self.index

    def get(self, key):
        """Return the slot of a key, or None."""
        return self.index.get(key)

    @property
    def free(self):
        """How many slots have no key."""
        return len(self.unused)

    def look_up(self, keys, cnp.ndarray slots not None, cnp.ndarray used=None):
        """Write the slot of each key to `slots`, -1 where it has none, and note the use, key after key.

        Parameters
        ----------
        keys : list or tuple
            The keys; hashing one may raise.
        slots : ndarray of intp, [len(keys)]
            Written in place.
        used : ndarray of bool, [capacity], optional
            Set for every slot that is found.

        Returns
        -------
        missing, repeated : int
            How many keys have no slot, and how many have the slot of a key before them.
        """
        cdef isize i, slot, missing = 0, repeated = 0, n = len(keys)
        cdef isize* out = <isize*>cnp.PyArray_DATA(slots)
        cdef unsigned char* marks = NULL
        cdef PyObject* found
        if cnp.PyArray_DIM(slots, 0) != n:
            raise ValueError(f"slots: expected {n}, got {cnp.PyArray_DIM(slots, 0)}")
        if used is not None:
            if cnp.PyArray_DIM(used, 0) != self.capacity:
                raise ValueError(f"used: expected {self.capacity}, got {cnp.PyArray_DIM(used, 0)}")
            marks = <unsigned char*>cnp.PyArray_DATA(used)
        self.lookups += 1
        for i in range(n):
            found = PyDict_GetItemWithError(self.index, keys[i])
            if found == NULL:
                out[i] = -1
                missing += 1
                continue
            slot = out[i] = PyLong_AsSsize_t(<object>found)
            if self.last[slot] == self.lookups:
                repeated += 1
            self.last[slot] = self.lookups
            if marks != NULL:
                marks[slot] = 1
            if self.later[slot] != self.capacity:
                self.unlink(slot)
                self.link_last(slot)
        return missing, repeated

    def oldest(self, isize count):
        """Return the slots that were used least recently, the least recent first."""
        cdef list result = []
        cdef isize slot = self.later[self.capacity]
        while slot != self.capacity and len(result) < count:
            result.append(slot)
            slot = self.later[slot]
        return result

    def keys(self):
        """Return the keys as a list, the one used least recently first."""
        return self.keys_of(self.oldest(self.capacity))

    def keys_of(self, slots):
        """Return the keys of slots."""
        cdef list keys = self.slot_keys
        return [keys[slot] for slot in slots]

    def next_free(self, isize count):
        """Return the free slots that ``add`` will give to so many keys, in order."""
        if count > len(self.unused):
            raise ValueError(f"count: expected at most {len(self.unused)} free slots, got {count}")
        return self.unused[len(self.unused) - count:][::-1]

    def add(self, list keys not None):
        """Give keys, which have none, the slots of ``next_free``, as the ones used most recently."""
        cdef isize slot
        for key in keys:
            if key in self.index:
                raise KeyError(key)
            slot = self.unused[len(self.unused) - 1]
            self.index[key] = slot
            self.unused.pop()
            self.slot_keys[slot] = key
            self.last[slot] = 0
            self.link_last(slot)

    def remove(self, list slots not None):
        """Take the keys of these slots away."""
        cdef isize slot
        for slot in slots:
            del self.index[self.slot_keys[slot]]
            self.slot_keys[slot] = None
            self.unused.append(slot)
            self.unlink(slot)


cdef class Exclusive:
    """Lets one call in at a time, and refuses another that comes meanwhile; for fastrnn.scale."""

    cdef int busy                    # 0, or the generation of the process in which a call is running

    def call(self, function, arguments=()):
        """Call a function with a tuple of arguments unless another call of this object is running: RuntimeError.

        Compiled, so that no signal handler can raise between marking the object as busy and the try that unmarks it.
        """
        with cython.critical_section(self):
            if self.busy == generation:
                raise RuntimeError("another thread is in a call of this pool; give each thread its own pool, or a lock")
            self.busy = generation
        try:
            return function(*arguments)
        finally:
            with cython.critical_section(self):
                self.busy = 0
