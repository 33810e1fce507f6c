// The map of all units: a canvas to pan and zoom, by pointer and by keyboard.
(() => {
  const COLOURS = ["#4e79a7", "#b07a4f", "#5f9457", "#b2636a", "#7b6bab", "#3f9393", "#a98a2f", "#87705e"];
  const CELLS = 64; // of the grid that finds the unit below the pointer, on a side
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const image = (bundle, number) => `explore/image?${new URLSearchParams({ bundle, image: number })}`;

  class Atlas {
    constructor(frame, data) {
      Object.assign(this, { frame, data, bundle: frame.dataset.bundle, count: data.x.length });
      this.canvas = frame.querySelector("canvas");
      this.tip = frame.querySelector(".cn-tip");
      this.said = frame.querySelector("[role=status]");
      this.view = { scale: 1, x: 0, y: 0 };
      this.hits = null;
      this.hovered = this.chosen = -1;
      this.grid = Array.from({ length: CELLS * CELLS }, () => []);
      for (let i = 0; i < this.count; i++) this.grid[this.cell(data.x[i]) + CELLS * this.cell(data.y[i])].push(i);
      this.shown = new Uint8Array(this.count).fill(1);
      this.legend();
      this.listen();
      new ResizeObserver(() => this.resize()).observe(this.canvas.parentElement);
      this.resize();
      this.follow();
    }
    cell(value) {
      return Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));
    }
    resize() {
      const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
      const ratio = devicePixelRatio || 1;
      Object.assign(this, { width, height, ratio });
      Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
      this.draw();
    }
    // A unit's place on the screen, and the other way round.
    screen(i) {
      const size = this.size();
      return [
        this.width / 2 + (this.data.x[i] * size + this.view.x) * this.view.scale,
        this.height / 2 + (this.data.y[i] * size + this.view.y) * this.view.scale,
      ];
    }
    plane(x, y) {
      const size = this.size();
      return [
        ((x - this.width / 2) / this.view.scale - this.view.x) / size,
        ((y - this.height / 2) / this.view.scale - this.view.y) / size,
      ];
    }
    size() {
      return Math.min(this.width, this.height) / 2 - 12;
    }
    draw() {
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => {
        this.waiting = 0;
        this.paint();
      });
    }
    paint() {
      const { data, view, width, height } = this, context = this.canvas.getContext("2d");
      const style = getComputedStyle(this.frame);
      const none = style.getPropertyValue("--cn-none"), ink = style.color;
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const size = this.size() * view.scale, side = Math.min(8, Math.max(1.5, 3.2 * Math.sqrt(view.scale) * (this.count > 5000 ? 0.7 : 1)));
      const left = width / 2 + view.x * view.scale, top = height / 2 + view.y * view.scale;
      const lit = this.hits;
      for (let kind = -1; kind < COLOURS.length; kind++) {
        context.fillStyle = kind < 0 ? none : COLOURS[kind];
        for (const bright of lit ? [false, true] : [true]) {
          context.globalAlpha = bright ? (kind < 0 ? 0.75 : 0.9) : 0.15;
          const mark = lit && bright ? side + 3 : side;
          for (let i = 0; i < this.count; i++) {
            if (data.kind[i] !== kind || !this.shown[i] || (lit && lit.has(i) !== bright)) continue;
            const x = left + data.x[i] * size, y = top + data.y[i] * size;
            if (x < -8 || y < -8 || x > width + 8 || y > height + 8) continue;
            context.fillRect(x - mark / 2, y - mark / 2, mark, mark);
          }
        }
      }
      context.globalAlpha = 1;
      for (const [i, line] of [[this.chosen, 3], [this.hovered, 2]]) {
        if (i < 0) continue;
        const [x, y] = this.screen(i);
        context.lineWidth = line;
        context.strokeStyle = ink;
        context.beginPath();
        context.arc(x, y, side + 4, 0, 7);
        context.stroke();
      }
    }
    // The unit nearest to a place on the screen, within so many pixels.
    near(x, y, within = 14) {
      const [px, py] = this.plane(x, y), reach = within / (this.size() * this.view.scale);
      let best = -1, least = reach * reach;
      for (let row = this.cell(py - reach); row <= this.cell(py + reach); row++)
        for (let column = this.cell(px - reach); column <= this.cell(px + reach); column++)
          for (const i of this.grid[column + CELLS * row]) {
            const distance = (this.data.x[i] - px) ** 2 + (this.data.y[i] - py) ** 2;
            if (this.shown[i] && distance < least) [best, least] = [i, distance];
          }
      return best;
    }
    // The nearest unit in a direction of the arrow keys.
    beside(i, dx, dy) {
      const { x, y } = this.data;
      let best = -1, least = Infinity;
      for (let j = 0; j < this.count; j++) {
        if (!this.shown[j] || j === i) continue;
        const along = (x[j] - x[i]) * dx + (y[j] - y[i]) * dy;
        const across = Math.abs((x[j] - x[i]) * dy) + Math.abs((y[j] - y[i]) * dx);
        if (along <= 1e-4 || across > along) continue;
        const cost = along + 2 * across;
        if (cost < least) [best, least] = [j, cost];
      }
      return best;
    }
    zoom(factor, x = this.width / 2, y = this.height / 2) {
      const scale = Math.min(40, Math.max(0.8, this.view.scale * factor)), turn = 1 / scale - 1 / this.view.scale;
      this.view.x += (x - this.width / 2) * turn;
      this.view.y += (y - this.height / 2) * turn;
      this.view.scale = scale;
      this.draw();
    }
    name(i) {
      const place = `${this.data.layer[i]} · ${this.data.unit[i]}`;
      return this.data.label[i] ? `${this.data.label[i]} (${place})` : place;
    }
    hover(i) {
      if (i === this.hovered) return;
      this.hovered = i;
      this.draw();
      this.tip.hidden = i < 0;
      if (i < 0) return;
      const { data } = this, title = document.createElement("b"), line = document.createElement("span");
      title.textContent = data.label[i] || `Unit ${data.layer[i]} · ${data.unit[i]}`;
      const score = data.score.length ? `Label score ${(data.score[i] / 100).toFixed(2)}` : "";
      line.textContent = [`layer ${data.layer[i]}, ${data.unit[i]}`, data.label[i] ? score : "no reliable label"].join(" · ");
      const images = data.images[i].map((number) => Object.assign(new Image(64, 64), { src: image(this.bundle, number), alt: "" }));
      const row = document.createElement("div");
      row.append(...images);
      this.tip.replaceChildren(title, line, row);
      const [x, y] = this.screen(i), { offsetWidth: width, offsetHeight: height } = this.tip;
      this.tip.style.left = `${Math.min(Math.max(4, x - width / 2), this.width - width - 4)}px`;
      this.tip.style.top = `${y > height + 20 ? y - height - 14 : y + 14}px`;
    }
    open(i) {
      if (i < 0) return;
      this.chosen = i;
      this.draw();
      const { layer, unit } = this.data;
      window.cnGo({ tab: "explore", layer: layer[i], unit: unit[i] });
    }
    // The unit whose dashboard is shown.
    follow() {
      const card = document.querySelector("#explore-card [data-unit]");
      if (!card) return;
      const { layer, unit } = this.data;
      this.chosen = layer.findIndex((at, i) => at === +card.dataset.layer && unit[i] === +card.dataset.unit);
      this.draw();
    }
    // What a search found lights up.
    light() {
      const links = [...document.querySelectorAll("#explore-results a.cn-link")];
      const wanted = new Set(links.map((link) => new URLSearchParams(link.getAttribute("href"))).map((to) => `${to.get("layer")} ${to.get("unit")}`));
      this.hits = wanted.size ? new Set() : null;
      if (this.hits) for (let i = 0; i < this.count; i++) if (wanted.has(`${this.data.layer[i]} ${this.data.unit[i]}`)) this.hits.add(i);
      this.said.textContent = this.hits ? `${this.hits.size} units found` : "";
      this.draw();
    }
    filter() {
      const layer = this.frame.querySelector("select").value, sure = this.frame.querySelector("input").checked;
      for (let i = 0; i < this.count; i++)
        this.shown[i] = (!layer || this.data.layer[i] === +layer) && (!sure || this.data.kind[i] >= 0);
      this.hover(-1);
      this.draw();
    }
    legend() {
      const rows = this.data.legend.map((text, kind) => {
        const item = document.createElement("span");
        item.textContent = text;
        item.style.setProperty("--colour", COLOURS[kind]);
        return item;
      });
      const none = document.createElement("span");
      none.textContent = "no reliable label";
      this.frame.querySelector(".cn-legend").replaceChildren(...rows, none);
    }
    listen() {
      const { canvas } = this, pointers = new Map();
      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      let moved = 0;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        pointers.set(event.pointerId, at(event));
        moved = 0;
      });
      canvas.addEventListener("pointermove", (event) => {
        const [x, y] = at(event), before = pointers.get(event.pointerId);
        if (!before) return this.hover(this.near(x, y));
        moved += Math.hypot(x - before[0], y - before[1]);
        if (pointers.size === 2) {
          const [[, other]] = [...pointers].filter(([id]) => id !== event.pointerId);
          const spread = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
          this.zoom(spread([x, y]) / spread(before), ...other);
        } else if (moved > 4) {
          this.view.x += (x - before[0]) / this.view.scale;
          this.view.y += (y - before[1]) / this.view.scale;
          this.hover(-1);
          this.draw();
        }
        pointers.set(event.pointerId, [x, y]);
      });
      canvas.addEventListener("pointerup", (event) => {
        pointers.delete(event.pointerId);
        if (moved > 4) return;
        const hit = this.near(...at(event), event.pointerType === "mouse" ? 14 : 24);
        this.hover(hit);
        this.open(hit);
      });
      canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
      canvas.addEventListener("pointerleave", () => this.hover(-1));
      canvas.addEventListener(
        "wheel",
        (event) => {
          event.preventDefault();
          this.zoom(Math.exp(-event.deltaY / 300), ...at(event));
        },
        { passive: false },
      );
      const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      canvas.addEventListener("keydown", (event) => {
        const from = this.hovered >= 0 ? this.hovered : Math.max(0, this.chosen);
        if (arrows[event.key]) {
          const next = this.beside(from, ...arrows[event.key]);
          if (next >= 0) {
            this.hover(next);
            this.said.textContent = this.name(next);
            this.bring(next);
          }
        } else if (event.key === "Enter" || event.key === " ") this.open(from);
        else if (event.key === "+" || event.key === "=") this.zoom(1.4);
        else if (event.key === "-") this.zoom(1 / 1.4);
        else if (event.key === "Escape") this.hover(-1);
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      canvas.addEventListener("blur", () => this.hover(-1));
      this.frame.querySelector("select").addEventListener("change", () => this.filter());
      this.frame.querySelector("input").addEventListener("change", () => this.filter());
    }
    // Moves the view until a unit is inside it.
    bring(i) {
      const [x, y] = this.screen(i), edge = 30;
      const dx = Math.max(0, edge - x) - Math.max(0, x - this.width + edge);
      const dy = Math.max(0, edge - y) - Math.max(0, y - this.height + edge);
      if (!dx && !dy) return;
      this.view.x += dx / this.view.scale;
      this.view.y += dy / this.view.scale;
      if (still.matches) this.tip.hidden = true; // it would jump along
      this.draw();
    }
  }

  let atlas = null;
  const begin = async (frame) => {
    frame.dataset.begun = "";
    const answer = await fetch(`explore/map?${new URLSearchParams({ bundle: frame.dataset.bundle })}`);
    if (!answer.ok || !frame.isConnected) return;
    atlas = new Atlas(frame, await answer.json());
    atlas.light();
    frame.dataset.ready = "";
  };
  new MutationObserver((changes) => {
    const frame = document.querySelector(".cn-atlas:not(.cn-nomap):not([data-begun])");
    if (frame) begin(frame);
    if (!atlas?.frame.isConnected) return;
    for (const { target } of changes) {
      const inside = (id) => target.nodeType === 1 && target.closest(id);
      if (inside("#explore-card")) atlas.follow();
      if (inside("#explore-results")) atlas.light();
    }
  }).observe(document, { childList: true, subtree: true });

  // The mosaic: the picture is asked for when it comes near the screen.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting) {
        near.unobserve(target);
        target.style.setProperty("--sheet", `url("explore/mosaic?${new URLSearchParams({ bundle: target.dataset.bundle })}")`);
      }
  });
  new MutationObserver(() => {
    const tiles = document.querySelector(".cn-tiles:not([data-begun])");
    if (!tiles) return;
    tiles.dataset.begun = "";
    near.observe(tiles);
  }).observe(document, { childList: true, subtree: true });
  addEventListener("click", async (event) => {
    const tile = event.target.closest?.(".cn-tiles button");
    if (!tile) return;
    const { bundle } = tile.parentElement.dataset, seen = tile.closest("section").querySelector(".cn-seen");
    for (const other of tile.parentElement.children) other.setAttribute("aria-pressed", other === tile);
    const answer = await fetch(`explore/seen?${new URLSearchParams({ bundle, image: tile.dataset.image })}`);
    if (answer.ok) seen.innerHTML = await answer.text();
  });

  // The unit before and after, by the dashboard's buttons and by the arrow keys.
  const steps = { ArrowLeft: "#explore-previous", ArrowRight: "#explore-next" };
  addEventListener("keydown", (event) => {
    const away = event.target.closest?.("input, textarea, select, [role=tab], [role=listbox], [contenteditable], canvas");
    if (!steps[event.key] || away || event.altKey || event.ctrlKey || event.metaKey) return;
    const button = document.querySelector(steps[event.key]);
    if (button?.offsetParent) button.click();
  });
  // Ten quick clicks are ten units: what is asked for is counted here, not read off the field.
  let asked = null;
  window.cnStep = (layer, unit, by) => {
    const units = JSON.parse(document.querySelector(".cn-atlas")?.dataset.units ?? "{}")[layer];
    if (!units) return unit;
    const from = asked && asked.layer === layer && Date.now() - asked.time < 4000 ? asked.unit : (unit ?? 0);
    asked = { layer, unit: (from + by + units) % units, time: Date.now() };
    return asked.unit;
  };
  window.cnStepped = () => (asked = null);
})();
