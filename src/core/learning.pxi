# What an optimizer needs of the kernels: one update of all parameters, and the norm of all gradients.
#
# Uses Call (calls), table_of (_core), update_rule, update_numbers (structs).

RULES = {"sgd": SGD, "rmsprop": RMSPROP, "adam": ADAM}


# The address of element i of a flat array, or NULL for None.
cdef void* element(cnp.ndarray a, isize i) noexcept:
    return NULL if a is None else cnp.PyArray_BYTES(a) + i * cnp.PyArray_ITEMSIZE(a)


# Without a GIL, a lock sees to it that attributes which are set together are looked at together.
cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    static PyMutex attributes_mutex = {0};
    #define lock_attributes() PyMutex_Lock(&attributes_mutex)
    #define unlock_attributes() PyMutex_Unlock(&attributes_mutex)
    #else
    #define lock_attributes() ((void)0)
    #define unlock_attributes() ((void)0)
    #endif
    """
    void lock_attributes()
    void unlock_attributes()


def attributes(list owners not None, str name not None):
    """Look at an attribute of several objects, without a moment in between at which ``set_attributes`` could set them.

    Parameters
    ----------
    owners : list of object
        Each keeps the attribute in its ``__dict__``.
    name : str
        The attribute.

    Returns
    -------
    list
        Its value of each.
    """
    cdef list values = []
    lock_attributes()
    try:
        for owner in owners:
            values.append(getattr(owner, name))
    finally:
        unlock_attributes()
    return values


def set_attributes(list attributes not None):
    """Set attributes of several objects, without a moment in between at which a signal handler could raise.

    Handlers run between two instructions of Python code, of which there is none here, since all objects keep these
    attributes in their ``__dict__``.

    Parameters
    ----------
    attributes : list of (object, str, value)
        What is set: of which object, which attribute, to what.
    """
    cdef list before = [None] * len(attributes)     # kept until the end: a finalizer may come back here
    lock_attributes()
    try:
        for i, (owner, name, value) in enumerate(attributes):
            before[i] = getattr(owner, name, None)
            setattr(owner, name, value)
    finally:
        unlock_attributes()


def update_parameters(capsule, str rule, cnp.ndarray out, list values, list gradients, list kept, dict numbers,
                      list attributes not None):
    """Compute new parameters by one step of an optimizer, and put them in place.

    What the optimizer keeps changes, and then the attributes do: a signal handler runs before all that or after it.

    All arrays are contiguous and of the capsule's dtype; out overlaps none of the others.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table of an instruction set and dtype.
    rule : str
        A key of ``RULES``.
    out : ndarray, [n]
        Written: the new parameters, flat, one after the other.
    values : list of ndarray
        The parameters, of n elements in all.
    gradients : list of ndarray
        Shaped as the parameters.
    kept : list of ndarray, [n], or None
        update_rule's first, second, third (kernels.h): updated in place. None where the rule has none.
    numbers : dict
        Every field of update_numbers (kernels.h).
    attributes : list of (object, str, value)
        Set at the end, as by ``set_attributes``.
    """
    cdef kernel_table* table = table_of(capsule)
    cdef update_numbers by = numbers
    cdef isize i, done = 0
    cdef Call call = Call(len(values), 1)           # runs on the calling thread; not interruptible
    cdef update_rule* u = <update_rule*>call.new_args(len(values), sizeof(update_rule))
    cdef cnp.ndarray value, gradient
    for i in range(len(values)):
        value, gradient = values[i], gradients[i]
        u[i].rule, u[i].by, u[i].n = RULES[rule], by, cnp.PyArray_SIZE(value)
        u[i].p, u[i].g, u[i].out = cnp.PyArray_DATA(value), cnp.PyArray_DATA(gradient), element(out, done)
        u[i].first, u[i].second, u[i].third = element(kept[0], done), element(kept[1], done), element(kept[2], done)
        call.add(table.update, &u[i])
        done += u[i].n
    call.go()
    set_attributes(attributes)


def sum_of_squares(capsule, cnp.ndarray a):
    """Sum the squares of an array's elements, in float64.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table of an instruction set and dtype.
    a : ndarray
        Contiguous, of the table's dtype.

    Returns
    -------
    float
    """
    cdef kernel_table* table = table_of(capsule)
    cdef double total
    with nogil:
        total = table.squares(cnp.PyArray_DATA(a), cnp.PyArray_SIZE(a))
    return total
