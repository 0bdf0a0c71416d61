// What every page does: theme, clock, keys, questions over the page, copying, and looking anew when something has changed.
"use strict";

const taskq = (() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const base = document.body.dataset.base;
  const stored = {
    get: (key, otherwise) => { try { return JSON.parse(localStorage.getItem(`taskq-${key}`)) ?? otherwise; } catch { return otherwise; } },
    set: (key, value) => localStorage.setItem(`taskq-${key}`, JSON.stringify(value)),
  };

  // ── words for people ──
  let saying;
  function say(text) {
    $("#said").textContent = text;
    clearTimeout(saying);
    saying = setTimeout(() => { $("#said").textContent = ""; }, 4000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no TLS, no clipboard: the old way
      const field = document.createElement("textarea");
      field.value = text;
      (document.querySelector("dialog[open]") ?? document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    say("Copied");
  }

  // ── time, by the server's clock ──
  let skew = Date.parse(document.body.dataset.now) - Date.now();
  const now = () => Date.now() + skew;
  function spanned(seconds) {
    if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
    const whole = Math.round(seconds);
    for (const [unit, size, small, of] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
      if (whole >= size) {
        const rest = Math.floor(whole % size / of);
        return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
      }
    }
    return `${whole} s`;
  }
  function relative(seconds) {
    if (Math.abs(seconds) < 1) return "now";
    return seconds > 0 ? `in ${spanned(seconds)}` : `${spanned(-seconds)} ago`;
  }
  function tick() {
    const at = now();
    for (const one of $$("main time[datetime]:not([data-absolute])")) {
      const text = relative((Date.parse(one.dateTime) - at) / 1000);
      if (one.textContent !== text) one.textContent = text;
    }
    const clock = $("#clock");
    if (clock) clock.textContent = `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;
  }

  // ── theme ──
  function turnTheme() {
    const order = ["", "dark", "light"];
    const next = order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % 3];
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    localStorage.setItem("taskq-theme", next);
    say(next ? `Theme: ${next}` : "Theme: as the system has it");
    document.dispatchEvent(new Event("taskq:theme"));
  }

  // ── looking anew ──
  const topics = (document.body.dataset.topics ?? "").split(" ").filter(Boolean);
  const pace = Number(document.body.dataset.pace);
  let source = null, isPaused = stored.get("paused", false), isLooking = false, isStale = false, polling = null;
  function told(state, text) {
    $("#live-dot").dataset.state = state;
    $("#live-text").textContent = text;
  }
  async function look() {
    if (isPaused || document.hidden || isLooking) { isStale = true; return; }
    isLooking = true;
    isStale = false;
    try {
      if ($("[data-live]")) await htmx.ajax("GET", location.href, { target: "#live", select: "#live", swap: "outerMorph" });
      document.dispatchEvent(new Event("taskq:look"));
      tick();
    } finally {
      // Not at once: however much changes, a page asks no more often than its pace.
      setTimeout(() => { isLooking = false; if (isStale) look(); }, pace);
    }
  }
  function listen() {
    if (!topics.length || isPaused || document.hidden || source) return;
    source = new EventSource(`${base}/ui/events`);
    source.onopen = () => { told("on", "live"); clearInterval(polling); polling = null; };
    source.addEventListener("changed", (event) => {
      const changed = JSON.parse(event.data).topics;
      if (changed.includes("gap") || changed.some((one) => topics.includes(one))) look();
    });
    source.onerror = () => {
      told("waiting", "reconnecting");
      if (source.readyState === EventSource.CLOSED) { // refused: too many, or signed out
        source = null;
        told("waiting", "every 5 s");
        polling ??= setInterval(look, 5000);
        setTimeout(listen, 30000);
      }
    };
  }
  function hush(state, text) {
    source?.close();
    source = null;
    clearInterval(polling);
    polling = null;
    told(state, text);
  }
  function pauseLive() {
    isPaused = !isPaused;
    stored.set("paused", isPaused);
    if (isPaused) hush("off", "paused"); else { listen(); look(); }
    say(isPaused ? "Live updates are paused" : "Live");
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hush("off", "not live"); else { listen(); if (topics.length) look(); }
  });

  // ── questions over the page ──
  async function ask(url) {
    const dialog = $("#dialog");
    try {
      const response = await fetch(url, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const question = page.querySelector("#act");
      if (!question) { location.href = url; return; }
      dialog.replaceChildren(document.adoptNode(question));
      dialog.showModal();
      ($("input:not([type=hidden]), textarea, select", dialog) ?? $("button", dialog))?.focus();
    } catch { location.href = url; }
  }

  // ── the palette ──
  const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;
  function openPalette() {
    $("#palette-input").value = "";
    fillPalette();
    $("#palette").showModal();
    $("#palette-input").focus();
  }
  function fillPalette() {
    const text = $("#palette-input").value.trim();
    const found = [];
    if (UUID.test(text)) found.push([`Task ${text}`, `${base}/tasks/${text.toLowerCase()}`]);
    for (const one of $$(".rail a")) {
      const title = one.firstChild.textContent.trim();
      if (title.toLowerCase().includes(text.toLowerCase())) found.push([title, one.getAttribute("href")]);
    }
    for (const one of $$("main a.button[href], main .actions a")) {
      const title = one.textContent.trim();
      if (text && title.toLowerCase().includes(text.toLowerCase())) found.push([title, one.getAttribute("href")]);
    }
    if (text && !UUID.test(text)) found.push([`Tasks that match: ${text}`, `${base}/tasks?filter=${encodeURIComponent(text)}`]);
    $("#palette-list").replaceChildren(...found.slice(0, 12).map(([title, href], i) => {
      const link = document.createElement("a");
      link.href = href;
      link.textContent = title;
      if (i === 0) link.className = "here";
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
  }
  function movePalette(by) {
    const links = $$("#palette-list a");
    const at = links.findIndex((one) => one.classList.contains("here"));
    links[at]?.classList.remove("here");
    links[(at + by + links.length) % links.length]?.classList.add("here");
  }

  // ── keys ──
  const rows = () => $$("main tbody tr[data-row], main tbody tr[data-id], main article[data-row]");
  const here = () => $("main .here");
  function move(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(here());
    here()?.classList.remove("here");
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    next.classList.add("here");
    next.scrollIntoView({ block: "nearest" });
    const link = $("a", next);
    if (link) link.focus({ preventScroll: true }); else next.focus();
  }
  const doing = {
    theme: turnTheme,
    help: () => $("#help").showModal(),
    palette: openPalette,
    reload: () => location.reload(),
  };
  let before = "", beforeTimer;
  const after = (key) => { before = key; clearTimeout(beforeTimer); beforeTimer = setTimeout(() => { before = ""; }, 1500); };
  function press(event) {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openPalette(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (field || $("dialog[open]")) {
      if (event.key === "Escape" && field && !$("dialog[open]")) field.blur();
      return;
    }
    const key = event.key;
    if (before === "g") {
      before = "";
      const link = $(`.rail a[data-go="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (before === "*" && key === "a") { before = ""; doing["all-matching"]?.(); return; }
    if (taskq.onKey?.(event)) { event.preventDefault(); return; }
    const known = {
      "g": () => after("g"), "*": () => after("*"), "?": doing.help, "t": turnTheme, "p": pauseLive,
      "/": () => { const filter = $("#filter"); filter?.focus(); filter?.select?.(); },
      "j": () => move(1), "k": () => move(-1),
      "o": () => { const to = here()?.dataset.href ?? $("a", here() ?? document.createElement("i"))?.href; if (to) location.href = to; },
      "y": () => { const id = here()?.dataset.id ?? $("[data-id]:not(tr)")?.dataset.id; if (id) copy(id); },
      "Escape": () => { doing.clear?.(); here()?.classList.remove("here"); },
    };
    const link = $$("main [data-key]").find((one) => one.dataset.key === key);
    const run = link ? () => link.click() : known[key];
    if (run) { event.preventDefault(); run(); }
  }
  document.addEventListener("keydown", press);

  document.addEventListener("click", (event) => {
    const copied = event.target.closest("[data-copy]");
    if (copied) { event.preventDefault(); copy(copied.dataset.copy); return; }
    const named = event.target.closest("[data-do]");
    if (named) { doing[named.dataset.do]?.(); return; }
    const closing = event.target.closest("dialog [data-close]");
    if (closing) { event.preventDefault(); closing.closest("dialog").close(); return; }
    const asking = event.target.closest("a[data-dialog]");
    if (asking && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); ask(asking.href); }
  });
  $("#palette-input").addEventListener("input", fillPalette);
  $("#palette-input").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); movePalette(event.key === "ArrowDown" ? 1 : -1); }
  });
  $("#palette-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const link = $("#palette-list a.here");
    if (link) location.href = link.href;
  });

  tick();
  setInterval(tick, 1000);
  setInterval(() => { if (topics.length && $("[data-again]")) look(); }, 5000); // what time alone changes
  if (isPaused) told("off", "paused"); else if (!topics.length) told("off", "not live"); else listen();

  return { $, $$, ask, base, copy, doing, here, move, say, stored, onKey: null };
})();
