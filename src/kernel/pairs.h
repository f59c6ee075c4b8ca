/* bfloat16 products on the vector of simd.h, summed in float32.
 *
 *   vi            VLEN pairs of bfloat16 numbers: the first in the upper half of 32 bits, the second in the lower half
 *   load_pairs    pairs of weights, aligned
 *   spread_pair   one pair of a row, for every output
 *   add_pairs     sums + first * first, then + second * second, each rounded once (HAS_PAIRS and `fast` alone)
 *   first_number second_number
 *                 the numbers of pairs, as floats
 *   round_half    rounds floats to bfloat16
 *   store_pairs store_two_pairs
 *                 the same, and store VLEN, or twice VLEN numbers as half as many pairs (HAS_PAIRS alone)
 *
 * A bfloat16 number is the upper half of a float32's bits, so the product of two is exact in float32. Rounding is to
 * nearest, ties to even. Finite numbers stay finite: beyond the largest they are the largest. NaN and infinity stay what
 * they are, and subnormal numbers are zero.
 *
 * vdpbf16ps adds the products of the upper halves first. So with the first number in the upper half, a sum takes its k
 * in order, as one FMA after another does: every instruction set has the same sums, and these are the sums of the
 * float32 tile on rounded numbers.
 *
 * ARM's bfdot and bfmmla are not used: they add the two products of a pair before they add the sum, or round to odd, so
 * that their sums would have other bits. Weights are widened there, and every product is added by an FMA of its own.
 * bfmlalb and bfmlalt, which are such FMAs, would save no more than the widening of the weights.
 */
#ifndef FASTRNN_PAIRS_H
#define FASTRNN_PAIRS_H

#include "simd.h"

FN vi vi_set(bits b)
{
#if FASTRNN_ISA == 0
    return b;
#else
    return b - (vi){0};
#endif
}

FN vi vi_greater(vi a, vi b)
{
#if FASTRNN_ISA == 0
    return -(vi)(a > b);
#else
    return (vi)(a > b);
#endif
}

FN vi vi_select(vi mask, vi yes, vi no) { return (yes & mask) | (no & ~mask); }

FN vf first_number(vi pairs)
{
#if FASTRNN_ISA == 2        /* two shifts, kept apart: a mask would take a register that the tile does not have */
    __m256i upper = _mm256_srli_epi32((__m256i)pairs, 16);
    __asm__("" : "+x"(upper));
    return (vf)_mm256_slli_epi32(upper, 16);
#else
    return as_real(pairs & vi_set((bits)0xffff0000u));
#endif
}

FN vf second_number(vi pairs)
{
#if FASTRNN_ISA == 0
    return as_real((vi)((uint32_t)pairs << 16));
#else
    return as_real(pairs << 16);
#endif
}

FN vi load_pairs(const uint16_t *p)
{
#if FASTRNN_ISA == 0
    vi pair;
    memcpy(&pair, p, sizeof pair);
    return pair;
#else
    return *(const vi *)p;
#endif
}

FN vf round_half(vf v)
{
    vi all = as_bits(v), sign = all & as_bits(vset(REAL(-0.0))), a = all ^ sign;
    vi largest = vi_set(0x7f7f0000), limited = vi_select(vi_greater(a, largest), largest, a);
    vi rounded = limited + vi_set(0x7fff) + ((limited >> 16) & vi_set(1));
    vi normal = vi_greater(a, vi_set(0x007fffff)), nan = vi_greater(a, vi_set(0x7f800000));
    rounded = vi_select(vi_greater(a, vi_set(0x7f7fffff)), a | (nan & vi_set(0x00400000)), rounded);
    return as_real((rounded & normal & vi_set((bits)0xffff0000u)) | sign);
}

#if FASTRNN_ISA == 3
enum { HAS_PAIRS = 1 };

FN vi spread_pair(const signed char *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (vi)_mm512_set1_epi32(pair);
}

/* The instructions are written out so that one module serves CPUs with and without them: which one this is, is asked
 * when the module is loaded (machine.h). */
FN vf add_pairs(vf acc, vi w, vi x)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
}

FN void store_pairs(signed char *p, vf v)
{
    __m512 x = (__m512)v, a = _mm512_abs_ps(x);
    __m256i halves;
    __mmask16 beyond = _mm512_cmp_ps_mask(a, _mm512_set1_ps(0x1.fep127f), _CMP_GT_OQ);
    beyond = _mm512_mask_cmp_ps_mask(beyond, a, _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
    x = _mm512_mask_and_ps(x, beyond, x, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000u)));
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(x));
    _mm256_storeu_si256((__m256i *)p, _mm256_rol_epi32(halves, 16));
}

/* The same of two vectors, a and then b. */
FN void store_two_pairs(signed char *p, vf a, vf b)
{
    const __m512 larger = _mm512_range_ps((__m512)a, (__m512)b, 0xb);           /* max(|a|, |b|) */
    __m512i halves;
    if (_mm512_cmp_ps_mask(larger, _mm512_set1_ps(0x1.fep127f), _CMP_GT_OQ)) {
        store_pairs(p, a);
        store_pairs(p + 2 * VLEN, b);
        return;
    }
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(b), "v"(a));
    _mm512_storeu_si512(p, _mm512_rol_epi32(halves, 16));
}

#else
enum { HAS_PAIRS = 0 };
FN void store_two_pairs(signed char *p, vf a, vf b) { (void)p, (void)a, (void)b; }
FN vi spread_pair(const signed char *p) { (void)p; return vi_set(0); }
FN vf add_pairs(vf acc, vi w, vi x) { (void)w, (void)x; return acc; }
FN void store_pairs(signed char *p, vf v) { (void)p, (void)v; }
#endif

/* ---- Operands of gradients: the pairs of two vectors. Numbers beyond the largest bfloat16 become infinite. ---------- */

/* Lane l: the pair of a[l] and b[l]. */
FN vf pair_lanes(vf a, vf b, const int fast)
{
#if FASTRNN_ISA == 3
    if (fast) {
        const __m512i order = _mm512_set_epi32(0xf001f, 0xe001e, 0xd001d, 0xc001c, 0xb001b, 0xa001a, 0x90019, 0x80018,
                                               0x70017, 0x60016, 0x50015, 0x40014, 0x30013, 0x20012, 0x10011, 0x00010);
        __m512i halves;         /* those of a, then those of b */
        __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(b), "v"(a));
        return (vf)_mm512_permutexvar_epi16(order, halves);
    }
#endif
    (void)fast;
    return as_real(as_bits(round_half(a)) | ((as_bits(round_half(b)) >> 16) & vi_set(0xffff)));
}

/* Stores the pairs of the 2 VLEN numbers of which a is the first half: `fast`, VLEN pairs; else 2 VLEN rounded floats. */
FN void store_neighbours(real *p, vf a, vf b, const int fast)
{
#if FASTRNN_ISA == 3
    if (fast) {
        __m512i halves;
        __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(b), "v"(a));
        vstore(p, (vf)_mm512_rol_epi32(halves, 16));
        return;
    }
#endif
    (void)fast;
    vstore(p, round_half(a));
    vstore(p + VLEN, round_half(b));
}

/* Stores the pairs of a[l] and b[l]: `fast`, VLEN pairs; else 2 VLEN rounded floats, a[0] b[0] a[1] b[1] ... */
FN void store_lanes(real *p, vf a, vf b, const int fast)
{
    if (fast) {
        vstore(p, pair_lanes(a, b, fast));
        return;
    }
    a = round_half(a);
    b = round_half(b);
#if FASTRNN_ISA == 0
    p[0] = a;
    p[1] = b;
#else
    vstore(p, vzip_low(a, b));
    vstore(p + VLEN, vzip_high(a, b));
#endif
}

#endif
