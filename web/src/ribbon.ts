// The text itself, one paragraph a sentence: background is credit, underline a hub. Runs of sentences that carry little
// are folded into a line that says so. Paragraphs off screen are not laid out (content-visibility).

import { creditLevels, regionOf } from "./credit";
import type { TraceData } from "./data";
import { count, element, find, percent } from "./format";
import type { Graph } from "./graph";
import { ImageFigures } from "./images";
import type { Change, State, Store } from "./state";
import { creditClass, tokenSpans, type TokenText } from "./text";

const NEIGHBOURS = 8;
/** A text of fewer sentences is read whole. */
const FOLD_FROM = 12;
const QUIET_SHARE = 0.4;
const LONGEST_PARAGRAPH = 300;

interface Paragraph {
  start: number;
  stop: number;
  step: number;
  /** Whether it is the first of its sentence. */
  first: boolean;
}

export class Ribbon {
  private readonly box = find<HTMLElement>("#ribbon");
  private readonly spans: (HTMLElement | undefined)[];
  private marked: HTMLElement[] = [];
  private hits: HTMLElement[] = [];
  private readonly opened = new Set<number>();
  private readonly figures: ImageFigures;

  constructor(
    private readonly store: Store,
    private readonly graph: Graph,
    private readonly text: TokenText,
    private readonly levels: Uint8Array = creditLevels(graph.data),
  ) {
    this.spans = new Array<HTMLElement | undefined>(graph.data.length);
    this.figures = new ImageFigures(store, graph.data, levels, (token, cell) => (this.spans[token] = cell));
    this.build();
    this.listen();
    store.subscribe((state, changed) => this.update(state, changed));
    this.update(store.state, new Set(["token", "path", "folded"]));
  }

  /** Start where the reasoning starts, with the end of the question in sight. */
  scrollToReasoning(): void {
    const first = this.spanOf(this.graph.data.response[0]);
    if (!first) return;
    const [outer, inner] = [this.box.getBoundingClientRect(), first.getBoundingClientRect()];
    this.box.scrollTop = inner.top - outer.top - 0.3 * outer.height;
  }

  /** Bring a token into sight, without moving anything but the ribbon. */
  scrollTo(token: number): void {
    this.unfold(token);
    const span = this.spanOf(token);
    if (!span) return;
    const move = () => {
      const [outer, inner] = [this.box.getBoundingClientRect(), span.getBoundingClientRect()];
      if (inner.top < outer.top + 24 || inner.bottom > outer.bottom - 24) {
        this.box.scrollTop += inner.top - outer.top - outer.height / 2;
      }
    };
    move();
    requestAnimationFrame(move); // heights off screen were estimates the first time
  }

  setFound(tokens: readonly number[]): void {
    for (const span of this.hits) span.classList.remove("found");
    this.hits = tokens.map((token) => this.spanOf(token)).filter((span) => span !== undefined);
    for (const span of this.hits) span.classList.add("found");
  }

  private build(): void {
    const { data } = this.graph;
    const quiet = this.quietSteps();
    const parts = document.createDocumentFragment();
    const paragraphs = cutParagraphs(data, this.text);
    const largest = data.stepShare.slice(1).reduce((a, b) => Math.max(a, b), 1e-30);
    for (let at = 0; at < paragraphs.length;) {
      let end = at;
      while (end < paragraphs.length && quiet.has(paragraphs[end].step)) end++;
      if (end > at) {
        parts.append(this.foldOf(paragraphs.slice(at, end), largest));
        at = end;
      } else {
        parts.append(this.paragraph(paragraphs[at++], largest));
      }
    }
    this.box.replaceChildren(parts);
  }

  private paragraph({ start, stop, step, first }: Paragraph, largest: number): HTMLElement {
    const { data } = this.graph;
    const body = element("p", "", { dir: "auto" });
    let characters = 0;
    for (const span of tokenSpans(this.text, start, stop, (token) => this.classOf(token))) {
      const token = Number(span.dataset.t);
      if (this.text.isPatch(token)) {
        body.append(this.figures.figure(data.imageOf[token]));
        continue;
      }
      characters += span.textContent!.length;
      this.spans[token] = span;
      body.append(span);
    }
    const gutter = element("span", "gutter", { ariaHidden: "true" });
    if (first && step > 0) {
      const bar = element("i");
      bar.style.inlineSize = `${Math.round(Math.sqrt(data.stepShare[step] / largest) * 100)}%`;
      gutter.append(element("b", "", {}, String(step)), element("span", "track", {}, bar));
      gutter.title = `Sentence ${step}: ${percent(data.stepShare[step])} of the flow passes it`;
    } else if (first && start === 0) {
      gutter.append(element("b", "", {}, "prompt"));
    }
    const row = element("div", `sentence ${regionOf(data, start)}`, {}, gutter, body);
    row.style.containIntrinsicBlockSize = `auto ${28 * Math.max(1, Math.ceil(Math.min(characters, 4000) / 78))}px`;
    return row;
  }

  private classOf(token: number): string {
    const { data } = this.graph;
    return `${creditClass(data, this.levels, token)}${data.frameOf[token] > 0 ? " frame" : ""}`.trim();
  }

  private foldOf(paragraphs: Paragraph[], largest: number): HTMLElement {
    const { data } = this.graph;
    const steps = [...new Set(paragraphs.map((paragraph) => paragraph.step))];
    const share = Math.max(...steps.map((step) => data.stepShare[step]));
    const words = steps.length === 1 ? "1 sentence" : `${count(steps.length)} sentences`;
    const button = element("button", "fold", { type: "button" });
    button.textContent = `${words} folded, each passed by at most ${percent(share)} of the flow`;
    button.ariaExpanded = "false";
    const rows = element("div", "folded", {}, ...paragraphs.map((paragraph) => this.paragraph(paragraph, largest)));
    const group = element("div", "quiet", {}, button, rows);
    group.dataset.step = String(steps[0]);
    button.addEventListener("click", () => this.toggle(group));
    return group;
  }

  private toggle(group: HTMLElement, open = !group.classList.contains("open")): void {
    group.classList.toggle("open", open);
    find<HTMLElement>("button", group).ariaExpanded = String(open);
    const step = Number(group.dataset.step);
    if (open) this.opened.add(step);
    else this.opened.delete(step);
  }

  /** Sentences in the lower part by share of the flow that hold no hub, no answer and no token of a strong path. */
  private quietSteps(): Set<number> {
    const { data } = this.graph;
    const steps = Array.from(data.stepStart, (_, step) => step).slice(1);
    if (steps.length < FOLD_FROM) return new Set();
    const kept = [...data.hubs.map((hub) => hub.token), ...data.paths.flatMap((path) => path.tokens), data.answer[0]];
    const holds = (step: number) => kept.some((token) => token >= data.stepStart[step] && token < data.stepStop[step]);
    const ranked = [...steps].sort((a, b) => data.stepShare[a] - data.stepShare[b]);
    return new Set(ranked.slice(0, Math.floor(QUIET_SHARE * ranked.length)).filter((step) => !holds(step)));
  }

  private unfold(token: number): void {
    const group = this.spanOf(token)?.closest<HTMLElement>(".quiet");
    if (group) this.toggle(group, true);
  }

  private spanOf(token: number): HTMLElement | undefined {
    return this.spans[token] ?? this.spans[this.text.owner[token]];
  }

  private update(state: State, changed: Change): void {
    if (changed.has("folded")) this.box.classList.toggle("unfolded", !state.folded);
    if (!changed.has("hover") && !changed.has("token") && !changed.has("path")) return;
    for (const span of this.marked) span.classList.remove("focus", "in", "out", "on-path");
    this.marked = [];
    const mark = (token: number, name: string) => {
      const span = this.spanOf(token);
      if (!span) return;
      span.classList.add(name);
      this.marked.push(span);
    };
    const { data } = this.graph;
    const focus = this.store.focus;
    if (state.path !== null) for (const token of data.paths[state.path].tokens) mark(token, "on-path");
    if (focus !== null) {
      for (const edge of this.graph.into(focus).subarray(0, NEIGHBOURS)) mark(data.edgeSource[edge], "in");
      for (const edge of this.graph.outOf(focus).subarray(0, NEIGHBOURS)) mark(data.edgeTarget[edge], "out");
      mark(focus, "focus");
    }
    if (changed.has("token") && state.token !== null) this.scrollTo(state.token);
  }

  private listen(): void {
    const tokenOf = (event: Event): number | null => {
      const text = (event.target as Element).closest<HTMLElement>("[data-t]")?.dataset.t;
      return text === undefined ? null : Number(text);
    };
    this.box.addEventListener("pointerover", (event) => this.store.set({ hover: tokenOf(event) }));
    this.box.addEventListener("pointerleave", () => this.store.set({ hover: null }));
    this.box.addEventListener("click", (event) => {
      if ((event.target as Element).closest("button")) return;
      if (String(getSelection()) !== "") return; // the reader is selecting text
      const token = tokenOf(event);
      this.store.set({ token, path: null });
      if (token !== null) this.store.reveal(token);
    });
  }
}

/** Sentences as paragraphs; the prompt and very long sentences are cut at line breaks. */
function cutParagraphs(data: TraceData, text: TokenText): Paragraph[] {
  const paragraphs: Paragraph[] = [];
  for (let step = 0; step < data.stepStart.length; step++) {
    let start = data.stepStart[step];
    const stop = data.stepStop[step];
    let first = true;
    let written = 0;
    for (let token = start; token < stop; token++) {
      written += Number(!text.isPatch(token)); // a picture is one thing, however many patches it has
      const long = written >= LONGEST_PARAGRAPH;
      if (token + 1 === stop || long || (step === 0 && text.pieces[token].endsWith("\n"))) {
        paragraphs.push({ start, stop: token + 1, step, first });
        start = token + 1;
        written = 0;
        first = false;
      }
    }
  }
  return paragraphs;
}
