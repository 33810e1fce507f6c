// The tab "Edit": bars follow the sliders from inner products that were sent once,
// until the model has answered.
//   cos_c(x) = ⟨e + Σ x_r v_r, t_c⟩ / ‖e + Σ x_r v_r‖
(() => {
  const shown = () => document.querySelector("#edit-result .cn-edit");
  // The page may fill the same element with another reading: facts go by their text.
  let read = { text: "", facts: null };
  const factsOf = (node) => {
    const text = node.dataset.facts;
    if (read.text !== text) read = { text, facts: JSON.parse(text) };
    return read.facts;
  };
  const factorOf = (row) => {
    const slider = row.querySelector("input[type=range]");
    return slider ? Number(slider.value) : row.querySelector("input").checked ? 1 : 0;
  };
  const rows = (node) => [...node.querySelectorAll("[data-part]")];

  const strengths = (node) => {
    const facts = factsOf(node), x = new Float64Array(facts.parts.length + 1);
    x[0] = 1;
    for (const row of rows(node)) {
      const part = Number(row.dataset.part);
      x[part + 1] = factorOf(row) - (facts.parts[part].kind === "rest" ? 0 : 1);
    }
    return x;
  };
  const shares = (preview, x, scale) => {
    let square = 0;
    const raw = new Float64Array(preview.along[0].length);
    x.forEach((xi, i) => {
      if (!xi) return;
      preview.gram[i].forEach((g, j) => (square += xi * g * x[j]));
      preview.along[i].forEach((a, c) => (raw[c] += xi * a));
    });
    const cosines = [...raw].map((value) => value / Math.sqrt(Math.max(square, 1e-24)));
    if (scale === null) return cosines;
    const most = Math.max(...cosines);
    const exps = cosines.map((cosine) => Math.exp(scale * (cosine - most)));
    const total = exps.reduce((a, b) => a + b);
    return exps.map((value) => value / total);
  };
  const text = (share, scale) => (scale === null ? share.toFixed(3) : (100 * share).toFixed(1));
  const best = (values) => values.indexOf(Math.max(...values));

  const fill = (node, kind, values) => {
    const { scale } = factsOf(node);
    const was = [...node.querySelectorAll(".cn-classes [data-class] .cn-value.cn-was")];
    const most = scale === null ? Math.max(...was.map((value) => Math.abs(value.textContent))) : 1;
    node.querySelectorAll(".cn-classes [data-class]").forEach((row, c) => {
      const share = Math.max(0, Math.min(1, values[c] / (most || 1)));
      row.querySelector(`.cn-track.cn-${kind} .cn-bar`).style.setProperty("--share", share);
      row.querySelector(`.cn-value.cn-${kind}`).textContent = text(values[c], scale);
    });
  };
  // The headline and the other images' captions, by an estimate or by what the model said.
  const tell = (node, basis, sharesOf) => {
    const { names, scale } = factsOf(node);
    node.querySelector(".cn-top").textContent = names[best(sharesOf(0))];
    node.querySelector(".cn-basis").textContent = basis;
    node.querySelectorAll("[data-image]").forEach((figure) => {
      const values = sharesOf(figure.dataset.image), top = best(values);
      figure.querySelector("b").textContent = `${names[top]} ${text(values[top], scale)}`;
    });
  };
  const draw = (node) => {
    const { previews, scale } = factsOf(node), x = strengths(node);
    const estimate = (image) => shares(previews[image], x, scale);
    fill(node, "estimated", estimate(0));
    tell(node, "Estimated", estimate);
    return x;
  };

  // The edit that the sliders make, as `Edit.to_json` writes it.
  window.cnEdit = () => {
    const node = shown();
    if (!node) return "";
    const { parts, sha } = factsOf(node), units = [], words = [];
    for (const row of rows(node)) {
      const { kind, rules } = parts[row.dataset.part], factor = factorOf(row);
      if (kind === "rest") units.push(...(factor ? rules : []));
      else if (factor !== 1) (kind === "unit" ? units : words).push({ ...rules[0], factor });
    }
    return JSON.stringify({ schema_version: 1, weights_sha256: sha, units, words }, null, 1) + "\n";
  };
  window.cnEditLink = () => {
    const node = shown();
    if (!node) return "";
    const { bundle, picture, names, wanted } = factsOf(node), edit = JSON.parse(window.cnEdit());
    const short = (factor) => Number(factor.toFixed(3));
    const items = [
      ...edit.units.map((rule) => `${rule.layer}.${rule.unit}:${short(rule.factor)}`),
      ...edit.words.map((rule) => `${rule.words}>${rule.more_than}:${short(rule.factor)}`),
    ];
    const query = new URLSearchParams({ tab: "edit", bundle, names: names.join(","), wanted });
    query.set("picture", picture ?? "own"); // a visitor's image is not in links
    const kept = window.cnFavourites(bundle);
    if (kept) query.set("fav", kept);
    if (items.length) query.set("edit", items.join(";"));
    // The server reads no longer addresses: such an edit goes along as JSON.
    if (query.toString().length > 1900) query.delete("edit");
    return "?" + query;
  };

  const here = () => new URLSearchParams(location.search);
  // The address names what is shown, without an entry in the history for every slider.
  window.cnEditKeep = () => {
    const link = window.cnEditLink(), theme = here().get("__theme");
    if (!link || here().get("tab") !== "edit") return;
    history.replaceState(null, "", theme ? `${link}&__theme=${theme}` : link);
  };
  window.cnEditOpen = () => here().get("tab") === "edit";
  // Shows what a query asks for. Without one, the tab was opened: what it is missing is shown, and
  // nothing while the page is about to read its own address.
  window.cnEditRestore = async (query) => {
    if (query === undefined) {
      if (window.cnTakesImage("edit")) return;
      if (shown() || document.querySelector("#edit-image img")) return;
      if (window.cnEditOpen() && !window.cnCard) return;
      query = window.cnEditOpen() ? location.search : "?tab=edit";
    }
    // A visitor's image that is there is not asked for again.
    if (shown() && new URLSearchParams(query).get("picture") === "own") return;
    const address = location.search, button = () => document.querySelector("#edit-restore");
    // The components of a tab that was never opened are still being made.
    for (let tries = 0; !button() && tries < 100; tries++)
      await new Promise((done) => setTimeout(done, 100));
    if (location.search !== address) return;
    window.cnEditAsked = query;
    if (shown()) asDrawn(shown());
    button()?.click();
  };

  // The model is asked once the sliders rest, and its answer shown if they still do.
  let timer;
  const settle = (node, x) => {
    node.querySelectorAll(".cn-measured").forEach((cell) => cell.classList.add("cn-stale"));
    node.querySelector(".cn-found")?.remove(); // it is of another edit
    clearTimeout(timer);
    timer = setTimeout(() => {
      window.cnEditKeep();
      if (x.slice(1).some((value) => value !== 0)) return document.querySelector("#edit-measure").click();
      const { previews, scale } = factsOf(node);
      window.cnMeasured({ edit: window.cnEdit(), shares: previews.map((one) => shares(one, x, scale)) });
    }, 300);
  };
  window.cnMeasured = (answer) => {
    const node = shown();
    if (!node || !answer?.shares || answer.edit !== window.cnEdit()) return;
    fill(node, "measured", answer.shares[0]);
    tell(node, "Measured", (image) => answer.shares[image]);
    node.querySelectorAll(".cn-measured").forEach((cell) => cell.classList.remove("cn-stale"));
  };
  // A reading starts as the server drew it, whatever was moved in the elements before.
  const asDrawn = (node) => {
    for (const input of node.querySelectorAll("[data-part] input")) {
      if (input.type === "range") input.value = input.getAttribute("value");
      else input.checked = input.hasAttribute("checked");
    }
    const { measured } = factsOf(node);
    draw(node);
    if (measured) window.cnMeasured({ edit: window.cnEdit(), shares: measured });
  };
  let drawn = "";
  const freshen = () => {
    const node = shown();
    if (!node || node.dataset.facts === drawn) return;
    drawn = node.dataset.facts;
    asDrawn(node);
  };
  new MutationObserver(freshen).observe(document.documentElement, {
    subtree: true, childList: true, attributes: true, attributeFilter: ["data-facts"],
  });
  addEventListener("input", (event) => {
    const row = event.target.closest?.(".cn-edit [data-part]");
    if (!row) return;
    const slider = row.querySelector("input[type=range]"), box = row.querySelector("[role=switch]");
    if (slider && event.target === box) slider.value = box.checked ? 1 : 0;
    if (slider) {
      box.checked = Number(slider.value) !== 0;
      slider.nextElementSibling.textContent = Number(slider.value).toFixed(2);
    }
    const node = shown();
    settle(node, draw(node));
  });
  window.cnEditReset = () => {
    const node = shown();
    if (!node) return;
    for (const row of rows(node)) {
      const slider = row.querySelector("input[type=range]"), box = row.querySelector("[role=switch]");
      box.checked = Boolean(slider);
      if (slider) slider.value = 1;
      if (slider) slider.nextElementSibling.textContent = "1.00";
    }
    settle(node, draw(node));
  };
  window.cnEditSave = () => {
    const uri = "data:application/json;charset=utf-8," + encodeURIComponent(window.cnEdit());
    if (shown()) window.cnSave(JSON.stringify({ name: "edit.json", uri }));
  };
})();
