"use strict";
// The page: a story that is written, and what the model knew, looked at and hesitated about at the token that is touched.

const SHOWN = 8; // most likely next tokens in the list
const WORK_MS = 20; // of computing until the page gets its turn

const element = (id) => document.getElementById(id);
const described = JSON.parse(element("description").textContent);
const tokenizer = new Tokenizer(described.tokenizer);
const model = new Model(described.shape, described.slopes, unpack(element("weights").textContent, described.weights));

let story = []; // tokens: { id, span, and but for the first `probabilities`: those of the next SHOWN tokens and its own }
let touched = null; // place of the token whose details are shown
let lookedAt = null; // [block, head] whose attention shades the story, null for the mean of all
let running = null; // the promise of what is being written, null if nothing is
let stopped = false;

// ---- writing ----

// Writes a story that begins with `ids`, the first `kept` of which stand there already.
async function write(ids, kept) {
  stopped = false;
  touched = null;
  let logits = null, since = performance.now(), count = 0;
  const started = since, decoder = new TextDecoder();
  model.length = kept;
  for (const { span } of story.splice(kept)) span.remove();
  for (const { id } of story) decoder.decode(tokenizer.tokens[id], { stream: true });
  const longest = ids.length + Number(element("length").value);
  while (!stopped && story.length < longest) {
    const place = story.length, isGiven = place < ids.length;
    const id = isGiven ? ids[place] : sample(logits, Number(element("temperature").value));
    if (!isGiven && id === described.eotId) break;
    append(id, decoder, isGiven, logits);
    logits = model.read(id);
    if (!isGiven) count += 1;
    if (performance.now() - since < WORK_MS) continue;
    say(isGiven ? `reading ${place + 1} of ${ids.length} tokens` : `writing, ${count} tokens`);
    await new Promise((resolve) => setTimeout(resolve));
    since = performance.now();
  }
  if (count) say(`${count} tokens, ${Math.round((1000 * count) / (performance.now() - started))} a second`);
}

function append(id, decoder, isGiven, logits) {
  const span = document.createElement("span");
  span.textContent = story.length ? decoder.decode(tokenizer.tokens[id], { stream: true }) : "";
  span.className = `token color${story.length % 4}${isGiven ? " given" : ""}`;
  span.dataset.place = story.length;
  story.push({ id, span, probabilities: logits && likeliest(softmax(logits.slice()), id) });
  shade(story.length - 1);
  element("story").append(span);
}

// [id, probability] of the likeliest tokens, and of `chosen` as the last one if it is not among them.
function likeliest(probabilities, chosen) {
  const found = [];
  for (let id = 0; id < probabilities.length; id++) {
    if (found.length === SHOWN && probabilities[id] <= found[SHOWN - 1][1]) continue;
    const place = found.findIndex(([, probability]) => probability < probabilities[id]);
    found.splice(place < 0 ? found.length : place, 0, [id, probabilities[id]]);
    if (found.length > SHOWN) found.pop();
  }
  if (!found.some(([id]) => id === chosen)) found.push([chosen, probabilities[chosen]]);
  return found;
}

// Stops what is being written, then does `next`, with the button as a user expects it.
async function run(next) {
  while (running) {
    stopped = true;
    await running;
  }
  element("write").textContent = "Stop";
  running = next();
  try {
    await running;
  } finally {
    running = null;
    element("write").textContent = "Again";
    show(story.length - 1);
  }
}

function begin() {
  const text = new TextDecoder().decode(new TextEncoder().encode(element("prompt").value)); // no halves of characters
  const special = described.specialTokens.find((token) => text.includes(token));
  if (special) return say(`the text holds ${special}, which only stands between texts; leave it out`);
  const ids = [described.eotId, ...tokenizer.encode(text)];
  return run(() => write(ids, 0));
}

// Goes on from before the touched token with another one in its place.
function branch(id) {
  const place = touched, ids = [...story.slice(0, place).map((token) => token.id), id];
  return run(() => write(ids, place));
}

function say(text) {
  element("status").textContent = text;
}

// ---- looking ----

// Shows what was known where a token was chosen, and where its heads look.
function show(place) {
  if (place < 1 || place >= story.length) return;
  touched = place;
  element("details").hidden = false;
  element("likely").replaceChildren(
    ...story[place].probabilities.map(([id, probability]) => {
      const row = document.createElement("button");
      const name = document.createElement("code"), bar = document.createElement("i"), share = document.createElement("span");
      name.textContent = id === described.eotId ? "(the end)" : tokenizer.show(id);
      bar.style.width = `${100 * probability}%`;
      share.textContent = `${(100 * probability).toFixed(1)}%`;
      row.append(name, bar, share);
      row.classList.toggle("chosen", id === story[place].id);
      row.disabled = id === described.eotId;
      row.onclick = () => branch(id);
      return row;
    }),
  );
  for (const canvas of element("heads").querySelectorAll("canvas")) draw(canvas, Number(canvas.dataset.block), Number(canvas.dataset.head));
  for (const button of element("heads").children) button.classList.toggle("chosen", isLookedAt(button));
  for (let i = 0; i < story.length; i++) shade(i);
}

// The attention of a head, or the mean of all, from the touched token to each up to it.
function attentionOf(head) {
  if (head) return model.attention(...head, touched);
  const mean = new Float32Array(touched + 1);
  for (let block = 0; block < model.blocks; block++)
    for (let h = 0; h < model.num_heads; h++)
      model.attention(block, h, touched).forEach((share, i) => (mean[i] += share / model.blocks / model.num_heads));
  return mean;
}

// One head's attention as bars, the last tokens on the right.
function draw(canvas, block, head) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const shares = model.attention(block, head, touched).slice(-width / 2);
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  shares.forEach((share, i) => context.fillRect(width - 2 * (shares.length - i), height * (1 - share), 2, height * share));
}

function isLookedAt({ dataset }) {
  return lookedAt ? dataset.head === String(lookedAt) : dataset.head === "";
}

// Gives a token of the story the color that the chosen view wants.
let attention = []; // of the touched token
function shade(place) {
  const { span, id, probabilities } = story[place], view = element("view").value;
  if (place === 0 && touched !== null) attention = view === "attention" ? attentionOf(lookedAt) : [];
  let color = "";
  if (view === "sure" && probabilities) color = heat(1 - probabilities.find(([other]) => other === id)[1], "--unsure");
  if (view === "attention" && touched !== null) color = heat(Math.sqrt(attention[place] ?? 0), "--looked-at");
  span.style.backgroundColor = view === "tokens" ? "" : color || "transparent";
  span.classList.toggle("touched", place === touched);
}

function heat(share, color) {
  return `color-mix(in srgb, var(${color}) ${Math.round(100 * share)}%, transparent)`;
}

function makeHeads() {
  const all = document.createElement("button");
  all.textContent = "all";
  all.dataset.head = "";
  element("heads").append(all);
  element("heads").style.gridTemplateColumns = `repeat(${model.num_heads}, 1fr)`;
  for (let block = 0; block < model.blocks; block++) {
    for (let head = 0; head < model.num_heads; head++) {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      Object.assign(canvas, { width: 96, height: 24 });
      Object.assign(canvas.dataset, { block, head });
      button.dataset.head = String([block, head]);
      button.title = `block ${block + 1}, head ${head + 1}`;
      button.append(canvas);
      element("heads").append(button);
    }
  }
}

// ---- what a user does ----

element("name").textContent = document.title = described.name;
element("about").textContent = described.about;
element("prompt").value = described.prompt;
makeHeads();
element("write").onclick = () => (running ? (stopped = true) : begin());
element("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin();
};
for (const name of ["temperature", "length"])
  (element(name).oninput = () => (element(`${name}Value`).textContent = element(name).value))();
element("story").onclick = ({ target }) => {
  if (target.dataset.place) show(Number(target.dataset.place));
};
document.onkeydown = ({ key, target }) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step && touched !== null && !["TEXTAREA", "INPUT", "SELECT"].includes(target.tagName)) show(touched + step);
};
element("view").onchange = () => {
  for (let i = 0; i < story.length; i++) shade(i);
};
element("heads").onclick = ({ target }) => {
  const { head } = target.closest("button")?.dataset ?? {};
  if (head === undefined) return;
  lookedAt = head ? head.split(",").map(Number) : null;
  element("view").value = "attention";
  show(touched);
};
