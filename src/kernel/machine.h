/* What differs between machines: the clock, which instruction sets run, how subnormal numbers are flushed to zero. */
#ifndef FASTRNN_MACHINE_H
#define FASTRNN_MACHINE_H

#include <stdint.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sched.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#endif
#include "pythread.h"
#include "kernels.h"
#include "team.h"

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

/* Called about every million vector operations. Only the caller's thread looks for signals, and rarely: that needs the
 * GIL. */
static inline int should_stop(poll_state *p)
{
    if (atomic_acquire(&p->cancelled)) return 1;
    if (PyThread_get_thread_ident() == p->thread && clock_seconds() > p->next) return p->look(p);
    return 0;
}

/* How many CPUs this process may use now; where that cannot be asked, as many as one likes. */
static inline int usable_cpus(void)
{
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return 1 << 30;
}

/* Whether this machine runs an instruction set: 0 scalar and 1 baseline run wherever this was compiled; 2 is AVX2 and
 * FMA; 3 is AVX-512 F, DQ, BW and VL. The operating system has to save their registers, too. */
#if defined(__x86_64__) && defined(_MSC_VER)
/* clang-cl: __builtin_cpu_supports needs Clang's run-time library, which Microsoft's linker does not search. */
static inline void cpuid(unsigned int leaf, unsigned int registers[4])          /* eax, ebx, ecx, edx */
{
    __asm__ volatile("cpuid" : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]), "=d"(registers[3])
                             : "a"(leaf), "c"(0));
}

static inline int cpu_runs(int isa)
{
    unsigned int basic[4], features[4], saved, upper;
    cpuid(0, basic);
    if (isa <= 1 || basic[0] < 7) return isa <= 1;                              /* eax: the highest leaf */
    cpuid(1, basic);
    cpuid(7, features);
    if (!(basic[2] >> 27 & 1)) return 0;                                        /* OSXSAVE: XGETBV may be used */
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));             /* bits: 1 XMM, 2 YMM, 5-7 AVX-512's */
    if (isa == 2) return (saved & 0x06) == 0x06 && (basic[2] >> 12 & 1) && (features[1] >> 5 & 1);     /* FMA, AVX2 */
    return isa == 3 && (saved & 0xe6) == 0xe6 && (features[1] & 0xc0030000u) == 0xc0030000u;    /* VL, BW, DQ, F */
}
#else
static inline int cpu_runs(int isa)
{
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (isa == 2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == 3)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return isa <= 1;
}
#endif

/* Whether the CPU has an instruction that sums four int8 products: vpdpbusd of AVX-512 VNNI, asked where AVX-512 runs, or
 * ARM's sdot, which all of Apple's 64-bit desktop processors have. */
static inline int cpu_has_dot(void)
{
#if defined(__x86_64__) && defined(_MSC_VER)
    unsigned int features[4];
    cpuid(7, features);
    return features[2] >> 11 & 1;
#elif defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__) && defined(__APPLE__)
    return 1;
#elif defined(__aarch64__) && defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1;       /* HWCAP_ASIMDDP */
#else
    return 0;
#endif
}

/* Whether the CPU has AVX-512 BF16: vdpbf16ps, which sums two bfloat16 products. Asked where AVX-512 runs. */
static inline int cpu_has_pairs(void)
{
#if defined(__x86_64__) && defined(_MSC_VER)
    unsigned int features[4];
    __asm__ volatile("cpuid" : "=a"(features[0]), "=b"(features[1]), "=c"(features[2]), "=d"(features[3])
                             : "a"(7), "c"(1));
    return features[0] >> 5 & 1;
#elif defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}

/* The floating-point mode of a thread. Kernels run in one where subnormal operands and results are zero. Restoring the
 * old mode also drops the exception flags that a kernel raised, which would surface as NumPy warnings. */
typedef unsigned long long fp_mode;
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
static inline fp_mode read_fp(void) { return _mm_getcsr(); }
static inline void restore_fp(fp_mode mode) { _mm_setcsr((unsigned int)mode); }
#define FLUSH_TO_ZERO 0x8040u        /* FTZ, DAZ */
#elif defined(__aarch64__) && defined(__GNUC__)
static inline fp_mode read_fp(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static inline void restore_fp(fp_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode)); }
#define FLUSH_TO_ZERO (1u << 24)     /* FZ */
#else
static inline fp_mode read_fp(void) { return 0; }
static inline void restore_fp(fp_mode mode) { (void)mode; }
#define FLUSH_TO_ZERO 0
#endif

static inline void flush_subnormals_from(fp_mode old) { restore_fp(old | FLUSH_TO_ZERO); }

static inline fp_mode flush_subnormals(void)
{
    fp_mode old = read_fp();
    flush_subnormals_from(old);
    return old;
}

#endif
