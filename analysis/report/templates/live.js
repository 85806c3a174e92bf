
// ── a page that follows its store ────────────────────────────────────────────────────────────────────
/* Each message holds what changed: rows, figures, parts of the page. They are put in place, so filters, focus,
   selection and the reader's place stay. While somebody drags over figures, messages wait. */
const pending = [];
let dragging = false;

function follow() {
  if (!payload.live) return;
  const { generation, version } = payload.live;
  const source = new EventSource(`/changes?generation=${generation}&version=${version}`);
  const tell = (text) => { if ($("connection").textContent !== text) $("connection").textContent = text; };
  source.onopen = () => tell("");
  source.onerror = () => tell(source.readyState === EventSource.CLOSED
    ? "The server does not answer to this page any more: open the address that `revstudy serve` printed last."
    : "The connection to the server is lost; trying again.");
  source.onmessage = (event) => {
    pending.push(JSON.parse(event.data));
    takePending();
  };
  document.addEventListener("pointerdown", (event) => { dragging = Boolean(event.target.closest(".plot, select, input")); });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => { dragging = false; setTimeout(takePending); });
}

function takePending() {
  if (dragging) return;
  while (pending.length) take(pending.shift());
}

function take(message) {
  if (message.reload) { location.reload(); return; } // of another server, whose rows have other numbers
  const begun = performance.now();
  const mark = placeOf();
  takeAbout(message.about);
  if (message.rows) takeRows(message);
  for (const [name, html] of Object.entries(message.parts || {})) takePart(name, html);
  takeFigures(message.figures || {});
  if (message.rows) {
    drawChips();
    update({ keepPage: true, keepFigures: true });
    offerExplore();
  }
  if (message.rows || message.figures) drawAll();
  restorePlace(mark);
  window.revstudyUpdate = { count: (window.revstudyUpdate?.count || 0) + 1, ms: performance.now() - begun, delay_s: Date.now() / 1000 - message.at };
}

function takeAbout(about) {
  if (!about) return;
  const same = JSON.stringify(about.table) === JSON.stringify(payload.table);
  Object.assign(payload, about);
  if (same) return;
  lines.clear(); // trials are judged by another metric than before
  table.tBodies[0].replaceChildren();
  drawHead();
  drawTable();
}

function takeRows({ rows, columns: values, n }) {
  for (const [name, column] of columns) rows.forEach((row, i) => { column.values[row] = values[name][i]; });
  const ids = columns.get("trial_id").values;
  for (const row of rows) {
    rowOf.set(ids[row], row);
    haystacks[row] = undefined;
    lines.get(row)?.remove();
    lines.delete(row);
  }
  rowCount = n;
}

/** Puts a part of the page in place of the one before; what has the focus in it keeps it. */
function takePart(name, html) {
  if (name === "equal_memory") { payload.equal_memory = JSON.parse(html); drawEqualMemory(); return; }
  const place = document.querySelector(`[data-part="${name}"]`);
  if (!place) return;
  const made = document.createElement("template");
  made.innerHTML = html;
  const old = place.querySelector("[data-figure]"), fresh = made.content.querySelector("[data-figure]");
  if (old && fresh) { // the figure stays; its caption is new
    place.querySelector("figcaption").replaceWith(made.content.querySelector("figcaption"));
    return;
  }
  const stops = () => [...place.querySelectorAll("a, button, summary, [tabindex]")];
  const at = stops().indexOf(document.activeElement);
  const closed = [...place.querySelectorAll("details[id]:not([open])")].map((details) => details.id);
  place.replaceChildren(made.content);
  for (const id of closed) $(id)?.removeAttribute("open");
  if (at >= 0) stops()[at]?.focus({ preventScroll: true });
  if (old) forgetHolder(old);
  if (fresh) { holders = [...document.querySelectorAll("[data-figure]")]; near.observe(fresh); }
}

function forgetHolder(holder) {
  holders = holders.filter((other) => other !== holder);
  for (const set of [drawn, stale, inSight]) set.delete(holder);
  near.unobserve(holder);
}

function takeFigures(found) {
  for (const [name, figure] of Object.entries(found)) {
    if (figures) { if (figure) figures[name] = plain(figure); else delete figures[name]; }
    else early.set(name, figure);
  }
}

/* The reader's place: what stands at the top of the window stays there while the page grows above it. */
function placeOf() {
  const x = innerWidth / 2;
  for (let y = 90; y < innerHeight; y += 60) {
    const found = document.elementFromPoint(x, y)?.closest("section > *, .panel, tr, header > *");
    if (found && !found.closest(".bar, dialog")) return { found, top: found.getBoundingClientRect().top };
  }
  return null;
}
function restorePlace(mark) {
  if (!mark || !mark.found.isConnected || !scrollY) return;
  const moved = mark.found.getBoundingClientRect().top - mark.top;
  if (Math.abs(moved) > 0.5) scrollBy({ top: moved, behavior: "instant" });
}

begin();
follow();
