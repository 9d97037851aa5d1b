/* The Brusselator on a periodic grid; POINTS, INSIDE and the pattern come from benchmarks/cvodes.py. */

#define LEFT(i) (((i) + POINTS - 1) % POINTS)
#define RIGHT(i) (((i) + 1) % POINTS)
#define AT(x, i, j, part) x[2 * ((i)*POINTS + (j)) + (part)]
#define LAPLACIAN(x, i, j, part) \
    (AT(x, LEFT(i), j, part) + AT(x, RIGHT(i), j, part) + AT(x, i, LEFT(j), part) + AT(x, i, RIGHT(j), part) - 4.0 * AT(x, i, j, part))

static void problem_f(const double *u, const double *th, double *du) {
    double d = th[2] * POINTS * POINTS;
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < POINTS; j++) {
            double x = AT(u, i, j, 0), y = AT(u, i, j, 1), xxy = x * x * y;
            AT(du, i, j, 0) = th[1] + xxy - (th[0] + 1.0) * x + d * LAPLACIAN(u, i, j, 0) + th[3] * INSIDE[i * POINTS + j];
            AT(du, i, j, 1) = th[0] * x - xxy + d * LAPLACIAN(u, i, j, 1);
        }
}

static void problem_back(const double *u, const double *th, const double *l, double *lb, double *qb) {
    double d = th[2] * POINTS * POINTS, a = th[0], bars[4] = {0.0, 0.0, 0.0, 0.0};
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < POINTS; j++) {
            double x = AT(u, i, j, 0), y = AT(u, i, j, 1), p = AT(l, i, j, 0), q = AT(l, i, j, 1);
            if (lb) {
                AT(lb, i, j, 0) = -(d * LAPLACIAN(l, i, j, 0) + (p - q) * 2.0 * x * y - (a + 1.0) * p + a * q);
                AT(lb, i, j, 1) = -(d * LAPLACIAN(l, i, j, 1) + (p - q) * x * x);
            }
            if (qb) {
                bars[0] += (q - p) * x;
                bars[1] += p;
                bars[2] += p * LAPLACIAN(u, i, j, 0) + q * LAPLACIAN(u, i, j, 1);
                bars[3] += p * INSIDE[i * POINTS + j];
            }
        }
    if (qb) {
        for (int k = 0; k < 4; k++) qb[k] = -bars[k];
        qb[2] *= POINTS * POINTS;
    }
}

/* Kinds: 0 a neighbour; 1 du'/du; 2 dv'/dv; 3 dv'/du; 4 du'/dv. Transposed, the last two change places. */
static double problem_entry(int k, const double *u, const double *th, int transposed) {
    double d = th[2] * POINTS * POINTS, x = u[2 * CELLS[k]], y = u[2 * CELLS[k] + 1];
    int kind = KINDS[k] >= 3 && transposed ? 7 - KINDS[k] : KINDS[k];
    switch (kind) {
        case 0: return d;
        case 1: return -4.0 * d + 2.0 * x * y - (th[0] + 1.0);
        case 2: return -4.0 * d - x * x;
        case 3: return th[0] - 2.0 * x * y;
        default: return x * x;
    }
}
