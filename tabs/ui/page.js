// Links within the page, the address bar and the back button.
(() => {
  const keep = (query) => {
    // A theme that was asked for in the address stays asked for.
    const theme = new URLSearchParams(location.search).get("__theme");
    const next = new URLSearchParams(query);
    if (theme && !next.has("__theme")) next.set("__theme", theme);
    const text = next.toString();
    return text ? "?" + text : location.pathname;
  };
  window.cnPush = (query) => {
    if (query && keep(query) !== location.search) history.pushState(null, "", keep(query));
  };
  const tab = () => new URLSearchParams(location.search).get("tab") || "explore";
  // Whether the visitor has stepped on to another neuron's address while this one was drawn.
  const movedOn = (query) => {
    const here = new URLSearchParams(location.search).get("unit");
    return here !== null && here !== new URLSearchParams(query).get("unit");
  };
  window.cnDrawn = (query, restored) => {
    // The card is drawn at every start; only its own tab shows it in the address.
    window.cnCard = query;
    if (tab() !== "explore") return;
    // What the address asked for is there already, perhaps written in another way: pushed once
    // more, it would lie in the way of going back.
    if (restored && movedOn(query)) return;
    if (restored || !location.search) history.replaceState(null, "", keep(query));
    else window.cnPush(query);
  };
  window.cnTab = (name) => {
    // Gradio also calls this for the first tab before the address has been read.
    if (tab() === name || !window.cnCard) return;
    if (name === "explore") return window.cnPush(window.cnCard);
    if (name === "edit" && window.cnEditLink()) return window.cnPush(window.cnEditLink());
    const next = new URLSearchParams({ tab: name });
    const bundle = new URLSearchParams(window.cnCard).get("bundle");
    if (bundle) next.set("bundle", bundle);
    const kept = new URLSearchParams(location.search).get("fav");
    if (kept) next.set("fav", kept);
    window.cnPush("?" + next);
  };
  // A favourite stays one when a link leads on, as long as the bundle is the same.
  window.cnFavourites = (bundle) => {
    const here = new URLSearchParams(location.search);
    return (here.get("bundle") || bundle) === bundle ? here.get("fav") : null;
  };
  const favourites = (href) => {
    const next = new URLSearchParams(href), kept = window.cnFavourites(next.get("bundle"));
    if (kept && !next.has("fav")) next.set("fav", kept);
    return "?" + next;
  };
  // Another bundle was chosen: its address, where the tab does not write its own.
  window.cnChosen = (bundle) => {
    if (!["explore", "edit"].includes(tab()))
      window.cnPush("?" + new URLSearchParams({ tab: tab(), bundle }));
  };
  // The bundle that the address names: a tab may open before the server has answered.
  window.cnBundle = (bundle) => new URLSearchParams(location.search).get("bundle") || bundle;
  // Whether the address brings a picture of this bundle, for which no example makes way.
  window.cnLinked = (bundle, first) => {
    const given = new URLSearchParams(location.search);
    return given.has("picture") && (given.get("bundle") || first) === bundle;
  };
  // A tab hands its image to another one, which opens for it and not with an example.
  let taker = null;
  window.cnHand = (name) => {
    taker = name;
    document.querySelector(`#tab-${name}-button`).click();
  };
  window.cnTakesImage = (name) => {
    const takes = taker === name;
    if (takes) taker = null;
    return takes;
  };
  // A visitor's own image is not in links; the address says that there was one.
  window.cnOwn = (name, own) => {
    const here = new URLSearchParams(location.search);
    if (here.get("tab") !== name) return;
    here.delete("picture");
    if (own) here.set("picture", "own");
    history.replaceState(null, "", "?" + here);
  };
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    return box.top >= 0 && box.top < innerHeight / 2;
  };
  // A card that changed out of sight is brought into view.
  const reveal = () => {
    const card = document.querySelector("#explore-card");
    if (card && !seen(card)) card.scrollIntoView({ block: "start" });
  };
  // What a link brings into Concepts and Edit is read at once; other tabs wait for words.
  window.cnArrived = async () => {
    const address = location.search, given = new URLSearchParams(address);
    if (given.get("tab") === "edit") return window.cnEditRestore(address);
    if (given.get("tab") !== "concepts" || !given.has("picture")) return;
    const ready = () => document.querySelector("#concepts-image img") && document.querySelector("#concepts-go");
    // The components of a tab that was never opened are still being made.
    for (let tries = 0; !ready() && tries < 100; tries++)
      await new Promise((done) => setTimeout(done, 100));
    if (location.search === address) ready()?.click();
  };
  window.cnCopyLink = (button) => {
    const line = button.querySelector("[role=status]") ?? button;
    const say = (text) => {
      line.textContent = text;
      setTimeout(() => (line.textContent = ""), 3000);
    };
    const done = navigator.clipboard?.writeText(location.href);
    // A visitor's own image is on this machine alone.
    const own = new URLSearchParams(location.search).get("picture") === "own";
    if (done) done.then(() => say(own ? "Copied, without your image" : "Copied"), () => prompt("The link of this page", location.href));
    else prompt("The link of this page", location.href);
  };
  window.cnSave = (file) => {
    if (!file) return;
    const { name, uri } = JSON.parse(file);
    const link = Object.assign(document.createElement("a"), { href: uri, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  };
  window.cnOpen = (bundle) => {
    window.cnPush("?" + new URLSearchParams({ tab: tab(), bundle }));
    restore();
  };
  const restore = () => document.querySelector("#restore")?.click();
  // Shows a unit of the bundle that is shown, and keeps what was searched for.
  window.cnGo = (to) => {
    const here = new URLSearchParams(location.search);
    const next = new URLSearchParams(to);
    for (const name of ["bundle", "q", "by", "fav"]) if (here.has(name)) next.set(name, here.get(name));
    window.cnPush("?" + next);
    restore();
  };
  addEventListener("popstate", restore);
  addEventListener("click", (event) => {
    const button = event.target.closest?.(".cn-copy");
    if (button) window.cnCopyLink(button);
  });
  // A search shows its results wherever it was typed; Escape closes what is open.
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest?.("#explore-query") && tab() !== "explore")
      document.querySelector("#tab-explore-button")?.click();
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details.cn-info[open], details[name=picture][open]")) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.cn-info[open]"))
      if (!open.contains(event.target)) open.open = false;
    const step = event.target.closest?.("[data-step]");
    if (step) document.querySelector(`#explore-${step.dataset.step}`)?.click();
  });
  addEventListener("click", (event) => {
    const row = event.target.closest?.(".cn-sorted tbody tr");
    const link = event.target.closest?.("a.cn-link") || row?.querySelector("a.cn-link");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const before = tab();
    window.cnPush(favourites(link.getAttribute("href")));
    restore();
    if (tab() !== before) scrollTo({ top: 0 });
    else if (new URLSearchParams(location.search).has("unit")) reveal();
  });
})();
