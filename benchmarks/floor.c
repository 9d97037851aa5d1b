/*
 * What a value and its gradient cost on this machine when one problem is written out in C: one translation unit, nothing but
 * inlined arithmetic, no Python, no callbacks, no allocation in the loops. benchmarks/floor.py builds and calls it.
 *
 *     gcc -O3 -march=native [-ffast-math] -fPIC (-DLOTKA_VOLTERRA | -DSPIRAL) -c floor.c
 *     gcc -shared floor.o -o floor.so -lmvec -lm
 *
 * The method is Tsit5 with its free interpolant (Tsitouras 2011), the starting step and the PI control those of Hairer, Norsett,
 * Wanner I, II.4, with the constants of adjode/loops/control.py, so that both take about the same steps. Algorithms:
 *
 *     AUGMENTED    continuous adjoint along the dense output, theta_bar a part of the state and of its error norm
 *     QUADRATURE   the same, theta_bar summed with the weights of the method, the error norm that of lam alone
 *     DISCRETE     the transpose of the steps that were taken, with stages and activations kept by the forward pass
 *     FORWARD      the solution and the loss only
 *
 * The loss is a sum over observation times: of u[0] + u[1] (Lotka-Volterra), or of squared residuals (spiral).
 * Work arrays are static: one thread at a time.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N 2 /* states */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum algorithm { AUGMENTED, QUADRATURE, DISCRETE, FORWARD };
enum status { OK, NO_MEMORY, NOT_FINITE };

/* --- the two problems: f, and the products with its transposed Jacobians ------------------------------------------------ */

/* A Point is a place (t, u) of the trajectory with what `slope` left there for the products: the activations of a network, and
 * after `product_u` their cotangents. `product_theta` adds several points in one pass, because theta_bar may be long. */

#if defined LOTKA_VOLTERRA

#define M 4 /* parameters */

typedef struct { double a, b, c, d; } Model;
typedef struct { double u[N]; } Point;

INLINE void read_theta(Model *m, const double *theta)
{
    m->a = theta[0], m->b = theta[1], m->c = theta[2], m->d = theta[3];
}

INLINE void write_theta_bar(const double *sum, double *theta_bar)
{
    memcpy(theta_bar, sum, M * sizeof(double));
}

INLINE void prepare(const Model *m, Point *p)
{
    (void)m, (void)p;
}

INLINE void slope(const Model *m, Point *p, double du[N])
{
    double both = p->u[0] * p->u[1];
    du[0] = m->a * p->u[0] - m->b * both;
    du[1] = m->d * both - m->c * p->u[1];
}

INLINE void product_u(const Model *m, Point *p, const double lam[N], double u_bar[N])
{
    double both_bar = m->d * lam[1] - m->b * lam[0];
    u_bar[0] = m->a * lam[0] + both_bar * p->u[1];
    u_bar[1] = both_bar * p->u[0] - m->c * lam[1];
}

/* sum[k] = (sum[k] if `add`) + the sum over j of weights[j] (df/dtheta)^T lam at points[j] */
INLINE void product_theta(int count, const Point *p, const double (*lam)[N], const double *weights, int add, double *restrict sum)
{
    double s[M] = {0};
    UNROLL for (int j = 0; j < count; j++) {
        double l0 = weights[j] * lam[j][0], l1 = weights[j] * lam[j][1], both = p[j].u[0] * p[j].u[1];
        s[0] += l0 * p[j].u[0];
        s[1] -= l0 * both;
        s[2] -= l1 * p[j].u[1];
        s[3] += l1 * both;
    }
    for (int k = 0; k < M; k++) sum[k] = add ? sum[k] + s[k] : s[k];
}

INLINE double loss(const double *data, const double u[N], double u_bar[N])
{
    (void)data;
    u_bar[0] = u_bar[1] = 1.0;
    return u[0] + u[1];
}

#elif defined SPIRAL

#define H 50 /* hidden units */
#define M (5 * H + 2)

/* inside, the weights of one input or of one output lie together: columns of W1, b1, rows of W2, b2 */
typedef struct { double x[H], y[H], bias[H], first[H], second[H], shift[N]; } Model;
typedef struct { double u[N], active[H], bar[H]; } Point;

INLINE void read_theta(Model *m, const double *theta)
{
    for (int i = 0; i < H; i++) m->x[i] = theta[2 * i], m->y[i] = theta[2 * i + 1];
    memcpy(m->bias, theta + 2 * H, (3 * H + N) * sizeof(double));
}

INLINE void write_theta_bar(const double *sum, double *theta_bar)
{
    for (int i = 0; i < H; i++) theta_bar[2 * i] = sum[i], theta_bar[2 * i + 1] = sum[H + i];
    memcpy(theta_bar + 2 * H, sum + 2 * H, (3 * H + N) * sizeof(double));
}

INLINE double cube(double x)
{
    return x * x * x;
}

INLINE void prepare(const Model *restrict m, Point *restrict p)
{
    double x = cube(p->u[0]), y = cube(p->u[1]);
    for (int i = 0; i < H; i++) p->active[i] = tanh(m->x[i] * x + m->y[i] * y + m->bias[i]);
}

INLINE void slope(const Model *restrict m, Point *restrict p, double du[N])
{
    prepare(m, p);
    double first = m->shift[0], second = m->shift[1];
    for (int i = 0; i < H; i++) {
        first += m->first[i] * p->active[i];
        second += m->second[i] * p->active[i];
    }
    du[0] = first, du[1] = second;
}

INLINE void product_u(const Model *restrict m, Point *restrict p, const double lam[N], double u_bar[N])
{
    double l0 = lam[0], l1 = lam[1], x_bar = 0.0, y_bar = 0.0;
    for (int i = 0; i < H; i++) {
        double bar = (l0 * m->first[i] + l1 * m->second[i]) * (1.0 - p->active[i] * p->active[i]);
        p->bar[i] = bar;
        x_bar += bar * m->x[i];
        y_bar += bar * m->y[i];
    }
    u_bar[0] = 3.0 * p->u[0] * p->u[0] * x_bar;
    u_bar[1] = 3.0 * p->u[1] * p->u[1] * y_bar;
}

INLINE void product_theta(int count, const Point *p, const double (*lam)[N], const double *weights, int add, double *restrict sum)
{
    double x[7], y[7], l0[7], l1[7];
    for (int j = 0; j < count; j++) {
        x[j] = weights[j] * cube(p[j].u[0]), y[j] = weights[j] * cube(p[j].u[1]);
        l0[j] = weights[j] * lam[j][0], l1[j] = weights[j] * lam[j][1];
    }
    if (!add) memset(sum, 0, M * sizeof(double));
    for (int i = 0; i < H; i++) {
        double s[5] = {0};
        UNROLL for (int j = 0; j < count; j++) {
            double bar = p[j].bar[i], active = p[j].active[i];
            s[0] += x[j] * bar;
            s[1] += y[j] * bar;
            s[2] += weights[j] * bar;
            s[3] += l0[j] * active;
            s[4] += l1[j] * active;
        }
        for (int k = 0; k < 5; k++) sum[k * H + i] += s[k];
    }
    for (int j = 0; j < count; j++) sum[5 * H] += l0[j], sum[5 * H + 1] += l1[j];
}

INLINE double loss(const double *data, const double u[N], double u_bar[N])
{
    double r0 = u[0] - data[0], r1 = u[1] - data[1];
    u_bar[0] = 2.0 * r0, u_bar[1] = 2.0 * r1;
    return r0 * r0 + r1 * r1;
}

#else
#error "compile with -DLOTKA_VOLTERRA or -DSPIRAL"
#endif

/* --- the method ----------------------------------------------------------------------------------------------------------- */

#define STAGES 6 /* and a seventh, the first of the next step */
#define ORDER 5

static const double C[7] = {0.0, 0.161, 0.327, 0.9, 0.98002554090450968, 1.0, 1.0};
static const double A[7][6] = { /* the last row holds the weights of the step */
    {0.0},
    {0.161},
    {-0.0084806554923569885, 0.33548065549235699},
    {2.8971530571054934, -6.3594484899750748, 4.3622954328695814},
    {5.3258648284392566, -11.748883564062828, 7.4955393428898362, -0.092495066361755249},
    {5.8614554429464200, -12.920969317847109, 8.1593678985761586, -0.071584973281400997, -0.028269050394068384},
    {0.096460766818065230, 0.01, 0.47988965041449957, 1.3790085741037419, -3.2900695154360807, 2.3247105240997740},
};
static const double E[7] = { /* the weights less those of the embedded method */
    0.0017800110521257715, 0.00081643445965674691, -0.0078808780102619953, 0.14471100717326291,
    -0.58235716545255523, 0.45808210592918697, -0.015151515151515152,
};
static const double D[4][7] = { /* dense output: powers 1 to 4 of the fraction of the step */
    {1.0},
    {-2.7637061972748258, 0.13170, 3.9302962368947516, -12.411077166933676, 37.509313416511041, -27.896526289197286, 1.5},
    {2.9132554618219126, -0.2234, -5.9410338721315048, 30.338188630282321, -88.178904894766404, 65.091894674793664, -4.0},
    {-1.0530884977290216, 0.1017, 2.4906272856512528, -16.548102889244902, 47.379521962819283, -34.870657861496611, 2.5},
};

INLINE double larger(double x, double y)
{
    return x > y ? x : y;
}

INLINE double smaller(double x, double y)
{
    return x < y ? x : y;
}

/* y + h sum_j weights[j] k[j] */
INLINE void combine(int count, const double *weights, const double (*k)[N], const double y[N], double h, double out[N])
{
    for (int i = 0; i < N; i++) {
        double s = 0.0;
        UNROLL for (int j = 0; j < count; j++) s += weights[j] * k[j][i];
        out[i] = y[i] + h * s;
    }
}

INLINE double scaled_square(double error, double old, double new, double atol, double rtol)
{
    double ratio = error / (atol + rtol * larger(fabs(old), fabs(new)));
    return ratio * ratio;
}

INLINE double sum_of_squares(const double (*k)[N], double h, const double old[N], const double new[N], double atol, double rtol)
{
    double error[N], sum = 0.0, zero[N] = {0};
    combine(7, E, k, zero, h, error);
    for (int i = 0; i < N; i++) sum += scaled_square(error[i], old[i], new[i], atol, rtol);
    return sum;
}

/* the factor of the next step after a mean square error `square`; *previous is the logarithm of the last accepted error */
INLINE double step_factor(double square, double *previous)
{
    const double beta = 0.1, k = ORDER;
    if (square == 0.0) return *previous = log(1e-4), 10.0;
    double error = 0.5 * log(square);
    if (square > 1.0) return larger(0.2, 0.9 * exp(-error / k));
    double factor = 0.9 * exp(((0.75 * beta - 1.0) * error + beta * *previous) / k);
    *previous = larger(error, log(1e-4));
    return smaller(10.0, larger(0.2, factor));
}

/* --- forward -------------------------------------------------------------------------------------------------------------- */

typedef struct { double t, h, u[N], dense[4][N]; } Step;
typedef struct { Point at[STAGES]; } Stages; /* of one step; its seventh is at[0] of the next */

typedef struct {
    Model model;
    double t0, T, tol;
    int keep; /* the stages of all steps, for the discrete adjoint */
    int count, capacity;
    Step *step;
    Stages *stages; /* capacity + 1 of them */
    double u_T[N];
    long n_f, n_vjp, n_back;
} Run;

static Run run_;

static int reserve(Run *r, int capacity)
{
    if (capacity <= r->capacity) return OK;
    Step *step = realloc(r->step, capacity * sizeof(Step));
    if (step) r->step = step;
    Stages *stages = realloc(r->stages, (capacity + 1) * sizeof(Stages));
    if (stages) r->stages = stages;
    if (!step || !stages) return NO_MEMORY;
    r->capacity = capacity;
    return OK;
}

INLINE double root_mean_square(const double x[N], const double y[N], double tol)
{
    double sum = 0.0;
    for (int i = 0; i < N; i++) sum += scaled_square(x[i], y[i], y[i], tol, tol);
    return sqrt(sum / N);
}

static double first_step(Run *r, const double u[N], const double k[N])
{
    Point trial;
    double h0, h1, d1 = root_mean_square(k, u, r->tol), bent[N];
    h0 = smaller(r->T - r->t0, 0.01 * root_mean_square(u, u, r->tol) / d1);
    for (int i = 0; i < N; i++) trial.u[i] = u[i] + h0 * k[i];
    slope(&r->model, &trial, bent);
    r->n_f++;
    for (int i = 0; i < N; i++) bent[i] = (bent[i] - k[i]) / h0;
    h1 = pow(0.01 / larger(d1, root_mean_square(bent, u, r->tol)), 1.0 / ORDER);
    return smaller(smaller(100.0 * h0, h1), r->T - r->t0);
}

static int forward(Run *r, const double u0[N])
{
    double k[7][N], u_new[N] = {0}, t = r->t0, previous = log(1e-4);
    r->count = 0;
    memcpy(r->stages[0].at[0].u, u0, sizeof u_new);
    slope(&r->model, &r->stages[0].at[0], k[0]);
    r->n_f++;
    double h = first_step(r, u0, k[0]);
    while (t < r->T) {
        if (r->count + 1 >= r->capacity && reserve(r, 2 * r->capacity)) return NO_MEMORY;
        int last = t + h * 1.0000001 >= r->T;
        if (last) h = r->T - t;
        Stages *here = &r->stages[r->keep ? r->count : r->count & 1];
        Stages *next = &r->stages[r->keep ? r->count + 1 : (r->count + 1) & 1];
        const double *u = here->at[0].u;
        UNROLL for (int j = 1; j < 7; j++) {
            Point *p = j < STAGES ? &here->at[j] : &next->at[0];
            combine(j, A[j], k, u, h, p->u);
            slope(&r->model, p, k[j]);
        }
        r->n_f += 6;
        memcpy(u_new, next->at[0].u, sizeof u_new);
        double square = sum_of_squares(k, h, u, u_new, r->tol, r->tol) / N;
        if (!(square < 1e300)) return NOT_FINITE;
        double factor = step_factor(square, &previous);
        if (square <= 1.0) {
            Step *s = &r->step[r->count++];
            const double zero[N] = {0};
            s->t = t, s->h = h;
            memcpy(s->u, u, sizeof s->u);
            UNROLL for (int power = 0; power < 4; power++) combine(7, D[power], k, zero, h, s->dense[power]);
            memcpy(k[0], k[6], sizeof k[0]);
            t = last ? r->T : t + h;
        }
        h *= factor;
    }
    memcpy(r->u_T, u_new, sizeof u_new);
    return OK;
}

INLINE void interpolate(const Step *s, double t, double u[N])
{
    double x = (t - s->t) / s->h;
    for (int i = 0; i < N; i++)
        u[i] = s->u[i] + x * (s->dense[0][i] + x * (s->dense[1][i] + x * (s->dense[2][i] + x * s->dense[3][i])));
}

/* --- observations ---------------------------------------------------------------------------------------------------------- */

#define MOST_OBSERVATIONS 1024

typedef struct {
    int count;
    const double *times, *data; /* times rise */
    int step[MOST_OBSERVATIONS];
    double u_bar[MOST_OBSERVATIONS][N];
} Observations;

static Observations observations_;

/* the value of the loss; leaves its cotangents */
static double observe(const Run *r, Observations *o)
{
    double value = 0.0, u[N];
    for (int k = 0, s = 0; k < o->count; k++) {
        while (s < r->count - 1 && o->times[k] > r->step[s].t + r->step[s].h) s++;
        o->step[k] = s;
        if (o->times[k] >= r->T) memcpy(u, r->u_T, sizeof u);
        else interpolate(&r->step[s], o->times[k], u);
        value += loss(o->data + N * k, u, o->u_bar[k]);
    }
    return value;
}

/* as adjode has it: tolerances of lam follow the size of the cotangents */
static double cotangent_atol(const Run *r, const Observations *o)
{
    double size = 0.0;
    for (int k = 0; k < o->count; k++)
        for (int i = 0; i < N; i++) size = larger(size, fabs(o->u_bar[k][i]));
    return size > 0.0 ? r->tol * size : r->tol;
}

/* --- continuous adjoint: -lam' = (df/du)^T lam, theta_bar = the integral of (df/dtheta)^T lam -------------------------------- */

typedef struct {
    Run *run;
    int s; /* the forward step that t lies in */
    double t, h, previous, atol, lam[N], k[7][N];
    Point at[7];
    double stage_lam[7][N];
    double theta_bar[M];
} Backward;

static Backward backward_;

/* go to t, which is near, and leave what the products there need */
INLINE void visit(Backward *b, double t, Point *p)
{
    const Run *r = b->run;
    while (b->s > 0 && t < r->step[b->s].t) b->s--;
    while (b->s < r->count - 1 && t > r->step[b->s].t + r->step[b->s].h) b->s++;
    interpolate(&r->step[b->s], t, p->u);
    prepare(&r->model, p);
}

/* lam jumps; the activations at t are still those of at[0] */
INLINE void jump(Backward *b, const double u_bar[N])
{
    for (int i = 0; i < N; i++) b->lam[i] += u_bar[i];
    memcpy(b->stage_lam[0], b->lam, sizeof b->lam);
    product_u(&b->run->model, &b->at[0], b->lam, b->k[0]);
    b->run->n_vjp++;
}

INLINE double augmented_squares(const Backward *b, double h, double *restrict trial)
{
    double weights[7], error[M], sum = 0.0, rtol = b->run->tol;
    for (int j = 0; j < 6; j++) weights[j] = h * A[6][j];
    product_theta(STAGES, b->at, b->stage_lam, weights, 0, trial);
    for (int j = 0; j < 7; j++) weights[j] = h * E[j];
    product_theta(7, b->at, b->stage_lam, weights, 0, error);
    for (int k = 0; k < M; k++) {
        trial[k] += b->theta_bar[k];
        sum += scaled_square(error[k], b->theta_bar[k], trial[k], b->atol, rtol);
    }
    return sum;
}

/* from b->t back to the earlier time `end` */
INLINE int back_to(Backward *b, double end, int augmented)
{
    double new[N], trial[M];
    while (b->t > end) {
        double h = b->h;
        int last = b->t - h * 1.0000001 <= end;
        if (last) h = b->t - end;
        UNROLL for (int j = 1; j < 7; j++) {
            combine(j, A[j], b->k, b->lam, h, b->stage_lam[j]);
            visit(b, j == 6 && last ? end : b->t - C[j] * h, &b->at[j]);
            product_u(&b->run->model, &b->at[j], b->stage_lam[j], b->k[j]);
        }
        b->run->n_vjp += 6;
        memcpy(new, b->stage_lam[6], sizeof new);
        double square = sum_of_squares(b->k, h, b->lam, new, b->atol, b->run->tol);
        if (augmented) square = (square + augmented_squares(b, h, trial)) / (N + M);
        else square /= N;
        if (!(square < 1e300)) return NOT_FINITE;
        double factor = step_factor(square, &b->previous);
        if (square > 1.0) {
            b->h = h * factor;
            continue;
        }
        if (augmented) memcpy(b->theta_bar, trial, sizeof trial);
        else {
            double weights[6];
            for (int j = 0; j < 6; j++) weights[j] = h * A[6][j];
            product_theta(STAGES, b->at, b->stage_lam, weights, 1, b->theta_bar);
        }
        b->t = last ? end : b->t - h;
        b->at[0] = b->at[6];
        memcpy(b->lam, new, sizeof new);
        memcpy(b->stage_lam[0], new, sizeof new);
        memcpy(b->k[0], b->k[6], sizeof new);
        b->h = last ? larger(b->h, h * factor) : h * factor; /* a step cut short at a stop says little about the next */
        b->run->n_back++;
    }
    return OK;
}

/* compiled once each, whatever is inlined into them */
static __attribute__((noinline)) int back_augmented(Backward *b, double end)
{
    return back_to(b, end, 1);
}

static __attribute__((noinline)) int back_quadrature(Backward *b, double end)
{
    return back_to(b, end, 0);
}

static int continuous(Run *r, const Observations *o, int augmented, double u0_bar[N], double *theta_bar)
{
    Backward *b = &backward_;
    int (*back)(Backward *, double) = augmented ? back_augmented : back_quadrature;
    int status = OK;
    b->run = r, b->s = r->count - 1, b->t = r->T, b->h = r->step[r->count - 1].h;
    b->previous = log(1e-4), b->atol = cotangent_atol(r, o);
    memset(b->lam, 0, sizeof b->lam);
    memset(b->theta_bar, 0, sizeof b->theta_bar);
    int k = o->count - 1;
    if (o->times[k] < r->T) b->t = o->times[k]; /* lam is zero after the last observation */
    visit(b, b->t, &b->at[0]);
    for (; k >= 0 && !status; k--) {
        if (o->times[k] < b->t) status = back(b, o->times[k]);
        jump(b, o->u_bar[k]);
    }
    if (!status) status = back(b, r->t0);
    memcpy(u0_bar, b->lam, sizeof b->lam);
    write_theta_bar(b->theta_bar, theta_bar);
    return status;
}

/* --- discrete adjoint: the transpose of each step, last step first ------------------------------------------------------------ */

/* cotangents of u(t_k), dense output of step s: onto its slopes and its beginning */
INLINE int transpose_observations(const Run *r, const Observations *o, int s, int k, double k_bar[7][N], double start_bar[N])
{
    const Step *step = &r->step[s];
    for (; k >= 0 && o->step[k] == s && o->times[k] < r->T; k--) {
        double x = (o->times[k] - step->t) / step->h;
        UNROLL for (int j = 0; j < 7; j++) {
            double weight = step->h * x * (D[0][j] + x * (D[1][j] + x * (D[2][j] + x * D[3][j])));
            for (int i = 0; i < N; i++) k_bar[j][i] += weight * o->u_bar[k][i];
        }
        for (int i = 0; i < N; i++) start_bar[i] += o->u_bar[k][i];
    }
    return k;
}

static void discrete(Run *r, const Observations *o, double u0_bar[N], double *theta_bar)
{
    static const double ones[7] = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0};
    double lam[N] = {0}, carried[N] = {0}, sum[M] = {0}, bar[N]; /* carried: onto the slope where the step ends */
    int k = o->count - 1;
    for (; k >= 0 && o->times[k] >= r->T; k--)
        for (int i = 0; i < N; i++) lam[i] += o->u_bar[k][i];
    for (int s = r->count - 1; s >= 0; s--) {
        double k_bar[7][N] = {{0}}, start_bar[N] = {0}, h = r->step[s].h;
        Point *at = r->stages[s].at, *end = &r->stages[s + 1].at[0];
        k = transpose_observations(r, o, s, k, k_bar, start_bar);
        for (int i = 0; i < N; i++) carried[i] += k_bar[6][i];
        product_u(&r->model, end, carried, bar);
        product_theta(1, end, &carried, ones, 1, sum);
        for (int i = 0; i < N; i++) lam[i] += bar[i];
        for (int i = 0; i < N; i++) {
            start_bar[i] += lam[i];
            UNROLL for (int j = 0; j < 6; j++) k_bar[j][i] += h * A[6][j] * lam[i];
        }
        UNROLL for (int j = 5; j > 0; j--) {
            product_u(&r->model, &at[j], k_bar[j], bar);
            for (int i = 0; i < N; i++) {
                start_bar[i] += bar[i];
                UNROLL for (int l = 0; l < j; l++) k_bar[l][i] += h * A[j][l] * bar[i];
            }
        }
        product_theta(5, at + 1, k_bar + 1, ones, 1, sum);
        memcpy(lam, start_bar, sizeof lam);
        memcpy(carried, k_bar[0], sizeof carried);
        r->n_vjp += 6;
    }
    product_u(&r->model, &r->stages[0].at[0], carried, bar);
    product_theta(1, &r->stages[0].at[0], &carried, ones, 1, sum);
    for (int i = 0; i < N; i++) u0_bar[i] = lam[i] + bar[i];
    write_theta_bar(sum, theta_bar);
}

/* --- what Python calls --------------------------------------------------------------------------------------------------------- */

typedef struct {
    const double *u0, *theta, *times, *data; /* (N,), (M,), (count,), (count, N) */
    double t0, T, tol;                       /* rtol = atol = tol */
    int count, algorithm;
} Input;

typedef struct {
    double value, u0_bar[N], theta_bar[M];
    long steps, steps_back, n_f, n_vjp;
} Output;

int floor_gradient(const Input *in, Output *out)
{
    Run *r = &run_;
    Observations *o = &observations_;
    int status = reserve(r, 256);
    if (status || in->count > MOST_OBSERVATIONS) return NO_MEMORY;
    read_theta(&r->model, in->theta);
    r->t0 = in->t0, r->T = in->T, r->tol = in->tol, r->keep = in->algorithm == DISCRETE;
    r->n_f = r->n_vjp = r->n_back = 0;
    o->count = in->count, o->times = in->times, o->data = in->data;
    status = forward(r, in->u0);
    if (status) return status;
    out->value = observe(r, o);
    switch (in->algorithm) {
    case AUGMENTED: status = continuous(r, o, 1, out->u0_bar, out->theta_bar); break;
    case QUADRATURE: status = continuous(r, o, 0, out->u0_bar, out->theta_bar); break;
    case DISCRETE: discrete(r, o, out->u0_bar, out->theta_bar); break;
    }
    out->steps = r->count, out->steps_back = r->n_back, out->n_f = r->n_f, out->n_vjp = r->n_vjp;
    return status;
}

/* seconds for one evaluation, mean of `repeats` */
double floor_seconds(const Input *in, Output *out, int repeats)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < repeats; i++) floor_gradient(in, out);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec)) / repeats;
}
