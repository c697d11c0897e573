// The sliders: where a value lies between 0 and 1, and what it is there. A setting is
// {sigma, sd, corr, ratio}; `ratio` keeps the sds apart where both are moved in one.

import {decimal, tickText} from "./words.js";

export const ENDLESS = 1e5; // of the scale: no pooling

export const sdAt = (t, scale) => t >= 1 ? scale * ENDLESS : scale * t / (1 - t);
export const placeOfSd = (sd, scale) => isEndless(sd, scale) ? 1 : sd / (sd + scale);
export const isEndless = (sd, scale) => sd >= 0.99 * scale * ENDLESS;

const geometricMean = values => Math.exp(values.reduce((s, v) => s + Math.log(v), 0) / values.length);

// Relative sizes of the sds in units of the scale; as before where one is zero or endless.
export function withRatio(at, scale) {
  const relative = at.sd.map((s, i) => s / scale.sd[i]);
  if (!relative.every(v => v > 1e-6 && v < ENDLESS / 2)) return at;
  const middle = geometricMean(relative);
  return {...at, ratio: relative.map(v => v / middle)};
}

const withAll = (at, t, scale) =>
  ({...at, sd: scale.sd.map((s, i) => t >= 1 ? s * ENDLESS : s * at.ratio[i] * t / (1 - t))});

function placeOfAll(at, scale) {
  const relative = at.sd.map((s, i) => s / scale.sd[i]);
  if (relative.every(v => v >= 0.99 * ENDLESS)) return 1;
  if (relative.every(v => v <= 0)) return 0;
  return placeOfSd(relative.some(v => v <= 0) ? Math.max(...relative) / 2 : geometricMean(relative), 1);
}

// REML's setting.
export const remlSetting = data => withRatio({
  sigma: data.reml.sigma, sd: data.reml.sd, corr: data.reml.corr ?? 0,
  ratio: data.scale.sd.map(() => 1),
}, data.scale);

export const completePooling = (at, scale) => ({...at, sd: scale.sd.map(() => 0)});
export const noPooling = (at, scale) => ({...at, sd: scale.sd.map(s => s * ENDLESS)});

const ROUND = [1, 2, 5];

function roundTicks(place) {
  const all = [];
  for (let e = -8; e < 9; e++) {
    for (const digit of ROUND) {
      const value = Number(`${digit}e${e}`), t = place(value);
      if (t > 0.07 && t < 0.93) all.push([t, tickText(value)]);
    }
  }
  return all.reduce((kept, tick) =>
    kept.length && tick[0] - kept[kept.length - 1][0] < 0.095 ? kept : [...kept, tick], []);
}

const ENDS = [[0, "0"], [1, "∞"]];

function bothSds(data, words) {
  const {scale} = data, inReml = data.reml.sd.every((s, i) => s === scale.sd[i]);
  const unit = inReml ? "× REML" : "× the marks";
  return {
    id: "all", chip: "both", label: `How much ${words.many} differ, in all`, ends: true, posterior: null,
    axis: `sds of both ${unit}`, get: at => placeOfAll(at, scale), set: (at, t) => withAll(at, t, scale),
    text: t => t >= 1 ? "∞" : t <= 0 ? "0" : `${decimal(t / (1 - t), t < 0.9 ? (t < 0.5 ? 2 : 1) : 0)} ${unit}`,
    mark: inReml ? 0.5 : placeOfAll(remlSetting(data), scale),
    ticks: [...ENDS, [0.2, "¼"], [1 / 3, "½"], [0.5, "1"], [2 / 3, "2"], [0.8, "4 ×"]],
  };
}

function ofSd(data, words, i) {
  const scale = data.scale.sd[i], name = words.coefs[i], alone = words.k === 1;
  const place = v => placeOfSd(v, scale);
  return {
    id: `sd${i}`, chip: alone ? `sd of ${words.many}` : name, ends: alone,
    label: alone ? `How much ${words.many} differ (sd)` : `… in ${name} (sd)`,
    axis: words.withUnit(`sd of ${alone ? words.many : name}`, i),
    get: at => place(at.sd[i]),
    set: (at, t) => withRatio({...at, sd: at.sd.map((s, q) => q === i ? sdAt(t, scale) : s)}, data.scale),
    text: t => words.inUnit(words.sd(sdAt(t, scale)), i), place, bound: words.bound,
    mark: place(data.reml.sd[i]), posterior: data.posterior.sd[i], slope: t => scale / (1 - t) ** 2,
    ticks: [...ENDS, ...roundTicks(place)],
  };
}

const ofCorrelation = (data, words) => ({
  id: "corr", chip: "correlation", label: `Correlation of ${words.coefs.join(" and ")}`, ends: false,
  axis: "correlation", get: at => (at.corr + 1) / 2, set: (at, t) => ({...at, corr: 2 * t - 1}),
  text: t => decimal(2 * t - 1, 2), place: v => (v + 1) / 2, bound: v => decimal(v, 2),
  mark: data.reml.corr === null ? null : (data.reml.corr + 1) / 2,
  posterior: data.posterior.corr, slope: () => 2,
  ticks: [-1, -0.5, 0, 0.5, 1].map(v => [(v + 1) / 2, tickText(v)]),
});

function ofSigma(data, words) {
  const {sigma} = data.scale, at = t => sigma * 2 ** (4 * t - 2);
  const place = v => (Math.log2(v / sigma) + 2) / 4;
  const inUnit = text => words.response ? `${text} ${words.response}` : text;
  return {
    id: "sigma", chip: "sigma", label: `Scatter within a ${words.one} (sigma)`, ends: false,
    axis: words.response ? `sigma (${words.response})` : "sigma",
    get: setting => place(setting.sigma), set: (setting, t) => ({...setting, sigma: at(t)}),
    text: t => inUnit(words.sd(at(t))), place, bound: words.bound,
    mark: 0.5, known: data.knownSigma, posterior: data.posterior.sigma,
    slope: t => at(t) * Math.log(16), ticks: roundTicks(place),
  };
}

export const slidersOf = (data, words) => [
  ...(words.k === 2 ? [bothSds(data, words)] : []),
  ...words.coefs.map((_, i) => ofSd(data, words, i)),
  ...(data.correlated ? [ofCorrelation(data, words)] : []),
  ofSigma(data, words),
];

// The density per unit of the slider, 1 where it is highest.
export function densityAlong(slider) {
  const {pdf} = slider.posterior, last = pdf.length - 1;
  const heights = pdf.map((v, i) => v === 0 ? 0 : v * slider.slope(i / last));
  const top = Math.max(...heights);
  return heights.map((v, i) => [i / last, v / top]);
}

// What a screen reader says of a slider.
export function spoken(slider, t) {
  const end = !slider.id.startsWith("sd") && slider.id !== "all" ? ""
    : t <= 0 ? ", complete pooling" : t >= 1 ? ", no pooling" : "";
  const p = slider.posterior;
  const posterior = p ? `; posterior 95 % from ${slider.bound(p.lower)} to ${slider.bound(p.upper)}` : "";
  return slider.text(t) + end + posterior;
}

export const between = (from, to, sliders, share) => share >= 1 ? to : {
  ...sliders.filter(s => s.id !== "all").reduce(
    (at, s) => s.set(at, s.get(from) + (s.get(to) - s.get(from)) * share), from),
  ratio: to.ratio,
};
