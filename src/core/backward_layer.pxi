# One layer backward over what forward_layer saved: buffers, then the tasks, then the results in the caller's order.
#
# Uses Buffer (buffers), Parameters, units_row, state_row, state_gradient_row (parameters), Batch, in_place,
# exchange_rows, exchange_state (batch), Call, Saved, set_run, split, best_split, worthwhile (calls),
# MOST_PRODUCTS, add_parameter_gradients, add_input_gradient, take_input_gradient (gradients), backward_args (structs).

# Multiply-adds of a call up to which the products after a pass of one thread are left to that thread: the others sleep
# by then, and waking them takes as long as they would save.
cdef double LEAST_PRODUCTS = 8.0e6


# One direction of a call: the gradients that its pass computes.
cdef class _Backward:
    cdef Saved saved
    cdef Buffer dh, dc               # [N] padded rows: dL/dh_n, later dL/dh_0; dc: LSTM, else None
    cdef Buffer dgates               # of every gate, in packed rows
    cdef Buffer dstate               # projection: dL/dh in packed rows, else None
    cdef Buffer dpeephole            # each row's sum over its steps, or None


def backward_layer(list saved, cnp.ndarray dy, cnp.ndarray dh_n, cnp.ndarray dc_n, isize threads,
                   bint need_input=True, bint need_parameters=True, bint need_states=True):
    """Compute the gradients of a loss L by back-propagation through time.

    Packed: dy is [rows, D*S], and dx [rows, I].

    Parameters
    ----------
    saved : list of Saved
        What ``forward_layer`` returned with keep.
    dy : ndarray, [T, N, D*S]
        dL/dy. Its last axis is contiguous.
    dh_n : ndarray, [D, N, S], or None
        dL/dh_n. None: zeros.
    dc_n : ndarray, [D, N, H], or None
        dL/dc_n of an LSTM. None: zeros.
    threads : int
        The most threads.
    need_input : bool, default True
        Whether dL/dx is computed.
    need_parameters : bool, default True
        Whether the parameters' gradients are computed.
    need_states : bool, default True
        Whether dL/dh_0 and dL/dc_0 are wanted.

    Returns
    -------
    dx : ndarray, [T, N, I], or None
        None without need_input.
    dh_0 : ndarray, [D, N, S], or None
        None without need_states.
    dc_0 : ndarray, [D, N, H], or None
        Of an LSTM. None without need_states.
    gradients : list of dict
        For each direction the gradients of weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole, those that it
        has; empty without need_parameters.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C was pressed; or whatever else a signal handler raises.
    """
    cdef Saved first = saved[0]
    cdef Batch batch = first.batch
    cdef isize D = len(saved), d, tasks
    cdef double work
    cdef split s
    cdef _Backward direction
    cdef backward_args* args
    cdef list directions = []
    work = 2.0 * first.parameters.multiply_adds * D * batch.rows
    threads = worthwhile(threads, work)
    for d in range(D):
        (<Saved>saved[d]).parameters.transpose(need_input)
    s = best_split(batch, first.parameters, threads, D, True)
    tasks = s.rows * s.team
    cdef Call call = Call(D * tasks, threads)
    args = <backward_args*>call.new_args(D * tasks, sizeof(backward_args))
    for d in range(D):
        direction = _Backward.__new__(_Backward)
        direction.saved = saved[d]
        directions.append(direction)
        set_run(&args.run, direction.saved, True)
        place_saved(args, direction.saved)
        place_output_gradient(args, direction, call, d, dy)
        place_gradients(args, direction, d, dh_n, dc_n)
        call.add_backward(args, s, batch, direction.saved.parameters)
        args += tasks
    call.go()
    if D * tasks == 1 and work < LEAST_PRODUCTS:
        threads = 1
    dh_0, dc_0 = unpack_state_gradients(directions, batch) if need_states else (None, None)
    dx, gradients = unpack_gradients(directions, call, threads, need_input, need_parameters)
    return dx, dh_0, dc_0, gradients


cdef void place_saved(backward_args* args, Saved saved) noexcept:
    args.run.h, args.run.gates = saved.h.data, saved.gates.data
    args.run.c = saved.c.data if saved.c is not None else NULL
    args.run.extra = saved.extra.data if saved.extra is not None else NULL
    args.run.reset = <unsigned char*>saved.reset.data if saved.reset is not None else NULL


# This direction's columns of dy, where the caller has them unless the batch is packed and walked in reverse.
cdef int place_output_gradient(backward_args* args, _Backward direction, Call call, isize d,
                               cnp.ndarray dy) except -1:
    cdef Batch batch = direction.saved.batch
    cdef isize S = args.run.cell.state
    cdef bint reverse = direction.saved.reverse
    cdef Buffer rows
    if args.run.packed and reverse:
        rows = Buffer(batch.rows, S, cnp.PyArray_ITEMSIZE(dy))
        exchange_rows(batch, dy[:, d * S:(d + 1) * S], rows, S, True, False, &call.poll)
        args.dy, args.dy_n = call.hold(rows), S
    else:
        call.buffers.append(in_place(batch, dy, d * S, reverse, <void**>&args.dy, &args.dy_t, &args.dy_n,
                                     &args.dy_rows))
    return 0


# The final states' gradients in padded rows, and memory for what the pass computes.
cdef int place_gradients(backward_args* args, _Backward direction, isize d, cnp.ndarray dh_n,
                         cnp.ndarray dc_n) except -1:
    cdef Batch batch = direction.saved.batch
    cdef const packed_cell* cell = args.run.cell
    cdef kernel_table* table = direction.saved.parameters.table
    cdef isize V = table.vlen, size = table.itemsize, dh_row = state_gradient_row(cell, V)
    direction.dh = Buffer(batch.N, dh_row, size, True)
    if dh_n is not None:
        exchange_state(batch, dh_n, d, direction.dh, dh_row, False)
    args.dh = direction.dh.data
    if cell.kind == LSTM:
        direction.dc = Buffer(batch.N, units_row(cell, V), size, True)
        if dc_n is not None:
            exchange_state(batch, dc_n, d, direction.dc, units_row(cell, V), False)
        args.dc = direction.dc.data
    direction.dgates = Buffer(batch.rows * cell.w_ih.panels, cell.deltas * V, size)
    args.dgates = direction.dgates.data
    if cell.w_hr.data != NULL:
        direction.dstate = Buffer(batch.rows, state_row(cell, V), size)
        args.dstate = direction.dstate.data
    if cell.peephole != NULL:
        direction.dpeephole = Buffer(batch.N, 3 * units_row(cell, V), size, True)
        args.dpeephole = direction.dpeephole.data
    return 0


# dL/dh_0 [D, N, S] and, of an LSTM, dL/dc_0 [D, N, H].
cdef tuple unpack_state_gradients(list directions, Batch batch):
    cdef _Backward direction = directions[0]
    cdef Parameters p = direction.saved.parameters
    cdef const packed_cell* cell
    cdef isize D = len(directions), V = p.table.vlen, d
    cdef cnp.ndarray dh_0 = new_states(p, D, batch.N, p.cell.state), dc_0 = None
    if p.cell.kind == LSTM:
        dc_0 = new_states(p, D, batch.N, p.cell.hidden)
    for d in range(D):
        direction = directions[d]
        cell = &direction.saved.parameters.cell
        exchange_state(batch, dh_0, d, direction.dh, state_gradient_row(cell, V), True)
        if dc_0 is not None:
            exchange_state(batch, dc_0, d, direction.dc, units_row(cell, V), True)
    return dh_0, dc_0


# dL/dx, summed over the directions, and each direction's parameter gradients.
cdef tuple unpack_gradients(list directions, Call earlier, isize threads, bint need_input, bint need_parameters):
    cdef _Backward direction
    cdef cnp.ndarray dx = None, part
    cdef dict gradient
    cdef isize d
    cdef list gradients = [], inputs = []
    cdef Call call = Call(MOST_PRODUCTS * threads * len(directions), threads)
    call.follow(earlier)
    for direction in directions:
        gradients.append(add_parameter_gradients(call, direction.saved, direction.dgates, direction.dstate,
                                                 direction.dpeephole) if need_parameters else {})
        if need_input:
            inputs.append(add_input_gradient(call, direction.saved, direction.dgates))
    call.go()
    for d, direction in enumerate(directions):
        gradient = gradients[d]
        if "bias_hh" in gradient and direction.saved.parameters.cell.kind != GRU:
            part = gradient["bias_hh"]
            memcpy(cnp.PyArray_DATA(part), cnp.PyArray_DATA(<cnp.ndarray>gradient["bias_ih"]), cnp.PyArray_NBYTES(part))
        if not need_input:
            continue
        part = take_input_gradient(call, inputs[d], direction.saved)
        if dx is None:
            dx = part
        else:
            with np.errstate(all="ignore"):
                dx += part
    return dx, gradients
