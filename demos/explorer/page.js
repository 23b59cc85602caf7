"use strict";
/* The page: what the reader has set (`state`), one run of the model with it (`update`), and what is drawn of that run.
   Only the model's own vocabulary and numbers go into innerHTML; what the reader typed is shown as text. */

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent), {circuit, config, ordinals} = data, D = config.n_embd;
const tensors = tensors_of(data.weights, data.sizes), model = new GPT2(config, tensors);
const basis = rows(tensors.basis, D), components = rows(tensors.components, D);           // [k][D], [L * H * K][D]
const OTHER = ", as far as items go: a token that is none is likelier";
const STEPS = D > 32 ? 20 : 32, LEAST_LOOK = 0.1;        // points of the plane a side; least attention that counts
const KEYS = [["ArrowLeft", "ArrowRight"], ["ArrowDown", "ArrowUp"], ["PageDown", "PageUp"]];     // dimension 0, 1, 2
const state = {words: data.start, crossed: data.crossed, off: new Set(), point: null};    // point: where END was moved
let prompt, stream, says, likeliest, here, range, list, drawn;      // of the last run; here: where END would be, [k]

const most = (x) => x.reduce((best, value, i) => (value > x[best] ? i : best), 0);
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const written = (point) => `(${point.map((c) => c.toFixed(2)).join(", ")})`;
const status = (i) => (state.crossed.includes(i) ? "done" : "left");
const bar = (text, part) => `<td class="n">${text}<td class="bar${part < 0 ? " minus" : ""}"><i style="--v:${part}">`;
const named = (name) => `${name}${data.roles[name] ? `, ${data.roles[name]}` : ""}`;
const shuffled = (x) => x.map((item) => [Math.random(), item]).sort(([a], [b]) => a - b).map(([, item]) => item);
const now = () => state.point || here;                                                    // where END is, [k]
const place = (axis, part) => range[axis][0] + part * (range[axis][1] - range[axis][0]);  // 0: lowest, 1: highest

// --- one run ------------------------------------------------------------------------------------------------

/** What is wrong with the list, in a sentence; "" where nothing is. */
function problem() {
  const {words, crossed} = state, known = data.words, unknown = words.find((word) => !known.includes(word));
  const near = known.filter((word) => unknown && word.startsWith(unknown.slice(0, 2)));   // unknown may be ""
  if (unknown !== undefined) return `“${unknown}” is none of the ${known.length} items that this model knows: ` +
    `try ${[...near, ...known].slice(0, 4).join(", ")}.`;
  if (new Set(words).size < words.length) return "A word stands in the list twice; each item must be another.";
  if (!crossed.length) return "Cross off one item at least.";
  return crossed.length < words.length ? "" : "All items are crossed off: leave one.";
}

/** The edit that switches off a head, a component or an MLP: "L0.H1", "L0.H1.C2" or "L0.mlp". */
function switched_off(name) {
  const [layer, head, index] = name.match(/\d+/g).map(Number), K = D / config.n_head;
  if (index === undefined) return {name, of: "writes", change: (x) => x.map((row) => row.map(() => 0))};
  return remove(components[(layer * config.n_head + head) * K + index], `L${layer}.H${head}`);
}

/** Run the model on the list, with END's point set and what is switched off, and draw all that follows from it. */
function update() {
  $("problem").textContent = problem();
  if (problem()) return;
  prompt = laundry_list(data, $("verb").value, state.words, state.crossed);
  if (list !== prompt.texts.join("")) draw_list();
  const off = [...state.off].map(switched_off), change = (x) => {
    here = basis.map((row) => dot(x[prompt.end], row));
    return state.point ? set_coordinates(basis, state.point, prompt.end)(x) : x;
  };
  stream = new Stream([...off, {name: circuit.where, of: "stream", change}]);
  const x = model.final(prompt.tokens, stream)[prompt.end];                               // [D]
  const all = softmax(model.unembedding.map((row) => dot(row, x)));                       // [V]
  [says, likeliest] = [prompt.candidates.map((token) => all[token]), Math.max(...all)];   // [N], and of all tokens
  for (const draw of [draw_answer, draw_heads, draw_parts]) draw();
  const wanted = [list, ...state.off, now()[2], $("regions").value].join();
  if (wanted !== drawn) setTimeout(() => wanted === drawn && draw_regions(off), 40);      // not at each step of a drag
  drawn = wanted;
}

function move_to(point) {
  state.point = point.map((c, i) => Math.min(range[i][1], Math.max(range[i][0], c)));
  update();
}

// --- what is drawn ------------------------------------------------------------------------------------------

/** A row for each word of the list, to be written in. */
function draw_items() {
  $("items").innerHTML = state.words.map((_, i) => `<li><label>${i} <span>${ordinals[i]}</span> <input list="words"
    data-item="${i}" autocapitalize="off" spellcheck="false"></label> <label><input type="checkbox" data-item="${i}"
    aria-label="${i} crossed off" ${state.crossed.includes(i) ? "checked" : ""}> crossed off</label>`).join("");
  $("items").querySelectorAll("[list]").forEach((input, i) => { input.value = state.words[i]; });
}

/** What depends on the list alone. A point stays where it was set as long as the list keeps its length. */
function draw_list() {
  const {words} = state, N = words.length, left = N - state.crossed.length;
  if (range !== data.ranges[N]) state.point = null;
  [list, range] = [prompt.texts.join(""), data.ranges[N]];
  $("prompt").textContent = list;
  $("left").hidden = left === 1;
  $("rate").textContent = data.rates[N];
  $("query").innerHTML = prompt.texts.map((text, t) => `<option value="${t}">${t} “${text}”`).reverse().join("");
  $("part").innerHTML = ["the item answered", ...words].map((word, i) => `<option value="${i - 1}">${word}`).join("");
  $("codes").innerHTML = words.map((word, i) => `<button data-code="${i}">${i} ${word}</button>`).join(" ");
  $("marks").innerHTML = data.codes[N].map((code, i) =>
    `<g transform="${at(code)}"><circle r="11"/><text y="5">${i}</text></g>`).join("");
}

/** Where a point [k] is in the picture of the plane, 400 by 400, as a transform. */
function at(point) {
  const [x, y] = range.map(([low, high], i) => Math.min(1, Math.max(0, (point[i] - low) / (high - low))));
  return `translate(${400 * x} ${400 - 400 * y})`;
}

function draw_answer() {
  const looks = attention_on_items(stream, circuit.movers, prompt, prompt.end);
  const [look, answer, point] = [most(looks), most(says), now()];
  const said = (i, shares) => `“${state.words[i]}” (${shares[i].toFixed(2)})`;
  $("answer").innerHTML = state.words.map((word, i) => `<tr><th scope="row">${i === answer ? "► " : ""}${i} ${word}
    <td>${status(i)}${bar(looks[i].toFixed(2), looks[i])}${bar(says[i].toFixed(2), says[i])}`).join("");
  $("says").textContent = `${state.point ? "END was moved. " : ""}The movers look most at ${said(look, looks)}; ` +
    `the answer is ${said(answer, says)}, which is ${status(answer)}${says[answer] < likeliest ? OTHER : ""}.`;
  $("where").textContent = `END is at ${written(point)}${state.point ? `; the model had it at ${written(here)}` : ""}.`;
  $("point").setAttribute("transform", at(point));
  Object.assign($("point"), {ariaValueNow: point[0], ariaValueText: `${written(point)}. ${$("says").textContent}`});
  $("own").setAttribute("transform", at(here));
  document.querySelectorAll("[data-axis]").forEach((slider, i) => Object.assign(slider,
    {min: range[i][0], max: range[i][1], step: 0.01, value: point[i], ariaValueText: point[i].toFixed(2)}));
}

/** Which item each point of the plane stands for: shades, borders, and at every fourth row and column its index. */
function draw_regions(off) {
  const cell = 400 / STEPS, places = Array.from({length: STEPS ** 2}, (_, g) => [g % STEPS, Math.floor(g / STEPS)]);
  const points = places.map(([i, j]) => [place(0, (i + 0.5) / STEPS), place(1, 1 - (j + 0.5) / STEPS), now()[2]]);
  const {attended, answered} = traverse(model, prompt, circuit, basis, points, off);
  const looked = attended.map((looks) => (Math.max(...looks) < LEAST_LOOK ? -1 : most(looks)));
  const owner = $("regions").value === "looks" ? looked : answered.map(most);
  let shades = "", borders = "", labels = "";
  places.forEach(([i, j], g) => {
    const [x, y, item] = [i * cell, j * cell, owner[g]];
    shades += `<path class="shade${item < 0 ? "" : item % 4}" d="M${x} ${y}h${cell}v${cell}h-${cell}z"/>`;
    if (i + 1 < STEPS && owner[g + 1] !== item) borders += `M${x + cell} ${y}v${cell}`;
    if (j + 1 < STEPS && owner[g + STEPS] !== item) borders += `M${x} ${y + cell}h${cell}`;
    if (i % 4 === 2 && j % 4 === 2) labels += `<text x="${x}" y="${y + 5}">${item < 0 ? "–" : item}</text>`;
  });
  $("map").innerHTML = `${shades}<path class="border" d="${borders}"/>${labels}`;
  const share = (item) => (owner.filter((other) => other === item).length / owner.length).toFixed(2);
  $("shares").textContent = `${state.words.map((word, i) => `${i} ${word} ${share(i)}`).join(", ")}, none ${share(-1)}`;
}

function draw_heads() {
  const number = (look) => (look < 0.05 ? "" : `<b>${look.toFixed(2)}</b>`);
  $("heads").innerHTML = data.heads.map((name) => {
    const [layer, head] = name.match(/\d+/g), looks = stream.patterns[`L${layer}`][head][$("query").value];
    const text = looks.map((look, s) => `<span style="--v:${look}">${prompt.texts[s]}${number(look)}</span>`);
    return `<section><h3>${named(name)}</h3><p>${text.join("")}</p></section>`;
  }).join("");
}

/** The chosen item's logit less the mean of the other items', as the sum of what each write gives. */
function draw_parts() {
  const target = $("part").value < 0 ? most(says) : Number($("part").value), other = -1 / (says.length - 1);
  const weighted = (sum, token, i) => add(sum, model.unembedding[token], i === target ? 1 : other);
  const lead = prompt.candidates.reduce(weighted, new Float64Array(D));                   // [D]
  const parts = Object.entries(logit_attribution(model, stream, lead, prompt.end));
  const size = Math.max(...parts.map(([, part]) => Math.abs(part)));
  $("parts").innerHTML = parts.map(([name, part]) =>
    `<tr><th scope="row">${named(name)}${bar(signed(part), part / size)}`).join("");
  $("total").textContent = `“${state.words[target]}”: ${signed(sum(parts.map(([, part]) => part)))} in all.`;
}

// --- what the reader does -----------------------------------------------------------------------------------

function new_list(N) {
  [state.words, state.crossed] = [shuffled(data.words).slice(0, N), shuffled([...Array(N).keys()]).slice(1)];
}

const BUTTONS = {
  shuffle: () => { state.words = shuffled(state.words); },
  again: () => { new_list(state.words.length); },
  back: () => { state.point = null; },
  on: () => { state.off.clear(); document.querySelectorAll("[name=on]").forEach((box) => { box.checked = true; }); },
};

document.addEventListener("click", ({target}) => {
  if (target.dataset.code) move_to(data.codes[state.words.length][target.dataset.code]);
  if (BUTTONS[target.id]) { BUTTONS[target.id](); draw_items(); update(); }
});

document.addEventListener("input", ({target}) => {
  const {item, axis} = target.dataset, i = Number(item), rest = state.crossed.filter((index) => index !== i);
  if (target.id === "length") { new_list(Number(target.value)); draw_items(); }
  if (item && target.list) state.words[i] = target.value.trim().toLowerCase();
  if (item && !target.list) state.crossed = target.checked ? [...rest, i] : rest;         // in the reader's order
  if (axis) state.point = now().map((c, k) => (k === Number(axis) ? Number(target.value) : c));
  if (target.name === "on") state.off[target.checked ? "delete" : "add"](target.value);
  update();
});

$("point").addEventListener("keydown", (event) => {
  const axis = KEYS.findIndex((pair) => pair.includes(event.key));
  if (axis < 0) return;
  const step = (KEYS[axis].indexOf(event.key) - 0.5) / (event.shiftKey ? 5 : 20);         // a 40th, or a 10th
  event.preventDefault();
  move_to(now().map((c, i) => (i === axis ? c + step * (place(i, 1) - place(i, 0)) : c)));
});

function move_to_pointer(event) {
  const {left, bottom, width, height} = $("frame").getBoundingClientRect();
  move_to([place(0, (event.clientX - left) / width), place(1, (bottom - event.clientY) / height), now()[2]]);
}

$("plane").addEventListener("click", move_to_pointer);
$("point").addEventListener("touchstart", (event) => event.preventDefault(), {passive: false});   // no scrolling
$("point").addEventListener("pointermove", (event) => {
  if (event.buttons & 1) { $("point").setPointerCapture(event.pointerId); move_to_pointer(event); }
});

draw_items();
update();
