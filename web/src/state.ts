// What the reader has chosen, in one place. Views read it and are told what changed; most of it lives in the URL, so
// that a link reopens the same picture.

export interface State {
  /** Pinned token. */
  token: number | null;
  hover: number | null;
  /** Tokens in view, [from, to). */
  from: number;
  to: number;
  /** Share of the flow whose edges are drawn. */
  share: number;
  /** Pinned path: its place in the list. */
  path: number | null;
  query: string;
  theme: "auto" | "light" | "dark";
  /** Whether sentences of little flow are folded. */
  folded: boolean;
}

export type Change = ReadonlySet<keyof State>;
type Listener = (state: State, changed: Change) => void;

export class Store {
  private readonly listeners: Listener[] = [];

  constructor(
    public state: State,
    private readonly length: number,
    private readonly paths: number,
  ) {}

  subscribe(listener: Listener): void {
    this.listeners.push(listener);
  }

  set(change: Partial<State>): void {
    const changed = new Set<keyof State>();
    for (const key of Object.keys(change) as (keyof State)[]) {
      if (this.state[key] !== change[key]) changed.add(key);
    }
    if (changed.size === 0) return;
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener(this.state, changed);
  }

  /** The token that the views speak of: what the pointer is on, else what is pinned. */
  get focus(): number | null {
    return this.state.hover ?? this.state.token;
  }

  /** Show tokens `[from, to)`, at least eight of them, within the text. */
  view(from: number, to: number): void {
    const width = Math.min(this.length, Math.max(to - from, Math.min(8, this.length)));
    const start = Math.min(Math.max(0, from), this.length - width);
    this.set({ from: start, to: start + width });
  }

  /** Move the view only as far as it takes to see a token. */
  reveal(token: number): void {
    const { from, to } = this.state;
    if (token >= from && token < to) return;
    const width = to - from;
    this.view(token - width / 2, token + width / 2);
  }

  toHash(): string {
    const { token, from, to, share, path, query, theme, folded } = this.state;
    const parts: string[] = [];
    if (token !== null) parts.push(`t=${token}`);
    if (from > 0 || to < this.length) parts.push(`w=${Math.round(from)}-${Math.round(to)}`);
    parts.push(`s=${Math.round(share * 100)}`);
    if (path !== null) parts.push(`p=${path}`);
    if (query !== "") parts.push(`q=${encodeURIComponent(query.replace(/\p{Surrogate}/gu, ""))}`);
    if (theme !== "auto") parts.push(`theme=${theme}`);
    if (!folded) parts.push("open=1");
    return parts.join("&");
  }

  /** Read a hash; whatever does not fit this trace is ignored. */
  fromHash(hash: string): void {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const whole = (name: string, limit: number): number | null => {
      const text = given.get(name) ?? "";
      return /^\d{1,9}$/.test(text) && Number(text) < limit ? Number(text) : null;
    };
    const theme = given.get("theme");
    const share = whole("s", 101);
    this.set({
      token: whole("t", this.length),
      path: whole("p", this.paths),
      query: given.get("q") ?? "",
      theme: theme === "light" || theme === "dark" ? theme : "auto",
      folded: given.get("open") !== "1",
      ...(share === null ? {} : { share: share / 100 }),
    });
    const view = /^(\d{1,9})-(\d{1,9})$/.exec(given.get("w") ?? "");
    if (view) this.view(Number(view[1]), Number(view[2]));
    else this.view(0, this.length);
  }
}
