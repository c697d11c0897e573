// Marks of SVG as text, and axes. Many marks of one kind are one path.

import {escaped, tickText} from "./words.js";

const at = v => Math.round(10 * v) / 10;

export const path = (d, style) => `<path d="${d}" ${style}/>`;
export const line = (x1, y1, x2, y2, style) => path(`M${at(x1)} ${at(y1)}L${at(x2)} ${at(y2)}`, style);
export const through = points => `M${points.map(q => `${at(q[0])} ${at(q[1])}`).join("L")}`;
export const area = (upper, lower, style) => path(`${through([...upper, ...lower.slice().reverse()])}Z`, style);
export const text = (x, y, words, style = "") =>
  `<text x="${at(x)}" y="${at(y)}" ${style}>${escaped(words)}</text>`;
export const HALO = 'paint-order="stroke" stroke="var(--card)" stroke-width="4"';
export const MUTED = 'class="m"';
export const middle = 'text-anchor="middle"';
export const end = 'text-anchor="end"';

export const dots = (points, radius, colour) => path(
  points.map(q => `M${at(q[0])} ${at(q[1])}h.01`).join("") || "M0 0",
  `stroke="${colour}" stroke-width="${2 * radius}" stroke-linecap="round" fill="none"`);
export const rings = (points, radius) =>
  dots(points, radius + 0.9, "var(--own)") + dots(points, radius - 0.9, "var(--card)");
export const diamond = (x, y, r) =>
  path(`M${at(x - r)} ${at(y)}L${at(x)} ${at(y - r)}L${at(x + r)} ${at(y)}L${at(x)} ${at(y + r)}Z`, 'fill="var(--ink)"');
export const chosenRing = point => dots([point], 7, "var(--sel)") + dots([point], 4.5, "var(--card)");
export const chosenDot = point => dots([point], 6.2, "var(--sel)") + dots([point], 4, "var(--model)");

export const clipped = (id, x, y, width, height, inside) =>
  `<clipPath id="clip-${id}"><rect x="${at(x)}" y="${at(y)}" width="${at(Math.max(0, width))}" `
  + `height="${at(Math.max(0, height))}"/></clipPath><g clip-path="url(#clip-${id})">${inside}</g>`;

export const label = (x, y, words, {right = true, colour = "var(--sel)"} = {}) =>
  text(x, y, words, `font-weight="700" style="fill:${colour}" ${right ? "" : end} ${HALO}`);

export function arrow(from, to, colour, width) {
  const dx = to[0] - from[0], dy = to[1] - from[1], length = Math.hypot(dx, dy);
  if (!(length >= 7)) return "";
  const ux = dx / length, uy = dy / length, h = Math.min(7, length / 2);
  const x = to[0] - 4.5 * ux, y = to[1] - 4.5 * uy, wing = side =>
    `${at(x - h * ux - side * 0.55 * h * uy)} ${at(y - h * uy + side * 0.55 * h * ux)}`;
  return path(`M${at(from[0])} ${at(from[1])}L${at(x)} ${at(y)}M${wing(1)}L${at(x)} ${at(y)}L${wing(-1)}`,
    `fill="none" stroke="${colour}" stroke-width="${width}"`);
}

// Points of an ellipse that holds a share of a normal distribution of two numbers.
export function ellipse(center, [sd0, sd1], corr, share) {
  const r = Math.sqrt(-2 * Math.log(1 - share)), across = Math.sqrt(Math.max(0, 1 - corr * corr));
  return Array.from({length: 73}, (_, i) => {
    const u = r * Math.cos(i * Math.PI / 36), v = r * Math.sin(i * Math.PI / 36);
    return [center[0] + sd0 * u, center[1] + sd1 * (corr * u + across * v)];
  });
}

// From values to pixels; what lies far outside stays within reach of the browser.
export const scale = (from, to, first, last) => value =>
  first + Math.max(-9, Math.min(9, (value - from) / (to - from))) * (last - first);

export function ticks(from, to, count) {
  const raw = (to - from) / count, size = 10 ** Math.floor(Math.log10(raw));
  const step = size * [1, 2, 5, 10].find(q => q * size >= raw * 0.999), out = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9 * step; i++) {
    out.push(Number((i * step).toPrecision(6)));
  }
  return out.map(v => [v, tickText(v)]);
}

export const extent = (values, pad = 0.06) => {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  const room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
};

// Axes along the left and the bottom of a frame {left, right, top, bottom}.
export function axes(frame, font, {X, Y, x = [], y = [], xLabel = "", yLabel = ""}) {
  const {left, right, top, bottom} = frame, tick = 'stroke="var(--muted)"', own = 'stroke="var(--line)"';
  return line(left, bottom, right, bottom, own) + line(left, bottom, left, top, own)
    + x.map(([v, name]) => line(X(v), bottom, X(v), bottom + 4, tick)
      + text(X(v), bottom + font + 5, name, `${middle} ${MUTED}`)).join("")
    + y.map(([v, name]) => line(left - 4, Y(v), left, Y(v), tick)
      + text(left - 7, Y(v) + font / 3, name, `${end} ${MUTED}`)).join("")
    + (xLabel ? text((left + right) / 2, bottom + 2 * font + 9, xLabel, middle) : "")
    + (yLabel ? text(left - 4, top - 7, yLabel) : "");
}

// The frame of a figure with tick labels below and at the left.
export const frameOf = ({width, height, font}, left, top, right = 10) =>
  ({left, right: width - right, top, bottom: height - 2 * font - 14});
