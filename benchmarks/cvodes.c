/* CVODES (SUNDIALS 6) with its continuous adjoint, for one problem: benchmarks/cvodes.py writes the header that describes it.

The header defines N, M, K, TIMES, WEIGHTS, SCALES, T0 and the functions

    problem_f(u, th, du)                      du = f
    problem_back(u, th, l, lb, qb)            lb = -(df/du)^T l if lb is not null, qb = -(df/dtheta)^T l if qb is not null
    problem_jac(u, th, J) (dense)             J[j][i] = df_i / du_j where it is not zero
    problem_entry(k, u, th, transposed) (SPARSE)   entry k of df/du, or of its transpose, by columns: COLUMNS, ROWS, ENTRIES

Observations: the backward problem is stopped at each, the weights are added to lambda, and it starts anew there. */

#include <cvodes/cvodes.h>
#include <math.h>
#include <nvector/nvector_serial.h>
#include <stdlib.h>
#include <sunlinsol/sunlinsol_dense.h>
#include <sunlinsol/sunlinsol_klu.h>
#include <sunmatrix/sunmatrix_dense.h>
#include <sunmatrix/sunmatrix_sparse.h>

#include "problem.h"

#define STEPS_BETWEEN_CHECKPOINTS 1000
#define CHECK(call)       \
    if ((call) < 0) {     \
        status = __LINE__; \
        goto end;         \
    }

static int f(realtype t, N_Vector u, N_Vector du, void *theta) {
    problem_f(N_VGetArrayPointer(u), theta, N_VGetArrayPointer(du));
    return 0;
}

static int back(realtype t, N_Vector u, N_Vector l, N_Vector dl, void *theta) {
    problem_back(N_VGetArrayPointer(u), theta, N_VGetArrayPointer(l), N_VGetArrayPointer(dl), NULL);
    return 0;
}

static int integrand(realtype t, N_Vector u, N_Vector l, N_Vector q, void *theta) {
    problem_back(N_VGetArrayPointer(u), theta, N_VGetArrayPointer(l), NULL, N_VGetArrayPointer(q));
    return 0;
}

#ifdef SPARSE
static void fill(const double *u, const double *theta, SUNMatrix J, int transposed) {
    for (int j = 0; j <= N; j++) SM_INDEXPTRS_S(J)[j] = COLUMNS[j];
    for (int k = 0; k < ENTRIES; k++) {
        SM_INDEXVALS_S(J)[k] = ROWS[k];
        SM_DATA_S(J)[k] = (transposed ? -1 : 1) * problem_entry(k, u, theta, transposed);
    }
}
#else
static void fill(const double *u, const double *theta, SUNMatrix J, int transposed) {
    double dense[N][N] = {{0.0}}; /* problem_jac writes what is not zero */
    problem_jac(u, theta, dense);
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) SM_ELEMENT_D(J, i, j) = transposed ? -dense[i][j] : dense[j][i];
}
#endif

static int jac(realtype t, N_Vector u, N_Vector du, SUNMatrix J, void *theta, N_Vector a, N_Vector b, N_Vector c) {
    fill(N_VGetArrayPointer(u), theta, J, 0);
    return 0;
}

static int jac_back(realtype t, N_Vector u, N_Vector l, N_Vector dl, SUNMatrix J, void *theta, N_Vector a, N_Vector b, N_Vector c) {
    fill(N_VGetArrayPointer(u), theta, J, 1);
    return 0;
}

static SUNMatrix new_matrix(SUNContext context) {
#ifdef SPARSE
    return SUNSparseMatrix(N, N, ENTRIES, CSC_MAT, context);
#else
    return SUNDenseMatrix(N, N, context);
#endif
}

static SUNLinearSolver new_solver(N_Vector u, SUNMatrix J, SUNContext context) {
#ifdef SPARSE
    return SUNLinSol_KLU(u, J, context);
#else
    return SUNLinSol_Dense(u, J, context);
#endif
}

/* 0, or the line of the call that failed */
int cvodes_gradient(const double *u0, double *theta, double tol, double *value, double *u0_bar, double *theta_bar) {
    int status = 0, which = 0, checkpoints;
    realtype t;
    SUNContext context;
    if (SUNContext_Create(NULL, &context)) return __LINE__;
    N_Vector u = N_VNew_Serial(N, context), l = N_VNew_Serial(N, context), atol = N_VNew_Serial(N, context);
    N_Vector q = N_VNew_Serial(M, context), q_atol = N_VNew_Serial(M, context);
    SUNMatrix J = new_matrix(context), J_back = new_matrix(context);
    SUNLinearSolver solver = new_solver(u, J, context), solver_back = new_solver(l, J_back, context);
    void *mem = CVodeCreate(CV_BDF, context);
    double largest = 0.0, *state = N_VGetArrayPointer(u), *lambda = N_VGetArrayPointer(l);

    for (int i = 0; i < N; i++) {
        state[i] = u0[i];
        N_VGetArrayPointer(atol)[i] = tol * SCALES[i];
        largest = fmax(largest, fabs(WEIGHTS[i]));
    }
    CHECK(CVodeInit(mem, f, T0, u));
    CHECK(CVodeSVtolerances(mem, tol, atol));
    CHECK(CVodeSetUserData(mem, theta));
    CHECK(CVodeSetMaxNumSteps(mem, 1000000));
    CHECK(CVodeSetErrFile(mem, NULL));
    CHECK(CVodeSetLinearSolver(mem, solver, J));
    CHECK(CVodeSetJacFn(mem, jac));
    CHECK(CVodeAdjInit(mem, STEPS_BETWEEN_CHECKPOINTS, CV_POLYNOMIAL));
    *value = 0.0;
    for (int k = 0; k < K; k++) {
        CHECK(CVodeF(mem, TIMES[k], u, &t, CV_NORMAL, &checkpoints));
        for (int i = 0; i < N; i++) *value += WEIGHTS[i] * state[i];
    }

    for (int i = 0; i < N; i++) lambda[i] = WEIGHTS[i];
    for (int i = 0; i < M; i++) {
        N_VGetArrayPointer(q)[i] = 0.0;
        N_VGetArrayPointer(q_atol)[i] = tol / fabs(theta[i]);
    }
    CHECK(CVodeCreateB(mem, CV_BDF, &which));
    CHECK(CVodeInitB(mem, which, back, TIMES[K - 1], l));
    CHECK(CVodeSStolerancesB(mem, which, tol, tol * largest));
    CHECK(CVodeSetUserDataB(mem, which, theta));
    CHECK(CVodeSetMaxNumStepsB(mem, which, 1000000));
    CHECK(CVodeSetLinearSolverB(mem, which, solver_back, J_back));
    CHECK(CVodeSetJacFnB(mem, which, jac_back));
    CHECK(CVodeQuadInitB(mem, which, integrand, q));
    CHECK(CVodeQuadSVtolerancesB(mem, which, tol, q_atol));
    CHECK(CVodeSetQuadErrConB(mem, which, 1));
    for (int k = K - 1; k >= 0; k--) {
        realtype stop = k > 0 ? TIMES[k - 1] : T0;
        CHECK(CVodeB(mem, stop, CV_NORMAL));
        CHECK(CVodeGetB(mem, which, &t, l));
        CHECK(CVodeGetQuadB(mem, which, &t, q));
        if (k > 0) {
            for (int i = 0; i < N; i++) lambda[i] += WEIGHTS[i];
            CHECK(CVodeReInitB(mem, which, stop, l));
            CHECK(CVodeQuadReInitB(mem, which, q));
        }
    }
    for (int i = 0; i < N; i++) u0_bar[i] = lambda[i];
    for (int i = 0; i < M; i++) theta_bar[i] = N_VGetArrayPointer(q)[i];

end:
    CVodeFree(&mem);
    SUNLinSolFree(solver), SUNLinSolFree(solver_back), SUNMatDestroy(J), SUNMatDestroy(J_back);
    N_VDestroy(u), N_VDestroy(l), N_VDestroy(atol), N_VDestroy(q), N_VDestroy(q_atol);
    SUNContext_Free(&context);
    return status;
}
