"use strict";
/* GPT-2 in the page: tinyheads/stream.py and model.py, name by name, and what the page takes from other modules.

   One prompt at a time, so that there is no axis B. What stands at T positions is an array of T vectors, [T][D].
   A vector is a Float64Array; weights are Float32Arrays, row after row, as the model's file holds them.
   Axes: T position (query), S position (key), H head, D d_model, K d_head, V vocabulary, N item, k dimension. */

const LAYER_NORM_EPS = 1e-5;

const add = (x, y, scale = 1) => x.map((value, i) => value + scale * y[i]);            // x + scale * y
const sum = (x) => x.reduce((total, value) => total + value, 0);
const rows = (table, D) => Array.from({length: table.length / D}, (_, i) => table.subarray(i * D, (i + 1) * D));

/** The inner product of n numbers of two vectors, from place `at` of x and `at_y` of y on. */
function dot(x, y, at = 0, at_y = at, n = x.length) {
  let total = 0;
  for (let i = 0; i < n; i++) total += x[at + i] * y[at_y + i];
  return total;
}

/** y + x @ W, with W stored [in, out]; of x, and of W's rows, only those from `start` on, up to `stop`. [out] */
function product(x, W, y, start = 0, stop = x.length) {
  const total = new Float64Array(y), n_out = y.length;
  for (let i = start; i < stop; i++) for (let j = 0; j < n_out; j++) total[j] += x[i] * W[i * n_out + j];
  return total;
}

/** exp(x) / exp(x).sum(), so that the parts sum to 1. */
function softmax(x) {
  const highest = Math.max(...x), parts = x.map((value) => Math.exp(value - highest)), total = sum(parts);
  return parts.map((part) => part / total);
}

/** x less its mean, and the standard deviation that LayerNorm divides by. */
function centre(x) {
  const mean = sum(x) / x.length, centred = x.map((value) => value - mean);
  return [centred, Math.sqrt(dot(centred, centred) / x.length + LAYER_NORM_EPS)];
}

// --- the residual stream (stream.py) ------------------------------------------------------------------------

/** One run's residual stream: its writes and patterns by name. An edit is {name, change, of}, as th.Edit. */
class Stream {
  constructor(edits = []) {
    this.edits = edits;
    this.value = null;                                                         // [T][D], the sum of all writes
    [this.writes, this.patterns] = [{}, {}];                                   // {name: [T][D]}, {"L0": [H][T][S]}
  }

  edited(of, name, value) {
    return this.edits.reduce((x, edit) => (edit.of === of && edit.name === name ? edit.change(x) : x), value);
  }

  read(name, norm) {
    const before = this.value;
    this.value = this.edited("stream", name, before);                          // a change counts as one more write
    if (this.value !== before) this.writes[`edit before ${name}`] = this.value.map((x, t) => add(x, before[t], -1));
    return this.value.map((x) => layer_norm(x, norm));
  }

  write(name, x) {
    this.writes[name] = this.edited("writes", name, x);
    this.value = this.writes[name].map((row, t) => (this.value ? add(this.value[t], row) : row));
  }

  /** What each head writes, its part of z times its own W_O, and the output bias. z: [T][D], head beside head. */
  write_heads(layer, z, c_proj, n_head) {
    const none = c_proj.bias.map(() => 0), K = none.length / n_head;           // [D]
    for (let h = 0; h < n_head; h++) {
      this.write(`L${layer}.H${h}`, z.map((row) => product(row, c_proj.weight, none, h * K, (h + 1) * K)));
    }
    this.write(`L${layer}.attn.bias`, z.map(() => c_proj.bias));
  }
}

// --- the model (model.py) -----------------------------------------------------------------------------------

function layer_norm(x, {weight, bias}) {                                       // [D] -> [D]
  const [centred, scale] = centre(x);
  return centred.map((value, d) => value / scale * weight[d] + bias[d]);
}

const linear = (x, {weight, bias}) => product(x, weight, bias);                // [in] -> [out]

/** H heads side by side: each gathers, from the positions it attends to, what it then writes. x: [T][D]. */
function attention(x, {c_attn, c_proj}, layer, H, stream, cache) {
  const D = x[0].length, K = D / H, past = (cache[layer] || []).length;
  const qkv = x.map((row) => linear(row, c_attn));                             // [T][3D]
  const all = cache[layer] = [...(cache[layer] || []), ...qkv];                // [S][3D], S = past + T
  const pattern = Array.from({length: H}, (_, h) => qkv.map((row, t) => softmax(           // behind t nothing is seen
    all.slice(0, past + t + 1).map((other) => dot(row, other, h * K, D + h * K, K) / Math.sqrt(K)))));
  stream.patterns[`L${layer}`] = pattern;                                      // [H][T][S]
  const z = x.map(() => new Float64Array(D));                                  // [T][D], what each head gathers
  pattern.forEach((queries, h) => queries.forEach((weights, t) => weights.forEach((weight, s) => {
    for (let i = h * K; i < (h + 1) * K; i++) z[t][i] += weight * all[s][2 * D + i];
  })));
  stream.write_heads(layer, z, c_proj, H);
}

function mlp(x, {c_fc, c_proj}) {                                              // [D] -> [4D] -> [D]
  const gelu = (u) => u / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (u + 0.044715 * u * u * u)));
  return linear(linear(x, c_fc).map(gelu), c_proj);
}

/** tensors: a tree of Float32Arrays, by the parts of their names in the model's file: tensors.h[0].attn.c_attn.weight.
    cache: of each layer, the queries, keys and values [S][3D] of the positions before; those of the run are added. */
class GPT2 {
  constructor({n_embd, n_head}, tensors) {
    [this.n_head, this.h, this.ln_f] = [n_head, Object.values(tensors.h), tensors.ln_f];
    [this.wte, this.wpe] = [rows(tensors.wte.weight, n_embd), rows(tensors.wpe.weight, n_embd)];
    this.unembedding = tensors.lm_head ? rows(tensors.lm_head.weight, n_embd) : this.wte;
  }

  /** All of a run but the unembedding: what that reads, [T][D]. */
  final(tokens, stream = new Stream(), cache = []) {
    const past = (cache[0] || []).length;
    stream.write("embed", tokens.map((token, t) => add(new Float64Array(this.wte[token]), this.wpe[past + t])));
    this.h.forEach((block, layer) => {
      attention(stream.read(`L${layer}.attn`, block.ln_1), block.attn, layer, this.n_head, stream, cache);
      stream.write(`L${layer}.mlp`, stream.read(`L${layer}.mlp`, block.ln_2).map((x) => mlp(x, block.mlp)));
    });
    return stream.read("unembed", this.ln_f);
  }

  /** Logits [T][V] for the token behind each position. */
  forward(tokens, stream, cache) {
    return this.final(tokens, stream, cache).map((x) => this.unembedding.map((row) => dot(x, row)));
  }
}

// --- what is asked of it (prompts.py, steering.py, ablation.py, attribution.py) ----------------------------

/** A list of words, of which those at the indices `crossed` are crossed off in that order, as th.laundry_list. */
function laundry_list(data, verb, words, crossed) {
  const said = [];                                                             // each token's id and text
  const put = (piece, i = 0) => said.push(...(i ? data.pieces[","] : []), ...data.pieces[piece]) - 1;
  put(`To ${verb}:`);
  const positions = words.map((word, i) => put(` ${word}`, i));                // [N], where each stands
  put(". Done:");
  crossed.forEach((index, i) => put(` ${data.by === "name" ? words[index] : data.ordinals[index]}`, i));
  const end = put(`. Still to ${verb}: the`), [tokens, texts] = [0, 1].map((part) => said.map((token) => token[part]));
  return {tokens, texts, positions, end, candidates: positions.map((t) => tokens[t])};
}

/** Replace the coordinates x @ basis.T at one position. basis: [k][D]; values: [k]. */
function set_coordinates(basis, values, position) {
  const moved = (x) => basis.reduce((y, row, i) => add(y, row, values[i] - dot(x, row)), x);
  return (x) => x.map((row, t) => (t === position ? moved(row) : row));
}

/** An edit that takes one direction [D], of length 1, out of a head's write, as th.remove does by "zero". */
function remove(direction, writer) {
  return {name: writer, of: "writes", change: (x) => x.map((row) => add(row, direction, -dot(row, direction)))};
}

/** Each write's part of a logit at a position, {write: number}. direction: the token's row of the unembedding [D]. */
function logit_attribution(model, stream, direction, position) {
  const {weight, bias} = model.ln_f, [, scale] = centre(stream.value[position]);                 // the scale is frozen
  const read = direction.map((value, d) => value * weight[d] / scale), parts = {};
  for (const [name, write] of Object.entries(stream.writes)) parts[name] = dot(centre(write[position])[0], read);
  return {...parts, "ln_f.bias": dot(bias, direction)};
}

/** The movers' mean attention, from a query, on each item of the prompt: [N]. movers: ["L1.H2", ...]. */
function attention_on_items(stream, movers, prompt, query) {
  const patterns = movers.map((name) => name.match(/\d+/g)).map(([layer, head]) => stream.patterns[`L${layer}`][head]);
  return prompt.positions.map((s) => sum(patterns.map((pattern) => pattern[query][s])) / movers.length);
}

/** Set END's coordinates to each point [G][k] in turn, running END alone behind a cache of what stands before it.
    Gives the movers' attention on each item and each item's logit, [G][N] both. edits: to make besides. */
function traverse(model, prompt, circuit, basis, points, edits = []) {
  const earlier = [], tokens = [...prompt.tokens], end = [tokens.pop()];
  model.final(tokens, new Stream(edits), earlier);
  const runs = points.map((point) => {
    const set = {name: circuit.where, of: "stream", change: set_coordinates(basis, point, 0)};
    const stream = new Stream([...edits, set]), x = model.final(end, stream, [...earlier])[0];           // [D]
    const logits = prompt.candidates.map((token) => dot(x, model.unembedding[token]));
    return [attention_on_items(stream, circuit.movers, prompt, 0), logits];
  });
  return {attended: runs.map(([looks]) => looks), answered: runs.map(([, logits]) => logits)};
}

/** The float32 numbers behind a base64 text, as the tree that GPT2 takes. sizes: [[name, how many], ...] in order. */
function tensors_of(text, sizes) {
  const {buffer} = Uint8Array.from(atob(text), (character) => character.charCodeAt(0)), tree = {};
  let at = 0;
  for (const [name, n] of sizes) {
    const path = name.split("."), last = path.pop();
    path.reduce((node, part) => (node[part] ||= {}), tree)[last] = new Float32Array(buffer, 4 * at, n);
    at += n;
  }
  return tree;
}
