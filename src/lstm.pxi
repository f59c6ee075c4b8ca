# LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000; gates in torch's order i, f, g, o):
#
#     i, f, o = sigmoid(W x + b_ih + W h + b_hh)      g = tanh(...)
#     c_t = f c_{t-1} + i g                           m_t = o tanh(c_t)        h_t = m_t, or W_hr m_t

cdef inline void lstm_cells(run* s, step* t, const vf* acc, isize p, isize Q, isize n, isize R) noexcept nogil:
    cdef isize j, q, r, row = s.c.units * VLEN
    cdef vf i_rest, f, g, o_rest, c, m
    cdef real* saved
    for q in range(Q):
        j = p + q
        for r in range(n, n + R):
            i_rest = vsigmoid_rest(acc[0])      # 1 - i
            f = vsigmoid(acc[1])
            g = vtanh(acc[2])
            o_rest = vsigmoid_rest(acc[3])      # 1 - o
            acc += 4
            c = vfma(f, vload(t.c + r * row + j * VLEN), vfma(-i_rest, g, g))
            m = vtanh(c)
            m = vfma(-o_rest, m, m)
            vstore((t.c_next if r < t.next_active else <real*>s.c_n) + r * row + j * VLEN, c)
            if s.y_c != NULL:
                store_output(t.y_c + row_offset(s.yc_rows, r, s.yc_n), c, j, s.c.hidden)
            if s.keep:
                saved = <real*>s.gates + (j * s.rows + t.offset + r) * 4 * VLEN
                vstore(saved, vset(1) - i_rest)
                vstore(saved + VLEN, f)
                vstore(saved + 2 * VLEN, g)
                vstore(saved + 3 * VLEN, vset(1) - o_rest)
            if s.c.w_hr.data != NULL:
                vstore(extra_row(s, t, r) + j * VLEN, m)
            else:
                store_state(s, t, m, j, r)


# With the sum of all that flows into m_t and c_t:
#
#     do = dm tanh(c) o (1-o)       dc += dm o (1 - tanh(c)^2)      dc_{t-1} = dc f
#     di = dc g i (1-i)             df = dc c_{t-1} f (1-f)         dg = dc i (1 - g^2)
cdef void lstm_gradients(run* s, step* t, isize j, const real* dm_rows, isize dm_row) noexcept nogil:
    cdef isize n, at, row = s.c.units * VLEN
    cdef bint projected = s.c.w_hr.data != NULL
    cdef vf one = vset(1)
    cdef vf i, f, g, o, c_old, tanh_c, dm, dc
    cdef const real* saved
    cdef real* dc_at
    cdef real* out
    for n in range(s.n0, t.active):
        at = (j * s.rows + t.offset + n) * 4 * VLEN
        saved = <const real*>s.gates + at
        out = <real*>s.dgates + at
        i = vload(saved)
        f = vload(saved + VLEN)
        g = vload(saved + 2 * VLEN)
        o = vload(saved + 3 * VLEN)
        c_old = vload(<const real*>s.c_state + (t.offset + n) * row + j * VLEN)
        tanh_c = vtanh(vfma(f, c_old, i * g))
        if projected:
            dm = vload(dm_rows + n * dm_row + j * VLEN)
        else:
            dm = take_state_gradient(s, t, j, n)
            vstore(state_gradient(s, n) + j * VLEN, vset(0))
        dc_at = <real*>s.dc + n * row + j * VLEN
        dc = vfma(dm * o, one - tanh_c * tanh_c, vload(dc_at))
        vstore(dc_at, dc * f)
        vstore(out, dc * g * i * (one - i))
        vstore(out + VLEN, dc * c_old * f * (one - f))
        vstore(out + 2 * VLEN, dc * i * (one - g * g))
        vstore(out + 3 * VLEN, dm * tanh_c * o * (one - o))
