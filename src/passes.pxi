# One layer, all its directions, over a batch: forward, and back.

cdef inline isize units_row(const cell* c, isize vlen) noexcept:
    return c.units * vlen


cdef inline isize state_row(const cell* c, isize vlen) noexcept:
    return c.state_units * vlen


cdef inline isize state_gradient_row(const cell* c, isize vlen) noexcept:
    return c.w_hh_t.panels * c.w_hh_t.width * vlen


# Threads worth using for so many multiply-adds: a second one pays from some 50 microseconds on.
cdef isize worthwhile(isize threads, double multiply_adds) noexcept:
    return threads if multiply_adds > 2.0e6 else 1


# The tasks of one call, the memory they work in, and the poll they share.
cdef class Call:
    cdef list buffers
    cdef task* tasks
    cdef int count
    cdef isize threads
    cdef poll_state poll

    def __cinit__(self, isize capacity, isize threads):
        cdef Buffer b = Buffer(capacity, sizeof(task), 1, True)
        self.buffers = [b]
        self.tasks = <task*>b.data
        self.threads = threads

    cdef void* hold(self, Buffer b):
        self.buffers.append(b)
        return b.data

    cdef void add(self, task_function function, void* argument) noexcept:
        self.tasks[self.count].function = function
        self.tasks[self.count].argument = argument
        self.count += 1

    # Adds one pass split by rows; r[0] is prepared, r[1..parts-1] are filled from it.
    cdef int add_rows(self, run* r, isize parts, Batch batch, Parameters p, task_function function) except -1:
        cdef isize i
        r.poll = &self.poll
        if batch.rows == 0:
            return 0
        for i in range(1, parts):
            r[i] = r[0]
        for i in range(parts):
            r[i].n0, r[i].n1 = batch.split(i, parts), batch.split(i + 1, parts)
            r[i].scratch = self.hold(Buffer(max(<isize>1, p.table.plan(&r[i])), 1, p.table.itemsize))
            self.add(function, &r[i])
        return 0

    cdef int go(self) except -1:
        cdef int result
        with nogil:
            start_poll(&self.poll)
            result = run_tasks(self.tasks, self.count, <int>self.threads, &self.poll)
        return result       # -1: the poll has set the exception of a signal handler


# ---- Forward ------------------------------------------------------------------------------------

def forward_layer(list directions, Batch batch, cnp.ndarray x, cnp.ndarray h_0, cnp.ndarray c_0, cnp.ndarray reset,
                  cnp.ndarray y, cnp.ndarray y_c, bint keep, isize threads, bint reverse=False,
                  bint borrow=False):
    """Runs a layer: directions [Parameters], x [T, N, I] -> y [T, N, D*S], y_c [T, N, D*H] or None.

    Direction 1 walks backwards; with `reverse` so does direction 0. A packed batch has x [rows, I] and y [rows, D*S],
    no reset and no y_c. borrow: with `keep`, x itself may be kept, not a copy; nobody changes it then.

    h_0 [D, N, S], c_0 [D, N, H] or None; reset [T, N] bool or None. Rows of x and y are contiguous, other strides
    free; y overlaps no input. Past a row's length outputs are zeroed. Returns h_n, c_n (None unless LSTM), and with
    `keep` what backward_layer needs.
    """
    cdef isize D = len(directions), N = batch.N, d, parts, first
    cdef Parameters p = directions[0]
    cdef isize S = p.c.state, H = p.c.hidden, V = p.table.vlen, size = p.table.itemsize
    cdef bint lstm = p.c.kind == LSTM, ragged = batch.lengths is not None
    cdef const cell* c
    cdef Saved s
    cdef Buffer h_n, c_n, held
    cdef Call call
    cdef run* runs
    cdef run* r
    cdef list saved = [], finals = [], outputs = []
    threads = worthwhile(threads, <double>p.multiply_adds * D * batch.rows)
    parts = max(<isize>1, min((threads + D - 1) // D, N))
    call = Call(D * parts, threads)
    runs = <run*>call.hold(Buffer(D * parts, sizeof(run), 1, True))
    for d in range(D):
        p = directions[d]
        c = &p.c
        r = runs + d * parts
        s = Saved.__new__(Saved)
        s.parameters, s.batch, s.reverse = p, batch, d == 1 or reverse
        saved.append(s)
        r.c, r.T, r.N, r.lengths, r.rows, r.keep = c, batch.T, N, batch.length, batch.rows, keep
        r.packed = batch.offset != NULL

        if r.packed and not s.reverse and (borrow or not keep) or keep and borrow and not s.reverse and not ragged \
                and cnp.PyArray_STRIDE(x, 0) == N * cnp.PyArray_STRIDE(x, 1):
            s.x = x
            r.x, r.x_n = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0 if r.packed else 1) // size
            r.x_t = r.x_n * N
        elif keep or ragged:
            s.x = held = Buffer(batch.rows, c.input, size)
            exchange_rows(batch, x, held, c.input, s.reverse, False)
            r.x, r.x_n, r.x_t = held.data, c.input, c.input * N
        else:
            in_place(batch, x, 0, s.reverse, <void**>&r.x, &r.x_t, &r.x_n, NULL)
        s.x_data, s.x_step = r.x, r.x_n
        if reset is not None:
            s.reset = Buffer(batch.rows, 1, 1)
            exchange_rows(batch, reset, s.reset, 1, s.reverse, False)
            r.reset = <unsigned char*>s.reset.data

        first = batch.first_rows()
        h_n = Buffer(N, state_row(c, V), size, True)
        exchange_state(batch, h_0, d, h_n, state_row(c, V), False)
        s.h = Buffer(batch.rows if keep else 2 * N, state_row(c, V), size)
        memcpy(s.h.data, h_n.data, first * state_row(c, V) * size)
        r.h, r.h_n = s.h.data, h_n.data
        c_n = None
        if lstm:
            c_n = Buffer(N, units_row(c, V), size, True)
            exchange_state(batch, c_0, d, c_n, units_row(c, V), False)
            s.c = Buffer(batch.rows if keep else N, units_row(c, V), size)
            memcpy(s.c.data, c_n.data, first * units_row(c, V) * size)
            r.c_state, r.c_n = s.c.data, c_n.data
        if keep:
            s.gates = Buffer(batch.rows * c.w_ih.panels, c.saved * V, size)
            r.gates = s.gates.data
        if c.w_hr.data != NULL or c.kind == GRU_BEFORE:
            s.extra = Buffer(batch.rows if keep else N, units_row(c, V), size)
            r.extra = s.extra.data

        if r.packed and s.reverse:
            held = Buffer(batch.rows, S, size)
            r.y, r.y_n = held.data, S
            outputs.append((y[:, d * S:(d + 1) * S], held))
        else:
            call.buffers.append(in_place(batch, y, d * S, s.reverse, &r.y, &r.y_t, &r.y_n, &r.y_rows))
        batch.clear_past(y, d * S, S)
        if y_c is not None:
            call.buffers.append(in_place(batch, y_c, d * H, s.reverse, &r.y_c, &r.yc_t, &r.yc_n, &r.yc_rows))
            batch.clear_past(y_c, d * H, H)
        finals.append((h_n, c_n))
        call.add_rows(r, parts, batch, p, <task_function>p.table.forward)
    call.go()

    for part, held in outputs:
        exchange_rows(batch, part, held, S, True, True)
    cdef cnp.ndarray out_h = np.empty((D, N, S), p.dtype), out_c = np.empty((D, N, H), p.dtype) if lstm else None
    for d in range(D):
        c = &(<Parameters>directions[d]).c
        h_n, c_n = finals[d]
        exchange_state(batch, out_h, d, h_n, state_row(c, V), True)
        if lstm:
            exchange_state(batch, out_c, d, c_n, units_row(c, V), True)
    return out_h, out_c, saved if keep else None


# ---- Backward -----------------------------------------------------------------------------------

def backward_layer(list saved, cnp.ndarray dy, cnp.ndarray dh_n, cnp.ndarray dc_n, isize threads,
                   bint need_input=True, bint need_parameters=True):
    """Gradients of what forward_layer kept: dy [T, N, D*S], dh_n [D, N, S], dc_n [D, N, H] or None.

    Returns dx [T, N, I] (None without need_input), dh_0, dc_0, and for each direction a dict of weight_ih, weight_hh,
    bias_ih, bias_hh, weight_hr, peephole (those that exist; empty without need_parameters). Packed: dy [rows, D*S],
    dx [rows, I].
    """
    cdef Saved s = saved[0]
    cdef Batch batch = s.batch
    cdef Parameters p = s.parameters
    cdef isize D = len(saved), N = batch.N, d, parts
    cdef isize S = p.c.state, H = p.c.hidden, V = p.table.vlen, size = p.table.itemsize
    cdef bint lstm = p.c.kind == LSTM
    cdef const cell* c
    cdef Buffer dh, dc, dgates, dstate, dpeephole, held
    cdef Call call
    cdef run* runs
    cdef run* r
    cdef list results = [], gradients = []
    cdef cnp.ndarray dx = None, part
    threads = worthwhile(threads, 2.0 * p.multiply_adds * D * batch.rows)
    parts = max(<isize>1, min((threads + D - 1) // D, N))
    call = Call(D * parts, threads)
    runs = <run*>call.hold(Buffer(D * parts, sizeof(run), 1, True))
    for d in range(D):
        s = saved[d]
        p = s.parameters
        p.transpose(need_input)
        c = &p.c
        r = runs + d * parts
        r.c, r.T, r.N, r.lengths, r.rows, r.keep = c, batch.T, N, batch.length, batch.rows, True
        r.h, r.gates = s.h.data, s.gates.data
        r.c_state = s.c.data if lstm else NULL
        r.extra = s.extra.data if s.extra is not None else NULL
        r.reset = <unsigned char*>s.reset.data if s.reset is not None else NULL
        r.packed = batch.offset != NULL
        if r.packed and s.reverse:
            held = Buffer(batch.rows, S, size)
            exchange_rows(batch, dy[:, d * S:(d + 1) * S], held, S, True, False)
            r.dy, r.dy_n = call.hold(held), S
        else:
            call.buffers.append(in_place(batch, dy, d * S, s.reverse, <void**>&r.dy, &r.dy_t, &r.dy_n, &r.dy_rows))
        dh = Buffer(N, state_gradient_row(c, V), size, True)
        exchange_state(batch, dh_n, d, dh, state_gradient_row(c, V), False)
        r.dh = dh.data
        dc = None
        if lstm:
            dc = Buffer(N, units_row(c, V), size, True)
            exchange_state(batch, dc_n, d, dc, units_row(c, V), False)
            r.dc = dc.data
        dgates = Buffer(batch.rows * c.w_ih.panels, c.deltas * V, size)
        r.dgates = dgates.data
        dstate = None
        if c.w_hr.data != NULL:
            dstate = Buffer(batch.rows, state_row(c, V), size)
            r.dstate = dstate.data
        dpeephole = None
        if c.peephole != NULL:
            dpeephole = Buffer(N, 3 * units_row(c, V), size, True)
            r.dpeephole = dpeephole.data
        results.append((dh, dc, dgates, dstate, dpeephole))
        call.add_rows(r, parts, batch, p, <task_function>p.table.backward)
    call.go()

    cdef cnp.ndarray out_h = np.empty((D, N, S), p.dtype), out_c = np.empty((D, N, H), p.dtype) if lstm else None
    for d in range(D):
        s = saved[d]
        c = &s.parameters.c
        dh, dc, dgates, dstate, dpeephole = results[d]
        exchange_state(batch, out_h, d, dh, state_gradient_row(c, V), True)
        if lstm:
            exchange_state(batch, out_c, d, dc, units_row(c, V), True)
        gradients.append(parameter_gradients(s, dgates, dstate, dpeephole, threads) if need_parameters else {})
        if not need_input:
            continue
        part = input_gradient(s, dgates, threads)
        if dx is None:
            dx = part
        else:
            with np.errstate(all="ignore"):
                dx += part
    return dx, out_h, out_c, gradients


# dL/dW of a packed matrix of `gates` gates, and the sum of `right` over rows for a bias, in torch's layout. `left`
# holds what the matrix was multiplied with, rows left_step apart; `right` the gradients of its outputs.
cdef int outer_gradient(kernel_table* table, const void* left, isize left_step, const outer_product* o, isize panels,
                        isize size, isize units, const int* gate, isize gates, cnp.ndarray weight, cnp.ndarray bias,
                        isize threads) except -1:
    cdef isize i, V = table.vlen, parts = min(threads, panels)
    cdef Buffer packed = Buffer(panels * o.width * V, o.depth, table.itemsize)
    cdef Buffer packed_bias = Buffer(panels * o.width * V, 1, table.itemsize)
    cdef Call call = Call(parts, parts)
    cdef outer_product* part = <outer_product*>call.hold(Buffer(parts, sizeof(outer_product), 1, True))
    for i in range(parts):
        part[i] = o[0]
        part[i].left, part[i].left_step = left, left_step
        part[i].p0, part[i].p1 = panels * i // parts, panels * (i + 1) // parts
        part[i].out, part[i].bias = packed.data, packed_bias.data if bias is not None else NULL
        part[i].poll = &call.poll
        call.add(<task_function>table.accumulate, &part[i])
    call.go()
    with nogil:
        table.unpack(cnp.PyArray_DATA(weight), packed.data, o.depth, 1, size, units, gate, gates, o.width, o.depth)
    if bias is not None:
        table.unpack(cnp.PyArray_DATA(bias), packed_bias.data, 1, 0, size, units, gate, gates, o.width, 1)
    return 0


cdef dict parameter_gradients(Saved s, Buffer dgates, Buffer dstate, Buffer dpeephole, isize threads):
    cdef Parameters p = s.parameters
    cdef const cell* c = &p.c
    cdef isize V = p.table.vlen, vector = V * p.table.itemsize, H = c.hidden, h_row = state_row(c, V)
    cdef dict g = {name: np.empty_like(getattr(p, name))
                   for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")
                   if getattr(p, name) is not None}
    cdef bint gru = c.kind == GRU
    cdef outer_product o
    memset(&o, 0, sizeof(outer_product))
    o.rows, o.right_step = s.batch.rows, c.deltas * V
    o.right_panel = o.rows * o.right_step
    # GRU keeps d(W_hn h), dr, dz, dn of a unit: the input's part takes the last three, the recurrent part the first
    o.right, o.width, o.depth = <char*>dgates.data + (vector if gru else 0), c.w_ih.width, c.input
    outer_gradient(p.table, s.x_data, s.x_step, &o, c.w_ih.panels, H, c.units, IN_ORDER, p.gates, g["weight_ih"],
                   g.get("bias_ih"), threads)
    o.right, o.width, o.depth = dgates.data, c.w_hh.width, c.state
    outer_gradient(p.table, s.h.data, h_row, &o, c.w_hh.panels, H, c.units, GRU_RECURRENT if gru else IN_ORDER,
                   2 if c.kind == GRU_BEFORE else p.gates, g["weight_hh"], g.get("bias_hh") if gru else None, threads)
    if c.kind == GRU_BEFORE:
        o.right, o.width = <char*>dgates.data + 2 * vector, 1
        outer_gradient(p.table, s.extra.data, units_row(c, V), &o, c.w_hn.panels, H, c.units, GATE_N, 1,
                       g["weight_hh"], None, threads)
    if "bias_hh" in g and not gru:
        g["bias_hh"][:] = g["bias_ih"]
    if dstate is not None:
        o.right, o.right_step, o.width, o.depth = dstate.data, h_row, c.w_hr.width, H
        o.right_panel = o.width * V
        outer_gradient(p.table, s.extra.data, units_row(c, V), &o, c.w_hr.panels, c.state, c.state_units, IN_ORDER, 1,
                       g["weight_hr"], None, threads)
    if dpeephole is not None:       # rows in order, whoever computed them: the column sums of a product of depth 0
        o.rows, o.right, o.right_step, o.width, o.depth = s.batch.N, dpeephole.data, 3 * units_row(c, V), 3, 0
        o.right_panel = 3 * V
        outer_gradient(p.table, dpeephole.data, 0, &o, c.units, H, c.units, IN_ORDER, 3, np.empty((3 * H, 0), p.dtype),
                       g["peephole"], threads)
    return g


# dx [T, N, I] (packed: [rows, I]) of one direction; rows past their length are zero.
cdef cnp.ndarray input_gradient(Saved s, Buffer dgates, isize threads):
    cdef Parameters p = s.parameters
    cdef const cell* c = &p.c
    cdef Batch batch = s.batch
    cdef isize V = p.table.vlen, size = p.table.itemsize, i, parts = max(<isize>1, min(threads, batch.rows // 16))
    cdef bint ragged = batch.lengths is not None and batch.offset == NULL, direct = not (ragged or s.reverse)
    cdef tuple shape = (batch.rows, c.input)
    if batch.offset == NULL:
        shape = (batch.T, batch.N, c.input)
    cdef cnp.ndarray dx = (np.zeros if ragged else np.empty)(shape, p.dtype)
    cdef Buffer packed = None if direct else Buffer(batch.rows, c.input, size)
    cdef Call call = Call(parts, parts)
    cdef product* part = <product*>call.hold(Buffer(parts, sizeof(product), 1, True))
    for i in range(parts):
        part[i].w = &c.w_ih_t
        part[i].left = <char*>dgates.data + (V * size if c.kind == GRU else 0)
        part[i].left_row, part[i].left_outer = c.deltas * V, batch.rows * c.deltas * V
        part[i].out = cnp.PyArray_DATA(dx) if direct else packed.data
        part[i].out_row = part[i].columns = c.input
        part[i].m0, part[i].m1 = batch.rows * i // parts, batch.rows * (i + 1) // parts
        part[i].poll = &call.poll
        call.add(<task_function>p.table.multiply, &part[i])
    call.go()
    if not direct:
        exchange_rows(batch, dx, packed, c.input, s.reverse, True)
    return dx
