/* What core.pyx and the kernel modules agree on: plain C structs, the same for every ISA and dtype.
 *
 * Sizes and strides count elements, not bytes. Pointers are borrowed: core.pyx owns every buffer, holds
 * a reference to it for the length of the call, and gives no buffer to two tasks that write the same rows.
 */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t isize;

/* The activations of a cell with options (activations.h). */
enum { SIGMOID, TANH, RELU, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS };

typedef struct {
    int function;
    double alpha, beta;
} activation;

enum { RNN_TANH, RNN_RELU, LSTM, GRU, GRU_BEFORE };

/* A matrix packed for the tile: panels of `width` vectors of outputs, [panels][depth][width][VLEN]. */
typedef struct {
    const void *data;           /* 64-byte aligned */
    isize panels, width;
    isize outer, depth;         /* the summed index: outer blocks of depth elements */
} matrix;

/* Packed parameters of one direction of one layer. */
typedef struct {
    int kind;
    isize input, hidden, state; /* I, H, and the size of h: H, or proj_size */
    isize units, state_units;   /* hidden and state padded to whole panels, in vectors */
    isize saved, deltas;        /* vectors kept per unit: activations, gate gradients */
    matrix w_ih, w_hh, w_hn, w_hr;          /* forward; w_hn: GRU_BEFORE, w_hr: projection */
    matrix w_ih_t, w_hh_t, w_hn_t, w_hr_t;  /* backward: transposed */
    const void *bias;           /* [units][gates][VLEN]; b_ih + b_hh, but for a GRU's n, which has b_in */
    const void *bias_n;         /* [units][VLEN]: b_hn */
    int plain;                  /* sigmoid and tanh, none of what follows: the short way through a cell */
    activation f, g, h;         /* ONNX's names: gates (RNN: the unit), candidate, cell state */
    double clip;                /* sums are held to +-clip; infinity: free */
    int coupled, mirror;        /* LSTM: f = 1 - i. GRU: h_t = z n + (1-z) h_{t-1} */
    const void *peephole;       /* LSTM: [units][3][VLEN], for i, f, o; or NULL */
} cell;

/* Shared by the tasks of one call. */
typedef struct poll_state {
    volatile int cancelled;
    double next;                /* seconds of clock_seconds(): when to look again */
    int (*look)(struct poll_state *);   /* takes the GIL, runs signal handlers; nonzero: stop */
    unsigned long thread;       /* the caller's: the one that looks */
    unsigned long long mode;    /* the caller's floating-point mode: signal handlers run in it */
} poll_state;

/* One pass over the rows n0..n1 of a batch in processing order: step 0 first, rows by falling length.
 * A "packed" row index counts only rows still running: row n of step t is offset(t) + n. */
typedef struct {
    const cell *c;
    isize T, N, n0, n1;
    const isize *lengths;       /* [N] falling, or NULL: all T. With lengths, x is packed rows */
    const unsigned char *reset; /* [packed rows] or NULL */
    isize rows;                 /* packed rows in all */
    int packed;                 /* y, y_c and dy are packed rows too */
    const void *x; isize x_t, x_n;
    void *y, *y_c; isize y_t, y_n, yc_t, yc_n;  /* outputs and all cell states; each may be NULL */
    const isize *y_rows, *yc_rows, *dy_rows;    /* where row n begins in y, y_c, dy; NULL: at n * y_n, ... */
    void *h, *c_state;          /* [slots][N][units * VLEN]; slot 0 holds the initial state. keep: a slot a
                                   step, as packed rows; else two slots for h in turn, and one for c */
    void *h_n, *c_n;            /* [N][padded]: final states */
    int keep;
    void *gates;                /* keep: [panel][rows][saved][VLEN] activations */
    void *extra;                /* keep: GRU_BEFORE r*h, projection o*tanh(c): [rows][padded]; else [N][padded] */
    void *scratch;              /* of this task: as many elements as plan() says */
    int turn;                   /* streams: counts the steps, as t does in a sequence */
    isize chunk;                /* set by plan(): steps whose input part is computed at once; 0: within the step */
    /* backward */
    const void *dy; isize dy_t, dy_n;
    void *dh, *dc;              /* [N][padded]: in dL/dh_n, dL/dc_n, out dL/dh_0, dL/dc_0 */
    void *dgates;               /* [panel][rows][deltas][VLEN] */
    void *dstate;               /* projection: dL/dh at every row, [rows][padded] */
    void *dpeephole;            /* [N][units][3][VLEN]: each row's own sum over its steps, cleared by the caller */
    poll_state *poll; isize work;   /* work: vector operations since the last look */
} run;

/* out[r][k] += sum over m of left[m][r] * right[m][k], for m in packed rows: weight gradients. */
typedef struct {
    const void *left; isize left_step;              /* rows of `left` lie left_step apart */
    const void *right; isize right_step, right_panel;   /* vectors: right + panel * right_panel + m * right_step */
    isize rows, depth, width, p0, p1;               /* m, r, vectors in a panel, this task's panels */
    void *out;                                      /* [panels][depth][width][VLEN], cleared by the kernel */
    void *bias;                                     /* [panels][width][VLEN]: column sums of right, or NULL */
    poll_state *poll; isize work;
} outer_product;

/* out[m][o] = bias[o] + sum over k of left[m][k] * w[k][o] for rows m0..m1: input gradients, affine maps. */
typedef struct {
    const matrix *w;
    const void *left; isize left_row, left_outer;   /* rows, and the blocks of the summed index */
    void *out; isize out_row, columns;
    isize m0, m1;
    const void *bias;                               /* [panels][width][VLEN], or NULL: zero */
    poll_state *poll; isize work;
} product;

/* One optimizer's step over the n elements of a parameter (update.pxi). What a rule keeps: SGD first = momentum or
 * NULL; RMSPROP first = momentum or NULL, second = square, third = mean or NULL; ADAM first = mean, second = square. */
enum { SGD, RMSPROP, ADAM };

typedef struct {
    double rate, decay, shrink;         /* ADAM: rate is lr / (1 - beta1^t); parameters are first multiplied by shrink */
    double momentum, fresh, fresh_square;       /* the shares that are kept of the old, and taken of the new */
    double eps, scale;                  /* ADAM: scale is 1 / sqrt(1 - beta2^t) */
    int nesterov;
} update_numbers;

typedef struct {
    int rule;
    update_numbers by;
    isize n;
    const void *p, *g;                  /* parameter, gradient */
    void *out, *first, *second, *third; /* out overlaps nothing */
} update_rule;

typedef struct {
    isize vlen, itemsize;
    int (*forward)(run *);      /* every int result: 0, or -1 when cancelled */
    int (*backward)(run *);
    int (*accumulate)(outer_product *);
    int (*multiply)(product *);
    isize (*plan)(run *);       /* before a pass: sets chunk, gives the size of scratch */
    void (*read)(const void *, isize);      /* reads n bytes once: the step's lower bound, for benchmarks */
    void (*tanh)(void *, const void *, isize);
    void (*sigmoid)(void *, const void *, isize);
    int (*update)(update_rule *);
    double (*squares)(const void *, isize);     /* the sum of n squares */
    /* A parameter w[gates * size][depth] (strides row, column) to and from the packed form, whose vector
       unit * gates + g holds rows gate[g] * size + unit * VLEN ...; pack_t packs the transpose, its summed
       index in the order [unit][g][VLEN] of the gate gradients. */
    void (*pack)(void *out, const void *w, isize row, isize column, isize size, isize units,
                 const int *gate, isize gates, isize width, isize depth);
    void (*unpack)(void *w, const void *in, isize row, isize column, isize size, isize units,
                   const int *gate, isize gates, isize width, isize depth);
    void (*pack_t)(void *out, const void *w, isize row, isize column, isize size, isize units,
                   const int *gate, isize gates, isize panels, isize width, isize columns);
} kernel_table;

#endif
