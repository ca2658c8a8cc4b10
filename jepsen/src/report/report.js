// Draws the charts of a report from the JSON in its page. Loads nothing; texts of the history are
// only ever set as text.
"use strict";
(() => {
const trouble = document.getElementById("trouble");
const fail = (what) => {
  trouble.hidden = false;
  trouble.textContent = `The charts could not be drawn: ${what}. All numbers are in the tables.`;
};
window.addEventListener("error", (event) => fail(event.message));

const data = JSON.parse(document.getElementById("data").textContent);
const span = Math.max(data.span_ms, 1);
const nodes = Math.max(data.nodes.length, 1);
const OUTCOMES = ["ok", "fail", "info"];
const DASHES = [[], [7, 3], [2, 3], [10, 3, 2, 3], [4, 2], [1, 2]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (parent, tag, properties = {}) =>
  parent.appendChild(Object.assign(document.createElement(tag), properties));
const digits = (x) => x.toLocaleString("en", { maximumSignificantDigits: 3 });
const count = (n) => n.toLocaleString("en");
function duration(ms) {
  if (ms < 1) return `${digits(ms * 1000)} µs`;
  if (ms < 1000) return `${digits(ms)} ms`;
  return `${digits(ms / 1000)} s`;
}
const seconds = (ms) => `${(ms / 1000).toFixed(view[1] - view[0] < 10000 ? 3 : 1)} s`;

// The part of the run that all charts show, in milliseconds.
let view = [0, span];
const charts = [];
const tip = make(document.body, "div", { className: "tip", hidden: true });
const all = make(document.body, "button", { className: "zoomed", hidden: true, type: "button" });
all.addEventListener("click", () => look(0, span));

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    charts.filter((chart) => chart.near).forEach((chart) => chart.draw());
  });
}
function look(from, to) {
  const width = Math.min(Math.max(to - from, span / 5000, 0.05), span);
  from = Math.min(Math.max(from, 0), span - width);
  view = [from, from + width];
  all.hidden = width >= span;
  all.textContent = `${seconds(from)} to ${seconds(from + width)} · show all`;
  charts.forEach((chart) => { chart.stale = true; });
  redraw();
}
function say(event, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 14 + box.width > innerWidth;
  tip.style.left = `${Math.max(4, right ? event.clientX - box.width - 10 : event.clientX + 14)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 12, innerHeight - box.height - 6))}px`;
}

// Faults: a row each, so that those that overlap are apart.
const family = (fault) => fault.fault.split("-")[0];
const families = [...new Set(data.recovery.spans.map(family))];
const rows = [];
for (const fault of data.recovery.spans) {
  fault.colour = `--f${families.indexOf(family(fault)) % 6}`;
  fault.label = [fault.fault, ...fault.on].join(" ");
  let row = rows.findIndex((end) => end <= fault.from_ms);
  if (row < 0) row = rows.length < 4 ? rows.push(0) - 1 : rows.indexOf(Math.min(...rows));
  rows[row] = Math.max(rows[row], fault.to_ms);
  fault.row = row;
}
const ROW = 15;

function ticks(from, to, most) {
  const rough = (to - from) / most;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to + step / 1e6; at += step) found.push(at);
  return found;
}

class Chart {
  constructor(figure, spec) {
    Object.assign(this, spec, { figure, stale: true, near: false });
    this.plot = make(figure, "div", { className: "plot", tabIndex: 0 });
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
    this.canvas = make(this.plot, "canvas");
    this.over = make(this.plot, "canvas");
    if (spec.legend) this.addLegend();
    this.listen();
    charts.push(this);
    new ResizeObserver(() => { this.stale = true; redraw(); }).observe(this.plot);
    new IntersectionObserver((seen) => {
      this.near = seen[seen.length - 1].isIntersecting;
      if (this.near) redraw();
    }, { rootMargin: "300px" }).observe(this.plot);
  }
  addLegend() {
    const list = make(this.figure, "ul", { className: "legend" });
    for (const { name, colour, dash } of this.legend) {
      const item = make(list, "li");
      const line = `stroke="var(${colour})" stroke-width="2.5" stroke-dasharray="${dash}"`;
      item.innerHTML = `<svg width="30" height="10" aria-hidden="true"><line x2="30" y1="5" y2="5" ${line}/></svg>`;
      item.append(name);
    }
  }
  listen() {
    const at = (event) => event.clientX - this.plot.getBoundingClientRect().left;
    let from = null;
    this.plot.addEventListener("pointerdown", (event) => { if (event.button === 0) from = at(event); });
    this.plot.addEventListener("pointermove", (event) => {
      if (from !== null) this.select(from, at(event));
      else this.hover(event);
    });
    this.plot.addEventListener("pointerup", (event) => {
      const [a, b] = [from, at(event)].sort((x, y) => x - y);
      if (from !== null && b - a > 5) look(this.time(a), this.time(b));
      from = null;
      this.select(0, 0);
    });
    for (const name of ["pointerleave", "pointercancel"]) {
      this.plot.addEventListener(name, () => { from = null; say(null, ""); this.select(0, 0); });
    }
    this.plot.addEventListener("dblclick", () => look(0, span));
    this.plot.addEventListener("keydown", (event) => {
      const width = view[1] - view[0];
      const middle = (view[0] + view[1]) / 2;
      const keys = {
        ArrowLeft: () => look(view[0] - width / 4, view[1] - width / 4),
        ArrowRight: () => look(view[0] + width / 4, view[1] + width / 4),
        "+": () => look(middle - width / 4, middle + width / 4),
        "=": () => look(middle - width / 4, middle + width / 4),
        "-": () => look(middle - width, middle + width),
        0: () => look(0, span),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
  x(ms) { return this.left + (ms - view[0]) / (view[1] - view[0]) * this.width; }
  time(x) { return view[0] + (x - this.left) / this.width * (view[1] - view[0]); }
  y(value) {
    const [low, high] = this.range;
    const share = this.log ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : value / high;
    return this.top + (1 - share) * this.tall;
  }
  draw() {
    if (!this.stale || this.plot.clientWidth < 100) return;
    this.stale = false;
    const narrow = this.plot.clientWidth < 500;
    const height = (this.height ?? 210) * (narrow && this.height > 300 ? 0.8 : 1) + rows.length * ROW;
    this.plot.style.height = `${height}px`;
    const width = this.plot.clientWidth;
    const scale = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = width * scale;
      canvas.height = height * scale;
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    [this.left, this.top] = [52, rows.length * ROW + 6];
    [this.width, this.tall] = [width - this.left - 10, height - this.top - 24];
    const g = this.canvas.getContext("2d");
    g.font = "12px system-ui, sans-serif";
    this.drawFaults(g);
    this.drawAxes(g);
    g.save();
    g.beginPath();
    g.rect(this.left, this.top - 5, this.width, this.tall + 6);
    g.clip();
    this.paint(g, this);
    g.restore();
  }
  drawFaults(g) {
    g.textBaseline = "middle";
    for (const fault of data.recovery.spans) {
      const from = Math.max(this.x(fault.from_ms), this.left);
      const to = Math.min(this.x(fault.to_ms), this.left + this.width);
      if (to < this.left || from > this.left + this.width) continue;
      const wide = Math.max(to - from, 1.5);
      g.fillStyle = colour(fault.colour);
      g.globalAlpha = 0.1;
      g.fillRect(from, this.top, wide, this.tall);
      g.globalAlpha = 0.32;
      g.fillRect(from, fault.row * ROW + 1, wide, ROW - 2);
      g.globalAlpha = 1;
      g.fillRect(from, fault.row * ROW + 1, 2, ROW - 2);
      if (wide < 26) continue;
      g.fillStyle = colour("--ink");
      g.font = "11px system-ui, sans-serif";
      g.fillText(fitted(g, fault.label, wide - 7), from + 5, fault.row * ROW + ROW / 2 + 0.5);
      g.font = "12px system-ui, sans-serif";
    }
  }
  drawAxes(g) {
    const [line, soft] = [colour("--line"), colour("--soft")];
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    for (const value of this.marks()) {
      const y = Math.round(this.y(value)) + 0.5;
      g.strokeStyle = line;
      g.beginPath();
      g.moveTo(this.left, y);
      g.lineTo(this.left + this.width, y);
      g.stroke();
      g.fillStyle = soft;
      g.fillText(this.log ? duration(value) : digits(value), this.left - 6, y);
    }
    g.textAlign = "center";
    g.textBaseline = "top";
    const step = view[1] - view[0];
    for (const ms of ticks(view[0], view[1], Math.max(2, this.width / 90))) {
      const x = this.x(ms);
      g.strokeStyle = line;
      g.beginPath();
      g.moveTo(x, this.top + this.tall);
      g.lineTo(x, this.top + this.tall + 4);
      g.stroke();
      const text = step < 50 ? `${digits(ms)} ms` : `${+(ms / 1000).toFixed(3)} s`;
      if (x < this.left + this.width - 14) g.fillText(text, x, this.top + this.tall + 6);
    }
    g.textAlign = "left";
  }
  marks() {
    if (!this.log) return ticks(0, this.range[1], 4);
    const found = [];
    for (let value = this.range[0]; value <= this.range[1] * 1.001; value *= 10) found.push(value);
    return found;
  }
  select(from, to) {
    const g = this.over.getContext("2d");
    g.clearRect(0, 0, this.plot.clientWidth, this.plot.clientHeight);
    if (from === to) return;
    g.fillStyle = colour("--accent");
    g.globalAlpha = 0.22;
    g.fillRect(Math.min(from, to), 0, Math.abs(to - from), this.top + this.tall);
    g.globalAlpha = 1;
  }
  hover(event) {
    const box = this.plot.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.select(0, 0);
    if (x < this.left || x > this.left + this.width) return say(event, "");
    const ms = this.time(x);
    if (y < this.top) {
      const row = Math.floor(y / ROW);
      const slack = 3 / this.width * (view[1] - view[0]);
      const hit = data.recovery.spans.find((fault) =>
        fault.row === row && fault.from_ms - slack <= ms && ms <= fault.to_ms + slack);
      return say(event, hit ? faultText(hit) : "");
    }
    const found = this.find(ms, x, y, this);
    if (found?.at !== undefined) {
      const g = this.over.getContext("2d");
      g.strokeStyle = colour("--ink");
      g.lineWidth = 1.5;
      g.beginPath();
      if (found.y === undefined) {
        g.moveTo(found.at, this.top);
        g.lineTo(found.at, this.top + this.tall);
      } else {
        g.arc(found.at, found.y, 7, 0, 7);
      }
      g.stroke();
    }
    const active = data.recovery.spans.filter((fault) => fault.from_ms <= ms && ms <= fault.to_ms);
    const faults = active.length ? `\nduring ${active.map((fault) => fault.label).join("; ")}` : "";
    say(event, found ? found.text + faults : "");
  }
}
const faultText = (fault) =>
  `${fault.label}\nfrom ${seconds(fault.from_ms)} to ${fault.stops ? seconds(fault.to_ms) : "the end"}`
  + (fault.wait_ms == null ? "" : `\nlongest wait for an ok: ${duration(fault.wait_ms)}`)
  + (fault.majority == null ? "" : `\na majority was ${fault.majority ? "kept" : "lost"}`);
function fitted(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  while (text && g.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return text && `${text}…`;
}

// ---- the scatter
const running = (deltas, factor = 1) => {
  let sum = 0;
  return Float64Array.from(deltas, (delta) => (sum += delta) * factor);
};
const points = data.scatter.points;
points.at = running(points.time, 1 / 1000);
points.firstLine = running(points.line);
const cells = data.scatter.cells;
cells.column = running(cells.x);
const most = Math.log(1 + cells.count.reduce((most, n) => Math.max(most, n), 1));
cells.level = Uint8Array.from(cells.count, (n) => Math.min(5, Math.floor(Math.log(1 + n) / most * 6)));
const cellWidth = cells.width_us / 1000;
const lowest = (y) => 10 ** (y / cells.rows_per_decade) / 1000;
const shown = { kinds: data.kinds.map((kind) => kind !== data.refused), nodes: data.nodes.map(() => true), outcomes: [true, true, true] };
const visible = (group, outcome) => shown.outcomes[outcome]
  && shown.kinds[Math.floor(group / nodes)] && shown.nodes[group % nodes];
const NAMES = ["--ok", "--fail", "--info"];
const SYMBOLS = [
  '<circle cx="6" cy="6" r="3.5" fill="var(--ok)"/>',
  '<path d="M2 2L10 10M10 2L2 10" stroke="var(--fail)" stroke-width="2.4"/>',
  '<path d="M6 1.5L11 10.5H1Z" fill="none" stroke="var(--info)" stroke-width="2"/>',
];
function symbol(g, outcome, x, y, r) {
  g.moveTo(x - r, outcome === 1 ? y - r : y + r);
  if (outcome === 1) {
    g.lineTo(x + r, y + r);
    g.moveTo(x + r, y - r);
    g.lineTo(x - r, y + r);
  } else {
    g.lineTo(x, y - r);
    g.lineTo(x + r, y + r);
    g.closePath();
  }
}
// The symbol as an image: there may be a hundred thousand of it.
function stamped(outcome) {
  const scale = devicePixelRatio || 1;
  const canvas = Object.assign(document.createElement("canvas"), { width: 10 * scale, height: 10 * scale });
  const g = canvas.getContext("2d");
  g.scale(scale, scale);
  g.strokeStyle = colour(NAMES[outcome]);
  g.lineWidth = 1.5;
  symbol(g, outcome, 5, 5, 3.2);
  g.stroke();
  return canvas;
}
function bound(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}
function paintScatter(g, chart) {
  const wide = Math.max(cellWidth / (view[1] - view[0]) * chart.width, 1);
  const from = bound(cells.column, view[0] / cellWidth - 1), to = bound(cells.column, view[1] / cellWidth + 1);
  for (let outcome = 0; outcome < 3; outcome++) {
    g.fillStyle = colour(NAMES[outcome]);
    for (let level = 0; level < 6; level++) {
      g.globalAlpha = 0.18 + level * 0.13;
      for (let i = from; i < to; i++) {
        if (cells.level[i] !== level || cells.outcome[i] !== outcome) continue;
        if (!visible(cells.group[i], outcome)) continue;
        const [top, bottom] = [chart.y(lowest(cells.y[i] + 1)), chart.y(lowest(cells.y[i]))];
        g.fillRect(chart.x(cells.column[i] * cellWidth), top, wide, Math.max(bottom - top, 1));
      }
    }
  }
  const [first, last] = view.map((ms) => bound(points.at, ms));
  g.globalAlpha = last - first > 8000 ? 0.5 : 0.75;
  g.fillStyle = colour("--ok");
  const size = last - first > 8000 ? 2 : 3;
  for (let i = first; i < last; i++) {
    if (points.outcome[i] || !visible(points.group[i], 0)) continue;
    g.fillRect(chart.x(points.at[i]) - size / 2, chart.y(points.latency[i] / 1000) - size / 2, size, size);
  }
  g.globalAlpha = 0.85;
  for (const outcome of [1, 2]) {
    const stamp = stamped(outcome);
    // One a pixel: further ones would lie on it.
    const taken = new Uint8Array((chart.width + 2) * (chart.tall + 2));
    for (let i = first; i < last; i++) {
      if (points.outcome[i] !== outcome || !visible(points.group[i], outcome)) continue;
      const x = Math.round(chart.x(points.at[i]));
      const y = Math.round(chart.y(points.latency[i] / 1000));
      const pixel = (y - chart.top) * (chart.width + 1) + x - chart.left;
      if (taken[pixel]) continue;
      taken[pixel] = 1;
      g.drawImage(stamp, x - 5, y - 5, 10, 10);
    }
  }
  g.globalAlpha = 1;
}
const groupText = (group) => `${data.kinds[Math.floor(group / nodes)]} on ${data.nodes[group % nodes]}`;
function findScatter(ms, x, y, chart) {
  const slack = 8 / chart.width * (view[1] - view[0]);
  let [best, nearest] = [-1, 64];
  for (let i = bound(points.at, ms - slack), to = bound(points.at, ms + slack); i < to; i++) {
    if (!visible(points.group[i], points.outcome[i])) continue;
    const away = (chart.x(points.at[i]) - x) ** 2 + (chart.y(points.latency[i] / 1000) - y) ** 2;
    if (away < nearest) [best, nearest] = [i, away];
  }
  if (best >= 0) {
    const line = points.firstLine[best];
    const lines = points.lasts[best] ? `lines ${line}, ${line + points.lasts[best]}` : `line ${line}, never ended`;
    const error = points.error[best] ? ` (${points.errors[points.error[best] - 1]})` : "";
    return {
      at: chart.x(points.at[best]), y: chart.y(points.latency[best] / 1000),
      text: `${groupText(points.group[best])}: ${OUTCOMES[points.outcome[best]]}${error}\n`
        + `room ${points.rooms[points.room[best]]}\n`
        + `began at ${seconds(points.at[best])}, took ${duration(points.latency[best] / 1000)}\n${lines}`,
    };
  }
  const column = Math.floor(ms / cellWidth);
  const found = [];
  for (let i = bound(cells.column, column); i < cells.column.length && cells.column[i] === column; i++) {
    const inside = chart.y(lowest(cells.y[i] + 1)) <= y && y <= chart.y(lowest(cells.y[i]));
    if (inside && visible(cells.group[i], cells.outcome[i])) {
      found.push(`${count(cells.count[i])} × ${groupText(cells.group[i])}: ${OUTCOMES[cells.outcome[i]]}`);
    }
  }
  return found.length ? { text: found.join("\n") } : null;
}
function chips(figure, title, names, flags, symbols) {
  const set = make(figure, "fieldset", { className: "chips" });
  make(set, "legend", { textContent: title });
  names.forEach((name, i) => {
    const chip = make(set, "button", { type: "button" });
    if (symbols) chip.innerHTML = `<svg width="12" height="12" aria-hidden="true">${symbols[i]}</svg>`;
    chip.append(name);
    chip.setAttribute("aria-pressed", String(flags[i]));
    chip.addEventListener("click", () => {
      flags[i] = !flags[i];
      chip.setAttribute("aria-pressed", String(flags[i]));
      charts.forEach((chart) => { if (chart.paint === paintScatter) chart.stale = true; });
      redraw();
    });
  });
}
function logRange(values) {
  let [low, high] = [Infinity, 0];
  for (const value of values) {
    if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  if (!high) return [1, 100];
  low = 10 ** Math.floor(Math.log10(Math.max(low, 0.01)));
  return [low, Math.max(10 ** Math.ceil(Math.log10(high)), low * 10)];
}

// ---- lines
const over = data.over_time;
const centre = (window) => (window + 0.5) * over.width_ms;
function lines(figure, spec) {
  const series = spec.series;
  const values = series.flatMap((one) => one.values).filter((value) => value != null);
  const most = values.reduce((most, value) => Math.max(most, value), 0);
  const top = ticks(0, Math.max(most, 1), 4).at(-1);
  new Chart(figure, {
    log: spec.log,
    range: spec.log ? spec.range ?? logRange(values) : [0, top >= most ? Math.max(top, 1) : top * 1.34],
    legend: series,
    paint: (g, chart) => series.forEach((one) => line(g, chart, one)),
    find: (ms, x, y, chart) => {
      const window = Math.min(Math.floor(ms / over.width_ms), (series[0]?.values.length ?? 1) - 1);
      const shownAs = (value) => value == null ? "–" : spec.log ? duration(value) : `${digits(value)} a second`;
      const text = series.map((one) => `${one.name}: ${shownAs(one.values[window])}`).join("\n");
      const from = window * over.width_ms;
      return { at: chart.x(centre(window)), text: `${seconds(from)} to ${seconds(from + over.width_ms)}\n${text}` };
    },
  });
}
function line(g, chart, { values, colour: name, dash }) {
  g.strokeStyle = g.fillStyle = colour(name);
  g.lineWidth = 1.8;
  g.setLineDash(dash);
  g.beginPath();
  values.forEach((value, i) => {
    if (value == null) return;
    const [x, y] = [chart.x(centre(i)), chart.y(value)];
    if (i && values[i - 1] != null) g.lineTo(x, y); else g.moveTo(x, y);
    if ((!i || values[i - 1] == null) && values[i + 1] == null) g.fillRect(x - 2, y - 2, 4, 4);
  });
  g.stroke();
  g.setLineDash([]);
}
const styled = (list) => list.map((one, i) =>
  ({ ...one, colour: `--c${i % 6}`, dash: DASHES[(i + (i >= 6)) % DASHES.length] }));
const quantile = (series, name) => series.quantiles.map((these) => these && these[name]);

// ---- waits
function recovery(figure) {
  const marks = [
    ...data.recovery.spans.map((fault) => ({ at: fault.from_ms, ms: fault.wait_ms, fault })),
    ...data.recovery.heals.map((heal) => ({ at: heal.at_ms, ms: heal.last_room_ms, heal })),
  ].filter((mark) => mark.ms != null).map((mark) => ({ ...mark, ms: Math.max(mark.ms, 0.001) }));
  const paint = (g, chart) => {
    for (const mark of marks) {
      const [x, y] = [chart.x(mark.at), chart.y(mark.ms)];
      g.strokeStyle = g.fillStyle = colour(mark.heal ? "--c2" : "--c0");
      g.lineWidth = 2;
      g.beginPath();
      g.moveTo(x, chart.top + chart.tall);
      g.lineTo(x, y);
      g.stroke();
      g.save();
      g.translate(x, y);
      if (mark.fault) g.rotate(Math.PI / 4);
      if (mark.fault?.majority === false) g.strokeRect(-4, -4, 8, 8);
      else g.fillRect(-4, -4, 8, 8);
      g.restore();
    }
  };
  const find = (ms, x, y, chart) => {
    const near = marks.map((mark) => ({ mark, away: Math.abs(chart.x(mark.at) - x) }))
      .sort((a, b) => a.away - b.away)[0];
    if (!near || near.away > 12) return null;
    const { fault, heal } = near.mark;
    const text = fault ? faultText(fault)
      : `all faults ended at ${seconds(heal.at_ms)}\nfirst ok after ${duration(heal.first_ok_ms)}`
        + `\nlast waiting room served after ${duration(heal.last_room_ms)}`;
    return { at: chart.x(near.mark.at), text };
  };
  new Chart(figure, { log: true, range: logRange([1, 1000, ...marks.map((mark) => mark.ms)]), paint, find });
}

// ---- witnesses
const SVG = "http://www.w3.org/2000/svg";
function draw(parent, tag, attributes, text) {
  const node = parent.appendChild(document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function timeline(box) {
  const { lanes, times_ms: times, bars, marks } = data.timelines[Number(box.dataset.timeline)];
  const beside = box.clientWidth >= 700;
  const tall = beside ? 50 : 64; // a lane; in narrow pages its name is above its bars
  const left = beside ? 150 : 10;
  const step = Math.max((box.clientWidth - left - 110) / Math.max(times.length, 1), 40);
  const width = left + step * times.length + 106;
  const top = 8 + marks.length * 16;
  const bottom = top + lanes.length * tall;
  const x = (place) => left + step * (place + 0.5);
  const barTop = (bar) => top + bar.lane * tall + tall - 28;
  box.replaceChildren();
  const svg = draw(box, "svg", { width, height: bottom + 34, role: "img" });
  svg.setAttribute("aria-label", `${bars.length} operations of ${lanes.length} processes; the table below has them`);
  times.forEach((_, place) => draw(svg, "line", { class: "time", x1: x(place), x2: x(place), y1: top, y2: bottom }));
  lanes.forEach((name, lane) => {
    const y = top + lane * tall;
    draw(svg, "line", { class: "lane", x1: 0, x2: width, y1: y, y2: y });
    draw(svg, "text", beside ? { class: "quiet", x: 4, y: y + 35 } : { class: "quiet", x: 4, y: y + 12, "font-size": 10 }, name.length > 24 ? `${name.slice(0, 23)}…` : name);
  });
  times.forEach((ms, place) => {
    const gap = place ? ms - times[place - 1] : 0;
    const every = Math.ceil(64 / step);
    if (place % every === 0) {
      draw(svg, "text", { class: "quiet", x: x(place), y: bottom + 14, "text-anchor": "middle", "font-size": 11 }, axisTime(ms));
    }
    if (gap > Math.max(span / 20, 100)) {
      draw(svg, "text", { class: "quiet", x: x(place) - step / 2, y: bottom + 28, "text-anchor": "middle", "font-size": 11 }, `⋯ ${duration(gap)} ⋯`);
    }
  });
  marks.forEach((mark, row) => {
    const [at, late] = [x(mark.at), mark.at > times.length / 2];
    draw(svg, "line", { class: "mark", x1: at, x2: at, y1: 4 + row * 16, y2: bottom });
    const text = (mark.witness ? `${mark.witness}  ` : "") + mark.text.replace(/^process nemesis: /, "").replace(/ \[\d+\]$/, "");
    draw(svg, "text", { x: late ? at - 5 : at + 5, y: 15 + row * 16, "text-anchor": late ? "end" : "start", class: mark.witness ? "strong" : "" }, text);
  });
  for (const bar of bars) drawBar(svg, bar, { bars, x, y: barTop, width });
  drawOrder(svg, bars.filter((bar) => bar.witness), { x, y: barTop });
}
const axisTime = (ms) => ms < 1000 ? `${ms.toFixed(ms < 10 ? 3 : 1)} ms` : `${(ms / 1000).toFixed(3)} s`;
function drawBar(svg, bar, { bars, x, y: barTop, width }) {
  const group = draw(svg, "g", {});
  const y = barTop(bar);
  const [from, to] = [x(bar.from), x(bar.to ?? bar.from)];
  const wide = bar.to === null ? width - from : Math.max(to - from, 10);
  const start = bar.to === bar.from ? from - 5 : from;
  draw(group, "rect", { class: `b ${bar.outcome} ${bar.witness ? "w" : ""}`, x: start, y, width: wide, height: 18, rx: 3 });
  if (bar.outcome === "info" && bar.to !== null) {
    draw(group, "line", { class: "tail", x1: start + wide, x2: width, y1: y + 9, y2: y + 9 });
  }
  const next = bars.filter((other) => other.lane === bar.lane && other.from > bar.from);
  const end = Math.min(width, ...next.map((other) => x(other.from)));
  const room = Math.floor((end - from - (bar.witness ? 22 : 0)) / 6.1);
  const label = bar.label.length > room ? `${bar.label.slice(0, Math.max(room - 1, 1))}…` : bar.label;
  if (bar.witness) {
    draw(group, "circle", { class: "badge", cx: start + 8, cy: y - 10, r: 8 });
    draw(group, "text", { class: "badge-text", x: start + 8, y: y - 6, "text-anchor": "middle" }, bar.witness);
  }
  draw(group, "text", { x: start + (bar.witness ? 20 : 0), y: y - 6, class: bar.witness ? "strong" : "" }, label);
  group.addEventListener("pointermove", (event) => say(event, bar.text));
  group.addEventListener("pointerleave", () => say(null, ""));
}
// From the end of a witness to the beginning of the next, where that came later.
function drawOrder(svg, witnesses, { x, y: barTop }) {
  const y = (bar) => barTop(bar) + 9;
  for (let i = 1; i < witnesses.length; i++) {
    const [a, b] = [witnesses[i - 1], witnesses[i]];
    if (a.to === null || a.to >= b.from || a.lane === b.lane) continue;
    const [x1, y1, x2, y2] = [Math.max(x(a.to), x(a.from) + 5), y(a), x(b.from) - (b.to === b.from ? 6 : 1), y(b)];
    draw(svg, "path", { class: "then", d: `M${x1} ${y1}C${x1 + 24} ${y1} ${x2 - 24} ${y2} ${x2 - 7} ${y2}` });
    draw(svg, "path", { class: "head", d: `M${x2} ${y2}l-9 -5v10z` });
  }
}

// ---- the page
const place = (name) => document.querySelector(`[data-chart="${name}"]`);
function start() {
  const scatter = place("scatter");
  if (data.nodes.length && (points.at.length || cells.column.length)) {
    chips(scatter, "Show", OUTCOMES, shown.outcomes, SYMBOLS);
    chips(scatter, "Kind", data.kinds, shown.kinds);
    chips(scatter, "Node", data.nodes, shown.nodes);
    const slowest = points.latency.reduce((most, us) => Math.max(most, us), 0) / 1000;
    const quickest = points.latency.reduce((least, us) => Math.min(least, us || 1), Infinity) / 1000;
    const inCells = cells.y.reduce((least, y) => Math.min(least, y), Infinity);
    const low = Math.min(quickest, inCells < Infinity ? lowest(inCells) : Infinity);
    new Chart(scatter, { height: 400, log: true, range: logRange([low, slowest]), paint: paintScatter, find: findScatter });
  }
  const names = { p50: "p50", p99: "p99", p999: "p99.9" };
  const drawn = over.kinds.filter((kind, i) => place(`quantiles-${i}`));
  const range = logRange(drawn.flatMap((kind) => [kind.all.p50 / 2, kind.all.max]));
  over.kinds.forEach((kind, i) => {
    const figure = place(`quantiles-${i}`);
    const series = Object.keys(names).map((name) => ({ name: names[name], values: quantile(kind, name) }));
    if (figure) lines(figure, { log: true, range, series: styled(series) });
  });
  const byNode = (values) => styled(over.nodes.map((node) => ({ name: node.name, values: values(node) })));
  lines(place("p99-nodes"), { log: true, series: byNode((node) => quantile(node, "p99")) });
  const rates = drawn.map((kind) => ({ name: kind.name, values: kind.ok }));
  lines(place("rate-kinds"), { series: styled(rates) });
  const deliveries = { name: "deliveries", values: over.deliveries };
  if (place("rate-deliveries")) lines(place("rate-deliveries"), { series: styled([deliveries]) });
  lines(place("rate-nodes"), { series: byNode((node) => node.ok) });
  lines(place("rate-not-ok"), { series: styled(over.kinds
    .filter((kind) => kind.name !== data.refused && kind.not_ok.some((rate) => rate > 0))
    .map((kind) => ({ name: kind.name, values: kind.not_ok }))) });
  if (place("recovery")) recovery(place("recovery"));
  const boxes = [...document.querySelectorAll("[data-timeline]")];
  boxes.forEach((box) => {
    let width = -1;
    box.tabIndex = 0;
    new ResizeObserver(() => {
      if (box.clientWidth !== width) timeline(box);
      width = box.clientWidth;
    }).observe(box);
    timeline(box);
  });
  for (const link of document.querySelectorAll('a[href^="#witness-"]')) {
    link.addEventListener("click", () => {
      document.getElementById(link.hash.slice(1)).closest("details").open = true;
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    charts.forEach((chart) => { chart.stale = true; });
    redraw();
  });
  charts.forEach((chart) => chart.draw());
  document.documentElement.dataset.drawn = `${charts.length} charts, ${boxes.length} pictures`;
}
try {
  start();
} catch (error) {
  fail(error.message);
  throw error;
}
})();
