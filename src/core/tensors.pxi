# What fastrnn.pytorch does in every call, compiled: in a call of few rows that is most of the time. Tensors are asked
# for what they are by their attributes and methods; nothing of torch is imported here.
#
# Uses Batch (batch), Parameters (parameters).

# The tensor's memory as an array.
cdef cnp.ndarray tensor_array(object tensor):
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


# The array, or a copy that the kernels can walk: aligned, its last axis contiguous.
cdef cnp.ndarray walkable(cnp.ndarray a):
    cdef int i, axes = cnp.PyArray_NDIM(a)
    cdef isize size = cnp.PyArray_ITEMSIZE(a)
    cdef bint as_it_is = cnp.PyArray_ISALIGNED(a)
    if cnp.PyArray_ISCARRAY_RO(a):
        return a
    if cnp.PyArray_DIM(a, axes - 1) > 1 and cnp.PyArray_STRIDE(a, axes - 1) != size:
        as_it_is = False
    for i in range(axes):
        if cnp.PyArray_STRIDE(a, i) % size:
            as_it_is = False
    return a if as_it_is else np.array(a, order="C", copy=True)


cdef class Pass:
    """One layer over one batch: everything about the call but its tensors.

    The kernels see views of the caller's arrays: sequences [T, N, width], or [rows, width] where a PackedSequence has
    rows of different lengths, and states [D, N, width].

    Parameters
    ----------
    packs : list of Parameters
        One for each direction.
    batch : Batch
        How the rows are ordered.
    ragged : bool
        Whether x and output are packed rows.
    hidden : int or None
        Width of a cell state; None unless LSTM.
    rows, state_rows : tuple of int
        The shapes of the output and of a state, without their last axes.
    x_swapped, y_swapped : bool
        Whether x is [N, T, I], and the output [N, T, D*S].
    threads : int
        The most threads.
    reset : ndarray of bool, [T, N], or None
        Where a row starts its step from a zero state.

    Attributes
    ----------
    width : int
        Of the output, D*S. The arguments are attributes, too.
    """

    cdef readonly list packs
    cdef readonly Batch batch
    cdef readonly tuple rows, state_rows
    cdef readonly object hidden, reset
    cdef readonly bint ragged, x_swapped, y_swapped
    cdef readonly isize threads, width

    def __cinit__(self, list packs, Batch batch not None, bint ragged, hidden, tuple rows, tuple state_rows,
                  bint x_swapped, bint y_swapped, isize threads, reset=None):
        cdef Parameters p = packs[0]
        self.packs, self.batch, self.ragged, self.hidden = packs, batch, ragged, hidden
        self.rows, self.state_rows, self.x_swapped, self.y_swapped = rows, state_rows, x_swapped, y_swapped
        self.threads, self.reset, self.width = threads, reset, len(packs) * p.cell.state

    # The caller's sequence as the kernels take it; a copy only where its last axis is strided. None: zeros, as wide as
    # the output.
    cdef cnp.ndarray sequence(self, object tensor, bint swapped):
        cdef cnp.ndarray a
        if tensor is None:
            a = np.zeros(self.width, self.packs[0].dtype)
            if self.ragged:
                return np.broadcast_to(a, (self.batch.rows, self.width))
            return np.broadcast_to(a, (self.batch.T, self.batch.N, self.width))
        a = tensor_array(tensor)
        if self.ragged:
            return walkable(a)
        if swapped:
            a = a.swapaxes(0, 1)
        elif cnp.PyArray_NDIM(a) != 3:
            a = a.reshape(self.batch.T, self.batch.N, cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1))
        return walkable(a)

    # A state as the kernels take it; None, which means zeros, for None.
    cdef cnp.ndarray state(self, object tensor):
        cdef cnp.ndarray a
        if tensor is None:
            return None
        a = tensor_array(tensor)
        if cnp.PyArray_NDIM(a) != 3:
            a = a.reshape(len(self.packs), self.batch.N, cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1))
        return a if cnp.PyArray_ISCARRAY_RO(a) else np.array(a, order="C", copy=True)

    def arrays(self, sequence, h, c, bint of_output):
        """Give the arrays of a sequence and two states as ``forward_layer`` and ``backward_layer`` take them.

        Parameters
        ----------
        sequence : torch.Tensor or None
            x, or the output or its gradient. None: a gradient of zeros.
        h, c : torch.Tensor or None
            States or their gradients.
        of_output : bool
            Whether the sequence is laid out as the output is.

        Returns
        -------
        tuple of ndarray
            The sequence and the states, None for None.
        """
        return (self.sequence(sequence, self.y_swapped if of_output else self.x_swapped), self.state(h),
                self.state(c) if self.hidden is not None else None)


def plain_tensors(tensors, tuple classes, dict dtypes, strided):
    """Tell whether all are tensors in memory of one dtype that the kernels have.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        None is passed over, but may not come first.
    classes : tuple of type
        The classes that they may be of.
    dtypes : dict
        Its keys are the dtypes that they may have.
    strided : torch.layout
        The layout that they must have.

    Returns
    -------
    bool
    """
    cdef object dtype = getattr(tensors[0], "dtype", None)
    if dtype not in dtypes:
        return False
    for t in tensors:
        if t is not None and not (type(t) in classes and t.dtype is dtype and t.is_cpu and t.layout is strided
                                  and not t.is_neg()):
            return False
    return True


def same_tensors(tensors, others, places):
    """Tell whether tensors are these others, contiguous, with their memory where it was.

    Parameters
    ----------
    tensors, others : sequence of torch.Tensor or None
    places : list of int or None
        Where the memory of each was.

    Returns
    -------
    bool
    """
    cdef isize i, count = len(others)
    if count != len(tensors):
        return False
    for i in range(count):
        t = tensors[i]
        if t is not others[i] or (t is not None and (t.data_ptr() != places[i] or not t.is_contiguous())):
            return False
    return True


def any_requires_grad(tensors):
    """Tell whether any of the tensors requires a gradient.

    Parameters
    ----------
    tensors : sequence of torch.Tensor or None

    Returns
    -------
    bool
    """
    for t in tensors:
        if t is not None and t.requires_grad:
            return True
    return False
