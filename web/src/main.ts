// One bundle for every page; the body says which it is.

import { openComparePage } from "./compare_page";
import { openGroupPage } from "./group_page";
import { openIndexPage } from "./index_page";
import { applyTheme } from "./palette";
import styles from "./page.css";
import { openTracePage } from "./trace_page";
import { openTrainingPage } from "./training_page";

// A constructed sheet needs no exception in the content security policy.
const sheet = new CSSStyleSheet();
sheet.replaceSync(styles);
document.adoptedStyleSheets = [sheet];
applyTheme((/(?:^#|&)theme=(light|dark)/.exec(location.hash)?.[1] as "light" | "dark" | undefined) ?? "auto");

const pages: Record<string, () => void | Promise<void>> = {
  compare: openComparePage,
  group: openGroupPage,
  index: openIndexPage,
  trace: openTracePage,
  training: openTrainingPage,
};

addEventListener("DOMContentLoaded", () => {
  const page = pages[document.body.dataset.page ?? ""];
  const ready = () => (document.documentElement.dataset.ready = "yes");
  Promise.resolve(page?.()).then(ready, (error: unknown) => {
    const message = document.createElement("p");
    message.className = "failure";
    message.textContent = `This page could not be drawn: ${String(error)}. It needs a browser of 2023 or newer.`;
    document.body.prepend(message);
  });
});
