/* The contract between src/core and the kernel modules: plain C structs, the same for every instruction set and dtype.
 *
 * Sizes and strides count elements, not bytes. "padded" means rounded up to whole vectors and whole panels, so that a
 * kernel may read and write full vectors; the padding is zero on entry and stays without effect.
 *
 * Owners. Every pointer is borrowed for the length of one call; a kernel frees nothing and keeps no pointer. The owner
 * stands beside each pointer:
 *     [caller]       a NumPy array of the Python caller
 *     [parameters]   a Buffer of core's Parameters (or Dense): read-only, shared by any number of calls and threads
 *     [saved]        a Buffer of core's Saved, alive until the last backward: forward writes it, backward reads it
 *     [call]         a Buffer of this call, or of the stream
 * Aliasing. Tasks of one call write disjoint rows n0..n1 or disjoint panels; what they share they only read, or it is
 * written before a barrier and read after it (team.h). Within a task no two pointers overlap, except where a line says
 * so.
 */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t isize;

/* A condition that holds by construction. Tested in debug builds alone (FASTRNN_DEBUG=1). */
#ifdef FASTRNN_DEBUG
#include <assert.h>
#define CHECK(condition) assert(condition)
#else
#define CHECK(condition) ((void)(condition))
#endif

/* ---- Parameters ------------------------------------------------------------------------- */

/* The activations of a cell with options (activations.h). */
enum { SIGMOID, TANH, RELU, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS };

typedef struct {
    int function;
    double alpha, beta;
} activation;

enum { RNN_TANH, RNN_RELU, LSTM, GRU, GRU_BEFORE };

/* A matrix packed for the tile: panels of `width` vectors of outputs, [panels][outer * depth][width][VLEN]. Padding is
 * zero, and the tile leaves it out: the vectors past `vectors`, and the last block's elements past `last`. */
typedef struct {
    const void *data;           /* [parameters] 64-byte aligned */
    isize panels, width, vectors;
    isize outer, depth, last;   /* the summed index: `outer` blocks of `depth` elements */
    /* int8 (integer_tile.pxi), else NULL: the scale of each output, and what its sums start from, both
       [panels][width][VLEN], of float and int32; and the scale of each k, float [depth padded to whole vectors]. */
    const void *scale, *offset, *column;        /* [parameters] */
    int fast;                   /* the table's, when the weights were packed */
} matrix;

/* Packed parameters of one direction of one layer. H is the hidden size, S the size of h. */
typedef struct {
    int kind;
    isize input, hidden, state; /* I, H, and S: H, or proj_size */
    isize units, state_units;   /* H and S padded to whole panels, in vectors */
    isize saved, deltas;        /* vectors a unit and row: activations that forward saves, gate gradients */
    matrix w_ih, w_hh;          /* forward: [I] and [S] to the gates */
    matrix w_hn, w_hr;          /* GRU_BEFORE: [H] to n; projection: [H] to [S]. Else data is NULL */
    matrix w_ih_t, w_hh_t, w_hn_t, w_hr_t;  /* their transposes, for backward; packed when it is first called */
    const void *bias;           /* [parameters] [units][gates][VLEN]: b_ih + b_hh; GRU: b_in alone for the gate n */
    const void *bias_n;         /* [parameters] [units][VLEN]: GRU's b_hn */
    int plain;                  /* sigmoid and tanh and none of the options below: the fast path through a cell */
    activation f, g, h;         /* ONNX's names: gates (RNN: the unit), candidate, cell state */
    double clip;                /* gate sums are limited to +-clip; infinity: unlimited */
    int coupled;                /* LSTM: f = 1 - i */
    int mirror;                 /* GRU: h_t = z n + (1-z) h_{t-1} */
    const void *peephole;       /* [parameters] LSTM: [units][3][VLEN], for i, f, o; or NULL */
} packed_cell;

/* ---- Passes over a layer ---------------------------------------------------------------- */

/* How the tasks of one call learn that they should stop. One of these is shared by all of them. [call] */
typedef struct poll_state {
    long long cancelled;        /* read while the caller's thread may write it: atomic_acquire, atomic_release (team.h) */
    double next;                /* seconds of clock_seconds() at which to look for signals again */
    int (*look)(struct poll_state *);   /* takes the GIL and runs signal handlers; nonzero: stop */
    unsigned long thread;       /* the caller's thread: the only one that looks */
    unsigned long long mode;    /* the caller's floating-point mode, in which signal handlers run */
} poll_state;

/* The threads that share a pass, and one of them (team.h). [call] */
typedef struct {
    long long taken;            /* the first phase in which nobody has taken this part */
    char line[56];              /* each number has a cache line of its own */
    long long finished;         /* the first phase in which it is not finished */
    char next_line[56];
} team_part;

struct team_member;

typedef struct {
    isize parts;                /* of every phase; as many as members */
    team_part *part;            /* [parts] aligned to a cache line */
    poll_state *poll;
    double start;               /* when the pass began */
    int (*wait_longer)(struct team_member *);   /* some microseconds; nonzero: stop */
    void (*end_wait)(struct team_member *);     /* when a phase is over: after wait_longer, of a member alone, and of
                                   member 0 in the trial */
    long long trial;            /* phases in which it is found out whether the team pays; 0: that is known. Member 0
                                   changes it */
    long long alone;            /* 1 + the member that goes on alone, or 0 */
    long long closed;           /* member 0 goes on alone to the end, and the others leave */
    char line[64];              /* what follows is member 0's */
    double work;                /* multiply-adds of a step */
    isize kind;                 /* of pass: inference, forward with what backward needs, or backward */
    double began;               /* when the phase began */
    double alone_best;          /* the least seconds of a phase of one member alone; and of the phases of all, */
    double team_phases, team_total, team_longest;       /* how many, their seconds, and those of the longest */
} team;

typedef struct team_member {
    team *team;
    isize index;
    long long phase;            /* which phase the member is in: the same sequence in every member */
    long long took;             /* the phase after the last one in which it took a part of another member: a member that
                                   did not come in one phase is not expected in the next */
    long long did;              /* the phase after the last one in which it did a part */
    double waits_since;         /* when it began to wait, or 0 */
    long long long_phase;       /* the phase after the last one whose parts take much longer than others */
    double long_began;          /* when it began its part of that phase */
    char line[64];              /* no two members share a cache line */
} team_member;

/* What forward and backward share: one cell, one direction, rows n0..n1 of a batch in processing order. Step 0 is the
 * first that this direction takes, and rows stand by falling length. A "packed" row index counts only the rows that
 * still run: row n of step t is offset(t) + n. */
typedef struct {
    const packed_cell *cell;    /* [parameters] */
    isize T, N;                 /* steps and rows of the whole batch */
    isize n0, n1;               /* the rows of this task */
    isize rows;                 /* packed rows in all: T * N, or the sum of the lengths */
    const isize *lengths;       /* [caller] [N] falling, or NULL: every row has T steps */
    const unsigned char *reset; /* [call, saved] [rows]: nonzero where a row starts its step from zero; or NULL */
    int packed;                 /* the caller's arrays (y, y_c, dy) are packed rows, too */
    int keep;                   /* forward saves what backward needs; always set in backward */
    /* The states before and after each step, h [..][S padded], c [..][H padded].
       keep: [saved] [rows]; packed row offset(t) + n is the state that step t of row n starts from.
       else: [call] h holds two slots of [N] that take turns, and c one slot of [N], updated in place.
       A stream: h and c hold the old state [N]; only one step is taken. */
    void *h, *c;
    void *gates;                /* keep: [saved] [panels][rows][cell->saved][VLEN]: activated gates, or their sums with
                                   options; else NULL */
    void *extra;                /* GRU_BEFORE r*h, projection o*tanh(c), else NULL. keep: [saved] [rows][H padded];
                                   else [call] [N][H padded] */
    void *scratch;              /* [call] this task's or team's alone: as many elements as plan_forward or plan_backward
                                   says */
    team_member *member;        /* [call] of the team that shares the panels of this task; NULL: one thread does all.
                                   All else here but `work` is the same in every member's task */
    int pairs;                  /* backward: weights are pairs of bfloat16; set by plan_backward */
    poll_state *poll;           /* [call] */
    isize work;                 /* vector operations since the last look at the clock */
} layer_run;

/* A pass forward. A stream's step is one, too, with T = 1. */
typedef struct {
    layer_run run;
    const void *x;              /* [caller, call, saved, or the layer below] row n of step t at t * x_t + n * x_n;
                                   with lengths: packed rows, x_n apart */
    isize x_t, x_n;
    void *y;                    /* [caller] h of every step; overlaps no input. NULL in a stream */
    isize y_t, y_n;
    const isize *y_rows;        /* [call] where row n begins in y; NULL: at n * y_n */
    void *y_c;                  /* [caller] c of every step, or NULL */
    isize yc_t, yc_n;
    const isize *yc_rows;       /* [call] where row n begins in y_c; NULL: at n * yc_n */
    void *h_n, *c_n;            /* [call] [N][padded]: each row's state after its last step; before it, the initial
                                   state. In a stream: where the new state goes */
    isize chunk;                /* set by plan_forward: steps whose W_ih x + b is computed at once into scratch; 0: it
                                   is computed within each step */
    int turn;                   /* streams: the number of the step, modulo 2, as t is in a sequence */
} forward_args;

/* A pass backward over what forward saved. */
typedef struct {
    layer_run run;
    const void *dy;             /* [caller, call] dL/dy, shaped as y */
    isize dy_t, dy_n;
    const isize *dy_rows;       /* [call] where row n begins in dy; NULL: at n * dy_n */
    void *dh, *dc;              /* [call] [N][padded]: in dL/dh_n and dL/dc_n, out dL/dh_0 and dL/dc_0 */
    void *dgates;               /* [call] [panels][rows][cell->deltas][VLEN]: dL/d(gate sums) */
    void *dstate;               /* [call] projection: dL/dh of every packed row, [rows][S padded]; else NULL */
    void *dpeephole;            /* [call] [N][units][3][VLEN]: each row's sum over its steps, zero on entry; or NULL */
} backward_args;

/* ---- Products, optimizers --------------------------------------------------------------- */

/* Weight gradients: out[r][k] = sum over m of left[m][r] * right[m][k], for packed rows m. */
typedef struct {
    const void *left;           /* [caller, saved] what the matrix was multiplied with: rows left_step apart */
    isize left_step;
    const void *right;          /* [call] gradients of the outputs: right + panel * right_panel + m * right_step */
    isize right_step, right_panel;
    isize rows, depth, width;   /* m, r, vectors in a panel */
    isize vectors;              /* in all panels; those that pad the last panel are left out */
    isize p0, p1;               /* the panels of this task */
    void *out;                  /* [call] [panels][depth][width][VLEN], cleared by the kernel */
    void *bias;                 /* [call] [panels][width][VLEN]: column sums of right, cleared by the kernel; or NULL */
    void *scratch;              /* [call] this task's alone: as many elements as plan_accumulate says */
    int fast;                   /* the table's */
    poll_state *poll;           /* [call] */
    isize work;
} outer_product;

/* Input gradients and affine maps: out[m][o] = bias[o] + sum over k of left[m][k] * w[k][o] for rows m0..m1. */
typedef struct {
    const matrix *w;            /* [parameters] */
    const void *left;           /* [caller, call] rows left_row apart, blocks of the summed index left_outer apart */
    isize left_row, left_outer;
    void *out;                  /* [caller, call] rows out_row apart, `columns` elements of each written */
    isize out_row, columns;
    isize m0, m1;               /* the rows of this task */
    const void *bias;           /* [parameters] [panels][width][VLEN], or NULL: zero */
    void *scratch;              /* [call] this task's alone: as many elements as plan_multiply says */
    poll_state *poll;           /* [call] */
    isize work;
} product;

/* One optimizer step over the n elements of a parameter (update.pxi). */
enum { SGD, RMSPROP, ADAM };

typedef struct {
    double rate, decay;                 /* the step size; ADAM: the learning rate / (1 - beta1^t). The weight decay */
    double shrink;                      /* ADAM: parameters are first multiplied by it */
    double momentum;                    /* the weight of the old momentum */
    double fresh, fresh_square;         /* the weight of the new gradient, and of its square: 1 - beta1, 1 - beta2 */
    double eps, scale;                  /* ADAM: scale is 1 / sqrt(1 - beta2^t) */
    int nesterov;
} update_numbers;

typedef struct {
    int rule;
    update_numbers by;
    isize n;
    const void *p, *g;          /* [caller] [n]: parameter, gradient */
    void *out;                  /* [caller] [n]: the new parameter; overlaps nothing */
    void *first, *second, *third;       /* [caller] [n], updated in place. SGD: first = momentum or NULL. RMSPROP: first
                                   = momentum or NULL, second = square, third = mean or NULL. ADAM: first = mean,
                                   second = square */
} update_rule;

/* ---- The functions of one kernel module -------------------------------------------------- */

/* One step of one row, from h and c to h_n and c_n, and the output to y, which may overlap x. */
typedef void (*step_function)(const forward_args *);

/* What a thread is given to do: its argument is the struct that the comment beside names. 0, or -1 when cancelled. A
 * function that took another type of pointer must not be called through this one. */
typedef int (*task_function)(void *);

typedef struct {
    isize vlen, itemsize;
    isize weight_size, group;   /* bytes of a packed weight; packed matrices have `depth` in whole groups of this size */
    int has_dot, fast;          /* narrow weights: the CPU has an instruction for sums of their products; it is used */
    int teams;                          /* passes may be shared by a team */
    task_function forward;              /* of forward_args */
    step_function (*small_step)(const packed_cell *);   /* of a small cell, else NULL; may be NULL itself */
    task_function backward;             /* of backward_args */
    isize (*plan_forward)(forward_args *);      /* before a pass: sets chunk; returns the size of scratch in elements */
    isize (*plan_backward)(backward_args *);    /* returns the size of scratch in elements */
    int (*accumulate)(outer_product *);         /* 0, or -1 when cancelled */
    isize (*plan_accumulate)(const outer_product *);    /* returns the size of scratch in elements */
    task_function multiply;             /* of product */
    isize (*plan_multiply)(const matrix *);     /* returns the size of scratch in elements */
    void (*read)(const void *, isize);  /* reads n bytes once: the least a step must do, for benchmarks */
    void (*tanh)(void *, const void *, isize);
    void (*sigmoid)(void *, const void *, isize);
    task_function update;               /* of update_rule */
    double (*squares)(const void *, isize);     /* the sum of n squares */
    /* A parameter w[gates * size][depth] (strides row, column) to and from the packed form, whose vector
       unit * gates + g holds rows gate[g] * size + unit * VLEN ...; pack_t packs the transpose, its summed
       index in the order [unit][g][VLEN] of the gate gradients. Each does units u0..u1. */
    void (*pack)(void *out, const void *w, isize row, isize column, isize size, isize u0, isize u1,
                 const int *gate, isize gates, isize width, isize depth);
    void (*pack_weights)(void *out, const void *w, isize row, isize column, isize size, isize u0, isize u1,
                         const int *gate, isize gates, isize width, isize depth);   /* of weight_size bytes each */
    void (*unpack)(void *w, const void *in, isize size, isize u0, isize u1, const int *gate, isize gates,
                   isize width, isize depth);      /* w is contiguous */
    void (*pack_t)(void *out, const void *w, isize row, isize column, isize size, isize units, isize u0, isize u1,
                   const int *gate, isize gates, isize panels, isize width, isize columns);
} kernel_table;

#endif
