/* The vector type of one instruction set and one dtype, and the elementary functions on it.
 *
 * FASTRNN_ISA (0 scalar, 1 baseline, 2 AVX2+FMA, 3 AVX-512) and FASTRNN_DOUBLE come from setup.py.
 * Everything else in src/ is written once, on top of the names below:
 *
 *   real, VLEN, vf            element, elements in a vector, the vector
 *   vload vstore vset         any alignment; vload_part / vstore_part move the first n elements
 *   vfma(a, b, c)             a*b + c, rounded once where the machine has FMA
 *   vmin vmax vsqrt vif_less  minimum, maximum, square root, selection
 *   vsigmoid vtanh vrelu      see "Elementary functions"
 *
 * Contraction is off (-ffp-contract=off) and FMA explicit, so that each expression has one meaning
 * wherever the compiler inlines it: the bitwise promises rest on that.
 */
#ifndef FASTRNN_SIMD_H
#define FASTRNN_SIMD_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define FN static inline __attribute__((always_inline))
#else
#define FN static inline
#endif

#ifdef FASTRNN_DOUBLE
typedef double real;
typedef int64_t bits;
#define REAL(x) x
#define MANTISSA 52
#define LARGEST DBL_MAX
#else
typedef float real;
typedef int32_t bits;
#define REAL(x) x##f
#define MANTISSA 23
#define LARGEST FLT_MAX
#endif

/* ---- The vector ------------------------------------------------------------------------- */

#if FASTRNN_ISA == 3
#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
#error "the AVX-512 kernels need -mavx512f -mavx512dq"
#endif
#include <immintrin.h>
#define VBYTES 64
#elif FASTRNN_ISA == 2
#if !defined(__AVX2__) || !defined(__FMA__)
#error "the AVX2 kernels need -mavx2 -mfma"
#endif
#include <immintrin.h>
#define VBYTES 32
#elif FASTRNN_ISA == 1
#if defined(__AVX__)
#error "the baseline kernels must not be compiled with AVX"
#endif
#define VBYTES 16
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif
#elif FASTRNN_ISA == 0
#define VBYTES sizeof(real)
#else
#error "FASTRNN_ISA must be 0, 1, 2 or 3"
#endif

/* Tile rows for a panel of 1, 2, 3, 4 vectors: accumulators + operands fill the registers. Of a small cell (small.pxi):
 * the most panels whose sums of x are taken one step ahead, and how many of 3 and 4 panels a step sums side by side. */
#if FASTRNN_ISA == 3 || (FASTRNN_ISA == 1 && defined(__aarch64__))
enum { VLEN = VBYTES / sizeof(real), ROWS1 = 8, ROWS2 = 8, ROWS3 = 8, ROWS4 = 6 };
enum { SMALL_AHEAD = 2, GROUP3 = 1, GROUP4 = 1 };     /* 32 registers */
#else
enum { VLEN = VBYTES / sizeof(real), ROWS1 = 8, ROWS2 = 6, ROWS3 = 4, ROWS4 = 3 };
enum { SMALL_AHEAD = 1, GROUP3 = 3, GROUP4 = 2 };     /* 16 registers */
#endif

#if FASTRNN_ISA == 0
typedef real vf;
typedef bits vi;
FN vf vload(const real *p) { return *p; }
FN void vstore(real *p, vf v) { *p = v; }
FN vi as_bits(vf v) { vi r; memcpy(&r, &v, sizeof r); return r; }
FN vf as_real(vi v) { vf r; memcpy(&r, &v, sizeof r); return r; }
FN vf vset(real x) { return x; }
FN vi less(vf a, vf b) { return -(vi)(a < b); }
#else
typedef real vf __attribute__((vector_size(VBYTES)));
typedef bits vi __attribute__((vector_size(VBYTES)));
typedef real vf_any __attribute__((vector_size(VBYTES), aligned(sizeof(real)), may_alias));
FN vf vload(const real *p) { return *(const vf_any *)p; }
FN void vstore(real *p, vf v) { *(vf_any *)p = v; }
FN vi as_bits(vf v) { return (vi)v; }
FN vf as_real(vi v) { return (vf)v; }
/* x - 0 folds away, signed zeros included; x + 0 would stay a real addition. */
FN vf vset(real x) { return x - (vf){0}; }
FN vi less(vf a, vf b) { return (vi)(a < b); }
#endif

/* a[0] b[0] a[1] b[1] ..., from the first and from the second halves of two vectors. */
#if FASTRNN_ISA == 0
#define vzip_low(a, b) (a)
#define vzip_high(a, b) (b)
#else
#if FASTRNN_ISA == 3 && !defined(FASTRNN_DOUBLE)
#define ZIP(n, h) h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3, n + h + 3, \
                  h + 4, n + h + 4, h + 5, n + h + 5, h + 6, n + h + 6, h + 7, n + h + 7
#elif VBYTES == 64 || VBYTES == 32 && !defined(FASTRNN_DOUBLE)
#define ZIP(n, h) h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3, n + h + 3
#elif VBYTES == 32 || !defined(FASTRNN_DOUBLE)
#define ZIP(n, h) h, n + h, h + 1, n + h + 1
#else
#define ZIP(n, h) h, n + h
#endif
#if defined(__clang__)
#define vzip_low(a, b) __builtin_shufflevector(a, b, ZIP(VLEN, 0))
#define vzip_high(a, b) __builtin_shufflevector(a, b, ZIP(VLEN, VLEN / 2))
#else
#define vzip_low(a, b) __builtin_shuffle(a, b, (vi){ZIP(VLEN, 0)})
#define vzip_high(a, b) __builtin_shuffle(a, b, (vi){ZIP(VLEN, VLEN / 2)})
#endif
#endif

/* to[i * to_row + k] = from[k * from_row + i] for i < rows and k < VLEN. Each round of zips moves one bit of the number
 * of the vector to the number of the lane. */
FN void transpose_block(real *to, ptrdiff_t to_row, const real *from, ptrdiff_t from_row, ptrdiff_t rows)
{
    vf a[VLEN], b[VLEN];
    ptrdiff_t i, round;
    for (i = 0; i < (ptrdiff_t)VLEN; i++) a[i] = vload(from + i * from_row);
    for (round = 1; round < (ptrdiff_t)VLEN; round *= 2) {
        for (i = 0; i < (ptrdiff_t)VLEN / 2; i++) {
            b[2 * i] = vzip_low(a[i], a[i + VLEN / 2]);
            b[2 * i + 1] = vzip_high(a[i], a[i + VLEN / 2]);
        }
        for (i = 0; i < (ptrdiff_t)VLEN; i++) a[i] = b[i];
    }
    for (i = 0; i < (ptrdiff_t)VLEN && i < rows; i++) vstore(to + i * to_row, a[i]);
}

/* Prefetches the cache lines of n bytes for writing. */
FN void prefetch(const void *p, ptrdiff_t n)
{
#if defined(__GNUC__) || defined(__clang__)
    for (ptrdiff_t i = 0; i < n; i += 64) __builtin_prefetch((const char *)p + i, 1);
#else
    (void)p, (void)n;
#endif
}

/* Prefetches the cache lines of n bytes that another core has written, all at once: loads in order would wait for one
 * after the other. */
FN void prefetch_shared(const void *p, ptrdiff_t n)
{
#if defined(__GNUC__) || defined(__clang__)
    for (ptrdiff_t i = 0; i < n; i += 64) __builtin_prefetch((const char *)p + i, 0);
#else
    (void)p, (void)n;
#endif
}

/* The first n elements of a vector. memcpy with a length that the compiler does not know is a call, which costs more than
 * the arithmetic of a short row: so masks where they are cheap, else pieces of 8, 4, 2 and 1 elements. */
#if FASTRNN_ISA == 3 && !defined(FASTRNN_DOUBLE)
FN vf vload_part(const real *p, ptrdiff_t n)
{
    return n >= VLEN ? vload(p) : (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

FN void vstore_part(real *p, vf v, ptrdiff_t n)
{
    if (n >= VLEN) vstore(p, v);
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif FASTRNN_ISA == 3
FN vf vload_part(const real *p, ptrdiff_t n)
{
    return n >= VLEN ? vload(p) : (vf)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}

FN void vstore_part(real *p, vf v, ptrdiff_t n)
{
    if (n >= VLEN) vstore(p, v);
    else _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
}
#else
#define MOVE_PIECE(count) \
    if (VLEN > count && (n & count)) { memcpy(to, from, count * sizeof(real)); to += count; from += count; }

FN vf vload_part(const real *p, ptrdiff_t n)
{
    real values[VLEN] = {0};
    const real *from = p;
    real *to = values;
    if (n >= VLEN) return vload(p);
    MOVE_PIECE(8) MOVE_PIECE(4) MOVE_PIECE(2) MOVE_PIECE(1)
    return vload(values);
}

FN void vstore_part(real *p, vf v, ptrdiff_t n)
{
    real values[VLEN];
    const real *from = values;
    real *to = p;
    if (n >= VLEN) { vstore(p, v); return; }
    vstore(values, v);
    MOVE_PIECE(8) MOVE_PIECE(4) MOVE_PIECE(2) MOVE_PIECE(1)
}
#undef MOVE_PIECE
#endif

/* vmin / vmax give their second argument when either is NaN: clamping keeps a NaN second argument. */
#if FASTRNN_ISA == 3 && !defined(FASTRNN_DOUBLE)
FN vf vfma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
FN vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
#elif FASTRNN_ISA == 3
FN vf vfma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
FN vf vmin(vf a, vf b) { return (vf)_mm512_min_pd((__m512d)a, (__m512d)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif FASTRNN_ISA == 2 && !defined(FASTRNN_DOUBLE)
FN vf vfma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
FN vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
#elif FASTRNN_ISA == 2
FN vf vfma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
FN vf vmin(vf a, vf b) { return (vf)_mm256_min_pd((__m256d)a, (__m256d)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif FASTRNN_ISA == 1 && defined(__SSE2__) && !defined(FASTRNN_DOUBLE)
FN vf vfma(vf a, vf b, vf c) { return a * b + c; }
FN vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
#elif FASTRNN_ISA == 1 && defined(__SSE2__)
FN vf vfma(vf a, vf b, vf c) { return a * b + c; }
FN vf vmin(vf a, vf b) { return (vf)_mm_min_pd((__m128d)a, (__m128d)b); }
FN vf vmax(vf a, vf b) { return (vf)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
#if FASTRNN_ISA == 1 && defined(__aarch64__) && !defined(FASTRNN_DOUBLE)
FN vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#elif FASTRNN_ISA == 1 && defined(__aarch64__)
FN vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#else
FN vf vfma(vf a, vf b, vf c) { return a * b + c; }
#endif
FN vf vmin(vf a, vf b) { vi m = less(a, b); return as_real((as_bits(a) & m) | (as_bits(b) & ~m)); }
FN vf vmax(vf a, vf b) { vi m = less(b, a); return as_real((as_bits(a) & m) | (as_bits(b) & ~m)); }
#endif

/* The square root, correctly rounded on every instruction set. */
FN vf vsqrt(vf x)
{
#if FASTRNN_ISA == 3 && !defined(FASTRNN_DOUBLE)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif FASTRNN_ISA == 3
    return (vf)_mm512_sqrt_pd((__m512d)x);
#elif FASTRNN_ISA == 2 && !defined(FASTRNN_DOUBLE)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif FASTRNN_ISA == 2
    return (vf)_mm256_sqrt_pd((__m256d)x);
#elif FASTRNN_ISA == 1 && defined(__SSE2__) && !defined(FASTRNN_DOUBLE)
    return (vf)_mm_sqrt_ps((__m128)x);
#elif FASTRNN_ISA == 1 && defined(__SSE2__)
    return (vf)_mm_sqrt_pd((__m128d)x);
#elif FASTRNN_ISA == 1 && defined(__aarch64__) && !defined(FASTRNN_DOUBLE)
    return (vf)vsqrtq_f32((float32x4_t)x);
#elif FASTRNN_ISA == 1 && defined(__aarch64__)
    return (vf)vsqrtq_f64((float64x2_t)x);
#else
    real values[VLEN];
    memcpy(values, &x, sizeof x);
    for (int i = 0; i < VLEN; i++) values[i] = (real)sqrt((double)values[i]);   /* float32 by way of double is exact */
    memcpy(&x, values, sizeof x);
    return x;
#endif
}

/* a < b ? yes : no */
FN vf vif_less(vf a, vf b, vf yes, vf no)
{
#if FASTRNN_ISA == 3 && !defined(FASTRNN_DOUBLE)
    return (vf)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ), (__m512)no, (__m512)yes);
#else
    vi m = less(a, b);
    return as_real((as_bits(yes) & m) | (as_bits(no) & ~m));
#endif
}

/* ---- Elementary functions ---------------------------------------------------------------
 *
 * exp(k x) = s (1 + p) for k = 1 or 2, with s = 2^n, n = round(k x / ln 2), p = expm1(k r) and
 * r = x - n ln2/k. n is taken from the low mantissa bits of k x/ln2 + 1.5 * 2^MANTISSA. A NaN x makes p NaN
 * whatever s is. Callers clamp k x to +-90.
 *
 * expm1(k r) = r (k + r (c_0 k^2 + r (c_1 k^3 + ...))), the powers of k folded into the constants: c is a minimax
 * fit in float32 (3e-9), Taylor's series in float64. float32 takes ln 2 in one piece: n is large only where the
 * callers' 1 / (1 + exp) damps the error. */
typedef struct { vf s, p; } exp_parts;

FN exp_parts vexp_parts(vf x, const real k)
{
    const real round_magic = REAL(1.5) * (real)((bits)1 << MANTISSA);
    vf t = vfma(x, vset(k * REAL(1.442695040888963407)), vset(round_magic));
    vf n = t - vset(round_magic);
    const real k2 = k * k, k4 = k2 * k2;
#ifdef FASTRNN_DOUBLE
    vf r = vfma(n, vset(-0x1.ef35793c7673p-45 / k), vfma(n, vset(-0x1.62e42fefa38p-1 / k), x));
    vf y = vset(k4 * k4 * k4 * k / 6227020800.);
    y = vfma(y, r, vset(k4 * k4 * k4 / 479001600.));
    y = vfma(y, r, vset(k4 * k4 * k2 * k / 39916800.));
    y = vfma(y, r, vset(k4 * k4 * k2 / 3628800.));
    y = vfma(y, r, vset(k4 * k4 * k / 362880.));
    y = vfma(y, r, vset(k4 * k4 / 40320.));
    y = vfma(y, r, vset(k4 * k2 * k / 5040.));
    y = vfma(y, r, vset(k4 * k2 / 720.));
    y = vfma(y, r, vset(k4 * k / 120.));
    y = vfma(y, r, vset(k4 / 24.));
    y = vfma(y, r, vset(k2 * k / 6.));
    y = vfma(y, r, vset(k2 / 2.));
#else
    vf r = vfma(n, vset(-0.693147180559945f / k), x);
    vf y = vset(0.00139505f * (k4 * k2));
    y = vfma(y, r, vset(0.00836892f * (k4 * k)));
    y = vfma(y, r, vset(0.04166621f * k4));
    y = vfma(y, r, vset(0.16666519f * (k2 * k)));
    y = vfma(y, r, vset(0.50000001f * k2));
#endif
    exp_parts e;
    e.p = r * vfma(y, r, vset(k));
    e.s = as_real((as_bits(t) << MANTISSA) + as_bits(vset(1)));
    return e;
}

/* 1 - sigmoid(x) = 1 / (1 + exp(x)). Near sigmoid's upper limit it is small and so is its error; at the lower one
 * it is exactly 1. A product sigmoid(x) y is most accurate as y - y (1 - sigmoid(x)), which is rounded once. */
FN vf vsigmoid_complement(vf x)
{
    exp_parts q = vexp_parts(vmax(vset(-45), vmin(vset(45), x)), 1);
    return vset(1) / vfma(q.p, q.s, q.s + vset(1));
}

/* float32: 9.0e-8 absolute. */
FN vf vsigmoid(vf x) { return vset(1) - vsigmoid_complement(x); }

/* The same as 1 / (1 + exp(-x)): two operations more, and small values have all their digits. exp(-x) is held to 2^64,
 * where the value is 2^-64 or slightly less; 2^-64 is subtracted (elsewhere that rounds away), so that the lower limit
 * is exactly 0. */
FN vf vsigmoid_small(vf x)
{
    exp_parts q = vexp_parts(vmax(vset(-45), vmin(vset(REAL(44.36141955583651)), -x)), 1);
    return vmax(vset(0), vset(1) / vfma(q.p, q.s, q.s + vset(1)) - vset(REAL(0x1p-64)));
}

/* tanh. float32: an odd polynomial below 0.6, sign(x) (1 - 2 / (1 + exp(2|x|))) above: 1.4 ULP.
 * float64: sign(x) m / (m + 2), m = expm1(2|x|): 3 ULP. */
FN vf vtanh(vf x)
{
    vi sign = as_bits(x) & as_bits(vset(REAL(-0.0)));
    vf a = as_real(as_bits(x) ^ sign);
    exp_parts q = vexp_parts(vmin(vset(22), a), 2);
#ifdef FASTRNN_DOUBLE
    vf m = vfma(q.p, q.s, q.s - vset(1));
    return as_real(as_bits(m / (m + vset(2))) | sign);
#else
    vf large = vset(1) - vset(2) / vfma(q.p, q.s, q.s + vset(1));
    vf u = a * a;
    vf c = vset(-0.005895153502f);
    c = vfma(c, u, vset(0.020795968104f));
    c = vfma(c, u, vset(-0.05378382934f));
    c = vfma(c, u, vset(0.133319241172f));
    c = vfma(c, u, vset(-0.333332980018f));
    return as_real(as_bits(vif_less(u, vset(0.36f), vfma(c * u, a, a), large)) | sign);
#endif
}

/* Makes the compiler compute v here, in this order, and not where it is first used: a division begun late is waited
 * for, and until then its operands would hold registers. */
FN vf compute_now(vf v)
{
#if (defined(__GNUC__) || defined(__clang__)) && FASTRNN_ISA == 3
    __asm__ volatile("" : "+v"(v));
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__SSE2__) && FASTRNN_ISA != 0
    __asm__ volatile("" : "+x"(v));
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__) && FASTRNN_ISA != 0
    __asm__ volatile("" : "+w"(v));
#endif
    return v;
}

/* max(x, 0), NaN kept. */
FN vf vrelu(vf x) { return vmax(vset(0), x); }

/* Keeps the compiler from dropping the computation of v. */
FN void keep_value(vf v)
{
    volatile real sink;
    memcpy((void *)&sink, &v, sizeof sink);
    (void)sink;
}

/* relu'(x) d, from h = relu(x). */
FN vf vrelu_gradient(vf h, vf d) { return vif_less(vset(0), h, d, vset(0)); }

#endif
