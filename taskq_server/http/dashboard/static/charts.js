// The charts of the overview, drawn from what stands beside each of them.
"use strict";

(() => {
  const charts = new Map();
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  function colours() { // a canvas knows no light-dark(): the page resolves it
    const probe = document.createElement("i");
    document.body.append(probe);
    const resolved = (name) => { probe.style.color = ink(name); return getComputedStyle(probe).color; };
    const found = { lines: ["--bar-run", "--bar-good", "--bar-bad"].map(resolved), spreads: ["--bar-good", "--bar-late", "--bar-bad"].map(resolved), text: resolved("--soft"), grid: resolved("--line") };
    probe.remove();
    return found;
  }
  function draw(place) {
    const told = place.dataset.chart, known = charts.get(place.id);
    const theme = document.documentElement.dataset.theme ?? "";
    if (known && known.place === place && known.told === told && known.theme === theme && known.width === place.clientWidth) return;
    const chart = JSON.parse(told), colour = colours();
    const data = [chart.x, ...chart.series];
    if (known && known.place === place && known.theme === theme && known.width === place.clientWidth) {
      known.plot.setData(data);
      known.told = told;
      return;
    }
    known?.plot.destroy();
    const two = (number) => String(number).padStart(2, "0");
    const isLong = chart.x[chart.x.length - 1] - chart.x[0] > 90000;
    const moment = (seconds) => {
      const at = new Date(seconds * 1000);
      return isLong ? `${at.getUTCDate()}. ${two(at.getUTCHours())} h` : `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    };
    const axis = { stroke: colour.text, grid: { stroke: colour.grid, width: 1 }, ticks: { stroke: colour.grid } };
    const lines = chart.unit ? colour.spreads : colour.lines;
    const short = new Intl.NumberFormat("en", { notation: "compact" });
    const plot = new uPlot({
      width: place.clientWidth, height: 190, tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: (plot, low, high) => [0, Math.max(high * 1.1, 1)] } },
      axes: [{ ...axis, values: (plot, times) => times.map(moment) }, { ...axis, size: 56, values: (plot, numbers) => numbers.map((number) => short.format(number)) }],
      series: [{ label: "UTC", value: (plot, seconds) => seconds == null ? "–" : moment(seconds) }, ...chart.labels.map((label, i) => ({ label, stroke: lines[i], width: 1.5, points: { show: chart.series[i].filter((value) => value != null).length < 3 }, spanGaps: true }))],
    }, data, place);
    charts.set(place.id, { place, told, theme, width: place.clientWidth, plot });
  }
  const all = () => document.querySelectorAll("[data-chart]").forEach(draw);
  addEventListener("resize", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { charts.forEach((one) => { one.theme = null; }); all(); });
  for (const name of ["taskq:look", "taskq:theme"]) document.addEventListener(name, all);
  all();
})();
