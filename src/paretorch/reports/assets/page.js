"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MANY = 4; // panels that are shown at once; of more one is chosen
  const MOST_SHOWN = 10; // treatments that are shown at first
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = () => window.innerWidth < 640;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  // plotly reads a few tags in its texts: names are shown as they stand
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const shown = data.parts.map((part) => new Set(part.first.slice(0, MOST_SHOWN)));
  const drawn = [];

  const element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };
  const ink = (look) => (dark.matches && !window.matchMedia("print").matches ? look[1] : look[0]);
  const look = (place) => data.looks[place % data.looks.length];
  const digits = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());

  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines.length - 1;
      if (lines[last] && (lines[last] + " " + word).length > most) lines.push(word);
      else lines[last] = lines[last] ? lines[last] + " " + word : word;
    }
    return lines.map((line) => plain(cut(line, most + 6))).join("<br>");
  }

  function layout(x, y, more = {}) {
    const axis = { gridcolor: colour("grid"), linecolor: colour("soft"), zerolinecolor: colour("soft"), ticks: "outside", tickcolor: colour("soft"), automargin: true, exponentformat: "power" };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, margin: { l: 50, r: 14, t: 12, b: 44 },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
      xaxis: { ...axis, title: { text: wrapped(x, narrow() ? 30 : 80), standoff: 8 } },
      yaxis: { ...axis, title: { text: wrapped(y, 30), standoff: 6 } }, ...more,
    };
  }
  const options = { responsive: true, displaylogo: false, displayModeBar: false };

  function band(line, x, tint) {
    const there = x.map((_, i) => i).filter((i) => x[i] !== null && line.l[i] !== null && line.h[i] !== null);
    const back = there.slice().reverse();
    return {
      x: [...there.map((i) => x[i]), ...back.map((i) => x[i])], y: [...there.map((i) => line.l[i]), ...back.map((i) => line.h[i])],
      type: "scatter", mode: "lines", fill: "toself", line: { width: 0 }, fillcolor: tint, hoverinfo: "skip",
    };
  }
  const faint = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");

  function curves(panel, part, state) {
    const traces = [];
    const lines = panel.lines.filter((line) => shown[part].has(line.t));
    const names = data.parts[part].labels;
    const x = (line) => (state.timed ? line.s : line.x);
    if (state.bands && lines.length <= MOST_SHOWN) for (const line of lines) if (line.l) traces.push(band(line, x(line), faint(ink(look(line.t)), 0.1)));
    for (const line of lines) {
      const style = look(line.t);
      const every = Math.max(1, Math.floor(line.y.length / 8));
      traces.push({
        x: x(line), y: line.y, type: "scatter", mode: line.y.length === 1 ? "markers" : "lines+markers", line: { color: ink(style), dash: style[2], width: 1.8 },
        marker: { symbol: style[3], size: line.y.map((_, i) => (i % every === line.t % every ? 7 : 0)), color: ink(style), line: { width: 0 } },
        error_y: line.y.length === 1 && line.l ? { type: "data", symmetric: false, array: [line.h[0] - line.y[0]], arrayminus: [line.y[0] - line.l[0]], thickness: 1.2 } : undefined,
        text: line.y.map((y, i) => `<b>${plain(names[line.t])}</b><br>${plain(panel.title)} ${digits(y)}${line.l ? ` [${digits(line.l[i])}, ${digits(line.h[i])}]` : ""}<br>${plain(panel.x ?? "epoch")} ${digits(line.x[i])}, ${line.n} ${line.n === 1 ? "seed" : "seeds"}`),
        hoverinfo: "text",
      });
    }
    for (const line of lines.filter((each) => each.m)) {
      traces.push({
        x: line.m.map((mark) => mark[state.timed ? 1 : 0]), y: line.m.map((mark) => mark[2]), type: "scatter", mode: "markers",
        marker: { symbol: "cross-thin", size: 12, line: { width: 2.5, color: ink(look(line.t)) } },
        text: line.m.map((mark) => `<b>${plain(names[line.t])}</b><br>${wrapped(mark[3], 60)}`), hoverinfo: "text",
      });
    }
    const last = Math.max(1, ...lines.map((line) => line.x[line.x.length - 1]));
    const more = layout(state.timed ? "seconds of training" : panel.x ?? "epoch", panel.quantity);
    if (panel.log) more.yaxis = { ...more.yaxis, type: "log", dtick: 1 };
    if (!state.timed && !panel.x && last <= 10) more.xaxis.dtick = 1;
    return [traces, more];
  }

  const VERDICTS = { better: ["triangle-left", "better"], worse: ["triangle-right-open", "worse"], "not distinguishable": ["circle-open", "same"], withheld: ["x-thin-open", "same"] };
  function forest(spec, part) {
    const names = data.parts[part].labels;
    const rows = spec.rows.slice().sort((a, b) => b[1] - a[1]);
    const traces = rows.map(([place, mean, low, high, verdict], i) => {
      const [symbol, kind] = VERDICTS[verdict];
      return {
        x: [mean], y: [i], type: "scatter", mode: "markers", marker: { symbol, size: 11, color: colour(kind), line: { width: 2, color: colour(kind) } },
        error_x: low === null ? undefined : { type: "data", symmetric: false, array: [high - mean], arrayminus: [mean - low], color: colour(kind), thickness: 1.6, width: 5 },
        text: [`<b>${plain(names[place])}</b><br>${digits(mean)}${low === null ? "" : ` [${digits(low)}, ${digits(high)}]`}<br>${verdict}`], hoverinfo: "text",
      };
    });
    const more = layout(spec.axis, "");
    more.yaxis = { ...more.yaxis, tickvals: rows.map((_, i) => i), ticktext: rows.map((row) => plain(cut(names[row[0]], narrow() ? 18 : 44))), showgrid: false, zeroline: false, title: undefined, range: [-0.7, rows.length - 0.3], ticks: "" };
    more.xaxis = { ...more.xaxis, zeroline: true, zerolinewidth: 2 };
    more.height = 90 + 30 * rows.length;
    return [traces, more];
  }

  function plane(spec, part, state) {
    const names = data.parts[part].labels;
    const [x, y] = [spec.axes[state.x], spec.axes[state.y]];
    const ends = ([mean, low, high]) => (low === null || mean === null ? undefined : { type: "data", symmetric: false, array: [high - mean], arrayminus: [mean - low], thickness: 1.2, width: 3 });
    const traces = [];
    for (const place of shown[part]) {
      const [one, other] = [x.points[place], y.points[place]];
      if (one[0] === null || other[0] === null) continue;
      const style = look(place);
      const flat = { type: "scatter", mode: "markers" };
      if (shown[part].size <= MOST_SHOWN) traces.push({ ...flat, x: one[3], y: other[3], marker: { symbol: style[3], size: 5, color: ink(style), opacity: 0.35 }, hoverinfo: "skip" });
      traces.push({
        ...flat, x: [one[0]], y: [other[0]], marker: { symbol: style[3], size: 12, color: ink(style) }, error_x: ends(one), error_y: ends(other), hoverinfo: "text",
        text: [`<b>${plain(names[place])}</b><br>${plain(x.title)}: ${digits(one[0])}<br>${plain(y.title)}: ${digits(other[0])}`],
      });
    }
    return [traces, layout(x.title, y.title)];
  }

  // sets of models by their losses: a plane, a space, or lines over the tasks
  function fronts(spec, part) {
    const names = data.parts[part].labels;
    const { tasks, reference } = spec;
    const below = (point) => point.every((value, t) => value !== null && value < reference[t]);
    const dominated = (point, points) => points.some((other) => other.every((value, t) => value <= point[t]) && other.some((value, t) => value < point[t]));
    const told = (place, point) => `<b>${plain(names[place])}</b><br>${point.map((value, t) => `${plain(tasks[t])} ${digits(value)}`).join("<br>")}`;
    const traces = [];
    const add = (place, points, mode, marker, more = {}) => {
      if (!points.length) return;
      const axes = tasks.length === 3 ? { type: "scatter3d", z: points.map((point) => point[2]) } : { type: "scatter" };
      traces.push({ ...axes, x: points.map((point) => point[0]), y: points.map((point) => point[1]), mode, marker, text: points.map((point) => told(place, point)), hoverinfo: "text", ...more });
    };
    for (const [place, seeds, alone] of spec.points) {
      if (!shown[part].has(place)) continue;
      const style = look(place);
      const [symbol, color] = [tasks.length === 3 ? "circle" : style[3], ink(style)];
      seeds.forEach((all, seed) => {
        const points = all.filter((point) => below(point)).sort((a, b) => a[0] - b[0]);
        if (tasks.length > 3) {
          points.forEach((point) => traces.push({ x: tasks.map((_, t) => t), y: point, type: "scatter", mode: "lines", line: { color, dash: style[2], width: 1 }, opacity: seed ? 0.25 : 0.8, text: tasks.map(() => told(place, point)), hoverinfo: "text" }));
          return;
        }
        const front = points.filter((point) => !dominated(point, points));
        if (seed === 0) add(place, front, tasks.length === 3 ? "markers" : "lines+markers", { symbol, size: tasks.length === 3 ? 5 : 8, color }, { line: { color, dash: style[2], width: 1.4 } });
        else add(place, points, "markers", { symbol, size: tasks.length === 3 ? 2.5 : 4, color, opacity: 0.35 });
        if (alone && seed === 0 && all.length) add(place, [tasks.map((_, t) => Math.min(...all.map((point) => point[t] ?? Infinity)))], "markers", { symbol: tasks.length === 3 ? "diamond" : "star", size: tasks.length === 3 ? 7 : 15, color });
      });
    }
    const loss = (t) => `${tasks[t]} loss, lower is better`;
    if (tasks.length === 3) {
      const [x, y, z] = tasks.map((_, t) => ({ title: { text: plain(loss(t)) }, color: colour("ink") }));
      return [traces, { ...layout("", ""), margin: { l: 0, r: 0, t: 0, b: 0 }, scene: { xaxis: x, yaxis: y, zaxis: z } }];
    }
    const more = layout(tasks.length === 2 ? loss(0) : "", tasks.length === 2 ? loss(1) : "loss, lower is better");
    if (tasks.length > 3) Object.assign(more.xaxis, { tickvals: tasks.map((_, t) => t), ticktext: tasks.map((task) => plain(cut(task, 16))) });
    return [traces, more];
  }

  function matrix(spec, part, state) {
    const values = spec.matrices[state.panel][1];
    const short = spec.tasks.map((task) => plain(cut(task, 16)));
    const places = spec.tasks.map((_, i) => i);
    const scale = [[0, dark.matches ? "#ff8c42" : "#a8400c"], [0.5, colour("card")], [1, dark.matches ? "#4fa9e6" : "#0072b2"]];
    const text = values.map((row, i) => row.map((value, k) => `${plain(spec.tasks[i])}<br>${plain(spec.tasks[k])}<br>${digits(value)}`));
    const trace = { type: "heatmap", x: places, y: places, z: values, zmin: -1, zmax: 1, colorscale: scale, text, hoverinfo: "text", xgap: 1, ygap: 1, colorbar: { thickness: 12, title: { text: "cosine" } } };
    if (spec.tasks.length <= 8) Object.assign(trace, { texttemplate: "%{z:.2f}" });
    const more = layout("", "");
    const ticks = { tickvals: places, ticktext: short, showgrid: false, zeroline: false, ticks: "" };
    Object.assign(more.xaxis, ticks, { tickangle: spec.tasks.length > 6 || narrow() ? -60 : 0 });
    Object.assign(more.yaxis, ticks, { autorange: "reversed" });
    more.height = Math.max(300, Math.min(900, 120 + 22 * spec.tasks.length));
    return [[trace], more];
  }

  function ranks(spec) {
    const order = spec.ranks.map((_, i) => i).sort((a, b) => spec.ranks[a] - spec.ranks[b]);
    const row = new Map(order.map((place, i) => [place, i]));
    const traces = [{
      x: order.map((i) => spec.ranks[i]), y: order.map((_, i) => i), type: "scatter", mode: "markers", marker: { size: 11, color: colour("ink") },
      text: order.map((i) => `<b>${plain(spec.labels[i])}</b><br>mean rank ${digits(spec.ranks[i])}`), hoverinfo: "text",
    }];
    spec.groups.forEach((group) => {
      const at = group.map((i) => row.get(i));
      const right = Math.max(...group.map((i) => spec.ranks[i])) + 0.12;
      traces.push({ x: [right, right], y: [Math.min(...at) - 0.2, Math.max(...at) + 0.2], type: "scatter", mode: "lines", line: { color: colour("soft"), width: 5 }, hoverinfo: "skip" });
    });
    const more = layout("mean rank, 1 is best", "");
    Object.assign(more.yaxis, { tickvals: order.map((_, i) => i), ticktext: order.map((i) => plain(cut(spec.labels[i], narrow() ? 18 : 44))), range: [order.length - 0.4, -0.6], zeroline: false, ticks: "" });
    more.height = 100 + 30 * order.length;
    return [traces, more];
  }

  // losses over fixed rates, each with its band, and the searches as lines across
  function rates(panel, part, state) {
    const names = data.parts[part].labels;
    const traces = [];
    const grids = panel.grids.filter((grid) => shown[part].has(grid.t));
    const levels = panel.levels.filter((level) => shown[part].has(level.t) && level.point[0] !== null);
    const all = panel.grids.flatMap((grid) => grid.x);
    const [from, to] = [Math.min(...all) / 1.3, Math.max(...all) * 1.3];
    const ends = (points) => ({ l: points.map((p) => p[1]), h: points.map((p) => p[2]) });
    const bands = state.bands && grids.length + levels.length <= MOST_SHOWN;
    if (bands) {
      for (const { t, x, points } of grids) traces.push(band(ends(points), x, faint(ink(look(t)), 0.1)));
      for (const { t, point } of levels) traces.push(band(ends([point, point]), [from, to], faint(ink(look(t)), 0.07)));
    }
    const says = (t, point, more) => `<b>${plain(names[t])}</b><br>${digits(point[0])}${point[1] === null ? "" : ` [${digits(point[1])}, ${digits(point[2])}]`}<br>${more}`;
    for (const { t, x, points, chosen } of grids) {
      const style = look(t);
      traces.push({
        x, y: points.map((p) => p[0]), type: "scatter", mode: "lines+markers", line: { color: ink(style), dash: style[2], width: 1.8 },
        marker: { symbol: style[3], size: x.map((_, i) => (i === chosen ? 13 : 6)), color: ink(style) },
        text: points.map((p, i) => says(t, p, `rate ${digits(x[i])}${i === chosen ? ", chosen on validation data" : ""}`)), hoverinfo: "text",
      });
    }
    levels.forEach(({ t, point }, i) => {
      const style = look(t);
      const at = from * (to / from) ** ((i + 0.5) / levels.length); // marks beside each other, for lines may lie on each other
      traces.push({
        x: [from, at, to], y: [point[0], point[0], point[0]], type: "scatter", mode: "lines+markers", line: { color: ink(style), dash: style[2], width: 1.8 },
        marker: { symbol: style[3], size: [0, 9, 0], color: ink(style) }, text: Array(3).fill(says(t, point, "searched")), hoverinfo: "text",
      });
    });
    const more = layout("fixed learning rate", panel.quantity);
    more.xaxis = { ...more.xaxis, type: "log", range: [Math.log10(from), Math.log10(to)], dtick: 1 };
    const values = [...grids.flatMap((grid) => grid.points), ...levels.map((level) => level.point)].map((p) => p[0]).filter((y) => y > 0);
    if (values.length && Math.max(...values) > 8 * Math.min(...values)) more.yaxis = { ...more.yaxis, type: "log", range: [Math.log10(Math.min(...values) / 1.6), Math.log10(Math.max(...values) * 1.6)] };
    return [traces, more];
  }

  // what a search saw against what was true; on the diagonal it saw the truth
  function pairs(panel, part) {
    const names = data.parts[part].labels;
    const groups = panel.groups.filter((group) => shown[part].has(group.t));
    const all = groups.flatMap((group) => [...group.x, ...group.y]).filter((value) => value !== null);
    const traces = [];
    if (all.length) {
      const ends = [Math.min(...all), Math.max(...all)];
      traces.push({ x: ends, y: ends, type: "scatter", mode: "lines", line: { color: colour("soft"), width: 1 }, hoverinfo: "skip" });
    }
    for (const group of groups) {
      const style = look(group.t);
      traces.push({
        x: group.x, y: group.y, type: "scatter", mode: "markers", marker: { symbol: style[3], size: 6, color: ink(style), opacity: 0.6 }, hoverinfo: "text",
        text: group.x.map((x, i) => `<b>${plain(names[group.t])}</b><br>${plain(group.tasks[group.of[i]])}<br>seen ${digits(x)}, true ${digits(group.y[i])}`),
      });
    }
    const more = layout(panel.x, panel.y);
    if (panel.log) for (const name of ["xaxis", "yaxis"]) more[name] = { ...more[name], type: "log" };
    return [traces, more];
  }

  const panelled = { lines: curves, rates, pairs };
  const whole = { forest, fronts, plane, matrix, ranks };

  function render(plot) {
    plot.axes.forEach(({ box, place }) => {
      const { spec, part, state } = plot;
      const [traces, more] = spec.panels ? panelled[spec.kind](spec.panels[place], part, state) : whole[spec.kind](spec, part, state);
      if (more.height) box.style.height = more.height + "px";
      window.Plotly.react(box, traces, more, options);
    });
  }

  function axes(plot) {
    plot.axes.forEach(({ box }) => window.Plotly.purge(box));
    plot.panels.replaceChildren();
    const titles = plot.spec.panels ? plot.spec.panels.map((panel) => panel.title) : [""];
    const places = titles.length > MANY ? [plot.state.panel] : titles.map((_, i) => i);
    plot.panels.classList.toggle("single", places.length === 1);
    plot.axes = places.map((place) => {
      const holder = element("div");
      if (titles[place]) holder.append(element("h4", {}, titles[place]));
      const box = element("div", { class: "axes", role: "img", "aria-label": `${plot.title}${titles[place] ? ", " + titles[place] : ""}. ${plot.caption}` });
      holder.append(box);
      plot.panels.append(holder);
      return { box, place };
    });
    render(plot);
  }

  function choice(plot, label, names, key, changed) {
    const holder = element("label", {}, label + " ");
    const select = element("select");
    names.forEach((name, i) => select.append(element("option", { value: i }, name)));
    select.value = plot.state[key];
    select.addEventListener("change", () => { plot.state[key] = Number(select.value); changed(plot); });
    holder.append(select);
    plot.controls.append(holder);
  }

  function toggle(plot, label, key) {
    const button = element("button", { type: "button", "aria-pressed": String(plot.state[key]) }, label);
    button.addEventListener("click", () => { plot.state[key] = !plot.state[key]; button.setAttribute("aria-pressed", String(plot.state[key])); render(plot); });
    plot.controls.append(button);
  }

  function controls(plot) {
    const { spec, state } = plot;
    if (spec.panels && spec.panels.length > MANY) choice(plot, "Shown:", spec.panels.map((panel) => panel.title), "panel", axes);
    if (spec.kind === "matrix" && spec.matrices.length > 1) choice(plot, "Treatment:", spec.matrices.map(([place]) => data.parts[plot.part].labels[place]), "panel", render);
    if (spec.kind === "plane" && spec.axes.length > 2) {
      choice(plot, "Across:", spec.axes.map((axis) => axis.title), "x", render);
      choice(plot, "Up:", spec.axes.map((axis) => axis.title), "y", render);
    }
    if (spec.timed) toggle(plot, spec.panels[0].x ? "by time" : "by time instead of epoch", "timed");
    const banded = { lines: (panel) => panel.lines.some((line) => line.l), rates: (panel) => panel.grids.some((grid) => grid.points.some((p) => p[1] !== null)), pairs: () => false };
    if (spec.panels && spec.panels.some(banded[spec.kind])) toggle(plot, "intervals", "bands");
  }

  function swatch(place) {
    const style = look(place);
    const dash = style[2] === "solid" ? "" : ` stroke-dasharray="${style[2].replaceAll("px", "")}"`;
    const marks = { circle: '<circle cx="16" cy="7" r="4"/>', square: '<rect x="12" y="3" width="8" height="8"/>', "triangle-up": '<path d="M16 2l5 9h-10z"/>', "triangle-down": '<path d="M16 12l5-9h-10z"/>', diamond: '<path d="M16 2l5 5-5 5-5-5z"/>', cross: '<path d="M14 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>', x: '<path d="M12 2l4 3 4-3 1 1-3 4 3 4-1 1-4-3-4 3-1-1 3-4-3-4z"/>', star: '<path d="M16 1l2 4 4 .5-3 3 1 4.5-4-2-4 2 1-4.5-3-3 4-.5z"/>' };
    return `<svg width="32" height="14" aria-hidden="true" fill="${ink(style)}"><path d="M0 7h32" fill="none" stroke="${ink(style)}" stroke-width="2"${dash}/>${marks[style[3]]}</svg>`;
  }

  function legend(section, part) {
    const bar = section.querySelector(".legend");
    const { labels } = data.parts[part];
    const fill = () => {
      bar.replaceChildren();
      labels.forEach((label, place) => {
        const button = element("button", { type: "button", "aria-pressed": String(shown[part].has(place)) });
        button.innerHTML = swatch(place);
        button.append(element("span", {}, label));
        button.addEventListener("click", () => { if (!shown[part].delete(place)) shown[part].add(place); button.setAttribute("aria-pressed", String(shown[part].has(place))); again(part); });
        bar.append(button);
      });
      if (labels.length > 2) {
        const all = element("button", { type: "button" }, shown[part].size === labels.length ? "none" : "all");
        all.addEventListener("click", () => { const full = shown[part].size === labels.length; labels.forEach((_, place) => (full ? shown[part].delete(place) : shown[part].add(place))); fill(); again(part); bar.lastChild.focus(); });
        bar.append(all);
      }
    };
    fill();
    dark.addEventListener("change", fill);
  }
  const again = (part) => drawn.filter((plot) => plot.part === part).forEach(render);

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) return;
    const first = [...table.tBodies[0].rows];
    heads.forEach((head, column) => {
      const button = element("button", { type: "button", title: "sort" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        const value = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) => {
          const [one, other] = [parseFloat(value(a)), parseFloat(value(b))];
          if (Number.isNaN(one) && Number.isNaN(other)) return value(a).localeCompare(value(b));
          return Number.isNaN(one) ? 1 : Number.isNaN(other) ? -1 : one - other;
        };
        let rows = first; // a third click restores the study's order
        if (before !== "descending") {
          const way = before === "ascending" ? "descending" : "ascending";
          head.setAttribute("aria-sort", way);
          rows = first.slice().sort((a, b) => (way === "ascending" ? compare(a, b) : compare(b, a)));
        }
        table.tBodies[0].append(...rows);
      });
    });
  }

  function start(figure) {
    const section = figure.closest("[data-part]");
    const spec = data.plots[figure.dataset.plot];
    const plot = {
      spec, part: section ? Number(section.dataset.part) : 0, axes: [], state: { panel: 0, x: spec.x, y: spec.y, timed: false, bands: true },
      controls: figure.querySelector(".controls"), panels: figure.querySelector(".panels"), title: figure.querySelector("h3").textContent, caption: figure.querySelector("figcaption").textContent,
    };
    drawn.push(plot);
    plot.panels.style.minHeight = "";
    controls(plot);
    axes(plot);
  }

  document.querySelectorAll("main table").forEach(sortable);
  document.querySelectorAll("[data-part]").forEach((section) => legend(section, Number(section.dataset.part)));
  // a figure is drawn when it comes near, so that a page of many opens at once
  const waiting = new Set(document.querySelectorAll("figure.plot"));
  const draw = (figure) => { if (waiting.delete(figure)) start(figure); };
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => { if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); } }), { rootMargin: "600px" });
  waiting.forEach((figure) => { figure.querySelector(".panels").style.minHeight = "320px"; seen.observe(figure); });
  window.addEventListener("beforeprint", () => { [...waiting].forEach(draw); });
  dark.addEventListener("change", () => drawn.forEach(render));
})();
