/* One state (filters, search, selection, sort, card, theme), kept in the address, drawn by the figures and the
 table. Text of the store reaches the page through textContent, or as HTML that the server escaped. */
const payload = JSON.parse(document.getElementById("payload").textContent);
const columns = new Map();
for (const c of payload.columns) {
  columns.set(c.name, { ...c, values: c.values || c.codes.map((code) => c.words[code]) });
}
let rowCount = payload.n;
const settled = payload.settings ? rowCount : 0; // the rows whose settings came in pieces
const cell = (name, row) => (name === "config_json" && row < settled ? columns.get(name).values[row] ?? settingsOf(row) : columns.get(name).values[row]);
/** The settings document of a trial, put together again from its dotted paths and the JSON under each. */
function settingsOf(row) {
  const root = new Map();
  for (const { path, words, codes } of payload.settings) {
    const text = words[codes[row]];
    if (text === null) continue;
    const names = path.split(".");
    const last = names.pop();
    let at = root;
    for (const name of names) {
      if (!at.has(name)) at.set(name, new Map());
      at = at.get(name);
    }
    at.set(last, text);
  }
  const written = (at) => (at instanceof Map ? "{" + [...at].map(([k, v]) => JSON.stringify(k) + ":" + written(v)).join(",") + "}" : at);
  return written(root);
}
const rowOf = new Map(columns.get("trial_id").values.map((id, row) => [id, row]));
const $ = (id) => document.getElementById(id);
const node = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

// ── state ────────────────────────────────────────────────────────────────────────────────────────
const state = { filters: new Map(), search: "", selection: null, origin: null, sort: null, theme: null, page: 100, card: null, explore: {}, budget: null };

function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  state.filters = new Map();
  for (const key of payload.filters) {
    const values = hash.getAll("f." + key);
    if (values.length) state.filters.set(key, new Set(values));
  }
  state.search = hash.get("q") || "";
  const ids = (hash.get("sel") || "").split(",").filter((id) => rowOf.has(id));
  state.selection = ids.length ? new Set(ids.map((id) => rowOf.get(id))) : null;
  state.origin = null;
  forgetBoxes();
  const [column, direction] = (hash.get("sort") || "").split(":");
  state.sort = columns.has(column) ? { column, descending: direction === "desc" } : null;
  const card = (hash.get("card") || "").split(",").filter((id) => rowOf.has(id));
  state.card = card.length ? card.map((id) => rowOf.get(id)) : null;
  state.explore = Object.fromEntries(["x", "y", "color", "facet"].map((part) => [part, hash.get("e." + part)]).filter(([, name]) => columns.has(name)));
  state.budget = Number(hash.get("memory")) || null;
  state.theme = ["light", "dark"].includes(hash.get("theme")) ? hash.get("theme") : null;
}

function writeHash() {
  const hash = new URLSearchParams();
  for (const [key, values] of state.filters) for (const value of [...values].sort()) hash.append("f." + key, value);
  if (state.search) hash.set("q", state.search);
  if (state.selection) hash.set("sel", [...state.selection].map((row) => cell("trial_id", row)).join(","));
  if (state.sort) hash.set("sort", state.sort.column + (state.sort.descending ? ":desc" : ":asc"));
  if (state.card) hash.set("card", state.card.map((row) => cell("trial_id", row)).join(","));
  for (const [part, name] of Object.entries(state.explore)) if (name) hash.set("e." + part, name);
  if (state.budget) hash.set("memory", state.budget);
  if (state.theme) hash.set("theme", state.theme);
  const text = hash.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

// ── which rows are in ────────────────────────────────────────────────────────────────────────────
let matching = [];
const haystacks = [];
const searched = ["trial_id", "study", "model", "family", "strategy", "precision", "outcome", "error_class", "error_message", "data"];
const haystack = (row) =>
  (haystacks[row] ??= searched.map((name) => cell(name, row) ?? "").join("\n").toLowerCase());

function findMatching() {
  const tests = [...state.filters].map(([key, wanted]) => {
    const values = columns.get(key).values;
    return (row) => wanted.has(String(values[row]));
  });
  const needle = state.search.trim().toLowerCase();
  if (needle) tests.push((row) => haystack(row).includes(needle));
  matching = Array.from({ length: rowCount }, (_, row) => tests.every((test) => test(row)));
}
const inTable = (row) => matching[row] && (!state.selection || state.selection.has(row));
const inFigure = (row, figure) =>
  matching[row] && (!state.selection || state.origin === figure || state.selection.has(row));

// ── figures ──────────────────────────────────────────────────────────────────────────────────────
const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
function describe(rows) {
  const first = rows[0];
  const number = (name) => (typeof cell(name, first) === "number" ? name + " " + cell(name, first) : null);
  const parts = [
    cell("model", first), number("depth"), number("width"),
    cell("strategy", first), cell("precision", first),
    rows.length === 1 ? "seed " + cell("seed", first) : rows.length + " trials",
  ];
  if (cell("outcome", first) !== "ok") parts.push("ended " + cell("outcome", first));
  const ids = rows.slice(0, 3).map((row) => cell("trial_id", row)).join(", ") + (rows.length > 3 ? ", …" : "");
  return escape(parts.filter(Boolean).join(" · ")) + "<br>trial " + escape(ids);
}

/** The two trials of a pair: the treated one, its control, and what bears on comparing them. */
function describePair([treated, control]) {
  const [own, other] = [treated, control].map((row) => cell("memory_activation_bytes", row));
  const crowded = [treated, control].some((row) => cell("concurrent_trials", row) > 1);
  return describe([treated]) + "<br>against " + escape(cell("trial_id", control))
    + (own > 0 && other > 0 ? `<br>${(own / other).toPrecision(3)}× its activation memory` : "")
    + (crowded ? "<br>timed while other trials ran" : "");
}

/** A heat map whose cells are medians over the trials left in them. */
function filteredCells(trace, figure) {
  const { column, scale, log } = trace.meta;
  const rows = trace.customdata.map((line) => line.map((cellRows) => cellRows.filter((row) => inFigure(row, figure))));
  const medians = rows.map((line) => line.map((left) => {
    const values = left.map((row) => cell(column, row)).filter((v) => typeof v === "number").sort((a, b) => a - b);
    if (!values.length) return null;
    const middle = values.length >> 1;
    return scale * (values.length % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2);
  }));
  const shown = (v) => (v === null ? "" : !log ? v.toFixed(1) : v === 0 ? "0" : v.toExponential(0).replace("e+", "e"));
  const lowest = Math.min(...trace.z.flat().filter((v) => v !== null));
  return {
    ...structuredClone(trace), customdata: rows,
    // a scale of fewer than two values tells nothing, and plotly cannot place one
    ...(new Set(medians.flat().filter((v) => v !== null)).size > 1 ? {} : { showscale: false }),
    z: medians.map((line) => line.map((v) => (v === null ? null : log ? (v > 0 ? Math.log10(v) : lowest) : v))),
    text: medians.map((line) => line.map(shown)),
    hovertext: rows.map((line) => line.map((left) => `${left.length} ${left.length === 1 ? "trial" : "trials"}`)),
  };
}

/** The part of a trace that the filters leave. */
function filtered(trace, figure) {
  const { role, column, scale } = trace.meta;
  if (role === "legend" || role === "fixed") return structuredClone(trace);
  if (role === "cell") return filteredCells(trace, figure);
  const n = trace.customdata.length;
  const kept = [], heights = new Map(), partial = new Set();
  let gap = true;
  for (let p = 0; p < n; p++) {
    const rows = trace.customdata[p];
    if (!rows.length) {
      if (!gap) kept.push(p);
      gap = true;
      continue;
    }
    const left = rows.filter((row) => inFigure(row, figure));
    const shown = role === "pair" ? inFigure(rows[0], figure) : role === "fit" || role === "band" ? left.length === rows.length : left.length > 0;
    if (!shown) continue;
    gap = false;
    kept.push(p);
    if (role === "mean" && left.length < rows.length) {
      const values = left.map((row) => cell(column, row)).filter((v) => typeof v === "number");
      heights.set(p, (scale * values.reduce((a, b) => a + b, 0)) / values.length);
      partial.add(p);
    }
  }
  const take = (value) => {
    if (Array.isArray(value)) return value.length === n ? kept.map((p) => value[p]) : value;
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, take(v)]));
    }
    return value;
  };
  const { meta, ...rest } = trace;
  const result = { ...take(rest), meta };
  if (result.y && heights.size) result.y = kept.map((p, i) => heights.get(p) ?? result.y[i]);
  if (partial.size && result.error_y) {
    for (const end of ["array", "arrayminus"]) {
      result.error_y[end] = kept.map((p, i) => (partial.has(p) ? null : result.error_y[end][i]));
    }
  }
  const given = result.text;
  result.text = kept.map((p, i) => {
    const rows = trace.customdata[p].filter((row) => role === "pair" || inFigure(row, figure));
    if (given && given[i]) return given[i];
    return role === "pair" && rows.length === 2 ? describePair(rows) : rows.length ? describe(rows) : "";
  });
  if (trace.type === "histogram") delete result.text;
  result.customdata = kept.map((p) => trace.customdata[p].filter((row) => role === "pair" || inFigure(row, figure)));
  return result;
}

/** Finds the Pareto front among the points shown, draws it, and mutes the points off it. */
function drawFront(traces) {
  const front = traces.find((trace) => trace.meta.role === "front");
  if (!front) return;
  const sign = front.meta.better === "down" ? -1 : 1;
  const groups = new Map();
  for (const trace of traces.filter((t) => t.meta.front)) {
    trace.marker.opacity = trace.x.map(() => 0.5);
    trace.x.forEach((x, i) => {
      const row = trace.customdata[i][0];
      const key = JSON.stringify([cell("data", row), cell("memory_source", row)]);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push({ x, y: trace.y[i], trace, i });
    });
  }
  front.x = []; front.y = []; front.customdata = []; front.text = [];
  for (const points of groups.values()) {
    points.sort((a, b) => a.x - b.x || sign * (b.y - a.y));
    let best = -Infinity, last = null;
    for (const point of points) {
      const equal = last && point.x === last.x && point.y === last.y;
      if (sign * point.y <= best && !equal) continue;
      best = sign * point.y; last = point;
      point.trace.marker.opacity[point.i] = 1;
      front.x.push(point.x); front.y.push(point.y);
    }
    front.x.push(null); front.y.push(null);
  }
}

// the palette is made for white paper: on a dark page the same hues are drawn lighter
const LIGHTER = { "#0072B2": "#4AA8E8", "#D55E00": "#F08A3C", "#009E73": "#2BC39A", "#CC79A7": "#E39CC6", "#8A8F98": "#A6ADB8" };
const isDark = () => (state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
function recolored(value) {
  if (typeof value === "string") return LIGHTER[value] || value;
  if (!value || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolored(v)]));
}
function colored(trace) {
  if (printing || !isDark()) return trace;
  const parts = ["marker", "line", "error_y"].filter((part) => trace[part]);
  return { ...trace, ...Object.fromEntries(parts.map((part) => [part, recolored(trace[part])])) };
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function themed(layout, name) {
  const copy = structuredClone(layout);
  copy.font = { ...copy.font, color: style("--ink") };
  copy.hoverlabel = { ...copy.hoverlabel, bgcolor: style("--panel"), bordercolor: style("--rule"), font: { ...copy.hoverlabel?.font, color: style("--ink") } };
  copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: style("--muted"), activecolor: style("--accent") };
  copy.newselection = { line: { color: style("--accent"), width: 1.5, dash: "solid" } };
  copy.uirevision = "keep";
  if (printing && copy.height > PAPER_HEIGHT) copy.height = PAPER_HEIGHT;
  for (const mark of copy.annotations || []) mark.bgcolor = style("--panel");
  copy.margin = { ...copy.margin, t: 34 };
  copy.width = printing ? PAPER_WIDTH : undefined;
  if (!state.selection) copy.selections = [];
  copy.selectionrevision = boxes.get(name) || 0; // plotly keeps the box of a brush until this changes
  return copy;
}
const config = {
  displaylogo: false, responsive: true,
  // named one by one: plotly's own choice holds a button that uploads the figure
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "select2d", "lasso2d"], ["resetScale2d"]],
  plotlyServerURL: "",
  toImageButtonOptions: { format: "svg" },
};

/* The table answers before the library of the figures is compiled: that happens when the first figure is near. */
let figures = null;
function loadFigures() {
  if (figures) return;
  const library = node("script", $("plotly").textContent);
  $("plotly").remove();
  document.head.append(library);
  figures = JSON.parse($("figures").textContent);
  for (const [name, figure] of early) if (figure) figures[name] = figure; else delete figures[name];
  for (const figure of Object.values(figures)) plain(figure);
}
const early = new Map(); // figures that changed before the library was there
let webgl = null;
/** The figure as this browser can draw it: one without WebGL draws slowly, but it draws. */
function plain(figure) {
  webgl ??= Boolean(document.createElement("canvas").getContext("webgl"));
  if (!webgl) for (const t of figure.data) if (t.type === "scattergl") t.type = "scatter";
  return figure;
}

let holders = [...document.querySelectorAll("[data-figure]")];
const PAPER_WIDTH = 690; // pixels between the margins of A4
const PAPER_HEIGHT = 280; // so that two figures with their words stand on a page
let printing = false;
const boxes = new Map();
const forgetBoxes = (except) => {
  for (const { dataset } of holders) if (dataset.figure !== except) boxes.set(dataset.figure, (boxes.get(dataset.figure) || 0) + 1);
};
const drawn = new Set();
const drawing = new Set();
function drawFigure(holder) {
  loadFigures();
  const name = holder.dataset.figure;
  const source = figures[name];
  isFresh(holder);
  if (!source) return;
  const traces = source.data.map((trace) => filtered(trace, name));
  drawFront(traces);
  const empty = traces.every((t) => t.meta.role === "legend" || !(t.z?.flat() || t.x || t.y || []).some((v) => v !== null));
  holder.hidden = empty;
  holder.nextElementSibling.hidden = !empty;
  if (empty) return;
  drawing.add(name); // while it draws, plotly reports selections that no reader made
  Plotly.react(holder, traces.map(colored), themed(source.layout, name), config).then(() => { oneTabStop(holder); setTimeout(() => drawing.delete(name)); });
  if (!drawn.has(holder)) listen(holder, name);
  drawn.add(holder);
  const data = holder.parentElement.querySelector("details.data");
  if (data.open) listValues(data, holder);
}

/** The tools of a figure are one stop of the Tab key; arrows lead from one to the next. */
function oneTabStop(holder) {
  const toolsOf = () => [...holder.querySelectorAll(".modebar-btn")];
  const bar = holder.querySelector(".modebar");
  if (!bar || toolsOf().some((tool) => tool.tabIndex < 0)) return;
  toolsOf().forEach((tool, i) => { tool.tabIndex = i ? -1 : 0; });
  if (bar.dataset.arrows) return;
  bar.dataset.arrows = "true";
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Tools of the figure");
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tools = toolsOf(), at = tools.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = tools[(at + step + tools.length) % tools.length];
    tools.forEach((tool) => { tool.tabIndex = tool === next ? 0 : -1; });
    next.focus();
  });
}

const MOST_LISTED = 500;
/** What a figure shows as a table, for those who cannot see it. */
function listValues(details, holder) {
  const layout = holder.layout || {};
  const nameOf = (axis, otherwise) => (layout[axis]?.title?.text || otherwise).replace(/<[^>]*>/g, " ");
  const table = node("table", null, { class: "plain" });
  const head = node("tr");
  for (const text of ["series", nameOf("xaxis", "horizontal"), nameOf("yaxis", "vertical"), "interval", "trials"]) head.append(node("th", text, { scope: "col" }));
  const body = node("tbody");
  let count = 0;
  const add = (series, x, y, interval, rows) => {
    if (x === null || x === undefined || y === null || y === undefined || y === "") return;
    if (++count > MOST_LISTED) return;
    const line = node("tr");
    for (const text of [series, x, y, interval, rows]) line.append(node("td", typeof text === "number" ? digits(text) : text));
    body.append(line);
  };
  const trialsOf = (rows) => (!rows?.length ? "" : rows.length === 1 ? cell("trial_id", rows[0]) : `${rows.length} trials`);
  for (const trace of (holder.data || []).filter((t) => !["legend", "band"].includes(t.meta?.role))) {
    if (trace.z) {
      trace.z.forEach((line, i) => line.forEach((z, j) => add(trace.x?.[j] ?? "", trace.y?.[i] ?? i, trace.text?.[i]?.[j] ?? z, "", trialsOf(trace.customdata?.[i]?.[j]))));
      continue;
    }
    (trace.y || trace.x || []).forEach((_, i) => {
      const up = trace.error_y?.array?.[i], down = trace.error_y?.arrayminus?.[i], y = trace.y?.[i] ?? 1;
      add(trace.name || "", trace.x?.[i], y, up === null || up === undefined ? "" : `${digits(y - down)} to ${digits(y + up)}`, trialsOf(trace.customdata?.[i]));
    });
  }
  table.append(node("thead"), body);
  table.tHead.append(head);
  const scroll = node("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values of the figure" });
  scroll.append(table);
  details.querySelectorAll(":scope > :not(summary)").forEach((old) => old.remove());
  details.append(scroll);
  if (count > MOST_LISTED) details.append(node("p", `The first ${MOST_LISTED} of ${count.toLocaleString("en")} values; the CSV of the trials has all.`, { class: "muted small" }));
}

function rowsOf(event) {
  const rows = new Set();
  for (const point of event?.points || []) {
    const data = point.data.customdata;
    const numbers = point.pointNumbers || [point.pointNumber];
    for (const i of numbers) for (const row of (Array.isArray(i) ? data[i[0]][i[1]] : data[i]) || []) rows.add(row);
  }
  return rows;
}

function listen(holder, name) {
  holder.on("plotly_click", (event) => {
    const rows = [...rowsOf(event)];
    if (rows.length) showCard(rows);
  });
  holder.on("plotly_selected", (event) => {
    if (!event || drawing.has(name)) return;
    const rows = rowsOf(event);
    state.selection = rows.size ? rows : null;
    state.origin = rows.size ? name : null;
    forgetBoxes(state.origin);
    update({ except: rows.size ? name : null });
  });
  holder.on("plotly_deselect", () => { if (!drawing.has(name)) clearSelection(); });
  holder.on("plotly_legendclick", (event) => {
    const keys = event.data[event.curveNumber].meta?.keys || [];
    if (!keys.length) return true;
    const on = keys.every(([key, value]) => state.filters.get(key)?.size === 1 && state.filters.get(key).has(value));
    for (const [key, value] of keys) on ? state.filters.delete(key) : state.filters.set(key, new Set([value]));
    update();
    return false;
  });
  holder.on("plotly_legenddoubleclick", () => false);
}
function clearSelection() {
  if (!state.selection) return;
  state.selection = null; state.origin = null;
  forgetBoxes();
  update();
}

/* A figure is drawn when it comes near the window, the others one by one while the page is idle, so that a
   picture of the whole page has them all. What is far from the window is drawn anew in idle time, too. */
const stale = new Set();
const inSight = new Set();
const isStale = (holder) => { stale.add(holder); holder.dataset.stale = "true"; };
const isFresh = (holder) => { stale.delete(holder); delete holder.dataset.stale; };
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) { inSight.delete(entry.target); continue; }
      inSight.add(entry.target);
      if (!drawn.has(entry.target) || stale.has(entry.target)) drawFigure(entry.target);
    }
  },
  { rootMargin: "500px" },
);
const whenIdle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 2000 }) : setTimeout(work, 200));
let idling = false;
function drawRest() {
  if (idling) return;
  idling = true;
  whenIdle(() => {
    idling = false;
    const next = holders.find((holder) => (!drawn.has(holder) || stale.has(holder)) && !givenUp.has(holder));
    if (next) {
      drawFigure(next);
      if (!drawn.has(next)) givenUp.add(next);
    }
    if (holders.some((holder) => (!drawn.has(holder) || stale.has(holder)) && !givenUp.has(holder))) { drawRest(); return; }
    if (!$("explore-plot").data) drawExplore({ unseen: true });
    document.documentElement.dataset.drawn = "true";
  });
}
const givenUp = new Set(); // figures that the filters leave nothing of
const drawAll = (except) => {
  givenUp.clear();
  for (const holder of holders) {
    if (holder.dataset.figure === except) continue;
    if (!drawn.has(holder) && !inSight.has(holder) && !holder.hidden) continue;
    if (inSight.has(holder) || holder.hidden) drawFigure(holder);
    else isStale(holder);
  }
  if (stale.size) drawRest();
};

// ── numbers as people read them ──────────────────────────────────────────────────────────────────
const digits = (v, n = 4) => (v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? String(Number(v.toPrecision(n))) : v.toExponential(2).replace("e", "e"));
const units = { bytes: ["MB", 1e-6], fraction: ["%", 100], s: ["s", 1] };
const inUnit = { step_time_s: ["ms", 1000] };
const unitOf = (name) => (inUnit[name] || units[columns.get(name).unit] || [columns.get(name).unit, 1]);
function shown(name, row) {
  const value = cell(name, row);
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (columns.get(name).type === "int64" && !columns.get(name).unit) return String(value);
  const scaled = value * unitOf(name)[1];
  return columns.get(name).unit === "fraction" ? scaled.toFixed(2) : digits(scaled);
}
const titles = {
  trial_id: "trial", memory_peak_bytes: "peak memory",
  memory_activation_bytes: "activations", step_time_s: "step time", reconstruction_rel_error: "reconstruction error",
  gradient_rel_error: "gradient error", train_s: "time in training", wall_s: "time of the trial",
  examples_per_s: "throughput", gpus_per_worker: "GPUs of a worker", epochs_done: "evaluations",
};
const title = (name) => payload.titles[name] || titles[name] || name.replace(/_per_s$/, " a second").replace(/_(bytes|s|deg)$/, "").replace("_rel_", "_").replaceAll("_", " ");

// ── table ────────────────────────────────────────────────────────────────────────────────────────
const table = $("table");
const isNumber = (name) => ["int64", "double"].includes(columns.get(name).type);
function drawHead() {
  const line = node("tr");
  for (const name of payload.table) {
    const th = node("th", null, { scope: "col", title: columns.get(name).meaning, "data-column": name });
    if (isNumber(name)) th.className = "number";
    const button = node("button", title(name), { type: "button" });
    button.addEventListener("click", () => {
      const first = isNumber(name) && !["depth", "width", "seed"].includes(name);
      if (state.sort?.column !== name) state.sort = { column: name, descending: first };
      else if (state.sort.descending === first) state.sort = { column: name, descending: !first };
      else state.sort = null;
      update({ tableOnly: true });
    });
    th.append(button);
    const unit = unitOf(name)[0];
    if (unit) th.append(node("small", unit));
    line.append(th);
  }
  table.tHead.replaceChildren(line);
}
function sortedRows() {
  const rows = [];
  for (let row = 0; row < rowCount; row++) if (inTable(row)) rows.push(row);
  if (!state.sort) return rows;
  const values = columns.get(state.sort.column).values;
  const numeric = isNumber(state.sort.column);
  const sign = state.sort.descending ? -1 : 1;
  const missing = (v) => v === null || v === undefined || (numeric && typeof v !== "number");
  return rows.sort((a, b) => {
    const u = values[a], v = values[b];
    if (missing(u) || missing(v)) return missing(u) - missing(v) || a - b;
    return sign * (u < v ? -1 : u > v ? 1 : 0) || a - b;
  });
}
const lines = new Map(); // the line of each row in the table, kept while the row does not change
function lineOf(row) {
  if (lines.has(row)) return lines.get(row);
  const line = node("tr", null, { "data-row": row });
  for (const name of payload.table) {
    const td = node("td");
    if (isNumber(name)) td.className = "number";
    if (name === "trial_id") {
      const button = node("button", null, { type: "button", class: "quiet", "data-rows": row });
      button.append(node("code", shown(name, row)));
      td.append(button);
    } else if (name === "outcome") {
      const word = String(cell(name, row));
      td.append(node("span", word, { class: word === "ok" ? "outcome outcome-ok" : "outcome" }));
    } else td.textContent = shown(name, row);
    line.append(td);
  }
  lines.set(row, line);
  return line;
}
function drawTable() {
  const rows = sortedRows();
  const body = table.tBodies[0];
  const wanted = rows.slice(0, state.page).map(lineOf);
  const keep = new Set(wanted);
  for (const line of [...body.children]) if (!keep.has(line)) line.remove();
  let at = body.firstElementChild;
  for (const line of wanted) { // a line that stays is not touched, so it keeps the focus
    if (line === at) at = at.nextElementSibling;
    else body.insertBefore(line, at);
  }
  for (const th of table.tHead.querySelectorAll("th")) {
    const on = state.sort?.column === th.dataset.column;
    if (on) th.setAttribute("aria-sort", state.sort.descending ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  $("no-rows").hidden = rows.length > 0;
  $("more").hidden = rows.length <= state.page;
  $("more").textContent = `Show more (${(rows.length - state.page).toLocaleString("en")} left)`;
  $("count").textContent = rows.length === rowCount ? `${rowCount.toLocaleString("en")} trials` : `${rows.length.toLocaleString("en")} of ${rowCount.toLocaleString("en")} trials`;
}

// ── filter chips ─────────────────────────────────────────────────────────────────────────────────
function drawChips() {
  for (const key of payload.filters) {
    const counts = new Map();
    for (const value of columns.get(key).values) counts.set(value, (counts.get(value) || 0) + 1);
    let group = $("filters").querySelector(`fieldset[data-key="${key}"]`);
    if (!group && counts.size < 2 && key !== "outcome") continue;
    if (!group) {
      group = node("fieldset", null, { "data-key": key });
      group.append(node("legend", title(key)), node("div", null, { class: "chips" }));
      const later = payload.filters.slice(payload.filters.indexOf(key) + 1);
      $("filters").insertBefore(group, [...$("filters").children].find((other) => later.includes(other.dataset.key)) || null);
    }
    const chips = group.lastElementChild;
    const order = [...counts.keys()].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : 1));
    const old = new Map([...chips.querySelectorAll(".chip")].map((chip) => [chip.dataset.value, chip]));
    let at = chips.firstElementChild;
    for (const value of order.slice(0, 60)) {
      let chip = old.get(String(value));
      if (!chip) {
        chip = node("button", value === null ? "none" : String(value), { type: "button", class: "chip", "aria-pressed": "false", "data-key": key, "data-value": String(value) });
        chip.append(node("small"));
      }
      chip.lastElementChild.textContent = counts.get(value);
      if (chip === at) at = at.nextElementSibling;
      else chips.insertBefore(chip, at);
    }
    chips.querySelector(".and-more")?.remove();
    if (order.length > 60) chips.append(node("span", `and ${order.length - 60} more: use the search`, { class: "muted small and-more" }));
  }
}
$("filters").addEventListener("click", (event) => {
  const chip = event.target.closest(".chip");
  if (!chip) return;
  const { key, value } = chip.dataset;
  const wanted = state.filters.get(key) || new Set();
  wanted.has(value) ? wanted.delete(value) : wanted.add(value);
  wanted.size ? state.filters.set(key, wanted) : state.filters.delete(key);
  update();
});
function markChips() {
  for (const chip of document.querySelectorAll(".chip")) {
    chip.setAttribute("aria-pressed", String(Boolean(state.filters.get(chip.dataset.key)?.has(chip.dataset.value))));
  }
  const active = [...state.filters.values()].reduce((n, set) => n + set.size, 0);
  $("open-filters").textContent = active ? `Filter · ${active}` : "Filter";
  $("clear").hidden = !(active || state.search || state.selection);
  if ($("search").value !== state.search) $("search").value = state.search;
}

// ── trial card ───────────────────────────────────────────────────────────────────────────────────
const quoted = (text) => "'" + String(text).replaceAll("'", "''") + "'";
function showCard(rows) {
  state.card = rows;
  writeHash();
  const body = $("card-body");
  body.replaceChildren();
  $("card-title").textContent = rows.length === 1 ? "Trial " + cell("trial_id", rows[0]) : `${rows.length} trials`;
  if (rows.length > 1) {
    const list = node("p");
    for (const row of rows.slice(0, 50)) {
      const button = node("button", `${cell("trial_id", row)} (seed ${cell("seed", row)})`, { type: "button", class: "quiet" });
      button.addEventListener("click", () => showCard([row]));
      list.append(button, " ");
    }
    const select = node("button", "Select these everywhere", { type: "button", class: "tool" });
    select.addEventListener("click", () => {
      state.selection = new Set(rows); state.origin = null;
      forgetBoxes();
      $("card").close();
      update();
    });
    body.append(list, select);
  } else {
    const id = cell("trial_id", rows[0]);
    const names = [...columns.keys()].filter((name) => name !== "config_json" && cell(name, rows[0]) !== null);
    const place = (name) => names.indexOf(name);
    const isResult = (name) => /^(outcome|error_|accuracy_|loss_|bits_per_byte_|bigram_|entropy_|metrics_|memory_|reconstruction_|gradient_)/.test(name) || /(_s|_done|_skipped|concurrent_trials)$/.test(name);
    const isOrigin = (name) => place(name) >= place("device") && place("device") >= 0 && name !== "precision";
    const listOf = (heading, wanted) => {
      const list = node("dl");
      for (const name of names.filter(wanted)) {
        const column = columns.get(name);
        const unit = unitOf(name)[0];
        const told = unit && unit !== "UTC" && unit !== "numbers" && column.type !== "string";
        list.append(node("dt", title(name), { title: column.meaning }), node("dd", shown(name, rows[0]) + (told ? " " + unit : "")));
      }
      if (list.childElementCount) body.append(node("h3", heading), list);
    };
    for (const remark of payload.remarks?.[rows[0]] || []) body.append(node("p", remark, { class: "statement" }));
    body.append(node("h3", "Train it again"), node("pre", `revstudy rerun ${id}`));
    listOf("Result", (name) => isResult(name) && !isOrigin(name));
    listOf("Configuration", (name) => !isResult(name) && !isOrigin(name));
    const settings = cell("config_json", rows[0]);
    if (settings) {
      let text = settings;
      try { text = JSON.stringify(JSON.parse(settings), null, 2); } catch { /* shown as it is */ }
      body.append(node("h3", "Every setting"), node("pre", text));
    }
    listOf("Provenance", isOrigin);
    body.append(node("h3", "Its epochs"), node("pre", `revstudy query "select * from epochs where trial_id = ${quoted(id)}"`));
  }
  if (!$("card").open) $("card").showModal();
}

$("card").addEventListener("close", () => { state.card = null; writeHash(); });
function drawCard() {
  if (state.card) showCard(state.card);
  else if ($("card").open) $("card").close();
}

// ── download ─────────────────────────────────────────────────────────────────────────────────────
function csvText(rows) {
  const field = (value) => {
    if (value === null || value === undefined) return "";
    let text = String(value);
    if (typeof value === "string" && /^[=+@\t\r-]/.test(text)) text = "'" + text; // a spreadsheet must not run it
    return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const names = [...columns.keys()];
  return [names.join(","), ...rows.map((row) => names.map((name) => field(cell(name, row))).join(","))].join("\n") + "\n";
}

// ── drawing the state ────────────────────────────────────────────────────────────────────────────
function applyTheme() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  else delete document.documentElement.dataset.theme;
}
function update({ except = null, tableOnly = false, keepPage = false, keepFigures = false } = {}) {
  if (!keepPage) state.page = 100;
  if (!tableOnly) { findMatching(); markChips(); }
  drawTable();
  if (!tableOnly && !keepFigures) drawAll(except);
  if (!tableOnly) drawExplore();
  writeHash();
}

function begin() {
  drawHead();
  drawChips();
  readHash();
  applyTheme();
  offerExplore();
  update();
  drawEqualMemory();
  drawCard();
  requestAnimationFrame(() => setTimeout(() => { holders.forEach((holder) => near.observe(holder)); setTimeout(drawRest, 800); }));

  $("open-filters").addEventListener("click", () => {
    const open = $("filters").hidden;
    $("filters").hidden = !open;
    $("open-filters").setAttribute("aria-expanded", String(open));
  });
  $("clear").addEventListener("click", () => {
    state.filters.clear(); state.search = ""; state.selection = null; state.origin = null;
    forgetBoxes();
    update();
  });
  $("theme").addEventListener("click", () => {
    state.theme = isDark() ? "light" : "dark";
    applyTheme();
    drawAll();
    drawExplore();
    writeHash();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawAll(); drawExplore(); });
  $("search").addEventListener("input", (event) => { state.search = event.target.value; update(); });
  $("more").addEventListener("click", () => { state.page += 200; update({ tableOnly: true, keepPage: true }); });
  $("csv").addEventListener("click", () => {
    const link = node("a", null, { href: URL.createObjectURL(new Blob([csvText(sortedRows())], { type: "text/csv" })), download: "trials.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-rows]");
    if (button) showCard(button.dataset.rows.split(",").map(Number));
    const link = event.target.closest("[data-section], .skip");
    if (!link) return;
    event.preventDefault(); // the address holds the state, so an anchor must not replace it
    const target = document.querySelector(link.getAttribute("href"));
    target.scrollIntoView();
    target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
  });
  document.addEventListener("toggle", (event) => {
    if (!event.target.matches("details.data") || !event.target.open) return;
    const holder = event.target.parentElement.querySelector(".plot");
    if (holder.dataset.figure && !drawn.has(holder)) drawFigure(holder);
    listValues(event.target, holder);
  }, true);
  addEventListener("hashchange", () => { readHash(); applyTheme(); update(); drawEqualMemory(); drawCard(); });
  addEventListener("beforeprint", () => { // paper is white and narrow, whatever the screen is
    printing = true;
    document.documentElement.dataset.theme = "light";
    holders.forEach(drawFigure);
    drawExplore();
  });
  addEventListener("afterprint", () => { printing = false; applyTheme(); drawAll(); drawExplore(); });
  if (payload.refresh_s) {
    // a reader's place and filters survive: the browser keeps the one, the address the other
    setInterval(() => {
      const busy = $("card").open || document.activeElement === $("search") || document.visibilityState !== "visible" || document.readyState !== "complete";
      if (!busy) location.reload();
    }, 1000 * payload.refresh_s);
  }
  document.documentElement.dataset.ready = "true";
}
