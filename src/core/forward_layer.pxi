# One layer, all its directions, over a batch: buffers, then the tasks, then the results in the caller's order.
#
# Uses Buffer (buffers), Parameters, units_row, state_row (parameters), Batch, in_place, exchange_rows, exchange_state
# (batch), Call, Saved, set_run, split, best_split, worthwhile (calls), forward_args (structs).

# A new array [D, N, width] of the parameters' dtype.
cdef cnp.ndarray new_states(Parameters p, isize D, isize N, isize width):
    cdef cnp.npy_intp[3] shape
    shape[0], shape[1], shape[2] = D, N, width
    return cnp.PyArray_EMPTY(3, shape, cnp.NPY_FLOAT32 if p.table.itemsize == 4 else cnp.NPY_FLOAT64, 0)


# One direction of a call: what it saves, and what is unpacked after it.
cdef class _Forward:
    cdef Saved saved
    cdef Buffer h_n, c_n             # [N] padded rows: the initial state, later the final one; c_n: LSTM, else None
    cdef Buffer y                    # packed and reversed: y in packed rows in processing order; else None


def forward_layer(list directions, Batch batch, cnp.ndarray x, cnp.ndarray h_0, cnp.ndarray c_0, cnp.ndarray reset,
                  cnp.ndarray y, cnp.ndarray y_c, bint keep, isize threads, bint reverse=False,
                  bint borrow=False):
    """Run a layer forward.

    The arrays' last axis is contiguous, other strides are free; y and y_c overlap no input. A packed batch has x
    [rows, I] and y [rows, D*S], no reset and no y_c.

    Parameters
    ----------
    directions : list of Parameters
        One, or two: then the second runs backwards in time.
    batch : Batch
        How the rows are ordered.
    x : ndarray, [T, N, I]
    h_0 : ndarray, [D, N, S], or None
        None: zeros.
    c_0 : ndarray, [D, N, H], or None
        Of an LSTM. None: zeros.
    reset : ndarray of bool, [T, N], or None
        Where a row starts its step from a zero state.
    y : ndarray, [T, N, D*S]
        Written: h of every step; zero past a row's length.
    y_c : ndarray, [T, N, D*H], or None
        Written: c of every step.
    keep : bool
        Whether to save what ``backward_layer`` needs.
    threads : int
        The most threads.
    reverse : bool, default False
        Whether the first direction runs backwards in time.
    borrow : bool, default False
        With keep: x itself may be saved instead of a copy, because nobody will change it.

    Returns
    -------
    h_n : ndarray, [D, N, S]
    c_n : ndarray, [D, N, H], or None
        Of an LSTM.
    saved : list of Saved, or None
        With keep.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C was pressed; or whatever else a signal handler raises.
    """
    cdef isize D = len(directions), d, tasks
    cdef split s
    cdef Parameters p = directions[0]
    cdef _Forward direction
    cdef forward_args* args
    threads = worthwhile(threads, <double>p.multiply_adds * D * batch.rows)
    s = best_split(batch, p, threads, D, False)
    tasks = s.rows * s.team
    cdef Call call = Call(D * tasks, threads)
    cdef list forwards = []
    args = <forward_args*>call.new_args(D * tasks, sizeof(forward_args))
    for d in range(D):
        direction = new_forward(directions[d], batch, d == 1 or reverse)
        forwards.append(direction)
        set_run(&args.run, direction.saved, keep)
        place_input(args, direction.saved, call, x, reset, borrow)
        place_states(args, direction, d, h_0, c_0)
        place_outputs(args, direction, call, d, y, y_c)
        call.add_forward(args, s, batch, direction.saved.parameters)
        args += tasks
    call.go()
    return unpack_forward(forwards, batch, call, y, keep)


cdef _Forward new_forward(Parameters p, Batch batch, bint reverse):
    cdef _Forward direction = _Forward.__new__(_Forward)
    cdef Saved saved = Saved.__new__(Saved)
    direction.saved = saved
    saved.parameters, saved.batch, saved.reverse = p, batch, reverse
    return direction


# x where the caller has it, if it may stay there, else its rows in processing order; and the mask in that order.
cdef int place_input(forward_args* args, Saved saved, Call call, cnp.ndarray x, cnp.ndarray reset,
                     bint borrow) except -1:
    cdef Batch batch = saved.batch
    cdef isize I = args.run.cell.input, size = cnp.PyArray_ITEMSIZE(x)
    cdef bint packed = args.run.packed, keep = args.run.keep
    cdef Buffer rows
    cdef bint as_it_is = False       # x's rows are, or stand like, packed rows in processing order
    if not saved.reverse and (borrow or not keep):
        as_it_is = packed or (keep and batch.lengths is None
                              and cnp.PyArray_STRIDE(x, 0) == batch.N * cnp.PyArray_STRIDE(x, 1))
    if as_it_is:
        saved.x = x
        args.x, args.x_n = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0 if packed else 1) // size
        args.x_t = args.x_n * batch.N
    elif keep or batch.lengths is not None:
        saved.x = rows = Buffer(batch.rows, I, size)
        exchange_rows(batch, x, rows, I, saved.reverse, False, &call.poll)
        args.x, args.x_n, args.x_t = rows.data, I, I * batch.N
    else:
        in_place(batch, x, 0, saved.reverse, <void**>&args.x, &args.x_t, &args.x_n, NULL)
    saved.x_data, saved.x_step = args.x, args.x_n
    if reset is not None:
        saved.reset = Buffer(batch.rows, 1, 1)
        exchange_rows(batch, reset, saved.reset, 1, saved.reverse, False, &call.poll)
        args.run.reset = <unsigned char*>saved.reset.data
    return 0


# The initial state in padded rows, the states of each step, and what is saved of the gates.
cdef int place_states(forward_args* args, _Forward direction, isize d, cnp.ndarray h_0, cnp.ndarray c_0) except -1:
    cdef Saved saved = direction.saved
    cdef Batch batch = saved.batch
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize V = saved.parameters.table.vlen, size = saved.parameters.table.itemsize, N = batch.N
    cdef isize first = batch.first_rows(), h_row = state_row(cell, V), c_row = units_row(cell, V)
    direction.h_n = Buffer(N, h_row, size, True)
    if h_0 is not None:
        exchange_state(batch, h_0, d, direction.h_n, h_row, False)
    saved.h = Buffer(batch.rows if run.keep else 2 * N, h_row, size)
    memcpy(saved.h.data, direction.h_n.data, first * h_row * size)
    run.h, args.h_n = saved.h.data, direction.h_n.data
    if cell.kind == LSTM:
        direction.c_n = Buffer(N, c_row, size, True)
        if c_0 is not None:
            exchange_state(batch, c_0, d, direction.c_n, c_row, False)
        saved.c = Buffer(batch.rows if run.keep else N, c_row, size)
        memcpy(saved.c.data, direction.c_n.data, first * c_row * size)
        run.c, args.c_n = saved.c.data, direction.c_n.data
    if run.keep:
        saved.gates = Buffer(batch.rows * cell.w_ih.panels, cell.saved * V, size)
        run.gates = saved.gates.data
    if cell.w_hr.data != NULL or cell.kind == GRU_BEFORE:
        saved.extra = Buffer(batch.rows if run.keep else N, c_row, size)
        run.extra = saved.extra.data
    return 0


# This direction's columns of y and y_c, where the caller has them unless the batch is packed and walked in reverse.
cdef int place_outputs(forward_args* args, _Forward direction, Call call, isize d, cnp.ndarray y,
                       cnp.ndarray y_c) except -1:
    cdef Batch batch = direction.saved.batch
    cdef isize S = args.run.cell.state, H = args.run.cell.hidden
    cdef bint reverse = direction.saved.reverse
    if args.run.packed and reverse:
        direction.y = Buffer(batch.rows, S, cnp.PyArray_ITEMSIZE(y))
        args.y, args.y_n = direction.y.data, S
    else:
        call.buffers.append(in_place(batch, y, d * S, reverse, &args.y, &args.y_t, &args.y_n, &args.y_rows))
    batch.clear_past(y, d * S, S, &call.poll)
    if y_c is not None:
        call.buffers.append(in_place(batch, y_c, d * H, reverse, &args.y_c, &args.yc_t, &args.yc_n, &args.yc_rows))
        batch.clear_past(y_c, d * H, H, &call.poll)
    return 0


# The results in the caller's order.
cdef tuple unpack_forward(list forwards, Batch batch, Call call, cnp.ndarray y, bint keep):
    cdef _Forward direction = forwards[0]
    cdef Parameters p = direction.saved.parameters
    cdef const packed_cell* cell = &p.cell
    cdef isize D = len(forwards), S = cell.state, V = p.table.vlen, d
    cdef cnp.ndarray h_n = new_states(p, D, batch.N, S), c_n = None
    cdef list saved = []
    if cell.kind == LSTM:
        c_n = new_states(p, D, batch.N, cell.hidden)
    for d in range(D):
        direction = forwards[d]
        saved.append(direction.saved)
        if direction.y is not None:
            exchange_rows(batch, y[:, d * S:(d + 1) * S], direction.y, S, True, True, &call.poll)
        exchange_state(batch, h_n, d, direction.h_n, state_row(cell, V), True)
        if c_n is not None:
            exchange_state(batch, c_n, d, direction.c_n, units_row(cell, V), True)
    return h_n, c_n, saved if keep else None
