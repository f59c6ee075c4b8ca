# Parameter and input gradients from the gate gradients of all rows: products of whole batches.
#
# Uses Buffer (buffers), Parameters, GATE_ORDERS, units_row, state_row (parameters), Batch, exchange_rows (batch), Call,
# Saved (calls), task_function (threads), outer_product, product (structs).

# dL/dW of a packed matrix of `gates` gates, in torch's layout, and into `bias`, if not None, the sum over the rows. o
# says what is multiplied: its left, the inputs of the matrix, its right, the gradients of its outputs, and their sizes.
# gate: which block of rows of W each vector of a unit holds.
cdef int outer_gradient(kernel_table* table, const outer_product* o, isize panels, isize size, isize units,
                        const int* gate, isize gates, cnp.ndarray weight, cnp.ndarray bias, isize threads) except -1:
    cdef isize i, V = table.vlen, parts = min(threads, panels)
    cdef Buffer packed = Buffer(panels * o.width * V, o.depth, table.itemsize)
    cdef Buffer packed_bias = Buffer(panels * o.width * V, 1, table.itemsize)
    cdef Call call = Call(parts, parts)
    cdef outer_product* args = <outer_product*>call.new_args(parts, sizeof(outer_product))
    for i in range(parts):
        args[i] = o[0]
        args[i].p0, args[i].p1 = panels * i // parts, panels * (i + 1) // parts
        args[i].out, args[i].bias = packed.data, packed_bias.data if bias is not None else NULL
        args[i].poll = &call.poll
        call.add(<task_function>table.accumulate, &args[i])
    call.go()
    with nogil:
        table.unpack(cnp.PyArray_DATA(weight), packed.data, o.depth, 1, size, units, gate, gates, o.width, o.depth)
    if bias is not None:
        table.unpack(cnp.PyArray_DATA(bias), packed_bias.data, 1, 0, size, units, gate, gates, o.width, 1)
    return 0


# The gradients of one direction by name. dgates, dstate and dpeephole as in backward_args.
cdef dict parameter_gradients(Saved s, Buffer dgates, Buffer dstate, Buffer dpeephole, isize threads):
    cdef Parameters p = s.parameters
    cdef dict gradients = {name: np.empty_like(getattr(p, name))
                           for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")
                           if getattr(p, name) is not None}
    gate_weight_gradients(s, dgates, gradients, threads)
    if dstate is not None:
        projection_gradient(s, dstate, gradients["weight_hr"], threads)
    if dpeephole is not None:
        peephole_gradient(s, dpeephole, gradients["peephole"], threads)
    return gradients


# dL/dW_ih = dgates' x, dL/dW_hh = dgates' h, and the biases' column sums.
cdef int gate_weight_gradients(Saved s, Buffer dgates, dict gradients, isize threads) except -1:
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize V = p.table.vlen, vector = V * p.table.itemsize, H = cell.hidden
    cdef bint gru = cell.kind == GRU
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.right_step = s.batch.rows, cell.deltas * V
    o.right_panel = o.rows * o.right_step
    # of a GRU's d(W_hn h), dr, dz, dn the input's product takes the last three, the recurrent one the first three
    o.left, o.left_step = s.x_data, s.x_step
    o.right, o.width, o.depth = <char*>dgates.data + (vector if gru else 0), cell.w_ih.width, cell.input
    outer_gradient(p.table, &o, cell.w_ih.panels, H, cell.units, IN_ORDER, p.gates, gradients["weight_ih"],
                   gradients.get("bias_ih"), threads)
    o.left, o.left_step = s.h.data, state_row(cell, V)
    o.right, o.width, o.depth = dgates.data, cell.w_hh.width, cell.state
    outer_gradient(p.table, &o, cell.w_hh.panels, H, cell.units, GRU_RECURRENT if gru else IN_ORDER,
                   2 if cell.kind == GRU_BEFORE else p.gates, gradients["weight_hh"],
                   gradients.get("bias_hh") if gru else None, threads)
    if cell.kind == GRU_BEFORE:         # n's rows: from r h, which `extra` holds
        o.left, o.left_step = s.extra.data, units_row(cell, V)
        o.right, o.width = <char*>dgates.data + 2 * vector, 1
        outer_gradient(p.table, &o, cell.w_hn.panels, H, cell.units, GATE_N, 1, gradients["weight_hh"], None, threads)
    if "bias_hh" in gradients and not gru:
        gradients["bias_hh"][:] = gradients["bias_ih"]
    return 0


# dL/dW_hr = dstate' m, where `extra` holds m.
cdef int projection_gradient(Saved s, Buffer dstate, cnp.ndarray weight, isize threads) except -1:
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize V = p.table.vlen
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.depth, o.width = s.batch.rows, cell.hidden, cell.w_hr.width
    o.left, o.left_step = s.extra.data, units_row(cell, V)
    o.right, o.right_step, o.right_panel = dstate.data, state_row(cell, V), o.width * V
    return outer_gradient(p.table, &o, cell.w_hr.panels, cell.state, cell.state_units, IN_ORDER, 1, weight, None,
                          threads)


# The rows' sums added up in the rows' order, whichever task computed them: the column sums of a product of depth 0.
cdef int peephole_gradient(Saved s, Buffer dpeephole, cnp.ndarray peephole, isize threads) except -1:
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize V = p.table.vlen
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.width, o.left = s.batch.N, 3, dpeephole.data
    o.right, o.right_step, o.right_panel = dpeephole.data, 3 * units_row(cell, V), 3 * V
    return outer_gradient(p.table, &o, cell.units, cell.hidden, cell.units, IN_ORDER, 3,
                          np.empty((3 * cell.hidden, 0), p.dtype), peephole, threads)


# dx [T, N, I] (packed: [rows, I]) of one direction; rows past their length are zero.
cdef cnp.ndarray input_gradient(Saved s, Buffer dgates, isize threads):
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef Batch batch = s.batch
    cdef isize V = p.table.vlen, size = p.table.itemsize, i, parts = max(<isize>1, min(threads, batch.rows // 16))
    cdef bint ragged = batch.lengths is not None and batch.offset == NULL, direct = not (ragged or s.reverse)
    cdef tuple shape = (batch.rows, cell.input)
    if batch.offset == NULL:
        shape = (batch.T, batch.N, cell.input)
    cdef cnp.ndarray dx = (np.zeros if ragged else np.empty)(shape, p.dtype)
    cdef Buffer rows = None if direct else Buffer(batch.rows, cell.input, size)
    cdef Call call = Call(parts, parts)
    cdef product* args = <product*>call.new_args(parts, sizeof(product))
    for i in range(parts):
        args[i].w = &cell.w_ih_t
        args[i].left = <char*>dgates.data + (V * size if cell.kind == GRU else 0)
        args[i].left_row, args[i].left_outer = cell.deltas * V, batch.rows * cell.deltas * V
        args[i].out = cnp.PyArray_DATA(dx) if direct else rows.data
        args[i].out_row = args[i].columns = cell.input
        args[i].m0, args[i].m1 = batch.rows * i // parts, batch.rows * (i + 1) // parts
        args[i].poll = &call.poll
        call.add(<task_function>p.table.multiply, &args[i])
    call.go()
    if not direct:
        exchange_rows(batch, dx, rows, cell.input, s.reverse, True)
    return dx
