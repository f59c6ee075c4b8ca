# Parameter and input gradients from the gate gradients of all rows: products of whole batches. All products of a layer
# are tasks of one call, so that its threads are woken once. Their results are there after call.go().
#
# Uses Buffer (buffers), IN_ORDER, GRU_RECURRENT, GATE_N, Parameters, new_like, vectors_of, units_row, state_row,
# units_at_once (parameters), Batch, exchange_rows (batch), Call, Saved (calls), outer_product, product,
# should_stop (structs).

cdef enum: MOST_PRODUCTS = 6     # of a direction: W_ih, W_hh, W_hn, W_hr, peepholes, x

# Some panels of dL/dW of a packed matrix, and where they go in torch's layout.
cdef struct outer_task:
    kernel_table* table
    outer_product product
    void* weight                    # [gates * size, depth]
    void* bias                      # [gates * size], or NULL
    isize size, units, gates
    const int* gate                 # which block of rows of W each vector of a unit holds


# A panel holds whole units.
cdef int outer_part(void* argument) noexcept nogil:
    cdef outer_task* t = <outer_task*>argument
    cdef outer_product* o = &t.product
    cdef isize u0 = o.p0 * o.width // t.gates, u1 = min(t.units, o.p1 * o.width // t.gates)
    cdef isize u = u0, some = units_at_once(t.gates * t.table.vlen * o.depth)
    if t.table.accumulate(o):
        return -1
    while u + some < u1:                # a large one takes a while
        t.table.unpack(t.weight, o.out, t.size, u, u + some, t.gate, t.gates, o.width, o.depth)
        u += some
        if should_stop(o.poll):
            return -1
    t.table.unpack(t.weight, o.out, t.size, u, u1, t.gate, t.gates, o.width, o.depth)
    if t.bias != NULL:
        t.table.unpack(t.bias, o.bias, t.size, u0, u1, t.gate, t.gates, o.width, 1)
    return 0


# Adds the tasks of dL/dW of a packed matrix of `gates` gates, in torch's layout, and into `bias`, if not None, the sum
# over the rows. o says what is multiplied: its left, the inputs of the matrix, its right, the gradients of its outputs,
# and their sizes.
cdef int add_outer_gradient(Call call, kernel_table* table, const outer_product* o, isize panels, isize size,
                            isize units, const int* gate, isize gates, cnp.ndarray weight, cnp.ndarray bias) except -1:
    cdef isize i, V = table.vlen, parts = max(<isize>1, min(call.threads, panels))
    cdef isize filled = min(units, vectors_of(size, V))
    cdef void* packed = call.hold(Buffer(panels * o.width * V, o.depth, table.itemsize))
    cdef void* packed_bias = NULL if bias is None else call.hold(Buffer(panels * o.width * V, 1, table.itemsize))
    cdef outer_task* tasks = <outer_task*>call.new_args(parts, sizeof(outer_task))
    cdef outer_task* t
    for i in range(parts):
        t = &tasks[i]
        t.table, t.product = table, o[0]
        t.product.p0, t.product.p1 = panels * i // parts, panels * (i + 1) // parts
        t.product.out, t.product.bias, t.product.vectors = packed, packed_bias, filled * gates
        t.product.fast = table.fast
        t.product.scratch = call.hold(Buffer(max(<isize>1, table.plan_accumulate(&t.product)), 1, table.itemsize))
        t.product.poll = &call.poll
        t.weight = cnp.PyArray_DATA(weight)
        t.bias = NULL if bias is None else cnp.PyArray_DATA(bias)
        t.size, t.units, t.gate, t.gates = size, filled, gate, gates
        call.add(outer_part, t)
    return 0


# The gradients of one direction by name, which the call computes. dgates, dstate and dpeephole as in backward_args.
cdef dict add_parameter_gradients(Call call, Saved s, Buffer dgates, Buffer dstate, Buffer dpeephole):
    cdef Parameters p = s.parameters
    cdef dict gradients = {"weight_ih": new_like(p.weight_ih), "weight_hh": new_like(p.weight_hh)}
    if p.bias_ih is not None:
        gradients["bias_ih"], gradients["bias_hh"] = new_like(p.bias_ih), new_like(p.bias_hh)
    if p.weight_hr is not None:
        gradients["weight_hr"] = new_like(p.weight_hr)
    if p.peephole is not None:
        gradients["peephole"] = new_like(p.peephole)
    add_gate_weight_gradients(call, s, dgates, gradients)
    if dstate is not None:
        add_projection_gradient(call, s, dstate, gradients["weight_hr"])
    if dpeephole is not None:
        add_peephole_gradient(call, s, dpeephole, gradients["peephole"])
    return gradients


# dL/dW_ih = dgates' x, dL/dW_hh = dgates' h, and the biases' column sums. That of b_hh is b_ih's unless the cell is a
# GRU.
cdef int add_gate_weight_gradients(Call call, Saved s, Buffer dgates, dict gradients) except -1:
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
    add_outer_gradient(call, p.table, &o, cell.w_ih.panels, H, cell.units, IN_ORDER, p.gates, gradients["weight_ih"],
                       gradients.get("bias_ih"))
    o.left, o.left_step = s.h.data, state_row(cell, V)
    o.right, o.width, o.depth = dgates.data, cell.w_hh.width, cell.state
    add_outer_gradient(call, p.table, &o, cell.w_hh.panels, H, cell.units, GRU_RECURRENT if gru else IN_ORDER,
                       2 if cell.kind == GRU_BEFORE else p.gates, gradients["weight_hh"],
                       gradients.get("bias_hh") if gru else None)
    if cell.kind == GRU_BEFORE:         # n's rows: from r h, which `extra` holds
        o.left, o.left_step = s.extra.data, units_row(cell, V)
        o.right, o.width = <char*>dgates.data + 2 * vector, 1
        add_outer_gradient(call, p.table, &o, cell.w_hn.panels, H, cell.units, GATE_N, 1, gradients["weight_hh"], None)
    return 0


# dL/dW_hr = dstate' m, where `extra` holds m.
cdef int add_projection_gradient(Call call, Saved s, Buffer dstate, cnp.ndarray weight) except -1:
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize V = p.table.vlen
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.depth, o.width = s.batch.rows, cell.hidden, cell.w_hr.width
    o.left, o.left_step = s.extra.data, units_row(cell, V)
    o.right, o.right_step, o.right_panel = dstate.data, state_row(cell, V), o.width * V
    return add_outer_gradient(call, p.table, &o, cell.w_hr.panels, cell.state, cell.state_units, IN_ORDER, 1, weight,
                              None)


# The rows' sums added up in the rows' order, whichever task computed them: the column sums of a product of depth 0.
cdef int add_peephole_gradient(Call call, Saved s, Buffer dpeephole, cnp.ndarray peephole) except -1:
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize V = p.table.vlen
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.width, o.left = s.batch.N, 3, dpeephole.data
    o.right, o.right_step, o.right_panel = dpeephole.data, 3 * units_row(cell, V), 3 * V
    return add_outer_gradient(call, p.table, &o, cell.units, cell.hidden, cell.units, IN_ORDER, 3,
                              np.empty((3 * cell.hidden, 0), p.dtype), peephole)


# dx [T, N, I] (packed: [rows, I]) of one direction; rows past their length are zero. In processing order, the call
# computes it into `rows`, and take_input_gradient brings it into the caller's; with rows None it computes dx itself.
cdef class _InputGradient:
    cdef cnp.ndarray dx
    cdef Buffer rows


cdef _InputGradient add_input_gradient(Call call, Saved s, Buffer dgates):
    cdef Parameters p = s.parameters
    cdef const packed_cell* cell = &p.cell
    cdef Batch batch = s.batch
    cdef isize V = p.table.vlen, size = p.table.itemsize, i
    cdef isize parts = max(<isize>1, min(call.threads, batch.rows // 16))
    cdef bint ragged = batch.lengths is not None and batch.offset == NULL
    cdef tuple shape = (batch.rows, cell.input)
    cdef _InputGradient gradient = _InputGradient.__new__(_InputGradient)
    cdef product* args = <product*>call.new_args(parts, sizeof(product))
    if batch.offset == NULL:
        shape = (batch.T, batch.N, cell.input)
    gradient.dx = (np.zeros if ragged else np.empty)(shape, p.dtype)
    if ragged or s.reverse:
        gradient.rows = Buffer(batch.rows, cell.input, size)
    for i in range(parts):
        args[i].w = &cell.w_ih_t
        args[i].left = <char*>dgates.data + (V * size if cell.kind == GRU else 0)
        args[i].left_row, args[i].left_outer = cell.deltas * V, batch.rows * cell.deltas * V
        args[i].out = cnp.PyArray_DATA(gradient.dx) if gradient.rows is None else gradient.rows.data
        args[i].out_row = args[i].columns = cell.input
        args[i].m0, args[i].m1 = batch.rows * i // parts, batch.rows * (i + 1) // parts
        args[i].scratch = call.hold(Buffer(max(<isize>1, p.table.plan_multiply(&cell.w_ih_t)), 1, size))
        args[i].poll = &call.poll
        call.add(p.table.multiply, &args[i])
    return gradient


cdef cnp.ndarray take_input_gradient(Call call, _InputGradient gradient, Saved s):
    if gradient.rows is not None:
        exchange_rows(s.batch, gradient.dx, gradient.rows, s.parameters.cell.input, s.reverse, True,
                      &call.poll)
    return gradient.dx
