"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { tasks, members } = data;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = () => window.innerWidth < 640;
  const by = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  // axes in space know no entities, and no tags but <b>, <i>, <br>, <sub>, <sup>, which a zero-width space prevents
  const spatial = (text) => String(text).replace(/</g, "<\u200b");
  // on a few lines of so many characters, and cut off after them; the hover text has the whole name
  function folded(text, size, written, rows = 3) {
    const lines = [""];
    for (const word of String(text).split(/(?<=[ _/-])/)) {
      const pieces = word.match(new RegExp(`.{1,${size}}`, "gsu")) || [""];
      if (lines[lines.length - 1].length + pieces[0].length <= size) lines[lines.length - 1] += pieces.shift();
      lines.push(...pieces);
    }
    const shown = lines.slice(0, rows);
    if (lines.length > rows) shown[rows - 1] = `${shown[rows - 1].slice(0, size - 1)}…`;
    return shown.map((line) => written(line.trim())).join("<br>");
  }
  const digits = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());
  const element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    if (text) made.dir = "auto"; // a name in a script that is written from right to left leaves its surroundings in order
    return made;
  };
  let printing = false;
  // of a printed page, whose width a figure does not follow by itself
  const printed = (box) => (printing ? { width: box.clientWidth } : {});
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  const state = { weights: tasks.map(() => 1 / tasks.length), chosen: 0, quantity: 0 };
  const usable = members.map((_, i) => i).filter((i) => members[i].scaled !== null);

  // the rule of Front.choose: the smallest maximum of the weighted losses, scaled to 0 at the ideal and 1 at the nadir point
  function choose(weights) {
    const value = (i) => {
      const weighted = members[i].scaled.map((loss, t) => weights[t] * loss);
      return Math.max(...weighted) + 1e-3 * weighted.reduce((a, b) => a + b, 0);
    };
    const candidates = usable.filter((i) => members[i].front);
    return candidates.reduce((best, i) => (value(i) < value(best) ? i : best), candidates[0]);
  }

  const numbers = (member) => tasks.map((task, t) => {
    const found = data.columns.map((column) => `${plain(column.name)} ${digits(column.values[member][t])}`);
    return `${plain(task)}: preference ${digits(members[member].preference[t])}, ${found.join(", ")}`;
  });
  const hover = (member) => `<b>model ${member}</b>${members[member].front ? "" : " (dominated)"}<br>${numbers(member).join("<br>")}`;

  function axis(title, size = 40) {
    return { title: { text: folded(title, size, plain), standoff: 8 }, gridcolor: colour("grid"), linecolor: colour("soft"), zerolinecolor: colour("grid"), ticks: "outside", tickcolor: colour("soft"), automargin: true, color: colour("ink") };
  }
  function layout(more) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, margin: { l: 50, r: 16, t: 12, b: 44 },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" }, ...more,
    };
  }
  const LABEL_WIDTH = 115; // pixels of the text below one of several axes
  const known = (quantity) => usable.filter((i) => quantity.values[i].every((value) => value !== null));
  const ring = { symbol: "circle-open", size: 20, color: "", line: { width: 3 } };

  function plane(quantity) {
    const there = known(quantity);
    const at = (kept, t) => kept.map((i) => quantity.values[i][t]);
    const group = (kept, marker, mode) => ({ x: at(kept, 0), y: at(kept, 1), customdata: kept, type: "scatter", mode, marker, line: { color: colour("soft"), dash: "dot", width: 1 }, text: kept.map(hover), hoverinfo: "text" });
    const front = there.filter((i) => members[i].front).sort((a, b) => quantity.values[a][0] - quantity.values[b][0]);
    const traces = [
      group(there.filter((i) => !members[i].front), { symbol: "circle-open", size: 9, color: colour("soft") }, "markers"),
      group(front, { symbol: "circle", size: 10, color: colour("accent") }, "lines+markers"),
      { ...group(there.filter((i) => i === state.chosen), { ...ring, color: colour("worse") }, "markers"), hoverinfo: "skip" },
    ];
    return [traces, layout({ xaxis: axis(quantity.titles[0], narrow() ? 30 : 60), yaxis: axis(quantity.titles[1]) })];
  }

  function space(quantity) {
    const there = known(quantity);
    const group = (kept, marker) => ({ x: kept.map((i) => quantity.values[i][0]), y: kept.map((i) => quantity.values[i][1]), z: kept.map((i) => quantity.values[i][2]), customdata: kept, type: "scatter3d", mode: "markers", marker, text: kept.map(hover), hoverinfo: "text" });
    const traces = [
      group(there.filter((i) => !members[i].front && i !== state.chosen), { symbol: "circle-open", size: 4, color: colour("soft") }),
      group(there.filter((i) => members[i].front && i !== state.chosen), { symbol: "circle", size: 5, color: colour("accent") }),
      group(there.filter((i) => i === state.chosen), { symbol: "diamond", size: 9, color: colour("worse") }),
    ];
    const away = by("plot").clientWidth < 500 ? 2.2 : 1.6; // closer cameras cut off the axis titles
    const [x, y, z] = quantity.titles.map((title) => ({ ...axis(""), title: { text: folded(title, 24, spatial) } }));
    // a cube, independent of the ranges of the losses; centred slightly below its middle, as titles are below it
    const camera = { eye: { x: away, y: away, z: 0.8 * away }, center: { x: 0, y: 0, z: -0.15 } };
    const scene = { aspectmode: "cube", camera, xaxis: x, yaxis: y, zaxis: z };
    return [traces, layout({ scene, uirevision: "turned", margin: { l: 0, r: 0, t: 0, b: 0 } })];
  }

  function parallel(quantity) {
    const there = known(quantity);
    const low = tasks.map((_, t) => Math.min(...there.map((i) => quantity.values[i][t])));
    const high = tasks.map((_, t) => Math.max(...there.map((i) => quantity.values[i][t])));
    const scaled = (i) => tasks.map((_, t) => (high[t] > low[t] ? (quantity.values[i][t] - low[t]) / (high[t] - low[t]) : 0.5));
    const places = tasks.map((_, t) => t);
    const order = there.filter((i) => i !== state.chosen).concat(there.filter((i) => i === state.chosen));
    const traces = order.map((i) => {
      const chosen = i === state.chosen;
      const line = { color: colour(chosen ? "worse" : members[i].front ? "accent" : "soft"), width: chosen ? 4 : 1.4, dash: members[i].front ? "solid" : "dot" };
      return { x: places, y: scaled(i), customdata: places.map(() => i), type: "scatter", mode: "lines+markers", line, marker: { size: chosen ? 9 : 5 }, opacity: chosen ? 1 : 0.75, text: places.map(() => hover(i)), hoverinfo: "text" };
    });
    const width = (by("plot").clientWidth - 80) / tasks.length;
    const slanted = width < LABEL_WIDTH;
    const labels = quantity.titles.map((title, t) => `${slanted ? folded(title, 24, plain, 1) : folded(title, Math.floor(width / 7.5), plain)}<br>${digits(low[t])} to ${digits(high[t])}`);
    // half a step beside the first and the last axis, without which plotly omits their labels
    const ticks = { tickvals: places, ticktext: labels, range: [-0.5, tasks.length - 0.5], showgrid: true, zeroline: false };
    const ends = { tickvals: [0, 1], ticktext: ["lowest", "highest"], zeroline: false };
    return [traces, layout({ xaxis: { ...axis(""), ...ticks, tickangle: slanted ? -60 : 0 }, yaxis: { ...axis(""), ...ends } })];
  }

  function draw() {
    if (!usable.length) return;
    const quantity = data.quantities[state.quantity];
    const [traces, more] = (tasks.length === 2 ? plane : tasks.length === 3 ? space : parallel)(quantity);
    window.Plotly.react(by("plot"), traces, { ...more, ...printed(by("plot")) }, options);
  }

  function history() {
    const against = by("against").value;
    const titles = { gradients: "gradient evaluations, all models together", seconds: "seconds of training", epoch: "epochs" };
    const trace = { x: data.history[against], y: data.history.hypervolume, type: "scatter", mode: "lines+markers", line: { color: colour("accent") }, marker: { size: 4 } };
    window.Plotly.react(by("history"), [trace], layout({ xaxis: { ...axis(titles[against], narrow() ? 30 : 80), rangemode: "tozero" }, yaxis: axis("hypervolume"), ...printed(by("history")) }), options);
  }

  // to four digits, so that they still sum to one
  function rounded(weights) {
    const whole = weights.map((weight) => Math.floor(1e4 * weight));
    const remainders = weights.map((weight, t) => [1e4 * weight - whole[t], t]).sort((a, b) => b[0] - a[0]);
    remainders.slice(0, 1e4 - whole.reduce((a, b) => a + b, 0)).forEach(([, t]) => { whole[t] += 1; });
    return whole.map((value) => (value / 1e4).toString());
  }

  function describe() {
    const member = state.chosen;
    const { preference, file } = members[member];
    by("chosen").textContent = `Model ${member} of ${members.length}`;
    by("numbers").tBodies[0].replaceChildren(...tasks.map((task, t) => {
      const row = element("tr");
      row.append(element("th", { scope: "row" }, task), element("td", { class: "number" }, digits(preference[t])));
      for (const column of data.columns) row.append(element("td", { class: "number" }, digits(column.values[member][t])));
      return row;
    }));
    by("file").textContent = file;
    by("python").textContent = data.python.replaceAll("{member}", member);
    const picked = choose(state.weights) === member ? rounded(state.weights).join(",") : `--model ${member}`;
    // options are not broken at their hyphens
    const words = data.command.replaceAll("{picked}", picked).split(/(--[a-z]+)/);
    by("command").replaceChildren(...words.map((word) => (word.startsWith("--") ? element("span", { class: "whole" }, word) : word)));
    document.querySelectorAll("#models tbody tr").forEach((row) => row.setAttribute("aria-selected", String(Number(row.dataset.member) === member)));
  }

  function select(member, weights) {
    state.chosen = member;
    state.weights = weights;
    inputs.forEach((input, t) => { input.value = Math.round(1000 * weights[t]); });
    outputs();
    describe();
    draw();
  }
  // weights for which the rule selects the given model; the model's preference if there are none
  function weightsOf(member) {
    const inverse = members[member].scaled.map((loss) => 1 / Math.max(loss, 1e-3));
    const total = inverse.reduce((a, b) => a + b, 0);
    const shares = inverse.map((value) => value / total);
    return choose(shares) === member ? shares : members[member].preference;
  }

  const holder = by("weights");
  const inputs = [];
  let outputs = () => {};
  function sliders() {
    if (tasks.length === 2) {
      holder.classList.add("pair");
      const label = element("label");
      const input = element("input", { type: "range", min: 0, max: 1000, step: 1, "aria-label": `weight of ${tasks[0]} against ${tasks[1]}` });
      const [left, right] = [element("span"), element("span")];
      label.append(left, input, right);
      holder.append(label);
      // towards the left, the weight of the left task increases
      const first = { get value() { return 1000 - Number(input.value); }, set value(given) { input.value = 1000 - given; } };
      inputs.push(first, { get value() { return input.value; }, set value(_) {} });
      input.addEventListener("input", () => moved([first.value / 1000, Number(input.value) / 1000]));
      outputs = () => { [left, right].forEach((end, t) => { end.textContent = `${tasks[t]} ${(100 * state.weights[t]).toFixed(0)}\u00a0%`; }); };
      return;
    }
    const shown = [];
    tasks.forEach((task) => {
      const label = element("label");
      const input = element("input", { type: "range", min: 0, max: 1000, step: 1 });
      const output = element("output");
      label.append(element("span", {}, task), input, output);
      holder.append(label);
      inputs.push(input);
      shown.push(output);
      input.addEventListener("input", () => {
        const given = inputs.map((each) => Number(each.value));
        const total = given.reduce((a, b) => a + b, 0);
        moved(total > 0 ? given.map((value) => value / total) : tasks.map(() => 1 / tasks.length), true);
      });
    });
    outputs = () => shown.forEach((output, t) => { output.textContent = `${(100 * state.weights[t]).toFixed(1)} %`; });
  }
  function moved(weights) {
    state.weights = weights;
    state.chosen = choose(weights);
    outputs();
    describe();
    draw();
  }

  function copying(button) {
    button.addEventListener("click", async () => {
      const code = by(button.dataset.copy);
      const range = document.createRange();
      range.selectNodeContents(code);
      window.getSelection().removeAllRanges();
      window.getSelection().addRange(range);
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; } catch { button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  if (!usable.length) return; // a notice states this
  data.quantities.forEach((quantity, i) => by("quantity").append(element("option", { value: i }, quantity.name)));
  by("quantity").addEventListener("change", () => { state.quantity = Number(by("quantity").value); window.Plotly.purge(by("plot")); draw(); listen(); });
  by("against").addEventListener("change", history);
  document.querySelectorAll("[data-copy]").forEach(copying);
  document.querySelectorAll("#models tbody tr").forEach((row) => row.addEventListener("click", () => {
    const member = Number(row.dataset.member);
    if (members[member].scaled !== null) select(member, weightsOf(member));
  }));
  const listen = () => by("plot").on("plotly_click", (event) => { const member = event.points[0].customdata; select(member, weightsOf(member)); });
  sliders();
  const even = tasks.map(() => 1 / tasks.length);
  select(choose(even), even);
  listen();
  history();
  const renew = () => { draw(); history(); };
  dark.addEventListener("change", renew);
  function print(state) {
    if (printing === state) return;
    printing = state;
    document.documentElement.toggleAttribute("data-print", printing);
    renew();
  }
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
})();
