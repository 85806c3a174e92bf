
// ── any two columns ──────────────────────────────────────────────────────────────────────────────────
const MOST_FACETS = 6, MOST_COLORS = 8;
const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8F98", "#000000"];
const EXPLORE = { x: "memory_peak_bytes", y: null, color: "strategy", facet: "" };
const chosen = (part) => state.explore[part] ?? (part === "y" ? payload.score.column : EXPLORE[part]);

/** Columns that have several values: numbers for the axes; for color and facets, texts too. */
function offered(part) {
  const names = [];
  for (const [name, { values }] of columns) {
    if (["config_json", "error_message", "trial_id", "metrics_json"].includes(name)) continue;
    const numeric = isNumber(name);
    if ((part === "x" || part === "y") && !numeric) continue;
    const different = new Set();
    for (const value of values) {
      if (value !== null && value !== undefined && (!numeric || typeof value === "number")) different.add(value);
      if (different.size > MOST_FACETS) break;
    }
    if (different.size < 2 && name !== chosen(part)) continue;
    if (part === "facet" && different.size > MOST_FACETS) continue;
    names.push(name);
  }
  return names;
}
function offerExplore() {
  const tools = $("explore-tools");
  const axes = offered("x");
  $("explore").hidden = axes.length < 2;
  for (const [part, label] of [["x", "Horizontal"], ["y", "Vertical"], ["color", "Color"], ["facet", "Facets"]]) {
    let picker = $("explore-" + part);
    if (!picker) {
      const holder = node("label", label + " ");
      picker = node("select", null, { id: "explore-" + part });
      picker.addEventListener("change", () => { state.explore[part] = picker.value; drawExplore(); writeHash(); });
      holder.append(picker);
      tools.append(holder);
    }
    const names = offered(part);
    const options = part === "x" || part === "y" ? names : ["", ...names];
    const text = options.join("\n");
    if (picker.dataset.offered !== text) {
      picker.dataset.offered = text;
      picker.replaceChildren(...options.map((name) => node("option", name ? title(name) : "none", { value: name })));
    }
    picker.value = chosen(part);
  }
}

let exploreSeen = false;
new IntersectionObserver((entries) => {
  exploreSeen = entries[0].isIntersecting;
  if (exploreSeen) drawExplore();
}, { rootMargin: "400px" }).observe($("explore"));

function drawExplore({ unseen = false } = {}) {
  for (const part of ["x", "y", "color", "facet"]) if ($("explore-" + part)) $("explore-" + part).value = chosen(part);
  const holder = $("explore-plot");
  if ($("explore").hidden || !(exploreSeen || printing || unseen)) return;
  loadFigures();
  const [x, y, color, facet] = ["x", "y", "color", "facet"].map(chosen);
  const value = (name, row) => { const v = cell(name, row); return typeof v === "number" ? v * unitOf(name)[1] : null; };
  const rows = [];
  for (let row = 0; row < rowCount; row++) if (inTable(row) && value(x, row) !== null && value(y, row) !== null) rows.push(row);
  const kinds = (name) => [...new Set(rows.map((row) => cell(name, row)))].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : 1));
  const facets = facet ? kinds(facet).slice(0, MOST_FACETS) : [null];
  const scale = color && isNumber(color) && kinds(color).length > MOST_COLORS;
  const groups = color && !scale ? kinds(color) : [null];
  const named = new Set(groups.slice(0, MOST_COLORS - 1));
  const traces = [];
  facets.forEach((part, place) => {
    const inPart = rows.filter((row) => part === null || cell(facet, row) === part);
    const names = groups.length > MOST_COLORS ? [...named, undefined] : groups;
    names.forEach((group, i) => {
      const own = inPart.filter((row) => group === null || (group === undefined ? !named.has(cell(color, row)) : cell(color, row) === group));
      if (!own.length) return;
      const name = group === null ? "" : group === undefined ? "others" : String(group ?? "none");
      traces.push({
        type: own.length > 4000 && webgl ? "scattergl" : "scatter", mode: "markers", name, legendgroup: name,
        showlegend: groups[0] !== null && !traces.some((t) => t.name === name),
        x: own.map((row) => value(x, row)), y: own.map((row) => value(y, row)), customdata: own.map((row) => [row]),
        text: own.map((row) => describe([row])), hovertemplate: `%{x:.4g}, %{y:.4g}<br>%{text}<extra></extra>`,
        xaxis: place ? "x" + (place + 1) : "x", yaxis: "y", meta: { role: "trials" },
        marker: scale
          ? { color: own.map((row) => value(color, row)), colorscale: "Viridis", size: 7, coloraxis: "coloraxis" }
          : { color: payload.colors[color]?.[group] || PALETTE[i % PALETTE.length], size: 7, opacity: 0.75 },
      });
    });
  });
  const label = (name) => title(name) + (unitOf(name)[0] && unitOf(name)[0] !== "UTC" ? " / " + unitOf(name)[0] : "");
  const axisOf = (name) => {
    const values = rows.map((row) => value(name, row));
    const least = values.reduce((a, b) => Math.min(a, b), Infinity), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
    return { type: least > 0 && most / least > 50 ? "log" : "linear", gridcolor: "rgba(128,128,128,0.22)", zeroline: false, automargin: true, ticks: "outside", ticklen: 4, tickcolor: "rgba(128,128,128,0.22)" };
  };
  const layout = {
    height: 440, margin: { l: 64, r: 20, b: 56, t: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style("--sans"), size: 12.5 }, hovermode: "closest", dragmode: "zoom", annotations: [],
    yaxis: { ...axisOf(y), title: { text: escape(label(y)) } }, legend: { orientation: "h", x: 0, y: 1.04, yanchor: "bottom" },
    ...(scale ? { coloraxis: { colorscale: "Viridis", colorbar: { title: { text: escape(label(color)), side: "right" }, thickness: 12 } } } : {}),
  };
  const shape = axisOf(x);
  facets.forEach((part, place) => {
    const gap = 0.03, width = (1 - gap * (facets.length - 1)) / facets.length;
    layout[place ? "xaxis" + (place + 1) : "xaxis"] = {
      ...shape, domain: [place * (width + gap), place * (width + gap) + width], ...(place ? { matches: "x" } : {}),
      title: { text: facets.length < 4 || place === Math.floor(facets.length / 2) ? escape(label(x)) : "" },
    };
    if (part !== null || facet) layout.annotations.push({ text: escape(`${title(facet)} ${part ?? "none"}`), x: place * (width + gap), y: 1, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 } });
  });
  if (facet) layout.legend.y = 1.1, layout.margin.t = 60;
  const drawnBefore = Boolean(holder.data);
  holder.setAttribute("aria-label", `${title(y)} against ${title(x)}`);
  Plotly.react(holder, traces.map(colored), { ...themed(layout, "explore"), margin: layout.margin }, config).then(() => oneTabStop(holder));
  if (!drawnBefore) holder.on("plotly_click", (event) => { const found = [...rowsOf(event)]; if (found.length) showCard(found); });
  $("explore-note").textContent = `${rows.length.toLocaleString("en")} of ${rowCount.toLocaleString("en")} trials have both values and pass the filters.`
    + (facet && kinds(facet).length > MOST_FACETS ? ` The first ${MOST_FACETS} values of ${title(facet)} are shown.` : "");
  if ($("explore-data").open) listValues($("explore-data"), holder);
}
