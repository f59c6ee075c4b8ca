/* Several threads inside one pass: a team shares the panels of units of every step.
 *
 *     thread 0   part 0 of step 0 |  part 0 of step 1 |  part 0 of step 2 |  ...
 *     thread 1   part 1 of step 0 |  part 1 of step 1 |  part 1 of step 2 |  ...
 *
 * A pass is a sequence of phases, one or two a step, and every phase has the same number of parts. Member i of the team
 * takes part i of every phase, so that its share of the weights stays in the cache of its core. A phase begins when all
 * parts of the one before are finished ("|" above). Which thread does a part changes nothing in the results: a part is
 * a set of outputs, and each output's sum has the order that it has without a team.
 *
 * Nobody waits for a thread that does not run. A part is taken before it is done, by a compare-and-exchange of the
 * number of its phase, and a member that has finished its own takes those that nobody has taken. So a member that comes
 * late, or never, delays nobody; when it comes, it finds the phases before finished, passes through them and joins in.
 * Only a thread that the system stops within a part is waited for: with a spin of microseconds, then asleep. Such waits
 * are counted, and where they add up, one member goes on alone for sixteen times as long (wait_longer in
 * core/threads.pxi).
 *
 * How long a line takes from core to core differs a lot: 30 ns within a cluster of cores, 170 ns across. So a pass of
 * short phases tries both: some phases are done by one member alone, some by all, and the faster way is kept
 * (end_wait), for the calls of the next milliseconds, too.
 *
 * A member signals by storing the number of the phase in a cache line of its own part, and waits by reading those of
 * the other parts: reads of different lines overlap, where a common counter would be passed from core to core. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#include "kernels.h"

/* Atomic operations, sequentially consistent but for the two whose names say otherwise. */
#if defined(__GNUC__) || defined(__clang__)
static inline long long atomic_get(const long long *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline long long atomic_acquire(const long long *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void atomic_release(long long *p, long long v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline long long atomic_swap(long long *p, long long v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int atomic_change(long long *p, long long from, long long to)
{
    return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#else
#include <intrin.h>
static inline long long atomic_get(const long long *p) { return _InterlockedOr64((long long *)p, 0); }
static inline long long atomic_acquire(const long long *p) { return atomic_get(p); }
static inline void atomic_release(long long *p, long long v) { _InterlockedExchange64(p, v); }
static inline long long atomic_swap(long long *p, long long v) { return _InterlockedExchange64(p, v); }
static inline int atomic_change(long long *p, long long from, long long to)
{
    return _InterlockedCompareExchange64(p, to, from) == from;
}
#endif

/* Tells the CPU that this is a loop that waits. */
static inline void pause_cpu(void)
{
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
    __asm__ volatile("yield");
#elif defined(_MSC_VER) && defined(_M_X64)
    _mm_pause();
#endif
}

enum { PHASE_OVER = -1, PHASE_CANCELLED = -2 };
enum { SHORT_WAIT = 100 };      /* pauses, one or two microseconds, before a member takes the parts of others */

/* Whether a member may take parts: not while another one goes on alone. */
static inline int may_take(const team_member *m)
{
    long long alone = atomic_acquire(&m->team->alone);
    return alone == 0 || alone == m->index + 1;
}

static inline int take_part(team_member *m, isize part)
{
    long long *taken = &m->team->part[part].taken;
    if (atomic_acquire(taken) != m->phase || !may_take(m) || !atomic_change(taken, m->phase, m->phase + 1)) return 0;
    m->did = m->phase + 1;
    return 1;
}

/* Waits for the end of the phase, and takes what nobody does. Returns a part, PHASE_OVER or PHASE_CANCELLED. */
static inline isize wait_for_phase(team_member *m)
{
    team *t = m->team;
    isize q = 0, i, pauses = 0;
    for (;;) {
        while (q < t->parts && atomic_acquire(&t->part[q].finished) > m->phase) q++;
        if (q == t->parts) {
            if (m->waits_since != 0 || atomic_acquire(&t->alone) == m->index + 1
                || (m->index == 0 && m->phase < t->trial)) t->end_wait(m);
            m->phase++;
            return PHASE_OVER;
        }
        if (pauses++ < SHORT_WAIT && m->took != m->phase && atomic_acquire(&t->alone) == 0) {
            pause_cpu();
            continue;
        }
        for (i = 1; i <= t->parts; i++)
            if (take_part(m, (m->index + i) % t->parts)) {
                m->took = m->phase + 1;
                return (m->index + i) % t->parts;
            }
        if (t->wait_longer(m)) return PHASE_CANCELLED;
    }
}

/* The first part of a phase for this member to do, or what wait_for_phase returns. */
static inline isize first_part(team_member *m)
{
    if (m == NULL) return 0;
    return take_part(m, m->index) ? m->index : wait_for_phase(m);
}

/* The same after a part is done. */
static inline isize next_part(team_member *m, isize part)
{
    if (m == NULL) return PHASE_OVER;
    atomic_release(&m->team->part[part].finished, m->phase + 1);
    return wait_for_phase(m);
}

static inline isize parts_of(const team_member *m) { return m == NULL ? 1 : m->team->parts; }

#endif
