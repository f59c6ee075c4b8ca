# Optimizers: one pass over the elements of a parameter, which reads and writes the parameter and its averages once. The
# options of a rule are numbers (update_numbers of kernels.h) whose neutral values switch an option off. Equations as in
# fastrnn/optim.py.
#
# Uses update_rule (structs), load_output, store_output (forward), vfma, vmax, vsqrt, vset (declarations).

cdef void update_sgd(update_rule* u) noexcept nogil:
    cdef isize i
    cdef vf p, g, b, rate = vset(-u.by.rate), decay = vset(u.by.decay)
    cdef vf momentum = vset(u.by.momentum), fresh = vset(u.by.fresh)
    for i in range((u.n + VLEN - 1) // VLEN):
        p = load_output(<const real*>u.p, i, u.n)
        g = vfma(decay, p, load_output(<const real*>u.g, i, u.n))
        if u.first != NULL:
            # b = momentum b + (1 - dampening) g
            b = vfma(momentum, load_output(<const real*>u.first, i, u.n), fresh * g)
            store_output(<real*>u.first, b, i, u.n)
            g = vfma(momentum, b, g) if u.by.nesterov else b
        # p = p - lr g
        store_output(<real*>u.out, vfma(rate, g, p), i, u.n)


cdef void update_rmsprop(update_rule* u) noexcept nogil:
    cdef isize i
    cdef vf p, g, v, m, root, rate = vset(-u.by.rate), decay = vset(u.by.decay), momentum = vset(u.by.momentum)
    cdef vf fresh = vset(u.by.fresh_square), eps = vset(u.by.eps)
    for i in range((u.n + VLEN - 1) // VLEN):
        p = load_output(<const real*>u.p, i, u.n)
        g = vfma(decay, p, load_output(<const real*>u.g, i, u.n))
        # v = alpha v + (1 - alpha) g^2
        v = load_output(<const real*>u.second, i, u.n)
        v = vfma(fresh, vfma(g, g, -v), v)
        store_output(<real*>u.second, v, i, u.n)
        if u.third != NULL:
            # centered: m = alpha m + (1 - alpha) g, and v - m^2, which rounding may take below 0
            m = load_output(<const real*>u.third, i, u.n)
            m = vfma(fresh, g - m, m)
            store_output(<real*>u.third, m, i, u.n)
            v = vmax(vset(0), vfma(-m, m, v))
        root = vsqrt(v) + eps
        g = g / root
        if u.first != NULL:
            g = vfma(momentum, load_output(<const real*>u.first, i, u.n), g)
            store_output(<real*>u.first, g, i, u.n)
        store_output(<real*>u.out, vfma(rate, g, p), i, u.n)


cdef void update_adam(update_rule* u) noexcept nogil:
    cdef isize i
    cdef vf p, g, m, v, rate = vset(-u.by.rate), decay = vset(u.by.decay), shrink = vset(u.by.shrink)
    cdef vf fresh = vset(u.by.fresh), fresh_square = vset(u.by.fresh_square)
    cdef vf eps = vset(u.by.eps), scale = vset(u.by.scale)
    for i in range((u.n + VLEN - 1) // VLEN):
        p = load_output(<const real*>u.p, i, u.n)
        g = vfma(decay, p, load_output(<const real*>u.g, i, u.n))
        # m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
        m = load_output(<const real*>u.first, i, u.n)
        v = load_output(<const real*>u.second, i, u.n)
        m = vfma(fresh, g - m, m)
        v = vfma(fresh_square, vfma(g, g, -v), v)
        store_output(<real*>u.first, m, i, u.n)
        store_output(<real*>u.second, v, i, u.n)
        # p = shrink p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
        store_output(<real*>u.out, vfma(rate, m / vfma(vsqrt(v), scale, eps), p * shrink), i, u.n)


cdef int update(void* argument) noexcept nogil:
    cdef update_rule* u = <update_rule*>argument
    if u.rule == SGD:
        update_sgd(u)
    elif u.rule == RMSPROP:
        update_rmsprop(u)
    else:
        update_adam(u)
    return 0


# The sum of squares, summed in double for float32 too: for norms of gradients.
cdef double squares(const void* data, isize n) noexcept nogil:
    cdef const real* x = <const real*>data
    cdef double[8] total
    cdef isize i, j
    for j in range(8):
        total[j] = 0
    for i in range(n // 8):
        for j in range(8):
            total[j] += <double>x[j] * <double>x[j]
        x += 8
    for j in range(n % 8):
        total[j] += <double>x[j] * <double>x[j]
    return ((total[0] + total[1]) + (total[2] + total[3])) + ((total[4] + total[5]) + (total[6] + total[7]))
