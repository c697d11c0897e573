// The page: what is seen of the state, and what changes it. All that computes is elsewhere.

import {withFirstRows} from "./first_rows.js";
import {groupRows} from "./group_rows.js";
import {intervals} from "./intervals.js";
import {lattice} from "./lattice.js";
import {layoutOf} from "./layout.js";
import {HALO, MUTED, diamond, dots, end, line, middle, path, rings, text, through} from "./marks.js";
import {misfit, misfitAlong} from "./misfit.js";
import {fitAt, newGroup, prepared} from "./model.js";
import {funnel, weightOfOwn} from "./one_coefficient.js";
import {plane} from "./plane.js";
import {between, completePooling, densityAlong, isEndless, noPooling, remlSetting, slidersOf, spoken} from "./sliders.js";
import {fromHash, initial, toHash} from "./state.js";
import {firstGroup, storyOf} from "./story.js";
import {escaped, groupWords, misfitWords, percent, vocabulary} from "./words.js";

const GLIDE = 900, BEFORE_SPOKEN = 700, BEFORE_ADDRESS = 250; // ms
const one = selector => document.querySelector(selector), root = document.documentElement;
const all = selector => [...document.querySelectorAll(selector)];

const data = JSON.parse(one("#data").textContent), whole = prepared(data);
const atReml = fitAt(whole, remlSetting(data)), words = vocabulary(data, atReml.population);
const layout = layoutOf(data, whole, atReml), sliders = slidersOf(data, words);
const story = storyOf(data, whole, words, layout), canTrim = layout.hasRows;
const SIZES = {steps: story.length, canTrim};
const dark = matchMedia("(prefers-color-scheme: dark)"), calm = matchMedia("(prefers-reduced-motion: reduce)");

const isTwo = words.k === 2, NOT_RULED_OUT = "shaded: not ruled out (95 %)";
const ownThin = `own thin, model thick${layout.isThinned ? `; ${layout.intervals(-1).length} of ${whole.m} ${words.many}` : ""}`;
const FIGURES = (isTwo ? [
  {id: "v1", tab: "Lines", title: `Each ${words.one}'s rows and lines`, note: "ordered by own slope", draw: lattice},
  {id: "v2", tab: "Plane", title: "Coefficients", note: `shaded: where 50 %, 95 % of ${words.many} are; dashed: how sure the selected own estimate is (50 %)`, draw: plane},
] : [
  {id: "v1", tab: "Funnel", title: `Own ${words.isMean ? "mean" : words.coefs[0]} and model${layout.uneven ? `, by size of the ${words.one}` : ""}`, note: `dotted: 95 % of own ${words.isMean ? "means" : "estimates"}, were all ${words.many} alike; shaded: by the model`, draw: funnel},
  {id: "v2", tab: "Weight", title: "Weight of own data", note: "half at sigma² / sd²", draw: weightOfOwn},
]).concat([
  {id: "v3", tab: "Intervals", title: "95 % intervals", note: ownThin, draw: intervals},
  {id: "v4", tab: "Fit", title: "Misfit", note: NOT_RULED_OUT, draw: misfit},
]).filter(f => f.draw !== lattice || layout.hasRows);

let state = fromHash(data, initial(data, firstGroup(data, whole, words, layout)), location.hash, SIZES);
let q = whole, fit = atReml, hits = {}, queued = false, frame = 0, printing = false;
let spokenLater = 0, addressLater = 0, remlCurves = new Map();

const view = () => FIGURES.some(f => f.id === state.view) ? state.view : FIGURES[0].id;
const font = () => parseFloat(getComputedStyle(root).fontSize) - 2;

// ---------------------------------------------------------------------------- from the state

function change(patch) {
  const before = state;
  state = {...state, ...patch};
  if (state.group !== before.group && !("rows" in patch)) state.rows = null;
  if (state.group !== before.group || state.rows !== before.rows) useRows();
  if (state.active !== before.active || state.big !== before.big) later(drawTracks);
  later();
}

function useRows() {
  q = state.rows === null ? whole : withFirstRows(data, whole, state.group, state.rows);
  remlCurves = new Map();
}

let alsoLater = new Set();
function later(also) {
  if (also) alsoLater.add(also);
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    draw();
    alsoLater.forEach(task => task());
    alsoLater = new Set();
  });
}

function remlCurve(slider) {
  if (!remlCurves.has(slider.id)) remlCurves.set(slider.id, misfitAlong(slider, q, remlSetting(data)));
  return remlCurves.get(slider.id);
}

function drawInto(svg, scene, picture) {
  const {width, height} = svg.getBoundingClientRect();
  if (!width && !printing) return [];
  const size = {width: width || 600, height: height || 260, font: font()};
  const drawn = picture({...scene, size});
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  svg.innerHTML = drawn.svg;
  return drawn.hits;
}

function draw() {
  fit = fitAt(q, state.at);
  const atMarks = state.rows === null ? atReml.criterion : fitAt(q, remlSetting(data)).criterion;
  const scene = {data, q, fit, layout, words, sliders, state, remlCurve, least: Math.min(atMarks, fit.criterion)};
  const [misfitText, badness] = misfitWords(fit.criterion - atReml.criterion, state.rows !== null);
  showChoices();
  FIGURES.forEach(figure => { hits[figure.id] = drawInto(one(`#${figure.id} > svg`), scene, figure.draw); });
  if (canTrim) drawInto(one("#rows-figure svg"), scene, groupRows);
  one("#misfit").textContent = misfitText;
  one(".meter i").style.width = `${100 * badness}%`;
  const endless = state.at.sd.some((s, i) => s > 1e3 * data.scale.sd[i]);
  const group = groupWords(words, fit, state.group, endless);
  one("#group-words").innerHTML = group.map(escaped).join("<br>");
  describe(group, misfitText);
}

function showChoices() {
  root.dataset.theme = state.theme ?? (dark.matches ? "dark" : "light");
  root.toggleAttribute("data-big", state.big);
  one("#big").setAttribute("aria-pressed", state.big);
  sliders.forEach(slider => {
    const place = slider.get(state.at), input = one(`#r-${slider.id}`), chosen = slider.id === state.active;
    const isOff = Math.abs(input.value / 1000 - place) > 0.002;
    if (document.activeElement !== input || isOff) input.value = Math.round(1000 * place);
    one(`#o-${slider.id}`).textContent = slider.text(place);
    input.setAttribute("aria-valuetext", spoken(slider, place));
    one(`#s-${slider.id}`).classList.toggle("active", chosen);
    one(`#chips [data-slider=${slider.id}]`).setAttribute("aria-pressed", chosen);
  });
  FIGURES.forEach(({id}) => {
    one(`#${id}`).classList.toggle("wide", id === view());
    one(`#${id} .cap`).setAttribute("aria-pressed", id === view());
    one(`#tabs [data-view=${id}]`).setAttribute("aria-pressed", id === view());
  });
  const n = data.groups.n[state.group], used = state.rows ?? n;
  one("#group").value = state.group;
  one("#used").textContent = `${used} of ${n}`;
  one("#fewer").disabled = used <= 1;
  one("#more").disabled = used >= n;
  const step = story[state.step], last = state.step === story.length - 1;
  one("#say").innerHTML = state.shown ? escaped(step.answer) : `<span><b>Predict first.</b> ${escaped(step.question)}</span>`;
  one("#show").textContent = state.shown ? (last ? "Again" : "Next") : "Show me";
  all("#steps button").forEach((button, i) =>
    i === state.step ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current"));
}

// Texts for those who do not see the figures, and the address; the latter two when all is quiet.
function describe(group, misfitText) {
  const weights = words.coefs.map((name, i) => {
    const shares = fit.groups.map(g => g.share[3 * i]);
    return `${name}: weight of own data ${percent(Math.min(...shares))} to ${percent(Math.max(...shares))}`;
  }).join("; ");
  const unseen = words.coefs.map((name, i) => `${name} ${newGroup(fit, i).map(v => words.value(v, i)).join(" to ")}`).join("; ");
  const about = {
    v1: `${weights}. Selected ${words.group(state.group)}: ${group.join(" ")}`, v2: `${weights}.`,
    v3: `Intervals of ${whole.m} ${words.many}; a new ${words.one}: ${unseen}.`, v4: misfitText,
  };
  FIGURES.forEach(({id, title}) => one(`#${id} > svg`).setAttribute("aria-label", `${title}. ${about[id]}`));
  clearTimeout(spokenLater);
  spokenLater = setTimeout(() => {
    const settings = sliders.map(s => `${s.chip} ${s.text(s.get(state.at))}`).join(", ");
    one("#live").textContent = `${settings}. ${weights}. ${misfitText}`;
    if (one("#numbers").open) fillTable();
  }, BEFORE_SPOKEN);
  clearTimeout(addressLater);
  addressLater = setTimeout(saveAddress, BEFORE_ADDRESS);
}

function saveAddress() {
  try {
    history.replaceState(null, "", `#${toHash(data, state)}`);
  } catch { /* a frame that may not: the address stays */ }
}

function fillTable() {
  const cell = v => `<td>${v}</td>`, columns = words.coefs.map(c => escaped(c))
    .flatMap(c => [`${c} own`, `${c} model`, "95 % from", "to", "weight of own data"]);
  const head = [words.one, words.rows].map(escaped).concat(columns).map(c => `<th scope="col">${c}</th>`).join("");
  const body = fit.groups.map((g, j) => `<tr><th scope="row">${escaped(data.groups.labels[j])}</th>${cell(q.counts[j])}${
    words.coefs.map((_, i) => [
      g.own ? words.value(g.own.value[i], i) : "–", words.value(g.model[i], i), words.value(g.model[i] - 1.96 * g.se[i], i),
      words.value(g.model[i] + 1.96 * g.se[i], i), percent(g.share[3 * i]),
    ].map(cell).join("")).join("")}</tr>`);
  one("#table").innerHTML = `<thead><tr>${head}</tr></thead><tbody>${body.join("")}</tbody>`;
}

// The density, the mark of REML and the ends of a slider, and its ticks.
function drawTracks() {
  const size = font(), height = 34, base = height - 8;
  sliders.forEach(slider => {
    const above = one(`#s-${slider.id} .density`), below = one(`#s-${slider.id} .ticks`);
    const {width} = above.getBoundingClientRect(), X = t => 12 + t * (width - 24), {mark, posterior} = slider;
    if (!width) return;
    const density = !posterior ? "" : path(`${through([[X(0), base], ...densityAlong(slider).map(([t, v]) => [X(t), base - (height - 10) * v]), [X(1), base]])}Z`, 'fill="var(--post)" stroke="var(--model)"')
      + line(X(slider.place(posterior.lower)), base, X(slider.place(posterior.upper)), base, 'stroke="var(--model)" stroke-width="3" opacity=".6"');
    const isRight = mark > 0.8, high = posterior ? size - 2 : height - 12;
    const ends = slider.ends ? (mark > 0.25 ? text(8, high, "all alike", `${MUTED} ${HALO}`) : "")
      + (mark < 0.7 ? text(width - 8, high, "nothing shared", `${end} ${MUTED} ${HALO}`) : "") : "";
    const reml = mark === null ? "" : line(X(mark), 1, X(mark), height - 6, 'stroke="var(--ink)" stroke-width="1.6" stroke-dasharray="3 2"')
      + text(X(mark) + (isRight ? -4 : 4), size - 2, slider.known ? "known" : "REML", `${isRight ? end : ""} ${HALO}`);
    above.setAttribute("viewBox", `0 0 ${width} ${height}`);
    above.innerHTML = density + ends + reml;
    below.setAttribute("viewBox", `0 0 ${width} ${size + 5}`);
    below.innerHTML = slider.ticks.map(([t, label]) => text(X(t), size, label, `${middle} ${MUTED}`)).join("");
  });
}

// ---------------------------------------------------------------------------- changes

function glide(to, then = {}) {
  const from = state.at, start = performance.now();
  cancelAnimationFrame(frame);
  if (calm.matches) {
    change({at: to, ...then});
    return;
  }
  const step = now => {
    const u = Math.min(1, (now - start) / GLIDE), done = u >= 1;
    change({at: between(from, to, sliders, done ? 1 : u * u * (3 - 2 * u)), ...(done ? then : {})});
    if (!done) frame = requestAnimationFrame(step);
  };
  frame = requestAnimationFrame(step);
}

function showStep() {
  if (state.shown) {
    change({step: (state.step + 1) % story.length, shown: false});
    return;
  }
  const {at, active, view: toView, group = state.group} = story[state.step];
  change({active, view: toView, group, rows: null});
  glide(at, {shown: true});
}

const turn = by => {
  const place = layout.rank[state.group] + by + whole.m;
  change({group: layout.order[place % whole.m]});
};

function useOnly(count) {
  const n = data.groups.n[state.group];
  if (count >= 1) change({rows: count < n ? count : null});
}

function groupUnder(figure, event) {
  const box = figure.querySelector("svg").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  const near = (hits[figure.id] ?? []).filter(([a, b, w, h]) => x >= a && x <= a + w && y >= b && y <= b + h)
    .map(([a, b, w, h, j]) => [Math.abs(x - a - w / 2) + Math.abs(y - b - h / 2), j]);
  return near.length ? near.reduce((best, next) => next[0] < best[0] ? next : best)[1] : null;
}

async function copyLink() {
  saveAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    one("#live").textContent = "Link copied";
    one("#link").textContent = "Copied";
    setTimeout(() => { one("#link").textContent = "Copy link"; }, 1500);
  } catch {
    prompt("Link to this state", location.href);
  }
}

// ---------------------------------------------------------------------------- the page's parts

function build() {
  root.classList.add(`k${words.k}`);
  one("#formula").textContent = data.formula;
  one("#sliders").innerHTML = sliders.map(s => `<div class="slider" id="s-${s.id}"><label for="r-${s.id}"><span>${escaped(s.label)}</span>`
    + `<output id="o-${s.id}" for="r-${s.id}"></output></label><svg class="density" aria-hidden="true"></svg>`
    + `<input type="range" id="r-${s.id}" min="0" max="1000" step="1"><svg class="ticks" aria-hidden="true"></svg></div>`).join("");
  one("#chips").innerHTML = sliders.map(s => `<button data-slider="${s.id}">${escaped(s.chip)}</button>`).join("");
  one("#steps").innerHTML = story.map((_, i) => `<button data-step="${i}" aria-label="Step ${i + 1} of ${story.length}">${i + 1}</button>`).join("");
  one("#group").innerHTML = data.groups.labels.map((_, j) => `<option value="${j}">${escaped(words.group(j))} (${words.ownRows(j)})</option>`).join("");
  one("#views").innerHTML = FIGURES.map(f => `<figure id="${f.id}"><figcaption><button class="cap" data-view="${f.id}" title="Show large">${escaped(f.title)}</button> `
    + `<small>${escaped(f.note)}</small></figcaption><svg role="img"></svg></figure>`).join("");
  one("#tabs").innerHTML = FIGURES.map(f => `<button data-view="${f.id}">${f.tab}</button>`).join("");
  const key = inside => `<svg viewBox="0 0 26 14" aria-hidden="true">${inside}</svg>`, stroke = (style, x = 13) => isTwo ? line(x, 7, 26, 7, style) : "";
  one("#legend").innerHTML = [
    [rings([[7, 7]], 4) + stroke('stroke="var(--own)" stroke-width="2" stroke-dasharray="4 2"'), "own estimate (no pooling)"],
    [dots([[7, 7]], 4.5, "var(--model)") + stroke('stroke="var(--model)" stroke-width="3"'), "model (partial pooling)"],
    [diamond(7, 7, 5) + line(13, 7, 26, 7, 'stroke="var(--ink)" stroke-width="1.3"'), `all ${words.many}; a new ${words.one}`],
    [dots([[7, 7]], 5.5, "var(--sel)"), "selected"],
  ].map(([mark, label]) => `<li>${key(mark)}${escaped(label)}</li>`).join("");
  one("#trim").hidden = !canTrim;
  one("#rows-figure").hidden = !canTrim;
  one("#missing").hidden = !data.missing;
  one("#missing").textContent = `There is no posterior to draw: ${data.missing}`;
}

const on = (selector, event, act) => one(selector).addEventListener(event, act);
const chosenIn = (event, name) => event.target.closest(`[data-${name}]`)?.dataset[name];

function listen() {
  sliders.forEach(slider => {
    const input = one(`#r-${slider.id}`);
    input.addEventListener("input", () => {
      cancelAnimationFrame(frame);
      change({at: slider.set(state.at, input.value / 1000), active: slider.id});
    });
    input.addEventListener("focus", () => change({active: slider.id}));
  });
  on("#chips", "click", event => {
    const active = chosenIn(event, "slider");
    if (active) change({active});
  });
  const enlarge = event => {
    const chosen = chosenIn(event, "view");
    if (chosen) change({view: chosen});
    return chosen;
  };
  on("#tabs", "click", enlarge);
  on("#views", "click", event => {
    const figure = event.target.closest("figure");
    if (enlarge(event) || !figure) return;
    const group = groupUnder(figure, event);
    if (group !== null) change({group});
  });
  on("#steps", "click", event => {
    const step = chosenIn(event, "step");
    if (step !== undefined) change({step: Number(step), shown: false});
  });
  on("#show", "click", showStep);
  on("#complete", "click", () => glide(completePooling(state.at, data.scale)));
  on("#reml", "click", () => {
    change({rows: null});
    glide(remlSetting(data));
  });
  on("#none", "click", () => glide(noPooling(state.at, data.scale)));
  on("#group", "change", event => change({group: Number(event.target.value)}));
  on("#previous", "click", () => turn(-1));
  on("#next", "click", () => turn(1));
  on("#fewer", "click", () => useOnly((state.rows ?? data.groups.n[state.group]) - 1));
  on("#more", "click", () => useOnly((state.rows ?? data.groups.n[state.group]) + 1));
  on("#theme", "click", () => change({theme: root.dataset.theme === "dark" ? "light" : "dark"}));
  on("#big", "click", () => change({big: !state.big}));
  on("#print", "click", () => print());
  on("#link", "click", copyLink);
  on("#numbers", "toggle", () => { if (one("#numbers").open) fillTable(); });
  addEventListener("resize", () => later(drawTracks));
  dark.addEventListener("change", () => later());
  addEventListener("hashchange", () => {
    state = fromHash(data, state, location.hash, SIZES);
    useRows();
    later(drawTracks);
  });
  const forPrint = is => () => {
    printing = is;
    draw();
  };
  addEventListener("beforeprint", forPrint(true));
  addEventListener("afterprint", forPrint(false));
}

build();
useRows();
listen();
draw();
drawTracks();
