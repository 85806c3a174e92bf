"use strict";
/* Sends one statement, shows its answer. Values reach the page through textContent alone. */
(() => {
  const $ = (id) => document.getElementById(id);
  const answer = $("answer");
  const row = (tag, values) => {
    const line = document.createElement("tr");
    for (const value of values) {
      const cell = document.createElement(tag);
      cell.textContent = value;
      line.append(cell);
    }
    return line;
  };
  let asking = null;
  async function run() {
    asking?.abort(); // the server ends a query whose connection is closed
    const mine = asking = new AbortController();
    $("stop").hidden = false;
    $("status").textContent = "running …";
    $("error").hidden = true;
    const begun = performance.now();
    try {
      const response = await fetch("/query", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ sql: $("sql").value }),
        signal: mine.signal,
      });
      const got = await response.json();
      if (mine !== asking) return;
      if (got.error) throw new Error(got.error);
      answer.tHead.replaceChildren(row("th", got.columns));
      answer.tBodies[0].replaceChildren(...got.rows.map((values) => row("td", values)));
      answer.parentElement.hidden = false;
      const count = got.rows.length.toLocaleString("en") + (got.more ? " rows shown, there are more" : got.rows.length === 1 ? " row" : " rows");
      $("status").textContent = `${count} · ${Math.round(performance.now() - begun)} ms`;
    } catch (error) {
      if (mine !== asking) return;
      answer.parentElement.hidden = true;
      $("status").textContent = "";
      $("error").textContent = error.name === "AbortError" ? "stopped" : error.message;
      $("error").hidden = false;
    } finally {
      if (mine === asking) $("stop").hidden = true;
    }
  }
  $("stop").addEventListener("click", () => asking?.abort());
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("sql").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  });
  for (const chip of document.querySelectorAll("[data-query]")) {
    chip.addEventListener("click", () => { $("sql").value = chip.dataset.query; run(); });
  }
})();
