// The tab "Edit": bars follow the sliders from inner products that were sent once.
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
    const most = scale === null ? Math.max(...was.map((one) => Math.abs(one.textContent))) : 1;
    node.querySelectorAll(".cn-classes [data-class]").forEach((row, c) => {
      const share = Math.max(0, Math.min(1, values[c] / (most || 1)));
      row.querySelector(`.cn-track.cn-${kind} .cn-bar`).style.setProperty("--share", share);
      row.querySelector(`.cn-value.cn-${kind}`).textContent = text(values[c], scale);
    });
  };
  const draw = (node) => {
    const { previews, scale, names } = factsOf(node), x = strengths(node);
    const now = shares(previews[0], x, scale);
    fill(node, "now", now);
    node.querySelector(".cn-top").textContent = names[best(now)];
    node.querySelectorAll("[data-image]").forEach((figure) => {
      const values = shares(previews[figure.dataset.image], x, scale), top = best(values);
      figure.querySelector("b").textContent = `${names[top]} ${text(values[top], scale)}`;
    });
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
      ...edit.units.map((one) => `${one.layer}.${one.unit}:${short(one.factor)}`),
      ...edit.words.map((one) => `${one.words}>${one.more_than}:${short(one.factor)}`),
    ];
    const query = new URLSearchParams({ tab: "edit", bundle, names: names.join(","), wanted });
    if (picture !== null) query.set("picture", picture);
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
  // What is to be read when the tab opens: nothing if something is shown, or if the page is about
  // to read its own address.
  window.cnEditMissing = () => {
    if (here().get("tab") !== "edit") return shown() ? "" : "?tab=edit";
    return shown() || !window.cnCard ? "" : location.search;
  };

  // "For real" is asked of the model once the sliders rest, and shown if they still do.
  let timer;
  const settle = (node, x) => {
    node.querySelectorAll(".cn-real").forEach((one) => one.classList.add("cn-stale"));
    clearTimeout(timer);
    timer = setTimeout(() => {
      window.cnEditKeep();
      if (x.slice(1).some((value) => value !== 0)) return document.querySelector("#edit-measure").click();
      const { previews, scale } = factsOf(node);
      window.cnReal({ edit: window.cnEdit(), shares: [shares(previews[0], x, scale)] });
    }, 300);
  };
  window.cnReal = (found) => {
    const node = shown();
    if (!node || !found || found.edit !== window.cnEdit()) return;
    if (found.shares) fill(node, "real", found.shares[0]);
    node.querySelectorAll(".cn-real").forEach((one) => one.classList.toggle("cn-stale", !found.shares));
  };
  // A new reading starts as the server drew it, whatever was moved in the elements before.
  let drawn = "";
  const freshen = () => {
    const node = shown();
    if (!node || node.dataset.facts === drawn) return;
    drawn = node.dataset.facts;
    for (const input of node.querySelectorAll("[data-part] input")) {
      if (input.type === "range") input.value = input.getAttribute("value");
      else input.checked = input.hasAttribute("checked");
    }
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
