// Two responses to one prompt: arcs over one scale, hubs kept, lost and new, and the texts sentence beside sentence. On
// the shared prefix colour says where the flow differs; after it, each has its own credit.

import { unpack } from "./data";
import { count, element, find, percent } from "./format";
import { connectTheme, nameOf, packedTraces, readTrace, smallPicture, type SmallTrace } from "./small";
import { creditClass, shown, tokenSpans } from "./text";

interface ComparedHub {
  token: number;
  label: string;
  kind: string;
  flow: number;
}

interface Comparison {
  summary: string;
  shared_tokens: number;
  shared_steps: number;
  divergence: {
    token: number;
    step_a: number | null;
    step_b: number | null;
    label_a: string | null;
    label_b: string | null;
  } | null;
  kept: [ComparedHub, ComparedHub][];
  lost: ComparedHub[];
  new: ComparedHub[];
  steps: { a: number | null; b: number | null; likeness: number }[];
}

const DIFFERENCE_LEVELS = 3;
const SIDES = ["A", "B"] as const;

export async function openComparePage(): Promise<void> {
  const { header, arrays } = await unpack(find("#compare-data").textContent ?? "");
  const comparison = header as unknown as Comparison;
  const traces = await Promise.all(packedTraces().map(readTrace));
  const repaints: (() => void)[] = [];
  const length = Math.max(...traces.map(({ data }) => data.length));
  const parting = comparison.divergence?.token ?? null;
  traces.forEach((trace, side) => {
    find("#pictures").append(nameOf(trace, SIDES[side]), smallPicture(trace, length, parting, repaints));
  });
  const difference = Array.from(arrays.difference);
  showTexts(comparison, traces, difference);
  showFates(comparison);
  connectTheme(repaints);
}

function showFates(comparison: Comparison): void {
  const row = (label: string, value: string, targets: [number, number][]) => {
    const button = element(
      "button",
      "row",
      { type: "button" },
      element("span", "name", {}, element("bdi", "", {}, label)),
      element("span", "value", {}, value),
    );
    button.addEventListener("click", () => point(targets));
    return element("li", "", {}, button);
  };
  const list = (title: string, note: string, rows: HTMLElement[]) =>
    element(
      "section",
      "",
      {},
      element("h2", "", {}, `${title} ${rows.length} `, element("small", "", {}, note)),
      element("ol", "", {}, ...(rows.length ? rows : [element("li", "none", {}, "none")])),
    );
  find("#fates").append(
    list(
      "Hubs kept",
      "flow in A \u2192 in B",
      comparison.kept.map(([one, other]) =>
        row(shown(one.label), `${percent(one.flow)} \u2192 ${percent(other.flow)}`, [
          [0, one.token],
          [1, other.token],
        ]),
      ),
    ),
    list(
      "lost",
      "in A alone",
      comparison.lost.map((hub) => row(shown(hub.label), percent(hub.flow), [[0, hub.token]])),
    ),
    list(
      "new",
      "in B alone",
      comparison.new.map((hub) => row(shown(hub.label), percent(hub.flow), [[1, hub.token]])),
    ),
  );
}

/** Show tokens in the texts; on the shared prefix both have one place. */
function point(targets: [side: number, token: number][]): void {
  for (const marked of document.querySelectorAll(".focus")) marked.classList.remove("focus");
  const spans = targets.flatMap(([side, token]) => [
    ...document.querySelectorAll<HTMLElement>(`.side-${side} [data-t="${token}"], .shared [data-t="${token}"]`),
  ]);
  for (const span of spans) span.classList.add("focus");
  spans[0]?.scrollIntoView({ block: "center" });
}

function showTexts(comparison: Comparison, traces: SmallTrace[], difference: number[]): void {
  const [a, b] = traces;
  const sides = find<HTMLElement>("#sides");
  const shared = element("p", "shared", { dir: "auto" });
  // The prefix may end within a sentence, whose beginning is shown on both sides as well.
  const start =
    comparison.divergence === null
      ? comparison.shared_tokens
      : (a.data.stepStart[comparison.shared_steps] ?? comparison.shared_tokens);
  shared.append(
    ...tokenSpans(a.text, 0, Math.min(start, comparison.shared_tokens), (token) => differenceClass(difference, token)),
  );
  const title = element("summary", "", {}, `Shared: ${count(comparison.shared_tokens)} tokens \u00b7 `);
  title.append(
    element("span", "key levels", {}, "more flow in ", element("i", "a2", {}, "A"), element("i", "b2", {}, "B")),
  );
  sides.append(element("details", "prefix", { open: true }, title, shared));
  for (const [side, trace] of traces.entries())
    sides.append(element("div", `side-title side-${side}`, {}, nameOf(trace, SIDES[side])));
  for (const pair of sideBySide(comparison.steps)) {
    sides.append(cell(a, 0, pair.a, pair.likeness, comparison), cell(b, 1, pair.b, pair.likeness, comparison));
  }
}

/** Rows of steps: between two pairs, what only A says stands beside what only B says. */
function sideBySide(steps: Comparison["steps"]): Comparison["steps"] {
  const rows: Comparison["steps"] = [];
  let alone: { a: number[]; b: number[] } = { a: [], b: [] };
  const flush = () => {
    for (let i = 0; i < Math.max(alone.a.length, alone.b.length); i++) {
      rows.push({ a: alone.a[i] ?? null, b: alone.b[i] ?? null, likeness: 0 });
    }
    alone = { a: [], b: [] };
  };
  for (const pair of steps) {
    if (pair.a !== null && pair.b !== null) {
      flush();
      rows.push(pair);
    } else if (pair.a !== null) alone.a.push(pair.a);
    else if (pair.b !== null) alone.b.push(pair.b);
  }
  flush();
  return rows;
}

function cell(
  trace: SmallTrace,
  side: number,
  step: number | null,
  likeness: number,
  comparison: Comparison,
): HTMLElement {
  const body = element("p", `step side-${side}`, { dir: "auto" });
  if (step === null) return body;
  const { data, levels, text } = trace;
  body.append(
    element("span", "gutter", {}, element("b", "", {}, String(step))),
    ...tokenSpans(text, data.stepStart[step], data.stepStop[step], (token) => {
      const parts = token === comparison.divergence?.token ? " parting" : "";
      return creditClass(data, levels, token) + parts;
    }),
  );
  if (likeness === 1) body.classList.add("same");
  return body;
}

/** `a1`..`a3` where A sends more flow through the token, `b1`..`b3` where B does, by size of the difference. */
function differenceClass(difference: number[], token: number): string {
  const largest = Math.max(...difference.map(Math.abs), 1e-30);
  const level = Math.ceil((Math.abs(difference[token]) / largest) * DIFFERENCE_LEVELS - 0.25);
  return level > 0 ? `${difference[token] > 0 ? "b" : "a"}${level}` : "";
}
