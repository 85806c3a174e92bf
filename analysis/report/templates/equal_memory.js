
// ── the best of each kind within a budget of memory ─────────────────────────────────────────────────
/* The server has judged every budget at which something changes; the slider goes from one to the next. */
function drawEqualMemory() {
  const place = $("equal-memory");
  const groups = payload.equal_memory || [];
  place.hidden = !groups.length;
  if (!groups.length) { place.replaceChildren(); return; }
  if (place.dataset.groups !== groups.map((g) => g.heading).join("\n")) {
    place.dataset.groups = groups.map((g) => g.heading).join("\n");
    place.replaceChildren(node("h3", "At equal memory"), node("p", "Choose a budget of peak memory: the best that storing, recomputing and reversing reach within it. All are chosen by validation. Configurations with unfaithful gradients are left out, and those of one seed where others have several; so the largest budget may be smaller than the largest trial.", { class: "lead" }));
    groups.forEach((group, i) => {
      const box = node("div", null, { "data-group": i });
      const label = node("label", (group.heading ? group.heading + ": " : "") + "up to ");
      const range = node("input", null, { type: "range", min: 0, step: 1, "aria-label": "Budget of peak memory" + (group.heading ? ", " + group.heading : "") });
      range.addEventListener("input", () => {
        state.budget = payload.equal_memory[i].steps[range.value].bytes;
        drawEqualMemory();
        writeHash();
      });
      label.append(node("output"), range);
      const scroll = node("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Best within the budget" });
      const table = node("table", null, { class: "plain" });
      const head = node("tr");
      for (const text of ["", "Best within the budget", "Score", "Peak", "Step", "Against storing", "Trials"]) head.append(node("th", text || "Kind", { scope: "col" }));
      table.append(node("thead"), node("tbody"));
      table.tHead.append(head);
      scroll.append(table);
      box.append(label, scroll);
      place.append(box);
    });
  }
  groups.forEach((group, i) => {
    const box = place.querySelector(`[data-group="${i}"]`);
    const range = box.querySelector("input");
    range.max = group.steps.length - 1;
    let at = group.steps.length - 1;
    if (state.budget) { at = 0; group.steps.forEach((step, k) => { if (step.bytes <= state.budget) at = k; }); }
    range.value = at;
    const step = group.steps[at];
    range.setAttribute("aria-valuetext", step.budget);
    box.querySelector("output").textContent = step.budget;
    box.querySelector("tbody").replaceChildren(...step.lines.map((line) => {
      const row = node("tr");
      row.append(node("th", line.kind, { scope: "row" }));
      const cells = [line.what, line.score, line.peak, line.time, line.difference];
      cells.forEach((text, k) => row.append(node("td", text, k === 2 || k === 3 ? { class: "whole" } : {}))); // peak and step
      const last = node("td");
      if (line.rows.length) last.append(node("button", "Show", { type: "button", class: "quiet", "data-rows": line.rows.join(","), "aria-label": `Show the trials of ${line.kind}` }));
      row.append(last);
      return row;
    }));
  });
}
