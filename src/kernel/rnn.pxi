# Plain RNN (Elman 1990):  h_t = f(W x + b_ih + W h + b_hh), f = tanh, relu, or with options any activation. A panel
# holds `width` vectors of units. Forward saves h_t for the gradient, or with options the sum itself.
#
# Uses forward_args, backward_args (structs), step, saved_row, store_state (forward), take_state_gradient,
# state_gradient (backward), vrelu, vactivate, vslope (declarations).

cdef inline void rnn_cells(forward_args* args, step* t, const vf* acc, isize p, isize Q, isize n, isize R,
                           const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize q, r, u, P = cell.w_ih.width
    cdef vf h
    for q in range(p, p + Q):
        for r in range(n, n + R):
            for u in range(min(P, cell.w_ih.vectors - q * P)):
                if plain:
                    h = vtanh(acc[u]) if cell.kind == RNN_TANH else vrelu(acc[u])
                else:
                    h = vactivate(&cell.f, acc[u], cell.clip)
                store_state(args, t, h, q * P + u, r)
                if run.keep:
                    vstore(<real*>run.gates + saved_row(run, t, q, r, P) + u * VLEN, h if plain else acc[u])
            acc += P


#     d = dh (1 - h^2),  dh where h > 0,  or dh f'(sum)
cdef void rnn_gradients(backward_args* args, step* t, isize j, isize n0, isize n1) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize P = cell.w_ih.width, n, at
    cdef vf saved, dh
    for n in range(n0, n1):
        at = saved_row(run, t, j // P, n, P) + j % P * VLEN
        saved = vload(<const real*>run.gates + at)
        dh = take_state_gradient(args, t, j, n)
        vstore(state_gradient(args, n) + j * VLEN, vset(0))
        if not cell.plain:
            dh = dh * vslope(&cell.f, saved, cell.clip)
        elif cell.kind == RNN_TANH:
            dh = dh * (vset(1) - saved * saved)
        else:
            dh = vrelu_gradient(saved, dh)
        vstore(<real*>args.dgates + at, dh)
