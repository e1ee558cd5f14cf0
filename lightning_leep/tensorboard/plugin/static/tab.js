// The page inside a tab of TensorBoard, which loads this module in a frame and calls `render`.
import { html } from "./svg.js";
import { show } from "./page.js";

const ADVICE = "Train with LEEPCallback and a TensorBoardLogger; the transfer appears when training starts.";

/** Loads the data and draws the page; the button loads them again, since that of TensorBoard does not reach frames. */
export async function render() {
  followTheme();
  document.title = "Transfers";
  document.head.append(html("link", { rel: "stylesheet", href: "./page.css" }));
  const status = html("div", { class: "muted", role: "status" });
  const button = html("button", { type: "button", class: "reload", onclick: () => load() }, "Reload");
  const page = html("div", { id: "page" });
  document.body.append(html("main", { class: "leep" }, html("div", { class: "bar" }, status, button), page));
  const load = async () => {
    button.disabled = true;
    status.textContent = "Loading …";
    try {
      // Relative to the frame's base, so that it works behind `--path_prefix`.
      const answer = await fetch("./transfers", { cache: "no-store" });
      if (!answer.ok) throw new Error(`TensorBoard answered ${answer.status}`);
      const data = await answer.json();
      show(page, data, ADVICE);
      status.replaceChildren(...data.problems.map((words) => html("div", {}, `${words}.`)));
    } catch (error) {
      status.textContent = `The transfers cannot be read: ${error.message}.`;
    } finally {
      button.disabled = false;
    }
  };
  await load();
}

/** Dark if TensorBoard is dark, now and after it is switched. */
function followTheme() {
  const outside = window.parent.document.body;
  const follow = () => {
    document.documentElement.dataset.theme = outside.classList.contains("dark-mode") ? "dark" : "light";
  };
  new MutationObserver(follow).observe(outside, { attributes: true, attributeFilter: ["class"] });
  follow();
}
