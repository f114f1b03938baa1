"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const MISSING = 255, TOP = 254; // the bytes of NaN and of a column's highest value
const columns = Object.fromEntries(Object.entries(data.columns).map(([name, text]) => [name, bytes(text)]));
const peaks = data.peaks.map((text) => Float32Array.from(new Int8Array(bytes(text).buffer), (v) => v / 127));

// Stretches of frames in which a speaker is active, [first, end).
function runs(name) {
  const stretches = [], values = columns[name] ?? [];
  for (let i = 0, start = -1; i <= values.length; i++) {
    const on = values[i] === 1;
    if (on && start < 0) start = i;
    if (!on && start >= 0) { stretches.push([start, i]); start = -1; }
  }
  return stretches;
}
const voices = [runs("va_a"), runs("va_b")];
const painted = {}; // colours of the style sheet, resolved for light or dark
function colour(name) {
  if (!painted[name]) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${name})`;
    painted[name] = getComputedStyle(probe).color;
    probe.remove();
  }
  return painted[name];
}
const PAD_S = 1.5, MOST_PX_PER_S = 400, WAVE_PX = 64, TICKS_PX = 20, SPEECH_PX = 76;
const SPEAKER = ["A", "B"], INK = { shift: "shift", hold: "hold", backchannel: "backchannel" };
const clock = (seconds, digits = 2) =>
  Math.floor(seconds / 60) + ":" + (seconds % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
const hue = (event) => colour(INK[event.name] || "other");

// The rows below the waveforms: name, height, and the curves [column, colour, lowest, highest].
const rows = [["time", TICKS_PX, null], ["speech", SPEECH_PX, null]];
const add = (name, scale, pairs) => {
  const present = pairs.filter(([column]) => columns[column]);
  if (present.length) rows.push([name, 84, present, scale]);
};
add("<b>p</b> next speaker", ["A", "B"], [["p_a", "a"]]);
add("<b>p_bc</b> backchannel", ["1", "0"], [["p_bc_a", "a"], ["p_bc_b", "b"]]);
add("<b>p_now</b> in 0.6 s", ["A", "B"], [["p_now_a", "a"]]);
add("<b>p_future</b> later", ["A", "B"], [["p_future_a", "a"]]);
add("<b>vad</b> of the model", ["1", "0"], [["vad_a", "a"], ["vad_b", "b"]]);
add("<b>entropy</b> bits", ["8", "0"], [["entropy", "quiet"]]);
const height = rows.reduce((sum, row) => sum + row[1], 0);

const wave = WaveSurfer.create({
  container: $("wave"), url: URL.createObjectURL(new Blob([bytes(data.audio)], { type: "audio/mpeg" })),
  peaks, duration: data.duration_s, height: WAVE_PX, normalize: true, cursorColor: colour("ink"), autoScroll: true,
  autoCenter: false, dragToSeek: false, hideScrollbar: true,
  splitChannels: SPEAKER.map((_, i) => ({ waveColor: colour("ab"[i]), progressColor: colour("ab"[i]), height: WAVE_PX })),});

// The visible stretch, from the waveform's scroll container.
let still = null; // the stretch while it is drawn: reading it from the document for every point is slow
const width = () => still?.width ?? $("curves").clientWidth;
let pxPerS = 0;
const fit = () => width() / data.duration_s;
const scale = () => still?.scale ?? Math.max(pxPerS, fit());
const left = () => still?.left ?? wave.getScroll() / scale();
const x = (seconds) => (seconds - left()) * scale();

function canvas(id) {
  const element = $(id), ratio = devicePixelRatio || 1;
  element.style.height = height + "px";
  const across = Math.round(width() * ratio), down = Math.round(height * ratio);
  if (element.width !== across || element.height !== down) { element.width = across; element.height = down; }
  const context = element.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width(), height);
  return context;
}

// A curve of bytes; with `sides`, the area between it and the middle, in A's colour above and B's below.
function curve(context, values, top, tall, paint, sides) {
  const step = data.frame_s, perPixel = Math.max(1 / (step * scale()), 1), wide = step * scale() * perPixel;
  const first = Math.max(0, Math.floor(left() / step / perPixel)), last = (left() + width() / scale()) / step / perPixel;
  const y = (v) => top + tall * (1 - v / TOP), middle = TOP / 2;
  context.strokeStyle = paint;
  context.beginPath();
  for (let pixel = first, before = null; pixel <= last; pixel++) {
    const from = Math.floor(pixel * perPixel), to = Math.min(values.length, Math.max(from + 1, Math.floor((pixel + 1) * perPixel)));
    let low = MISSING, high = 0;
    for (let i = from; i < to; i++) {
      if (values[i] === MISSING) continue;
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    if (from >= to) break;
    if (low === MISSING) { before = null; continue; }
    const at = Math.round(x(from * step)), across = Math.max(Math.round(x(from * step) + wide) - at, 1);
    if (sides) {
      context.globalAlpha = 0.45;
      if (high > middle) { context.fillStyle = colour("a"); context.fillRect(at, y(high), across, y(middle) - y(high)); }
      if (low < middle) { context.fillStyle = colour("b"); context.fillRect(at, y(middle), across, y(low) - y(middle)); }
      context.globalAlpha = 1;
    }
    if (perPixel > 1) { // a column that touches the one before: quicker than the stroke of a dense line
      const upper = Math.max(high, before?.low ?? high), lower = Math.min(low, before?.high ?? low);
      context.fillStyle = paint;
      context.fillRect(at, y(upper) - 0.5, across, y(lower) - y(upper) + 1);
    } else context[before ? "lineTo" : "moveTo"](at + across / 2, y(high));
    before = { low, high };
  }
  context.lineWidth = 1.1;
  context.stroke();
}

const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800];
function ticks(context, top) {
  const every = TICKS_S.find((s) => s * scale() > 70) || 3600;
  context.fillStyle = colour("quiet");
  context.font = "11px system-ui, sans-serif";
  for (let t = Math.ceil(left() / every) * every; x(t) < width(); t += every) {
    context.fillRect(Math.round(x(t)), top + 2, 1, TICKS_PX - 4);
    context.fillText(clock(t, every < 1 ? 1 : 0), x(t) + 4, top + 14);
  }
}

function bars(context, stretches, top, tall, paint) {
  const step = data.frame_s, first = left() / step, last = first + width() / scale() / step;
  context.fillStyle = paint;
  for (const [start, end] of stretches) {
    if (end < first) continue;
    if (start > last) break;
    context.fillRect(x(start * step), top, Math.max((end - start) * step * scale(), 1), tall);
  }
}

function draw() {
  still = { width: width(), scale: scale(), left: left() };
  const context = canvas("drawing"), end = left() + width() / scale();
  let top = 0;
  for (const row of rows) {
    const [name, tall, curves] = row;
    if (top) { context.fillStyle = colour("line"); context.fillRect(0, top, width(), 1); }
    if (name === "time") { ticks(context, top); top += tall; continue; }
    const inner = top + 8, room = tall - 16;
    for (const event of listed) {
      if (event.end_s < left() || event.start_s > end) continue;
      const at = x(event.start_s), long = Math.max((event.end_s - event.start_s) * scale(), 2);
      const isBackchannel = event.name === "backchannel";
      context.fillStyle = hue(event);
      if (!curves) context.fillRect(at, top + (event.speaker ? 42 : 8), long, 6);
      else if (name.includes("p_bc") ? isBackchannel : !isBackchannel && name.includes("<b>p</b>")) {
        context.globalAlpha = event === chosen ? 0.55 : 0.22;
        context.fillRect(at, top + 1, long, tall - 1);
        context.globalAlpha = 1;
      }
    }
    if (!curves) {
      voices.forEach((stretches, i) => bars(context, stretches, top + (i ? 50 : 16), 18, colour("ab"[i])));
    } else {
      context.fillStyle = colour("line");
      context.fillRect(0, Math.round(inner + room / 2), width(), 1);
      const sides = row[3][0] === "A";
      for (const [column, paint] of curves) curve(context, columns[column], inner, room, colour(sides ? "ink" : paint), sides);
    }
    top += tall;
  }
  still = null;
  $("bar").firstElementChild.style.width = data.duration_s * scale() + "px";
  if (Math.abs($("bar").scrollLeft - wave.getScroll()) > 1) $("bar").scrollLeft = wave.getScroll();
  mark();
}

function mark() {
  const context = canvas("cursor");
  context.fillStyle = colour("ink");
  context.fillRect(Math.round(x(wave.getCurrentTime())), 0, 1, height);
  $("time").value = clock(wave.getCurrentTime());
}

let waiting = false;
const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } };

function zoom(pixels, centre = wave.getCurrentTime()) {
  const before = x(centre);
  pxPerS = Math.min(Math.max(pixels, fit()), MOST_PX_PER_S);
  wave.zoom(pxPerS <= fit() ? 0 : pxPerS);
  wave.setScroll(Math.max(0, centre * scale() - Math.min(Math.max(before, 0), width())));
  $("zoom").value = 100 * Math.log(scale() / fit()) / Math.log(MOST_PX_PER_S / fit());
  redraw();
}

// Events: a list, the most wrong first if the truth is known.
const judged = data.events.some((event) => event.error !== null);
$("order").textContent = data.events.length + (judged ? " events, the most wrong first" : " events, in order of time");
const kinds = [...new Set(data.events.map((event) => event.name))];
for (const kind of kinds) $("kind").add(new Option(kind, kind));
let chosen = null, listed = [];

function list() {
  listed = data.events.filter((event) => !$("kind").value || event.name === $("kind").value);
  listed.sort((a, b) => (b.error ?? -1) - (a.error ?? -1) || a.start_s - b.start_s);
  $("events").replaceChildren(...listed.map((event) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const dot = document.createElement("i"), time = document.createElement("time");
    const name = document.createElement("span"), sure = document.createElement("small");
    dot.style.background = hue(event);
    time.textContent = clock(event.start_s);
    name.textContent = event.name + " " + SPEAKER[event.speaker] + (event.truth && event.truth !== event.name ? ", was a " + event.truth : "");
    sure.textContent = event.probability === null ? "" : event.probability.toFixed(2);
    button.append(dot, time, name, sure);
    button.onclick = () => choose(event);
    event.button = button;
    item.append(button);
    return item;
  }));
}

function choose(event) {
  if (chosen) chosen.button?.removeAttribute("aria-current");
  chosen = event;
  event.button?.setAttribute("aria-current", "true");
  event.button?.scrollIntoView({ block: "nearest" });
  if (scale() < 40) zoom(60, event.start_s);
  wave.setScroll(Math.max(0, event.start_s * scale() - width() / 3));
  wave.setTime(Math.max(0, event.start_s - PAD_S));
  wave.play().catch(() => {});
  redraw();
}

const step = (by) => {
  const at = listed.indexOf(chosen);
  if (listed.length) choose(listed[(at < 0 ? (by > 0 ? 0 : listed.length - 1) : at + by + listed.length) % listed.length]);
};

$("cursor").onclick = (click) => {
  const seconds = left() + click.offsetX / scale();
  const away = (event) => Math.max(event.start_s - seconds, seconds - event.end_s, 0) * scale();
  const inSpeech = click.offsetY >= TICKS_PX && click.offsetY < TICKS_PX + SPEECH_PX; // elsewhere a click seeks
  const [hit] = inSpeech ? listed.filter((event) => away(event) <= 3).sort((a, b) => away(a) - away(b)) : [];
  if (hit) choose(hit); else wave.setTime(Math.min(Math.max(seconds, 0), data.duration_s));
};
$("curves").addEventListener("wheel", (wheel) => {
  if (wheel.ctrlKey) zoom(scale() * Math.exp(-wheel.deltaY / 200), left() + wheel.offsetX / scale());
  else if (wheel.deltaX || wheel.shiftKey) wave.setScroll(wave.getScroll() + (wheel.deltaX || wheel.deltaY));
  else return;
  wheel.preventDefault();
}, { passive: false });
$("play").onclick = () => wave.playPause();
$("zoom").oninput = () => zoom(fit() * (MOST_PX_PER_S / fit()) ** ($("zoom").value / 100));
$("kind").onchange = () => { list(); redraw(); };
$("help").onclick = () => { $("keys").hidden = !$("keys").hidden; $("help").setAttribute("aria-expanded", !$("keys").hidden); };

const keys = {
  " ": () => wave.playPause(), ArrowLeft: (e) => wave.skip(e.shiftKey ? -5 : -1), ArrowRight: (e) => wave.skip(e.shiftKey ? 5 : 1),
  Home: () => wave.setTime(0), End: () => wave.setTime(data.duration_s), "+": () => zoom(scale() * 1.5), "=": () => zoom(scale() * 1.5),
  "-": () => zoom(scale() / 1.5), 0: () => zoom(0), n: () => step(1), p: () => step(-1), "?": () => $("help").click(),
};
addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey || ["SELECT", "INPUT"].includes(key.target.tagName)) return;
  if (key.key === " " && key.target.id === "help") return; // on an event of the list, Enter plays it, space pauses
  if (keys[key.key]) { key.preventDefault(); keys[key.key](key); }
});

// Names at the left, beside the rows that they belong to.
let top_ = 0;
const label = (html, tall, ends) => {
  const name = document.createElement("div");
  name.innerHTML = html;
  name.style.top = top_ + tall / 2 - 8 + "px";
  $("names").append(name);
  if (ends) ends.forEach((text, i) => {
    const end = document.createElement("div");
    end.textContent = text;
    end.style.top = top_ + (i ? tall - 18 : 2) + "px";
    $("names").append(end);
  });
  top_ += tall;
};
label("<b>A</b> sound", WAVE_PX); label("<b>B</b> sound", WAVE_PX);
for (const [name, tall, curves, ends] of rows) {
  if (name === "time") top_ += tall;
  else if (!curves) { label("<b>A</b> speech", tall / 2); label("<b>B</b> speech", tall / 2); } else label(name, tall, ends);
}

$("bar").onscroll = () => { if (Math.abs($("bar").scrollLeft - wave.getScroll()) > 1) wave.setScroll($("bar").scrollLeft); };
wave.on("timeupdate", mark); wave.on("seeking", mark); wave.on("scroll", redraw); wave.on("zoom", redraw);
wave.on("ready", redraw); wave.on("redraw", redraw);
wave.on("play", () => { $("play").textContent = "Pause"; }); wave.on("pause", () => { $("play").textContent = "Play"; });
addEventListener("resize", () => zoom(pxPerS));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
list(); draw();
