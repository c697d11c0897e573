// Numbers and names as the reader sees them.

const withMinus = text => text.replace("-", "−");

// With a number of decimals, and never "−0".
export const decimal = (value, decimals) => {
  const text = value.toFixed(decimals);
  return withMinus(Number(text) === 0 ? text.replace("-", "") : text);
};

export const tickText = value => withMinus(String(value));
export const percent = share => `${Math.round(100 * share)} %`;
export const capital = text => text[0].toUpperCase() + text.slice(1);
export const escaped = text =>
  String(text).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);

// Significant digits, without an exponent below a million.
const significant = (value, digits) => {
  if (value === 0) return "0";
  const order = Math.floor(Math.log10(Math.abs(value)));
  if (order > 6 || order < -6) return withMinus(value.toPrecision(digits));
  return decimal(value, Math.max(0, digits - 1 - order));
};

const singular = rows =>
  /ies$/.test(rows) ? rows.replace(/ies$/, "y") : rows.replace(/(ch|sh|x|ss|z)es$|s$/, "$1");

// The words of a page: of `data`, and of the sizes of what it shows, `scale` of each coefficient.
export function vocabulary(data, population) {
  const [one, many, rows] = data.noun, {coefs, units, scale, groups} = data;
  const decimals = scale.sd.map(s => Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(s)))));
  const isMean = coefs.length === 1 && data.fixed.length === 1 && coefs[0] === "Intercept"
    && data.place[0] === 0;
  const isEndless = (v, i) => !(Math.abs(v) < 1e4 * (scale.sd[i] + Math.abs(population[i])));
  const inUnit = (text, i) => units.coefs[i] ? `${text} ${units.coefs[i]}` : text;
  const counted = n => `${n} ${n === 1 ? singular(rows) : rows}`;
  return {
    one, many, rows, coefs, isMean, inUnit, counted,
    k: coefs.length,
    response: units.response,
    withUnit: (text, i) => units.coefs[i] ? `${text} (${units.coefs[i]})` : text,
    value: (v, i = 0) => isEndless(v, i) ? "∞" : decimal(v, decimals[i]),
    signed: (v, i) => (decimal(v, decimals[i]).startsWith("−") ? "−" : "+")
      + decimal(Math.abs(v), decimals[i]),
    sd: v => v > 9e3 * Math.max(...scale.sd, scale.sigma) ? "∞" : v < 1e-9 ? "0" : significant(v, 3),
    bound: v => Math.abs(v) < 1e-6 * Math.max(...scale.sd, scale.sigma) ? "0" : significant(v, 2),
    group: j => `${one} ${groups.labels[j]}`,
    own: isMean ? "own mean" : `own ${coefs[0]}`,
    overall: isMean ? "overall mean" : `overall ${coefs[0]}`,
    ownRows: j => counted(groups.n[j]),
    // What the size of a group is: its rows, or what its own estimate of one coefficient rests on.
    sizes: coefs[0] !== "Intercept" ? `sum of squares of ${coefs[0]}`
      : data.weighted ? `total weight of the ${rows}` : `number of ${rows}`,
    countsRows: coefs[0] === "Intercept" && !data.weighted,
  };
}

// "1/661,453 as probable here as at the REML estimate", and how bad that is, from 0 to 1.
export function misfitWords(distance, trimmed) {
  if (trimmed) return ["REML and posterior marks are those of all rows.", 0];
  if (distance < 0.05) return ["Nowhere are the data more probable: this is the REML estimate.", 0];
  const ratio = Math.exp(distance / 2);
  const share = ratio < 1.15 ? "nearly as probable here as"
    : ratio < 10 ? `1/${ratio.toPrecision(2)} as probable here as`
      : ratio < 1e6 ? `1/${Math.round(ratio).toLocaleString("en")} as probable here as`
        : "less than a millionth as probable here as";
  return [`The data are ${share} at the REML estimate.`, Math.min(1, distance / 40)];
}

// The estimates of a group: how the model's is made of its own and of what all share.
export function groupWords(words, fit, j, isEndless) {
  const {own, model, share} = fit.groups[j], {population} = fit;
  if (words.k === 1) {
    const ownText = own ? words.value(own.value[0]) : "not determined";
    return [`${capital(words.own.split(" ")[0])}${words.isMean ? "" : ` ${words.coefs[0]}`} ${ownText}, `
      + `${words.overall} ${words.value(population[0])}, `
      + `model ${words.inUnit(words.value(model[0]), 0)}: ${percent(share[0])} own data, `
      + `${percent(1 - share[0])} ${words.overall}.`];
  }
  const away = own && own.value.map((v, i) => v - population[i]);
  return words.coefs.map((name, i) => {
    const parts = `${name}: own ${own ? words.value(own.value[i], i) : "not determined"}, `
      + `all ${words.value(population[i], i)}, model ${words.inUnit(words.value(model[i], i), i)}`;
    if (!own || isEndless) return `${parts}.`;
    const sum = words.coefs.map((from, q) =>
      `${words.signed(share[2 * i + q] * away[q], i)} (by its own ${from})`).join(" ");
    return `${parts} = ${words.value(population[i], i)} ${sum}.`;
  });
}
