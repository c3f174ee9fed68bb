// A group of responses to one prompt as small multiples on one scale, and the hubs they share: pointing at a hub shows
// who has it, a click on a response opens its text.

import { unpack } from "./data";
import { element, find, percent } from "./format";
import { connectTheme, nameOf, packedTraces, readTrace, smallPicture, type SmallTrace } from "./small";
import { creditClass, tokenSpans } from "./text";

interface GroupHub {
  label: string;
  kind: string;
  members: number[];
  right: number;
  wrong: number;
}

interface Group {
  shared_tokens: number;
  hubs: GroupHub[];
  names: string[];
}

const SHOWN_HUBS = 14;

export async function openGroupPage(): Promise<void> {
  const { header } = await unpack(find("#group-data").textContent ?? "");
  const group = header as unknown as Group;
  const traces = await Promise.all(packedTraces().map(readTrace));
  const repaints: (() => void)[] = [];
  const length = Math.max(...traces.map(({ data }) => data.length));
  const cards = traces.map((trace, index) => {
    const name = nameOf(trace, group.names[index]);
    const reward = trace.data.metadata.reward;
    if (typeof reward === "number") name.append(element("small", "", {}, `reward ${Number(reward.toFixed(3))}`));
    const sentence = element("p", "facts", {}, trace.data.summary);
    const card = element(
      "button",
      "card multiple",
      { type: "button" },
      name,
      smallPicture(trace, length, group.shared_tokens, repaints),
      sentence,
    );
    card.addEventListener("click", () => choose(cards, traces, index));
    return card;
  });
  find("#multiples").append(...cards);
  showHubs(group, cards);
  connectTheme(repaints);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(cards, traces, null);
  });
}

/** A row for each hub, a mark for each response that has it. */
function showHubs(group: Group, cards: HTMLElement[]): void {
  const rows = group.hubs.slice(0, SHOWN_HUBS).map((hub) => {
    const dots = cards.map((_, index) =>
      element("i", hub.members.includes(index) ? "has" : "", { title: group.names[index] }),
    );
    const graded =
      hub.right + hub.wrong > 0 ? `${hub.right} right, ${hub.wrong} wrong` : `${hub.members.length} of ${cards.length}`;
    const row = element(
      "button",
      "hub-row",
      { type: "button" },
      element("bdi", "", {}, hub.label),
      element("span", "dots", {}, ...dots),
      element("small", "", {}, graded),
    );
    const light = (on: boolean) =>
      cards.forEach((card, index) => card.classList.toggle("dim", on && !hub.members.includes(index)));
    row.addEventListener("pointerenter", () => light(true));
    row.addEventListener("pointerleave", () => light(false));
    row.addEventListener("focus", () => light(true));
    row.addEventListener("blur", () => light(false));
    return row;
  });
  find("#shared-hubs").append(...rows);
}

/** Show the text of one response under the pictures; the same again, or Escape, hides it. */
function choose(cards: HTMLElement[], traces: SmallTrace[], index: number | null): void {
  const chosen = find<HTMLElement>("#chosen");
  const again = index !== null && cards[index].ariaPressed === "true";
  for (const card of cards) card.ariaPressed = "false";
  chosen.hidden = index === null || again;
  if (index === null || again) return;
  cards[index].ariaPressed = "true";
  const { data, text, levels } = traces[index];
  const steps = Array.from(data.stepStart, (start, step) => {
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
  chosen.replaceChildren(element("h2", "", {}, `Response ${index + 1}`), ...steps);
  chosen.scrollIntoView({ block: "nearest" });
}
