# How the rows of a batch are ordered, and how they are copied in and out.
#
# Each direction takes its rows in processing order: step 0 is where it starts, rows stand by falling length. Outputs
# and their gradients are accessed where the caller has them; so is x unless the batch is ragged, when its rows are
# gathered into packed rows, as is everything that training keeps.
#
# A packed batch is in packed rows already, [rows, width] as in torch's PackedSequence: row n of time index t at
# offset[t] + n. Only a reversed direction has to gather them.
#
# Uses Buffer (buffers), poll_state, should_stop, isize (structs).

cdef enum: COPIED_AT_ONCE = 4194304     # bytes: a millisecond's work or more between looks for signals


# Counts bytes that were copied; whether a call that has copied many since the last look is to stop.
cdef inline bint stop_after_copy(poll_state* poll, isize* copied, isize bytes) noexcept nogil:
    copied[0] += bytes
    if copied[0] < COPIED_AT_ONCE:
        return False
    copied[0] = 0
    return should_stop(poll)


cdef class Batch:
    """How the rows of a batch are ordered.

    Parameters
    ----------
    T, N : int
        Steps and rows.
    lengths : ndarray of int64, [N], or None
        How many steps each row has, falling. None: all T.
    order : ndarray of int64, [N], or None
        The caller's row of each row here. None: the same. Not given without lengths.
    packed : bool, default False
        True: the caller's arrays are packed rows, [rows, width]. Lengths are given and order is not.

    Attributes
    ----------
    rows : int
        Packed rows: the sum of the lengths. The arguments T, N, lengths and order are attributes, too.
    """

    cdef readonly isize T, N, rows
    cdef readonly cnp.ndarray lengths, order
    cdef const isize* length         # the data of lengths, or NULL
    cdef const isize* row            # the data of order, or NULL
    cdef cnp.ndarray state_order
    cdef const isize* state_row      # the caller's row of each row here in states: row, unless order_states was called
    cdef Buffer offsets
    cdef const isize* offset         # packed: [T], the packed row where each time index begins; else NULL

    def __cinit__(self, isize T, isize N, cnp.ndarray lengths, cnp.ndarray order, bint packed=False):
        cdef isize t, running = N, total = 0
        cdef isize* offset
        self.T, self.N, self.lengths, self.order = T, N, lengths, order
        self.rows = T * N
        if lengths is not None:
            self.length = <const isize*>cnp.PyArray_DATA(lengths)
            if not packed:
                self.rows = 0
                for t in range(N):
                    self.rows += self.length[t]
        if order is not None:
            self.row = self.state_row = <const isize*>cnp.PyArray_DATA(order)
        if packed:
            self.offsets = Buffer(max(<isize>1, T), 1, sizeof(isize))
            self.offset = offset = <isize*>self.offsets.data
            for t in range(T):
                while running > 0 and self.length[running - 1] <= t:
                    running -= 1
                offset[t] = total
                total += running
            self.rows = total

    def order_states(self, cnp.ndarray order, cnp.ndarray inverse):
        """Have the caller's states in another order than the rows of x, as beside a PackedSequence.

        Parameters
        ----------
        order : ndarray of int64, [N]
            The caller's row of each row here.
        inverse : ndarray of int64, [N]
            The row here of each row of the caller's.

        Returns
        -------
        bool
            False, and nothing has changed, where the two are not inverse orders of N rows.
        """
        cdef isize n, row
        cdef const isize* rows = <const isize*>cnp.PyArray_DATA(order)
        cdef const isize* back = <const isize*>cnp.PyArray_DATA(inverse)
        for a in (order, inverse):
            if (cnp.PyArray_TYPE(a) != cnp.NPY_INT64 or cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIM(a, 0) != self.N
                    or not cnp.PyArray_ISCARRAY_RO(a)):
                return False
        for n in range(self.N):
            row = rows[n]
            if not 0 <= row < self.N or back[row] != n:
                return False
        self.state_order, self.state_row = order, rows
        return True

    cdef isize first_rows(self) noexcept:
        """Rows that run at step 0."""
        cdef isize n = self.N if self.T > 0 else 0
        while n > 0 and self.length != NULL and self.length[n - 1] == 0:
            n -= 1
        return n

    # Copies the caller's rows of `size` bytes to packed rows in processing order, or back. `outside` is [T, N], a step
    # and a row so many bytes apart; of a packed batch it is packed rows. -1: a signal handler has raised.
    cdef int copy(self, char* outside, isize step, isize row, char* inside, isize inside_row, isize size,
                  bint reverse, bint back, poll_state* poll) noexcept nogil:
        cdef isize t, n, length, time, running = self.N, copied = 0
        cdef char* at
        for t in range(self.T):
            while self.length != NULL and running > 0 and self.length[running - 1] <= t:
                running -= 1
            if running == 0:
                return 0
            if stop_after_copy(poll, &copied, running * size):
                return -1
            for n in range(running):
                length = self.T if self.length == NULL else self.length[n]
                time = length - 1 - t if reverse else t
                if self.offset != NULL:
                    at = outside + (self.offset[time] + n) * row
                else:
                    at = outside + time * step + (n if self.row == NULL else self.row[n]) * row
                if back:
                    memcpy(at, inside, size)
                else:
                    memcpy(inside, at, size)
                inside += inside_row
        return 0

    # Zeroes what lies past the rows' lengths in columns first..first+width of the caller's [T, N, ...].
    cdef int clear_past(self, cnp.ndarray a, isize first, isize width, poll_state* poll) except -1:
        cdef isize n, t, size = cnp.PyArray_ITEMSIZE(a), cleared = 0
        cdef isize step = cnp.PyArray_STRIDE(a, 0), row = cnp.PyArray_STRIDE(a, 1)
        cdef char* data = <char*>cnp.PyArray_DATA(a) + first * size
        cdef bint stopped = False
        if self.length == NULL or self.offset != NULL:
            return 0
        with nogil:
            for n in range(self.N):
                for t in range(self.length[n], self.T):
                    memset(data + t * step + self.row[n] * row, 0, width * size)
                    stopped = stop_after_copy(poll, &cleared, width * size)
                    if stopped:
                        break
                if stopped:
                    break
        return -1 if stopped else 0

    # Copies the caller's state, [N] rows of `size` bytes, to padded rows in processing order, or back.
    cdef void copy_state(self, char* outside, isize row, char* padded, isize padded_row, isize size,
                         bint back) noexcept nogil:
        cdef isize n
        cdef char* at
        for n in range(self.N):
            at = outside + (n if self.state_row == NULL else self.state_row[n]) * row
            if back:
                memcpy(at, padded + n * padded_row, size)
            else:
                memcpy(padded + n * padded_row, at, size)

    # The first row of part i of `parts` parts of equal work.
    cdef isize split(self, isize i, isize parts) noexcept:
        cdef isize n, done = 0
        if self.length == NULL:
            return self.N * i // parts
        for n in range(self.N):
            if done * parts >= self.rows * i:
                return n
            done += self.length[n]
        return self.N


def packed_batch(cnp.ndarray sizes, isize rows):
    """Make the batch of packed rows of which sizes[t] belong to time index t, like batch_sizes of a PackedSequence.

    Parameters
    ----------
    sizes : ndarray of int64, [T]
    rows : int
        How many packed rows there are.

    Returns
    -------
    Batch or None
        With the lengths of its rows where they differ. None where the sizes do not fall, or do not fit the rows.
    """
    cdef isize t = 0, n, T, N, size, last, total = 0
    cdef isize* length
    cdef cnp.ndarray lengths
    if cnp.PyArray_NDIM(sizes) != 1 or cnp.PyArray_TYPE(sizes) != cnp.NPY_INT64 or cnp.PyArray_DIM(sizes, 0) == 0:
        return None
    T = cnp.PyArray_DIM(sizes, 0)
    N = last = (<const isize*>cnp.PyArray_DATA(sizes))[0]
    for t in range(T):
        size = (<const isize*>(<const char*>cnp.PyArray_DATA(sizes) + t * cnp.PyArray_STRIDE(sizes, 0)))[0]
        if size < 1 or size > last or size > rows - total:
            return None
        last = size
        total += size
    if total != rows:
        return None
    if last == N:
        return Batch(T, N, None, None)
    lengths = cnp.PyArray_EMPTY(1, <cnp.npy_intp*>&N, cnp.NPY_INT64, 0)
    length = <isize*>cnp.PyArray_DATA(lengths)
    last = 0
    for t in range(T - 1, -1, -1):      # the rows that are not in any later time index end at this one
        size = (<const isize*>(<const char*>cnp.PyArray_DATA(sizes) + t * cnp.PyArray_STRIDE(sizes, 0)))[0]
        for n in range(last, size):
            length[n] = t + 1
        last = size
    return Batch(T, N, lengths, None, True)


# Where a kernel accesses columns `first`.. of the caller's [T, N, ...] in place: the data, the strides in elements from
# a step and a row to the next, and in `rows` where each row begins, or NULL: at multiples of the row stride. A reversed
# direction has negative strides. Ragged rows stand in an order of their own and, reversed, begin at their own last
# step. Returns the buffer that `rows` points into, or None.
cdef Buffer in_place(Batch batch, cnp.ndarray a, isize first, bint reverse, void** data, isize* step, isize* row,
                     const isize** rows):
    cdef isize size = cnp.PyArray_ITEMSIZE(a), t = cnp.PyArray_STRIDE(a, 0) // size, n
    cdef Buffer b
    cdef isize* begin
    data[0] = <char*>cnp.PyArray_DATA(a) + first * size
    if batch.offset != NULL:
        row[0] = t
        return None
    step[0], row[0] = -t if reverse else t, cnp.PyArray_STRIDE(a, 1) // size
    if batch.length == NULL:
        if reverse:
            data[0] = <char*>data[0] + (batch.T - 1) * t * size
        return None
    b = Buffer(batch.N, 1, sizeof(isize))
    begin = <isize*>b.data
    for n in range(batch.N):
        begin[n] = batch.row[n] * row[0] + (t * (batch.length[n] - 1) if reverse else 0)
    rows[0] = begin
    return b


# Copies one direction's state [N, width] of the caller's [D, N, width] to padded rows, or back.
cdef void exchange_state(Batch batch, cnp.ndarray a, isize d, Buffer padded, isize padded_row, bint back) noexcept:
    cdef isize size = cnp.PyArray_ITEMSIZE(a)
    batch.copy_state(<char*>cnp.PyArray_DATA(a) + d * cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1),
                     <char*>padded.data, padded_row * size, cnp.PyArray_DIM(a, 2) * size, back)


# Copies rows of the caller's [T, N, width] (a mask: [T, N]; packed: [rows, width]) to packed rows in processing order,
# or back. -1: a signal handler has raised.
cdef int exchange_rows(Batch batch, cnp.ndarray a, Buffer inside, isize width, bint reverse, bint back,
                       poll_state* poll) except -1:
    cdef int result
    cdef isize size = cnp.PyArray_ITEMSIZE(a) * width
    cdef isize step = cnp.PyArray_STRIDE(a, 0), row = step if batch.offset != NULL else cnp.PyArray_STRIDE(a, 1)
    with nogil:
        result = batch.copy(<char*>cnp.PyArray_DATA(a), step, row, <char*>inside.data, size, size, reverse, back, poll)
    return result
