// The report's interactive part: particles as points, maps as surfaces (surface.js), images, lasso.
// Its data lie in <script type="application/json" class="explorer-data"> (report/explorer.py says what is in them).
// All words come in by textContent or escaped: names of files and runs are only ever text.
"use strict";

const Explorer = (() => {
  const {unpack, css, rgb, plain, whole, hex, make, fill, layout, inside, distance, CONFIG, onScheme, curves} = Plots;

  // --- the explorer --------------------------------------------------------------------------------------------------

  async function explore(root, data) {
    const part = Object.fromEntries([...root.querySelectorAll("[data-part]")].map(node => [node.dataset.part, node]));
    const n = data.shown, d = data.zdim, served = document.documentElement.dataset.served !== undefined;
    const [index, z, label] = n
      ? await Promise.all([unpack(data.index, "u32"), unpack(data.z, "f32"), unpack(data.label, "u16")]) : [[], [], []];
    const axes = n ? await Axes.read(data, z) : []; // a page of maps alone has no points
    const view = data.series.length ? Surface.view(part.surface) : null;
    // particle: a point's number in the plot. decoded: {volume, z} under serve. chosen: points inside the lasso
    const state = {x: axes[0], y: axes[1] || axes[0], colour: null, series: null, map: 0, decoded: null, level: 0,
      compare: "", particle: null, chosen: null, selected: null, timer: null, asked: 0};
    const volumes = new Map(), meshes = new Map();
    const tiles = data.images ? await unpack(data.images.tiles, "u8") : null;

    // points ----------------------------------------------------------------------------------------------------------

    const kind = view || document.createElement("canvas").getContext("webgl") ? "scattergl" : "scatter";
    const shade = i => data.clusters.colours[i];

    function colouring() {
      const k = data.clusters.colours.length;
      if (!state.colour) {
        const scale = data.clusters.colours.flatMap((colour, i) => [[i / k, rgb(colour)], [(i + 1) / k, rgb(colour)]]);
        return {color: label, cmin: -0.5, cmax: k - 0.5, colorscale: scale, showscale: false};
      }
      const sorted = Float64Array.from(state.colour.values).sort(), end = sorted.length - 1;
      const colorbar = {thickness: 10, title: {text: plain(state.colour.title), side: "right"}, outlinewidth: 0};
      return {color: state.colour.values, cmin: sorted[Math.floor(0.02 * end)], cmax: sorted[Math.ceil(0.98 * end)],
        colorscale: "Viridis", showscale: true, colorbar};
    }

    function nearestPoint(point) {
      let best = 0, least = Infinity;
      for (let i = 0; i < n; i++) {
        const far = distance(z, i, d, point);
        if (far < least) { least = far; best = i; }
      }
      return best;
    }
    /** Where a latent lies in the plot: by its own coordinates, or, where an axis has none, at the nearest particle. */
    function placed(point) {
      const near = state.x.at && state.y.at ? 0 : nearestPoint(point);
      return [state.x, state.y].map(axis => axis.at ? axis.at(point) : axis.values[near]);
    }

    function drawPoints() {
      if (!n) return null;
      const places = state.series ? state.series.volumes.map(volume => placed(volume.z)) : [];
      const path = state.series && state.series.kind === "path";
      const traces = [
        {x: state.x.values, y: state.y.values, type: kind, mode: "markers", name: "particles", hoverinfo: hover ? "text" : "none",
          text: hover, marker: {size: n > 20000 ? 3 : n > 3000 ? 4 : 5, opacity: n > 20000 ? 0.5 : 0.7, ...colouring()},
          selectedpoints: state.chosen || undefined, unselected: {marker: {opacity: 0.08}}},
        {x: path ? places.map(p => p[0]) : [], y: path ? places.map(p => p[1]) : [], type: kind, mode: "lines", name: "path",
          hoverinfo: "skip", line: {color: css("--quiet"), width: 2}},
        {x: [], y: [], type: kind, mode: "markers", hoverinfo: "skip", name: "shown",
          marker: {size: 18, symbol: "circle-open", color: css("--ink"), line: {width: 3}}},
      ];
      if (state.particle !== null) {
        traces[2].x = [state.x.values[state.particle]];
        traces[2].y = [state.y.values[state.particle]];
      }
      badges = places.map(([x, y], i) => ({x, y, text: String(i + state.series.first), showarrow: false, captureevents: true, borderpad: 2,
        borderwidth: 2, bgcolor: rgb(state.series.volumes[i].colour), hovertext: plain(state.series.volumes[i].label),
        ...badge(i)}));
      const selections = state.selected ? state.selected.shapes : [];
      return Plotly.react(part.plot, traces, layout({xtitle: plain(state.x.title), ytitle: plain(state.y.title),
        showlegend: false, hovermode: "closest", clickmode: "event", selections, annotations: badges,
        dragmode: part.plot.layout ? part.plot.layout.dragmode : "lasso",
        newselection: {mode: "immediate", line: {color: css("--ink"), width: 1.5, dash: "dot"}},
        uirevision: `${state.x.name} ${state.y.name}`}), CONFIG);
    }

    const hover = n > 20000 ? undefined
      : Array.from(index, (particle, i) => `particle ${whole(particle)}, cluster ${label[i] + 1}`);
    let badges = [];
    const badge = i => i === state.map && !state.decoded
      ? {bordercolor: css("--ink"), font: {color: "#10151c", size: 13, weight: 700}}
      : {bordercolor: css("--card"), font: {color: "#10151c", size: 11, weight: 400}};

    function choosePoint(i) {
      state.particle = i;
      state.decoded = null;
      const point = Array.from(z.subarray(i * d, i * d + d));
      if (!state.series) { about(); drawPoints(); return; }
      const far = state.series.volumes.map(volume => Math.hypot(...volume.z.map((value, k) => value - point[k])));
      chooseMap(far.indexOf(Math.min(...far)), false);
      if (served) decode(point, i);
    }

    // lasso -----------------------------------------------------------------------------------------------------------

    /** The last outline drawn (or pulled at), as corners; earlier ones go. */
    function select() {
      const shape = (part.plot.layout.selections || []).at(-1);
      if (!shape) return;
      const {x0, x1, y0, y1} = shape;
      const corners = shape.type === "rect" ? [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        : shape.path.slice(1, -1).split("L").map(corner => corner.split(",").map(Number));
      // plotly tells of the same outline again whenever it is drawn
      if (!state.selected || String(corners) !== String(state.selected.corners)) choose(corners, [shape]);
    }

    function choose(polygon, shapes) {
      const {x, y} = state;
      state.chosen = [];
      for (let i = 0; i < n; i++) if (inside(x.values[i], y.values[i], polygon)) state.chosen.push(i);
      const named = x.known && y.known;
      const file = named ? {x: x.name, y: y.name, polygon}
        : {particles: state.chosen.map(i => index[i]), shown: n, of: data.total};
      state.selected = {file, shapes, corners: polygon};
      part.selection.hidden = false;
      const share = `${(100 * state.chosen.length / n).toFixed(1)} %`;
      part.count.textContent = `${whole(state.chosen.length)} of ${whole(n)} particles shown are inside (${share})`;
      const counts = data.clusters.counts.map(() => 0), shown = counts.slice();
      for (const i of state.chosen) counts[label[i]]++;
      for (let i = 0; i < n; i++) shown[label[i]]++;
      const most = Math.max(...counts, 1);
      const largest = counts.map((count, c) => [count, c]).filter(([count]) => count).sort((a, b) => b[0] - a[0]).slice(0, 8);
      part.shares.replaceChildren(...largest.map(([count, c]) => {
        const row = make("div", {className: "share"}), bar = make("i");
        bar.style.width = `${100 * count / most}%`;
        bar.style.background = rgb(shade(c));
        row.append(make("span", {}, `cluster ${c + 1}`), bar,
          make("span", {}, `${whole(count)}, ${Math.round(100 * count / shown[c]) || "<1"} % of it`));
        return row;
      }));
      part.caution.hidden = named && n === data.total;
      const all = whole(data.total);
      part.caution.textContent = named
        ? `The file holds the outline: select finds all of the ${all} particles inside it, shown or not.`
        : "These axes have no name that select knows, so the file lists particles"
          + (n === data.total ? "." : `, and only of the ${whole(n)} shown of ${all}.`);
      drawPoints();
    }

    function clear() {
      state.chosen = state.selected = null;
      part.selection.hidden = true;
      drawPoints();
    }

    function save() {
      const link = make("a", {download: "selection.json",
        href: URL.createObjectURL(new Blob([JSON.stringify(state.selected.file)], {type: "application/json"}))});
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }

    // maps ------------------------------------------------------------------------------------------------------------

    async function volumeOf(series, i) {
      const key = `${series.name}/${i}`;
      if (!volumes.has(key)) volumes.set(key, {box: series.box, low: series.low, high: series.high,
        values: await unpack(series.volumes[i].data, "u8"), key});
      return volumes.get(key);
    }
    function meshOf(volume) {
      const held = meshes.get(volume.key);
      if (held && held.level === state.level) return held.mesh;
      const mesh = Surface.mesh(volume, state.level);
      if (meshes.size > 60) meshes.delete(meshes.keys().next().value); // a path's frames stay, those of old clicks go
      meshes.set(volume.key, {level: state.level, mesh});
      return mesh;
    }

    async function drawSurface() {
      if (!view || !state.series) return;
      const call = ++state.asked;
      const volume = state.decoded ? state.decoded.volume : await volumeOf(state.series, state.map);
      const other = state.compare === "" ? null : await volumeOf(state.series, Number(state.compare));
      if (call !== state.asked) return; // a later call has taken over
      const paint = state.decoded ? hex(css("--accent")) : state.series.volumes[state.map].colour;
      const layers = [{mesh: meshOf(volume), paint, alpha: 1}];
      if (other) layers.push({mesh: meshOf(other), paint: [0.62, 0.65, 0.7], alpha: 0.45});
      view.show(layers);
      part.surface.dataset.triangles = layers[0].mesh.triangles;
      part.surface.dataset.shown = volume.key;
      part.value.textContent = state.level.toPrecision(3);
    }

    function chooseSeries(series) {
      stop();
      Object.assign(state, {series, map: 0, decoded: null, compare: "", level: series.level});
      part.series.value = series.name;
      part.volumes.replaceChildren(...series.volumes.map((volume, i) => {
        const button = make("button", {type: "button", title: volume.label}, String(i + series.first));
        button.style.setProperty("--shade", rgb(volume.colour));
        button.addEventListener("click", () => { stop(); chooseMap(i, true); });
        return button;
      }));
      fill(part.compare, [["", "nothing"], ...series.volumes.map((volume, i) => [String(i), `${i + series.first}`])]);
      part.volumes.hidden = series.volumes.length < 2;
      part.compare.parentElement.hidden = !view || series.volumes.length < 2;
      part.movie.hidden = series.kind !== "path" || series.volumes.length < 2;
      part.frame.max = series.volumes.length - 1;
      const [low, high] = series.range;
      part.level.value = Math.round(1000 * (series.level - low) / (high - low));
      return chooseMap(0, true);
    }

    /** Show map i. own: it was asked for itself, not by a particle near it. */
    function chooseMap(i, own, plot = true) {
      state.map = i;
      state.decoded = null;
      if (own) state.particle = null;
      [...part.volumes.children].forEach((button, k) => button.setAttribute("aria-pressed", String(k === i)));
      part.frame.value = i;
      for (const row of document.querySelectorAll("tr[data-volume]"))
        row.classList.toggle("shown", row.dataset.series === state.series.name && Number(row.dataset.volume) === i);
      about();
      if (plot) drawPoints(); else moveBadge();
      return drawSurface();
    }
    function moveBadge() {
      if (!n) return null;
      badges.forEach((one, i) => Object.assign(one, badge(i)));
      return Plotly.relayout(part.plot, {annotations: badges});
    }

    async function decode(point, i) {
      part.detail.textContent += " Decoding the map at exactly this particle …";
      try {
        const answer = await fetch(`volume?z=${point.join(",")}`);
        if (!answer.ok) throw new Error(await answer.text());
        const sent = await answer.json();
        if (state.particle !== i) return;
        const values = await unpack(sent.data, "u8");
        const volume = {box: sent.box, low: sent.low, high: sent.high, values, key: `decoded/${index[i]}`};
        state.decoded = {volume, z: point};
        for (const button of part.volumes.children) button.setAttribute("aria-pressed", "false");
        about();
        drawPoints();
        await drawSurface();
        const images = await fetch(`images?particle=${index[i]}`);
        if (images.ok && state.particle === i) {
          const found = await images.json();
          part.images.hidden = false;
          Images.lead(part.strip, found.side, await unpack(found.tiles, "u8"), found.count, index[i]);
        }
      } catch (error) {
        if (state.particle === i) part.detail.textContent = `The map could not be decoded: ${error.message}`;
      }
    }

    /** Words and images of what is shown. */
    function about() {
      const i = state.particle, volume = state.series && state.series.volumes[state.map];
      const total = data.total, counts = data.clusters.counts;
      const cluster = i !== null ? label[i] : state.series && state.series.kind === "clusters" ? state.map
        : volume && n ? label[nearestPoint(volume.z)] : null;
      const words = c => `cluster ${c + 1}: ${whole(counts[c])} particles, ${(100 * counts[c] / total).toFixed(1)} %`;
      if (i !== null) {
        part.title.textContent = `Particle ${whole(index[i])}, ${words(label[i])}`;
        const far = volume ? distance(z, i, d, volume.z).toPrecision(2) : "";
        part.detail.textContent = state.decoded ? `The map decoded at z = ${numbers(state.decoded.z)}.`
          : volume ? `Shown: ${volume.label}, the nearest of these maps (${far} away in z).`
            : `z = ${numbers(z.subarray(i * d, i * d + d))}`;
      } else if (volume) {
        part.title.textContent = volume.label;
        const who = volume.particle === null ? "" : whole(volume.particle);
        part.detail.textContent = state.series.kind === "clusters"
          ? (who && `Decoded at particle ${who}, `) + `z = ${numbers(volume.z)}`
          : (who && `Nearest particle: ${who}, in ${words(cluster)}. `) + (d ? `z = ${numbers(volume.z)}` : "");
      }
      const file = volume && !state.decoded && volume.file;
      part.file.hidden = !file;
      if (file) {
        part.file.textContent = file;
        part.file.href = file.split("/").map(encodeURIComponent).join("/");
      }
      strip(cluster, i);
    }
    const numbers = point => [...point].slice(0, 8).map(value => value.toFixed(2).replace(/^-0\.00$/, "0.00")).join(", ")
      + (point.length > 8 ? ", …" : "");

    function strip(cluster, i) {
      part.images.hidden = !tiles || cluster === null;
      if (part.images.hidden) return;
      const particle = i === null ? state.series && state.series.volumes[state.map].particle : index[i];
      part.whose.textContent = `Particle images of cluster ${cluster + 1}, low-passed:`;
      Images.show(part.strip, data.images, tiles, cluster, particle);
    }

    // movie -----------------------------------------------------------------------------------------------------------

    function stop() {
      clearTimeout(state.timer);
      state.timer = null;
      part.play.textContent = "Play";
      part.play.setAttribute("aria-pressed", "false");
    }
    function play() {
      part.play.textContent = "Pause";
      part.play.setAttribute("aria-pressed", "true");
      let step = state.map >= state.series.volumes.length - 1 ? -1 : 1; // there and back
      const tick = async () => {
        const last = state.series.volumes.length - 1;
        if (state.map + step > last || state.map + step < 0) step = -step;
        await chooseMap(state.map + step, true, false);
        if (state.timer !== null) state.timer = setTimeout(tick, 1000 / Number(part.speed.value));
      };
      state.timer = setTimeout(tick, 0);
    }

    // wiring ----------------------------------------------------------------------------------------------------------

    /** What is done in the plot of points. */
    function listen() {
      part.plot.on("plotly_click", event => {
        const point = event.points.find(one => one.curveNumber === 0);
        if (point) { stop(); choosePoint(point.pointIndex); }
      });
      part.plot.on("plotly_clickannotation", event => { stop(); chooseMap(event.index, true); });
      part.plot.on("plotly_selected", select);
      part.plot.on("plotly_deselect", clear);
    }

    const short = axis => axis.title.replace(/ \([\d.]+ %\)$/, "");
    const byName = name => axes.find(axis => axis.name === name);
    part.points.hidden = !n;
    if (n) for (const which of ["x", "y"]) {
      fill(part[which], axes.map(axis => [axis.name, short(axis)]));
      part[which].value = state[which].name;
      part[which].addEventListener("change", () => { state[which] = byName(part[which].value); clear(); });
    }
    fill(part.colour, [["", "cluster"], ...axes.filter(axis => axis.name !== "spread").map(axis => [axis.name, short(axis)])]);
    part.colour.addEventListener("change", () => { state.colour = byName(part.colour.value) || null; drawPoints(); });
    part.hint.textContent = (n < data.total ? `${whole(n)} of ${whole(data.total)} particles, drawn at random. ` : "")
      + (data.series.length ? "Click a point or a number to see its map. " : "")
      + "Drag to draw a lasso around particles; the icons above the plot change what dragging does.";
    part.command.textContent = data.select;
    part.save.addEventListener("click", save);
    part.clear.addEventListener("click", clear);
    part.copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(data.select); part.copy.textContent = "Copied"; } catch {
        getSelection().selectAllChildren(part.command); part.copy.textContent = "Selected";
      }
      setTimeout(() => { part.copy.textContent = "Copy"; }, 2000);
    });
    part.maps.hidden = !data.series.length && !tiles;
    root.classList.toggle("both", n > 0 && !part.maps.hidden);
    if (!data.series.length) for (const name of ["series", "compare", "level"]) part[name].parentElement.hidden = true;
    if (!data.series.length) part.surface.parentElement.hidden = true;
    if (data.series.length && !view) {
      part.missing.hidden = false;
      part.surface.parentElement.hidden = part.level.parentElement.hidden = part.compare.parentElement.hidden = true;
    }
    document.documentElement.classList.add("has-explorer");
    if (view) {
      document.documentElement.classList.add("has-surface");
      view.home(data.series[0].view, Math.min(...data.series.map(series => series.zoom)));
      view.ground(hex(css("--ground")));
    }
    part.series.parentElement.hidden = data.series.length < 2;
    fill(part.series, data.series.map(series => [series.name, series.title]));
    part.series.addEventListener("change", () => chooseSeries(data.series.find(series => series.name === part.series.value)));
    part.compare.addEventListener("change", () => { state.compare = part.compare.value; drawSurface(); });
    part.level.addEventListener("input", () => {
      const [low, high] = state.series.range;
      state.level = low + (high - low) * part.level.value / 1000;
      drawSurface();
    });
    part.reset.addEventListener("click", () => view.reset());
    part.play.addEventListener("click", () => { if (state.timer === null) play(); else stop(); });
    part.frame.addEventListener("input", () => { stop(); chooseMap(Number(part.frame.value), true, false); });
    for (const row of document.querySelectorAll("tr[data-volume]")) {
      const series = data.series.find(one => one.name === row.dataset.series), cell = row.cells[0];
      if (!series) continue;
      const button = make("button", {type: "button", title: "Show this map"}, cell.textContent);
      cell.replaceChildren(button);
      row.addEventListener("click", () => {
        if (state.series !== series) chooseSeries(series);
        stop();
        chooseMap(Number(row.dataset.volume), true);
        root.scrollIntoView({block: "nearest"});
      });
    }
    await drawPoints();
    if (n) listen();
    onScheme(() => { if (view) view.ground(hex(css("--ground"))); drawPoints(); drawSurface(); });
    if (data.series.length) await chooseSeries(data.series[0]);
    return {state, axes, view, choosePoint, chooseMap, index, label};
  }

  async function start() {
    const held = document.querySelector("script.explorer-data");
    const ready = held ? await explore(document.querySelector(".explorer"), JSON.parse(held.textContent)) : null;
    for (const node of document.querySelectorAll(".curves"))
      await curves(node, JSON.parse(node.nextElementSibling.textContent));
    document.documentElement.dataset.ready = "";
    return ready;
  }
  return {start, ready: null};
})();
document.addEventListener("DOMContentLoaded", () => { Explorer.ready = Explorer.start(); });
