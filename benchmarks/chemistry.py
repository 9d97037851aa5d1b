"""The chemical systems of benchmarks/stiff_cases.py with their vjps, written out: r are the reactions' rates, b the rates'
cotangents."""


def rober_f(t, u, theta, du):
    r0 = theta[0] * u[0]
    r1 = theta[1] * u[1] * u[1]
    r2 = theta[2] * u[1] * u[2]
    du[0] = -r0 + r2
    du[1] = r0 - r1 - r2
    du[2] = r1


def rober_vjp(t, u, theta, lam, u_bar, theta_bar):
    b0 = -lam[0] + lam[1]
    b1 = -lam[1] + lam[2]
    b2 = lam[0] - lam[1]
    u_bar[0] = b0 * theta[0]
    u_bar[1] = 2.0 * b1 * theta[1] * u[1] + b2 * theta[2] * u[2]
    u_bar[2] = b2 * theta[2] * u[1]
    theta_bar[0] = b0 * u[0]
    theta_bar[1] = b1 * u[1] * u[1]
    theta_bar[2] = b2 * u[1] * u[2]


def rober_vjp_u(t, u, theta, lam, u_bar):
    b0 = -lam[0] + lam[1]
    b1 = -lam[1] + lam[2]
    b2 = lam[0] - lam[1]
    u_bar[0] = b0 * theta[0]
    u_bar[1] = 2.0 * b1 * theta[1] * u[1] + b2 * theta[2] * u[2]
    u_bar[2] = b2 * theta[2] * u[1]


def hires_f(t, u, theta, du):
    r0 = theta[0] * u[0]
    r1 = theta[1] * u[2]
    r2 = theta[2] * u[4]
    r3 = theta[3] * u[1]
    r4 = theta[3] * u[3]
    r5 = theta[3] * u[5]
    r6 = theta[3] * u[6]
    r7 = theta[4] * u[1]
    r8 = theta[5] * u[3]
    r9 = theta[6] * u[4]
    r10 = theta[7] * u[2]
    r11 = theta[8] * u[5] * u[7]
    r12 = theta[9] * u[6]
    r13 = theta[10] * u[6]
    r14 = theta[11]
    du[0] = -r0 + r3 + r10 + r14
    du[1] = r0 - r3 - r7
    du[2] = -r1 + r4 + r9 - r10
    du[3] = r1 - r4 + r7 - r8
    du[4] = -r2 + r5 + r6 - r9
    du[5] = r2 - r5 + r8 - r11 + r12
    du[6] = -r6 + r11 - r12 - r13
    du[7] = r6 - r11 + r12 + r13


def hires_vjp(t, u, theta, lam, u_bar, theta_bar):
    b0 = -lam[0] + lam[1]
    b1 = -lam[2] + lam[3]
    b2 = -lam[4] + lam[5]
    b3 = lam[0] - lam[1]
    b4 = lam[2] - lam[3]
    b5 = lam[4] - lam[5]
    b6 = lam[4] - lam[6] + lam[7]
    b7 = -lam[1] + lam[3]
    b8 = -lam[3] + lam[5]
    b9 = lam[2] - lam[4]
    b10 = lam[0] - lam[2]
    b11 = -lam[5] + lam[6] - lam[7]
    b12 = lam[5] - lam[6] + lam[7]
    b13 = -lam[6] + lam[7]
    b14 = lam[0]
    u_bar[0] = b0 * theta[0]
    u_bar[1] = b3 * theta[3] + b7 * theta[4]
    u_bar[2] = b1 * theta[1] + b10 * theta[7]
    u_bar[3] = b4 * theta[3] + b8 * theta[5]
    u_bar[4] = b2 * theta[2] + b9 * theta[6]
    u_bar[5] = b5 * theta[3] + b11 * theta[8] * u[7]
    u_bar[6] = b6 * theta[3] + b12 * theta[9] + b13 * theta[10]
    u_bar[7] = b11 * theta[8] * u[5]
    theta_bar[0] = b0 * u[0]
    theta_bar[1] = b1 * u[2]
    theta_bar[2] = b2 * u[4]
    theta_bar[3] = b3 * u[1] + b4 * u[3] + b5 * u[5] + b6 * u[6]
    theta_bar[4] = b7 * u[1]
    theta_bar[5] = b8 * u[3]
    theta_bar[6] = b9 * u[4]
    theta_bar[7] = b10 * u[2]
    theta_bar[8] = b11 * u[5] * u[7]
    theta_bar[9] = b12 * u[6]
    theta_bar[10] = b13 * u[6]
    theta_bar[11] = b14


def hires_vjp_u(t, u, theta, lam, u_bar):
    b0 = -lam[0] + lam[1]
    b1 = -lam[2] + lam[3]
    b2 = -lam[4] + lam[5]
    b3 = lam[0] - lam[1]
    b4 = lam[2] - lam[3]
    b5 = lam[4] - lam[5]
    b6 = lam[4] - lam[6] + lam[7]
    b7 = -lam[1] + lam[3]
    b8 = -lam[3] + lam[5]
    b9 = lam[2] - lam[4]
    b10 = lam[0] - lam[2]
    b11 = -lam[5] + lam[6] - lam[7]
    b12 = lam[5] - lam[6] + lam[7]
    b13 = -lam[6] + lam[7]
    u_bar[0] = b0 * theta[0]
    u_bar[1] = b3 * theta[3] + b7 * theta[4]
    u_bar[2] = b1 * theta[1] + b10 * theta[7]
    u_bar[3] = b4 * theta[3] + b8 * theta[5]
    u_bar[4] = b2 * theta[2] + b9 * theta[6]
    u_bar[5] = b5 * theta[3] + b11 * theta[8] * u[7]
    u_bar[6] = b6 * theta[3] + b12 * theta[9] + b13 * theta[10]
    u_bar[7] = b11 * theta[8] * u[5]


def pollu_f(t, u, theta, du):
    r0 = theta[0] * u[0]
    r1 = theta[1] * u[1] * u[3]
    r2 = theta[2] * u[4] * u[1]
    r3 = theta[3] * u[6]
    r4 = theta[4] * u[6]
    r5 = theta[5] * u[6] * u[5]
    r6 = theta[6] * u[8]
    r7 = theta[7] * u[8] * u[5]
    r8 = theta[8] * u[10] * u[1]
    r9 = theta[9] * u[10] * u[0]
    r10 = theta[10] * u[12]
    r11 = theta[11] * u[9] * u[1]
    r12 = theta[12] * u[13]
    r13 = theta[13] * u[0] * u[5]
    r14 = theta[14] * u[2]
    r15 = theta[15] * u[3]
    r16 = theta[16] * u[3]
    r17 = theta[17] * u[15]
    r18 = theta[18] * u[15]
    r19 = theta[19] * u[16] * u[5]
    r20 = theta[20] * u[18]
    r21 = theta[21] * u[18]
    r22 = theta[22] * u[0] * u[3]
    r23 = theta[23] * u[18] * u[0]
    r24 = theta[24] * u[19]
    du[0] = -r0 + r1 + r2 + r8 - r9 + r10 + r11 - r13 + r21 - r22 - r23 + r24
    du[1] = r0 - r1 - r2 - r8 - r11 + r20
    du[2] = r0 - r14 + r16 + r18 + r21
    du[3] = -r1 + r14 - r15 - r16 - r22
    du[4] = -r2 + 2.0 * r3 + r5 + r6 + r12 + r19
    du[5] = r2 - r5 - r7 - r13 + 2.0 * r17 - r19
    du[6] = -r3 - r4 - r5 + r12
    du[7] = r3 + r4 + r5 + r6
    du[8] = -r6 - r7
    du[9] = r6 + r8 - r11
    du[10] = r7 - r8 - r9 + r10
    du[11] = r8
    du[12] = r9 - r10
    du[13] = r11 - r12
    du[14] = r13
    du[15] = r15 - r17 - r18
    du[16] = -r19
    du[17] = r19
    du[18] = -r20 - r21 + r22 - r23 + r24
    du[19] = r23 - r24


def pollu_vjp(t, u, theta, lam, u_bar, theta_bar):
    b0 = -lam[0] + lam[1] + lam[2]
    b1 = lam[0] - lam[1] - lam[3]
    b2 = lam[0] - lam[1] - lam[4] + lam[5]
    b3 = 2.0 * lam[4] - lam[6] + lam[7]
    b4 = -lam[6] + lam[7]
    b5 = lam[4] - lam[5] - lam[6] + lam[7]
    b6 = lam[4] + lam[7] - lam[8] + lam[9]
    b7 = -lam[5] - lam[8] + lam[10]
    b8 = lam[0] - lam[1] + lam[9] - lam[10] + lam[11]
    b9 = -lam[0] - lam[10] + lam[12]
    b10 = lam[0] + lam[10] - lam[12]
    b11 = lam[0] - lam[1] - lam[9] + lam[13]
    b12 = lam[4] + lam[6] - lam[13]
    b13 = -lam[0] - lam[5] + lam[14]
    b14 = -lam[2] + lam[3]
    b15 = -lam[3] + lam[15]
    b16 = lam[2] - lam[3]
    b17 = 2.0 * lam[5] - lam[15]
    b18 = lam[2] - lam[15]
    b19 = lam[4] - lam[5] - lam[16] + lam[17]
    b20 = lam[1] - lam[18]
    b21 = lam[0] + lam[2] - lam[18]
    b22 = -lam[0] - lam[3] + lam[18]
    b23 = -lam[0] - lam[18] + lam[19]
    b24 = lam[0] + lam[18] - lam[19]
    u_bar[0] = b0 * theta[0] + b9 * theta[9] * u[10] + b13 * theta[13] * u[5] + b22 * theta[22] * u[3] + b23 * theta[23] * u[18]
    u_bar[1] = b1 * theta[1] * u[3] + b2 * theta[2] * u[4] + b8 * theta[8] * u[10] + b11 * theta[11] * u[9]
    u_bar[2] = b14 * theta[14]
    u_bar[3] = b1 * theta[1] * u[1] + b15 * theta[15] + b16 * theta[16] + b22 * theta[22] * u[0]
    u_bar[4] = b2 * theta[2] * u[1]
    u_bar[5] = b5 * theta[5] * u[6] + b7 * theta[7] * u[8] + b13 * theta[13] * u[0] + b19 * theta[19] * u[16]
    u_bar[6] = b3 * theta[3] + b4 * theta[4] + b5 * theta[5] * u[5]
    u_bar[7] = 0.0
    u_bar[8] = b6 * theta[6] + b7 * theta[7] * u[5]
    u_bar[9] = b11 * theta[11] * u[1]
    u_bar[10] = b8 * theta[8] * u[1] + b9 * theta[9] * u[0]
    u_bar[11] = 0.0
    u_bar[12] = b10 * theta[10]
    u_bar[13] = b12 * theta[12]
    u_bar[14] = 0.0
    u_bar[15] = b17 * theta[17] + b18 * theta[18]
    u_bar[16] = b19 * theta[19] * u[5]
    u_bar[17] = 0.0
    u_bar[18] = b20 * theta[20] + b21 * theta[21] + b23 * theta[23] * u[0]
    u_bar[19] = b24 * theta[24]
    theta_bar[0] = b0 * u[0]
    theta_bar[1] = b1 * u[1] * u[3]
    theta_bar[2] = b2 * u[4] * u[1]
    theta_bar[3] = b3 * u[6]
    theta_bar[4] = b4 * u[6]
    theta_bar[5] = b5 * u[6] * u[5]
    theta_bar[6] = b6 * u[8]
    theta_bar[7] = b7 * u[8] * u[5]
    theta_bar[8] = b8 * u[10] * u[1]
    theta_bar[9] = b9 * u[10] * u[0]
    theta_bar[10] = b10 * u[12]
    theta_bar[11] = b11 * u[9] * u[1]
    theta_bar[12] = b12 * u[13]
    theta_bar[13] = b13 * u[0] * u[5]
    theta_bar[14] = b14 * u[2]
    theta_bar[15] = b15 * u[3]
    theta_bar[16] = b16 * u[3]
    theta_bar[17] = b17 * u[15]
    theta_bar[18] = b18 * u[15]
    theta_bar[19] = b19 * u[16] * u[5]
    theta_bar[20] = b20 * u[18]
    theta_bar[21] = b21 * u[18]
    theta_bar[22] = b22 * u[0] * u[3]
    theta_bar[23] = b23 * u[18] * u[0]
    theta_bar[24] = b24 * u[19]


def pollu_vjp_u(t, u, theta, lam, u_bar):
    b0 = -lam[0] + lam[1] + lam[2]
    b1 = lam[0] - lam[1] - lam[3]
    b2 = lam[0] - lam[1] - lam[4] + lam[5]
    b3 = 2.0 * lam[4] - lam[6] + lam[7]
    b4 = -lam[6] + lam[7]
    b5 = lam[4] - lam[5] - lam[6] + lam[7]
    b6 = lam[4] + lam[7] - lam[8] + lam[9]
    b7 = -lam[5] - lam[8] + lam[10]
    b8 = lam[0] - lam[1] + lam[9] - lam[10] + lam[11]
    b9 = -lam[0] - lam[10] + lam[12]
    b10 = lam[0] + lam[10] - lam[12]
    b11 = lam[0] - lam[1] - lam[9] + lam[13]
    b12 = lam[4] + lam[6] - lam[13]
    b13 = -lam[0] - lam[5] + lam[14]
    b14 = -lam[2] + lam[3]
    b15 = -lam[3] + lam[15]
    b16 = lam[2] - lam[3]
    b17 = 2.0 * lam[5] - lam[15]
    b18 = lam[2] - lam[15]
    b19 = lam[4] - lam[5] - lam[16] + lam[17]
    b20 = lam[1] - lam[18]
    b21 = lam[0] + lam[2] - lam[18]
    b22 = -lam[0] - lam[3] + lam[18]
    b23 = -lam[0] - lam[18] + lam[19]
    b24 = lam[0] + lam[18] - lam[19]
    u_bar[0] = b0 * theta[0] + b9 * theta[9] * u[10] + b13 * theta[13] * u[5] + b22 * theta[22] * u[3] + b23 * theta[23] * u[18]
    u_bar[1] = b1 * theta[1] * u[3] + b2 * theta[2] * u[4] + b8 * theta[8] * u[10] + b11 * theta[11] * u[9]
    u_bar[2] = b14 * theta[14]
    u_bar[3] = b1 * theta[1] * u[1] + b15 * theta[15] + b16 * theta[16] + b22 * theta[22] * u[0]
    u_bar[4] = b2 * theta[2] * u[1]
    u_bar[5] = b5 * theta[5] * u[6] + b7 * theta[7] * u[8] + b13 * theta[13] * u[0] + b19 * theta[19] * u[16]
    u_bar[6] = b3 * theta[3] + b4 * theta[4] + b5 * theta[5] * u[5]
    u_bar[7] = 0.0
    u_bar[8] = b6 * theta[6] + b7 * theta[7] * u[5]
    u_bar[9] = b11 * theta[11] * u[1]
    u_bar[10] = b8 * theta[8] * u[1] + b9 * theta[9] * u[0]
    u_bar[11] = 0.0
    u_bar[12] = b10 * theta[10]
    u_bar[13] = b12 * theta[12]
    u_bar[14] = 0.0
    u_bar[15] = b17 * theta[17] + b18 * theta[18]
    u_bar[16] = b19 * theta[19] * u[5]
    u_bar[17] = 0.0
    u_bar[18] = b20 * theta[20] + b21 * theta[21] + b23 * theta[23] * u[0]
    u_bar[19] = b24 * theta[24]
