"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MANY = 4; // panels that are shown at once; of more one is chosen
  const MOST_SHOWN = 10; // treatments that are shown at first, and with intervals
  const MOST_BANDS = 4; // treatments whose bands are drawn at first: more bands hide each other
  const MOST_KEYS = 12; // treatments of which the legend lists all; of more it lists those that are or were shown
  const TALL = 700; // pixels; the horizontal axis of a taller figure is at its top
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = () => window.innerWidth < 640;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  // plotly interprets a few tags in its texts: names are escaped
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  // without its middle: names of treatments often differ in their ends alone
  const shortened = (text, most) => (text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}` : text);
  const shown = data.parts.map((part) => new Set(part.first.slice(0, MOST_SHOWN)));
  const drawn = [];
  const marking = []; // of the legends: their state and colours
  const heading = []; // of the sortable tables: their heads, on screen and printed

  const element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    if (text) made.dir = "auto"; // a name in a script that is written from right to left leaves its surroundings in order
    return made;
  };
  let printing = false;
  const darkened = () => dark.matches && !printing;
  const ink = (style) => style[darkened() ? 1 : 0];
  const styleOf = (treatment) => data.styles[treatment % data.styles.length];
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

  const options = { responsive: true, displaylogo: false, displayModeBar: false };

  // an axis of the page's colours, with its title on lines of so many characters, and its labels shortened to so many
  function axis(spec, most, labelSize) {
    const base = { gridcolor: colour("grid"), linecolor: colour("soft"), zerolinecolor: colour("soft"), ticks: "outside", tickcolor: colour("soft"), automargin: true, exponentformat: "power" };
    const title = spec.title ? { text: wrapped(spec.title, most), standoff: 7 } : undefined;
    const ticks = spec.labels ? { tickvals: spec.labels.map((_, i) => i), ticktext: spec.labels.map((label) => plain(shortened(label, labelSize))), zeroline: false, ticks: "" } : {};
    return { ...base, title, ...ticks, ...spec.layout };
  }

  const CHARACTER = 7; // pixels, about, of a label; those of titles are larger
  const TITLE_CHARACTER = 8;
  function layout(panel, at, box) {
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, margin: { l: 50, r: 14, t: 12, b: 44 },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
    };
    if (at.z !== undefined) {
      const [xaxis, yaxis, zaxis] = [at.x, at.y, at.z].map((k) => ({ title: { text: plain(panel.axes[k].title) }, color: colour("ink") }));
      return { ...base, margin: { l: 0, r: 0, t: 0, b: 0 }, scene: { xaxis, yaxis, zaxis } };
    }
    const labelSize = panel.matrix ? 18 : narrow() ? 14 : 44;
    const longest = Math.min(labelSize, Math.max(8, ...(panel.axes[at.y].labels || []).map((label) => label.length)));
    const height = panel.height || box.clientHeight;
    // titles are centred on their axis: what is longer than the axis would be cut off at the edge of the figure
    const xaxis = axis(panel.axes[at.x], Math.max(12, Math.floor((box.clientWidth - CHARACTER * longest - 30) / TITLE_CHARACTER)), 16);
    const yaxis = axis(panel.axes[at.y], Math.max(12, Math.floor((height - 90) / TITLE_CHARACTER)), labelSize);
    if (narrow() && !panel.axes[at.x].labels && longest > 8) xaxis.nticks = 4;
    if (panel.matrix) {
      xaxis.tickangle = panel.matrix.length > 6 || narrow() ? -60 : 0;
      yaxis.autorange = "reversed";
    }
    if (panel.height > TALL && !panel.polar) xaxis.side = "top";
    if (panel.polar) {
      xaxis.visible = yaxis.visible = false;
      yaxis.scaleanchor = "x";
    }
    return { ...base, xaxis, yaxis, ...(panel.height ? { height: panel.height } : {}) };
  }

  const column = (marks, k, other) => marks.v[k] ?? marks.v[other].map((_, i) => i);
  const ends = (marks, k) => (marks.b && marks.b[k]) || null;

  // the hover texts of all marks; the places in a style's text are described in figures/description.py
  function texts(marks, style, panel, part, at) {
    const interval = (k, i) => { const found = ends(marks, k); return found && found[0][i] !== null ? ` [${digits(found[0][i])}, ${digits(found[1][i])}]` : ""; };
    const place = (name, i) => {
      if (name === "label") return plain(data.parts[part].labels[marks.t]);
      if (name === "title") return plain(panel.title);
      if (name === "text") return marks.text ? wrapped(marks.text[i], 60) : "";
      if (name === "all") return panel.axes[at.x].labels.map((label, k) => `${plain(label)} ${digits(marks.v[at.y][k])}`).join("<br>");
      const [first, attribute] = name.split(".");
      const k = first in at ? at[first] : Number(first);
      if (attribute === "name") return plain(panel.axes[k].name ?? panel.axes[k].title);
      return attribute === "interval" ? interval(k, i) : digits(column(marks, k, at.y)[i]);
    };
    return column(marks, at.x, at.y).map((_, i) => style.hover.replace(/\{([^}]+)\}/g, (_all, name) => place(name, i)));
  }

  function band(x, [low, high], color) {
    const there = x.map((_, i) => i).filter((i) => x[i] !== null && low[i] !== null && high[i] !== null);
    const back = there.slice().reverse();
    return {
      x: [...there, ...back].map((i) => x[i]), y: [...there.map((i) => low[i]), ...back.map((i) => high[i])],
      type: "scatter", mode: "lines", fill: "toself", line: { width: 0 }, fillcolor: color + "1a", hoverinfo: "skip",
    };
  }

  function bars(values, found, color) {
    if (!found || found[0][0] === null) return undefined;
    const [low, high] = found;
    return { type: "data", symmetric: false, array: values.map((v, i) => high[i] - v), arrayminus: values.map((v, i) => v - low[i]), color, thickness: 1.4, width: 4 };
  }

  function trace(marks, style, panel, part, at) {
    const own = marks.t === undefined ? null : styleOf(marks.t);
    const color = style.colour ? colour(style.colour) : ink(own);
    const [x, y] = [column(marks, at.x, at.y), column(marks, at.y, at.x)];
    const every = style.mostMarks ? Math.max(1, Math.floor(y.length / style.mostMarks)) : 1;
    const size = marks.size ?? (every > 1 ? y.map((_, i) => (i % every === marks.t % every ? style.trace.marker.size : 0)) : style.trace.marker.size);
    const made = {
      ...style.trace, x, y, line: { ...style.trace.line, color, dash: own ? own[2] : "solid" },
      marker: { symbol: style.symbol || (own ? own[3] : "circle"), size, color, line: { ...style.trace.marker.line, color } },
      ...(style.hover ? { text: texts(marks, style, panel, part, at), hoverinfo: "text" } : { hoverinfo: "skip" }),
    };
    if (at.z !== undefined) return { ...made, z: marks.v[at.z] };
    if (style.band && y.length > 1) return made;
    if (y.length === 1) made.mode = "markers";
    return { ...made, error_x: bars(x, ends(marks, at.x), color), error_y: bars(y, ends(marks, at.y), color) };
  }

  function traces(panel, styles, part, at, bands) {
    if (panel.matrix) return [cells(panel, at)];
    const visible = panel.marks.filter((marks) => marks.t === undefined || shown[part].has(marks.t));
    const few = new Set(visible.map((marks) => marks.t)).size <= MOST_SHOWN;
    const kept = visible.filter((marks) => few || !styles[marks.s ?? 0].detail);
    const banded = kept.filter((marks) => few && bands && styles[marks.s ?? 0].band && ends(marks, at.y) && marks.v[at.y].length > 1);
    return [
      ...banded.map((marks) => band(column(marks, at.x, at.y), ends(marks, at.y), ink(styleOf(marks.t)))),
      ...kept.map((marks) => trace(marks, styles[marks.s ?? 0], panel, part, at)),
    ];
  }

  // dotted lines across the panel at marks of such a style
  function lines(panel, styles, part, at) {
    const across = panel.marks.filter((marks) => styles[marks.s ?? 0].across && shown[part].has(marks.t));
    return across.flatMap((marks) => {
      const line = { color: ink(styleOf(marks.t)), dash: "dot", width: 1 };
      const [x, y] = [marks.v[at.x][0], marks.v[at.y][0]];
      return [
        ...(x === null ? [] : [{ type: "line", layer: "below", line, xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1 }]),
        ...(y === null ? [] : [{ type: "line", layer: "below", line, xref: "paper", yref: "y", x0: 0, x1: 1, y0: y, y1: y }]),
      ];
    });
  }

  function cells(panel, at) {
    const [columns, rows] = [panel.axes[at.x].labels, panel.axes[at.y].labels];
    const scale = [[0, darkened() ? "#ff8c42" : "#a8400c"], [0.5, colour("card")], [1, darkened() ? "#4fa9e6" : "#0072b2"]];
    const text = panel.matrix.map((row, i) => row.map((value, k) => `${plain(rows[i])}<br>${plain(columns[k])}<br>${digits(value)}`));
    const made = { type: "heatmap", x: columns.map((_, i) => i), y: rows.map((_, i) => i), z: panel.matrix, zmin: -1, zmax: 1, colorscale: scale, text, hoverinfo: "text", xgap: 1, ygap: 1, colorbar: { thickness: 12, title: { text: "cosine" } } };
    return rows.length <= 8 ? { ...made, texttemplate: "%{z:.2f}" } : made;
  }

  function render(plot) {
    const { spec, part, state } = plot;
    plot.axes.forEach(({ box, place }) => {
      const panel = spec.panels[place];
      const at = { x: spec.chooseAxes ? state.x : state.switched ? 1 : panel.x, y: spec.chooseAxes ? state.y : panel.y };
      if (panel.z !== undefined) at.z = panel.z;
      if (panel.height) box.style.height = panel.height + "px";
      window.Plotly.react(box, traces(panel, spec.styles, part, at, state.bands), { ...layout(panel, at, box), shapes: lines(panel, spec.styles, part, at), ...(printing ? { width: box.clientWidth } : {}) }, options);
    });
  }

  function axes(plot) {
    plot.axes.forEach(({ box }) => window.Plotly.purge(box));
    plot.panels.replaceChildren();
    const titles = plot.spec.choosePanel ? plot.spec.panels.map(() => "") : plot.spec.panels.map((panel) => panel.title);
    const places = plot.spec.choosePanel || titles.length > MANY ? [plot.state.panel] : titles.map((_, i) => i);
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
    const { spec } = plot;
    const [first] = spec.panels;
    const titles = spec.panels.map((panel) => panel.title);
    if (titles.length > (spec.choosePanel ? 1 : MANY)) choice(plot, spec.choosePanel || "Shown:", titles, "panel", axes);
    if (spec.chooseAxes && first.axes.length > 2) {
      choice(plot, "Across:", first.axes.map((each) => each.title), "x", render);
      choice(plot, "Up:", first.axes.map((each) => each.title), "y", render);
    }
    if (spec.switch) toggle(plot, spec.switch, "switched");
    if (spec.panels.some((panel) => panel.marks.some((marks) => marks.b && spec.styles[marks.s ?? 0].band))) toggle(plot, "intervals", "bands");
  }

  function swatch(place) {
    const style = styleOf(place);
    const dash = style[2] === "solid" ? "" : ` stroke-dasharray="${style[2].replaceAll("px", "")}"`;
    const marks = { circle: '<circle cx="16" cy="7" r="4"/>', square: '<rect x="12" y="3" width="8" height="8"/>', "triangle-up": '<path d="M16 2l5 9h-10z"/>', "triangle-down": '<path d="M16 12l5-9h-10z"/>', diamond: '<path d="M16 2l5 5-5 5-5-5z"/>', cross: '<path d="M14 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>', x: '<path d="M12 2l4 3 4-3 1 1-3 4 3 4-1 1-4-3-4 3-1-1 3-4-3-4z"/>', star: '<path d="M16 1l2 4 4 .5-3 3 1 4.5-4-2-4 2 1-4.5-3-3 4-.5z"/>' };
    return `<svg width="32" height="14" aria-hidden="true" fill="${ink(style)}"><path d="M0 7h32" fill="none" stroke="${ink(style)}" stroke-width="2"${dash}/>${marks[style[3]]}</svg>`;
  }

  function legend(section, part) {
    const bar = section.querySelector(".legend");
    const { labels, first } = data.parts[part];
    const many = labels.length > MOST_KEYS;
    const keys = element("div", { class: "keys" });
    const choices = element("div", { class: "choices" });
    const count = element("summary");
    const all = element("button", { type: "button" });
    const key = (place) => {
      const button = element("button", { type: "button", "data-treatment": place });
      button.append(element("span", { class: "name" }, labels[place]));
      button.addEventListener("click", () => { if (!shown[part].delete(place)) shown[part].add(place); changed(); });
      return button;
    };
    // a treatment that is hidden again stays in the list, so that neither it nor the keyboard's focus is lost
    const listed = new Set(many ? [] : labels.keys());
    function mark() {
      shown[part].forEach((place) => { if (!listed.has(place)) { listed.add(place); keys.append(key(place)); } });
      bar.querySelectorAll("[data-treatment]").forEach((button) => {
        const place = Number(button.dataset.treatment);
        button.setAttribute("aria-pressed", String(shown[part].has(place)));
        button.querySelector("svg")?.remove();
        button.insertAdjacentHTML("afterbegin", swatch(place));
      });
      all.textContent = shown[part].size === labels.length ? "none" : "all";
      count.textContent = `${shown[part].size} of ${labels.length} treatments are shown: choose`;
    }
    function changed() { mark(); again(part); }
    all.addEventListener("click", () => { const full = shown[part].size === labels.length; labels.forEach((_, place) => (full ? shown[part].delete(place) : shown[part].add(place))); changed(); });
    listed.forEach((place) => keys.append(key(place)));
    bar.append(keys);
    if (many) {
      const folded = element("details");
      choices.append(all, ...first.map(key));
      folded.append(count, choices);
      bar.append(folded);
    } else if (labels.length > 2) keys.append(all);
    marking.push(mark);
    mark();
  }
  const again = (part) => drawn.filter((plot) => plot.part === part).forEach(render);

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) return;
    const first = [...table.tBodies[0].rows];
    // a browser repeats the text of a head on every printed page, but no button
    heading.push(() => heads.forEach((head, column) => head.replaceChildren(printing ? buttons[column].textContent : buttons[column])));
    const buttons = heads.map((head, column) => {
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
          const direction = before === "ascending" ? "descending" : "ascending";
          head.setAttribute("aria-sort", direction);
          rows = first.slice().sort((a, b) => (direction === "ascending" ? compare(a, b) : compare(b, a)));
        }
        table.tBodies[0].append(...rows);
      });
      return button;
    });
  }

  function start(figure) {
    const section = figure.closest("[data-part]");
    const spec = data.figures[figure.dataset.figure];
    const plot = {
      spec, part: section ? Number(section.dataset.part) : 0, axes: [], state: { panel: 0, x: spec.panels[0].x, y: spec.panels[0].y, switched: false, bands: shown[section ? Number(section.dataset.part) : 0].size <= MOST_BANDS },
      controls: figure.querySelector(".controls"), panels: figure.querySelector(".panels"), title: figure.querySelector("h3").textContent, caption: figure.querySelector("figcaption").textContent,
    };
    drawn.push(plot);
    plot.panels.style.minHeight = "";
    controls(plot);
    axes(plot);
  }

  document.querySelectorAll("main table").forEach(sortable);
  document.querySelectorAll("[data-part]").forEach((section) => legend(section, Number(section.dataset.part)));
  // a figure is drawn when it is close to the visible part, so that a page of many opens quickly
  const waiting = new Set(document.querySelectorAll("figure.plot"));
  const draw = (figure) => { if (waiting.delete(figure)) start(figure); };
  const observer = new IntersectionObserver((entries) => entries.forEach((entry) => { if (entry.isIntersecting) { observer.unobserve(entry.target); draw(entry.target); } }), { rootMargin: "600px" });
  waiting.forEach((figure) => { figure.querySelector(".panels").style.minHeight = "320px"; observer.observe(figure); });
  const renew = () => { marking.forEach((mark) => mark()); drawn.forEach(render); };
  dark.addEventListener("change", renew);
  // printed figures have the width of the paper, and the colours of a light page
  function print(state) {
    if (printing === state) return;
    printing = state;
    document.documentElement.toggleAttribute("data-print", printing);
    heading.forEach((change) => change());
    [...waiting].forEach(draw);
    renew();
  }
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
})();
