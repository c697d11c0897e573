// The rows of the selected group, with its own estimate and the model's.

import {partialResponses} from "./layout.js";
import {arrow, axes, clipped, diamond, dots, extent, line, rings, scale, ticks} from "./marks.js";

// Values along a line, equal ones piled up.
function piled({fit, state, size, used}, values, all) {
  const {width, height, font} = size, bottom = height - font - 8, range = extent(all, 0.04);
  const frame = {left: 10, right: width - 10, top: bottom, bottom}, X = scale(...range, 10, width - 10), seen = new Map();
  const step = Math.min(5, (bottom - 44) / 14), points = values.map(v => {
    const before = seen.get(v) ?? 0;
    seen.set(v, before + 1);
    return [X(v), bottom - 6 - Math.min(bottom - 44, before * step)];
  });
  const {own, model} = fit.groups[state.group], y = 12, mean = X(fit.population[0]), at = [X(model[0]), y];
  return axes(frame, font, {X, x: ticks(...range, 5)})
    + dots(points.slice(used), 2.2, "var(--line)") + dots(points.slice(0, used), 2.2, "var(--muted)")
    + line(mean, y, mean, bottom, 'stroke="var(--ink)" stroke-dasharray="2 3"')
    + (own ? arrow([X(own.value[0]), y], at, "var(--sel)", 2.4) + rings([[X(own.value[0]), y]], 5) : "")
    + dots([at], 5.5, "var(--model)") + diamond(mean, y, 6);
}

// Values against the variable of the term.
function against({fit, state, size, used, q}, x, y, xAll, yAll) {
  const {width, height, font} = size, frame = {left: 38, right: width - 6, top: 4, bottom: height - font - 8};
  const xs = extent(xAll, 0.05), ys = extent(yAll, 0.05);
  const X = scale(...xs, frame.left, frame.right), Y = scale(...ys, frame.bottom, frame.top);
  const points = x.map((v, r) => [X(v), Y(y[r])]), value = (c, v) => q.k === 2 ? c[0] + c[1] * v : c[0] * v;
  const through = (c, style) => line(X(xs[0]), Y(value(c, xs[0])), X(xs[1]), Y(value(c, xs[1])), style);
  const {own, model} = fit.groups[state.group];
  const inside = through(fit.population, 'stroke="var(--ink)" stroke-width="1.3"')
    + dots(points.slice(used), 3, "var(--line)") + dots(points.slice(0, used), 3, "var(--ink)")
    + (own ? through(own.value, 'stroke="var(--own)" stroke-width="2.2" stroke-dasharray="6 4"') : "")
    + through(model, 'stroke="var(--model)" stroke-width="3"');
  return axes(frame, font, {X, Y, x: ticks(...xs, 5), y: ticks(...ys, 3)})
    + clipped("group", frame.left, 2, frame.right - frame.left, frame.bottom - 2, inside);
}

export function groupRows(scene) {
  const {data, q, fit, layout, state} = scene, j = state.group;
  const y = partialResponses(data, q, fit.beta), from = layout.start[j], to = layout.start[j + 1];
  const used = state.rows ?? to - from, mine = y.slice(from, to), {x} = data.rows;
  const svg = x ? against({...scene, used}, x.slice(from, to), mine, x, y) : piled({...scene, used}, mine, y);
  return {svg, hits: []};
}
