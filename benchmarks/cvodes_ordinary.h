/* f and its derivatives along all inputs for the two problems that are not stiff; benchmarks/cvodes.py defines which. */

#include <math.h>

#ifdef LOTKA_VOLTERRA

static void problem_f(const double *u, const double *th, double *du) {
    double both = u[0] * u[1];
    du[0] = th[0] * u[0] - th[1] * both;
    du[1] = th[3] * both - th[2] * u[1];
}

static void problem_tangents(const double *u, const double *th, const double *const *s, double *const *ds) {
    double a = th[0] - th[1] * u[1], b = -th[1] * u[0], c = th[3] * u[1], d = th[3] * u[0] - th[2], both = u[0] * u[1];
    for (int j = 0; j < N + M; j++) {
        ds[j][0] = a * s[j][0] + b * s[j][1];
        ds[j][1] = c * s[j][0] + d * s[j][1];
    }
    ds[N][0] += u[0];
    ds[N + 1][0] -= both;
    ds[N + 2][1] -= u[1];
    ds[N + 3][1] += both;
}

#else /* the spiral: W1 (HIDDEN, 2), b1, W2 (2, HIDDEN), b2, rows first */

#define HIDDEN ((M - 2) / 5)
#define B1 (2 * HIDDEN)
#define ROW_1 (3 * HIDDEN)
#define ROW_2 (4 * HIDDEN)
#define B2 (5 * HIDDEN)

static void problem_f(const double *u, const double *th, double *du) {
    double x = u[0] * u[0] * u[0], y = u[1] * u[1] * u[1], first = th[B2], second = th[B2 + 1];
    for (int i = 0; i < HIDDEN; i++) {
        double active = tanh(th[2 * i] * x + th[2 * i + 1] * y + th[B1 + i]);
        first += th[ROW_1 + i] * active;
        second += th[ROW_2 + i] * active;
    }
    du[0] = first;
    du[1] = second;
}

static void problem_tangents(const double *u, const double *th, const double *const *s, double *const *ds) {
    double x = u[0] * u[0] * u[0], y = u[1] * u[1] * u[1], by_x = 3.0 * u[0] * u[0], by_y = 3.0 * u[1] * u[1];
    double a = 0.0, b = 0.0, c = 0.0, d = 0.0, active[HIDDEN], slope[HIDDEN];
    for (int i = 0; i < HIDDEN; i++) active[i] = tanh(th[2 * i] * x + th[2 * i + 1] * y + th[B1 + i]);
    for (int i = 0; i < HIDDEN; i++) {
        slope[i] = 1.0 - active[i] * active[i];
        a += th[ROW_1 + i] * slope[i] * th[2 * i];
        b += th[ROW_1 + i] * slope[i] * th[2 * i + 1];
        c += th[ROW_2 + i] * slope[i] * th[2 * i];
        d += th[ROW_2 + i] * slope[i] * th[2 * i + 1];
    }
    a *= by_x, b *= by_y, c *= by_x, d *= by_y;
    for (int j = 0; j < N + M; j++) {
        ds[j][0] = a * s[j][0] + b * s[j][1];
        ds[j][1] = c * s[j][0] + d * s[j][1];
    }
    for (int i = 0; i < HIDDEN; i++) {
        double first = th[ROW_1 + i] * slope[i], second = th[ROW_2 + i] * slope[i];
        ds[N + 2 * i][0] += first * x, ds[N + 2 * i][1] += second * x;
        ds[N + 2 * i + 1][0] += first * y, ds[N + 2 * i + 1][1] += second * y;
        ds[N + B1 + i][0] += first, ds[N + B1 + i][1] += second;
        ds[N + ROW_1 + i][0] += active[i];
        ds[N + ROW_2 + i][1] += active[i];
    }
    ds[N + B2][0] += 1.0;
    ds[N + B2 + 1][1] += 1.0;
}

#endif
