# A stream's hot path. The state of the batch lies in two sets of padded buffers, read from one and written to the
# other, so that a step that is interrupted leaves it as it was. A step given `out` allocates nothing.

cdef enum: HOLD_GIL = 100000     # multiply-adds of a step below which the GIL is kept, as NumPy does for small arrays

cdef struct stream_layer:
    run r
    void* h[2]
    void* c[2]
    int (*forward)(run*) noexcept nogil


cdef class StreamCore:
    cdef readonly tuple parameters           # Parameters, one a layer
    cdef readonly isize batch_size, input_size, output_size
    cdef isize count, itemsize, output_row
    cdef int typenum, current, busy
    cdef bint long_step
    cdef list alive                          # the buffers that `layers` points into
    cdef stream_layer* layers
    cdef poll_state poll

    # parameters: [Parameters] of a stack, one a layer; batch_size at least 1. Stream has seen to that.
    def __cinit__(self, list parameters, isize batch_size):
        cdef Parameters p = parameters[0]
        cdef Buffer b
        cdef isize i, side, V = p.table.vlen, work = 0
        cdef run* r
        self.parameters, self.batch_size, self.count = tuple(parameters), batch_size, len(parameters)
        self.itemsize, self.input_size = p.table.itemsize, p.c.input
        self.typenum = cnp.NPY_FLOAT32 if self.itemsize == 4 else cnp.NPY_FLOAT64
        b = Buffer(self.count, sizeof(stream_layer), 1, True)
        self.alive = [b]
        self.layers = <stream_layer*>b.data
        for i in range(self.count):
            p = parameters[i]
            r = &self.layers[i].r
            self.layers[i].forward = p.table.forward
            r.c, r.T, r.N, r.n1, r.rows, r.poll = &p.c, 1, batch_size, batch_size, batch_size, &self.poll
            r.x_n = p.c.input if i == 0 else self.layers[i - 1].r.c.state_units * V
            for side in range(2):
                self.layers[i].h[side] = self.new_buffer(state_row(&p.c, V), True)
                self.layers[i].c[side] = self.new_buffer(units_row(&p.c, V), True)
            r.extra = self.new_buffer(units_row(&p.c, V), False)
            b = Buffer(max(<isize>1, p.table.plan(r)), 1, self.itemsize)
            self.alive.append(b)
            r.scratch = b.data
            work += p.multiply_adds * batch_size
        self.output_size, self.output_row = p.c.state, state_row(&p.c, V)
        self.long_step = work > HOLD_GIL
        start_poll(&self.poll)
        self.poll.next = 1e300       # a short step never looks for signals

    cdef void* new_buffer(self, isize row, bint zero) except NULL:
        cdef Buffer b = Buffer(self.batch_size, row, self.itemsize, zero)
        self.alive.append(b)
        return b.data

    def _convert(self, x):
        """A contiguous array of the model's dtype from any acceptable x; else raises. The subclass's."""
        raise TypeError("StreamCore is to be subclassed")

    def _check_out(self, out, shape):
        """Raises unless `out` can take the output. The subclass's."""
        raise TypeError("StreamCore is to be subclassed")

    # 1 unbatched, 2 batched, 0: not what the fast path takes.
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
        """Advances every row by one step.

        Parameters
        ----------
        x : array, [N, I], or [I] when batch_size is 1
        out : array, [N, S] or [S], optional
            Written in place and returned; with it a step allocates nothing.

        Returns
        -------
        array
            The last layer's output, in x's convention.

        Raises
        ------
        RuntimeError
            Another thread is in a step of this stream.
        """
        cdef int form = self.fits(x, self.input_size)
        cdef cnp.npy_intp[2] shape
        cdef cnp.ndarray target
        cdef void* h
        if form == 0:
            x = self._convert(x)
            form = cnp.PyArray_NDIM(<cnp.ndarray>x)
        shape[0], shape[1] = self.batch_size, self.output_size
        if out is not None and self.fits(out, self.output_size) == form and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            target = <cnp.ndarray>out
        else:
            if out is not None:
                self._check_out(out, [self.batch_size, self.output_size][2 - form:])
            target = cnp.PyArray_EMPTY(form, &shape[2 - form], self.typenum, 0)
        self.enter()
        try:
            h = self.advance(cnp.PyArray_DATA(<cnp.ndarray>x))
        finally:
            self.busy = 0
        self.give(target, h)
        if out is not None and target is not out:
            out[...] = target
            return out
        return target

    def _step_from(self, x, state):
        """One step of a single layer from a given state (None: zeros): the new one, in x's convention.

        None where the arguments are not what a step can walk as they are, or another thread is in one.
        """
        cdef int form = self.fits(x, self.input_size)
        cdef bint lstm = (<Parameters>self.parameters[0]).c.kind == LSTM
        cdef object h = state, c = None
        cdef cnp.ndarray new_h, new_c = None
        cdef cnp.npy_intp[2] shape
        if form == 0 or self.busy == generation:
            return None
        if state is not None:
            if lstm:
                if type(state) is not tuple or len(<tuple>state) != 2:
                    return None
                h, c = <tuple>state
                if self.fits(c, self.output_size) != form:
                    return None
            if self.fits(h, self.output_size) != form:
                return None
        shape[0], shape[1] = self.batch_size, self.output_size
        new_h = cnp.PyArray_EMPTY(form, &shape[2 - form], self.typenum, 0)
        if lstm:
            new_c = cnp.PyArray_EMPTY(form, &shape[2 - form], self.typenum, 0)
        self.enter()
        try:
            self.take(h, self.layers[0].h[self.current])
            if lstm:
                self.take(c, self.layers[0].c[self.current])
            self.advance(cnp.PyArray_DATA(<cnp.ndarray>x))
            self.give(new_h, self.layers[0].h[self.current])
            if lstm:
                self.give(new_c, self.layers[0].c[self.current])
        finally:
            self.busy = 0
        return (new_h, new_c) if lstm else new_h

    # Contiguous rows of output_size elements, or zeros, to padded rows; and back.
    cdef void take(self, object rows, void* padded) noexcept:
        cdef isize n, width = self.output_size * self.itemsize
        if rows is None:
            memset(padded, 0, self.batch_size * self.output_row * self.itemsize)
            return
        for n in range(self.batch_size):
            memcpy(<char*>padded + n * self.output_row * self.itemsize,
                   <const char*>cnp.PyArray_DATA(<cnp.ndarray>rows) + n * width, width)

    cdef void give(self, cnp.ndarray rows, const void* padded) noexcept:
        cdef isize n, width = self.output_size * self.itemsize
        for n in range(self.batch_size):
            memcpy(<char*>cnp.PyArray_DATA(rows) + n * width,
                   <const char*>padded + n * self.output_row * self.itemsize, width)

    cdef inline int enter(self) except -1:
        if self.busy == generation:     # an older one: of a thread that a fork left behind
            raise RuntimeError("another thread is in a step of this stream; give each thread a stream of its own")
        self.busy = generation
        return 0

    # The last layer's new state, or NULL with the exception of a signal handler set.
    cdef void* advance(self, const void* x) except NULL:
        cdef isize i
        cdef int result
        cdef run* r
        for i in range(self.count):
            r = &self.layers[i].r
            r.h, r.h_n = self.layers[i].h[self.current], self.layers[i].h[1 - self.current]
            r.c_state, r.c_n = self.layers[i].c[self.current], self.layers[i].c[1 - self.current]
            r.turn = <int>self.current
            r.x = x if i == 0 else self.layers[i - 1].r.h_n
        if self.long_step:
            start_poll(&self.poll)
            with nogil:
                result = run_layers(self.layers, self.count)
        else:
            result = run_layers(self.layers, self.count)
        if result:
            return NULL
        self.current = 1 - self.current
        return self.layers[self.count - 1].r.h_n

    def _exclusively(self, function):
        """Calls a function while no other thread may step or set this stream; RuntimeError if one is at it.

        Compiled, so that no signal handler can raise between taking the stream and the care to let it go.
        """
        self.enter()
        try:
            return function()
        finally:
            self.busy = 0

    def _get_state(self):
        """h [L, N, S] and c [L, N, H] (None unless LSTM), copied."""
        cdef Parameters p = self.parameters[0]
        h = np.empty((self.count, self.batch_size, p.c.state), p.dtype)
        c = np.empty((self.count, self.batch_size, p.c.hidden), p.dtype) if p.c.kind == LSTM else None
        self.exchange(h, c, True)
        return h, c

    def _set_state(self, cnp.ndarray h not None, cnp.ndarray c):
        """Takes contiguous h [L, N, S] and, for LSTM, c [L, N, H]. Within _exclusively."""
        cdef Parameters p = self.parameters[0]
        if not self.holds(h, p.c.state) or (c is not None) != (p.c.kind == LSTM) or (
                c is not None and not self.holds(c, p.c.hidden)):
            raise ValueError("state: not of this stream's shape, dtype and layout")
        self.exchange(h, c, False)

    cdef bint holds(self, cnp.ndarray a, isize width):
        return (cnp.PyArray_NDIM(a) == 3 and cnp.PyArray_DIM(a, 0) == self.count and cnp.PyArray_ISCARRAY_RO(a)
                and cnp.PyArray_DIM(a, 1) == self.batch_size and cnp.PyArray_DIM(a, 2) == width
                and cnp.PyArray_TYPE(a) == self.typenum)

    cdef exchange(self, cnp.ndarray h, cnp.ndarray c, bint back):
        cdef Parameters p
        cdef isize i, n
        for i in range(self.count):
            p = self.parameters[i]
            for n in range(self.batch_size):
                move_row(h, i, n, self.layers[i].h[self.current], state_row(&p.c, p.table.vlen), back)
                if c is not None:
                    move_row(c, i, n, self.layers[i].c[self.current], units_row(&p.c, p.table.vlen), back)

    def _clear(self, list rows not None):
        """Zeroes the state of the rows given by index. Within _exclusively."""
        cdef Parameters p
        cdef isize i, n, size = self.itemsize
        for n in rows:
            if not 0 <= n < self.batch_size:
                raise ValueError(f"rows: expected indices below {self.batch_size}, got {n}")
        for i in range(self.count):
            p = self.parameters[i]
            for n in rows:
                memset(<char*>self.layers[i].h[self.current] + n * state_row(&p.c, p.table.vlen) * size, 0,
                       state_row(&p.c, p.table.vlen) * size)
                memset(<char*>self.layers[i].c[self.current] + n * units_row(&p.c, p.table.vlen) * size, 0,
                       units_row(&p.c, p.table.vlen) * size)


# Row n of layer i between the caller's contiguous [L, N, width] and padded rows.
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
        result = layers[i].forward(&layers[i].r)
        if result:
            break
    restore_fp(mode)
    return result
