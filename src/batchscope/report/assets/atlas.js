/* The test reviews as points: hover or arrow keys show a review. Text enters the document through textContent alone. */
"use strict";
(() => {
  const node = document.getElementById("data-atlas");
  if (!node) return;
  const data = JSON.parse(node.textContent);
  const VERDICTS = ["always", "sometimes", "never"];
  const REACH = 9;
  const create = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const selected = (model, run) => {
    const passes = window.batchscope?.passes;
    return !passes || passes({ model: [model], policy: [run.policy], batch: [run.batch], seed: [run.seed], budget: [run.budget] });
  };

  const box = (label, checked, act) => {
    const input = create("input", { type: "checkbox", checked, autocomplete: "off" });
    input.addEventListener("change", () => act(input.checked));
    return create("label", {}, input, label);
  };

  const atlas = (place, found) => {
    const state = { map: "tsne", verdicts: new Set(VERDICTS), at: -1, shown: [] };
    const canvas = create("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${found.model}: test reviews as points; arrow keys go from one wrong prediction to the next`);
    const told = create("div", { className: "atlas-told" });
    told.setAttribute("aria-live", "polite");
    const count = create("output", { className: "count" });
    const maps = create("select", {}, create("option", { value: "tsne" }, "t-SNE"), create("option", { value: "pca" }, "PCA"));
    maps.setAttribute("aria-label", "Embedding");
    maps.addEventListener("change", () => {
      state.map = maps.value;
      state.at = -1;
      draw();
    });
    const boxes = VERDICTS.map((verdict) =>
      box(` ${verdict} wrong`, true, (on) => {
        state.verdicts[on ? "add" : "delete"](verdict);
        state.at = -1;
        draw();
      }),
    );
    place.append(create("form", { className: "atlas-controls" }, maps, ...boxes, count), canvas, told);

    const points = () => {
      const list = [];
      found.runs.forEach((run, number) => {
        if (!selected(found.model, run)) return;
        const [xs, ys] = run[state.map];
        found.reviews.forEach((review, row) => {
          if (!state.verdicts.has(VERDICTS[review.verdict])) return;
          list.push({ number, run, review, row, x: xs[row], y: ys[row], margin: run.margin[row], wrong: run.margin[row] < 0 || run.wrong.includes(row) });
        });
      });
      return list;
    };

    const draw = () => {
      const width = Math.max(280, Math.min(place.clientWidth, 900));
      const height = Math.round(width * 0.66);
      const scale = window.devicePixelRatio || 1;
      canvas.width = width * scale;
      canvas.height = height * scale;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      const pen = canvas.getContext("2d");
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.clearRect(0, 0, width, height);
      const every = found.runs.flatMap((run) => run[state.map][0]);
      const upright = found.runs.flatMap((run) => run[state.map][1]);
      const span = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
      const [left, right] = span(every);
      const [low, high] = span(upright);
      const onto = (value, from, to, size) => 12 + ((value - from) / (to - from || 1)) * (size - 24);
      state.shown = points();
      for (const point of state.shown) {
        point.px = onto(point.x, left, right, width);
        point.py = height - onto(point.y, low, high, height);
      }
      for (const wrong of [false, true]) {
        for (const point of state.shown) {
          if (point.wrong !== wrong) continue;
          const own = colour(`--batch-${point.run.colour}`) || colour("--ink");
          pen.globalAlpha = wrong ? 1 : 0.3;
          pen.fillStyle = pen.strokeStyle = own;
          pen.beginPath();
          pen.arc(point.px, point.py, wrong ? 3.4 : 2.4, 0, 2 * Math.PI);
          pen.fill();
          if (!wrong || Math.abs(point.margin) >= data.boundary) continue;
          pen.beginPath();
          pen.arc(point.px, point.py, 6, 0, 2 * Math.PI);
          pen.stroke();
        }
      }
      pen.globalAlpha = 1;
      const at = state.shown[state.at];
      if (at) {
        pen.strokeStyle = colour("--ink");
        pen.lineWidth = 2;
        pen.strokeRect(at.px - 7, at.py - 7, 14, 14);
      }
      count.textContent = `${state.shown.length} points, ${state.shown.filter((point) => point.wrong).length} wrong`;
      tell(at);
    };

    const tell = (point) => {
      if (!point) return told.replaceChildren("Point at a mark to read its text.");
      const { review, run } = point;
      const line = `batch size ${run.batch}, seed ${run.seed}: labelled ${data.classes[review.label]}, predicted ${data.classes[run.prediction[point.row]]}, margin ${point.margin.toFixed(2)}; ${VERDICTS[review.verdict]} wrong over all runs`;
      told.replaceChildren(create("strong", { textContent: line }), create("p", { textContent: review.text }));
    };

    canvas.addEventListener("pointermove", (event) => {
      const near = state.shown.map((point) => Math.hypot(point.px - event.offsetX, point.py - event.offsetY));
      const best = near.indexOf(Math.min(...near, REACH));
      if (best === state.at) return;
      state.at = best;
      draw();
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const wrong = state.shown.map((point, number) => (point.wrong ? number : -1)).filter((number) => number >= 0);
      if (!step || !wrong.length) return;
      event.preventDefault();
      const now = wrong.indexOf(state.at);
      state.at = wrong[(now + (now < 0 && step < 0 ? 0 : step) + wrong.length) % wrong.length];
      draw();
    });
    document.addEventListener("batchscope:filter", draw);
    new ResizeObserver(draw).observe(place);
    draw();
  };

  for (const place of document.querySelectorAll("[data-atlas]")) {
    const found = data.models.find((one) => one.model === place.dataset.atlas);
    if (found) atlas(place, found);
  }
})();
