# A stream: a stack of layers that takes one step at a time and has a state of its own.
#
# The state lies in two sets of padded buffers. A step reads one set and writes the other, so that a step that is
# interrupted leaves the state as it was. A step given `out` allocates nothing.
#
# Uses Buffer (buffers), Parameters, state_row, units_row (parameters), start_poll, generation (threads), forward_args,
# poll_state (structs), flush_subnormals, restore_fp (_core).

cdef enum: HOLD_GIL = 100000     # multiply-adds of a step below which the GIL is kept, as NumPy does for small arrays

cdef struct stream_layer:        # every pointer is owned by StreamCore.buffers
    forward_args args            # h and c read one set, h_n and c_n write the other; x is the caller's, or h_n below
    void* h[2]                   # [N] padded rows: the two sets
    void* c[2]
    int (*forward)(forward_args*) noexcept nogil


cdef class StreamCore:
    """The compiled part of a stream; ``fastrnn.Stream`` is its subclass.

    Parameters
    ----------
    parameters : list of Parameters
        Of a stack, one a layer.
    batch_size : int
        Rows, at least 1.

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
    cdef bint long_step                      # a step releases the GIL, and Ctrl-C is looked for
    cdef list buffers                        # what `layers` points into
    cdef stream_layer* layers
    cdef poll_state poll

    def __cinit__(self, list parameters, isize batch_size):
        cdef Parameters p = parameters[0]
        cdef Buffer b
        cdef isize i, V = p.table.vlen, work = 0
        self.parameters, self.batch_size, self.count = tuple(parameters), batch_size, len(parameters)
        self.itemsize, self.input_size = p.table.itemsize, p.cell.input
        self.typenum = cnp.NPY_FLOAT32 if self.itemsize == 4 else cnp.NPY_FLOAT64
        b = Buffer(self.count, sizeof(stream_layer), 1, True)
        self.buffers = [b]
        self.layers = <stream_layer*>b.data
        for i in range(self.count):
            p = parameters[i]
            self.add_layer(&self.layers[i], p)
            self.layers[i].args.x_n = p.cell.input if i == 0 else self.layers[i - 1].args.run.cell.state_units * V
            work += p.multiply_adds * batch_size
        self.output_size, self.output_row = p.cell.state, state_row(&p.cell, V)
        self.long_step = work > HOLD_GIL
        start_poll(&self.poll)
        self.poll.next = 1e300       # a short step never looks for signals

    cdef int add_layer(self, stream_layer* layer, Parameters p) except -1:
        cdef layer_run* run = &layer.args.run
        cdef isize N = self.batch_size, h_row = state_row(&p.cell, p.table.vlen), set_
        cdef isize c_row = units_row(&p.cell, p.table.vlen)
        layer.forward = p.table.forward
        run.cell, run.T, run.N, run.n1, run.rows, run.poll = &p.cell, 1, N, N, N, &self.poll
        for set_ in range(2):
            layer.h[set_] = self.new_buffer(N, h_row, True)
            layer.c[set_] = self.new_buffer(N, c_row, True)
        run.extra = self.new_buffer(N, c_row, False)
        run.scratch = self.new_buffer(max(<isize>1, p.table.plan_forward(&layer.args)), 1, False)
        return 0

    cdef void* new_buffer(self, isize rows, isize row, bint zero) except NULL:
        cdef Buffer b = Buffer(rows, row, self.itemsize, zero)
        self.buffers.append(b)
        return b.data

    def _convert(self, x):
        """Convert any acceptable x to a contiguous array of the model's dtype, or raise. A subclass defines it."""
        raise TypeError("StreamCore is a base class: use a layer's stream()")

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
        cdef int axes = self.fits(x, self.input_size)
        cdef cnp.npy_intp[2] shape
        cdef cnp.ndarray target
        cdef void* h
        if axes == 0:
            x = self._convert(x)
            axes = cnp.PyArray_NDIM(<cnp.ndarray>x)
        shape[0], shape[1] = self.batch_size, self.output_size
        if out is not None and self.fits(out, self.output_size) == axes and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            target = <cnp.ndarray>out
        else:
            if out is not None:
                self._check_out(out, [self.batch_size, self.output_size][2 - axes:])
            target = cnp.PyArray_EMPTY(axes, &shape[2 - axes], self.typenum, 0)
        self.enter()
        try:
            h = self.advance(cnp.PyArray_DATA(<cnp.ndarray>x))
        finally:
            self.busy = 0
        self.copy_out(target, h)
        if out is not None and target is not out:
            out[...] = target
            return out
        return target

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
        if axes == 0 or self.busy == generation:
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
        self.enter()
        try:
            self.copy_in(h, self.layers[0].h[self.current])
            if lstm:
                self.copy_in(c, self.layers[0].c[self.current])
            self.advance(cnp.PyArray_DATA(<cnp.ndarray>x))
            self.copy_out(new_h, self.layers[0].h[self.current])
            if lstm:
                self.copy_out(new_c, self.layers[0].c[self.current])
        finally:
            self.busy = 0
        return (new_h, new_c) if lstm else new_h

    # Copies contiguous rows of output_size elements, or zeros, to padded rows, and back.
    cdef void copy_in(self, object rows, void* padded) noexcept:
        cdef isize n, width = self.output_size * self.itemsize
        if rows is None:
            memset(padded, 0, self.batch_size * self.output_row * self.itemsize)
            return
        for n in range(self.batch_size):
            memcpy(<char*>padded + n * self.output_row * self.itemsize,
                   <const char*>cnp.PyArray_DATA(<cnp.ndarray>rows) + n * width, width)

    cdef void copy_out(self, cnp.ndarray rows, const void* padded) noexcept:
        cdef isize n, width = self.output_size * self.itemsize
        for n in range(self.batch_size):
            memcpy(<char*>cnp.PyArray_DATA(rows) + n * width,
                   <const char*>padded + n * self.output_row * self.itemsize, width)

    cdef inline int enter(self) except -1:
        if self.busy == generation:     # an older generation: of a thread that a fork left behind
            raise RuntimeError("another thread is in a step of this stream; give each thread its own stream")
        self.busy = generation
        return 0

    # The last layer's new state, or NULL with the exception of a signal handler set.
    cdef void* advance(self, const void* x) except NULL:
        cdef isize i
        cdef int result
        cdef stream_layer* layer
        for i in range(self.count):
            layer = &self.layers[i]
            layer.args.run.h, layer.args.h_n = layer.h[self.current], layer.h[1 - self.current]
            layer.args.run.c, layer.args.c_n = layer.c[self.current], layer.c[1 - self.current]
            layer.args.turn = self.current
            layer.args.x = x if i == 0 else self.layers[i - 1].args.h_n
        if self.long_step:
            start_poll(&self.poll)
            with nogil:
                result = run_layers(self.layers, self.count)
        else:
            result = run_layers(self.layers, self.count)
        if result:
            return NULL
        self.current = 1 - self.current
        return self.layers[self.count - 1].args.h_n

    def _exclusively(self, function):
        """Call a function while no other thread may step or set this stream; RuntimeError if one is doing so.

        Compiled, so that no signal handler can raise between marking the stream as busy and the try that unmarks it.
        """
        self.enter()
        try:
            return function()
        finally:
            self.busy = 0

    def _get_state(self):
        """Copy the state: h [L, N, S] and c [L, N, H] (None unless LSTM)."""
        cdef Parameters p = self.parameters[0]
        h = np.empty((self.count, self.batch_size, p.cell.state), p.dtype)
        c = np.empty((self.count, self.batch_size, p.cell.hidden), p.dtype) if p.cell.kind == LSTM else None
        self.exchange(h, c, True)
        return h, c

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

    # Copies the caller's state into the current set of buffers, or back.
    cdef exchange(self, cnp.ndarray h, cnp.ndarray c, bint back):
        cdef Parameters p
        cdef isize i, n
        for i in range(self.count):
            p = self.parameters[i]
            for n in range(self.batch_size):
                move_row(h, i, n, self.layers[i].h[self.current], state_row(&p.cell, p.table.vlen), back)
                if c is not None:
                    move_row(c, i, n, self.layers[i].c[self.current], units_row(&p.cell, p.table.vlen), back)

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


# Copies row n of layer i of the caller's contiguous [L, N, width] to padded rows, or back.
cdef void move_row(cnp.ndarray a, isize i, isize n, void* padded, isize padded_row, bint back) noexcept:
    cdef isize size = cnp.PyArray_ITEMSIZE(a), width = cnp.PyArray_DIM(a, 2) * size
    cdef char* outside = <char*>cnp.PyArray_DATA(a) + (i * cnp.PyArray_DIM(a, 1) + n) * width
    cdef char* inside = <char*>padded + n * padded_row * size
    if back:
        memcpy(outside, inside, width)
    else:
        memcpy(inside, outside, width)


cdef int run_layers(stream_layer* layers, isize count) noexcept nogil:
    cdef fp_mode mode = flush_subnormals()
    cdef isize i
    cdef int result = 0
    for i in range(count):
        result = layers[i].forward(&layers[i].args)
        if result:
            break
    restore_fp(mode)
    return result
