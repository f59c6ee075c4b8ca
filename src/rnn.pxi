# Plain RNN (Elman 1990):  h_t = f(W x + b_ih + W h + b_hh), f = tanh, relu, or any. A panel holds `width` vectors of
# units. What is kept for the gradient: h_t, or with options the sum itself.

cdef inline void rnn_cells(run* s, step* t, const vf* acc, isize p, isize Q, isize n, isize R,
                           const bint plain) noexcept nogil:
    cdef isize q, r, u, P = s.c.w_ih.width
    cdef vf h
    for q in range(p, p + Q):
        for r in range(n, n + R):
            for u in range(P):
                if plain:
                    h = vtanh(acc[u]) if s.c.kind == RNN_TANH else vrelu(acc[u])
                else:
                    h = vactivate(&s.c.f, acc[u], s.c.clip)
                store_state(s, t, h, q * P + u, r)
                if s.keep:
                    vstore(<real*>s.gates + ((q * s.rows + t.offset + r) * P + u) * VLEN, h if plain else acc[u])
            acc += P


#     d = dh (1 - h^2),  dh where h > 0,  or dh f'(sum)
cdef void rnn_gradients(run* s, step* t, isize j) noexcept nogil:
    cdef isize P = s.c.w_ih.width, n, at, first = ((j // P) * s.rows + t.offset) * P + j % P
    cdef vf kept, dh
    for n in range(s.n0, t.active):
        at = (first + n * P) * VLEN
        kept = vload(<const real*>s.gates + at)
        dh = take_state_gradient(s, t, j, n)
        vstore(state_gradient(s, n) + j * VLEN, vset(0))
        if not s.c.plain:
            dh = dh * vslope(&s.c.f, kept, s.c.clip)
        elif s.c.kind == RNN_TANH:
            dh = dh * (vset(1) - kept * kept)
        else:
            dh = vrelu_gradient(kept, dh)
        vstore(<real*>s.dgates + at, dh)
