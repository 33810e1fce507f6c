// The tab "Confusions": a folder's files go the way of uploaded ones. A browser sends no folders,
// so they are written into the files' names (`FOLDER_MARK` in `tabs/server/uploads.py`).
addEventListener("change", (event) => {
  if (event.target.id !== "confusions-folder") return;
  const named = new DataTransfer();
  for (const file of event.target.files) {
    if (!/\.(png|jpe?g|webp|gif|bmp)$/i.test(file.name) || file.name.startsWith(".")) continue;
    const path = (file.webkitRelativePath || file.name).replaceAll("/", ",,");
    named.items.add(new File([file], path, { type: file.type }));
    if (named.items.length > 500) break; // the server says that it takes no more
  }
  const input = document.querySelector("#confusions-files input[type=file]");
  event.target.value = "";
  if (!input) return document.querySelector("#confusions-files [aria-label*=emove]")?.click();
  input.files = named.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
