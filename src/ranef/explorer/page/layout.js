// What stays where it is while sliders move: ranges of axes, the order of groups, sizes.

import {starts} from "./first_rows.js";
import {extent} from "./marks.js";

const MOST_PANELS = 40, MOST_ROWS = 30;

const quantile = (sorted, share) => {
  const place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};

// The range of own estimates without those more than three interquartile ranges beyond the
// quartiles, and of most of the population.
function domain(own, population, sd) {
  const sorted = own.slice().sort((a, b) => a - b);
  const q1 = quantile(sorted, 0.25), q3 = quantile(sorted, 0.75), reach = 3 * (q3 - q1);
  const within = sorted.filter(v => v >= q1 - reach && v <= q3 + reach);
  return extent([...within, population - 2.3 * sd, population + 2.3 * sd]);
}

// Every so many of the groups in order, the last among them, and the selected one.
const thinned = (order, most, chosen) => {
  const step = Math.ceil(order.length / most), last = (order.length - 1) % step;
  return order.filter((j, place) => place % step === last || j === chosen);
};

export function layoutOf(data, q, fit) {
  const {k, m} = q, own = fit.groups.map(g => g.own ? g.own.value : g.model);
  const order = own.map((o, j) => [o[k - 1], j]).sort((a, b) => a[0] - b[0]).map(pair => pair[1]);
  const rank = new Array(m);
  order.forEach((j, place) => { rank[j] = place; });
  const size = problem => Float64Array.from({length: m}, (_, j) => problem.G[3 * j] * problem.T[0] ** 2);
  const sizes = size(q), range = [Math.min(...sizes.filter(v => v > 0)), Math.max(...sizes)];
  const uneven = range[1] > 1.5 * range[0]; // or the band of chance alone is as wide for all groups
  const chance = k === 1 && !uneven ? data.reml.sigma / Math.sqrt(range[0]) : 0;
  return {
    own, order, rank, sizes, sizesOf: size, sizeRange: range, uneven,
    start: starts(data), hasRows: Boolean(data.rows.y),
    domain: data.coefs.map((_, i) => domain(own.map(o => o[i]), fit.population[i], Math.max(data.scale.sd[i], chance))),
    panels: chosen => m <= MOST_PANELS ? order : thinned(order, 23, chosen),
    intervals: chosen => thinned(order, MOST_ROWS, chosen),
    isThinned: m > MOST_ROWS,
  };
}

// Responses less what the other fixed effects explain.
export function partialResponses(data, q, beta) {
  const {y, X} = data.rows, width = q.others.length;
  return width ? y.map((v, r) => q.others.reduce((s, f, i) => s - beta[f] * X[r * width + i], v)) : y;
}

// How many own estimates an axis range leaves out.
export const outside = (layout, fit) => fit.groups.filter(g => g.own && layout.domain.some(
  ([low, high], i) => g.own.value[i] < low || g.own.value[i] > high)).length;
