/* int8 products on the vector of simd.h: four products of each output are summed in int32, exactly.
 *
 *   dot_weights dot_spread    weights of VLEN outputs times 4 numbers; 4 numbers of a row, for every output
 *   dot                       sums += weights * numbers
 *   dot_start dot_zero        where sums start: at given numbers, at 0
 *   dot_sums                  the sums, one int32 for each output; `fast` as in dot
 *   from_ints                 int32 to float
 *   largest_lane vi_max vi_add
 *                             the largest lane, whose bits are those of a float; maximum and sum of int32
 *   store_bytes               rounds VLEN floats in -127...127 to nearest, ties to even, and stores them as bytes
 *
 * Weights and numbers lie in -127...127, so that no instruction below saturates and every instruction set has the same
 * integers. `fast`: the CPU has an instruction for sums of four products (HAS_DOT). ARM's sdot takes signed numbers. x86's
 * vpdpbusd multiplies unsigned numbers with signed ones: so 128 is added to the numbers (the bit FLIP of their bytes is
 * flipped), and the sums start from -128 times the weights' sum.
 */
#ifndef FASTRNN_NARROW_H
#define FASTRNN_NARROW_H

#include "simd.h"

FN int32_t four_bytes(const signed char *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return four;
}

FN real from_bits(bits b) { real r; memcpy(&r, &b, sizeof r); return r; }
FN bits bits_of(real r) { bits b; memcpy(&b, &r, sizeof b); return b; }

/* Tile rows for a panel of 1, 2, 3, 4 vectors. */
#if FASTRNN_ISA == 3
enum { HAS_DOT = 1, FLIP = 0x80, DOT_ROWS1 = 8, DOT_ROWS2 = 8, DOT_ROWS3 = 8, DOT_ROWS4 = 6 };

typedef __m512i dot_acc, dot_w, dot_x;
FN dot_w dot_weights(const signed char *p) { return _mm512_load_si512(p); }
FN dot_x dot_spread(const signed char *p) { return _mm512_set1_epi32(four_bytes(p)); }
FN dot_acc dot_start(const int32_t *p) { return _mm512_load_si512(p); }
FN vi dot_sums(dot_acc a, const int fast) { (void)fast; return (vi)a; }
FN vi vi_max(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
FN vf from_ints(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }

FN real largest_lane(vi a)
{
    __m256i half = _mm256_max_epi32(_mm512_castsi512_si256((__m512i)a), _mm512_extracti64x4_epi64((__m512i)a, 1));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1))));
}

/* The instruction is written out so that one module serves CPUs with and without it: which one this is, is asked when the
 * module is loaded (machine.h). */
FN dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
{
    if (fast) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "vm"(w));
        return acc;
    }
    dot_w signed_w = _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(x), _mm512_setzero_si512(), w);
    __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(x), signed_w);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

FN void store_bytes(signed char *p, vf v, const int flip)
{
    __m128i q = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)v));
    _mm_storeu_si128((__m128i *)p, _mm_xor_si128(q, _mm_set1_epi8((char)flip)));
}

#elif FASTRNN_ISA == 2
enum { HAS_DOT = 0, FLIP = 0, DOT_ROWS1 = 6, DOT_ROWS2 = 4, DOT_ROWS3 = 3, DOT_ROWS4 = 2 };

typedef __m256i dot_acc, dot_w, dot_x;
FN dot_w dot_weights(const signed char *p) { return _mm256_load_si256((const __m256i *)p); }
FN dot_x dot_spread(const signed char *p) { return _mm256_set1_epi32(four_bytes(p)); }
FN dot_acc dot_start(const int32_t *p) { (void)p; return _mm256_setzero_si256(); }
FN vi dot_sums(dot_acc a, const int fast) { (void)fast; return (vi)a; }
FN vi vi_max(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
FN vf from_ints(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }

FN real largest_lane(vi a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128((__m256i)a), _mm256_extracti128_si256((__m256i)a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1))));
}

FN dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
    (void)fast;
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

FN void store_bytes(signed char *p, vf v, const int flip)
{
    __m256i q = _mm256_cvtps_epi32((__m256)v);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    (void)flip;
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}

#elif FASTRNN_ISA == 1 && (defined(__SSE2__) || defined(__aarch64__))
/* Each output has two partial sums, those of the first two outputs in `low`; with sdot, one. */
#ifdef __aarch64__
enum { HAS_DOT = 1, FLIP = 0, DOT_ROWS1 = 6, DOT_ROWS2 = 4, DOT_ROWS3 = 3, DOT_ROWS4 = 2 };
typedef int32x4_t ints4;
typedef int8x16_t dot_w, dot_x;
typedef struct { ints4 low, high; } dot_acc;
FN dot_w dot_weights(const signed char *p) { return vld1q_s8(p); }
FN dot_x dot_spread(const signed char *p) { return vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(p))); }
FN vi dot_sums(dot_acc a, const int fast) { return (vi)(fast ? a.low : vpaddq_s32(a.low, a.high)); }
FN vi vi_max(vi a, vi b) { return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b); }
FN real largest_lane(vi a) { return from_bits(vmaxvq_s32((int32x4_t)a)); }
FN vf from_ints(vi a) { return (vf)vcvtq_f32_s32((int32x4_t)a); }

/* sdot is written out, as vpdpbusd is above, unless the compiler may use it everywhere. Its sums are in `low` alone. */
FN dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
{
    if (fast) {
#ifdef __ARM_FEATURE_DOTPROD
        acc.low = vdotq_s32(acc.low, w, x);
#else
        __asm__(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(acc.low) : "w"(w), "w"(x));
#endif
        return acc;
    }
    acc.low = vpadalq_s16(acc.low, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    acc.high = vpadalq_s16(acc.high, vmull_s8(vget_high_s8(w), vget_high_s8(x)));
    return acc;
}

FN void store_bytes(signed char *p, vf v, const int flip)
{
    int16x4_t words = vqmovn_s32(vcvtnq_s32_f32((float32x4_t)v));
    int8x8_t q = vqmovn_s16(vcombine_s16(words, words));
    (void)flip;
    memcpy(p, &q, 4);
}
#else
enum { HAS_DOT = 0, FLIP = 0, DOT_ROWS1 = 4, DOT_ROWS2 = 2, DOT_ROWS3 = 1, DOT_ROWS4 = 1 };
typedef __m128i ints4;
typedef __m128i dot_w, dot_x;
typedef struct { ints4 low, high; } dot_acc;
FN dot_w dot_weights(const signed char *p) { return _mm_load_si128((const __m128i *)p); }
FN dot_x dot_spread(const signed char *p) { return _mm_set1_epi32(four_bytes(p)); }
FN __m128i widen_low(__m128i a) { return _mm_srai_epi16(_mm_unpacklo_epi8(a, a), 8); }
FN __m128i widen_high(__m128i a) { return _mm_srai_epi16(_mm_unpackhi_epi8(a, a), 8); }
FN vi vi_max(vi a, vi b) { vi m = (vi)(a > b); return (a & m) | (b & ~m); }
FN vf from_ints(vi a) { return (vf)_mm_cvtepi32_ps((__m128i)a); }

FN real largest_lane(vi a)
{
    a = vi_max(a, (vi)_mm_shuffle_epi32((__m128i)a, 0x4e));
    return _mm_cvtss_f32((__m128)vi_max(a, (vi)_mm_shuffle_epi32((__m128i)a, 0xb1)));
}

FN vi dot_sums(dot_acc a, const int fast)
{
    (void)fast;
    __m128 low = _mm_castsi128_ps(a.low), high = _mm_castsi128_ps(a.high);
    return (vi)_mm_add_epi32(_mm_castps_si128(_mm_shuffle_ps(low, high, 0x88)),
                             _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd)));
}

FN dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
{
    __m128i numbers = widen_low(x);
    (void)fast;
    acc.low = _mm_add_epi32(acc.low, _mm_madd_epi16(widen_low(w), numbers));
    acc.high = _mm_add_epi32(acc.high, _mm_madd_epi16(widen_high(w), numbers));
    return acc;
}

FN void store_bytes(signed char *p, vf v, const int flip)
{
    __m128i words = _mm_packs_epi32(_mm_cvtps_epi32((__m128)v), _mm_setzero_si128());
    int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
    (void)flip;
    memcpy(p, &four, 4);
}
#endif
FN dot_acc dot_start(const int32_t *p)
{
    dot_acc zero;
    (void)p;
    memset(&zero, 0, sizeof zero);
    return zero;
}

#else
enum { HAS_DOT = 0, FLIP = 0, DOT_ROWS1 = 8, DOT_ROWS2 = 8, DOT_ROWS3 = 4, DOT_ROWS4 = 4 };

/* No intrinsics: one output at a time, or whatever the compiler's vectors are. */
typedef struct { int32_t sum[VLEN]; } dot_acc;
typedef const signed char *dot_w, *dot_x;
FN dot_w dot_weights(const signed char *p) { return p; }
FN dot_x dot_spread(const signed char *p) { return p; }
FN dot_acc dot_start(const int32_t *p) { dot_acc zero = {{0}}; (void)p; return zero; }
FN vi dot_sums(dot_acc a, const int fast) { vi r; (void)fast; memcpy(&r, &a, sizeof r); return r; }

FN dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
{
    (void)fast;
    for (int l = 0; l < VLEN; l++)
        for (int k = 0; k < 4; k++) acc.sum[l] += w[4 * l + k] * x[k];
    return acc;
}

FN vi vi_max(vi a, vi b)
{
    bits x[VLEN], y[VLEN];
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    for (int l = 0; l < VLEN; l++) x[l] = x[l] > y[l] ? x[l] : y[l];
    memcpy(&a, x, sizeof a);
    return a;
}

FN real largest_lane(vi a)
{
    bits x[VLEN];
    memcpy(x, &a, sizeof a);
    for (int l = 1; l < VLEN; l++) x[0] = x[l] > x[0] ? x[l] : x[0];
    return from_bits(x[0]);
}

FN vf from_ints(vi a)
{
    bits x[VLEN];
    real y[VLEN];
    memcpy(x, &a, sizeof a);
    for (int l = 0; l < VLEN; l++) y[l] = (real)x[l];
    return vload(y);
}

FN void store_bytes(signed char *p, vf v, const int flip)
{
    real x[VLEN];
    vstore(x, v);
    (void)flip;
    for (int l = 0; l < VLEN; l++) p[l] = (signed char)nearbyintf((float)x[l]);
}
#endif

FN dot_acc dot_zero(void)
{
    dot_acc zero;
    memset(&zero, 0, sizeof zero);
    return zero;
}

FN vi vi_add(vi a, vi b)
{
#if FASTRNN_ISA == 0
    return (vi)((uint32_t)a + (uint32_t)b);     /* wraps, as vectors do */
#else
    return a + b;
#endif
}

FN vi abs_bits(vf v) { return as_bits(v) & ~as_bits(vset(REAL(-0.0))); }
FN vi zero_bits(void) { return as_bits(vset(0)); }

#endif
