"use strict";
// The page: a story that is written, and what the model knew, looked at and hesitated about at the token that is touched.

const SHOWN_TOKENS = 8; // most likely next ones in the list
const YIELD_AFTER_MS = 20; // of computing, so that the page gets its turn
const MOST_COLOR = 0.6; // of a view over the page's own, so that the text stays readable

const element = (id) => document.getElementById(id);
let described, tokenizer, model;

let story = []; // tokens: { id, span, probabilities }, the last as `likeliest` gives them; null for the first token
let touched = null; // place of the token whose details are shown
let lookedAt = null; // [block, head] whose attention shades the story, null for the mean of all
let running = null; // the promise of what is being written, null if nothing is
let stopped = false;
let latest = 0; // number of what was asked for last

// ---- writing ----

// Writes a story that begins with `ids`, the first `kept` of which stand there already.
async function write(ids, kept) {
  const temperature = Number(element("temperature").value), longest = ids.length + Number(element("length").value);
  const known = story[kept]?.probabilities, text = decoder();
  let logits = null, since = performance.now(), started = since;
  stopped = false;
  hide();
  model.length = kept;
  for (const { span } of story.splice(kept)) span.remove();
  for (const { id } of story) text.decode(tokenizer.tokens[id], { stream: true });
  while (!stopped && story.length < longest) {
    const place = story.length, isGiven = place < ids.length;
    if (place === ids.length) started = performance.now();
    const id = isGiven ? ids[place] : sample(logits, temperature);
    if (!isGiven && described.stopIds.includes(id)) break;
    append(id, text, isGiven, logits ? likeliest(softmax(logits.slice()), id) : known);
    logits = model.read(id);
    for (const gap of tokenizer.gaps) logits[gap] = -Infinity;
    if (performance.now() - since < YIELD_AFTER_MS) continue;
    if (isGiven) say(`reading ${place + 1} of ${ids.length} tokens`);
    await new Promise((resolve) => setTimeout(resolve));
    since = performance.now();
  }
  const written = story.length - ids.length, rate = (1000 * written) / (performance.now() - started);
  if (written > 0) say(`${written} tokens, ${Math.round(rate)} a second. Touch one to see what else it might have been.`);
}

function append(id, text, isGiven, probabilities) {
  const span = document.createElement("span");
  span.textContent = described.shown[id] ?? text.decode(tokenizer.tokens[id], { stream: true });
  span.className = `token color${story.length % 4}${isGiven ? " given" : ""}`;
  span.dataset.place = story.length;
  story.push({ id, span, probabilities: probabilities ?? null });
  shade(story.length - 1, []);
  element("story").append(span);
}

// [id, probability] of the likeliest tokens, and of `chosen` as the last one if it is not among them.
function likeliest(probabilities, chosen) {
  const found = [];
  for (let id = 0; id < probabilities.length; id++) {
    if (found.length === SHOWN_TOKENS && probabilities[id] <= found[SHOWN_TOKENS - 1][1]) continue;
    const place = found.findIndex(([, probability]) => probability < probabilities[id]);
    found.splice(place < 0 ? found.length : place, 0, [id, probabilities[id]]);
    if (found.length > SHOWN_TOKENS) found.pop();
  }
  if (!found.some(([id]) => id === chosen)) found.push([chosen, probabilities[chosen]]);
  return found;
}

// Stops what is being written, then writes what `next` gives the ids of, unless something else was asked for meanwhile.
async function run(next) {
  const number = ++latest;
  while (running) {
    stopped = true;
    await running;
  }
  if (number !== latest) return;
  const { ids, kept } = next();
  element("write").textContent = "Stop";
  running = write(ids, kept);
  try {
    await running;
  } finally {
    running = null;
    element("write").textContent = "Again";
  }
}

function begin() {
  const text = decoder().decode(new TextEncoder().encode(element("prompt").value)); // no halves of characters
  const special = described.refusedTokens.find((token) => text.includes(token));
  if (special) return say(`the text holds ${special}, which only stands between texts; leave it out`);
  return run(() => ({ ids: [...described.before, ...tokenizer.encode(text), ...described.after], kept: 0 }));
}

// Goes on with another token at a place of the story.
function branch(place, id) {
  return run(() => ({ ids: [...story.slice(0, place).map((token) => token.id), id], kept: place }));
}

function say(text) {
  element("status").textContent = text;
}

// ---- looking ----

// Shows what was known where a token was chosen, and where its heads look.
function show(place) {
  if (place === null || place < 1 || place >= story.length) return;
  touched = place;
  element("details").hidden = false;
  element("likely").replaceChildren(...story[place].probabilities.map(([id, probability]) => makeRow(place, id, probability)));
  for (const canvas of element("heads").querySelectorAll("canvas")) draw(canvas);
  for (const button of element("heads").children) {
    const isChosen = button.dataset.head === (lookedAt ?? "").toString();
    button.classList.toggle("chosen", isChosen);
    button.setAttribute("aria-pressed", isChosen);
  }
  paint();
}

function hide() {
  touched = null;
  element("details").hidden = true;
  paint();
}

function makeRow(place, id, probability) {
  const row = document.createElement("button"), isEnd = described.stopIds.includes(id);
  const name = document.createElement("code"), bar = document.createElement("i"), share = document.createElement("span");
  name.textContent = isEnd ? "(the end)" : tokenizer.show(id);
  bar.style.width = `${100 * probability}%`;
  share.textContent = `${(100 * probability).toFixed(1)}%`;
  row.append(name, bar, share);
  row.classList.toggle("chosen", id === story[place].id);
  row.disabled = isEnd;
  row.onclick = async () => {
    const done = branch(place, id);
    element("story").focus();
    await done;
  };
  return row;
}

// The attention of a head, or the mean of all (null), from the touched token to each up to it.
function attentionOf(head) {
  if (head) return model.attention(...head, touched);
  const mean = new Float32Array(touched + 1);
  for (let block = 0; block < model.blocks; block++)
    for (let h = 0; h < model.num_heads; h++)
      model.attention(block, h, touched).forEach((share, i) => (mean[i] += share / model.blocks / model.num_heads));
  return mean;
}

// One head's attention as bars, the last tokens on the right.
function draw(canvas) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const shares = model.attention(...canvas.parentElement.dataset.head.split(",").map(Number), touched).slice(-width / 2);
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  shares.forEach((share, i) => context.fillRect(width - 2 * (shares.length - i), height * (1 - share), 2, height * share));
}

// Gives all tokens of the story the colors of the chosen view.
function paint() {
  const attention = element("view").value === "attention" && touched !== null ? attentionOf(lookedAt) : [];
  for (let place = 0; place < story.length; place++) shade(place, attention);
}

function shade(place, attention) {
  const { span, id, probabilities } = story[place], view = element("view").value;
  let color = view === "tokens" ? "" : "transparent";
  if (view === "sure" && probabilities) color = heat("--unsure", 1 - probabilities.find(([other]) => other === id)[1]);
  if (view === "attention" && attention[place]) color = heat("--looked-at", Math.sqrt(attention[place]));
  span.style.backgroundColor = color;
  span.classList.toggle("touched", place === touched);
}

function heat(color, share) {
  return `rgb(var(${color}) / ${(MOST_COLOR * share).toFixed(3)})`;
}

function makeHeads() {
  const names = [""]; // of all
  for (let block = 0; block < model.blocks; block++)
    for (let head = 0; head < model.num_heads; head++) names.push(`${block},${head}`);
  element("heads").style.gridTemplateColumns = `repeat(${model.num_heads}, minmax(1.6rem, 1fr))`;
  element("heads").replaceChildren(
    ...names.map((name) => {
      const button = document.createElement("button"), [block, head] = name.split(",").map(Number);
      button.dataset.head = name;
      button.title = name ? `block ${block + 1}, head ${head + 1}` : "the mean of all heads";
      if (name) button.append(Object.assign(document.createElement("canvas"), { width: 96, height: 24 }));
      else button.textContent = "all";
      return button;
    }),
  );
}

// ---- what a user does ----

function listen() {
  element("write").onclick = () => (running ? (stopped = true) : begin());
  element("prompt").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin();
  };
  for (const name of ["temperature", "length"])
    (element(name).oninput = () => (element(`${name}Value`).textContent = element(name).value))();
  element("story").onclick = ({ target }) => {
    if (target.dataset.place) show(Number(target.dataset.place));
  };
  element("story").onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(touched === null ? story.length - 1 : touched + step);
  };
  element("close").onclick = hide;
  element("view").onchange = paint;
  element("heads").onclick = ({ target }) => {
    const { head } = target.closest("button")?.dataset ?? {};
    if (head === undefined) return;
    lookedAt = head ? head.split(",").map(Number) : null;
    element("view").value = "attention";
    show(touched);
  };
}

function start() {
  described = JSON.parse(element("description").textContent);
  element("name").textContent = document.title = described.name;
  element("about").textContent = described.about;
  element("prompt").value = described.prompt;
  tokenizer = new Tokenizer(described.tokenizer);
  model = new Model(described.shape, described.slopes, unpack(element("weights").textContent, described.weights));
  makeHeads();
  listen();
  element("write").disabled = false;
}

try {
  start();
} catch (error) {
  say(`This browser cannot run the model (${error.message}). A newer one should.`);
}
