// What particles can be placed along or coloured by: components and coordinates of z, UMAP, columns of numbers.
"use strict";

const Axes = (() => {
  const {unpack} = Plots;

  /** Axes {name, title, at: point -> value of a latent or null, values}; pc and z are those that select knows by name. */
  async function read(data, z) {
    const n = data.shown, d = data.zdim;
    const found = [], {mean, components, explained} = data.pca;
    for (let c = 0; c < Math.min(d, 8); c++) {
      const at = point => components[c].reduce((sum, w, k) => sum + w * (point[k] - mean[k]), 0);
      const values = new Float64Array(n);
      for (let i = 0; i < n; i++) values[i] = at(z.subarray(i * d, i * d + d));
      const title = `PC ${c + 1} (${(100 * explained[c]).toFixed(1)} %)`;
      found.push({name: `pc${c + 1}`, title, at, values, known: true});
    }
    if (data.umap) {
      const both = await unpack(data.umap, "f32");
      for (const k of [0, 1])
        found.push({name: `umap${k + 1}`, title: `UMAP ${k + 1}`, at: null, values: both.filter((_, i) => i % 2 === k)});
    }
    for (let k = 0; k < Math.min(d, 32); k++) {
      const values = Float64Array.from({length: n}, (_, i) => z[i * d + k]);
      found.push({name: `z${k + 1}`, title: `z ${k + 1}`, at: point => point[k], values, known: true});
    }
    const spread = Float64Array.from({length: n}, (_, i) => (i * 0.618034) % 1);
    const extra = await Promise.all(data.columns.map(async column => ({name: column.name, title: column.name, at: null,
      values: await unpack(column.values, "f32")})));
    if (d === 1) found.splice(1, 0, {name: "spread", title: "spread out (no meaning)", at: null, values: spread});
    return [...found, ...extra];
  }

  return {read};
})();
