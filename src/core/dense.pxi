# Affine maps of the last axis, for fastrnn.nn.Linear: y = W x + b forward, dx = W^T dy with the transposed weight. The
# tile sums the bias first, then x's k in order, as it does for the recurrent layers: a row has the same bits in any
# batch, and alone.
#
# Uses Buffer (buffers), vectors_of, panel_width, padded_vectors, weights_buffer, pack_scales, pack_units, IN_ORDER
# (parameters), stop_after_copy (batch), Call, worthwhile (calls), add_outer_gradient (gradients), table_of (_core),
# matrix, product, outer_product (structs).

cdef class Dense:
    """A packed affine map y = W x + b.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table of an instruction set and dtype.
    weight : ndarray, [O, I]
        C-contiguous.
    bias : ndarray, [O], or None
        C-contiguous.
    scales : tuple (row [O], column [I]), or None
        Of int8 weights the scales of rows and columns, of the table's dtype.
    """

    cdef kernel_table* table
    cdef matrix w
    cdef list owned                  # the buffers that w and bias point into
    cdef isize inputs, outputs
    cdef void* bias

    def __cinit__(self, capsule, cnp.ndarray weight, cnp.ndarray bias, tuple scales=None):
        cdef isize O = weight.shape[0], I = weight.shape[1], V, vectors
        cdef Buffer data, packed_bias
        self.table = table_of(capsule)
        V = self.table.vlen
        self.w.vectors = vectors = vectors_of(O, V)
        self.inputs, self.outputs = I, O
        self.w.width = panel_width(vectors)
        vectors = padded_vectors(vectors)
        self.w.panels = vectors // self.w.width
        self.w.outer, self.w.depth, self.w.last = 1, I, I
        data = weights_buffer(self.table, &self.w)
        packed_bias = Buffer(vectors * V, 1, self.table.itemsize, True)
        self.owned = [data, packed_bias]
        self.w.data, self.bias = data.data, packed_bias.data
        pack_units(self.table, data.data, weight, I, 1, O, vectors, IN_ORDER, 1, self.w.width, I)
        if scales is not None:
            self.owned += pack_scales(self.table, &self.w, weight, scales, O, IN_ORDER, 1)
        if bias is not None:
            self.table.pack(self.bias, cnp.PyArray_DATA(bias), 1, 0, O, 0, vectors, IN_ORDER, 1, self.w.width, 1)

    def apply(self, cnp.ndarray x, cnp.ndarray out, isize threads):
        """Compute out = x W^T + b.

        Parameters
        ----------
        x : ndarray, [M, I]
            Its rows are contiguous, and any distance apart.
        out : ndarray, [M, O]
            Contiguous; overlaps neither x nor the parameters.
        threads : int
            The most threads.

        Returns
        -------
        ndarray
            out.
        """
        cdef isize M = x.shape[0], i
        threads = worthwhile(threads, <double>M * self.inputs * self.outputs)
        cdef isize parts = max(<isize>1, min(threads, M // 16))
        cdef Call call = Call(parts, parts)
        cdef product* args = <product*>call.new_args(parts, sizeof(product))
        for i in range(parts):
            args[i].w, args[i].bias = &self.w, self.bias
            args[i].left, args[i].left_row = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0) // self.table.itemsize
            args[i].out, args[i].out_row, args[i].columns = cnp.PyArray_DATA(out), self.outputs, self.outputs
            args[i].m0, args[i].m1 = M * i // parts, M * (i + 1) // parts
            args[i].scratch = call.hold(Buffer(max(<isize>1, self.table.plan_multiply(&self.w)), 1,
                                               self.table.itemsize))
            args[i].poll = &call.poll
            call.add(self.table.multiply, &args[i])
        call.go()
        return out


# Copies the rows of a contiguous matrix to rows that lie `row` bytes apart.
cdef int pad_rows(Buffer padded, isize row, cnp.ndarray a, Call call) except -1:
    cdef isize m, count = cnp.PyArray_DIM(a, 0), size = cnp.PyArray_DIM(a, 1) * cnp.PyArray_ITEMSIZE(a), copied = 0
    cdef const char* data = cnp.PyArray_BYTES(a)
    cdef bint stopped = False
    with nogil:
        for m in range(count):
            memcpy(<char*>padded.data + m * row, data + m * size, size)
            stopped = stop_after_copy(&call.poll, &copied, size)
            if stopped:
                break
    return -1 if stopped else 0


def affine_gradients(capsule, cnp.ndarray x, cnp.ndarray dy, bint with_bias, isize threads):
    """Compute the gradients of an affine map's parameters: dW = dy^T x and db, the sums of dy's columns.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table of an instruction set and dtype.
    x : ndarray, [M, I]
        Its rows are contiguous, and any distance apart.
    dy : ndarray, [M, O]
        Contiguous.
    with_bias : bool
        Whether the map has a bias.
    threads : int
        The most threads.

    Returns
    -------
    dW : ndarray, [O, I]
    db : ndarray, [O], or None
    """
    cdef kernel_table* table = table_of(capsule)
    cdef isize M = x.shape[0], I = x.shape[1], O = dy.shape[1], V = table.vlen, size = table.itemsize
    cdef isize vectors = padded_vectors((O + V - 1) // V)
    cdef outer_product o
    cdef cnp.ndarray weight = np.empty((O, I), x.dtype), bias = np.empty(O, x.dtype) if with_bias else None
    cdef Buffer padded = Buffer(M, vectors * V, size, True)
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.depth, o.width = M, I, panel_width((O + V - 1) // V)
    o.left, o.left_step = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0) // size
    o.right, o.right_step, o.right_panel = padded.data, vectors * V, o.width * V
    threads = worthwhile(threads, <double>M * I * O)
    cdef Call call = Call(threads, threads)
    pad_rows(padded, o.right_step * size, dy, call)
    add_outer_gradient(call, table, &o, vectors // o.width, O, vectors, IN_ORDER, 1, weight, bias)
    call.go()
    return weight, bias
