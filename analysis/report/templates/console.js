"use strict";
/* Sends one statement, shows its answer as a table or a chart. Values reach the page through textContent alone. */
(() => {
  const $ = (id) => document.getElementById(id);
  const answer = $("answer"), sql = $("sql"), words = $("words");
  const node = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const row = (tag, values) => {
    const line = node("tr");
    for (const value of values) line.append(node(tag, value, tag === "th" ? { scope: "col" } : {}));
    return line;
  };

  // ── asking ───────────────────────────────────────────────────────────────────────────────────────
  let asking = null, shown = null;
  async function run() {
    close();
    asking?.abort(); // the server ends a query whose connection is closed
    const mine = asking = new AbortController();
    $("stop").hidden = false;
    $("status").textContent = "running …";
    $("error").hidden = true;
    const begun = performance.now();
    const text = sql.value;
    try {
      const response = await fetch("/query", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ sql: text }),
        signal: mine.signal,
      });
      const got = await response.json();
      if (mine !== asking) return;
      if (got.error) throw new Error(got.error);
      remember(text);
      shown = got;
      answer.tHead.replaceChildren(row("th", got.columns));
      answer.tBodies[0].replaceChildren(...got.rows.map((values) => row("td", values)));
      $("result").hidden = false;
      $("csv").textContent = got.more ? `Download CSV (the ${got.rows.length.toLocaleString("en")} rows shown)` : "Download CSV";
      const count = got.rows.length.toLocaleString("en") + (got.more ? " rows shown, there are more" : got.rows.length === 1 ? " row" : " rows");
      $("status").textContent = `${count} · ${Math.round(performance.now() - begun)} ms`;
      offerColumns();
      if (!$("chart").hidden) drawChart();
    } catch (error) {
      if (mine !== asking) return;
      $("result").hidden = true;
      $("status").textContent = "";
      $("error").textContent = error.name === "AbortError" ? "stopped" : error.message;
      $("error").hidden = false;
    } finally {
      if (mine === asking) $("stop").hidden = true;
    }
  }
  $("stop").addEventListener("click", () => asking?.abort());
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  for (const chip of document.querySelectorAll("[data-query]")) {
    chip.addEventListener("click", () => { sql.value = chip.dataset.query; run(); });
  }

  // ── completion of tables, columns and words ──────────────────────────────────────────────────────
  const known = JSON.parse($("known").textContent);
  let offered = [], at = -1;
  const begunWord = () => /[A-Za-z_][A-Za-z0-9_]*$/.exec(sql.value.slice(0, sql.selectionStart))?.[0] || "";
  function close() {
    words.hidden = true; offered = []; at = -1;
    sql.removeAttribute("aria-activedescendant");
  }
  function offer(all) {
    const begun = begunWord().toLowerCase();
    if (!begun && !all) return close();
    const named = (place) => known.filter(({ name }) => (place === 0 ? name.toLowerCase().startsWith(begun) : !name.toLowerCase().startsWith(begun) && begun.length > 2 && name.toLowerCase().includes(begun)));
    offered = [...named(0), ...named(1)].slice(0, 8);
    if (!offered.length || (offered.length === 1 && offered[0].name.toLowerCase() === begun)) return close();
    words.replaceChildren(...offered.map(({ name, what }, i) => {
      const line = node("li", name, { role: "option", id: "word-" + i, "aria-selected": "false" });
      line.append(node("small", what));
      line.addEventListener("mousedown", (event) => { event.preventDefault(); take(i); });
      return line;
    }));
    words.hidden = false;
    mark(0);
  }
  function mark(i) {
    at = (i + offered.length) % offered.length;
    [...words.children].forEach((line, k) => line.setAttribute("aria-selected", String(k === at)));
    words.children[at].scrollIntoView({ block: "nearest" });
    sql.setAttribute("aria-activedescendant", "word-" + at);
  }
  function take(i) {
    const end = sql.selectionStart, begin = end - begunWord().length;
    sql.setRangeText(offered[i].name, begin, end, "end");
    close();
  }
  sql.addEventListener("input", () => offer(false));
  sql.addEventListener("blur", close);
  sql.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); return; }
    if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) { event.preventDefault(); earlier(event.key === "ArrowUp" ? 1 : -1); return; }
    if (event.key === " " && event.ctrlKey) { event.preventDefault(); offer(true); return; }
    if (words.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); mark(at + (event.key === "ArrowDown" ? 1 : -1)); }
    else if ((event.key === "Tab" && !event.shiftKey) || event.key === "Enter") { event.preventDefault(); take(at); }
    else if (event.key === "Escape") { event.preventDefault(); close(); }
  });

  // ── earlier statements, kept by this browser ─────────────────────────────────────────────────────
  const MOST_KEPT = 50, PLACE = "revstudy-sql";
  let past = [], back = -1;
  try { past = JSON.parse(localStorage.getItem(PLACE) || "[]").filter((text) => typeof text === "string"); } catch { /* none is kept */ }
  function offerEarlier() {
    const line = (text) => text.replace(/\s+/g, " ").slice(0, 80);
    $("earlier").replaceChildren(node("option", past.length ? "choose …" : "none yet", { value: "" }), ...past.map((text, i) => node("option", line(text), { value: i })));
  }
  function remember(text) {
    past = [text, ...past.filter((other) => other !== text)].slice(0, MOST_KEPT);
    back = -1;
    try { localStorage.setItem(PLACE, JSON.stringify(past)); } catch { /* the browser keeps nothing */ }
    offerEarlier();
  }
  function earlier(step) {
    if (!past.length) return;
    back = Math.max(0, Math.min(past.length - 1, back + step));
    sql.value = past[back];
    close();
  }
  $("earlier").addEventListener("change", () => {
    if ($("earlier").value !== "") sql.value = past[Number($("earlier").value)];
    $("earlier").value = "";
    sql.focus();
  });
  offerEarlier();

  // ── the answer as a file ─────────────────────────────────────────────────────────────────────────
  $("csv").addEventListener("click", () => {
    const field = (value) => {
      let text = value === null || value === undefined ? "" : String(value);
      if (/^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text))) text = "'" + text; // a spreadsheet must not run it
      return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    const lines = [shown.columns, ...shown.rows].map((values) => values.map(field).join(","));
    const link = node("a", null, { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })), download: "answer.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });

  // ── the answer as a chart ────────────────────────────────────────────────────────────────────────
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8F98"];
  const valuesOf = (i) => shown.rows.map((values) => values[i]);
  const isNumeric = (i) => { const some = valuesOf(i).filter((v) => v !== null && v !== ""); return some.length > 0 && some.every((v) => !Number.isNaN(Number(v))); };
  function offerColumns() {
    const places = shown.columns.map((_, i) => i);
    const numeric = places.filter(isNumeric);
    const want = { x: places.find((i) => !numeric.includes(i)) ?? numeric[0], y: numeric.at(-1), color: "" };
    for (const part of ["x", "y", "color"]) {
      const before = $("chart-" + part).selectedOptions[0]?.textContent;
      const options = part === "y" ? numeric : part === "x" ? places : ["", ...places];
      $("chart-" + part).replaceChildren(...options.map((i) => node("option", i === "" ? "none" : shown.columns[i], { value: i })));
      const same = options.find((i) => i !== "" && shown.columns[i] === before);
      $("chart-" + part).value = same ?? want[part] ?? "";
    }
    if (!isNumeric(Number($("chart-x").value))) $("chart-kind").value = "bars";
  }
  let library = null;
  const plotly = () => (library ??= new Promise((done, fail) => {
    const script = node("script", null, { src: "/plotly.js" });
    script.onload = done;
    script.onerror = () => { library = null; fail(new Error("the library of the charts did not come from the server")); };
    document.head.append(script);
  }));
  async function drawChart() {
    if (!shown || $("chart-y").value === "") { $("chart-note").textContent = "No column of the answer is numeric."; return; }
    try { await plotly(); } catch (error) { $("chart-note").textContent = error.message; return; }
    const [x, y] = ["x", "y"].map((part) => Number($("chart-" + part).value));
    const color = $("chart-color").value, kind = $("chart-kind").value;
    const groups = new Map();
    for (const values of shown.rows) {
      if (values[y] === null || values[y] === "" || values[x] === null) continue;
      const key = color === "" ? "" : String(values[Number(color)] ?? "none");
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(values);
    }
    const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const number = isNumeric(x);
    const traces = [...groups].slice(0, 20).map(([name, rows], i) => {
      if (kind === "lines" && number) rows.sort((a, b) => a[x] - b[x]);
      return {
        type: kind === "bars" ? "bar" : "scatter", mode: kind === "lines" ? "lines+markers" : "markers", name: safe(name),
        x: rows.map((values) => (number ? Number(values[x]) : safe(values[x]))), y: rows.map((values) => Number(values[y])),
        marker: { color: PALETTE[i % PALETTE.length] }, hovertemplate: "%{x}, %{y}<extra>" + safe(name) + "</extra>",
      };
    });
    const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = (text) => ({ title: { text: safe(text) }, gridcolor: "rgba(128,128,128,0.22)", zeroline: false, automargin: true });
    Plotly.react($("chart-plot"), traces, {
      height: 420, margin: { l: 64, r: 20, t: 20, b: 56 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style("--sans"), color: style("--ink"), size: 12.5 }, showlegend: color !== "", barmode: "group",
      xaxis: { ...axis(shown.columns[x]), ...(number ? {} : { type: "category" }) }, yaxis: axis(shown.columns[y]),
    }, { displaylogo: false, responsive: true, displayModeBar: false });
    $("chart-note").textContent = (shown.more ? "Drawn from the rows shown; there are more. " : "") + (groups.size > 20 ? "The first 20 values of the color are drawn." : "");
  }
  $("draw").addEventListener("click", () => {
    $("chart").hidden = !$("chart").hidden;
    $("draw").setAttribute("aria-expanded", String(!$("chart").hidden));
    if (!$("chart").hidden) drawChart();
  });
  for (const part of ["kind", "x", "y", "color"]) $("chart-" + part).addEventListener("change", drawChart);
})();
