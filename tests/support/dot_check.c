/* What narrow.h promises, beside plain C: compiled for another machine by a test, and run on it or in an emulator. */
#include <stdio.h>
#include <stdlib.h>

#include "narrow.h"

static void expect(int condition, const char *what)
{
    if (!condition) {
        printf("wrong: %s\n", what);
        exit(1);
    }
}

static signed char number(void) { return (signed char)(rand() % 8 ? rand() % 255 - 127 : rand() % 2 ? 127 : -127); }

/* Sums of 4 * GROUPS products of every lane, from the instruction for four products or without it. */
enum { GROUPS = 300 };

static void check_sums(const int fast)
{
    static signed char w[GROUPS * VLEN * 4] __attribute__((aligned(64)));
    static int32_t start[VLEN] __attribute__((aligned(64)));
    signed char v[GROUPS * 4], given[GROUPS * 4];
    bits sums[VLEN];
    dot_acc acc;
    vi total;
    for (int i = 0; i < GROUPS * VLEN * 4; i++) w[i] = number();
    for (int i = 0; i < GROUPS * 4; i++) {
        v[i] = number();
        given[i] = (signed char)(fast ? v[i] ^ FLIP : v[i]);
    }
    for (int l = 0; l < VLEN; l++) {
        start[l] = 0;
        for (int k = 0; k < GROUPS * 4; k++) start[l] -= (FLIP ? 128 : 0) * w[k / 4 * VLEN * 4 + l * 4 + k % 4];
    }
    acc = fast ? dot_start(start) : dot_zero();
    for (int k = 0; k < GROUPS; k++)
        acc = fast ? dot(acc, dot_weights(w + k * VLEN * 4), dot_spread(given + k * 4), 1)
                   : dot(acc, dot_weights(w + k * VLEN * 4), dot_spread(given + k * 4), 0);
    total = dot_sums(acc, fast);
    memcpy(sums, &total, sizeof sums);
    for (int l = 0; l < VLEN; l++) {
        int32_t wanted = 0;
        for (int k = 0; k < GROUPS * 4; k++) wanted += v[k] * w[k / 4 * VLEN * 4 + l * 4 + k % 4];
        expect(sums[l] == wanted, fast ? "sums of four products by one instruction" : "sums of products");
    }
}

static void check_rounding(void)
{
    static const real halves[8] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f, 3.4999998f, -127};
    static const signed char wanted[8] = {0, 2, 2, 0, -2, 126, 3, -127};
    real x[VLEN];
    signed char out[64];
    for (int i = 0; i < 8; i++) {
        for (int l = 0; l < VLEN; l++) x[l] = halves[(i + l) % 8];
        store_bytes(out, vload(x), 0);
        for (int l = 0; l < VLEN; l++) expect(out[l] == wanted[(i + l) % 8], "rounding to bytes");
    }
}

static void check_lanes(void)
{
    real x[VLEN], y[VLEN];
    for (int at = 0; at < VLEN; at++) {
        for (int l = 0; l < VLEN; l++) {
            x[l] = (real)(l % 7) - 3;
            y[l] = l == at ? REAL(-99.5) : 1;
        }
        expect(largest_lane(vi_max(abs_bits(vload(x)), abs_bits(vload(y)))) == REAL(99.5), "the largest number");
    }
}

int main(void)
{
    check_sums(0);
    if (HAS_DOT) check_sums(1);
    check_rounding();
    check_lanes();
    return 0;
}
