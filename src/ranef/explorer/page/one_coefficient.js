// Pictures of one coefficient by the size of its group: the funnel, and the weight of own data.

import {outside} from "./layout.js";
import {HALO, MUTED, area, axes, chosenDot, chosenRing, clipped, dots, end, frameOf, label, line, path, rings, scale, text, through, ticks} from "./marks.js";
import {tickText} from "./words.js";

// Round sizes at least so many pixels apart.
function sizeTicks([low, high], X, apart) {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    for (const digit of [1, 2, 5]) {
      const v = Number(`${digit}e${e}`);
      if (v >= low && v <= high) all.push([Math.log(v), tickText(v)]);
    }
  }
  return all.reduce((kept, tick) =>
    kept.length && X(tick[0]) - X(kept[kept.length - 1][0]) < apart ? kept : [...kept, tick], []);
}

const widened = ([low, high]) => [low / 1.25, high * 1.15];

// Places by the size of groups, those of one size side by side; by rank, where sizes are equal.
function across({layout, q, words}, frame) {
  const range = widened(layout.sizeRange), m = q.m;
  if (!layout.uneven) {
    const X = scale(-1, m, frame.left, frame.right), typical = Math.sqrt(range[0] * range[1] * 1.25 / 1.15);
    return {
      X, x: [], place: j => X(layout.rank[j]), along: [[-1, typical], [m, typical]],
      title: `${words.many} in the order of their own ${words.isMean ? "means" : "estimates"}`,
    };
  }
  const X = scale(...range.map(Math.log), frame.left, frame.right), sizes = layout.sizesOf(q);
  const aside = j => words.countsRows ? 0.2 * ((j * 37 % 17) / 17 - 0.5) / Math.sqrt(sizes[j]) : 0;
  const along = Array.from({length: 41}, (_, i) => {
    const u = Math.log(range[0]) + Math.log(range[1] / range[0]) * i / 40;
    return [u, Math.exp(u)];
  });
  return {X, x: sizeTicks(range, X, 34), place: j => X(Math.log(sizes[j] * (1 + aside(j)))), along, title: words.sizes};
}

export function funnel(scene) {
  const {data, fit, layout, words, state, size} = scene, {font, width} = size;
  const frame = frameOf(size, 42, 16), {X, x, place, along, title} = across(scene, frame);
  const Y = scale(...layout.domain[0], frame.bottom, frame.top), mean = fit.population[0];
  const {at} = fit, edge = (sd, sign) => along.map(([u, n]) => [X(u), Y(mean + sign * 1.96 * sd(n))]);
  const chance = n => at.sigma / Math.sqrt(n), all = n => Math.hypot(chance(n), at.sd[0]);
  const models = fit.groups.map((g, j) => [place(j), Y(g.model[0])]);
  const owns = fit.groups.map((g, j) => g.own ? [place(j), Y(g.own.value[0])] : null), known = owns.filter(Boolean);
  const radius = models.length > 400 ? 2 : models.length > 60 ? 3 : 4, j = state.group;
  const sticks = owns.map((o, i) => o ? `M${o[0].toFixed(1)} ${o[1].toFixed(1)}V${models[i][1].toFixed(1)}` : "").join("");
  const chosen = owns[j] ? line(...owns[j], ...models[j], 'stroke="var(--sel)" stroke-width="3"') + chosenRing(owns[j]) : "";
  const inside = area(edge(all, 1), edge(all, -1), 'fill="var(--model)" opacity=".1"')
    + path(through(edge(chance, 1)) + through(edge(chance, -1)), 'fill="none" stroke="var(--own)" stroke-width="1.5" stroke-dasharray="2 4"')
    + line(frame.left, Y(mean), frame.right, Y(mean), 'stroke="var(--ink)" stroke-width="1.4"')
    + path(sticks || "M0 0", 'stroke="var(--muted)" opacity=".7"') + rings(known, radius) + dots(models, radius, "var(--model)")
    + chosen + chosenDot(models[j]);
  const shown = (owns[j] ?? models[j]).map((v, i) => i ? Math.min(frame.bottom - 6, Math.max(frame.top + 8, v)) : v);
  const right = shown[0] < width - 190, away = outside(layout, fit);
  return {
    svg: axes(frame, font, {X, Y, x, y: ticks(...layout.domain[0], 5), xLabel: title})
      + clipped("funnel", frame.left, frame.top - 6, frame.right - frame.left, frame.bottom - frame.top + 7, inside)
      + label(shown[0] + (right ? 11 : -11), shown[1] + font / 3, words.group(j), {right})
      + (width > 520 ? text(frame.right - 4, Y(mean) - 5, words.overall, `${end} ${HALO}`) : "")
      + (away ? text(frame.right - 4, frame.top + font, `${away} own outside`, `${end} ${MUTED} ${HALO}`) : ""),
    hits: models.map((q, i) => {
      const o = owns[i] ?? q;
      return [q[0] - 9, Math.min(o[1], q[1]) - 9, 18, Math.abs(o[1] - q[1]) + 18, i];
    }),
  };
}

export function weightOfOwn(scene) {
  const {fit, layout, q, words, state, size, data} = scene, {font, width} = size, {at} = fit;
  const frame = frameOf(size, 48, font + 8), range = widened(layout.sizeRange);
  const X = scale(...range.map(Math.log), frame.left, frame.right), Y = scale(0, 1, frame.bottom, frame.top);
  const sizes = layout.sizesOf(q), half = (at.sigma / at.sd[0]) ** 2;
  const curve = Array.from({length: 61}, (_, i) => {
    const u = Math.log(range[0]) + Math.log(range[1] / range[0]) * i / 60, own = at.sd[0] ** 2 * Math.exp(u);
    return [X(u), Y(own / (own + at.sigma ** 2))];
  });
  const points = fit.groups.map((g, j) => [X(Math.log(sizes[j])), Y(g.share[0])]), chosen = points[state.group];
  const dashed = 'stroke="var(--muted)" stroke-dasharray="3 3"', hx = X(Math.log(half));
  const right = chosen[0] < width - 80, flip = hx > width - 110;
  const halfWay = half > range[0] && half < range[1] ? line(hx, frame.bottom, hx, Y(0.5), dashed)
    + line(frame.left, Y(0.5), hx, Y(0.5), dashed)
    + text(hx + (flip ? -6 : 6), frame.bottom - 6, `half at ${Number(half.toPrecision(2))}`, `${flip ? end : ""} ${MUTED} ${HALO}`) : "";
  return {
    svg: axes(frame, font, {
      X, Y, x: sizeTicks(range, X, 38), y: [0, 0.25, 0.5, 0.75, 1].map(v => [v, `${100 * v} %`]), xLabel: words.sizes,
    }) + path(through(curve), 'fill="none" stroke="var(--model)" stroke-width="2.4"')
      + dots(points, 2.8, "var(--model)") + halfWay + chosenDot(chosen)
      + label(chosen[0] + (right ? 10 : -10), chosen[1] + (chosen[1] < 40 ? 18 : -6), data.groups.labels[state.group], {right}),
    hits: points.map((p, j) => [p[0] - 9, p[1] - 9, 18, 18, j]),
  };
}
