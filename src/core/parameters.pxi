# The packed parameters of one direction of one layer.
#
# Uses Buffer (buffers), start_poll (threads), table_of, FLOAT32, FLOAT64, ACTIVATIONS, KINDS (_core), matrix,
# packed_cell, kernel_table, poll_state, should_stop (structs).

# Which block of rows of a parameter each vector of a unit holds. Rows are in torch's order: LSTM i f g o, GRU r z n.
cdef int[8] GATE_ORDERS = [0, 1, 2, 3, 2, 0, 1, 2]
cdef const int* IN_ORDER = GATE_ORDERS
cdef const int* GRU_RECURRENT = GATE_ORDERS + 4     # n first: gate gradients are stored as d(W_hn h), dr, dz, dn
cdef const int* GATE_N = GATE_ORDERS + 2

cdef enum: PACKED_AT_ONCE = 1048576     # elements: some milliseconds' work between looks for signals


# Vectors that so many elements fill.
cdef inline isize vectors_of(isize size, isize vlen) noexcept:
    return (size + vlen - 1) // vlen


# Vectors in a panel of so many outputs: 3 or 4, whichever pads less.
cdef isize panel_width(isize vectors) noexcept:
    if vectors <= 4:
        return vectors
    return 3 if (vectors + 2) // 3 * 3 < (vectors + 3) // 4 * 4 else 4


# Vectors in a row of so many outputs, padded to whole panels.
cdef isize padded_vectors(isize vectors) noexcept:
    cdef isize width = panel_width(vectors)
    return (vectors + width - 1) // width * width


cdef inline isize padded_depth(const kernel_table* table, const matrix* m) noexcept:
    return (m.depth + table.group - 1) // table.group * table.group


# Memory for the weights of a matrix whose sizes are set, which are packed for the table as it is now.
cdef Buffer weights_buffer(const kernel_table* table, matrix* m):
    m.fast = table.fast
    return Buffer(m.panels * m.width * table.vlen, m.outer * padded_depth(table, m), table.weight_size)


# Sets what a matrix of int8 weights w [rows, depth] needs beside them, from the scales of its rows and of its columns.
# Returns the buffers.
cdef list pack_scales(const kernel_table* table, matrix* m, cnp.ndarray w, tuple row_and_column, isize size,
                      const int* gate, isize gates):
    cdef isize vectors = m.panels * m.width
    cdef cnp.ndarray scale = row_and_column[0], column = row_and_column[1]
    cdef Buffer columns = Buffer((m.depth + table.vlen - 1) // table.vlen * table.vlen, 1, table.itemsize, True)
    cdef Buffer scales = Buffer(vectors * table.vlen, 1, table.itemsize, True)
    cdef Buffer offsets = Buffer(vectors * table.vlen, 1, table.itemsize, True)
    cdef cnp.ndarray offset
    table.pack(scales.data, cnp.PyArray_DATA(scale), 1, 0, size, 0, vectors // gates, gate, gates, m.width, 1)
    if m.fast:      # 128 is added to the numbers of a row
        offset = np.ascontiguousarray(w.sum(axis=1, dtype=np.int32) * np.int32(-128))
        table.pack(offsets.data, cnp.PyArray_DATA(offset), 1, 0, size, 0, vectors // gates, gate, gates, m.width, 1)
    memcpy(columns.data, cnp.PyArray_DATA(column), cnp.PyArray_NBYTES(column))
    m.scale, m.offset, m.column = scales.data, offsets.data, columns.data
    return [scales, offsets, columns]


# Packs a parameter w[gates * size][depth] (strides row, column). A large one takes a while: after every PACKED_AT_ONCE
# elements, signals are looked for. -1: a signal handler has raised.
cdef int pack_units(const kernel_table* table, void* out, cnp.ndarray w, isize row, isize column, isize size,
                    isize units, const int* gate, isize gates, isize width, isize depth) except -1:
    cdef isize some = units_at_once(gates * table.vlen * depth), u = 0
    cdef const void* data = cnp.PyArray_DATA(w)
    cdef poll_state poll
    cdef bint stopped = False
    with nogil:
        if some < units:
            start_poll(&poll)
        while u + some < units and not stopped:
            table.pack_weights(out, data, row, column, size, u, u + some, gate, gates, width, depth)
            u += some
            stopped = should_stop(&poll)
        if not stopped:
            table.pack_weights(out, data, row, column, size, u, units, gate, gates, width, depth)
    return -1 if stopped else 0


# The same of the transpose of a contiguous parameter.
cdef int pack_units_transposed(const kernel_table* table, void* out, cnp.ndarray w, isize size, isize units,
                               const int* gate, isize gates, isize panels, isize width, isize columns) except -1:
    cdef isize some = units_at_once(gates * table.vlen * panels * width * table.vlen), u = 0
    cdef const void* data = cnp.PyArray_DATA(w)
    cdef poll_state poll
    cdef bint stopped = False
    with nogil:
        if some < units:
            start_poll(&poll)
        while u + some < units and not stopped:
            table.pack_t(out, data, columns, 1, size, units, u, u + some, gate, gates, panels, width, columns)
            u += some
            stopped = should_stop(&poll)
        if not stopped:
            table.pack_t(out, data, columns, 1, size, units, u, units, gate, gates, panels, width, columns)
    return -1 if stopped else 0


cdef inline isize units_at_once(isize elements) noexcept nogil:
    return max(<isize>1, PACKED_AT_ONCE // max(<isize>1, elements))


# A new array of another's shape and dtype.
cdef inline cnp.ndarray new_like(cnp.ndarray a):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)


# total[i] += more[i]: as NumPy's sum of the arrays, and without its warnings.
cdef void add_numbers(cython.floating* total, const cython.floating* more, isize n) noexcept nogil:
    cdef isize i
    for i in range(n):
        total[i] = total[i] + more[i]


cdef bint same_bytes(cnp.ndarray a, cnp.ndarray b) noexcept:
    if a is None or b is None:
        return a is b
    return (cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b)
            and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0)


# Elements in a padded row: of H units, of h, and of dL/dh as the recurrent product writes it.
cdef inline isize units_row(const packed_cell* cell, isize vlen) noexcept:
    return cell.units * vlen


cdef inline isize state_row(const packed_cell* cell, isize vlen) noexcept:
    return cell.state_units * vlen


cdef inline isize state_gradient_row(const packed_cell* cell, isize vlen) noexcept:
    return cell.w_hh_t.panels * cell.w_hh_t.width * vlen


cdef class Parameters:
    """Packed parameters of one direction of one layer.

    Made once for each version of the weights and read-only afterwards, so that any number of threads may use them. The
    transposed matrices that backward needs are packed when it is first called, and read-only from then on. G is the
    number of gates, H the hidden size, I the input size and S the size of h.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table of an instruction set and dtype; kept as ``capsule``.
    kind : str
        A key of ``KINDS``.
    weight_ih : ndarray, [G*H, I]
        As all arrays here: C-contiguous, of the table's dtype, and not changed by anyone afterwards.
    weight_hh : ndarray, [G*H, S]
    bias_ih, bias_hh : ndarray, [G*H], or None
    weight_hr : ndarray, [S, H], or None
        The projection of an LSTM.
    peephole : ndarray, [3*H], or None
    options : tuple or None
        None for a plain cell, else ((name, alpha, beta) of the activations f, g, h; clip; coupled; mirror).
    scales : tuple, or None
        Of int8 weight_ih, weight_hh and weight_hr (or None): each a tuple of the scales of its rows and of its columns,
        of the table's dtype. None: the weights are of the table's dtype.

    Attributes
    ----------
    dtype : numpy.dtype
        That of inputs, states and biases. The arrays that were given are attributes, too.
    """

    cdef kernel_table* table
    cdef packed_cell cell
    cdef int gates
    cdef list owned                  # the buffers that cell points into
    cdef bint transposed, input_transposed
    cdef readonly object dtype, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, capsule
    cdef tuple scales

    def __cinit__(self, capsule, str kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole=None,
                  options=None, tuple scales=None):
        self.capsule = capsule
        self.table = table_of(capsule)
        self.owned = []
        self.scales = scales or (None, None, None)
        self.dtype = FLOAT32 if self.table.itemsize == 4 else FLOAT64
        self.weight_ih, self.weight_hh, self.weight_hr = weight_ih, weight_hh, weight_hr
        self.bias_ih, self.bias_hh, self.peephole = bias_ih, bias_hh, peephole
        self.cell.kind = KINDS[kind]
        self.set_sizes(weight_ih.shape[0], weight_ih.shape[1], weight_hh.shape[1])
        self.pack_weights()
        self.pack_bias()
        self.cell.plain = options is None
        if options is not None:
            self.set_options(options)

    # rows: those of weight_ih, G*H.
    cdef void set_sizes(self, isize rows, isize input_size, isize state_size) noexcept:
        cdef packed_cell* cell = &self.cell
        cdef isize V = self.table.vlen
        self.gates = 4 if cell.kind == LSTM else 3 if cell.kind == GRU or cell.kind == GRU_BEFORE else 1
        cell.input, cell.hidden, cell.state = input_size, rows // self.gates, state_size
        cell.units = (cell.hidden + V - 1) // V
        cell.w_ih.width = self.gates
        if self.gates == 1:             # a panel holds several units
            cell.w_ih.width = panel_width(cell.units)
            cell.units = padded_vectors(cell.units)
        cell.state_units = cell.units
        if self.weight_hr is not None:
            cell.state_units = padded_vectors((state_size + V - 1) // V)
        cell.saved = cell.deltas = 4 if cell.kind == GRU else cell.w_ih.width

    cdef int pack_weights(self) except -1:
        cdef packed_cell* cell = &self.cell
        scale_ih, scale_hh, scale_hr = self.scales
        self.pack(&cell.w_ih, self.weight_ih, scale_ih, IN_ORDER, self.gates, cell.w_ih.width)
        if cell.kind == GRU_BEFORE:
            self.pack(&cell.w_hh, self.weight_hh, scale_hh, IN_ORDER, 2, 2)
            self.pack(&cell.w_hn, self.weight_hh, scale_hh, GATE_N, 1, 1)
        else:
            self.pack(&cell.w_hh, self.weight_hh, scale_hh, IN_ORDER, self.gates, cell.w_ih.width)
        if self.weight_hr is not None:
            self.pack_plain(&cell.w_hr, self.owned, self.weight_hr, cell.hidden, 1, cell.state, cell.hidden)
            if scale_hr is not None:
                self.owned += pack_scales(self.table, &cell.w_hr, self.weight_hr, scale_hr, cell.state, IN_ORDER, 1)
        return 0

    cdef int set_options(self, tuple options) except -1:
        cdef activation* targets[3]
        cdef Buffer b
        cdef int i
        targets[0], targets[1], targets[2] = &self.cell.f, &self.cell.g, &self.cell.h
        activations, self.cell.clip, self.cell.coupled, self.cell.mirror = options
        for i, (name, alpha, beta) in enumerate(activations):
            targets[i].function, targets[i].alpha, targets[i].beta = ACTIVATIONS[name], alpha, beta
        if self.peephole is not None:
            b = Buffer(self.cell.units * self.table.vlen, 3, self.table.itemsize)
            self.owned.append(b)
            self.table.pack(b.data, cnp.PyArray_DATA(self.peephole), 1, 0, self.cell.hidden, 0, self.cell.units,
                            IN_ORDER, 3, 3, 1)
            self.cell.peephole = b.data
        return 0

    cdef int pack(self, matrix* m, cnp.ndarray w, scale, const int* gate, isize gates, isize width) except -1:
        cdef isize depth = w.shape[1]
        cdef Buffer b
        m.width, m.panels, m.outer, m.depth, m.last = width, self.cell.units * gates // width, 1, depth, depth
        m.vectors = vectors_of(self.cell.hidden, self.table.vlen) * gates
        b = weights_buffer(self.table, m)
        self.owned.append(b)
        if pack_units(self.table, b.data, w, depth, 1, self.cell.hidden, self.cell.units, gate, gates, width, depth):
            return -1
        m.data = b.data
        if scale is not None:
            self.owned += pack_scales(self.table, m, w, scale, self.cell.hidden, gate, gates)
        return 0

    # A matrix without gates: `size` outputs `row` apart, the summed index `column` apart. Its memory is added to
    # `buffers`.
    cdef int pack_plain(self, matrix* m, list buffers, cnp.ndarray w, isize row, isize column, isize size,
                        isize depth) except -1:
        cdef Buffer b
        m.vectors = vectors_of(size, self.table.vlen)
        m.width = panel_width(m.vectors)
        m.panels = padded_vectors(m.vectors) // m.width
        m.outer, m.depth, m.last = 1, depth, depth
        b = weights_buffer(self.table, m)
        buffers.append(b)
        if pack_units(self.table, b.data, w, row, column, size, m.panels * m.width, IN_ORDER, 1, m.width, depth):
            return -1
        m.data = b.data
        return 0

    # Its memory is added to `buffers`.
    cdef int pack_transposed(self, matrix* m, list buffers, cnp.ndarray w, const int* gate, isize gates,
                             isize columns) except -1:
        cdef isize V = self.table.vlen
        cdef Buffer b
        m.vectors = vectors_of(columns, V)
        m.width = panel_width(m.vectors)
        m.panels = padded_vectors(m.vectors) // m.width
        # the summed index comes panel by panel of the gate gradients; of an RNN a panel holds several units
        m.outer = self.cell.units // self.cell.w_ih.width if self.gates == 1 else self.cell.units
        m.depth = self.cell.units * gates // m.outer * V
        m.last = vectors_of(self.cell.hidden, V) * gates * V - (m.outer - 1) * m.depth
        b = weights_buffer(self.table, m)
        buffers.append(b)
        if pack_units_transposed(self.table, b.data, w, self.cell.hidden, self.cell.units, gate, gates, m.panels,
                                 m.width, columns):
            return -1
        m.data = b.data
        return 0

    cdef int pack_bias(self) except -1:
        cdef cnp.ndarray total
        cdef isize H = self.cell.hidden, size = self.cell.units * self.table.vlen
        cdef isize summed = 2 * H if self.cell.kind == GRU else self.gates * H
        cdef Buffer b = Buffer(size, self.gates, self.table.itemsize, True)
        cdef Buffer n = Buffer(size, 1, self.table.itemsize, True)
        self.owned += [b, n]
        self.cell.bias, self.cell.bias_n = b.data, n.data
        if self.bias_ih is None:
            return 0
        total = new_like(self.bias_ih)
        memcpy(cnp.PyArray_DATA(total), cnp.PyArray_DATA(self.bias_ih), cnp.PyArray_NBYTES(total))
        if self.table.itemsize == 4:
            add_numbers(<float*>cnp.PyArray_DATA(total), <const float*>cnp.PyArray_DATA(self.bias_hh), summed)
        else:
            add_numbers(<double*>cnp.PyArray_DATA(total), <const double*>cnp.PyArray_DATA(self.bias_hh), summed)
        if self.cell.kind == GRU:
            self.table.pack(n.data, cnp.PyArray_DATA(self.bias_hh), 1, 0, H, 0, self.cell.units, GATE_N, 1, 1, 1)
        self.table.pack(b.data, cnp.PyArray_DATA(total), 1, 0, H, 0, self.cell.units, IN_ORDER, self.gates,
                        self.cell.w_ih.width, 1)
        return 0

    # Packs what backward needs, once. Threads that come at the same time may all pack it; the first to have done so
    # has its matrices used.
    cdef int transpose(self, bint need_input) except -1:
        cdef bint input_due, states_due
        with cython.critical_section(self):
            input_due, states_due = need_input and not self.input_transposed, not self.transposed
        if input_due:
            self.transpose_input()
        if states_due:
            self.transpose_states()
        return 0

    cdef int transpose_input(self) except -1:
        cdef matrix ih
        cdef list buffers = []
        memset(&ih, 0, sizeof(matrix))
        self.pack_transposed(&ih, buffers, self.weight_ih, IN_ORDER, self.gates, self.cell.input)
        with cython.critical_section(self):
            if not self.input_transposed:
                self.owned += buffers
                self.cell.w_ih_t = ih
                self.input_transposed = True
        return 0

    cdef int transpose_states(self) except -1:
        cdef packed_cell* cell = &self.cell
        cdef isize S = cell.state
        cdef matrix hh, hn, hr
        cdef list buffers = []
        memset(&hh, 0, sizeof(matrix))
        memset(&hn, 0, sizeof(matrix))      # of a cell without such a matrix it stays as it is
        memset(&hr, 0, sizeof(matrix))
        if cell.kind == GRU_BEFORE:
            self.pack_transposed(&hh, buffers, self.weight_hh, IN_ORDER, 2, S)
            self.pack_transposed(&hn, buffers, self.weight_hh, GATE_N, 1, S)
        else:
            self.pack_transposed(&hh, buffers, self.weight_hh, GRU_RECURRENT if cell.kind == GRU else IN_ORDER,
                                 self.gates, S)
        if self.weight_hr is not None:
            self.pack_plain(&hr, buffers, self.weight_hr, 1, cell.hidden, cell.hidden, S)
        with cython.critical_section(self):
            if not self.transposed:
                self.owned += buffers
                cell.w_hh_t, cell.w_hn_t, cell.w_hr_t = hh, hn, hr
                self.transposed = True
        return 0

    def holds(self, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
        """Tell whether the parameters that were packed are these, byte for byte.

        Parameters
        ----------
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr : ndarray or None
            Contiguous, of this dtype.

        Returns
        -------
        bool
        """
        return (same_bytes(self.weight_ih, weight_ih) and same_bytes(self.weight_hh, weight_hh)
                and same_bytes(self.bias_ih, bias_ih) and same_bytes(self.bias_hh, bias_hh)
                and same_bytes(self.weight_hr, weight_hr))

    @property
    def multiply_adds(self):
        """Multiply-adds of a step of one row."""
        return (self.gates * self.cell.hidden * (self.cell.input + self.cell.state)
                + (self.cell.hidden * self.cell.state if self.weight_hr is not None else 0))

    # Multiply-adds of a step of so many rows; with narrow weights, those of the table's dtype that take as long.
    cdef double work(self, double rows) noexcept:
        return rows * self.multiply_adds * self.table.weight_size / self.table.itemsize

    cdef isize bytes_of(self, const matrix* m) noexcept:
        return m.panels * m.width * self.table.vlen * m.outer * padded_depth(self.table, m) * self.table.weight_size

    @property
    def packed_bytes(self):
        """Bytes of packed weights, all of which a step of one row reads."""
        return (self.bytes_of(&self.cell.w_ih) + self.bytes_of(&self.cell.w_hh)
                + self.bytes_of(&self.cell.w_hn) + self.bytes_of(&self.cell.w_hr))

    def read(self, isize times):
        """Read the packed weights and do nothing else: the least time that a step of one row can take.

        Parameters
        ----------
        times : int
            How many times they are read.
        """
        cdef isize i
        cdef isize ih = self.bytes_of(&self.cell.w_ih), hh = self.bytes_of(&self.cell.w_hh)
        cdef isize hn = self.bytes_of(&self.cell.w_hn), hr = self.bytes_of(&self.cell.w_hr)
        with nogil:
            for i in range(times):
                self.table.read(self.cell.w_ih.data, ih)
                self.table.read(self.cell.w_hh.data, hh)
                self.table.read(self.cell.w_hn.data, hn)
                self.table.read(self.cell.w_hr.data, hr)
