"use strict";
// The decoder of alilama/model/model.py: one token at a time, beside the keys and values of those before it.

class Model {
  // `shape` is config.json's, `weights` has an array of 32-bit floats by the name that alilama/model/model.py gives it.
  constructor(shape, slopes, weights) {
    Object.assign(this, shape); // vocab_size, d_model, blocks, num_heads, hidden_dim, max_seq_len
    this.slopes = slopes; // of ALiBi, one for each head
    this.width = this.d_model / this.num_heads; // of a head
    this.weights = weights;
    this.length = 0; // tokens read; what the caches hold beyond it is forgotten
    this.caches = Array.from({ length: this.blocks }, () => new Float32Array(0)); // rows of q, k and v by token, (T, 3 C)
  }

  // Makes room for another token.
  reserve() {
    const needed = 3 * this.d_model * (this.length + 1);
    if (this.caches[0].length >= needed) return;
    this.caches = this.caches.map((cache) => {
      const larger = new Float32Array(2 * needed);
      larger.set(cache);
      return larger;
    });
  }

  // Reads a token and returns the logits of the next one.
  read(id) {
    const C = this.d_model;
    this.reserve();
    const x = this.weights["wte.weight"].slice(id * C, (id + 1) * C);
    for (let block = 0; block < this.blocks; block++) {
      const weight = (name) => this.weights[`blocks.${block}.${name}.weight`];
      const qkv = multiply(weight("attn.Wqkv"), normalize(x, weight("norm_1")), 3 * C);
      this.caches[block].set(qkv, this.length * 3 * C);
      add(x, multiply(weight("attn.out_proj"), this.attend(block), C));
      const hidden = multiply(weight("ffn.up_proj"), normalize(x, weight("norm_2")), this.hidden_dim);
      for (let i = 0; i < hidden.length; i++) hidden[i] = gelu(hidden[i]);
      add(x, multiply(weight("ffn.down_proj"), hidden, C));
    }
    this.length += 1;
    return multiply(this.weights["wte.weight"], normalize(x, this.weights["norm_f.weight"]), this.vocab_size);
  }

  // What the token being read takes from all tokens up to itself, the heads' outputs side by side.
  attend(block) {
    const cache = this.caches[block], C = this.d_model, output = new Float32Array(C);
    for (let head = 0; head < this.num_heads; head++) {
      const shares = this.attention(block, head, this.length), first = head * this.width;
      for (let j = 0; j < shares.length; j++) {
        const share = shares[j], value = (3 * j + 2) * C;
        for (let i = first; i < first + this.width; i++) output[i] += share * cache[value + i];
      }
    }
    return output;
  }

  // How a head shares its attention among the tokens up to the one at `place`: softmax of q·k / sqrt(width) - slope · distance.
  attention(block, head, place) {
    const cache = this.caches[block], C = this.d_model, slope = this.slopes[head], scale = 1 / Math.sqrt(this.width);
    const first = head * this.width, query = 3 * place * C, scores = new Float32Array(place + 1);
    for (let j = 0; j <= place; j++) {
      const key = (3 * j + 1) * C;
      let sum = 0;
      for (let i = first; i < first + this.width; i++) sum += cache[query + i] * cache[key + i];
      scores[j] = sum * scale - slope * (place - j);
    }
    return softmax(scores);
  }
}

// W · x for a matrix whose rows stand one after the other. Four sums at once, since each addition waits for the one before.
function multiply(matrix, x, rows) {
  const columns = x.length, whole = columns - (columns % 4), product = new Float32Array(rows);
  for (let row = 0, at = 0; row < rows; row++, at += columns) {
    let a = 0, b = 0, c = 0, d = 0;
    for (let i = 0; i < whole; i += 4) {
      a += matrix[at + i] * x[i];
      b += matrix[at + i + 1] * x[i + 1];
      c += matrix[at + i + 2] * x[i + 2];
      d += matrix[at + i + 3] * x[i + 3];
    }
    for (let i = whole; i < columns; i++) a += matrix[at + i] * x[i];
    product[row] = a + b + c + d;
  }
  return product;
}

function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}

// Layer normalization with a weight and no bias.
function normalize(x, weight) {
  let mean = 0, variance = 0;
  for (const value of x) mean += value / x.length;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + 1e-5);
  return x.map((value, i) => (value - mean) * scale * weight[i]);
}

// x · Φ(x), Φ by the approximation of erfc of Press et al., Numerical Recipes, 6.2, which is right to 1.2e-7 of its value.
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + z / 2);
  let sum = 0;
  for (const coefficient of ERFC) sum = sum * t + coefficient;
  const beyond = (t / 2) * Math.exp(-z * z + sum); // the probability of values beyond |x|
  return x * (x < 0 ? beyond : 1 - beyond);
}

const ERFC = [
  0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223,
];

// Overwrites scores by their softmax.
function softmax(scores) {
  let highest = -Infinity, sum = 0;
  for (const score of scores) if (score > highest) highest = score;
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - highest);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

// An id drawn from the distribution that a temperature makes of the logits; 0 takes the most likely.
function sample(logits, temperature, uniform = Math.random()) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const probabilities = softmax(logits.map((logit) => logit / temperature));
  let left = uniform;
  for (let id = 0; id < probabilities.length; id++) if ((left -= probabilities[id]) < 0) return id;
  return probabilities.indexOf(probabilities.reduce((a, b) => Math.max(a, b))); // rounding left nothing
}

// 32-bit floats of 16-bit ones, by a table of all of them.
function fromHalf(halves) {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    table[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
  }
  const floats = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) floats[i] = table[halves[i]]; // Float32Array.from takes twenty times as long
  return floats;
}

// The weights by name: 16-bit floats in base64, one matrix after the other as `shapes`, pairs of name and shape, has them.
function unpack(base64, shapes) {
  const all = fromHalf(new Uint16Array(fromBase64(base64).buffer)), weights = {};
  let start = 0;
  for (const [name, shape] of shapes) weights[name] = all.subarray(start, (start += shape.reduce((a, b) => a * b)));
  return weights;
}
