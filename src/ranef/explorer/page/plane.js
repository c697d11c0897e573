// Two coefficients: arrows from own estimates to the model's, over the population's ellipses.

import {outside} from "./layout.js";
import {HALO, MUTED, arrow, axes, chosenDot, chosenRing, clipped, diamond, dots, ellipse, end, frameOf, label, path, rings, scale, text, through, ticks} from "./marks.js";

const FARTHEST = 50; // scales: ellipses of larger sds are off the picture anyway

export function plane(scene) {
  const {data, fit, layout, words, state, size} = scene, {font, width} = size, {at} = fit;
  const frame = frameOf(size, 46, font + 12, 8);
  const X = scale(...layout.domain[0], frame.left, frame.right), Y = scale(...layout.domain[1], frame.bottom, frame.top);
  const pixel = v => [X(v[0]), Y(v[1])], closed = points => `${through(points.map(pixel))}Z`;
  const sds = at.sd.map((s, i) => Math.min(s, FARTHEST * data.scale.sd[i]));
  const population = [[0.5, 0.14], [0.95, 0.1]].map(([share, opacity]) =>
    path(closed(ellipse(fit.population, sds, at.corr, share)),
      `fill="var(--model)" fill-opacity="${opacity}" stroke="var(--model)" stroke-opacity=".55"`)).join("");
  const j = state.group, mine = fit.groups[j].own;
  const models = fit.groups.map(g => pixel(g.model)), owns = fit.groups.map(g => g.own && pixel(g.own.value));
  const sure = mine ? path(closed(ellipse(mine.value, mine.se, mine.cov[1] / (mine.se[0] * mine.se[1]), 0.5)),
    'fill="none" stroke="var(--own)" stroke-width="1.8" stroke-dasharray="5 3"') : "";
  const radius = models.length > 60 ? 3 : 4.2, arrows = owns.map((o, i) => !o ? ""
    : i === j ? arrow(o, models[i], "var(--sel)", 2.6) : arrow(o, models[i], "var(--muted)", 1.3)).join("");
  const inside = population + sure + arrows + rings(owns.filter(Boolean), radius) + dots(models, radius, "var(--model)")
    + (owns[j] ? chosenRing(owns[j]) : "") + chosenDot(models[j]) + diamond(...pixel(fit.population), 7);
  const [x, y] = owns[j] ?? models[j], away = outside(layout, fit);
  const shown = [Math.min(frame.right, Math.max(frame.left, x)), Math.min(frame.bottom - 6, Math.max(frame.top + 6, y))];
  const cramped = x < frame.left + 60, right = (models[j][0] <= x + 1 || cramped) && x < width - 50;
  const lift = cramped && models[j][0] > x ? 12 : 0; // off the arrow
  return {
    svg: axes(frame, font, {
      X, Y, x: ticks(...layout.domain[0], 4), y: ticks(...layout.domain[1], 4),
      xLabel: words.withUnit(words.coefs[0], 0), yLabel: words.withUnit(words.coefs[1], 1),
    }) + clipped("plane", frame.left, frame.top - 2, width - frame.left, frame.bottom - frame.top + 2, inside)
      + label(shown[0] + (right ? 10 : -10), shown[1] + font / 3 - lift, data.groups.labels[j], {right})
      + (away ? text(frame.right - 4, frame.top + font - 2, `${away} own outside`, `${end} ${MUTED} ${HALO}`) : ""),
    hits: models.map((p, i) => {
      const o = owns[i] ?? p;
      return [Math.min(o[0], p[0]) - 9, Math.min(o[1], p[1]) - 9, Math.abs(o[0] - p[0]) + 18, Math.abs(o[1] - p[1]) + 18, i];
    }),
  };
}
