# What an optimizer asks of the kernels: one update of all parameters, and the norm of all gradients.

RULES = {"sgd": SGD, "rmsprop": RMSPROP, "adam": ADAM}


cdef void* element(cnp.ndarray a, isize i) noexcept:
    return NULL if a is None else cnp.PyArray_BYTES(a) + i * cnp.PyArray_ITEMSIZE(a)


def update_parameters(capsule, str rule, cnp.ndarray out, list values, list gradients, list kept, dict numbers):
    """Writes new parameters to `out`, flat: those of `values` (arrays that fill it, one after the other) by a rule.

    gradients: shaped as values. kept: update_rule's first, second, third, flat as out, or None; they are updated.
    numbers: every field of update_numbers. All arrays contiguous, of the capsule's dtype; out overlaps none.
    """
    cdef kernel_table* table = table_of(capsule)
    cdef update_numbers by = numbers
    cdef isize i, done = 0
    cdef Call call = Call(len(values), 1)           # on this thread: nothing looks for signals, nothing stops half way
    cdef update_rule* u = <update_rule*>call.hold(Buffer(len(values), sizeof(update_rule), 1, True))
    cdef cnp.ndarray value, gradient
    for i in range(len(values)):
        value, gradient = values[i], gradients[i]
        u[i].rule, u[i].by, u[i].n = RULES[rule], by, cnp.PyArray_SIZE(value)
        u[i].p, u[i].g, u[i].out = cnp.PyArray_DATA(value), cnp.PyArray_DATA(gradient), element(out, done)
        u[i].first, u[i].second, u[i].third = element(kept[0], done), element(kept[1], done), element(kept[2], done)
        call.add(<task_function>table.update, &u[i])
        done += u[i].n
    call.go()


def sum_of_squares(capsule, cnp.ndarray a):
    """Of a contiguous array, summed in float64."""
    cdef kernel_table* table = table_of(capsule)
    cdef double total
    with nogil:
        total = table.squares(cnp.PyArray_DATA(a), cnp.PyArray_SIZE(a))
    return total
