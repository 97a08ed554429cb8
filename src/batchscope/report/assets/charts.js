/* The page's charts: Vega-Lite specifications and rows that Python made, filtered and redrawn here. */
"use strict";
(() => {
  const { passes, island, create } = window.batchscope || {};
  const charts = island && window.vegaEmbed && island("charts");
  if (!charts) return;
  const theme = island("theme");
  const objects = ({ columns, values }) =>
    values.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])));
  const runs = objects(island("runs"));
  const cellsOf = new Map();
  for (const [place, cell] of runs.entries()) cellsOf.set(cell.first, [...(cellsOf.get(cell.first) || []), place]);
  const TIPS = 24;
  const WINDOWS = { none: 1, "3%": 4, "8%": 10, "15%": 18 };

  // --------------------------------------------------------------------------------------------------------- rows

  const KEYS = ["model", "policy", "batch", "budget", "seed"];
  const scopeOf = (row) => row.scope || Object.fromEntries(KEYS.map((key) => [key, row[key] == null ? null : [row[key]]]));
  const groupsOf = (rows, key) => [...Map.groupBy(rows, key).values()];
  /** Running means over the latest rows of each run: sums divided once. */
  const smoothed = (rows, field, count) => {
    for (const own of groupsOf(rows, (row) => row.run)) {
      const sum = (name, latest) => latest.reduce((total, row) => total + row[name], 0);
      own.forEach((row, place) => {
        const latest = own.slice(Math.max(0, place + 1 - count), place + 1);
        row.y = sum(field, latest) / sum("n", latest);
      });
    }
  };
  /** Means over the selected seeds, where all of them have a value. */
  const meansOf = (rows, keys) => {
    const runsOf = new Map();
    const cell = (row) => keys.filter((key) => key !== "k").map((key) => row[key]).join("\u0000");
    for (const own of groupsOf(rows, cell)) runsOf.set(cell(own[0]), new Set(own.map((row) => row.run)).size);
    const tips = Math.ceil((1 + rows.reduce((most, row) => Math.max(most, row.k || 0), 0)) / TIPS);
    const share = (own, name) => (name in own[0] ? own.reduce((sum, row) => sum + row[name], 0) / own.length : undefined);
    return groupsOf(rows, (row) => keys.map((key) => row[key]).join("\u0000"))
      .filter((own) => own.length === runsOf.get(cell(own[0])))
      .map((own) => ({
        ...runs[own[0].run], name: "", seed: null, flag: "", kind: "mean", seeds: own.length, slot: own[0].middle,
        k: own[0].k, tip: own[0].k % tips === 0, x: share(own, "x"), y: share(own, "y"),
      }));
  };
  /** The rows of a chart that the filters leave, with x and y of the chosen quantities. */
  const rowsOf = (chart, state) => {
    const rows = [];
    for (const bare of chart.objects) {
      const row = { ...bare };
      if (!passes(scopeOf(row))) continue;
      if (state.x) row.x = row[state.x.field];
      if (state.y) row.y = row[state.y.field] / ("n" in row ? row.n : 1);
      if (state.y?.bound) row.bound = row[state.y.bound];
      rows.push(row);
    }
    if (chart.smooth) smoothed(rows, state.y.field, WINDOWS[state.window]);
    const positive = (row) => (!state.logs.x || row.x > 0) && (!state.logs.y || row.y > 0);
    const known = rows.filter((row) => row.y !== null && !Number.isNaN(row.y) && row.x !== null && positive(row));
    if (chart.limit) known.length = Math.min(known.length, chart.limit);
    return { rows: chart.mean.length ? [...known, ...meansOf(known, chart.mean)] : known, left: rows.length };
  };

  // --------------------------------------------------------------------------------------------------------- specs

  const patched = (node, state) => {
    if (!node || typeof node !== "object") return;
    for (const axis of ["x", "y"]) {
      const choice = state[axis];
      if (node.axis && node.axis.title === axis && choice) {
        node.axis = { ...node.axis, title: choice.title, format: choice.format };
        if (state.logs[axis]) Object.assign(node, { scale: { ...node.scale, type: "log", nice: false }, axis: { ...node.axis, grid: false } });
      } else if (node.title === axis && choice) {
        Object.assign(node, { title: choice.title, format: choice.format === "~s" ? ",.4~g" : choice.format });
      }
    }
    for (const inner of Object.values(node)) patched(inner, state);
  };
  const sized = (spec, width, rows) => {
    if (spec.facet) {
      const panels = new Set(rows.map((row) => row[spec.facet.field])).size;
      const most = Math.max(1, Math.min(panels, 4, Math.floor(width / 270)));
      const even = [most, most - 1].find((columns) => columns > 1 && panels % columns === 0);
      const columns = even || Math.ceil(panels / Math.ceil(panels / most));
      spec.columns = columns;
      spec.spec.width = Math.floor((width - (width > 520 ? 58 : 70) - 24 * (columns - 1)) / columns);
      return;
    }
    Object.assign(spec, { width, height: (width > 520 ? 23 : 30) * rows.length + 4, autosize: { type: "fit-x", contains: "padding" }, padding: { left: 0, top: 2, bottom: 2, right: width > 520 ? 6 : 18 } });
    const labels = { labelLimit: Math.min(290, width * 0.46) };
    if (width <= 520) Object.assign(labels, { labelFontSize: 10.5, labelExpr: "split(replace(datum.label, regexp(' · (?=.{0,24}$)'), '\\n'), '\\n')" });
    for (const layer of spec.layer) if (layer.encoding.y?.axis) Object.assign(layer.encoding.y.axis, labels);
    if (width > 520) return;
    spec.layer = spec.layer.filter((layer) => layer.mark.type !== "text");
  };
  const embed = (node, chart, state, rows, width, light) => {
    const spec = structuredClone(chart.spec);
    patched(spec, state);
    sized(spec, width, rows);
    spec.description = chart.title;
    let whole = { ...spec, config: theme };
    if (light) {
      const paper = getComputedStyle(document.querySelector(".on-paper"));
      const colour = (_, name) => paper.getPropertyValue(name).trim();
      whole = JSON.parse(JSON.stringify(whole).replace(/var\((--[\w-]+)\)/g, colour));
      Object.assign(whole, { background: "white", padding: 12 });
      whole.title = { text: chart.title, subtitle: chart.caption, anchor: "start", offset: 14 };
    }
    const patch = (vega) => {
      vega.data.find((data) => data.name === "rows").values = rows;
      return vega;
    };
    const formatTooltip = (value, safe) => {
      const lines = Object.entries(value).filter(([, text]) => !["", "null", "undefined", "NaN"].includes(String(text)));
      return `<table>${lines.map(([key, text]) => `<tr><td class="key">${safe(key)}</td><td>${safe(text)}</td></tr>`).join("")}</table>`;
    };
    return window.vegaEmbed(node, whole, { actions: false, renderer: "svg", ast: true, logLevel: 1, patch, tooltip: { formatTooltip } });
  };

  // ------------------------------------------------------------------------------------------------------ downloads

  const save = (name, href) => create("a", { download: name, href }).click();
  const saveText = (name, type, text) => {
    const href = URL.createObjectURL(new Blob([text], { type }));
    save(name, href);
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  };
  const HIDDEN = ["scope", "order", "run", "first", "slot", "middle", "tip", "panel", "panel_order", "cell_panel", "cell_panel_order", "label"];
  const csvOf = (rows) => {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !HIDDEN.includes(name) || (name === "label" && !rows[0].name));
    const cell = (value) => (value == null ? "" : /[",\n\r]/.test(value) ? `"${String(value).replace(/"/g, '""')}"` : String(value));
    return `${[names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n")}\n`;
  };

  // -------------------------------------------------------------------------------------------------------- figures

  const select = (name, options, chosen, onChange) => {
    const node = create("select", { ariaLabel: name }, ...options.map((text, place) => create("option", { textContent: text, value: place })));
    node.value = options.indexOf(chosen);
    node.addEventListener("change", () => onChange(Number(node.value)));
    return create("label", {}, name, node);
  };
  const figures = [];
  const build = (node, chart) => {
    chart.objects = objects(chart.rows).flatMap((row) => {
      if (!("run" in row)) return row;
      // Cells that share a run have equal curves.
      const cells = chart.curves ? cellsOf.get(row.run) : [row.run];
      return cells.map((run) => ({ ...runs[run], ...row, run, ...(chart.together && { seed: null, flag: "" }) }));
    });
    chart.title = node.querySelector(".message").textContent;
    chart.caption = node.querySelector("figcaption")?.textContent || "";
    const state = { x: chart.x[0], y: chart.y[0], logs: {}, window: "3%" };
    const [area, tools] = ["chart-area", "tools"].map((className) => create("div", { className }));
    const note = create("p", { className: "note" });
    const figure = { node, dirty: true, seen: false };
    const change = (changes) => {
      Object.assign(state, changes);
      figure.dirty = true;
      figure.draw();
    };
    for (const [axis, name] of [["y", "show"], ["x", "against"]]) {
      const titles = chart[axis].map((choice) => choice.title);
      if (titles.length > 1) tools.append(select(name, titles, titles[0], (place) => change({ [axis]: chart[axis][place] })));
    }
    for (const axis of chart.logs) {
      const box = create("input", { type: "checkbox" });
      box.addEventListener("change", () => change({ logs: { ...state.logs, [axis]: box.checked } }));
      tools.append(create("label", {}, box, `log ${axis}`));
    }
    const names = Object.keys(WINDOWS);
    if (chart.smooth) tools.append(select("smoothing", names, state.window, (place) => change({ window: names[place] })));
    const downloads = {
      SVG: async () => saveText(`${chart.name}.svg`, "image/svg+xml", await (await paper()).toSVG()),
      PNG: async () => save(`${chart.name}.png`, await (await paper()).toImageURL("png", 2)),
      CSV: () => saveText(`${chart.name}.csv`, "text/csv", csvOf(rowsOf(chart, state).rows)),
    };
    const paper = async () => {
      const { rows } = rowsOf(chart, state);
      return (await embed(create("div"), chart, state, rows, Math.max(680, area.clientWidth), true)).view;
    };
    const end = create("span", { className: "end" });
    for (const [form, download] of Object.entries(downloads)) {
      const button = create("button", { type: "button", textContent: form });
      button.setAttribute("aria-label", `download ${chart.name} as ${form}`);
      button.addEventListener("click", download);
      end.append(button);
    }
    tools.append(end);
    figure.draw = async () => {
      const width = node.clientWidth;
      if (!figure.seen || !width || !(figure.dirty || figure.width !== width)) return;
      Object.assign(figure, { dirty: false, width });
      const { rows, left } = rowsOf(chart, state);
      const target = create("div", { role: "img", ariaLabel: `${chart.title}. The data: button CSV.` });
      figure.result?.finalize();
      figure.result = rows.length ? await embed(target, chart, state, rows, width, false) : null;
      // A screen reader gets the chart's title, caption and data, not its hundreds of marks.
      target.querySelector("svg")?.setAttribute("aria-hidden", "true");
      area.replaceChildren(rows.length ? target : create("p", { className: "empty", textContent: "No run is selected." }));
      const cut = chart.limit && left > chart.limit ? `The first ${chart.limit} of ${left}; the filters choose others.` : "";
      note.textContent = [chart.note, cut].filter(Boolean).join(" ");
      if (figure.ready) return;
      figure.ready = true;
      node.querySelector(".message").after(tools, area, note);
      for (const picture of node.querySelectorAll(":scope > .sheet")) picture.hidden = true;
      node.dataset.drawn = "yes";
    };
    return figure;
  };
  const drawAll = () => figures.map((figure) => figure.draw());
  const look = (entries) => {
    for (const entry of entries) {
      const figure = figures.find((one) => one.node === entry.target);
      figure.seen = entry.isIntersecting;
      if (figure.seen) figure.draw();
    }
  };
  const watch = new IntersectionObserver(look, { rootMargin: "400px" });
  for (const node of document.querySelectorAll("[data-chart]")) {
    const chart = charts.find((one) => one.name === node.dataset.chart);
    if (!chart) continue;
    const figure = build(node, chart);
    figures.push(figure);
    watch.observe(node);
  }
  document.addEventListener("batchscope:filter", () => {
    for (const figure of figures) figure.dirty = true;
    drawAll();
  });
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
})();
