// Where responses of a group part, from left to right: a box for each run of steps that the same responses say, as high
// as there are responses, those that are right above those that are wrong; bands lead to what each says next.

import { element, percent } from "./format";
import { make } from "./svg";
import { cut, shown } from "./text";

export interface Branch {
  /** The branch that it leaves; null for the first, which all responses are on. */
  parent: number | null;
  step: number;
  texts: string[];
  shares: number[];
  answer: string | null;
  members: number[];
  /** Of each member the number of the step, or of the answer, that it takes this way with. */
  places: number[];
  right: number;
  wrong: number;
}

interface Box {
  branch: Branch;
  ways: Box[];
  column: number;
  top: number;
  height: number;
}

const SIDES = ["right", "wrong", "unknown"] as const;
type Side = (typeof SIDES)[number];

const GAP = 9;
/** Between columns, for the bands. */
const BEND = 44;
const COLUMN = { least: 184, most: 330 };
/** The first box, where all part at once and it says nothing. */
const BARE = 104;
const LINE = 17;
/** Height of one response: two lines of text where there is room, one line where there are many. */
const STRIPE = { least: 18, most: 2 * LINE + 2, all: 640 };

/** Responses on one side of a branch. */
function sideOf(branch: Branch, side: Side): number {
  return side === "unknown" ? branch.members.length - branch.right - branch.wrong : branch[side];
}

/** "2 right, 1 wrong", or how many where none is known to be either. */
export function counts(right: number, wrong: number, all: number): string {
  const told = [right && `${right} right`, wrong && `${wrong} wrong`].filter(Boolean);
  return told.length ? told.join(", ") : `${all} response${all === 1 ? "" : "s"}`;
}

export class PartTree {
  private readonly boxes: Box[];
  private readonly buttons: HTMLButtonElement[];
  private readonly stripe: number;
  private readonly columns: number;
  private readonly height: number;

  constructor(
    private readonly holder: HTMLElement,
    tree: Branch[],
    open: (branch: Branch, button: HTMLElement) => void,
    light: (members: number[] | null) => void,
  ) {
    this.boxes = tree.map((branch) => ({ branch, ways: [], column: 0, top: 0, height: 0 }));
    for (const box of this.boxes) {
      if (box.branch.parent === null) continue;
      const parent = this.boxes[box.branch.parent];
      parent.ways.push(box);
      box.column = parent.column + 1;
    }
    this.stripe = Math.min(STRIPE.most, Math.max(STRIPE.least, STRIPE.all / tree[0].members.length));
    this.columns = 1 + Math.max(...this.boxes.map((box) => box.column));
    this.height = this.place();
    this.buttons = this.boxes.map((box, index) => {
      const button = this.button(box);
      button.addEventListener("click", () => open(box.branch, button));
      for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => light(box.branch.members));
      for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => light(null));
      button.addEventListener("keydown", (event) => this.walk(event, index));
      return button;
    });
    new ResizeObserver(() => this.draw()).observe(holder.parentElement!);
  }

  /** Show the ways of some responses; null shows all. */
  light(members: number[] | null): void {
    const off = (branch: Branch) => members !== null && !branch.members.some((member) => members.includes(member));
    for (const made of this.holder.querySelectorAll<HTMLElement | SVGElement>("[data-branch]"))
      made.classList.toggle("dim", off(this.boxes[Number(made.dataset.branch)].branch));
  }

  /** Ends stand below each other, and each box in the middle of what leaves it; returns the height of all. */
  private place(): number {
    let reached = 0;
    for (const box of this.boxes) {
      box.height = box.branch.members.length * this.stripe;
      if (box.ways.length > 0) continue;
      box.top = reached;
      reached += box.height + GAP;
    }
    // A box comes before those that leave it, which must have their places.
    for (const box of [...this.boxes].reverse()) {
      if (box.ways.length === 0) continue;
      const last = box.ways[box.ways.length - 1];
      box.top = (box.ways[0].top + last.top + last.height - box.height) / 2;
    }
    return reached - GAP;
  }

  private button({ branch, height }: Box): HTMLButtonElement {
    const { texts, shares, answer, members, right, wrong } = branch;
    const room = Math.max(1, Math.floor((height - LINE) / LINE));
    const lines = texts.slice(0, room).map((text) => element("bdi", "", {}, shown(cut(text))));
    // One step alone may take all the room.
    if (lines.length === 1) lines[0].style.setProperty("-webkit-line-clamp", String(room));
    const rest = texts.length - lines.length;
    const more = rest > 0 ? `+ ${rest} step${rest > 1 ? "s" : ""}` : "";
    const told = counts(right, wrong, members.length);
    const facts = [texts.length ? `step ${branch.step}` : told, texts.length ? percent(shares[0]) : "", more];
    const note = element("small", "", {}, facts.filter(Boolean).join(" \u00b7 "));
    const mark = right === members.length ? " \u2713" : wrong === members.length ? " \u2717" : "";
    const ends =
      answer === null ? null : element("span", "end", {}, element("bdi", "final", {}, shown(cut(answer, 40))), mark);
    const made = element(
      "button",
      `part ${["bare", "alone"][lines.length] ?? ""} ${height < 2 * LINE ? "low" : ""}`,
      { type: "button", title: texts.map((text, at) => `${branch.step + at}. ${shown(text)}`).join("\n") },
      element("span", "", {}, ...lines, texts.length || answer === null ? note : null),
      ends,
    );
    made.ariaLabel = [
      texts.length
        ? `Step ${branch.step}: ${shown(cut(texts[0]))}`
        : answer === null
          ? "All begin here"
          : "No more steps",
      texts.length > 1 ? `${texts.length - 1} more` : "",
      told,
      texts.length ? `${percent(shares[0])} of the flow` : "",
      answer === null ? "" : `answer ${shown(cut(answer, 40))}`,
    ]
      .filter(Boolean)
      .join("; ");
    made.style.setProperty("--share", `${(100 * right) / members.length}%`);
    made.style.setProperty("--known", `${(100 * (right + wrong)) / members.length}%`);
    made.style.blockSize = `${height}px`;
    return made;
  }

  private draw(): void {
    const room = this.holder.parentElement!.clientWidth;
    const bare = this.boxes[0].branch.texts.length === 0 && this.columns > 1;
    const wide = (room + BEND - (bare ? BARE + BEND : 0)) / (this.columns - Number(bare));
    const column = Math.min(COLUMN.most, Math.max(COLUMN.least, wide));
    const x = (at: number) => (bare && at > 0 ? BARE + BEND + (at - 1) * column : at * column);
    const width = x(this.columns) - BEND;
    const bands = make("svg", { width: String(width), height: String(this.height), "aria-hidden": "true" });
    this.boxes.forEach((box, index) => {
      const button = this.buttons[index];
      button.dataset.branch = String(index);
      Object.assign(button.style, {
        insetInlineStart: `${x(box.column)}px`,
        insetBlockStart: `${box.top}px`,
        inlineSize: `${x(box.column + 1) - BEND - x(box.column)}px`,
      });
      bands.append(...this.bandsOf(box, x(box.column + 1)));
    });
    Object.assign(this.holder.style, { inlineSize: `${width}px`, blockSize: `${this.height}px` });
    const focused = document.activeElement;
    this.holder.replaceChildren(bands, ...this.buttons);
    if (focused instanceof HTMLElement && this.holder.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** The bands out of a box, to boxes at `x`: each side leaves from its own part of the box. */
  private bandsOf(box: Box, x: number): SVGElement[] {
    const made: SVGElement[] = [];
    let leaves = box.top;
    for (const side of SIDES) {
      for (const way of box.ways) {
        const high = sideOf(way.branch, side) * this.stripe;
        const before = SIDES.slice(0, SIDES.indexOf(side)).reduce((sum, one) => sum + sideOf(way.branch, one), 0);
        if (high === 0) continue;
        const arrives = way.top + before * this.stripe;
        const [from, middle] = [x - BEND, x - BEND / 2];
        const curve = (y0: number, to: number, y1: number) => `C${middle} ${y0} ${middle} ${y1} ${to} ${y1}`;
        const d =
          `M${from} ${leaves}${curve(leaves, x, arrives)}V${arrives + high}` +
          `${curve(arrives + high, from, leaves + high)}Z`;
        const band = make("path", { d, class: `band ${side}` });
        band.dataset.branch = String(this.boxes.indexOf(way));
        made.push(band);
        leaves += high;
      }
    }
    return made;
  }

  /** Left to where a branch comes from, right along its widest way, up and down among the branches as they stand. */
  private walk(event: KeyboardEvent, index: number): void {
    const { branch, ways } = this.boxes[index];
    const column = this.boxes
      .map((box, at) => ({ box, at }))
      .filter(({ box }) => box.column === this.boxes[index].column);
    const place = column.findIndex(({ at }) => at === index);
    const goals: Record<string, number | undefined> = {
      ArrowLeft: branch.parent ?? undefined,
      ArrowRight: ways.length ? this.boxes.indexOf(ways[0]) : undefined,
      ArrowUp: column[place - 1]?.at,
      ArrowDown: column[place + 1]?.at,
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    const goal = goals[event.key];
    if (goal !== undefined) this.buttons[goal].focus();
  }
}
