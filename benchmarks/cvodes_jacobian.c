/* CVODES (SUNDIALS 6) with its forward sensitivities, for the residuals of one problem: benchmarks/cvodes.py writes the header that
describes it. The header defines N, M, K, TIMES, SCALES, SIZES (of the inputs), T0, and STIFF where BDF is to be taken, and

    problem_f(u, th, du)                 du = f
    problem_jac(u, th, J)                J[j][i] = df_i / du_j where it is not zero
    problem_tangents(u, th, s, ds)       ds[j] = df/du s[j], for the N + M inputs j, and df/dtheta_j

Without STIFF: Adams' methods with functional iteration. Derivatives take part in the error test. */

#include <cvodes/cvodes.h>
#include <nvector/nvector_serial.h>
#include <sunlinsol/sunlinsol_dense.h>
#include <sunmatrix/sunmatrix_dense.h>
#include <sunnonlinsol/sunnonlinsol_fixedpoint.h>

#include "problem.h"

#define INPUTS (N + M)
#define CHECK(call)        \
    if ((call) < 0) {      \
        status = __LINE__; \
        goto end;          \
    }

static int f(realtype t, N_Vector u, N_Vector du, void *theta) {
    problem_f(N_VGetArrayPointer(u), theta, N_VGetArrayPointer(du));
    return 0;
}

static int tangents(int count, realtype t, N_Vector u, N_Vector du, N_Vector *s, N_Vector *ds, void *theta, N_Vector a, N_Vector b) {
    const double *from[INPUTS];
    double *to[INPUTS];
    for (int j = 0; j < INPUTS; j++) from[j] = N_VGetArrayPointer(s[j]), to[j] = N_VGetArrayPointer(ds[j]);
    problem_tangents(N_VGetArrayPointer(u), theta, from, to);
    return 0;
}

#ifdef STIFF
static int jac(realtype t, N_Vector u, N_Vector du, SUNMatrix J, void *theta, N_Vector a, N_Vector b, N_Vector c) {
    static double dense[N][N]; /* entries that are never written stay zero */
    problem_jac(N_VGetArrayPointer(u), theta, dense);
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) SM_ELEMENT_D(J, i, j) = dense[j][i];
    return 0;
}
#endif

/* States (K, N) and derivatives (K, N, N + M) at the times. 0, or the line of the call that failed. */
int cvodes_tangents(const double *u0, double *theta, double tol, int staggered, double *states, double *derivatives) {
    int status = 0;
    realtype t = T0;
    SUNContext context;
    if (SUNContext_Create(NULL, &context)) return __LINE__;
    N_Vector u = N_VNew_Serial(N, context), atol = N_VNew_Serial(N, context);
    N_Vector *s = N_VCloneVectorArray(INPUTS, u);
    SUNMatrix J = NULL;
    SUNLinearSolver linear = NULL;
    SUNNonlinearSolver iteration = NULL, iteration_of_tangents = NULL;
#ifdef STIFF
    void *mem = CVodeCreate(CV_BDF, context);
#else
    void *mem = CVodeCreate(CV_ADAMS, context);
#endif
    for (int i = 0; i < N; i++) {
        N_VGetArrayPointer(u)[i] = u0[i];
        N_VGetArrayPointer(atol)[i] = tol * SCALES[i];
        for (int j = 0; j < INPUTS; j++) N_VGetArrayPointer(s[j])[i] = i == j;
    }
    CHECK(CVodeInit(mem, f, T0, u));
    CHECK(CVodeSVtolerances(mem, tol, atol));
    CHECK(CVodeSetUserData(mem, theta));
    CHECK(CVodeSetMaxNumSteps(mem, 1000000));
    CHECK(CVodeSetErrFile(mem, NULL));
    CHECK(CVodeSensInit(mem, INPUTS, staggered ? CV_STAGGERED : CV_SIMULTANEOUS, tangents, s));
    CHECK(CVodeSetSensParams(mem, NULL, (double *)SIZES, NULL));
    CHECK(CVodeSensEEtolerances(mem)); /* those of the states, divided by SIZES */
    CHECK(CVodeSetSensErrCon(mem, 1));
#ifdef STIFF
    J = SUNDenseMatrix(N, N, context);
    linear = SUNLinSol_Dense(u, J, context);
    CHECK(CVodeSetLinearSolver(mem, linear, J));
    CHECK(CVodeSetJacFn(mem, jac));
#else
    iteration = SUNNonlinSol_FixedPoint(u, 0, context);
    CHECK(CVodeSetNonlinearSolver(mem, iteration));
    iteration_of_tangents = SUNNonlinSol_FixedPointSens(staggered ? INPUTS : INPUTS + 1, u, 0, context);
    if (staggered) {
        CHECK(CVodeSetNonlinearSolverSensStg(mem, iteration_of_tangents));
    } else {
        CHECK(CVodeSetNonlinearSolverSensSim(mem, iteration_of_tangents));
    }
#endif
    for (int k = 0; k < K; k++) {
        if (TIMES[k] > T0) {
            CHECK(CVode(mem, TIMES[k], u, &t, CV_NORMAL));
            CHECK(CVodeGetSens(mem, &t, s));
        }
        for (int i = 0; i < N; i++) {
            states[k * N + i] = N_VGetArrayPointer(u)[i];
            for (int j = 0; j < INPUTS; j++) derivatives[(k * N + i) * INPUTS + j] = N_VGetArrayPointer(s[j])[i];
        }
    }

end:
    CVodeFree(&mem);
    if (iteration) SUNNonlinSolFree(iteration);
    if (iteration_of_tangents) SUNNonlinSolFree(iteration_of_tangents);
    if (linear) SUNLinSolFree(linear);
    if (J) SUNMatDestroy(J);
    N_VDestroyVectorArray(s, INPUTS), N_VDestroy(u), N_VDestroy(atol);
    SUNContext_Free(&context);
    return status;
}
