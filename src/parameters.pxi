# The packed parameters of one direction of one layer. Made once for each version of the weights; read-only afterwards,
# so any number of threads may use them. The transposed matrices that backward needs are packed at its first call.

# Columns of dgates, as vectors of a unit: gate order in the packed forward matrices, in the recurrent product and its
# gradient, and in the input's gradient. torch's order of the rows: LSTM i f g o, GRU r z n.
cdef int[8] GATE_ORDERS = [0, 1, 2, 3, 2, 0, 1, 2]
cdef const int* IN_ORDER = GATE_ORDERS
cdef const int* GRU_RECURRENT = GATE_ORDERS + 4     # n first: dgates hold d(W_hn h), dr, dz, dn
cdef const int* GATE_N = GATE_ORDERS + 2


# Vectors in a panel of `vectors` outputs: 3 or 4, whichever pads less.
cdef isize panel_width(isize vectors) noexcept:
    if vectors <= 4:
        return vectors
    return 3 if (vectors + 2) // 3 * 3 < (vectors + 3) // 4 * 4 else 4


cdef bint same_bytes(cnp.ndarray a, cnp.ndarray b) noexcept:
    if a is None or b is None:
        return a is b
    return (cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b)
            and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0)


cdef class Parameters:
    cdef kernel_table* table
    cdef cell c
    cdef int gates
    cdef list owned                  # the buffers that c points into
    cdef bint transposed, input_transposed
    cdef readonly object dtype, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, capsule

    def __cinit__(self, capsule, str kind, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole=None,
                  options=None):
        """weight_ih [G*H, I], weight_hh [G*H, S], biases [G*H] or None, weight_hr [S, H] or None, peephole [3*H] or
        None: C-contiguous. options: None for a plain cell, else (activations f, g, h as (name, alpha, beta), clip,
        coupled, mirror)."""
        cdef isize H, I = weight_ih.shape[1], S = weight_hh.shape[1], vectors, V
        self.capsule = capsule
        self.table = table_of(capsule)
        self.owned = []
        self.dtype = weight_ih.dtype
        self.weight_ih, self.weight_hh, self.weight_hr = weight_ih, weight_hh, weight_hr
        self.bias_ih, self.bias_hh, self.peephole = bias_ih, bias_hh, peephole
        self.c.kind = KINDS[kind]
        self.gates = 4 if self.c.kind == LSTM else 3 if self.c.kind in (GRU, GRU_BEFORE) else 1
        H = weight_ih.shape[0] // self.gates
        V = self.table.vlen
        vectors = (H + V - 1) // V
        self.c.input, self.c.hidden, self.c.state = I, H, S
        self.c.units = vectors
        self.c.w_ih.width = self.gates
        if self.gates == 1:
            self.c.w_ih.width = panel_width(vectors)
            self.c.units = (vectors + self.c.w_ih.width - 1) // self.c.w_ih.width * self.c.w_ih.width
        self.c.state_units = self.c.units
        self.c.saved = self.c.deltas = self.c.w_ih.width
        if self.c.kind == GRU:
            self.c.saved = self.c.deltas = 4
        self.pack(&self.c.w_ih, weight_ih, IN_ORDER, self.gates, self.c.w_ih.width)
        if self.c.kind == GRU_BEFORE:
            self.pack(&self.c.w_hh, weight_hh, IN_ORDER, 2, 2)
            self.pack(&self.c.w_hn, weight_hh, GATE_N, 1, 1)
        else:
            self.pack(&self.c.w_hh, weight_hh, IN_ORDER, self.gates, self.c.w_ih.width)
        if weight_hr is not None:
            self.c.w_hr.width = panel_width((S + V - 1) // V)
            self.c.w_hr.panels = ((S + V - 1) // V + self.c.w_hr.width - 1) // self.c.w_hr.width
            self.c.state_units = self.c.w_hr.panels * self.c.w_hr.width
            self.pack_plain(&self.c.w_hr, weight_hr, H, 1, S, H)
        self.pack_bias()
        self.c.plain = options is None
        if options is not None:
            self.take_options(options)

    cdef int take_options(self, tuple options) except -1:
        cdef activation* targets[3]
        cdef Buffer b
        cdef int i
        targets[0], targets[1], targets[2] = &self.c.f, &self.c.g, &self.c.h
        activations, self.c.clip, self.c.coupled, self.c.mirror = options
        for i, (name, alpha, beta) in enumerate(activations):
            targets[i].function, targets[i].alpha, targets[i].beta = ACTIVATIONS[name], alpha, beta
        if self.peephole is not None:
            b = Buffer(self.c.units * self.table.vlen, 3, self.table.itemsize)
            self.owned.append(b)
            self.table.pack(b.data, cnp.PyArray_DATA(self.peephole), 1, 0, self.c.hidden, self.c.units, IN_ORDER,
                            3, 3, 1)
            self.c.peephole = b.data
        return 0

    cdef int pack(self, matrix* m, cnp.ndarray w, const int* gate, isize gates, isize width) except -1:
        cdef isize depth = w.shape[1]
        cdef Buffer b
        m.width, m.panels, m.outer, m.depth = width, self.c.units * gates // width, 1, depth
        b = Buffer(m.panels * width * self.table.vlen, depth, self.table.itemsize)
        self.owned.append(b)
        with nogil:
            self.table.pack(b.data, cnp.PyArray_DATA(w), depth, 1, self.c.hidden, self.c.units, gate, gates, width,
                            depth)
        m.data = b.data
        return 0

    # One matrix without gates: `size` outputs `row` apart, summed index `column` apart. panels and width are set.
    cdef int pack_plain(self, matrix* m, cnp.ndarray w, isize row, isize column, isize size, isize depth) except -1:
        cdef Buffer b = Buffer(m.panels * m.width * self.table.vlen, depth, self.table.itemsize)
        self.owned.append(b)
        m.outer, m.depth = 1, depth
        with nogil:
            self.table.pack(b.data, cnp.PyArray_DATA(w), row, column, size, m.panels * m.width, IN_ORDER, 1, m.width,
                            depth)
        m.data = b.data
        return 0

    cdef int pack_transposed(self, matrix* m, cnp.ndarray w, const int* gate, isize gates, isize columns) except -1:
        cdef isize vectors = (columns + self.table.vlen - 1) // self.table.vlen
        cdef Buffer b
        m.width = panel_width(vectors)
        m.panels = (vectors + m.width - 1) // m.width
        # RNN: a panel of dgates holds several units
        m.outer = self.c.units // self.c.w_ih.width if self.gates == 1 else self.c.units
        m.depth = self.c.units * gates // m.outer * self.table.vlen
        b = Buffer(m.panels * m.width * self.table.vlen, m.outer * m.depth, self.table.itemsize)
        self.owned.append(b)
        with nogil:
            self.table.pack_t(b.data, cnp.PyArray_DATA(w), columns, 1, self.c.hidden, self.c.units, gate, gates,
                              m.panels, m.width, columns)
        m.data = b.data
        return 0

    cdef int pack_bias(self) except -1:
        cdef cnp.ndarray total
        cdef isize H = self.c.hidden, size = self.c.units * self.table.vlen
        cdef Buffer b = Buffer(size, self.gates, self.table.itemsize, True)
        cdef Buffer n = Buffer(size, 1, self.table.itemsize, True)
        self.owned += [b, n]
        self.c.bias, self.c.bias_n = b.data, n.data
        if self.bias_ih is None:
            return 0
        total = self.bias_ih.copy()
        summed = slice(2 * H if self.c.kind == GRU else None)
        with np.errstate(all="ignore"):
            total[summed] += self.bias_hh[summed]
        if self.c.kind == GRU:
            self.table.pack(n.data, cnp.PyArray_DATA(self.bias_hh), 1, 0, H, self.c.units, GATE_N, 1, 1, 1)
        self.table.pack(b.data, cnp.PyArray_DATA(total), 1, 0, H, self.c.units, IN_ORDER, self.gates,
                        self.c.w_ih.width, 1)
        return 0

    cdef int transpose(self, bint need_input) except -1:
        """Packs what backward needs, once. A pointer is set when its matrix is whole: other threads may be reading."""
        cdef isize H = self.c.hidden, S = self.c.state, V = self.table.vlen
        if need_input and not self.input_transposed:
            self.pack_transposed(&self.c.w_ih_t, self.weight_ih, IN_ORDER, self.gates, self.c.input)
            self.input_transposed = True
        if self.transposed:
            return 0
        if self.c.kind == GRU:
            self.pack_transposed(&self.c.w_hh_t, self.weight_hh, GRU_RECURRENT, 3, S)
        elif self.c.kind == GRU_BEFORE:
            self.pack_transposed(&self.c.w_hh_t, self.weight_hh, IN_ORDER, 2, S)
            self.pack_transposed(&self.c.w_hn_t, self.weight_hh, GATE_N, 1, S)
        else:
            self.pack_transposed(&self.c.w_hh_t, self.weight_hh, IN_ORDER, self.gates, S)
        if self.weight_hr is not None:
            self.c.w_hr_t.width = panel_width((H + V - 1) // V)
            self.c.w_hr_t.panels = ((H + V - 1) // V + self.c.w_hr_t.width - 1) // self.c.w_hr_t.width
            self.pack_plain(&self.c.w_hr_t, self.weight_hr, 1, H, H, S)
        self.transposed = True
        return 0

    def holds(self, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
        """Whether the bytes that were packed are these; arguments contiguous, of this dtype."""
        return (same_bytes(self.weight_ih, weight_ih) and same_bytes(self.weight_hh, weight_hh)
                and same_bytes(self.bias_ih, bias_ih) and same_bytes(self.bias_hh, bias_hh)
                and same_bytes(self.weight_hr, weight_hr))

    @property
    def multiply_adds(self):
        """Multiply-adds of one row's step."""
        return (self.gates * self.c.hidden * (self.c.input + self.c.state)
                + (self.c.hidden * self.c.state if self.weight_hr is not None else 0))

    cdef isize bytes_of(self, const matrix* m) noexcept:
        return m.panels * m.width * self.table.vlen * m.outer * m.depth * self.table.itemsize

    @property
    def packed_bytes(self):
        """Bytes of weights that a step of one row reads."""
        return (self.bytes_of(&self.c.w_ih) + self.bytes_of(&self.c.w_hh)
                + self.bytes_of(&self.c.w_hn) + self.bytes_of(&self.c.w_hr))

    def read(self, isize times):
        """Reads the packed weights `times` times and does nothing else: the lower bound of a step of one row."""
        cdef isize i
        cdef isize ih = self.bytes_of(&self.c.w_ih), hh = self.bytes_of(&self.c.w_hh)
        cdef isize hn = self.bytes_of(&self.c.w_hn), hr = self.bytes_of(&self.c.w_hr)
        with nogil:
            for i in range(times):
                self.table.read(self.c.w_ih.data, ih)
                self.table.read(self.c.w_hh.data, hh)
                self.table.read(self.c.w_hn.data, hn)
                self.table.read(self.c.w_hr.data, hr)
