// Each group's rows and lines, a panel a group, and a new group.

import {partialResponses} from "./layout.js";
import {HALO, MUTED, area, clipped, dots, end, extent, line, middle, scale, text, ticks} from "./marks.js";

const LEFT = 36, NEW = -1;

// How many columns leave the panels a little wider than high, and few of them empty.
function columnsFor(count, width, height) {
  let best = 1, least = Infinity;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns), shape = (width / columns) / (height / rows);
    const badness = Math.abs(Math.log(shape / 1.35)) + 1.2 * (columns * rows - count) / count;
    if (badness < least) [best, least] = [columns, badness];
  }
  return best;
}

function bands({fit}, [x0, x1], X, Y) {
  const [a, b, d] = fit.ofNew, [level, slope] = fit.population, steps = 16;
  const band = extra => [1, -1].map(sign => Array.from({length: steps + 1}, (_, i) => {
    const x = x0 + (x1 - x0) * i / steps, half = 1.96 * Math.sqrt(a + 2 * x * b + x * x * d + extra);
    return [X(x), Y(level + slope * x + sign * half)];
  }));
  const shade = opacity => `fill="var(--model)" opacity="${opacity}"`;
  return area(...band(fit.at.sigma ** 2), shade(0.16)) + area(...band(0), shade(0.3));
}

export function lattice(scene) {
  const {data, q, fit, layout, words, state, size} = scene, {width, height, font} = size;
  const narrow = width < 500, panels = [...layout.panels(state.group), NEW];
  const columns = columnsFor(panels.length, width, height), rows = Math.ceil(panels.length / columns);
  const w = (width - LEFT) / columns, h = (height - font - 6) / rows, x = data.rows.x;
  const y = partialResponses(data, q, fit.beta), xs = extent(x, 0.05), ys = extent(y, 0.05), hits = [];
  const panel = (j, place) => {
    const left = LEFT + (place % columns) * w, row = Math.floor(place / columns), top = row * h;
    const X = scale(...xs, left + 2, left + w - 2), Y = scale(...ys, top + h - 2, top + 2);
    const chosen = j === state.group, through = ([a, b], style) =>
      line(X(xs[0]), Y(a + b * xs[0]), X(xs[1]), Y(a + b * xs[1]), style);
    const own = () => {
      const first = layout.start[j], used = chosen && state.rows !== null ? state.rows : data.groups.n[j];
      const points = Array.from({length: data.groups.n[j]}, (_, r) => [X(x[first + r]), Y(y[first + r])]);
      const {own: mine, model} = fit.groups[j];
      return through(fit.population, 'stroke="var(--muted)"')
        + dots(points.slice(used), 1.7, "var(--line)") + dots(points.slice(0, used), narrow ? 1.4 : 1.9, "var(--ink)")
        + (mine ? through(mine.value, 'stroke="var(--own)" stroke-width="2" stroke-dasharray="5 3"') : "")
        + through(model, 'stroke="var(--model)" stroke-width="2.6"');
    };
    const unseen = () => bands(scene, xs, X, Y) + through(fit.population, 'stroke="var(--ink)" stroke-width="2"');
    if (j !== NEW) hits.push([left, top, w, h, j]);
    const name = j === NEW ? (narrow ? "new" : `new ${words.one}`) : data.groups.labels[j];
    const box = `<rect x="${left + 1}" y="${top + 1}" width="${w - 2}" height="${h - 2}" fill="none" `
      + `stroke="${chosen ? "var(--sel)" : "var(--line)"}" stroke-width="${chosen ? 3 : 1}"/>`;
    const last = row === rows - 1 || place + columns >= panels.length;
    return clipped(`panel${place}`, left + 1, top + 1, w - 2, h - 2, j === NEW ? unseen() : own()) + box
      + text(left + 5, top + font + 2, name, `font-weight="${chosen || j === NEW ? 700 : 400}" `
        + `${chosen ? 'style="fill:var(--sel)"' : ""} ${HALO}`)
      + (place % columns ? "" : ticks(...ys, 2).filter(([v]) => Y(v) > top + font / 2).map(([v, label]) =>
        text(LEFT - 4, Y(v) + font / 3, label, `${end} ${MUTED}`)).join(""))
      + (last ? ticks(...xs, narrow ? 2 : 3).map(([v, label]) =>
        text(X(v), top + h + font + 1, label, `${middle} ${MUTED}`)).join("") : "");
  };
  return {svg: panels.map(panel).join(""), hits};
}
