// The side panel: what is selected, hubs, strongest paths, layers and heads. Every row is a button.

import { lossOf, regionOf, stepOf } from "./credit";
import type { Stop } from "./data";
import { count, element, find, percent } from "./format";
import type { Graph } from "./graph";
import { rankedPatches } from "./images";
import type { Store } from "./state";
import { cut, shown, type TokenText } from "./text";

const LISTED = 5;
const BEAT = 650;
const HOW_TO_READ = [
  "A unit of flow enters at the prompt, follows the model's attention from token to token, and ends in the answer.",
  "An arc runs from a token to a later one that draws on it; the thicker, the more flow. Blue text carried the answer.",
  "Point at a token to see where its flow comes from and where it goes. Click to pin it, Esc to let go.",
];

/** Says what hiding a hub does to the answer: the fuller, the less probable the answer is without it. */
function badge(effect: number | null): HTMLElement {
  const measured =
    effect === null ? "not measured" : `log p(answer) ${effect < 0 ? "\u2212" : "+"}${Math.abs(effect).toFixed(2)}`;
  const said = `hidden: ${measured}`;
  const mark = element("span", "badge", { title: said }, element("span", "sr", {}, said));
  // Without the hub the answer keeps exp(effect) of its probability.
  if (effect !== null) mark.style.setProperty("--lost", `${Math.round(100 * (1 - Math.exp(Math.min(0, effect))))}%`);
  mark.classList.toggle("measured", effect !== null);
  return mark;
}

function placeOf(step: number): string {
  return step === 0 ? "prompt" : `sentence ${step}`;
}

/** A tick on the bar of a hub where its place alone would end it. */
function markExpected(row: HTMLElement, expected: number, largest: number): void {
  const tick = element("b", "expected");
  tick.style.insetInlineStart = `${(100 * Math.min(1, expected / largest)).toFixed(1)}%`;
  row.querySelector(".track")?.append(tick);
  row.title = `its place alone would carry ${percent(expected)}`;
}

/** What a path passes, with the sentence that it stands in. */
function stopOf({ label, unit, step }: Stop): HTMLElement {
  const name = element("bdi", "", {}, shown(label));
  const told = ["answer", "prompt", "end", "patch", "step"].includes(unit);
  if (!told) name.append(element("small", "", {}, placeOf(step)));
  return name;
}

export class Panel {
  private readonly selection = find<HTMLElement>("#selection");
  private replaying: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly store: Store,
    private readonly graph: Graph,
    private readonly text: TokenText,
    private readonly scrollTo: (token: number) => void,
  ) {
    this.listHubs();
    this.listPatches();
    this.listPaths();
    this.showSelection();
    store.subscribe((state, changed) => {
      if (changed.has("hover") || changed.has("token") || changed.has("path")) this.showSelection();
      if (changed.has("path") && state.path === null) clearTimeout(this.replaying);
    });
  }

  pin(token: number | null): void {
    this.store.set({ token, path: null, hover: null });
    if (token !== null) this.store.reveal(token);
  }

  private row(label: string, value: string, share: number, pick: () => void, note = ""): HTMLButtonElement {
    const bar = element("i");
    bar.style.inlineSize = `${(Math.min(1, share) * 100).toFixed(1)}%`;
    const name = element("span", "name", {}, element("bdi", "", {}, label));
    if (note) name.append(element("small", "", {}, note));
    const button = element(
      "button",
      "row",
      { type: "button" },
      name,
      element("span", "value", {}, value),
      element("span", "track", {}, bar),
    );
    button.addEventListener("click", pick);
    return button;
  }

  private listHubs(): void {
    const { data } = this.graph;
    const list = find("#hubs");
    const largest = data.hubs[0]?.flow || 1;
    for (const { label, step, token, flow, expected, kind, effect } of data.hubs) {
      const note = `${kind === "broadcaster" ? "broadcasts" : "gathers"} \u00b7 ${placeOf(step)}`;
      const row = this.row(shown(label), percent(flow), flow / largest, () => this.pin(token), note);
      row.dataset.token = String(token);
      row.append(badge(effect));
      if (expected !== null) markExpected(row, expected, largest);
      list.append(element("li", "", {}, row));
    }
    if (data.hubs.length === 0)
      list.append(element("li", "none", {}, "The flow runs straight from the prompt to the answer."));
  }

  private listPatches(): void {
    const { data } = this.graph;
    const ranked = rankedPatches(data).slice(0, LISTED);
    find<HTMLElement>("#patches-section").hidden = ranked.length === 0;
    for (const token of ranked) {
      const share = data.flow[token] / (data.flow[ranked[0]] || 1);
      const row = this.row(this.text.raw(token), percent(data.flow[token]), share, () => this.pin(token));
      row.dataset.token = String(token);
      find("#patches").append(element("li", "", {}, row));
    }
  }

  private listPaths(): void {
    const { data } = this.graph;
    const list = find("#paths");
    data.paths.forEach((path, index) => {
      if (path.level !== data.paths[index - 1]?.level) {
        list.append(element("li", "level", {}, path.level === "steps" ? "through sentences" : "through words"));
      }
      const body = element("span", "name");
      path.units.forEach((stop, i) => body.append(i ? element("span", "arrow", {}, "\u2192") : "", stopOf(stop)));
      const places = path.units.map((stop) => `token ${count(stop.start)}`).join(", ");
      const title = data.complete ? places : `${places}; a lower bound, of the edges that were kept`;
      const button = element(
        "button",
        "row path",
        { type: "button", title },
        body,
        element("span", "value", {}, percent(path.share)),
      );
      button.dataset.path = String(index);
      button.addEventListener("click", () => this.replay(index));
      list.append(element("li", "", {}, button));
    });
    if (data.paths.length === 0) list.append(element("li", "none", {}, "No single path stands out."));
  }

  /** Walk a path along the text, a token a beat, then leave it pinned. */
  replay(index: number): void {
    clearTimeout(this.replaying);
    const { tokens } = this.graph.data.paths[index];
    this.store.set({ path: index, token: null, hover: null });
    const [first, last] = [tokens[0], tokens[tokens.length - 1]];
    const { from, to } = this.store.state;
    if (first < from || last >= to) this.store.view(first - 0.06 * (last - first), last + 1 + 0.06 * (last - first));
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.scrollTo(last);
      return;
    }
    const beat = (at: number) => {
      this.store.set({ hover: at < tokens.length ? tokens[at] : null });
      if (at >= tokens.length) return;
      this.scrollTo(tokens[at]);
      this.replaying = setTimeout(() => beat(at + 1), BEAT);
    };
    beat(0);
  }

  private showSelection(): void {
    const token = this.store.focus;
    this.markRows(token);
    if (token === null) {
      this.selection.replaceChildren(...HOW_TO_READ.map((text) => element("p", "hint", {}, text)));
      return;
    }
    const { data } = this.graph;
    const spelled = shown(cut(this.text.raw(token), 80)).replaceAll("\n", "\u21b5");
    const raw = (this.text.isPatch(token) ? spelled : spelled.replaceAll(" ", "\u2423")) || "(empty)";
    const region = {
      prompt: "prompt",
      reasoning: `sentence ${stepOf(data, token)}`,
      answer: "answer",
      after: "after the answer",
    };
    const pinned = this.store.state.token === token;
    const loss = lossOf(data, token);
    this.selection.replaceChildren(
      element("p", "token", {}, element("bdi", "", {}, raw), pinned ? element("small", "", {}, "pinned") : null),
      element(
        "p",
        "facts",
        {},
        `token ${count(token)} \u00b7 ${region[regionOf(data, token)]} \u00b7 ${percent(data.flow[token])} of the flow`,
      ),
      element(
        "p",
        "facts",
        {},
        `gathers from ${data.fanIn[token].toFixed(1)} tokens \u00b7 hands on to ${data.fanOut[token].toFixed(1)}`,
      ),
      loss === null ? "" : element("p", "facts", {}, `${loss} of step ${data.trained?.step}`),
      this.neighbours("from", this.graph.into(token), data.edgeSource, data.source[token]),
      this.neighbours("to", this.graph.outOf(token), data.edgeTarget, 0),
    );
  }

  private neighbours(title: string, edges: Uint32Array, ends: ArrayLike<number>, entering: number): HTMLElement {
    const { data } = this.graph;
    const list = element("ol", "neighbours");
    if (entering > 0) list.append(element("li", "none", {}, `${percent(entering)} enters here from the source`));
    const largest = data.edgeFlow[edges[0] ?? 0] || 1;
    for (const edge of edges.subarray(0, LISTED)) {
      const other = ends[edge];
      const flow = data.edgeFlow[edge];
      list.append(
        element(
          "li",
          "",
          {},
          this.row(this.text.label(other), percent(flow), flow / largest, () => this.pin(other)),
        ),
      );
    }
    if (!list.hasChildNodes()) list.append(element("li", "none", {}, title === "to" ? "the answer itself" : "nothing"));
    return element("section", title, {}, element("h3", "", {}, title), list);
  }

  private markRows(token: number | null): void {
    for (const row of document.querySelectorAll<HTMLElement>("#hubs .row, #patches .row")) {
      row.classList.toggle("current", row.dataset.token === String(token));
    }
    for (const row of document.querySelectorAll<HTMLElement>("#paths .row")) {
      row.classList.toggle("current", row.dataset.path === String(this.store.state.path));
    }
  }
}
