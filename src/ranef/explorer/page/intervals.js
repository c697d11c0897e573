// 95 % intervals of each group, own and by the model, and of a new group.

import {newGroup} from "./model.js";
import {MUTED, axes, diamond, dots, end, line, path, rings, scale, text, ticks} from "./marks.js";

export function intervals(scene) {
  const {data, fit, layout, words, state, size} = scene, {width, height, font} = size;
  const list = layout.intervals(state.group), bottom = height - 2 * font - 14, top = 8, hits = [];
  const row = (bottom - top) / (list.length + 2), Y = place => top + (place + 0.5) * row;
  const isNamed = row > font - 1.5, longest = Math.max(3, ...data.groups.labels.map(l => l.length));
  const left = Math.min(Math.max(96, width / 4), 14 + 0.62 * font * longest), each = (width - left - 4) / words.k;
  const heavy = Math.max(1, Math.min(3, row * 0.45)), most = Math.floor((left - 8) / (0.58 * font));
  const name = j => data.groups.labels[j].length > most ? `${data.groups.labels[j].slice(0, most - 1)}…` : data.groups.labels[j];
  const column = (coef, i) => {
    const [low, high] = layout.domain[i], room = 0.12 * (high - low), range = [low - room, high + room];
    const frame = {left: left + i * each + (i ? 8 : 0), right: left + (i + 1) * each - 4, top, bottom};
    const X0 = scale(...range, frame.left, frame.right), X = v => Math.max(frame.left, Math.min(frame.right, X0(v)));
    const bar = ([a, b], y) => `M${X(a).toFixed(1)} ${y.toFixed(1)}H${X(b).toFixed(1)}`;
    const around = (v, se) => [v - 1.96 * se, v + 1.96 * se];
    let ownBars = "", modelBars = "", rest = "";
    const owns = [], models = [];
    list.forEach((j, place) => {
      const y = Y(list.length - place + 1), {own, model, se} = fit.groups[j], chosen = j === state.group;
      if (own) {
        ownBars += bar(around(own.value[i], own.se[i]), y + row * 0.2);
        owns.push([X(own.value[i]), y + row * 0.2]);
      }
      modelBars += bar(around(model[i], se[i]), y - row * 0.2);
      models.push([X(model[i]), y - row * 0.2]);
      hits.push([frame.left, y - row / 2, frame.right - frame.left, row, j]);
      if (i === 0 && (isNamed || chosen)) {
        rest += text(left - 5, y + font / 3, name(j), `${end} ${chosen ? 'font-weight="700" style="fill:var(--sel)"' : MUTED}`);
      }
      if (chosen) {
        const high = Math.max(row, 7);
        rest += `<rect x="${frame.left}" y="${(y - high / 2).toFixed(1)}" width="${(frame.right - frame.left).toFixed(1)}" `
          + `height="${high.toFixed(1)}" fill="none" stroke="var(--sel)" stroke-width="2"/>`;
      }
    });
    const y = Y(0.2), mean = X(fit.population[i]), wide = words.k === 1 || width >= 300;
    const title = words.isMean ? words.withUnit(data.response, 0) : wide ? words.withUnit(coef, i) : coef;
    return axes(frame, font, {X, Y, x: ticks(...range, words.k === 2 ? 2 : 4), xLabel: title})
      + line(mean, top, mean, bottom, 'stroke="var(--ink)" stroke-width="1.2"')
      + path(ownBars || "M0 0", `stroke="var(--own)" stroke-width="${heavy * 0.6}" opacity=".75"`)
      + path(modelBars, `stroke="var(--model)" stroke-width="${heavy}"`)
      + (row > 6 ? rings(owns, 2.4) : dots(owns, Math.max(1, row * 0.5), "var(--own)"))
      + dots(models, row > 6 ? 3 : Math.max(1.1, row * 0.55), "var(--model)") + rest
      + path(bar(newGroup(fit, i), y), 'stroke="var(--ink)" stroke-width="4" opacity=".8"') + diamond(mean, y, 6)
      + (i ? "" : text(left - 5, y + font / 3, "new", `${end} font-weight="700"`));
  };
  return {svg: words.coefs.map(column).join(""), hits};
}
