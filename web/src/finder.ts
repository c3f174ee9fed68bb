// Find in the text: case is ignored, every match is marked in ribbon and minimap, Enter goes round.

import type { TraceData } from "./data";
import { count, find } from "./format";
import type { Store } from "./state";

const MOST = 2000;

export class Finder {
  private readonly input = find<HTMLInputElement>("#find");
  private readonly note = find<HTMLElement>("#found");
  private found: number[] = [];
  private at = -1;

  constructor(
    private readonly store: Store,
    private readonly data: TraceData,
    private readonly show: (found: readonly number[]) => void,
    private readonly pin: (token: number) => void,
  ) {
    this.input.value = store.state.query;
    this.input.addEventListener("input", () => store.set({ query: this.input.value }));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.go(event.shiftKey ? -1 : 1);
    });
    store.subscribe((state, changed) => {
      if (!changed.has("query")) return;
      if (this.input.value !== state.query) this.input.value = state.query;
      this.search();
    });
    if (store.state.query) this.search();
  }

  focus(): void {
    this.input.focus();
    this.input.select();
  }

  private search(): void {
    const query = this.store.state.query.toLowerCase();
    this.found = query === "" ? [] : matches(this.data, query);
    this.at = -1;
    this.tell();
    this.show(this.found);
  }

  private go(step: number): void {
    if (this.found.length === 0) return;
    this.at =
      this.at < 0 && step < 0 ? this.found.length - 1 : (this.at + step + this.found.length) % this.found.length;
    this.pin(this.found[this.at]);
    this.tell();
  }

  private tell(): void {
    const total = this.found.length === MOST ? `${count(MOST)}+` : count(this.found.length);
    if (this.store.state.query === "") this.note.textContent = "";
    else this.note.textContent = this.at < 0 ? total : `${this.at + 1}/${total}`;
  }
}

/** The token in which each match starts. */
function matches(data: TraceData, query: string): number[] {
  // Where lower case is longer than what was written, places would not fit: there capitals count.
  const lower = data.text.toLowerCase();
  const text = lower.length === data.text.length ? lower : data.text;
  const found: number[] = [];
  let token = 0;
  for (let at = text.indexOf(query); at >= 0 && found.length < MOST; at = text.indexOf(query, at + query.length)) {
    while (token < data.length - 1 && data.tokenStop[token] <= at) token++;
    if (found[found.length - 1] !== token) found.push(token);
  }
  return found;
}
