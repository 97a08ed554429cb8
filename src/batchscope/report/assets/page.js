/* The page's filter bar and tables. Text enters the document through textContent alone. */
"use strict";
(() => {
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const create = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const island = (name) => {
    const node = document.getElementById(`data-${name}`);
    return node && JSON.parse(node.textContent);
  };

  // --------------------------------------------------------------------------------------------------- filter bar

  const KEYS = ["model", "policy", "batch", "seed", "budget"];
  const form = document.getElementById("filters");
  const filter = {};
  const every = {};
  for (const key of KEYS) {
    every[key] = form ? $(`input[name="${key}"]`, form).map((box) => box.value) : [];
    filter[key] = new Set(every[key]);
  }
  /** Whether a scope, such as {batch: ["16", "64"]}, names no value that a picker has and that is not selected. */
  const refused = (key, value) => every[key].includes(String(value)) && !filter[key].has(String(value));
  const passes = (scope) => !KEYS.some((key) => scope[key]?.some((value) => refused(key, value)));
  window.batchscope = { filter, passes, island, create, batches: island("batches") };

  const readForm = () => {
    for (const key of KEYS) {
      if (!every[key].length) continue;
      const on = $(`input[name="${key}"]:checked`, form).map((box) => box.value);
      filter[key] = new Set(on);
      const picked = $(`[data-picked="${key}"]`, form)[0];
      const all = on.length === every[key].length;
      picked.textContent = all ? "all" : `${on.length} of ${every[key].length}`;
      picked.closest(".pick").classList.toggle("narrowed", !all);
    }
    document.dispatchEvent(new CustomEvent("batchscope:filter", { detail: filter }));
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("change", readForm);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(readForm));
    const picks = $(".pick", form);
    document.addEventListener("click", (event) => {
      for (const pick of picks) if (!pick.contains(event.target)) pick.open = false;
    });
    form.addEventListener("keydown", (event) => {
      const pick = event.target.closest(".pick");
      if (event.key !== "Escape" || !pick) return;
      pick.open = false;
      pick.firstElementChild.focus();
    });
    form.addEventListener("focusout", (event) => {
      const pick = event.target.closest(".pick");
      if (pick && event.relatedTarget && !pick.contains(event.relatedTarget)) pick.open = false;
    });
  }
  document.addEventListener("batchscope:filter", () => {
    for (const node of $("[data-scope]")) node.hidden = !passes(JSON.parse(node.dataset.scope));
  });

  // ------------------------------------------------------------------------------------------------------- tables

  const UNITS = { s: 1, min: 60, h: 3600, MiB: 1, GiB: 1024, Wh: 1, kWh: 1000 };
  /** The first number of a cell, in the unit's smallest part; NaN where there is none. */
  const quantity = (text) => {
    const found = text.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1").match(/([<>]?)\s*(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*(\p{L}*)/u);
    if (!found) return text.includes("∞") ? Infinity : NaN;
    return Number(found[2]) * (UNITS[found[3]] || 1) - (found[1] === "<" ? 1e-9 : 0);
  };
  const sortBy = (table, place, heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of $("th", table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numbers = heading.classList.contains("number");
    const keyed = $("tbody tr", table).map((row) => {
      const text = row.cells[place].textContent.trim();
      return { row, key: numbers ? quantity(text) : text };
    });
    // Rows without a number stay at the end, whichever way it is sorted.
    const order = (a, b) => {
      if (!numbers) return (down ? -1 : 1) * a.key.localeCompare(b.key, "en", { numeric: true });
      if (Number.isNaN(a.key) || Number.isNaN(b.key)) return Number.isNaN(a.key) - Number.isNaN(b.key);
      return (down ? -1 : 1) * (a.key - b.key);
    };
    table.classList.add("sorted");
    table.tBodies[0].append(...keyed.sort(order).map((one) => one.row));
  };
  const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u2212": "$-$", "→": "$\\to$", "±": "$\\pm$", "√": "$\\surd$" };
  const latexOf = (headings, rows, numeric) => {
    const safe = (text) => text.replace(/[\\~^\u2212→±√]|[&%$#_{}]/g, (sign) => TEX[sign] || `\\${sign}`);
    const line = (cells) => `${cells.map(safe).join(" & ")} \\\\`;
    const columns = numeric.map((number) => (number ? "r" : "l")).join("");
    return [`\\begin{tabular}{${columns}}`, "\\toprule", line(headings), "\\midrule", ...rows.map(line), "\\bottomrule", "\\end{tabular}", ""].join("\n");
  };
  const textOf = (table, form) => {
    const cells = $("thead th", table);
    const headings = cells.map((cell) => cell.textContent.trim());
    const shown = $("tbody tr", table).filter((row) => !row.hidden);
    const rows = shown.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
    if (form === "LaTeX") return latexOf(headings, rows, cells.map((cell) => cell.classList.contains("number")));
    return `${[headings, ...rows].map((row) => row.map((cell) => cell.replace(/\s+/g, " ")).join("\t")).join("\n")}\n`;
  };
  const copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = create("textarea", { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const name = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = name; }, 1200);
  };
  for (const table of $(".scroll > table")) {
    $("thead th", table).forEach((heading, place) => {
      const button = create("button", { type: "button", textContent: heading.textContent });
      heading.replaceChildren(button);
      button.addEventListener("click", () => sortBy(table, place, heading));
    });
    const tools = create("div", { className: "tools" }, "copy as");
    for (const form of ["TSV", "LaTeX"]) {
      const button = create("button", { type: "button", textContent: form });
      button.setAttribute("aria-label", `copy ${table.parentElement.getAttribute("aria-label")} as ${form}`);
      button.addEventListener("click", () => copy(textOf(table, form), button));
      tools.append(button);
    }
    table.parentElement.after(tools);
  }

  // A link into a closed section opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (target) target.scrollIntoView();
  };
  window.addEventListener("hashchange", open);
  open();
})();
