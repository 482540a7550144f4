// What the report's scripts share: numbers out of the page, colours of the scheme, what lies in an outline, the look of plots, plots of lines.
"use strict";

const Plots = (() => {
  const TYPES = {u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array};

  /** Numbers that report/packed.py wrote: base64 of gzip. */
  async function unpack(text, type) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new TYPES[type](await new Response(plain).arrayBuffer());
  }

  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = ([r, g, b]) => `rgb(${Math.round(255 * r)},${Math.round(255 * g)},${Math.round(255 * b)})`;
  const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads tags in its labels
  const whole = number => number.toLocaleString("en-US");
  const hex = text => {
    const digits = text.length === 4 ? [...text.slice(1)].map(d => d + d).join("") : text.slice(1);
    return [0, 2, 4].map(i => parseInt(digits.slice(i, i + 2), 16) / 255);
  };
  function make(tag, attributes, text) {
    const node = Object.assign(document.createElement(tag), attributes);
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => make("option", {value}, text)));
  }

  // --- geometry ------------------------------------------------------------------------------------------------------

  /** Even-odd rule, side by side with analysis/selection.py's by_lasso: both must choose the same particles. */
  function inside(x, y, polygon) {
    let odd = false;
    for (let i = 0; i < polygon.length; i++) {
      const [x1, y1] = polygon[i], [x2, y2] = polygon[(i + 1) % polygon.length];
      if (y1 !== y2 && (y1 > y) !== (y2 > y) && x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)) odd = !odd;
    }
    return odd;
  }
  function distance(z, i, d, point) {
    let sum = 0;
    for (let k = 0; k < d; k++) sum += (z[i * d + k] - point[k]) ** 2;
    return Math.sqrt(sum);
  }

  // --- plots ---------------------------------------------------------------------------------------------------------

  function layout(more) {
    const axis = title => ({title: {text: title, standoff: 8}, gridcolor: css("--line"), zeroline: false,
      linecolor: css("--line"), ticks: "outside", tickcolor: css("--line"), automargin: true});
    const {xtitle, ytitle, ...rest} = more;
    return {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: css("--ink"), size: 12,
      family: "system-ui, sans-serif"}, margin: {l: 50, r: 12, t: 30, b: 44}, xaxis: axis(xtitle), yaxis: axis(ytitle),
      modebar: {bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent")},
      hoverlabel: {bgcolor: css("--card"), bordercolor: css("--line"), font: {color: css("--ink")}}, ...rest};
  }
  const CONFIG = {responsive: true, displaylogo: false, displayModeBar: true, scrollZoom: true,
    modeBarButtonsToRemove: ["toImage", "autoScale2d", "zoomIn2d", "zoomOut2d"]};
  const onScheme = act => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", act);

  function curves(node, data) {
    const colours = ["#1f6fb4", "#d1622b", "#2a9d73", "#8a5cb8", "#c2a01e", "#5b6b7d"];
    const traces = data.lines.map((line, i) => ({x: line.x, y: line.y, name: plain(line.name), type: "scatter", mode: "lines",
      line: {color: colours[i % 6], width: 2, dash: ["solid", "dash", "dot"][Math.floor(i / 6) % 3]}}));
    const draw = () => Plotly.react(node, traces, layout({xtitle: "spatial frequency (1/Å)", ytitle: "FSC",
      showlegend: true, legend: {orientation: "h", y: -0.2}, hovermode: "x unified", dragmode: "zoom",
      shapes: [0.143, 0.5].map(y => ({type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y,
        line: {color: css("--quiet"), width: 1, dash: "dot"}}))}), CONFIG);
    onScheme(draw);
    return draw();
  }

  return {unpack, css, rgb, plain, whole, hex, make, fill, layout, inside, distance, CONFIG, onScheme, curves};
})();
