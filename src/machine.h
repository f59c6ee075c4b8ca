/* What the kernels ask of the machine: which ISA it runs, its clock, and flushing of subnormal numbers. */
#ifndef FASTRNN_MACHINE_H
#define FASTRNN_MACHINE_H

#include <stdint.h>
#include <string.h>
#include <time.h>
#include "pythread.h"
#include "kernels.h"

static inline double clock_seconds(void)
{
    struct timespec t;
#if defined(CLOCK_MONOTONIC)
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Asked about every million vector operations. Only the caller's thread looks for signals, and not often: it needs the GIL. */
static inline int should_stop(poll_state *p)
{
    if (p->cancelled) return 1;
    if (PyThread_get_thread_ident() == p->thread && clock_seconds() > p->next) return p->look(p);
    return 0;
}

/* 0 scalar and 1 baseline run wherever this was compiled; 2 AVX2+FMA; 3 AVX-512 F, DQ, BW, VL.
 * __builtin_cpu_supports also asks XGETBV whether the OS saves the registers. */
static inline int cpu_runs(int isa)
{
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (isa == 2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == 3)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return isa <= 1;
}

/* Flush subnormal results and operands to zero; gives the mode to restore. */
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
typedef unsigned int fp_mode;
static inline fp_mode flush_subnormals(void)
{
    fp_mode old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);       /* FTZ, DAZ */
    return old;
}
static inline void restore_fp(fp_mode old)
{
    /* keep the exception flags the kernel raised away from the caller: they would surface as NumPy warnings */
    _mm_setcsr(old);
}
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t fp_mode;
static inline fp_mode flush_subnormals(void)
{
    fp_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | (1u << 24)));
    return old;
}
static inline void restore_fp(fp_mode old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#else
typedef int fp_mode;
static inline fp_mode flush_subnormals(void) { return 0; }
static inline void restore_fp(fp_mode old) { (void)old; }
#endif

#endif
