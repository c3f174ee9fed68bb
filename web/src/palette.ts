// Colours as the stylesheet defines them, for canvases and exported figures.

import type { Ink } from "./scene";

export type Palette = Record<Ink | "muted" | "line" | "surface" | "page", string> & {
  /** Colours of the credit levels in the reasoning, and of the levels in the prompt. */
  level: string[];
  promptLevel: string[];
};

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    prompt: colour("arc-prompt"),
    reasoning: colour("arc-reasoning"),
    answer: colour("arc-answer"),
    ink: colour("ink"),
    path: colour("path"),
    muted: colour("muted"),
    line: colour("line"),
    surface: colour("surface"),
    page: colour("page"),
    level: [0, 1, 2, 3, 4].map((level) => colour(`level-${level}`)),
    promptLevel: [0, 1, 2, 3, 4].map((level) => colour(`prompt-${level}`)),
  };
}

/** Follow the reader's choice, or the system where there is none. */
export function applyTheme(theme: "auto" | "light" | "dark"): void {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = theme === "auto" ? (dark ? "dark" : "light") : theme;
}
