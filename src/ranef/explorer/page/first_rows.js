// A group of which only the first rows are used.

import {centred} from "./model.js";

// Where the rows of each group start.
export const starts = data => data.groups.n.reduce((s, n) => [...s, s[s.length - 1] + n], [0]);

// Rows of a group, weighted: the columns of the term in the basis, and [X y].
function rowsOf(data, q, first, count) {
  const {x, y, X, w} = data.rows, width = q.others.length, out = [];
  for (let r = first; r < first + count; r++) {
    const z = q.k === 2 ? [1, x[r]] : [x ? x[r] : 1];
    const [a, b, , d] = q.inverseT, inBasis = q.k === 2 ? [z[0] * a, z[0] * b + z[1] * d] : [z[0] * a, 0];
    const fixed = data.fixed.map((_, f) => {
      const place = q.others.indexOf(f);
      return place < 0 ? inBasis[0] * q.among[f] + inBasis[1] * q.among[q.p + f] : X[r * width + place];
    });
    const root = w ? Math.sqrt(w[r]) : 1;
    out.push({z: inBasis.map(v => v * root), f: [...fixed, y[r]].map(v => v * root)});
  }
  return out;
}

const sum = (rows, of) => rows.reduce((s, row) => s + of(row), 0);

// Z'Z, the least-squares coefficients of [X y] on Z (those of least length, where there are
// several), and what they leave of its cross-products, the lower triangle.
function projected(rows, k) {
  const G = [sum(rows, r => r.z[0] ** 2), sum(rows, r => r.z[0] * r.z[1]), sum(rows, r => r.z[1] ** 2)];
  const det = G[0] * G[2] - G[1] ** 2, trace = G[0] + G[2];
  const rank = k === 2 && det > 1e-9 * G[0] * G[2] ? 2 : trace > 0 ? 1 : 0;
  const inverse = rank === 2 ? [G[2] / det, -G[1] / det, G[0] / det]
    : G.map(v => rank ? v / trace ** 2 : 0);
  const coefs = rows[0].f.map((_, c) => {
    const a = sum(rows, r => r.z[0] * r.f[c]), b = sum(rows, r => r.z[1] * r.f[c]);
    return [inverse[0] * a + inverse[1] * b, inverse[1] * a + inverse[2] * b];
  });
  const left = rows.map(r => r.f.map((v, c) => v - r.z[0] * coefs[c][0] - r.z[1] * coefs[c][1]));
  const within = coefs.flatMap((_, a) =>
    coefs.slice(0, a + 1).map((_, b) => left.reduce((s, e) => s + e[a] * e[b], 0)));
  return {G, rank, coefs, within};
}

const replaced = (values, first, by) => {
  const out = values.slice();
  by.forEach((v, i) => { out[first + i] = v; });
  return out;
};

// The problem with only the first `count` rows of group j.
export function withFirstRows(data, q, j, count) {
  const start = starts(data)[j], n = q.counts[j];
  const all = projected(rowsOf(data, q, start, n), q.k);
  const some = projected(rowsOf(data, q, start, count), q.k);
  const w = (data.rows.w || []).slice(start + count, start + n);
  return centred({
    ...q, n: q.n - n + count, logWeights: q.logWeights - w.reduce((s, v) => s + Math.log(v), 0),
    counts: replaced(q.counts, j, [count]), rank: replaced(q.rank, j, [some.rank]),
    G: replaced(q.G, 3 * j, some.G),
    C: replaced(q.C, 2 * j * q.p, [0, 1].flatMap(r => some.coefs.slice(0, q.p).map(c => c[r]))),
    own: replaced(q.own, 2 * j, some.coefs[q.p]),
    within: q.within.map((v, i) => v - all.within[i] + some.within[i]),
  });
}
