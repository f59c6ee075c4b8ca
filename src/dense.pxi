# Linear. Dense is a packed affine map y = W x + b of the last axis: the forward pass, and dx = W^T dy. The tile sums
# bias first, then x's k in order, as it does for the recurrent layers: a row has the same bits in any batch, and alone.

cdef class Dense:
    cdef kernel_table* table
    cdef matrix w
    cdef list owned
    cdef isize inputs, outputs
    cdef void* bias

    def __cinit__(self, capsule, cnp.ndarray weight, cnp.ndarray bias):
        """weight [O, I], bias [O] or None: C-contiguous."""
        cdef isize O = weight.shape[0], I = weight.shape[1], V, vectors
        cdef Buffer data, packed_bias
        self.table = table_of(capsule)
        V = self.table.vlen
        vectors = (O + V - 1) // V
        self.inputs, self.outputs = I, O
        self.w.width = panel_width(vectors)
        self.w.panels = (vectors + self.w.width - 1) // self.w.width
        self.w.outer, self.w.depth = 1, I
        vectors = self.w.panels * self.w.width
        data = Buffer(vectors * V, I, self.table.itemsize)
        packed_bias = Buffer(vectors * V, 1, self.table.itemsize, True)
        self.owned = [data, packed_bias]
        self.w.data, self.bias = data.data, packed_bias.data
        self.table.pack(data.data, cnp.PyArray_DATA(weight), I, 1, O, vectors, IN_ORDER, 1, self.w.width, I)
        if bias is not None:
            self.table.pack(self.bias, cnp.PyArray_DATA(bias), 1, 0, O, vectors, IN_ORDER, 1, self.w.width, 1)

    def apply(self, cnp.ndarray x, cnp.ndarray out, isize threads):
        """out [M, O] = x [M, I] W^T + b: rows contiguous, x's at any distance; out contiguous, overlaps nothing."""
        cdef isize M = x.shape[0], i
        threads = worthwhile(threads, <double>M * self.inputs * self.outputs)
        cdef isize parts = max(<isize>1, min(threads, M // 16))
        cdef Call call
        cdef product* part
        call = Call(parts, parts)
        part = <product*>call.hold(Buffer(parts, sizeof(product), 1, True))
        for i in range(parts):
            part[i].w, part[i].bias = &self.w, self.bias
            part[i].left, part[i].left_row = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0) // self.table.itemsize
            part[i].out, part[i].out_row, part[i].columns = cnp.PyArray_DATA(out), self.outputs, self.outputs
            part[i].m0, part[i].m1 = M * i // parts, M * (i + 1) // parts
            part[i].poll = &call.poll
            call.add(<task_function>self.table.multiply, &part[i])
        call.go()
        return out


def affine_gradients(capsule, cnp.ndarray x, cnp.ndarray dy, bint with_bias, isize threads):
    """dW [O, I] = dy^T x, and db [O], the sums of dy's columns, or None. x [M, I]: rows contiguous, at any distance;
    dy [M, O]: contiguous."""
    cdef kernel_table* table = table_of(capsule)
    cdef isize M = x.shape[0], I = x.shape[1], O = dy.shape[1], V = table.vlen, size = table.itemsize, m
    cdef isize vectors = (O + V - 1) // V, width = panel_width(vectors), panels = (vectors + width - 1) // width
    cdef outer_product o
    cdef cnp.ndarray weight = np.empty((O, I), x.dtype), bias = np.empty(O, x.dtype) if with_bias else None
    cdef Buffer padded = Buffer(M, panels * width * V, size, True)
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.depth, o.width = M, I, width
    o.right, o.right_step, o.right_panel = padded.data, panels * width * V, width * V
    for m in range(M):
        memcpy(<char*>padded.data + m * o.right_step * size, cnp.PyArray_BYTES(dy) + m * O * size, O * size)
    outer_gradient(table, cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0) // size, &o, panels, O, panels * width,
                   IN_ORDER, 1, weight, bias, worthwhile(threads, <double>M * I * O))
    return weight, bias
