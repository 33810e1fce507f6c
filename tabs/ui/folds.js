// A fold that the reader opened stays open when what holds it is drawn again.
(() => {
  const opened = new Set();
  // Folds of one name close each other: they are open for a moment only.
  const kept = (fold) => !fold.hasAttribute("name") && fold.querySelector(":scope > summary");
  const nameOf = (fold) => `${fold.closest("[id]")?.id} ${fold.querySelector("summary").textContent}`;
  addEventListener(
    "click",
    (event) => {
      const fold = event.target.closest?.("summary")?.parentElement;
      if (!fold || !kept(fold)) return;
      if (fold.open) opened.delete(nameOf(fold));
      else opened.add(nameOf(fold));
    },
    true,
  );
  const reopen = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    const folds = node.matches("details") ? [node] : node.querySelectorAll("details:not([open])");
    for (const fold of folds) if (!fold.open && kept(fold) && opened.has(nameOf(fold))) fold.open = true;
  };
  new MutationObserver((changes) => {
    if (!opened.size) return;
    for (const change of changes)
      if (change.type === "attributes") reopen(change.target);
      else change.addedNodes.forEach(reopen);
  }).observe(document, { subtree: true, childList: true, attributeFilter: ["open"] });
})();
