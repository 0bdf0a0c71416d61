// The list of tasks: selecting, acting on what is selected or on all that match, columns, saved views, and rows that
// change where they stand. What is new is told, and never moves what somebody reads.
"use strict";

(() => {
  const { $, $$, ask, base, doing, here, say, stored } = taskq;
  const table = $("#tasks");
  if (!table) return;
  const selection = $("#selection"), filter = selection.dataset.filter;
  let picked = new Set(), isAll = false, last = null;

  const rows = () => $$("tr[data-id]", table);
  function show() {
    for (const row of rows()) {
      const is = isAll || picked.has(row.dataset.id);
      row.classList.toggle("picked", is);
      $("input", row).checked = is;
    }
    selection.hidden = !picked.size && !isAll;
    $("#selected").textContent = isAll ? "All that match" : `${picked.size} selected`;
    $("#check-all").checked = rows().length > 0 && rows().every((row) => picked.has(row.dataset.id));
  }
  function pick(row, isRange) {
    isAll = false;
    const all = rows();
    if (isRange && last && all.includes(last)) {
      const [from, to] = [all.indexOf(last), all.indexOf(row)].sort((a, b) => a - b);
      for (const one of all.slice(from, to + 1)) picked.add(one.dataset.id);
    } else if (picked.has(row.dataset.id)) picked.delete(row.dataset.id);
    else picked.add(row.dataset.id);
    last = row;
    show();
  }
  doing.clear = () => { picked = new Set(); isAll = false; show(); };
  doing["all-matching"] = () => { isAll = true; show(); };

  function act(name) {
    const ids = picked.size || isAll ? [...picked] : here() ? [here().dataset.id] : [];
    if (!ids.length && !isAll) { say("No task is selected"); return; }
    ask(`${base}/act/${name}?` + new URLSearchParams(isAll ? { filter } : { ids: ids.join(",") }));
  }
  selection.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button) act(button.dataset.act);
  });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-id]");
    if (event.target.id === "check-all") {
      isAll = false;
      picked = new Set(event.target.checked ? rows().map((one) => one.dataset.id) : []);
      show();
    } else if (row && event.target.matches("input")) pick(row, event.shiftKey);
  });
  taskq.onKey = (event) => {
    if (event.key.toLowerCase() === "x" && here()) { pick(here(), event.shiftKey); return true; }
    const button = $$("[data-row-key]", selection).find((one) => one.dataset.rowKey === event.key);
    if (button) { act(button.dataset.act); return true; }
    return false;
  };

  // ── columns, density, views ──
  const hidden = new Set(stored.get("columns-hidden", []));
  function showColumns() {
    for (const box of $$("[data-columns] input[value]")) {
      box.checked = !hidden.has(box.value);
      table.classList.toggle(`no-${box.value}`, hidden.has(box.value));
    }
    const dense = stored.get("dense", false);
    $("#dense").checked = dense;
    table.classList.toggle("dense", dense);
  }
  $("#columns").addEventListener("change", (event) => {
    if (event.target.id === "dense") stored.set("dense", event.target.checked);
    else if (event.target.checked) hidden.delete(event.target.value);
    else hidden.add(event.target.value);
    stored.set("columns-hidden", [...hidden]);
    showColumns();
  });
  function showViews() {
    $("#views").replaceChildren(...stored.get("views", []).flatMap((text) => {
      const link = document.createElement("a");
      link.href = `${base}/tasks?filter=${encodeURIComponent(text)}`;
      link.textContent = text;
      const drop = document.createElement("button");
      drop.type = "button";
      drop.className = "quiet";
      drop.textContent = "×";
      drop.setAttribute("aria-label", `Forget the view ${text}`);
      drop.addEventListener("click", () => { stored.set("views", stored.get("views", []).filter((one) => one !== text)); showViews(); });
      return [link, drop];
    }));
  }
  doing["save-view"] = () => {
    const text = $("#filter").value.trim();
    if (!text) { say("There is no filter to save"); return; }
    stored.set("views", [...new Set([...stored.get("views", []), text])]);
    showViews();
    say("Saved in this browser");
  };

  // ── rows that change where they stand ──
  document.addEventListener("taskq:look", async () => {
    const url = new URL(location.href);
    url.searchParams.delete("total");
    const size = Number(url.searchParams.get("size") ?? 50);
    if (!url.searchParams.get("page")) url.searchParams.set("size", Math.min(size + 100, 300));
    const response = await fetch(url);
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = new Map([...page.querySelectorAll("#tasks tr[data-id]")].map((row) => [row.dataset.id, row]));
    const at = here()?.dataset.id, focused = document.activeElement?.closest?.("tr[data-id]")?.dataset.id;
    for (const row of rows()) {
      const now = fresh.get(row.dataset.id);
      fresh.delete(row.dataset.id);
      row.classList.toggle("gone", !now);
      if (!now) { row.title = "no longer matches, or further down by now"; continue; }
      const isOther = $(".state", now).textContent !== $(".state", row).textContent;
      [...now.cells].forEach((cell, i) => { if (i) row.cells[i].replaceChildren(...document.adoptNode(cell).childNodes); });
      if (isOther) { row.classList.add("changed"); setTimeout(() => row.classList.remove("changed"), 1200); }
    }
    const first = rows()[0];
    const order = [...page.querySelectorAll("#tasks tr[data-id]")].map((row) => row.dataset.id);
    const isNew = (id) => !first || order.indexOf(id) < Math.max(order.indexOf(first.dataset.id), 0) || order.indexOf(first.dataset.id) < 0;
    const many = url.searchParams.get("page") ? 0 : [...fresh.keys()].filter(isNew).length;
    $("#pill").hidden = !many;
    $("#pill-text").textContent = `${many} new`;
    const facets = page.querySelector("#facets");
    if (facets) $$("#facets > a").forEach((one, i) => { if (facets.children[i]) one.replaceChildren(...facets.children[i].childNodes); });
    if (focused) $(`tr[data-id="${CSS.escape(focused)}"] a`, table)?.focus({ preventScroll: true });
    if (at) $(`tr[data-id="${CSS.escape(at)}"]`, table)?.classList.add("here");
    show();
  });

  showColumns();
  showViews();
  show();
})();
