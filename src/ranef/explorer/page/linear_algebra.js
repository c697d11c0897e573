// Small dense matrices, row by row in arrays. A symmetric 2 x 2 matrix is [a, b, d]; others are
// [a, b, c, d].

export const times = (A, B) => [
  A[0] * B[0] + A[1] * B[2], A[0] * B[1] + A[1] * B[3],
  A[2] * B[0] + A[3] * B[2], A[2] * B[1] + A[3] * B[3],
];

export const full = s => [s[0], s[1], s[1], s[2]];

// A S A' of a symmetric S.
export const congruent = (A, s) => {
  const u = A[0] * s[0] + A[1] * s[1], v = A[0] * s[1] + A[1] * s[2];
  const w = A[2] * s[0] + A[3] * s[1], z = A[2] * s[1] + A[3] * s[2];
  return [u * A[0] + v * A[1], u * A[2] + v * A[3], w * A[2] + z * A[3]];
};

// The lower Cholesky factor of a p x p matrix, of which the lower triangle is read.
export function cholesky(A, p) {
  const L = new Float64Array(p * p);
  for (let i = 0; i < p; i++) {
    for (let j = 0; j <= i; j++) {
      let s = A[i * p + j];
      for (let l = 0; l < j; l++) s -= L[i * p + l] * L[j * p + l];
      L[i * p + j] = i === j ? Math.sqrt(s) : s / L[j * p + j];
    }
  }
  return L;
}

export function forward(L, b, p) {
  const x = Float64Array.from(b);
  for (let i = 0; i < p; i++) {
    for (let l = 0; l < i; l++) x[i] -= L[i * p + l] * x[l];
    x[i] /= L[i * p + i];
  }
  return x;
}

function backward(L, b, p) {
  const x = Float64Array.from(b);
  for (let i = p - 1; i >= 0; i--) {
    for (let l = i + 1; l < p; l++) x[i] -= L[l * p + i] * x[l];
    x[i] /= L[i * p + i];
  }
  return x;
}

export const solve = (L, b, p) => backward(L, forward(L, b, p), p);

export function inverse(L, p) {
  const V = new Float64Array(p * p), unit = new Float64Array(p);
  for (let c = 0; c < p; c++) {
    unit.fill(0);
    unit[c] = 1;
    solve(L, unit, p).forEach((v, r) => { V[r * p + c] = v; });
  }
  return V;
}

export const logDeterminant = (L, p) => {
  let sum = 0;
  for (let i = 0; i < p; i++) sum += 2 * Math.log(L[i * p + i]);
  return sum;
};
