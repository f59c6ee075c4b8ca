# A stream: a stack of layers that takes one step at a time and has a state of its own.
#
# The state lies in two sets of padded buffers. A step reads one set and writes the other, so that a step that is
# interrupted leaves the state as it was. A step given `out` allocates nothing. A block of T steps is one pass of each
# layer, from the one set to the other; what it works in is kept for the next block. A step of much work is shared by
# threads, where more than one may be used.
#
# Where Python has no GIL, the critical section of a stream takes its place: its methods run one after another but for
# what they do without the GIL, and then `busy` keeps other threads out. Where there is a GIL a critical section is
# nothing.
#
# Uses Buffer (buffers), Parameters, state_row, units_row (parameters), start_poll, generation, team_threads (threads),
# ONE_THREAD, LEAST_ROWS, split, team_size, fewest_panels (calls), SharedStep (shared_steps), stream_layer, run_small,
# run_layers, run_blocks, copy_rows, overlap (stream_passes), forward_args, poll_state (structs).

cdef enum: HOLD_GIL = 100000     # multiply-adds of a call below which the GIL is kept, as NumPy does for small arrays
cdef enum: ROW_WORK = 60000      # multiply-adds of a step of one row from which threads may share a long block
cdef enum: EVEN_PANELS = 4       # panels a thread from which parts of them are about as large
cdef enum: KEPT_BLOCK = 1048576  # bytes of a block's scratch and inner outputs that are kept for the next block


cdef class StreamCore:
    """The compiled part of a stream; ``fastrnn.Stream`` is its subclass.

    Parameters
    ----------
    parameters : list of Parameters
        Of a stack, one a layer.
    batch_size : int
        Rows, at least 1.
    batch_first : bool, default False
        Whether blocks of steps are [N, T, ...] instead of [T, N, ...].

    Attributes
    ----------
    parameters : tuple of Parameters
    batch_size, input_size, output_size : int
        N, I and S.
    """

    cdef readonly tuple parameters
    cdef readonly isize batch_size, input_size, output_size
    cdef isize count, itemsize, output_row   # layers, bytes of an element, elements of a padded output row
    cdef int typenum                         # NumPy's number of the dtype
    cdef int current                         # which set of buffers holds the state
    cdef int busy                            # 0, or the generation of the process in which a step is running
    cdef bint batch_first                    # blocks are [N, T, ...]
    cdef isize multiply_adds                 # of a step of all rows
    cdef bint small                          # every layer has a small_step
    cdef bint long_step                      # a step releases the GIL, and Ctrl-C is looked for
    cdef SharedStep shared                   # of the last step that threads have shared, or None
    cdef isize block_steps                   # T of the block that is prepared; 0: none is
    cdef list buffers, block_buffers         # what `layers` points into
    cdef stream_layer* layers
    cdef poll_state poll

    def __cinit__(self, list parameters, isize batch_size, bint batch_first=False):
        cdef Parameters p = parameters[0]
        cdef Buffer b
        cdef isize i
        self.parameters, self.batch_size, self.count = tuple(parameters), batch_size, len(parameters)
        self.itemsize, self.input_size, self.batch_first = p.table.itemsize, p.cell.input, batch_first
        self.typenum = cnp.NPY_FLOAT32 if self.itemsize == 4 else cnp.NPY_FLOAT64
        b = Buffer(self.count, sizeof(stream_layer), 1, True)
        self.buffers = [b]
        self.layers, self.small = <stream_layer*>b.data, True
        for i in range(self.count):
            p = parameters[i]
            self.add_layer(i, p)
            self.small = self.small and self.layers[i].small_step != NULL
            self.multiply_adds += p.multiply_adds * batch_size
        self.output_size, self.output_row = p.cell.state, state_row(&p.cell, p.table.vlen)
        self.long_step = self.multiply_adds > HOLD_GIL
        self.small = self.small and self.multiply_adds <= ONE_THREAD
        start_poll(&self.poll)
        self.poll.next = 1e300       # a short step never looks for signals

    cdef int add_layer(self, isize i, Parameters p) except -1:
        cdef stream_layer* layer = &self.layers[i]
        cdef forward_args* args = &layer.args[0]
        cdef isize N = self.batch_size, h_row = state_row(&p.cell, p.table.vlen), set_
        cdef isize c_row = units_row(&p.cell, p.table.vlen)
        layer.forward = p.table.forward
        if N == 1 and p.table.small_step != NULL:
            layer.small_step = p.table.small_step(&p.cell)
        args.run.cell, args.run.T, args.run.N, args.run.n1, args.run.rows = &p.cell, 1, N, N, N
        args.run.poll = &self.poll
        args.x_n = p.cell.input if i == 0 else self.layers[i - 1].args[0].run.cell.state_units * p.table.vlen
        for set_ in range(2):
            layer.h[set_] = self.new_buffer(N, h_row, True)
            layer.c[set_] = self.new_buffer(N, c_row, True)
        args.run.extra = self.new_buffer(N, c_row, False)
        args.run.scratch = self.new_buffer(max(<isize>1, p.table.plan_forward(args)), 1, False)
        layer.args[1] = args[0]
        for set_ in range(2):
            args = &layer.args[set_]
            args.run.h, args.h_n, args.turn = layer.h[set_], layer.h[1 - set_], set_
            args.run.c, args.c_n = layer.c[set_], layer.c[1 - set_]
            if i > 0:
                args.x = self.layers[i - 1].args[set_].h_n
        return 0

    # How threads share a step. Each part of the rows would read all the weights, and each part of the panels its own
    # alone: so panels are split where there are enough for equal parts, else rows first.
    cdef split step_split(self) except *:
        cdef Parameters p = self.parameters[0]
        cdef split s
        cdef isize N = self.batch_size, threads = min(<isize>self._threads(), <isize>team_threads())
        s.rows = s.team = 1
        if threads < 2:
            return s
        if N >= 2 * LEAST_ROWS and (fewest_panels(&p.cell, False) < EVEN_PANELS * threads or not p.table.teams):
            s.rows = min(threads, N // LEAST_ROWS)
        s.team = team_size(p, threads // s.rows, <double>N / s.rows, False)
        if s.team == 1:
            s.rows = min(threads, N)
        return s

    # Whether threads share the next step; then `shared` is prepared for it.
    cdef bint prepare_shared(self) except -1:
        cdef split s = self.step_split()
        cdef SharedStep shared
        cdef isize i
        if s.rows * s.team == 1:
            return False
        if self.shared is None or self.shared.s.rows != s.rows or self.shared.s.team != s.team:
            shared = SharedStep(self.parameters)
            shared.prepare(s, &self.poll)
            for i in range(self.count):
                shared.set_layer(i, self.layers[i].args)
            self.shared = shared
        return True

    # What a pass of T steps needs beside the stream's own state, for every layer.
    cdef int prepare_block(self, isize T) except -1:
        cdef isize i, N = self.batch_size, V, inputs, bytes = 0
        cdef Parameters p
        cdef forward_args* block
        if self.block_steps == T:
            return 0
        self.block_steps, self.block_buffers = 0, []
        for i in range(self.count):
            p = self.parameters[i]
            V = p.table.vlen
            block = &self.layers[i].block
            if block.run.cell == NULL:
                block[0] = self.layers[i].args[0]
                block.run.h = self.new_buffer(2 * N, state_row(&p.cell, V), True)
                block.run.c = self.new_buffer(N, units_row(&p.cell, V), True)
            block.run.T, block.run.rows = T, T * N
            inputs = p.cell.input
            block.x_t, block.x_n = N * inputs, inputs
            block.y_t, block.y_n = N * p.cell.state, p.cell.state
            if self.batch_first and i == 0:
                block.x_t, block.x_n = inputs, T * inputs
            if self.batch_first and i == self.count - 1:
                block.y_t, block.y_n = p.cell.state, T * p.cell.state
            block.run.scratch = self.block_memory(p.table.plan_forward(block), &bytes)
            if i < self.count - 1:
                block.y = self.block_memory(T * N * p.cell.state, &bytes)
        if bytes <= KEPT_BLOCK:
            self.block_steps = T
        return 0

    cdef void* block_memory(self, isize size, isize* bytes) except NULL:
        cdef Buffer b = Buffer(max(<isize>1, size), self.itemsize, 1)
        self.block_buffers.append(b)
        bytes[0] += size * self.itemsize
        return b.data

    cdef void* new_buffer(self, isize rows, isize row, bint zero) except NULL:
        cdef Buffer b = Buffer(rows, row, self.itemsize, zero)
        self.buffers.append(b)
        return b.data

    def _convert(self, x):
        """Convert any acceptable x to a contiguous array of the model's dtype, or raise. A subclass defines it."""
        raise TypeError("StreamCore is a base class: use a layer's stream()")

    def _threads(self):
        """The most threads that a step may use. A subclass defines it."""
        return 1

    def _check_out(self, out, shape):
        """Raise unless `out` can take the output. A subclass defines it."""
        raise TypeError("StreamCore is a base class: use a layer's stream()")

    # How many axes an array of rows of `size` elements has, 1 or 2; 0 where the fast path does not take it.
    cdef inline int fits(self, object array, isize size) noexcept:
        cdef cnp.ndarray a
        if not cnp.PyArray_CheckExact(array):
            return 0
        a = <cnp.ndarray>array
        if cnp.PyArray_TYPE(a) != self.typenum or not cnp.PyArray_ISCARRAY_RO(a):
            return 0
        if cnp.PyArray_NDIM(a) == 1:
            return self.batch_size == 1 and cnp.PyArray_DIM(a, 0) == size
        if cnp.PyArray_NDIM(a) == 2 and cnp.PyArray_DIM(a, 0) == self.batch_size and cnp.PyArray_DIM(a, 1) == size:
            return 2
        return 0

    def step(self, x, out=None):
        """Advance every row by one step.

        Parameters
        ----------
        x : ndarray, [N, I], or [I] when batch_size is 1
            The inputs of this step.
        out : ndarray, [N, S] or [S], optional
            Written in place and returned; with it a step allocates nothing.

        Returns
        -------
        ndarray
            The last layer's output, batched as x is.

        Raises
        ------
        RuntimeError
            Another thread is in a step of this stream.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(3, 4).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (4,)
        """
        cdef fp_mode mode = read_fp()
        cdef int axes = self.fits(x, self.input_size)
        cdef cnp.npy_intp[2] shape
        cdef cnp.ndarray target
        if axes == 0:
            x = self._convert(x)
            axes = cnp.PyArray_NDIM(<cnp.ndarray>x)
        if out is not None and self.fits(out, self.output_size) == axes and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            target = <cnp.ndarray>out
        else:
            if out is not None:
                self._check_out(out, [self.batch_size, self.output_size][2 - axes:])
            shape[0], shape[1] = self.batch_size, self.output_size
            target = cnp.PyArray_EMPTY(axes, &shape[2 - axes], self.typenum, 0)
        with cython.critical_section(self):
            self.enter()
            if self.small:              # nothing can go wrong or let another thread in
                self.busy = 0
                self.advance_small(cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(target), mode)
            else:
                try:
                    self.advance(cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(target))
                finally:
                    self.busy = 0
        if out is not None and target is not out:
            out[...] = target
            return out
        return target

    # How many axes a block of steps of `size` elements has, 2 or 3, and in `steps` how many steps; 0 where the fast
    # path does not take it.
    cdef inline int fits_block(self, object array, isize size, isize* steps) noexcept:
        cdef cnp.ndarray a
        cdef int axes
        if not cnp.PyArray_CheckExact(array):
            return 0
        a = <cnp.ndarray>array
        axes = cnp.PyArray_NDIM(a)
        if cnp.PyArray_TYPE(a) != self.typenum or not cnp.PyArray_ISCARRAY_RO(a) or not 2 <= axes <= 3:
            return 0
        steps[0] = cnp.PyArray_DIM(a, 1 if axes == 3 and self.batch_first else 0)
        if steps[0] == 0 or cnp.PyArray_DIM(a, axes - 1) != size:
            return 0
        if axes == 2:
            return 2 if self.batch_size == 1 else 0
        return 3 if cnp.PyArray_DIM(a, 0 if self.batch_first else 1) == self.batch_size else 0

    # Whether threads would share a long block: its rows, or the panels of its first layer.
    cdef bint shares(self) noexcept:
        cdef Parameters p = self.parameters[0]
        return self.batch_size > 1 or p.work(1) > ROW_WORK and team_size(p, team_threads(), 1, False) > 1

    # A new output of T steps with so many axes.
    cdef cnp.ndarray new_output(self, int axes, isize T):
        cdef cnp.npy_intp[3] shape
        shape[0], shape[1], shape[2] = T, self.batch_size, self.output_size
        if axes == 2:
            shape[1] = self.output_size
        elif self.batch_first:
            shape[0], shape[1] = self.batch_size, T
        return cnp.PyArray_EMPTY(axes, shape, self.typenum, 0)

    # Where a block's output goes: `out` or a new array. None where the fast path cannot take x or out, or where threads
    # would share the work.
    cdef cnp.ndarray block_target(self, object x, object out):
        cdef isize T = 0, out_steps = 0
        cdef int axes = self.fits_block(x, self.input_size, &T)
        if axes == 0 or (<double>self.multiply_adds * T > ONE_THREAD and self._threads() > 1 and self.shares()):
            return None
        if out is None:
            return self.new_output(axes, T)
        if (self.fits_block(out, self.output_size, &out_steps) != axes or out_steps != T
                or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) or overlap(<cnp.ndarray>x, <cnp.ndarray>out)):
            return None
        return <cnp.ndarray>out

    # Whether a state lies as the fast path takes it beside this output: [L, N, size], or of one row [L, size].
    cdef bint fits_state(self, object state, cnp.ndarray target, isize size) noexcept:
        cdef int axes = cnp.PyArray_NDIM(target)
        cdef cnp.ndarray a
        if not cnp.PyArray_CheckExact(state):
            return False
        a = <cnp.ndarray>state
        return (cnp.PyArray_NDIM(a) == axes and cnp.PyArray_TYPE(a) == self.typenum and cnp.PyArray_ISCARRAY_RO(a)
                and cnp.PyArray_DIM(a, 0) == self.count and cnp.PyArray_DIM(a, axes - 1) == size
                and (axes == 2 or cnp.PyArray_DIM(a, 1) == self.batch_size))

    cdef cnp.ndarray new_state(self, cnp.ndarray target, isize size):
        cdef cnp.npy_intp[3] shape
        cdef int axes = cnp.PyArray_NDIM(target)
        shape[0], shape[1], shape[2] = self.count, self.batch_size, size
        shape[axes - 1] = size
        return cnp.PyArray_EMPTY(axes, shape, self.typenum, 0)

    def _threads(self):
        """How many threads a call may use. A subclass defines it."""
        return 1

    def _run_any(self, block, out):
        """Run any acceptable block, or raise. A subclass defines it."""
        raise TypeError("StreamCore is a base class: use a layer's stream()")

    def run(self, block, out=None):
        """Advance every row by many steps in one call.

        Parameters
        ----------
        block : ndarray
            The steps: [T, N, I], [N, T, I] of a ``batch_first`` layer, or [T, I] when batch_size is 1.
        out : ndarray, optional
            Written in place and returned.

        Returns
        -------
        ndarray
            The last layer's output after each step, in the block's convention.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it.
        RuntimeError
            Another thread is in a step of this stream.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(2, 4, rng=0).stream(batch_size=3)
        >>> stream.run(np.ones((10, 3, 2), np.float32)).shape
        (10, 3, 4)
        """
        cdef cnp.ndarray target = self.block_target(block, out)
        if target is None:
            return self._run_any(block, out)
        with cython.critical_section(self):
            self.enter()
            try:
                self.advance_block(<cnp.ndarray>block, target)
            finally:
                self.busy = 0
        return target

    def _call(self, x, state, out):
        """Run a block from a given state (None: zeros) and return the output and the new state, batched as x is.

        Returns None, having done nothing, where the arguments are not as the fast path needs them, or where another
        thread is in a step.
        """
        cdef bint lstm = (<Parameters>self.parameters[0]).cell.kind == LSTM
        cdef object h = state, c = None
        cdef cnp.ndarray target, new_h, new_c = None
        target = self.block_target(x, out)
        if target is None:
            return None
        if state is not None:
            if lstm:
                if type(state) is not tuple or len(<tuple>state) != 2:
                    return None
                h, c = <tuple>state
                if not self.fits_state(c, target, (<Parameters>self.parameters[0]).cell.hidden):
                    return None
            if not self.fits_state(h, target, self.output_size):
                return None
        if out is not None and state is not None and (overlap(<cnp.ndarray>h, target)
                                                      or (lstm and overlap(<cnp.ndarray>c, target))):
            return None
        new_h = self.new_state(target, self.output_size)
        if lstm:
            new_c = self.new_state(target, (<Parameters>self.parameters[0]).cell.hidden)
        with cython.critical_section(self):
            if self.busy == generation:
                return None
            self.busy = generation
            try:
                self.exchange(h, c, False)
                if cnp.PyArray_DIM(target, 0) == 1 and not self.batch_first:    # one step: what it writes is new_h, too
                    self.advance(cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(target))
                else:
                    self.advance_block(<cnp.ndarray>x, target)
                self.exchange(new_h, new_c, True)
            finally:
                self.busy = 0
        return target, (new_h, new_c) if lstm else new_h

    def _step_from(self, x, state):
        """Take one step of a single layer from a given state (None: zeros) and return the new state, batched as x is.

        Returns None, having done nothing, where the arguments are not as the fast path needs them, or where another
        thread is in a step.
        """
        cdef int axes = self.fits(x, self.input_size)
        cdef bint lstm = (<Parameters>self.parameters[0]).cell.kind == LSTM
        cdef object h = state, c = None
        cdef cnp.ndarray new_h, new_c = None
        cdef cnp.npy_intp[2] shape
        if axes == 0:
            return None
        if state is not None:
            if lstm:
                if type(state) is not tuple or len(<tuple>state) != 2:
                    return None
                h, c = <tuple>state
                if self.fits(c, self.output_size) != axes:
                    return None
            if self.fits(h, self.output_size) != axes:
                return None
        shape[0], shape[1] = self.batch_size, self.output_size
        new_h = cnp.PyArray_EMPTY(axes, &shape[2 - axes], self.typenum, 0)
        if lstm:
            new_c = cnp.PyArray_EMPTY(axes, &shape[2 - axes], self.typenum, 0)
        with cython.critical_section(self):
            if self.busy == generation:
                return None
            self.busy = generation
            try:
                self.copy_in(h, self.layers[0].h[self.current])
                if lstm:
                    self.copy_in(c, self.layers[0].c[self.current])
                self.advance(cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(new_h))
                if lstm:
                    self.copy_out(cnp.PyArray_DATA(new_c), self.layers[0].c[self.current])
            finally:
                self.busy = 0
        return (new_h, new_c) if lstm else new_h

    # Copies contiguous rows of output_size elements, or zeros, to padded rows, and back.
    cdef void copy_in(self, object rows, void* padded) noexcept:
        if rows is None:
            memset(padded, 0, self.batch_size * self.output_row * self.itemsize)
            return
        copy_rows(<char*>padded, self.output_row * self.itemsize, <const char*>cnp.PyArray_DATA(<cnp.ndarray>rows),
                  self.output_size * self.itemsize, self.output_size * self.itemsize, self.batch_size)

    cdef void copy_out(self, void* rows, const void* padded) noexcept:
        copy_rows(<char*>rows, self.output_size * self.itemsize, <const char*>padded,
                  self.output_row * self.itemsize, self.output_size * self.itemsize, self.batch_size)

    cdef inline int enter(self) except -1:
        if self.busy == generation:     # an older generation: of a thread that a fork left behind
            raise RuntimeError("another thread is in a step of this stream; give each thread its own stream")
        self.busy = generation
        return 0

    # One step of every layer; its output to contiguous rows y, which may overlap x. -1: a signal handler has raised.
    cdef inline int advance(self, const void* x, void* y) except -1:
        cdef int result, current = self.current
        if self.small:
            self.advance_small(x, y, read_fp())
            return 0
        self.layers[0].args[current].x = x
        if self.long_step:
            start_poll(&self.poll)
            if <double>self.multiply_adds > ONE_THREAD and self.prepare_shared():
                with nogil:
                    result = self.shared.run(current, x)
            else:
                with nogil:
                    result = run_layers(self.layers, self.count, current)
        else:
            result = run_layers(self.layers, self.count, current)
        if result:
            return -1
        self.current = 1 - current
        self.copy_out(y, self.layers[self.count - 1].args[current].h_n)
        return 0

    cdef inline void advance_small(self, const void* x, void* y, fp_mode mode) noexcept:
        cdef int current = self.current
        self.layers[0].args[current].x = x
        self.layers[self.count - 1].args[current].y = y
        run_small(self.layers, self.count, current, mode)
        self.current = 1 - current

    # T steps of every layer: from the current set of buffers to the other, which is then the current one.
    cdef int advance_block(self, cnp.ndarray x, cnp.ndarray y) except -1:
        cdef isize T = cnp.PyArray_DIM(x, 1 if cnp.PyArray_NDIM(x) == 3 and self.batch_first else 0), i
        cdef int result
        cdef stream_layer* layer
        cdef Parameters p
        self.prepare_block(T)
        for i in range(self.count):
            p = self.parameters[i]
            layer = &self.layers[i]
            memcpy(layer.block.run.h, layer.h[self.current],
                   self.batch_size * state_row(&p.cell, p.table.vlen) * self.itemsize)
            memcpy(layer.block.run.c, layer.c[self.current],
                   self.batch_size * units_row(&p.cell, p.table.vlen) * self.itemsize)
            layer.block.h_n, layer.block.c_n = layer.h[1 - self.current], layer.c[1 - self.current]
            if i > 0:
                layer.block.x = self.layers[i - 1].block.y
        self.layers[0].block.x = cnp.PyArray_DATA(x)
        self.layers[self.count - 1].block.y = cnp.PyArray_DATA(y)
        if <double>self.multiply_adds * T > HOLD_GIL:
            start_poll(&self.poll)
            with nogil:
                result = run_blocks(self.layers, self.count)
            if not self.long_step:
                self.poll.cancelled, self.poll.next = 0, 1e300
        else:
            result = run_blocks(self.layers, self.count)
        if self.block_steps == 0:
            self.block_buffers = None
        if result:
            return -1
        self.current = 1 - self.current
        return 0

    def _exclusively(self, function):
        """Call a function while no other thread may step or set this stream; RuntimeError if one is doing so.

        Compiled, so that no signal handler can raise between marking the stream as busy and the try that unmarks it.
        """
        with cython.critical_section(self):
            self.enter()
        try:
            return function()
        finally:
            with cython.critical_section(self):
                self.busy = 0

    def _get_state(self):
        """Copy the state: h [L, N, S] and c [L, N, H] (None unless LSTM)."""
        cdef Parameters p = self.parameters[0]
        h = np.empty((self.count, self.batch_size, p.cell.state), p.dtype)
        c = np.empty((self.count, self.batch_size, p.cell.hidden), p.dtype) if p.cell.kind == LSTM else None
        with cython.critical_section(self):
            self.exchange(h, c, True)
        return h, c

    @cython.critical_section
    def _set_state(self, cnp.ndarray h not None, cnp.ndarray c):
        """Set the state from contiguous h [L, N, S] and, for LSTM, c [L, N, H]. Called within _exclusively."""
        cdef Parameters p = self.parameters[0]
        if not self.holds(h, p.cell.state) or (c is not None) != (p.cell.kind == LSTM) or (
                c is not None and not self.holds(c, p.cell.hidden)):
            raise ValueError("state: expected this stream's shape and dtype, C-contiguous")
        self.exchange(h, c, False)

    cdef bint holds(self, cnp.ndarray a, isize width):
        return (cnp.PyArray_NDIM(a) == 3 and cnp.PyArray_DIM(a, 0) == self.count and cnp.PyArray_ISCARRAY_RO(a)
                and cnp.PyArray_DIM(a, 1) == self.batch_size and cnp.PyArray_DIM(a, 2) == width
                and cnp.PyArray_TYPE(a) == self.typenum)

    # Copies the caller's state, h [L, N, S] and c [L, N, H] (None: zeros; c of no LSTM: nothing), into the current set
    # of buffers, or back.
    cdef int exchange(self, object h, object c, bint back) except -1:
        cdef Parameters p
        cdef isize i
        for i in range(self.count):
            p = self.parameters[i]
            self.exchange_rows(h, i, p.cell.state, self.layers[i].h[self.current], state_row(&p.cell, p.table.vlen),
                               back)
            if p.cell.kind == LSTM:
                self.exchange_rows(c, i, p.cell.hidden, self.layers[i].c[self.current],
                                   units_row(&p.cell, p.table.vlen), back)
        return 0

    # Copies the rows of layer i of a contiguous [L, N, width] to padded rows, or back.
    cdef void exchange_rows(self, object a, isize i, isize width, void* padded, isize padded_row, bint back) noexcept:
        cdef isize N = self.batch_size, size = width * self.itemsize, row = padded_row * self.itemsize
        cdef char* outside
        if a is None:
            memset(padded, 0, N * row)
            return
        outside = <char*>cnp.PyArray_DATA(<cnp.ndarray>a) + i * N * size
        if back:
            copy_rows(outside, size, <const char*>padded, row, size, N)
        else:
            copy_rows(<char*>padded, row, outside, size, size, N)

    @cython.critical_section
    def _clear(self, list rows not None):
        """Zero the state of the rows with these indices. Called within _exclusively."""
        cdef Parameters p
        cdef isize i, n, size = self.itemsize
        for n in rows:
            if not 0 <= n < self.batch_size:
                raise ValueError(f"rows: expected indices below {self.batch_size}, got {n}")
        for i in range(self.count):
            p = self.parameters[i]
            for n in rows:
                memset(<char*>self.layers[i].h[self.current] + n * state_row(&p.cell, p.table.vlen) * size, 0,
                       state_row(&p.cell, p.table.vlen) * size)
                memset(<char*>self.layers[i].c[self.current] + n * units_row(&p.cell, p.table.vlen) * size, 0,
                       units_row(&p.cell, p.table.vlen) * size)
