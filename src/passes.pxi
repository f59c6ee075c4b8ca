# One layer, all its directions, over a batch: forward, and back.
#
# Each direction reads its rows in processing order: step 0 is where it starts, rows by falling length. Where the
# caller's array lies so already (or reversed: a negative step), the kernel walks it in place; else rows are gathered
# into a packed buffer before and scattered after. What training keeps is always such a buffer.

# How a batch is walked. lengths: int64 [N], falling; order: int64 [N], the caller's row of each; both None: all T.
cdef class Batch:
    cdef readonly isize T, N, rows
    cdef readonly cnp.ndarray lengths, order
    cdef const isize* length
    cdef const isize* row

    def __cinit__(self, isize T, isize N, cnp.ndarray lengths, cnp.ndarray order):
        self.T, self.N, self.lengths, self.order = T, N, lengths, order
        self.rows = T * N
        if lengths is not None:
            self.rows = lengths.sum()
            self.length = <const isize*>cnp.PyArray_DATA(lengths)
            self.row = <const isize*>cnp.PyArray_DATA(order)

    cdef isize first_rows(self) noexcept:
        """Rows that run at step 0."""
        cdef isize n = self.N if self.T > 0 else 0
        while n > 0 and self.length != NULL and self.length[n - 1] == 0:
            n -= 1
        return n

    # Packed rows from [T, N] rows of `size` bytes, or back. Strides of `outside` in bytes.
    cdef void copy(self, char* outside, isize step, isize row, char* packed, isize packed_row, isize size,
                   bint reverse, bint back) noexcept nogil:
        cdef isize t, n, length, running = self.N
        cdef char* at
        for t in range(self.T):
            while self.length != NULL and running > 0 and self.length[running - 1] <= t:
                running -= 1
            for n in range(running):
                length = self.T if self.length == NULL else self.length[n]
                at = outside + (length - 1 - t if reverse else t) * step + (n if self.row == NULL else self.row[n]) * row
                if back:
                    memcpy(at, packed, size)
                else:
                    memcpy(packed, at, size)
                packed += packed_row

    # The caller's [N, size] state to padded rows in processing order, or back.
    cdef void copy_state(self, char* outside, isize row, char* padded, isize padded_row, isize size, bint back) noexcept nogil:
        cdef isize n
        cdef char* at
        for n in range(self.N):
            at = outside + (n if self.row == NULL else self.row[n]) * row
            if back:
                memcpy(at, padded + n * padded_row, size)
            else:
                memcpy(padded + n * padded_row, at, size)

    # Rows where part i of `parts` begins: parts of equal work.
    cdef isize split(self, isize i, isize parts) noexcept:
        cdef isize n, done = 0
        if self.length == NULL:
            return self.N * i // parts
        for n in range(self.N):
            if done * parts >= self.rows * i:
                return n
            done += self.length[n]
        return self.N


# What one direction keeps between forward and backward.
cdef class Saved:
    cdef Parameters parameters
    cdef Batch batch
    cdef Buffer x, h, c, gates, extra, reset
    cdef bint reverse


cdef inline isize units_row(const cell* c, isize vlen) noexcept:
    return c.units * vlen


cdef inline isize state_row(const cell* c, isize vlen) noexcept:
    return c.state_units * vlen


# Threads worth using for so many multiply-adds: a second one pays from some 50 microseconds on.
cdef isize worthwhile(isize threads, double multiply_adds) noexcept:
    return threads if multiply_adds > 2.0e6 else 1


cdef int check(int result) except -1:
    return result       # -1: the poll has set the exception of a signal handler


def forward_layer(list directions, Batch batch, cnp.ndarray x, cnp.ndarray h_0, cnp.ndarray c_0, cnp.ndarray reset,
                  cnp.ndarray y, cnp.ndarray y_c, bint keep, isize threads):
    """Runs a layer: directions [Parameters], x [T, N, I] -> y [T, N, D*S], y_c [T, N, D*H] or None.

    h_0 [D, N, S], c_0 [D, N, H] or None; reset [T, N] bool or None. Rows of x and y are contiguous, other strides
    free; y overlaps no input. Past a row's length y is left as it was. Returns h_n, c_n (None unless LSTM), [Saved].
    """
    cdef isize D = len(directions), N = batch.N, d, i, parts, count = 0, step, row, S, H, V, size, first, scratch
    cdef Parameters p = directions[0]
    cdef cell* c
    cdef Saved s
    cdef Buffer h_n, c_n, packed_y, packed_yc, b
    cdef bint lstm = p.c.kind == LSTM, packed = keep or batch.lengths is not None, gather
    cdef cnp.ndarray out_h, out_c = None
    cdef poll_state poll
    cdef run* r
    cdef run* base
    cdef list saved = [], finals = [], outputs = [], alive = []
    S, H, V, size = p.c.state, p.c.hidden, p.table.vlen, p.table.itemsize
    threads = worthwhile(threads, <double>p.multiply_adds * D * batch.rows)
    parts = max(<isize>1, min((threads + D - 1) // D, N))
    cdef Buffer runs = Buffer(D * parts, sizeof(run), 1, True), tasks = Buffer(D * parts, sizeof(task), 1, True)
    r = <run*>runs.data
    for d in range(D):
        p = directions[d]
        c = &p.c
        s = Saved.__new__(Saved)
        s.parameters, s.batch, s.reverse = p, batch, d == 1
        saved.append(s)
        base = r + d * parts
        base.c, base.T, base.N, base.lengths, base.rows, base.keep = c, batch.T, N, batch.length, batch.rows, keep
        base.poll = &poll

        step, row = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
        if packed:
            s.x = Buffer(batch.rows, c.input, size)
            batch.copy(<char*>cnp.PyArray_DATA(x), step, row, <char*>s.x.data, c.input * size, c.input * size, s.reverse, False)
            base.x, base.x_n, base.x_t = s.x.data, c.input, c.input * N
        else:
            base.x, base.x_n, base.x_t = cnp.PyArray_DATA(x), row // size, step // size
            if s.reverse:
                base.x = <char*>base.x + (batch.T - 1) * step
                base.x_t = -base.x_t
        if reset is not None:
            s.reset = Buffer(batch.rows, 1, 1)
            batch.copy(<char*>cnp.PyArray_DATA(reset), cnp.PyArray_STRIDE(reset, 0), cnp.PyArray_STRIDE(reset, 1),
                       <char*>s.reset.data, 1, 1, s.reverse, False)
            base.reset = <unsigned char*>s.reset.data

        h_n = Buffer(N, state_row(c, V), size, True)
        batch.copy_state(<char*>cnp.PyArray_DATA(h_0) + d * cnp.PyArray_STRIDE(h_0, 0), cnp.PyArray_STRIDE(h_0, 1),
                         <char*>h_n.data, state_row(c, V) * size, S * size, False)
        s.h = Buffer(batch.rows if keep else 2 * N, state_row(c, V), size)
        first = batch.first_rows()
        memcpy(s.h.data, h_n.data, first * state_row(c, V) * size)
        base.h, base.h_n = s.h.data, h_n.data
        c_n = None
        if lstm:
            c_n = Buffer(N, units_row(c, V), size, True)
            batch.copy_state(<char*>cnp.PyArray_DATA(c_0) + d * cnp.PyArray_STRIDE(c_0, 0), cnp.PyArray_STRIDE(c_0, 1),
                             <char*>c_n.data, units_row(c, V) * size, H * size, False)
            s.c = Buffer(batch.rows if keep else N, units_row(c, V), size)
            memcpy(s.c.data, c_n.data, first * units_row(c, V) * size)
            base.c_state, base.c_n = s.c.data, c_n.data
        finals.append((h_n, c_n))
        if keep:
            s.gates = Buffer(batch.rows * c.w_ih.panels, c.saved * V, size)
            base.gates = s.gates.data
        if c.w_hr.data != NULL or c.kind == GRU_BEFORE:
            s.extra = Buffer(batch.rows if keep else N, units_row(c, V), size)
            base.extra = s.extra.data

        packed_y = place_output(batch, y, d, S, size, s.reverse, &base.y, &base.y_t, &base.y_n)
        packed_yc = None
        if y_c is not None:
            packed_yc = place_output(batch, y_c, d, H, size, s.reverse, &base.y_c, &base.yc_t, &base.yc_n)
        outputs.append((packed_y, packed_yc))

        for i in range(parts):
            if i > 0:
                r[d * parts + i] = base[0]
            r[d * parts + i].n0, r[d * parts + i].n1 = batch.split(i, parts), batch.split(i + 1, parts)
        for i in range(parts):
            scratch = p.table.plan(&r[d * parts + i])
            b = Buffer(max(scratch, <isize>1), 1, size)
            alive.append(b)
            r[d * parts + i].scratch = b.data
            (<task*>tasks.data)[count].function = <task_function>p.table.forward
            (<task*>tasks.data)[count].argument = &r[d * parts + i]
            count += 1

    with nogil:
        start_poll(&poll)
        i = run_tasks(<task*>tasks.data, <int>count, <int>threads, &poll)
    check(<int>i)

    out_h = np.empty((D, N, S), p.dtype)
    if lstm:
        out_c = np.empty((D, N, H), p.dtype)
    for d in range(D):
        p = directions[d]
        c = &p.c
        h_n, c_n = finals[d]
        batch.copy_state(<char*>cnp.PyArray_DATA(out_h) + d * N * S * size, S * size,
                         <char*>h_n.data, state_row(c, V) * size, S * size, True)
        if lstm:
            batch.copy_state(<char*>cnp.PyArray_DATA(out_c) + d * N * H * size, H * size,
                             <char*>c_n.data, units_row(c, V) * size, H * size, True)
        packed_y, packed_yc = outputs[d]
        if packed_y is not None:
            take_output(batch, y, d, S, size, d == 1, packed_y)
        if packed_yc is not None:
            take_output(batch, y_c, d, H, size, d == 1, packed_yc)
    return out_h, out_c, saved if keep else None


# Lets the kernel write columns d*S.. of y in place, or into the packed buffer that is returned.
cdef Buffer place_output(Batch batch, cnp.ndarray y, isize d, isize S, isize size, bint reverse,
                         void** out, isize* out_t, isize* out_n):
    cdef Buffer b
    if batch.lengths is not None:
        b = Buffer(batch.rows, S, size)
        out[0], out_n[0], out_t[0] = b.data, S, 0
        return b
    out[0] = <char*>cnp.PyArray_DATA(y) + d * S * size
    out_t[0], out_n[0] = cnp.PyArray_STRIDE(y, 0) // size, cnp.PyArray_STRIDE(y, 1) // size
    if reverse:
        out[0] = <char*>out[0] + (batch.T - 1) * cnp.PyArray_STRIDE(y, 0)
        out_t[0] = -out_t[0]
    return None


cdef void take_output(Batch batch, cnp.ndarray y, isize d, isize S, isize size, bint reverse, Buffer b):
    batch.copy(<char*>cnp.PyArray_DATA(y) + d * S * size, cnp.PyArray_STRIDE(y, 0), cnp.PyArray_STRIDE(y, 1),
               <char*>b.data, S * size, S * size, reverse, True)


def backward_layer(list saved, cnp.ndarray dy, cnp.ndarray dh_n, cnp.ndarray dc_n, isize threads):
    """Gradients of what forward_layer kept: dy [T, N, D*S], dh_n [D, N, S], dc_n [D, N, H] or None.

    Returns dx [T, N, I], dh_0, dc_0, and for each direction a dict of weight_ih, weight_hh, bias_ih, bias_hh,
    weight_hr (those that exist).
    """
    cdef Saved s = saved[0]
    cdef Batch batch = s.batch
    cdef Parameters p = s.parameters
    cdef isize D = len(saved), N = batch.N, T = batch.T, d, i, parts, count = 0, scratch
    cdef isize S = p.c.state, H = p.c.hidden, V = p.table.vlen, size = p.table.itemsize, width
    cdef bint lstm = p.c.kind == LSTM
    cdef cell* c
    cdef Buffer b, dh, dc
    cdef poll_state poll
    cdef run* r
    cdef run* base
    cdef list alive = [], states = [], deltas = [], gradients = []
    cdef cnp.ndarray dx = None, dx_d, out_h, out_c = None
    threads = worthwhile(threads, 2.0 * p.multiply_adds * D * batch.rows)
    parts = max(<isize>1, min((threads + D - 1) // D, N))
    cdef Buffer runs = Buffer(D * parts, sizeof(run), 1, True), tasks = Buffer(D * parts, sizeof(task), 1, True)
    r = <run*>runs.data
    for d in range(D):
        s = saved[d]
        p = s.parameters
        p.transpose()
        c = &p.c
        base = r + d * parts
        base.c, base.T, base.N, base.lengths, base.rows, base.keep = c, T, N, batch.length, batch.rows, True
        base.poll = &poll
        base.h, base.gates = s.h.data, s.gates.data
        base.c_state = s.c.data if lstm else NULL
        base.extra = s.extra.data if s.extra is not None else NULL
        base.reset = <unsigned char*>s.reset.data if s.reset is not None else NULL
        if batch.lengths is None:
            base.dy = <char*>cnp.PyArray_DATA(dy) + d * S * size
            base.dy_t, base.dy_n = cnp.PyArray_STRIDE(dy, 0) // size, cnp.PyArray_STRIDE(dy, 1) // size
            if s.reverse:
                base.dy = <char*>base.dy + (T - 1) * cnp.PyArray_STRIDE(dy, 0)
                base.dy_t = -base.dy_t
        else:
            b = Buffer(batch.rows, S, size)
            alive.append(b)
            batch.copy(<char*>cnp.PyArray_DATA(dy) + d * S * size, cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1),
                       <char*>b.data, S * size, S * size, s.reverse, False)
            base.dy, base.dy_n = b.data, S
        width = c.w_hh_t.panels * c.w_hh_t.width * V
        dh = Buffer(N, width, size, True)
        batch.copy_state(<char*>cnp.PyArray_DATA(dh_n) + d * cnp.PyArray_STRIDE(dh_n, 0), cnp.PyArray_STRIDE(dh_n, 1),
                         <char*>dh.data, width * size, S * size, False)
        dc = None
        if lstm:
            dc = Buffer(N, units_row(c, V), size, True)
            batch.copy_state(<char*>cnp.PyArray_DATA(dc_n) + d * cnp.PyArray_STRIDE(dc_n, 0), cnp.PyArray_STRIDE(dc_n, 1),
                             <char*>dc.data, units_row(c, V) * size, H * size, False)
            base.dc = dc.data
        base.dh = dh.data
        states.append((dh, dc))
        b = Buffer(batch.rows * c.w_ih.panels, c.deltas * V, size)
        base.dgates = b.data
        deltas.append([b, None])
        if c.w_hr.data != NULL:
            b = Buffer(batch.rows, state_row(c, V), size)
            base.dstate = b.data
            deltas[d][1] = b
        for i in range(parts):
            if i > 0:
                r[d * parts + i] = base[0]
            r[d * parts + i].n0, r[d * parts + i].n1 = batch.split(i, parts), batch.split(i + 1, parts)
        for i in range(parts):
            scratch = p.table.plan(&r[d * parts + i])
            b = Buffer(max(scratch, <isize>1), 1, size)
            alive.append(b)
            r[d * parts + i].scratch = b.data
            (<task*>tasks.data)[count].function = <task_function>p.table.backward
            (<task*>tasks.data)[count].argument = &r[d * parts + i]
            count += 1
    with nogil:
        start_poll(&poll)
        i = run_tasks(<task*>tasks.data, <int>count, <int>threads, &poll)
    check(<int>i)

    out_h = np.empty((D, N, S), p.dtype)
    if lstm:
        out_c = np.empty((D, N, H), p.dtype)
    for d in range(D):
        s = saved[d]
        p = s.parameters
        c = &p.c
        dh, dc = states[d]
        width = c.w_hh_t.panels * c.w_hh_t.width * V
        batch.copy_state(<char*>cnp.PyArray_DATA(out_h) + d * N * S * size, S * size,
                         <char*>dh.data, width * size, S * size, True)
        if lstm:
            batch.copy_state(<char*>cnp.PyArray_DATA(out_c) + d * N * H * size, H * size,
                             <char*>dc.data, units_row(c, V) * size, H * size, True)
        gradients.append(parameter_gradients(s, deltas[d][0], deltas[d][1], threads))
        dx_d = input_gradient(s, deltas[d][0], threads)
        dx = dx_d if dx is None else np.add(dx, dx_d, out=dx)
    return dx, out_h, out_c, gradients


# The gradient of one packed matrix and, with `bias`, of the vector added to it; unpacked to torch's layout.
cdef tuple outer_gradient(Parameters p, void* left, isize left_step, isize depth, void* right, isize right_step,
                          isize right_panel, isize panels, isize width, isize rows,
                          isize size, isize units, const int* gate, isize gates,
                          cnp.ndarray weight, cnp.ndarray bias, isize threads):
    cdef isize V = p.table.vlen, i, parts = min(threads, panels)
    cdef Buffer packed = Buffer(panels * width * V, depth, p.table.itemsize)
    cdef Buffer packed_bias = Buffer(panels * width * V, 1, p.table.itemsize)
    cdef Buffer products = Buffer(parts, sizeof(outer_product), 1, True), tasks = Buffer(parts, sizeof(task), 1, True)
    cdef outer_product* o = <outer_product*>products.data
    cdef poll_state poll
    for i in range(parts):
        o[i].left, o[i].left_step, o[i].right, o[i].right_step, o[i].right_panel = left, left_step, right, right_step, right_panel
        o[i].rows, o[i].depth, o[i].width = rows, depth, width
        o[i].p0, o[i].p1 = panels * i // parts, panels * (i + 1) // parts
        o[i].out = packed.data
        o[i].bias = packed_bias.data if bias is not None else NULL
        o[i].poll = &poll
        (<task*>tasks.data)[i].function = <task_function>p.table.accumulate
        (<task*>tasks.data)[i].argument = &o[i]
    with nogil:
        start_poll(&poll)
        i = run_tasks(<task*>tasks.data, <int>parts, <int>parts, &poll)
    check(<int>i)
    p.table.unpack(cnp.PyArray_DATA(weight), packed.data, depth, 1, size, units, gate, gates, width, depth)
    if bias is not None:
        p.table.unpack(cnp.PyArray_DATA(bias), packed_bias.data, 1, 0, size, units, gate, gates, width, 1)
    return weight, bias


cdef dict parameter_gradients(Saved s, Buffer deltas, Buffer dstate, isize threads):
    cdef Parameters p = s.parameters
    cdef cell* c = &p.c
    cdef isize V = p.table.vlen, size = p.table.itemsize, rows = s.batch.rows
    cdef isize H = c.hidden, S = c.state, step = c.deltas * V, panel = rows * step
    cdef isize h_row = state_row(c, V)
    cdef char* right = <char*>deltas.data
    cdef dict g = {"weight_ih": np.empty_like(p.weight_ih), "weight_hh": np.empty_like(p.weight_hh)}
    cdef bint biased = p.bias_ih is not None
    cdef cnp.ndarray b_ih = None, b_hh = None, whole = None
    if biased:
        g["bias_ih"] = b_ih = np.empty_like(p.bias_ih)
        g["bias_hh"] = b_hh = np.empty_like(p.bias_hh)
    outer_gradient(p, s.x.data, c.input, c.input, right + (V * size if c.kind == GRU else 0), step, panel, c.w_ih.panels,
                   c.w_ih.width, rows, H, c.units, IN_ORDER, p.gates, g["weight_ih"], b_ih, threads)
    if c.kind == GRU:
        outer_gradient(p, s.h.data, h_row, S, right, step, panel, c.units, 3, rows, H, c.units,
                       GRU_RECURRENT, 3, g["weight_hh"], b_hh, threads)
    elif c.kind == GRU_BEFORE:
        outer_gradient(p, s.h.data, h_row, S, right, step, panel, c.units, 2, rows, H, c.units,
                       IN_ORDER, 2, g["weight_hh"], None, threads)
        outer_gradient(p, s.extra.data, c.units * V, S, right + 2 * V * size, step, panel, c.units, 1, rows, H, c.units,
                       GATE_N, 1, g["weight_hh"], None, threads)
    else:
        outer_gradient(p, s.h.data, h_row, S, right, step, panel, c.w_ih.panels, c.w_ih.width, rows, H, c.units,
                       IN_ORDER, p.gates, g["weight_hh"], None, threads)
    if biased and c.kind != GRU:
        b_hh[:] = b_ih
    if dstate is not None:
        g["weight_hr"] = np.empty_like(p.weight_hr)
        outer_gradient(p, s.extra.data, c.units * V, H, dstate.data, h_row, c.w_hr.width * V, c.w_hr.panels,
                       c.w_hr.width, rows, S, c.state_units, IN_ORDER, 1, g["weight_hr"], None, threads)
    return g


# dx [T, N, I] of one direction; rows past their length are zero.
cdef cnp.ndarray input_gradient(Saved s, Buffer deltas, isize threads):
    cdef Parameters p = s.parameters
    cdef cell* c = &p.c
    cdef Batch batch = s.batch
    cdef isize V = p.table.vlen, size = p.table.itemsize, i, parts = max(<isize>1, min(threads, batch.rows // 16))
    cdef isize I = c.input, row = I * size
    cdef bint in_place = batch.lengths is None and not s.reverse
    cdef cnp.ndarray dx = np.empty((batch.T, batch.N, I), p.dtype) if in_place else np.zeros((batch.T, batch.N, I), p.dtype)
    cdef Buffer packed = None
    cdef Buffer products = Buffer(parts, sizeof(product), 1, True), tasks = Buffer(parts, sizeof(task), 1, True)
    cdef product* q = <product*>products.data
    cdef poll_state poll
    if not in_place:
        packed = Buffer(batch.rows, I, size)
    for i in range(parts):
        q[i].w = &c.w_ih_t
        q[i].left = <char*>deltas.data + (V * size if c.kind == GRU else 0)
        q[i].left_row, q[i].left_outer = c.deltas * V, batch.rows * c.deltas * V
        q[i].out = cnp.PyArray_DATA(dx) if in_place else packed.data
        q[i].out_row = q[i].columns = I
        q[i].m0, q[i].m1 = batch.rows * i // parts, batch.rows * (i + 1) // parts
        q[i].poll = &poll
        (<task*>tasks.data)[i].function = <task_function>p.table.multiply
        (<task*>tasks.data)[i].argument = &q[i]
    with nogil:
        start_poll(&poll)
        i = run_tasks(<task*>tasks.data, <int>parts, <int>parts, &poll)
    check(<int>i)
    if not in_place:
        batch.copy(<char*>cnp.PyArray_DATA(dx), batch.N * row, row, <char*>packed.data, row, row, s.reverse, True)
    return dx
