/* The activations that a cell with options may have (those of ONNX's RNN operators), and their slopes.
 *
 * Called once a vector, never inlined: the code of a cell stays small, and no constants of theirs take registers near
 * the tile. A NaN stays a NaN. Sums beyond +-clip count as +-clip, and have slope 0.
 */
#ifndef FASTRNN_ACTIVATIONS_H
#define FASTRNN_ACTIVATIONS_H

#include "kernels.h"
#include "simd.h"

#if defined(__GNUC__) || defined(__clang__)
#define CALLED static __attribute__((noinline, unused))
#else
#define CALLED static
#endif

FN vf vclip(vf a, double clip) { return vmax(vset((real)-clip), vmin(vset((real)clip), a)); }
FN vf vabs(vf a) { return as_real(as_bits(a) & ~as_bits(vset(REAL(-0.0)))); }

/* exp(a) - 1 for a <= 0. */
FN vf vexpm1_negative(vf a)
{
    exp_parts e = vexp_parts(vmax(vset(-87), a), 1);
    return vfma(e.p, e.s, e.s - vset(1));
}

/* ln(1 + exp(a)) = max(a, 0) + ln(1 + u), u = exp(-|a|); ln(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3, by its
 * series 2 (s + s^3/3 + s^5/5 + ...), whose terms fall by 9 each. */
FN vf vsoftplus(vf a)
{
    const vf least = vset(sizeof(real) == 4 ? -87 : -700);      /* exp(least) is a normal number */
    exp_parts e = vexp_parts(vmax(least, -vabs(a)), 1);
    vf u = vfma(e.p, e.s, e.s);
    vf s = u / (u + vset(2)), s2 = s * s;
    enum { TERMS = sizeof(real) == 4 ? 8 : 17 };
    vf sum = vset(REAL(1.0) / (2 * TERMS - 1));
    for (int k = TERMS - 2; k >= 0; k--) sum = vfma(sum, s2, vset(REAL(1.0) / (2 * k + 1)));
    return vmax(vset(0), a) + vif_less(a, least, vset(0), s * (sum + sum));
}

/* f(a). */
CALLED vf vactivate(const activation *f, vf a, double clip)
{
    vf alpha = vset((real)f->alpha), beta = vset((real)f->beta), y;
    a = vclip(a, clip);
    switch (f->function) {
    case SIGMOID: return vsigmoid_small(a);
    case TANH: return vtanh(a);
    case RELU: return vrelu(a);
    case AFFINE: return vfma(alpha, a, beta);
    case LEAKY_RELU: return vif_less(a, vset(0), alpha * a, a);
    case THRESHOLDED_RELU: y = vclip(a, LARGEST); return vif_less(alpha, a, a, y - y);     /* else 0, but NaN for NaN */
    case SCALED_TANH: return alpha * vtanh(beta * a);
    case HARD_SIGMOID: return vmax(vset(0), vmin(vset(1), vfma(alpha, a, beta)));
    case ELU: return vif_less(a, vset(0), alpha * vexpm1_negative(a), a);
    case SOFTSIGN: a = vclip(a, LARGEST); return a / (vabs(a) + vset(1));
    default: return vsoftplus(a);
    }
}

/* f'(a). Where f has a corner: the slope on its left, as in PyTorch. */
CALLED vf vslope(const activation *f, vf a, double clip)
{
    vf alpha = vset((real)f->alpha), beta = vset((real)f->beta), one = vset(1), zero = vset(0), d, y;
    vf outside = vabs(a);
    a = vclip(a, clip);
    switch (f->function) {
    case SIGMOID: y = vsigmoid_small(a); d = y * (one - y); break;
    case TANH: y = vtanh(a); d = one - y * y; break;
    case RELU: d = vif_less(zero, a, one, zero); break;
    case AFFINE: d = alpha; break;
    case LEAKY_RELU: d = vif_less(zero, a, one, alpha); break;
    case THRESHOLDED_RELU: d = vif_less(alpha, a, one, zero); break;
    case SCALED_TANH: y = vtanh(beta * a); d = alpha * beta * (one - y * y); break;
    case HARD_SIGMOID: y = vfma(alpha, a, beta); d = vif_less(zero, y, vif_less(y, one, alpha, zero), zero); break;
    case ELU: d = vif_less(zero, a, one, vfma(alpha, vexpm1_negative(a), alpha)); break;
    case SOFTSIGN: y = one / (vabs(a) + one); d = y * y; break;
    default: d = vsigmoid_small(a); break;
    }
    return vif_less(vset((real)clip), outside, zero, d);
}

#endif
