// A number field shows the number that counts: a whole one where only such are taken, and never
// nothing.
(() => {
  const settled = new WeakMap(); // what each field held when it was entered or left
  const numberField = (event) => event.target.closest?.("input[type=number]");
  const settle = (field) => {
    let text = field.value; // "" for anything that is no number
    if (text === "") text = settled.get(field) ?? "";
    else if (Number.isInteger(Number(field.step))) text = String(Math.round(Number(text)));
    settled.set(field, text);
    if (text === field.value) return;
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  addEventListener("focusin", (event) => {
    const field = numberField(event);
    if (field) settled.set(field, field.value);
  });
  // Before Gradio hears of either, so that what it sends is what is shown.
  addEventListener("change", (event) => numberField(event) && settle(numberField(event)), true);
  addEventListener(
    "keydown",
    (event) => event.key === "Enter" && numberField(event) && settle(numberField(event)),
    true,
  );
})();
// Gradio takes a key that is pressed for input into a text field, and hears nothing of what is
// pasted, dropped, cut or dictated: it is told that a key was pressed then too.
(() => {
  let typing = null; // the field whose key press has not put its letter in yet
  const textField = (event) => event.target.closest?.("[data-testid=textbox]");
  addEventListener(
    "keypress",
    (event) => {
      typing = textField(event);
      setTimeout(() => (typing = null));
    },
    true,
  );
  addEventListener("input", (event) => {
    const field = textField(event);
    if (!field || field === typing) return;
    field.dispatchEvent(new KeyboardEvent("keypress", { key: "Unidentified", bubbles: true }));
  });
})();
// Gradio draws the fields of a fold when it is opened, and a frame later writes into them once more
// what they held at first: what a visitor has typed by then is put back.
(() => {
  const FRAMES = 3;
  const textField = (event) => event.target.closest?.("[data-testid=textbox]");
  const first = new WeakMap(); // what each field held when it was first entered
  const typed = new WeakMap(); // what has been typed into it since
  const watch = (field, frames) => {
    if (field.value === first.get(field) && field.value !== typed.get(field)) {
      field.value = typed.get(field);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (frames) requestAnimationFrame(() => watch(field, frames - 1));
  };
  addEventListener("focusin", (event) => {
    const field = textField(event);
    if (field && !first.has(field)) first.set(field, field.value);
  });
  addEventListener("input", (event) => {
    const field = textField(event);
    if (!field) return;
    const isNew = !typed.has(field);
    typed.set(field, field.value);
    if (isNew) watch(field, FRAMES);
  });
})();
// A choice that is made again is unmade, and so it is by Escape: no concept need be chosen.
(() => {
  let chosen = null;
  const unmake = () => {
    if (chosen) chosen.checked = false;
    chosen = null;
  };
  addEventListener("click", (event) => {
    const choice = event.target.closest?.(".cn-choices input[type=radio]");
    if (!choice) return;
    if (choice === chosen) unmake();
    else chosen = choice;
  });
  addEventListener("keydown", (event) => {
    // A browser clicks no radio button by the space bar that is chosen already.
    const again = event.key === " " && event.target === chosen;
    if (again) event.preventDefault();
    if (again || event.key === "Escape") unmake();
  });
})();
// An image that the browser cannot show says so instead of leaving a broken icon.
(() => {
  const inputOf = (event) => event.target.tagName === "IMG" && event.target.closest(".cn-image-input");
  addEventListener(
    "error",
    (event) => {
      const input = inputOf(event);
      if (input) input.dataset.broken = "This file is not an image that can be read: choose a PNG, JPEG, WebP, GIF or BMP.";
    },
    true,
  );
  // Of an image, `load` does not reach the window.
  document.addEventListener("load", (event) => inputOf(event) && delete inputOf(event).dataset.broken, true);
})();
// Gradio puts an image into a button without a name: it takes the name of the image's label.
document.addEventListener(
  "load",
  (event) => {
    const button = event.target.tagName === "IMG" && event.target.closest("button");
    if (!button || event.target.alt || button.ariaLabel || button.innerText.trim()) return;
    const label = button.closest(".block")?.querySelector("[data-testid=block-label]");
    if (label) button.ariaLabel = label.innerText.trim();
  },
  true,
);
