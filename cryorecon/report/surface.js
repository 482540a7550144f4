// Isosurfaces in the browser: a mesh of a density at a level (surface nets), and a WebGL 2 view of it that turns.
// A volume is {box, values: Uint8Array (box^3, x fastest), low, high}: density = low + value * (high - low) / 255.
"use strict";

const Surface = (() => {
  /** Naive surface nets (Gibson 1998): one vertex in each cell that the level passes, at the mean of its edges' crossings.
   *  Returns {position, normal, shade (0 in hollows to 1), index, triangles}; positions in voxels from box // 2. */
  function mesh(volume, level) {
    const n = volume.box, v = volume.values, plane = n * n;
    const at = (level - volume.low) / (volume.high - volume.low) * 255;
    const vertexOf = new Int32Array(n * plane).fill(-1);
    const position = [], index = [];
    const corner = [0, 1, n, n + 1, plane, plane + 1, plane + n, plane + n + 1];
    const edges = [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]];
    for (let z = 0; z < n - 1; z++) for (let y = 0; y < n - 1; y++) for (let x = 0; x < n - 1; x++) {
      const base = z * plane + y * n + x;
      let inside = 0;
      for (let c = 0; c < 8; c++) if (v[base + corner[c]] > at) inside |= 1 << c;
      if (inside === 0 || inside === 255) continue;
      let px = 0, py = 0, pz = 0, count = 0;
      for (const [a, b] of edges) {
        if (((inside >> a) & 1) === ((inside >> b) & 1)) continue;
        const va = v[base + corner[a]], part = (at - va) / (v[base + corner[b]] - va), step = b - a;
        px += (a & 1) + (step === 1 ? part : 0);
        py += ((a >> 1) & 1) + (step === 2 ? part : 0);
        pz += (a >> 2) + (step === 4 ? part : 0);
        count++;
      }
      vertexOf[base] = position.length / 3;
      position.push(x + px / count, y + py / count, z + pz / count);
    }
    // a quad about every voxel edge that the level passes, turned outwards
    const quad = (a, b, c, d, flip) => {
      if (a < 0 || b < 0 || c < 0 || d < 0) return;
      if (flip) index.push(a, c, b, a, d, c); else index.push(a, b, c, a, c, d);
    };
    for (let z = 1; z < n - 1; z++) for (let y = 1; y < n - 1; y++) for (let x = 1; x < n - 1; x++) {
      const i = z * plane + y * n + x, here = v[i] > at;
      if (here !== v[i + 1] > at)
        quad(vertexOf[i - n - plane], vertexOf[i - plane], vertexOf[i], vertexOf[i - n], !here);
      if (here !== v[i + n] > at)
        quad(vertexOf[i - 1 - plane], vertexOf[i - 1], vertexOf[i], vertexOf[i - plane], !here);
      if (here !== v[i + plane] > at)
        quad(vertexOf[i - 1 - n], vertexOf[i - n], vertexOf[i], vertexOf[i - 1], !here);
    }
    const points = new Float32Array(position);
    const light = lighting(volume, points, at);
    const half = n >> 1;
    for (let i = 0; i < points.length; i++) points[i] -= half;
    return {position: points, normal: light.normal, shade: light.shade, index: new Uint32Array(index),
      triangles: index.length / 3, box: n};
  }

  /** Density at a point in voxels, trilinear. */
  function sample(volume, x, y, z) {
    const n = volume.box, v = volume.values, top = n - 1.001;
    x = Math.min(Math.max(x, 0), top); y = Math.min(Math.max(y, 0), top); z = Math.min(Math.max(z, 0), top);
    const x0 = Math.floor(x), y0 = Math.floor(y), z0 = Math.floor(z), i = (z0 * n + y0) * n + x0;
    const fx = x - x0, fy = y - y0, fz = z - z0, p = n * n;
    const low = (v[i] * (1 - fx) + v[i + 1] * fx) * (1 - fy) + (v[i + n] * (1 - fx) + v[i + n + 1] * fx) * fy;
    const high = (v[i + p] * (1 - fx) + v[i + p + 1] * fx) * (1 - fy)
      + (v[i + p + n] * (1 - fx) + v[i + p + n + 1] * fx) * fy;
    return low * (1 - fz) + high * fz;
  }

  /** Normals down the density's slope, and how open the sky above each vertex is (1; 0 at the bottom of a pit). */
  function lighting(volume, points, at) {
    const normal = new Float32Array(points.length), shade = new Float32Array(points.length / 3), step = 1.0;
    for (let i = 0; i < points.length; i += 3) {
      const x = points[i], y = points[i + 1], z = points[i + 2];
      let gx = sample(volume, x - step, y, z) - sample(volume, x + step, y, z);
      let gy = sample(volume, x, y - step, z) - sample(volume, x, y + step, z);
      let gz = sample(volume, x, y, z - step) - sample(volume, x, y, z + step);
      const length = Math.hypot(gx, gy, gz) || 1;
      gx /= length; gy /= length; gz /= length;
      normal[i] = gx; normal[i + 1] = gy; normal[i + 2] = gz;
      let hidden = 0;
      for (const far of [2, 3.5, 5.5]) {
        const d = sample(volume, x + far * gx, y + far * gy, z + far * gz);
        hidden += Math.min(d / Math.max(at, 1), 1) / 3;
      }
      shade[i / 3] = 1 - hidden;
    }
    return {normal, shade};
  }

  const VERTEX = `#version 300 es
    in vec3 position, normal; in float shade;
    uniform mat3 turn; uniform vec2 scale; uniform float reach;
    out vec3 n; out float depth, open;
    void main() {
      vec3 p = turn * position;
      n = turn * normal; open = shade; depth = 0.5 - 0.5 * p.z / reach;
      gl_Position = vec4(p.xy * scale, -p.z / reach * 0.5, 1.0);
    }`;
  // the light of the still pictures (surface.py): a key from the upper left, soft sky, a small highlight, dark hollows
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec3 n; in float depth, open; out vec4 colour;
    uniform vec3 paint, ground; uniform float alpha;
    void main() {
      vec3 m = normalize(n), light = normalize(vec3(-0.45, 0.62, 0.64));
      float key = max(dot(m, light), 0.0), sky = 0.5 + 0.5 * m.y;
      float gloss = pow(max(dot(m, normalize(light + vec3(0.0, 0.0, 1.0))), 0.0), 40.0);
      float strength = (0.34 + 0.62 * key + 0.16 * sky) * (0.66 + 0.34 * open);
      vec3 lit = paint * strength + 0.2 * gloss;
      colour = vec4(mix(lit, ground, 0.35 * clamp(depth, 0.0, 1.0)) * alpha, alpha);
    }`;

  function program(gl) {
    const made = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return gl.getProgramParameter(made, gl.LINK_STATUS) ? made : null;
  }

  const multiply = (a, b) => [0, 1, 2].flatMap(i => [0, 1, 2].map(j =>
    a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]));

  /** A view on a canvas. show(layers): [{mesh, paint: [r, g, b], alpha}]. null where WebGL 2 is missing. */
  function view(canvas) {
    const gl = canvas.getContext("webgl2", {antialias: true, premultipliedAlpha: true, preserveDrawingBuffer: true});
    const made = gl && program(gl);
    if (!made) return null;
    const place = name => gl.getUniformLocation(made, name);
    const uniform = {turn: place("turn"), scale: place("scale"), reach: place("reach"), paint: place("paint"),
      ground: place("ground"), alpha: place("alpha")};
    const buffers = new Map();
    const state = {turn: [1, 0, 0, 0, 1, 0, 0, 0, 1], home: null, zoom: 1, layers: [], ground: [1, 1, 1], pending: false};

    function uploaded(shape) {
      if (buffers.has(shape)) return buffers.get(shape);
      if (buffers.size > 40) { // a movie's frames stay; older levels go
        const [old, array] = buffers.entries().next().value;
        gl.deleteVertexArray(array.array);
        array.held.forEach(buffer => gl.deleteBuffer(buffer));
        buffers.delete(old);
      }
      const array = gl.createVertexArray(), held = [];
      gl.bindVertexArray(array);
      for (const [name, size] of [["position", 3], ["normal", 3], ["shade", 1]]) {
        const buffer = gl.createBuffer(), where = gl.getAttribLocation(made, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, shape[name], gl.STATIC_DRAW);
        gl.enableVertexAttribArray(where);
        gl.vertexAttribPointer(where, size, gl.FLOAT, false, 0, 0);
        held.push(buffer);
      }
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, shape.index, gl.STATIC_DRAW);
      held.push(buffer);
      gl.bindVertexArray(null);
      buffers.set(shape, {array, held});
      return buffers.get(shape);
    }

    function draw() {
      state.pending = false;
      const ratio = window.devicePixelRatio || 1;
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.useProgram(made);
      const t = state.turn, side = Math.min(width, height);
      gl.uniformMatrix3fv(uniform.turn, true, t);
      gl.uniform3fv(uniform.ground, state.ground);
      for (const layer of state.layers) {
        const shape = layer.mesh, half = shape.box / 2, clear = layer.alpha < 1;
        gl.uniform2f(uniform.scale, state.zoom * side / width / half, state.zoom * side / height / half);
        gl.uniform1f(uniform.reach, half * 1.75);
        gl.uniform3fv(uniform.paint, layer.paint);
        gl.uniform1f(uniform.alpha, layer.alpha);
        (clear ? gl.enable : gl.disable).call(gl, gl.BLEND);
        (clear ? gl.enable : gl.disable).call(gl, gl.CULL_FACE);
        gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
        gl.bindVertexArray(uploaded(shape).array);
        gl.drawElements(gl.TRIANGLES, shape.index.length, gl.UNSIGNED_INT, 0);
      }
      gl.bindVertexArray(null);
    }
    const later = () => { if (!state.pending) { state.pending = true; requestAnimationFrame(draw); } };

    function rotate(right, up) { // about the picture's own axes, radians
      const c = Math.cos(right), s = Math.sin(right), d = Math.cos(up), e = Math.sin(up);
      state.turn = multiply(multiply([1, 0, 0, 0, d, -e, 0, e, d], [c, 0, s, 0, 1, 0, -s, 0, c]), state.turn);
      later();
    }
    function nearer(factor) { state.zoom = Math.min(Math.max(state.zoom * factor, 0.3), 8); later(); }
    function reset() { if (state.home) { state.turn = state.home.turn.slice(); state.zoom = state.home.zoom; } later(); }

    const fingers = new Map();
    const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
    });
    canvas.addEventListener("pointermove", event => {
      const from = fingers.get(event.pointerId);
      if (!from) return;
      const before = fingers.size === 2 ? apart() : 0;
      const dx = event.clientX - from.x, dy = event.clientY - from.y;
      from.x = event.clientX; from.y = event.clientY;
      if (fingers.size === 2) nearer(apart() / (before || 1));
      else rotate(dx * 0.01, dy * 0.01);
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, event => fingers.delete(event.pointerId));
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      nearer(Math.exp(-event.deltaY * 0.0015));
    }, {passive: false});
    canvas.addEventListener("dblclick", reset);
    canvas.addEventListener("keydown", event => {
      const turn = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15]}[event.key];
      if (turn) rotate(...turn);
      else if (event.key === "+" || event.key === "=") nearer(1.15);
      else if (event.key === "-") nearer(1 / 1.15);
      else if (event.key === "0") reset();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(later).observe(canvas);
    return {
      show(layers) { state.layers = layers; later(); },
      home(turn, zoom) { state.home = {turn: turn.slice(), zoom}; reset(); },
      ground(colour) { state.ground = colour; later(); },
      reset, rotate, state, draw,
    };
  }

  return {mesh, view};
})();
