// Figures to explore: plotly.js and a figure's curves are loaded from the book's own files when a reader asks for them.
// Without scripts, and on paper, the static figure is all there is.
"use strict";

const DASHES = ["solid", "dash", "dot", "dashdot"];
const scripts = {};

function loadScript(address) {
  scripts[address] ||= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, {src: address, onload: resolve, onerror: () => reject(new Error(`cannot load ${address}`))});
    document.head.append(script);
  });
  return scripts[address];
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const isDark = () => document.documentElement.dataset.theme === "dark";
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Explorer {
  constructor(figure, data) {
    this.data = data;
    this.plot = make("div", {className: "chart"});
    this.form = make("form", {className: "choices"});
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.box = make("div", {className: "explorer", role: "group"}, this.form, this.plot);
    const charts = Object.keys(data.charts);
    this.chart = this.select("Chart", charts.map((name) => [name, name]), charts.length > 1);
    this.chart.value = data.start;
    this.chart.addEventListener("change", () => { this.xAxis.value = this.axes.log ? "log" : "linear"; });
    this.xAxis = this.select("x axis", [["linear", "linear"], ["log", "logarithmic"]]);
    this.yAxis = this.select("y axis", [["linear", "linear"], ["log", "logarithmic"]]);
    this.xAxis.value = this.axes.log ? "log" : "linear";
    this.lines = this.boxes(data.lines === "task" ? "Tasks" : "Models", this.names().map((line) => [line.name, line.name]));
    this.sources = this.boxes("Runs", data.sources.map((source) => [source.name, source.text]), data.shown);
    const seeds = [["mean", "mean ± std"], ...data.seeds.map((seed) => [String(seed), String(seed)])];
    this.seeds = data.seeds.length ? this.boxes("Seeds", seeds, ["mean"]) : [];
    data.sources.forEach((source, i) => this.sources[i].after(make("i", {className: this.dash(source.name), ariaHidden: "true"})));
    this.form.addEventListener("input", () => this.draw());
    figure.prepend(this.box);
    new MutationObserver(() => this.draw()).observe(document.documentElement, {attributeFilter: ["data-theme"]});
    new ResizeObserver(() => this.plot.clientWidth && this.plot.data && Plotly.Plots.resize(this.plot)).observe(this.plot);
  }

  get axes() { return this.data.charts[this.chart.value]; }

  names() {
    return [...new Map(this.data.traces.map((trace) => [trace.name, trace])).values()];
  }

  // The runs of the largest scale are solid.
  dash(source) {
    const order = [...this.data.sources.map((each) => each.name)];
    const scales = order.filter((name) => !this.isPrinted(name)).reverse();
    return DASHES[[...scales, ...order.filter((name) => this.isPrinted(name))].indexOf(source) % DASHES.length];
  }

  isPrinted(source) {
    return this.data.traces.some((trace) => trace.source === source && trace.seed === "printed");
  }

  select(label, options, shown = true) {
    const field = make("select", {name: label.toLowerCase().replace(" ", "-")}, ...options.map(([value, text]) => make("option", {value}, text)));
    if (shown) this.form.append(make("label", {}, `${label} `, field));
    return field;
  }

  boxes(legend, options, checked = options.map(([value]) => value)) {
    const fields = options.map(([value]) => make("input", {type: "checkbox", value, checked: checked.includes(value)}));
    const labels = options.map(([, text], i) => make("label", {}, fields[i], make("span", {}, ` ${text}`)));
    this.form.append(make("fieldset", {}, make("legend", {}, legend), ...labels));
    return fields;
  }

  chosen(fields) { return new Set(fields.filter((field) => field.checked).map((field) => field.value)); }

  draw() {
    const [lines, sources, seeds] = [this.lines, this.sources, this.seeds].map((fields) => this.chosen(fields));
    const ofChart = this.data.traces.filter((trace) => trace.chart === this.chart.value);
    const here = new Set(ofChart.map((trace) => trace.name));
    for (const field of this.lines) {
      field.parentElement.hidden = !here.has(field.value);
      field.parentElement.style.setProperty("--line", this.colour(this.names().find((each) => each.name === field.value)));
    }
    const shown = ofChart.filter((trace) => lines.has(trace.name) && sources.has(trace.source)
      && (trace.seed === "printed" || seeds.has(String(trace.seed))));
    const ink = cssColour("--pst-color-text-base");
    Plotly.react(this.plot, shown.map((trace) => this.trace(trace)), this.layout(shown, ink),
      {displaylogo: false, responsive: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"]});
  }

  colour(trace) { return trace.colours[Number(isDark())]; }

  trace(trace) {
    const [colour, summed] = [this.colour(trace), typeof trace.seed === "string"];
    return {
      x: trace.x, y: trace.y, hovertext: trace.hover, hoverinfo: "text", mode: "lines+markers", name: trace.name,
      opacity: summed ? 1 : 0.6,
      line: {color: colour, width: summed ? 2.2 : 1, dash: this.dash(trace.source)},
      marker: {symbol: trace.symbol + (trace.seed === "printed" ? "-open" : ""), size: summed ? 7 : 5},
      error_y: {type: "data", array: trace.std || [], visible: Boolean(trace.std && trace.std.some(Boolean)), thickness: 1, width: 3},
    };
  }

  layout(shown, ink) {
    const {axes} = this;
    const across = Object.entries(axes.levels).map(([text, level]) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level, line: {color: ink, width: 1, dash: "dot"},
      label: {text, textposition: "end", font: {size: 11, color: ink}},
    }));
    const trained = [...new Set(shown.map((trace) => trace.trained).filter((x) => x !== null))].map((x) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, line: {color: ink, width: 1, dash: "dashdot"}, opacity: 0.5,
      label: {text: "trained", textangle: 0, textposition: "end", yanchor: "bottom", font: {size: 10, color: ink}},
    }));
    const grid = {gridcolor: cssColour("--pst-color-border"), zeroline: false, linecolor: ink, automargin: true};
    return {
      autosize: true, height: 420, margin: {l: 60, r: 20, t: 30, b: 50}, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: ink, family: "inherit"},
      hoverlabel: {align: "left", bgcolor: cssColour("--pst-color-surface"), font: {color: ink, size: 13}},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: cssColour("--pst-color-link")},
      xaxis: {...grid, title: {text: axes.x}, type: this.xAxis.value, dtick: this.xAxis.value === "log" ? "D2" : undefined},
      yaxis: {...grid, title: {text: axes.y}, type: this.yAxis.value},
      shapes: [...across, ...trained],
    };
  }
}

function offer(figure) {
  const button = make("button", {type: "button", className: "explore"}, "Explore this figure");
  const images = [...figure.querySelectorAll("img")];
  let explorer = null;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", async () => {
    const open = button.getAttribute("aria-pressed") === "false";
    if (open && !explorer) {
      button.disabled = true;
      await Promise.all([figure.dataset.plotly, `${figure.dataset.from}${figure.dataset.explore}.js`].map(loadScript));
      explorer = new Explorer(figure, window.bookCurves[figure.dataset.explore]);
      button.disabled = false;
    }
    figure.classList.toggle("exploring", open);
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Back to the static figure" : "Explore this figure";
    explorer.box.setAttribute("aria-label", images[0].alt);
    explorer.draw();
  });
  figure.before(make("p", {className: "explore"}, button, " Hover for values; choose rows, runs, seeds and axes."));
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("figure[data-explore]").forEach(offer));
