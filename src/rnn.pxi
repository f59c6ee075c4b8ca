# Plain RNN (Elman 1990):  h_t = tanh or relu (W x + b_ih + W h + b_hh). A panel holds `width` vectors of units.

cdef inline void rnn_cells(run* s, step* t, const vf* acc, isize p, isize Q, isize n, isize R) noexcept nogil:
    cdef isize q, r, u, P = s.c.w_ih.width
    cdef vf h
    for q in range(p, p + Q):
        for r in range(n, n + R):
            for u in range(P):
                h = vtanh(acc[u]) if s.c.kind == RNN_TANH else vrelu(acc[u])
                store_state(s, t, h, q * P + u, r)
                if s.keep:
                    vstore(<real*>s.gates + ((q * s.rows + t.offset + r) * P + u) * VLEN, h)
            acc += P


#     d = dh (1 - h^2),  or dh where h > 0
cdef void rnn_gradients(run* s, step* t, isize j) noexcept nogil:
    cdef isize P = s.c.w_ih.width, n, at, first = ((j // P) * s.rows + t.offset) * P + j % P
    cdef vf h, dh
    for n in range(s.n0, t.active):
        at = (first + n * P) * VLEN
        h = vload(<const real*>s.gates + at)
        dh = take_state_gradient(s, t, j, n)
        vstore(state_gradient(s, n) + j * VLEN, vset(0))
        vstore(<real*>s.dgates + at,
               dh * (vset(1) - h * h) if s.c.kind == RNN_TANH else vrelu_gradient(h, dh))
