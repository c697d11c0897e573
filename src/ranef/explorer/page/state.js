// What the reader has chosen, and how the address says it: values, not positions of sliders.

import {ENDLESS, isEndless, remlSetting, withRatio} from "./sliders.js";

export const VIEWS = ["v1", "v2", "v3", "v4"];

export const initial = (data, group) => ({
  at: remlSetting(data), group, rows: null, step: 0, shown: false,
  active: data.coefs.length === 2 ? "all" : "sd0", view: "v1", big: false, theme: null,
});

const short = value => String(Number(value.toPrecision(6)));

export function toHash(data, state) {
  const {at, step, shown} = state, parts = at.sd.map((s, i) =>
    [`sd${i}`, isEndless(s, data.scale.sd[i]) ? "inf" : short(s)]);
  parts.push(["sigma", short(at.sigma)]);
  if (data.correlated) parts.push(["corr", short(at.corr)]);
  parts.push(["group", encodeURIComponent(data.groups.labels[state.group])]);
  if (state.rows !== null) parts.push(["rows", state.rows]);
  parts.push(["step", `${step + 1}${shown ? "a" : ""}`], ["view", state.view]);
  if (state.big) parts.push(["big", 1]);
  if (state.theme) parts.push(["theme", state.theme]);
  return parts.map(pair => pair.join("=")).join("&");
}

const clamped = (value, low, high) => Math.min(high, Math.max(low, value));

// The state that an address asks for. Nonsense is ignored, and what goes too far is brought back.
export function fromHash(data, state, hash, {steps, canTrim}) {
  const asked = new URLSearchParams(hash.replace(/^#/, "")), {scale} = data;
  const number = (name, otherwise) => {
    const text = asked.get(name), value = Number(text);
    return text === null || text.trim() === "" || !Number.isFinite(value) ? otherwise : value;
  };
  const sd = state.at.sd.map((s, i) => asked.get(`sd${i}`) === "inf" ? scale.sd[i] * ENDLESS
    : clamped(number(`sd${i}`, s), 0, scale.sd[i] * ENDLESS));
  const sigma = clamped(number("sigma", state.at.sigma), scale.sigma / 4, scale.sigma * 4);
  const corr = data.correlated ? clamped(number("corr", state.at.corr), -1, 1) : state.at.corr;
  const known = data.groups.labels.indexOf(asked.get("group"));
  const group = known >= 0 ? known : state.group, rows = number("rows", null);
  const step = /^([1-9]\d*)(a?)$/.exec(asked.get("step") ?? "");
  const isStep = step && Number(step[1]) <= steps;
  return {
    ...state, at: withRatio({...state.at, sd, sigma, corr}, scale), group,
    rows: canTrim && Number.isInteger(rows) && rows >= 1 && rows < data.groups.n[group] ? rows : null,
    step: isStep ? Number(step[1]) - 1 : state.step, shown: isStep ? step[2] === "a" : state.shown,
    view: VIEWS.includes(asked.get("view")) ? asked.get("view") : state.view,
    big: asked.has("big") ? asked.get("big") === "1" : state.big,
    theme: ["light", "dark"].includes(asked.get("theme")) ? asked.get("theme") : state.theme,
  };
}
