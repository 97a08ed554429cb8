/* The attention viewer: maps of two runs side by side, their difference, every layer and head, rollout on the text.
   Text enters the document through textContent, fillText and properties alone. */
"use strict";
(() => {
  const root = document.getElementById("attention-viewer");
  const island = document.getElementById("data-attention");
  if (!root || !island || typeof DecompressionStream === "undefined") return;
  const data = JSON.parse(island.textContent);
  const find = (selector, within = root) => within.querySelector(selector);
  const create = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const [KEYS, SIDES, alone] = [["model", "policy", "budget", "batch", "seed"], ["a", "b"], data.runs.length === 1];
  const state = { review: data.reviews[0].name, layer: 0, head: 0, view: "all", grid: "a", words: false, at: null, a: data.runs[0] };
  state.b = data.runs.findLast((run) => KEYS.every((key) => key === "batch" || run[key] === state.a[key]));
  root.hidden = false;
  const [dark, ratio] = [matchMedia("(prefers-color-scheme: dark)"), Math.min(2, devicePixelRatio || 1)];
  const THEMES = {
    light: { weight: ["#fdfcf7", "#dcebe4", "#94c8c2", "#4896ab", "#235f8c", "#15284f"], change: ["#0c5677", "#7db6c9", "#fdfcf7", "#e3a27d", "#9c3d12"], greys: ["#e4e2dd", "#b3afa6"] },
    dark: { weight: ["#1a1d23", "#22384a", "#275f80", "#3f93a8", "#8ccbc2", "#f4f8ea"], change: ["#7fd0ee", "#2d6a80", "#1a1d23", "#85512f", "#ffb184"], greys: ["#34373d", "#5c6068"] },
  };
  /** 256 colours along the stops. */
  const ramp = (stops) => Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const [from, to] = [low, low + 1].map((stop) => [1, 3, 5].map((at) => parseInt(stops[stop].slice(at, at + 2), 16)));
    return from.map((value, channel) => Math.round(value + (to[channel] - value) * (place - low)));
  });
  let paint = {};
  const choosePaint = () => { paint = Object.fromEntries(Object.entries(THEMES[dark.matches ? "dark" : "light"]).map(([kind, stops]) => [kind, ramp(stops)])); };
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim() || "#888";
  const known = new Map();
  /** A run's maps of the chosen review: levels [layer, head, query, key], and what belongs to them; null if left out. */
  const load = async (side) => {
    const { run, model } = state[side];
    const id = `${run} ${state.review}`;
    const content = data.maps[id];
    if (content && !known.has(id)) {
      const bytes = Uint8Array.from(atob(content.levels), (letter) => letter.charCodeAt(0));
      const { windows, texts: { [state.review]: text } } = data.models[model];
      const buffer = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
      known.set(id, { ...content, ...text, model, windows, heads: content.largest.length / windows.length, n: text.tokens.length, levels: new Uint8Array(buffer) });
    }
    return known.get(id) ?? null;
  };
  /** Weights [query, key] of one head, counted from 1, or of the mean over heads (0); NaN where the window ends. */
  const weightsOf = ({ n, heads, levels, largest, windows }, layer, head) => {
    const [values, shown] = [new Float32Array(n * n), head ? [head - 1] : [...Array(heads).keys()]];
    for (const one of shown) {
      const start = (layer * heads + one) * n * n;
      const unit = largest[layer * heads + one] / 255 / shown.length;
      for (let cell = 0; cell < n * n; cell += 1) values[cell] += levels[start + cell] * unit;
    }
    const window = windows[layer] ?? n;
    return values.map((value, cell) => (Math.abs(Math.floor(cell / n) - (cell % n)) > window ? NaN : value));
  };
  const shownToken = (token) => token.trim().replace(/\n/g, "↵").replace(/\t/g, "⇥") || "·";
  /** Labels and, for each token, the place of its word; without merging every token is a word. */
  const wordsOf = ({ tokens, words }) => {
    if (!state.words) return { labels: tokens.map(shownToken), place: [...tokens.keys()] };
    const whole = (word) => tokens.filter((_, token) => words[token] === word).map((token, part) => (part ? token.replace(/^##/, "") : token)).join("");
    return { labels: [...new Set(words)].map(whole).map(shownToken), place: words };
  };
  /** Attention between words: the sum over a key's pieces, the mean over a query's (Clark et al. 2019, arXiv 1906.04341). */
  const merged = (maps, values) => {
    const { labels, place } = wordsOf(maps);
    const pieces = labels.map((_, word) => place.filter((one) => one === word).length);
    const found = new Float32Array(labels.length ** 2).fill(NaN);
    values.forEach((value, cell) => {
      const query = place[Math.floor(cell / maps.n)];
      const at = query * labels.length + place[cell % maps.n];
      if (!Number.isNaN(value)) found[at] = (Number.isNaN(found[at]) ? 0 : found[at]) + value / pieces[query];
    });
    return { n: labels.length, labels, values: found };
  };
  /** The weight of the darkest colour: the largest one, but as in the figures at least 27 / n, so that even attention is light. */
  const topOf = (kind, ...both) => Math.max(1e-6, ...both.filter(Boolean).flatMap((maps) => [...maps.largest, kind === "weight" ? Math.min(1, 27 / maps.n) : 0]));
  /** The context of a canvas, sized in CSS pixels, for text in a colour. */
  const sized = (canvas, width, height, text) => {
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return Object.assign(context, { fillStyle: ink(text), font: "11px system-ui, sans-serif", textBaseline: "middle" });
  };
  /** A square picture of values [n, n], colour by the cube root up to `top`; of several cells on a pixel the largest. */
  const picture = (context, size, n, values, top, kind) => {
    const [image, side] = [context.createImageData(size, size), Math.min(n, size)];
    const shown = new Float32Array(side * side).fill(NaN);
    values.forEach((value, cell) => {
      const at = Math.floor((Math.floor(cell / n) * side) / n) * side + Math.floor(((cell % n) * side) / n);
      if (!Number.isNaN(value) && !(Math.abs(shown[at]) >= Math.abs(value))) shown[at] = value;
    });
    const colours = Array.from(shown, (value) => {
      const root3 = Math.sign(value) * Math.min(1, Math.cbrt(Math.abs(value) / top));
      return paint[kind][Math.round(kind === "weight" ? 255 * root3 : 127.5 + 127.5 * root3)];
    });
    for (let pixel = 0; pixel < size * size; pixel += 1) {
      const [x, y] = [pixel % size, Math.floor(pixel / size)];
      const colour = colours[Math.floor((y * side) / size) * side + Math.floor((x * side) / size)];
      image.data.set(colour ?? paint.greys[(x + y) % 6 === 0 ? 255 : 0], 4 * pixel);
      image.data[4 * pixel + 3] = 255;
    }
    return image;
  };
  const within = (value, most) => Math.max(0, Math.min(most, value));
  let panels = [];
  /** Frame the chosen pair on a panel. */
  const mark = ({ context, image, margin, size, map }) => {
    context.putImageData(image, Math.round(margin * ratio), 0);
    if (!state.at || Math.max(...state.at) >= map.n) return;
    const cell = size / map.n;
    const [top, left] = [state.at[0] * cell, margin + state.at[1] * cell];
    Object.assign(context, { strokeStyle: ink("--accent"), lineWidth: 1.5 });
    for (const box of [[margin, top, size, cell], [left, 0, cell, size], [left, top, cell, cell]]) context.strokeRect(...box);
  };
  const drawPanel = (panel) => {
    const { canvas, map, kind, top } = panel;
    const room = canvas.parentElement.clientWidth;
    const margin = state.view !== "all" && room / map.n >= 9.5 ? 84 : 0;
    const size = Math.min(room - margin, margin ? map.n * 16 : 460);
    const context = Object.assign(sized(canvas, size + margin, size + margin, "--ink"), { textAlign: "right" });
    Object.assign(panel, { context, margin, size, image: picture(context, Math.round(size * ratio), map.n, map.values, top, kind) });
    for (let place = 0; margin && place < map.n; place += 1) {
      const label = map.labels[place].length > 13 ? `${map.labels[place].slice(0, 12)}…` : map.labels[place];
      const middle = ((place + 0.5) * size) / map.n;
      context.fillText(label, margin - 5, middle);
      context.setTransform(0, -ratio, ratio, 0, (margin + middle) * ratio, (size + 5) * ratio);
      context.fillText(label, 0, 0);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    mark(panel);
  };
  const number = (value) => (Number.isNaN(value) ? "not allowed" : value.toFixed(Math.abs(value) < 0.01 ? 4 : 3).replace("-", "−"));
  /** Choose the pair at a query and a key, or none, and say its weights. */
  const point = (query, key) => {
    const most = Math.min(...panels.map(({ map }) => map.n)) - 1;
    state.at = panels.length && query !== undefined ? [within(query, most), within(key, most)] : null;
    panels.forEach(mark);
    const line = find(".pair");
    const named = (state.at ?? []).map((place) => `“${panels[0].map.labels[place]}” (${place + 1})`).join(" attends to ");
    const parts = panels.map(({ name, map }) => state.at && `${name} ${number(map.values[state.at[0] * map.n + state.at[1]])}`);
    line.textContent = state.at ? `${named}: ${parts.join(" · ")}` : line.dataset.hint;
  };
  const board = {};
  const drawGrid = (a, b, both) => {
    const canvas = find(".overview canvas");
    const shown = { a, b, change: both ? a : null }[state.grid];
    canvas.hidden = !shown;
    if (!shown) return;
    const [layers, heads, label, kind] = [shown.windows.length, shown.heads, 26, state.grid === "change" ? "change" : "weight"];
    const thumb = Math.floor(Math.max(10, Math.min(72, 640 / layers, (canvas.parentElement.clientWidth - label) / heads)));
    const context = Object.assign(sized(canvas, label + thumb * heads, label + thumb * layers, "--muted"), { textAlign: "center" });
    for (let layer = 0; layer < layers; layer += 1) {
      const top = label + layer * thumb;
      context.fillText(`${layer + 1}${shown.windows[layer] === null ? "" : "~"}`, label / 2, top + thumb / 2);
      for (let head = 1; head <= heads; head += 1) {
        const left = label + (head - 1) * thumb;
        if (!layer) context.fillText(String(head), left + thumb / 2, label / 2);
        const [values, others] = [weightsOf(shown, layer, head), kind === "change" && weightsOf(b, layer, head)];
        if (others) others.forEach((value, cell) => { values[cell] = value - values[cell]; });
        const image = picture(context, Math.floor((thumb - 2) * ratio), shown.n, values, topOf(kind, a, b), kind);
        context.putImageData(image, Math.round(left * ratio), Math.round(top * ratio));
      }
    }
    Object.assign(context, { strokeStyle: ink("--accent"), lineWidth: 2 });
    context.strokeRect(label + Math.max(0, state.head - 1) * thumb - 1, label + state.layer * thumb - 1, state.head ? thumb : thumb * heads, thumb);
    Object.assign(board, { label, thumb, layers, heads });
  };
  const drawRollout = (side, maps, most) => {
    const line = find(`.rollout [data-side="${side}"]`);
    line.hidden = !maps || (side === "b" && alone);
    if (line.hidden) return;
    const { labels, place } = wordsOf(maps);
    const shares = labels.map((_, word) => maps.rollout.reduce((sum, share, token) => sum + (place[token] === word ? share : 0), 0));
    find(".text", line).replaceChildren(...labels.flatMap((label, word) => {
      const node = create("span", { textContent: label, title: `${(100 * shares[word]).toFixed(2)}%` });
      node.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.sqrt(shares[word] / most)))}%`);
      return [node, " "];
    }));
  };
  const options = (select, entries, chosen) => {
    select.replaceChildren(...entries.map(([value, textContent]) => create("option", { value, textContent, selected: value === chosen })));
  };
  const passes = (key, value) => !window.batchscope?.filter?.[key]?.size || window.batchscope.filter[key].has(value);
  /** Offer what the page's filter lets through, and choose the run that is most like `wanted`; `first` counts most. */
  const offer = (side, wanted = state[side], first = "model") => {
    const allowed = data.runs.filter((run) => KEYS.every((key) => passes(key, run[key])));
    const runs = allowed.length ? allowed : data.runs;
    const alike = (run) => KEYS.reduce((sum, key) => sum + (run[key] === wanted[key] ? (key === first ? 9 : 1) : 0), 0);
    state[side] = runs.reduce((best, run) => (alike(run) > alike(best) ? run : best));
    for (const key of KEYS) {
      const select = find(`fieldset[data-side="${side}"] select[name="${key}"]`);
      options(select, [...new Set(runs.map((run) => run[key]))].map((value) => [value, value]), state[side][key]);
      select.closest("label").hidden = new Set(data.runs.map((run) => run[key])).size < 2;
    }
  };
  const described = (side, maps) => {
    const { model, policy, batch, seed } = state[side];
    const label = typeof maps?.label === "number" ? `, labelled ${data.classes[maps.label]}` : "";
    const said = maps ? `Predicted ${data.classes[maps.prediction]} (p = ${maps.probability.toFixed(3)})${label}.` : "Its maps are not in this page.";
    return `${side.toUpperCase()}: ${model}, batch size ${batch}, ${policy} LR, seed ${seed}. ${said}`;
  };
  let turn = 0;
  const draw = async () => {
    turn += 1;
    const mine = turn;
    const [a, b] = await Promise.all(SIDES.map(load));
    const [first, gap] = [a ?? b, find(".gap")];
    if (mine !== turn || !root.clientWidth) return;
    gap.textContent = [a ? "" : described("a"), b || alone ? "" : described("b"), a && b && a.model !== b.model ? gap.dataset.other : ""].join(" ").trim();
    if (first) {
      Object.assign(state, { layer: Math.min(state.layer, first.windows.length - 1), head: Math.min(state.head, first.heads) });
      options(find('select[name="layer"]'), first.windows.map((window, layer) => [layer, `${layer + 1}${window === null ? "" : ` (±${window})`}`]), state.layer);
      options(find('select[name="head"]'), [[0, "mean of all"], ...Array.from({ length: first.heads }, (_, head) => [head + 1, head + 1])], state.head);
    }
    const map = (maps) => maps && merged(maps, weightsOf(maps, Math.min(state.layer, maps.windows.length - 1), Math.min(state.head, maps.heads)));
    const made = { a: map(a), b: alone ? null : map(b) };
    const both = made.a && made.b && a.model === b.model;
    if (both) made.change = { ...made.a, values: made.b.values.map((value, cell) => value - made.a.values[cell]) };
    panels = [];
    for (const [name, title, maps] of [["a", "A", a], ["b", "B", b], ["change", "B − A", null]]) {
      const figure = find(`figure[data-map="${name}"]`);
      figure.hidden = !made[name] || !["all", name].includes(state.view);
      if (maps) find("figcaption", figure).textContent = described(name, maps);
      if (!figure.hidden) panels.push({ canvas: find("canvas", figure), map: made[name], kind: maps ? "weight" : "change", top: topOf(maps ? "weight" : "change", a, b), name: title });
    }
    panels.forEach(drawPanel);
    point(...(state.at ?? []));
    drawGrid(a, b, both);
    const most = Math.max(1e-6, ...(a?.rollout ?? []), ...(b?.rollout ?? []));
    drawRollout("a", a, most);
    drawRollout("b", b, most);
  };
  root.addEventListener("change", ({ target: { name, value, checked, type, parentElement } }) => {
    const side = parentElement.closest("fieldset")?.dataset.side;
    if (side) offer(side, { ...state[side], [name]: value }, name);
    else state[name] = type === "checkbox" ? checked : ["layer", "head"].includes(name) ? Number(value) : value;
    if (["review", "words"].includes(name)) state.at = null;
    draw();
  });
  const choose = (layer, head) => draw(Object.assign(state, { layer: within(layer, board.layers - 1), head: within(head, board.heads) }));
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  root.addEventListener("click", ({ target, offsetX, offsetY }) => {
    if (target.closest(".overview canvas")) choose(Math.floor((offsetY - board.label) / board.thumb), Math.floor((offsetX - board.label) / board.thumb) + 1);
  });
  root.addEventListener("keydown", (event) => {
    const step = event.target.tagName === "CANVAS" && STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const [[first, second], go] = event.target.closest(".overview") ? [[state.layer, state.head], choose] : [state.at ?? [0, -1], point];
    go(first + step[0], second + step[1]);
  });
  find(".maps").addEventListener("pointermove", ({ target, offsetX, offsetY }) => {
    const panel = panels.find(({ canvas }) => canvas === target);
    if (!panel || offsetX < panel.margin || offsetY > panel.size) return;
    point(...[offsetY, offsetX - panel.margin].map((place) => Math.floor((place * panel.map.n) / panel.size)));
  });
  document.addEventListener("batchscope:filter", () => { for (const side of SIDES) offer(side); draw(); });
  dark.addEventListener("change", () => { choosePaint(); draw(); });
  let width = 0;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    draw();
  }).observe(root);
  choosePaint();
  find('fieldset[data-side="b"]').hidden = alone;
  for (const side of SIDES) offer(side);
  options(find('select[name="review"]'), data.reviews.map(({ name, title }) => [name, title]), state.review);
})();
