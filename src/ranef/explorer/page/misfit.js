// The misfit along one slider: -2 log of the restricted likelihood above its minimum.

import {criterionAt} from "./model.js";
import {HALO, axes, clipped, dots, end, frameOf, line, path, scale, text} from "./marks.js";

const POINTS = 120, HIGHEST = 24, RULED_OUT = 3.84; // the 95 % point of chi-squared with 1 df

export const misfitAlong = (slider, q, from) =>
  Array.from({length: POINTS + 1}, (_, i) => criterionAt(q, slider.set(from, i / POINTS)));

function curve(values, least, X, Y) {
  let d = "", drawn = false;
  values.forEach((v, i) => {
    const known = Number.isFinite(v);
    if (known) d += `${drawn ? "L" : "M"}${X(i / POINTS).toFixed(1)} ${Y(Math.min(v - least, 3 * HIGHEST)).toFixed(1)}`;
    drawn = known;
  });
  return d || "M0 0";
}

export function misfit(scene) {
  const {fit, sliders, state, size, q, least, remlCurve} = scene, {font, width} = size;
  const slider = sliders.find(s => s.id === state.active), frame = frameOf(size, 40, font + 12);
  const X = scale(0, 1, frame.left, frame.right), Y = scale(0, HIGHEST, frame.bottom, frame.top);
  const here = slider.get(fit.at), height = fit.criterion - least, x = X(here), mark = slider.mark;
  const side = v => v > 0.8 ? [-5, end] : [5, ""], level = Y(RULED_OUT);
  const curves = path(curve(remlCurve(slider), least, X, Y), 'fill="none" stroke="var(--muted)" stroke-width="1.6" stroke-dasharray="4 3"')
    + path(curve(misfitAlong(slider, q, fit.at), least, X, Y), 'fill="none" stroke="var(--model)" stroke-width="2.6"');
  const reml = mark === null ? "" : line(X(mark), frame.bottom, X(mark), frame.top, 'stroke="var(--ink)" stroke-dasharray="2 3"')
    + text(X(mark) + side(mark)[0], frame.top + font - 4, slider.known ? "known" : "REML", `${side(mark)[1]} ${HALO}`);
  const above = height < 1e4 ? `+${height.toFixed(0)}` : "off the chart", [dx, anchor] = side(here);
  const point = height > HIGHEST || Number.isNaN(height)
    ? path(`M${x - 7} ${frame.top + 8}L${x} ${frame.top - 3}L${x + 7} ${frame.top + 8}Z`, 'fill="var(--sel)"')
      + text(x + 2 * dx, frame.top + 2 * font, above, `style="fill:var(--sel)" font-weight="700" ${anchor} ${HALO}`)
    : dots([[x, Y(height)]], 6.5, "var(--sel)");
  return {
    svg: axes(frame, font, {X, Y, x: slider.ticks, y: [0, 5, 10, 15, 20].map(v => [v, v]), xLabel: slider.axis})
      + `<rect x="${frame.left}" y="${level}" width="${frame.right - frame.left}" height="${frame.bottom - level}" fill="var(--model)" opacity=".08"/>`
      + clipped("misfit", frame.left, frame.top - 4, frame.right - frame.left + 4, frame.bottom - frame.top + 10, curves) + reml + point,
    hits: [],
  };
}
