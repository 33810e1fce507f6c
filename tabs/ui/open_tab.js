// The tab that the address names is opened as soon as it is there, not when the server has answered.
(() => {
  const name = new URLSearchParams(location.search).get("tab");
  if (!name || !/^[a-z]+$/.test(name)) return;
  const open = () => {
    const button = document.querySelector(`#tab-${name}-button`);
    if (button && button.getAttribute("aria-selected") !== "true") button.click();
    return button;
  };
  const watch = new MutationObserver(() => open() && watch.disconnect());
  watch.observe(document, { childList: true, subtree: true });
  addEventListener("load", () => setTimeout(() => watch.disconnect(), 30000));
})();
