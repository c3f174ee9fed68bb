// A group of responses to one prompt: where right and wrong part, the steps and hubs that they share with what flows
// through each, and the responses as small multiples on one scale. Pointing at anything shows whose it is; a click opens
// the text there.

import { unpack } from "./data";
import { element, find, percent } from "./format";
import { counts, PartTree, type Branch } from "./part_tree";
import { connectTheme, nameOf, packedTraces, readTrace, smallPicture, type SmallTrace } from "./small";
import { creditClass, cut, shown, tokenSpans } from "./text";

interface Flow {
  all: number;
  right: number | null;
  wrong: number | null;
  /** Right less wrong; its bounds are null where there are too few responses to tell. */
  difference: { mean: number; low: number | null; high: number | null } | null;
}

interface Shared {
  members: number[];
  right: number;
  wrong: number;
  flow: Flow;
}

interface GroupHub extends Shared {
  label: string;
  kind: string;
}

interface SharedStep extends Shared {
  text: string;
  /** Of each member the number of its step. */
  places: number[];
}

interface Group {
  shared_tokens: number;
  caveat: string;
  sides: { of: ("right" | "wrong" | null)[] };
  hubs: GroupHub[];
  steps: SharedStep[];
  tree: Branch[];
  names: string[];
}

const SHOWN_HUBS = 15;
const SHOWN_STEPS = 30;

/** Where the text of a response is opened: the response, and of each that is shown as well its step. */
type Places = Map<number, number>;

class GroupPage {
  private readonly cards: HTMLElement[];
  private readonly tree: PartTree;
  private readonly repaints: (() => void)[] = [];
  private opener: HTMLElement | null = null;

  constructor(
    private readonly group: Group,
    private readonly traces: SmallTrace[],
  ) {
    const light = (members: number[] | null) => this.light(members);
    this.cards = this.makeCards();
    find("#multiples").append(...this.cards);
    find("#caveat").textContent = group.caveat;
    const goTo = ({ members, places }: Branch, button: HTMLElement) => this.open(pairs(members, places), button);
    this.tree = new PartTree(find("#tree"), group.tree, goTo, light);
    const steps = group.steps.slice(0, SHOWN_STEPS);
    const longest = Math.max(...steps.flatMap(({ flow }) => [flow.all, flow.right ?? 0, flow.wrong ?? 0]));
    find("#shared-steps").append(...steps.map((step) => this.stepRow(step, longest)));
    find<HTMLElement>("#no-steps").hidden = steps.length > 0;
    find("#shared-hubs").append(...group.hubs.slice(0, SHOWN_HUBS).map((hub) => this.hubRow(hub)));
    connectTheme(this.repaints);
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  private makeCards(): HTMLElement[] {
    const length = Math.max(...this.traces.map(({ data }) => data.length));
    return this.traces.map((trace, index) => {
      const name = nameOf(trace, this.group.names[index]);
      const reward = trace.data.metadata.reward;
      if (typeof reward === "number") name.append(element("small", "", {}, `reward ${Number(reward.toFixed(3))}`));
      const picture = smallPicture(trace, length, this.group.shared_tokens, this.repaints);
      const sentence = element("p", "facts", {}, trace.data.summary);
      const card = element("button", "card multiple", { type: "button" }, name, picture, sentence);
      card.addEventListener("click", () => this.open(new Map([[index, 0]]), card));
      lights(card, (on) => this.tree.light(on ? [index] : null));
      return card;
    });
  }

  /** A step with a bar for right and one for wrong responses. */
  private stepRow(step: SharedStep, longest: number): HTMLElement {
    const { flow, right, wrong, members } = step;
    const bar = (side: "all" | "right" | "wrong", number: number) => {
      const share = flow[side];
      const track = element("span", `track ${side}`, {}, element("i"));
      find<HTMLElement>("i", track).style.inlineSize = `${(100 * (share ?? 0)) / longest}%`;
      const facts = element("small", "", {}, share === null ? "none says it" : `${percent(share)} \u00b7 ${number}`);
      return [element("small", `side ${side}`, {}, side === "all" ? "" : side), track, facts];
    };
    const bars = this.isTold() ? [...bar("right", right), ...bar("wrong", wrong)] : bar("all", members.length);
    const text = element("bdi", "", { dir: "auto" }, shown(cut(step.text)));
    const row = element(
      "button",
      "step-row",
      { type: "button" },
      text,
      element("span", "bars", {}, ...bars),
      difference(flow),
    );
    row.addEventListener("click", () => this.open(pairs(members, step.places), row));
    lights(row, (on) => this.light(on ? members : null));
    return row;
  }

  /** A hub with a mark for each response that has it. */
  private hubRow(hub: GroupHub): HTMLElement {
    const dots = this.cards.map((_, index) => {
      const has = hub.members.includes(index) ? `has ${this.group.sides.of[index] ?? ""}` : "";
      return element("i", has, { title: this.group.names[index] });
    });
    const told = this.isTold()
      ? counts(hub.right, hub.wrong, hub.members.length)
      : `${hub.members.length} of ${dots.length}`;
    const row = element(
      "button",
      "hub-row",
      { type: "button", title: hub.kind },
      element("bdi", "", {}, shown(hub.label)),
      element("span", "dots", {}, ...dots),
      element("small", "", {}, told),
      hub.flow.difference?.low === null ? element("span") : difference(hub.flow),
    );
    lights(row, (on) => this.light(on ? hub.members : null));
    return row;
  }

  private isTold(): boolean {
    return this.group.sides.of.some((side) => side !== null);
  }

  /** Show whose something is; null shows all. */
  private light(members: number[] | null): void {
    this.cards.forEach((card, index) => card.classList.toggle("dim", members !== null && !members.includes(index)));
    this.tree.light(members);
  }

  /** Show the text of a response, at a step; a click on the same card again, or Escape, hides it. */
  private open(places: Places, opener: HTMLElement, index = [...places.keys()][0]): void {
    if (this.cards[index] === opener && opener.ariaPressed === "true") return this.close();
    this.opener = opener;
    this.cards.forEach((card, at) => (card.ariaPressed = String(at === index)));
    const others = [...places.keys()].map((member) => {
      const pressed = String(member === index);
      const other = element("button", "", { type: "button", ariaPressed: pressed }, this.group.names[member]);
      other.addEventListener("click", () => this.open(places, opener, member));
      return other;
    });
    const close = element("button", "", { type: "button", title: "Escape" }, "Close");
    close.addEventListener("click", () => this.close());
    const title = element("h2", "", { tabIndex: -1 }, `Response ${this.group.names[index]}`);
    const head = element("header", "bar", {}, title, ...(others.length > 1 ? others : []), close);
    const rows = this.textOf(index);
    const chosen = find<HTMLElement>("#chosen");
    chosen.replaceChildren(head, ...rows);
    chosen.hidden = false;
    title.focus({ preventScroll: true });
    const at = places.get(index) ?? 0;
    if (at > 0) rows[at]?.classList.add("current");
    (at > 0 ? rows[at] : chosen)?.scrollIntoView({ block: at > 0 ? "center" : "nearest" });
  }

  private close(): void {
    const chosen = find<HTMLElement>("#chosen");
    if (chosen.hidden) return;
    chosen.hidden = true;
    for (const card of this.cards) card.ariaPressed = "false";
    this.opener?.focus();
  }

  private textOf(index: number): HTMLElement[] {
    const { data, text, levels } = this.traces[index];
    return Array.from(data.stepStart, (start, step) => {
      const spans = tokenSpans(text, start, data.stepStop[step], (token) => creditClass(data, levels, token));
      const share = step > 0 ? percent(data.stepShare[step]) : "prompt";
      return element(
        "div",
        "sentence",
        {},
        element("span", "gutter", {}, element("b", "", {}, share)),
        element("p", "", { dir: "auto" }, ...spans),
      );
    });
  }
}

/** Tell while a thing is pointed at, by mouse or keyboard. */
function lights(row: HTMLElement, light: (on: boolean) => void): void {
  for (const kind of ["pointerenter", "focus"]) row.addEventListener(kind, () => light(true));
  for (const kind of ["pointerleave", "blur"]) row.addEventListener(kind, () => light(false));
}

function pairs(members: number[], places: number[]): Places {
  return new Map(members.map((member, at) => [member, places[at]]));
}

/** Right less wrong in points of the flow, with the interval; strong where that leaves out 0. */
function difference({ difference: found }: Flow): HTMLElement {
  if (found === null) return element("span", "difference");
  const points = (value: number) => `${value < 0 ? "\u2212" : "+"}${Math.abs(100 * value).toFixed(1)}`;
  const { mean, low, high } = found;
  const known = low !== null && high !== null;
  const interval = known ? `${points(low)} to ${points(high)}` : "too few to tell";
  const strong = known && (low > 0 || high < 0);
  const name = `difference${strong ? " told" : ""}`;
  return element(
    "span",
    name,
    { title: "right less wrong, in points of the flow" },
    points(mean),
    element("small", "", {}, interval),
  );
}

export async function openGroupPage(): Promise<void> {
  const { header } = await unpack(find("#group-data").textContent ?? "");
  new GroupPage(header as unknown as Group, await Promise.all(packedTraces().map(readTrace)));
}
