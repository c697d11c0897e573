// Five steps, each of which asks before it shows. Every sentence depends on what the data say.

import {fitAt, newGroup} from "./model.js";
import {completePooling, noPooling, remlSetting, withRatio} from "./sliders.js";
import {capital, decimal, percent} from "./words.js";

const SHARE_BY_CHANCE = 0.08; // of groups outside a band of 95 %: no more than chance, and its error
const CLOSE = 0.02; // a correlation this near to 1

const median = values => values.slice().sort((a, b) => a - b)[values.length >> 1];

// What the sentences need of the data besides the words.
function factsOf(data, q, words, layout) {
  const reml = remlSetting(data), {scale} = data, {order, own} = layout;
  const fit = fitAt(q, reml), zero = fitAt(q, completePooling(reml, scale));
  const isZero = data.reml.sd.map((s, i) => s < 1e-6 * scale.sd[i]);
  const away = own.map(o => Math.abs(o[0] - zero.population[0]));
  const sized = own.map((_, j) => j).sort((a, b) =>
    layout.sizes[a] - layout.sizes[b] || away[b] - away[a]);
  const many = Math.min(10, Math.ceil(own.length / 4)), middle = median([...layout.sizes]);
  const extreme = away.map((_, j) => j).sort((a, b) => away[b] - away[a]).slice(0, many);
  const known = fit.groups.map((g, j) => j).filter(j => fit.groups[j].own);
  return {
    data, words, layout, reml, fit, zero, isZero, many, extreme,
    allZero: isZero.every(Boolean), someZero: isZero.some(Boolean),
    // where the sds are those of REML, or the middles of the sliders where these are zero
    visible: withRatio({...reml, sd: reml.sd.map((s, i) => isZero[i] ? scale.sd[i] : s)}, scale),
    small: sized[0], large: sized[sized.length - 1], lowest: order[0], highest: order[order.length - 1],
    extremeAndSmall: extreme.filter(j => layout.sizes[j] < middle).length,
    outside: known.filter(j => away[j] > 1.96 * reml.sigma / Math.sqrt(layout.sizes[j])).length / Math.max(1, known.length),
    rings: known.length, withoutOwn: own.length - known.length,
    isNotWorse: zero.criterion - fit.criterion < 3.84,
    isPosteriorScale: data.posterior.sd.every(Boolean),
  };
}

// "between 3.8 and 8.9 ms per day (95 %), far from both ends".
function posteriorWords(facts, i) {
  const {data, words} = facts, p = data.posterior.sd[i];
  if (!p) return data.missing ? "there is no posterior to ask" : "its prior holds it there";
  const isLow = p.lower < 1e-3 * data.scale.sd[i];
  const puts = facts.isZero[i] ? "the posterior puts it" : "the posterior";
  const range = `${puts} between ${isLow ? "0" : words.bound(p.lower)} and ${words.inUnit(words.bound(p.upper), i)} (95 %)`;
  return `${range}${isLow ? `: that all ${words.many} are alike is not ruled out` : ", far from both ends"}`;
}

function remlWords(facts, i) {
  const {data, words} = facts, name = words.k === 1 ? `the sd between ${words.many}` : `the sd of ${words.coefs[i]}`;
  if (facts.isZero[i]) {
    return `REML puts ${name} at 0: own estimates differ no more than chance within ${words.many} would make them; `;
  }
  return `REML puts ${name} at ${words.sd(data.reml.sd[i])}, `;
}

const decided = facts => {
  const i = facts.words.k - 1;
  return `The data have a say: ${remlWords(facts, i)}${posteriorWords(facts, i)}.`;
};

// The last step: what a new group may be, by REML, and by the posterior's sd where REML's is zero.
function unseen(facts) {
  const {words, fit, isZero, data} = facts, i = words.k - 1, [low, high] = newGroup(fit, i);
  const range = ([a, b]) => `${words.value(a, i)} and ${words.inUnit(words.value(b, i), i)} (95 %)`;
  const who = words.k === 2 ? `A new ${words.one}'s ${words.coefs[i]} lies between` : "Between";
  const hint = "pull the slider to either end and see the bar at the top";
  if (!isZero[i]) {
    const mean = words.k === 2 ? "the mean" : `the ${words.overall}`;
    return `${who} ${range([low, high])}: how much ${words.many} differ is what decides, not how well ${mean} is known; ${hint}.`;
  }
  const wide = newGroup(fitAt(facts.q, facts.visible), i);
  const sd = words.inUnit(words.sd(data.scale.sd[i]), i);
  const what = facts.isPosteriorScale ? `${sd}, the posterior's middle,` : sd;
  return `${who} ${range([low, high])} if ${words.many} are all alike, as REML has it, and that is too sure: `
    + `with an sd of ${what} it is between ${range(wide)}; ${hint}.`;
}

function correlationStep(facts) {
  const {data, words, visible, someZero} = facts, [first, second] = words.coefs, {corr} = data.reml;
  const posterior = data.posterior.corr;
  const atEdge = corr !== null && Math.abs(corr) > 1 - CLOSE && !someZero;
  const edge = atEdge ? ` REML's own is ${corr > 0 ? "1" : "−1"}, the edge, where all arrows end on one line`
    + `${posterior ? `; the posterior has it between ${decimal(posterior.lower, 2)} and ${decimal(posterior.upper, 2)}` : ""}.` : "";
  const lent = someZero ? " With an sd of 0, as REML has it, there is nothing to turn: the sds here are the middles of the sliders." : "";
  return {
    question: `If a high ${first} came with a low ${second}, which way would the arrows turn?`,
    answer: `A correlation of −0.8 tilts the ellipse and turns the arrows: data on one coefficient now move the other.${edge}${lent}`,
    at: {...visible, corr: -0.8}, active: "corr", view: "v2",
  };
}

// Without a correlation to move: what scatter does.
function scatterStep({visible, words}) {
  return {
    question: `If rows of a ${words.one} scattered twice as much, would the arrows grow or shrink?`,
    answer: `They grow: with sigma doubled own estimates are worth less, and the model leans more on what all ${words.many} share.`,
    at: {...visible, sigma: 2 * visible.sigma}, active: "sigma", view: "v2",
  };
}

function twoCoefficients(facts) {
  const {data, words, reml, zero, lowest, highest, layout} = facts, {one, many} = words;
  const isLine = words.coefs[0] === "Intercept", lines = isLine ? "lines" : "own estimates";
  const own = j => words.value(layout.own[j][1], 1);
  const lacking = facts.withoutOwn ? ` (${facts.withoutOwn} of ${layout.own.length} ${many} have too few ${words.rows} for one)` : "";
  const fate = facts.isNotWorse ? ", with the narrowest intervals, and by the data it is not ruled out"
    : ", with the narrowest intervals and the worst fit";
  return [
    {
      question: `Every ${one} alone, nothing shared: which of the ${facts.rings} rings do you believe least? Tap it.`,
      answer: `No pooling: the model repeats each ${one}'s own ${isLine ? "line" : "estimate"}${lacking}, no arrow has any length, and the intervals are as wide as they get.`,
      at: noPooling(reml, data.scale), active: "all", view: "v2",
    }, {
      question: `Now suppose all ${many} are alike: where do ${facts.rings} ${lines} go, and how sure will the model be?`,
      answer: `Complete pooling: one ${isLine ? "line" : "estimate"} for all, so ${words.group(lowest)} (own ${own(lowest)}) and ${words.group(highest)} (own ${own(highest)}) `
        + `get the same ${words.inUnit(words.value(zero.population[1], 1), 1)}${fate}.`,
      at: completePooling(reml, data.scale), active: "all", view: "v1",
    }, {
      question: "Between these ends, where would you leave the slider?",
      answer: decided(facts), at: reml, active: "sd1", view: "v4",
    },
    data.correlated ? correlationStep(facts) : scatterStep(facts),
    {
      question: `A ${one} nobody has measured: what would you predict, and how sure are you?`,
      answer: unseen(facts), at: reml, active: "all", view: "v3",
    },
  ];
}

const ownWord = words => words.isMean ? "mean" : words.coefs[0];
const alone = words => words.isMean ? `Every ${words.one} is its own mean` : `Every ${words.one} keeps its own ${words.coefs[0]}`;

function extremes(facts) {
  const {words, layout, extremeAndSmall, many} = facts, {one} = words, own = ownWord(words);
  const same = words.countsRows && new Set(layout.sizes).size === 1;
  if (!layout.uneven) {
    const all = same ? words.counted(Math.round(layout.sizes[0])) : `about as many ${words.rows}`;
    return {
      question: `${alone(words)}: which ring do you believe least? Tap it.`,
      answer: `No pooling: the model repeats each ${one}'s own ${own}; all rest on ${all}, so that no ring is much more certain than another.`,
    };
  }
  const less = words.countsRows ? `fewer ${words.rows} than` : `a smaller ${words.sizes} than`;
  const count = `of the ${many} most extreme own estimates, ${extremeAndSmall} belong to ${words.many} with ${less} the median ${one}`;
  return {
    question: `${alone(words)}: are the most extreme rings large ${words.many} or small ones? Tap one.`,
    answer: `No pooling: ${words.isMean ? count.replace("own estimates", "own means") : count}`
      + `${extremeAndSmall > 0.6 * many ? ": extreme, because there is little to average" : ": size alone does not explain them"}.`,
  };
}

function movers(facts) {
  const {words, layout, small, large, fit, q, visible, allZero, data} = facts;
  const shown = allZero ? fitAt(q, visible) : fit, share = j => percent(shown.groups[j].share[0]);
  const lent = allZero ? `With an sd of ${words.inUnit(words.sd(data.scale.sd[0]), 0)}, as REML's 0 would leave nothing of any: ` : "";
  const start = text => lent ? lent + text : capital(text);
  const size = j => words.countsRows ? words.ownRows(j) : `a ${words.sizes} of ${Number(layout.sizes[j].toPrecision(3))}`;
  if (!layout.uneven) {
    const typical = layout.order[layout.order.length >> 1];
    return {
      question: `Which moves further: ${words.group(facts.extreme[0])}, the most extreme, or ${words.group(typical)}, in the middle?`,
      answer: `${start(`all ${words.many} keep about ${share(typical)} of their distance from the ${words.overall}, as they are of one size: the most extreme moves furthest, and stays the most extreme.`)}`,
      group: facts.extreme[0],
    };
  }
  return {
    question: `Which moves further: ${words.group(small)} with ${size(small)}, or ${words.group(large)} with ${size(large)}?`,
    answer: start(`${words.group(small)} keeps ${share(small)} of its distance from the ${words.isMean ? "mean" : words.overall}, ${words.group(large)} ${share(large)}: own data count as much as there are of them.`),
    group: small,
  };
}

function oneCoefficient(facts) {
  const {data, words, reml, zero, visible, allZero, outside} = facts;
  const share = percent(outside), mean = words.inUnit(words.value(zero.population[0]), 0);
  const chance = outside > SHARE_BY_CHANCE ? `but ${share} of the ${words.many} lie outside the dotted funnel, where chance alone would put 5 %`
    : `${share} of the ${words.many} lie outside the dotted funnel, no more than the 5 % of chance alone`;
  return [
    {...extremes(facts), at: noPooling(reml, data.scale), active: "sd0", view: "v1"},
    {
      question: `If all ${words.many} were alike, how far from one ${ownWord(words)} would chance alone scatter the rings?`,
      answer: `Complete pooling: one ${ownWord(words)}, ${mean}, for all; ${chance}.`,
      at: completePooling(reml, data.scale), active: "sd0", view: "v1",
    }, {
      question: "Between these ends, where would you leave the slider?",
      answer: decided(facts), at: reml, active: "sd0", view: "v4",
    },
    {...movers(facts), at: allZero ? visible : reml, active: "sd0", view: "v2"},
    {
      question: `A ${words.one} nobody has seen: what ${ownWord(words)} would you predict, and how sure are you?`,
      answer: unseen(facts), at: reml, active: "sd0", view: "v3",
    },
  ];
}

export function storyOf(data, q, words, layout) {
  const facts = {...factsOf(data, q, words, layout), q};
  return words.k === 2 ? twoCoefficients(facts) : oneCoefficient(facts);
}

// Which group is selected at first: the one with the steepest own estimate, or the smallest.
export const firstGroup = (data, q, words, layout) => {
  const {highest, small, extreme} = factsOf(data, q, words, layout);
  return words.k === 2 ? highest : layout.uneven ? small : extreme[0];
};
