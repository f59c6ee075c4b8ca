include "kernels.pxi"
include "narrow.pxi"
include "pair_gradients.pxi"
