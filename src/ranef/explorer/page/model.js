// The model at any setting of the sliders: `fitAt`, and its criterion alone: `criterionAt`.
//
// A model with one coefficient is one with two, of which the second is always zero: all is 2 x 2.
// Per group, in the basis of the term: G = Z'Z, C and own, the least-squares coefficients of the
// fixed columns and of the response on Z. With g = G / sigma^2, Psi the covariance of the
// coefficients and d = 1 + tr(Psi g) + |Psi||g|, no term of these forms cancels at sds of zero or
// without end:
//
//   W = Z'V^-1 Z = (g + |g| adj Psi) / d        B = Psi W = (Psi g + |Psi||g| I) / d
//   I - B = (I + adj g adj Psi) / d             M = Var(b | y, beta) = (Psi + |Psi| adj g) / d

import {cholesky, congruent, forward, full, inverse, logDeterminant, solve, times} from "./linear_algebra.js";

const LOG_2PI = Math.log(2 * Math.PI);

// What the page holds, as arrays of two coefficients.
export function prepared(data) {
  const k = data.coefs.length, p = data.fixed.length, {n, rank, ZtZ, C, own} = data.groups;
  const m = n.length, padded = (values, width) => {
    const out = new Float64Array(2 * m * width);
    for (let j = 0; j < m; j++) {
      for (let i = 0; i < k * width; i++) out[2 * j * width + i] = values[j * k * width + i];
    }
    return out;
  };
  const T = k === 1 ? [data.basis[0], 0, 0, 1] : data.basis;
  const G = new Float64Array(3 * m), size = k === 1 ? 1 : 3;
  for (let j = 0; j < m; j++) for (let i = 0; i < size; i++) G[3 * j + i] = ZtZ[j * size + i];
  const among = new Float64Array(2 * p); // P of `data.among`, in the basis
  for (let r = 0; r < k; r++) {
    for (let i = 0; i < k; i++) {
      for (let f = 0; f < p; f++) among[r * p + f] += T[2 * r + i] * data.among[i * p + f];
    }
  }
  return centred({
    k, p, m, n: data.n, logWeights: data.logWeights, T, among,
    inverseT: [1 / T[0], -T[1] / (T[0] * T[3]), 0, 1 / T[3]],
    counts: n, rank, G, C: padded(C, p), own: padded(own, 1),
    within: data.within, origin: data.reml.beta,
    others: data.fixed.map((_, f) => f).filter(f => data.coefs.every((_, i) => !data.among[i * p + f])),
  });
}

// With the determinants, and y less X beta of REML, so that nothing large cancels.
export function centred(groups) {
  const {m, p, k, G, C, own, rank, origin, within} = groups;
  const det = Float64Array.from(rank, (r, j) =>
    k === 2 && r === 2 ? G[3 * j] * G[3 * j + 2] - G[3 * j + 1] ** 2 : 0);
  const rest = Float64Array.from(own);
  for (let i = 0; i < 2 * m; i++) for (let a = 0; a < p; a++) rest[i] -= C[i * p + a] * origin[a];
  const S = (a, b) => within[a >= b ? a * (a + 1) / 2 + b : b * (b + 1) / 2 + a];
  const Sxx = new Float64Array(p * p), Sxy = new Float64Array(p);
  let Syy = S(p, p);
  for (let a = 0; a < p; a++) {
    Sxy[a] = S(a, p);
    for (let b = 0; b < p; b++) {
      Sxx[a * p + b] = S(a, b);
      Sxy[a] -= S(a, b) * origin[b];
    }
    Syy -= origin[a] * (S(a, p) + Sxy[a]);
  }
  return {...groups, det, rest, Sxx, Sxy, Syy};
}

// Covariance of the coefficients as the user has them and in the basis, and its determinant there.
function covariance({T, k}, {sd, corr}) {
  const second = k === 2 ? sd[1] : 0, cov = [sd[0] ** 2, corr * sd[0] * second, second ** 2];
  return {cov, psi: congruent(T, cov), detPsi: (sd[0] * second * T[0] * T[3]) ** 2 * (1 - corr ** 2)};
}

// K = X'V^-1 X, its Cholesky factor, beta less the origin, and the criterion (-2 log of the
// restricted likelihood).
function equations(q, at) {
  const {m, p, G, C, det, rest} = q, s2 = at.sigma ** 2, {psi, detPsi} = covariance(q, at);
  const K = Float64Array.from(q.Sxx, v => v / s2), c = Float64Array.from(q.Sxy, v => v / s2);
  let logDet = 0, yy = q.Syy / s2;
  for (let j = 0; j < m; j++) {
    const g0 = G[3 * j] / s2, g1 = G[3 * j + 1] / s2, g2 = G[3 * j + 2] / s2, dg = det[j] / (s2 * s2);
    const d = 1 + psi[0] * g0 + 2 * psi[1] * g1 + psi[2] * g2 + detPsi * dg;
    const w0 = (g0 + dg * psi[2]) / d, w1 = (g1 - dg * psi[1]) / d, w2 = (g2 + dg * psi[0]) / d;
    const r0 = rest[2 * j], r1 = rest[2 * j + 1], C0 = 2 * j * p, C1 = C0 + p;
    logDet += Math.log(d);
    yy += w0 * r0 * r0 + 2 * w1 * r0 * r1 + w2 * r1 * r1;
    for (let a = 0; a < p; a++) {
      const u = w0 * C[C0 + a] + w1 * C[C1 + a], v = w1 * C[C0 + a] + w2 * C[C1 + a];
      c[a] += u * r0 + v * r1;
      for (let b = 0; b <= a; b++) K[a * p + b] += u * C[C0 + b] + v * C[C1 + b];
    }
  }
  const L = cholesky(K, p), z = forward(L, c, p), explained = z.reduce((s, v) => s + v * v, 0);
  const criterion = (q.n - p) * LOG_2PI + q.n * Math.log(s2) - q.logWeights
    + logDet + logDeterminant(L, p) + yy - explained;
  return {L, step: solve(L, c, p), criterion, s2, psi, detPsi};
}

export const criterionAt = (q, at) => equations(q, at).criterion;

// One group: B, M and I - B in the basis.
function shares(q, j, {s2, psi, detPsi}) {
  const g0 = q.G[3 * j] / s2, g1 = q.G[3 * j + 1] / s2, g2 = q.G[3 * j + 2] / s2;
  const both = detPsi * q.det[j] / (s2 * s2);
  const d = 1 + psi[0] * g0 + 2 * psi[1] * g1 + psi[2] * g2 + both;
  const A = times(full(psi), [g0, g1, g1, g2]);
  const N = times([g2, -g1, -g1, g0], [psi[2], -psi[1], -psi[1], psi[0]]);
  return {
    B: [(A[0] + both) / d, A[1] / d, A[2] / d, (A[3] + both) / d],
    H: [(1 + N[0]) / d, N[1] / d, N[2] / d, (1 + N[3]) / d],
    M: [(psi[0] + detPsi * g2) / d, (psi[1] - detPsi * g1) / d, (psi[2] + detPsi * g0) / d],
  };
}

// M + R V R', of R of shape 2 x p.
function withErrorOfBeta(M, R, V, p) {
  const out = [...M];
  for (let a = 0; a < p; a++) {
    for (let b = 0; b < p; b++) {
      const v = V[a * p + b];
      out[0] += R[a] * v * R[b];
      out[1] += R[a] * v * R[p + b];
      out[2] += R[p + a] * v * R[p + b];
    }
  }
  return out;
}

const roots = s => [Math.sqrt(Math.max(0, s[0])), Math.sqrt(Math.max(0, s[2]))];

// The own estimate with the other fixed effects at beta, and its covariance; null where the rows
// of the group do not determine it.
function ownEstimate(q, j, beta, s2) {
  if (q.rank[j] < q.k) return null;
  const {p, own, C, inverseT} = q, shifted = [0, 1].map(r =>
    q.others.reduce((s, f) => s - C[(2 * j + r) * p + f] * beta[f], own[2 * j + r]));
  const [g0, g1, g2] = q.G.subarray(3 * j, 3 * j + 3);
  const cov = q.k === 1 ? [s2 / g0, 0, 0] : [g2, -g1, g0].map(v => v * s2 / q.det[j]);
  const users = congruent(inverseT, cov);
  return {value: onUsers(inverseT, shifted), cov: users, se: roots(users)};
}

const onUsers = (A, v) => [A[0] * v[0] + A[1] * v[1], A[2] * v[0] + A[3] * v[1]];

// One group: E(b | y), model = P beta + b with its standard errors, the own estimate, and the
// matrix of weights of own data.
function groupAt(q, j, {beta, V, now, fromOrigin, population}) {
  const {p, C, rest, inverseT, T, among} = q, {B, H, M} = shares(q, j, now);
  const away = [0, 1].map(r => {
    let v = rest[2 * j + r];
    for (let a = 0; a < p; a++) v -= C[(2 * j + r) * p + a] * fromOrigin[a];
    return v;
  });
  const R = new Float64Array(2 * p), C0 = 2 * j * p; // P - C + (I - B) C
  for (let a = 0; a < p; a++) {
    const u = C[C0 + a], v = C[C0 + p + a];
    R[a] = among[a] - u + H[0] * u + H[1] * v;
    R[p + a] = among[p + a] - v + H[2] * u + H[3] * v;
  }
  const b = onUsers(inverseT, onUsers(B, away));
  return {
    b, model: [population[0] + b[0], population[1] + b[1]],
    se: roots(congruent(inverseT, withErrorOfBeta(M, R, V, p))),
    own: ownEstimate(q, j, beta, now.s2),
    share: times(times(inverseT, B), T), B, M,
  };
}

// Everything at a setting `{sigma, sd, corr}`.
export function fitAt(q, at) {
  const {p, m, inverseT, among} = q, now = equations(q, at);
  const beta = now.step.map((v, a) => v + q.origin[a]), V = inverse(now.L, p);
  const population = onUsers(inverseT, [0, 1].map(r =>
    beta.reduce((s, v, a) => s + among[r * p + a] * v, 0)));
  const shared = {beta, V, now, fromOrigin: now.step, population};
  const groups = Array.from({length: m}, (_, j) => groupAt(q, j, shared));
  const ofMean = congruent(inverseT, withErrorOfBeta([0, 0, 0], among, V, p));
  const {cov} = covariance(q, at);
  return {
    at, beta, V, population, cov, ofMean, ofNew: cov.map((v, i) => v + ofMean[i]),
    groups, criterion: now.criterion,
  };
}

// The 95 % interval of coefficient i of a new group.
export const newGroup = (fit, i) => {
  const half = 1.96 * Math.sqrt(fit.ofNew[2 * i]);
  return [fit.population[i] - half, fit.population[i] + half];
};
