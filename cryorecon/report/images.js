// Pictures of particle images: a strip of small canvases below the map.
"use strict";

const Images = (() => {
  const {whole, make} = Plots;

  /** Image k of square ones of bytes, its first row at the bottom. */
  function tile(side, bytes, k, particle) {
    const canvas = make("canvas", {width: side, height: side}), image = new ImageData(side, side);
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
      const value = bytes[(k * side + side - 1 - y) * side + x];
      image.data.set([value, value, value, 255], 4 * (y * side + x));
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.title = `particle ${whole(particle)}`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", canvas.title);
    return canvas;
  }

  /** At most eight images that the page holds of a cluster; the particle's own comes first, outlined. */
  function show(strip, images, tiles, cluster, particle) {
    const {side, particles, labels} = images;
    const shown = particles.map((_, k) => k).filter(k => labels[k] === cluster || particles[k] === particle)
      .sort((a, b) => (particles[b] === particle) - (particles[a] === particle)).slice(0, 8);
    strip.replaceChildren(...shown.map(k => {
      const canvas = tile(side, tiles, k, particles[k]);
      canvas.classList.toggle("own", particles[k] === particle);
      return canvas;
    }));
  }

  /** Under serve: all images of one particle, before those of its cluster. */
  function lead(strip, side, bytes, count, particle) {
    strip.querySelectorAll(".own").forEach(node => node.remove());
    for (let k = count - 1; k >= 0; k--) {
      const canvas = tile(side, bytes, k, particle);
      canvas.className = "own";
      strip.prepend(canvas);
    }
    while (strip.children.length > Math.max(8, count)) strip.lastChild.remove();
  }

  return {show, lead};
})();
