// What the arc view shows, as plain geometry, so that the screen (Canvas 2D) and an exported figure (SVG, PNG) are the
// same picture.
//
// 1. Far away (more than TOKENS_IN_VIEW tokens) arcs join sentences, and the strongest token arcs lie over them; near,
//    every arc joins two tokens, taken by rank until the wanted share of the flow is kept.
// 2. Arcs are grouped by colour and octave of strength: a group is one stroke, which is what makes thousands cheap.

import { regionOf, stepOf } from "./credit";
import type { TraceData } from "./data";
import type { Graph } from "./graph";
import { shown, type TokenText } from "./text";

export const TOKENS_IN_VIEW = 1200;
const MOST_TOKEN_ARCS = 5000;
const MOST_OVERLAID_ARCS = 500;
const MOST_SENTENCE_ARCS = 400;
const OCTAVES = 8;
/** Room under the axis for region strip, credit bars and labels. */
export const FOOT = 66;
const HEAD = 10;
const LABEL_ROWS = 2;
/** With more tokens in view than this only hubs and the answer are named. */
const NAMED_TOKENS = 72;

export type Ink = "prompt" | "reasoning" | "answer" | "ink" | "path";

export interface ArcGroup {
  ink: Ink;
  width: number;
  alpha: number;
  /** Pairs of positions on the token axis. */
  ends: number[];
}

export interface Mark {
  token: number;
  text: string;
  /** Larger is placed first. */
  weight: number;
  strong: boolean;
}

export interface Scene {
  mode: "tokens" | "sentences";
  groups: ArcGroup[];
  drawn: number;
  marks: Mark[];
}

/** Where things are on a picture of some size that shows tokens `[from, to)`. */
export class Frame {
  readonly base: number;
  private readonly scale: number;

  constructor(
    readonly width: number,
    readonly height: number,
    readonly from: number,
    readonly to: number,
  ) {
    this.base = height - FOOT;
    this.scale = width / Math.max(1e-9, to - from);
  }

  get tokenWidth(): number {
    return this.scale;
  }

  /** Horizontal place of a token's middle. */
  x(position: number): number {
    return (position + 0.5 - this.from) * this.scale;
  }

  tokenAt(x: number): number {
    return Math.floor(this.from + x / this.scale);
  }

  /** Height of an arc: it grows slower than its width, so that short arcs stay visible beside long ones. */
  rise(x0: number, x1: number): number {
    return (this.base - HEAD) * Math.min(1, Math.abs(x1 - x0) / this.width) ** 0.55;
  }
}

/** The arcs and labels of a view; `edges` is how many of the largest edges may be drawn. */
export function composeScene(graph: Graph, text: TokenText, from: number, to: number, edges: number): Scene {
  const { data } = graph;
  const sentences = to - from > TOKENS_IN_VIEW;
  const groups: ArcGroup[] = [];
  let drawn: number;
  if (sentences) {
    drawn = addSentenceArcs(groups, data, from, to);
    addTokenArcs(groups, data, from, to, edges, MOST_OVERLAID_ARCS);
  } else {
    drawn = addTokenArcs(groups, data, from, to, edges, MOST_TOKEN_ARCS);
  }
  return { mode: sentences ? "sentences" : "tokens", groups, drawn, marks: hubMarks(data, text, from, to) };
}

function addTokenArcs(groups: ArcGroup[], data: TraceData, from: number, to: number, n: number, most: number): number {
  const chosen: number[] = [];
  for (let edge = 0; edge < n && chosen.length < most; edge++) {
    const source = data.edgeSource[edge];
    const target = data.edgeTarget[edge];
    // An arc that only passes over the view says nothing about it.
    if ((source >= from && source < to) || (target >= from && target < to)) chosen.push(edge);
  }
  const thin = Math.min(1, (400 / Math.max(1, chosen.length)) ** 0.35);
  addGrouped(groups, chosen.length, thin, (i) => ({
    source: data.edgeSource[chosen[i]],
    target: data.edgeTarget[chosen[i]],
    flow: data.edgeFlow[chosen[i]],
    ink: inkOf(data, data.edgeSource[chosen[i]], data.edgeTarget[chosen[i]]),
  }));
  return chosen.length;
}

function addSentenceArcs(groups: ArcGroup[], data: TraceData, from: number, to: number): number {
  const middle = (step: number) => (data.stepStart[step] + data.stepStop[step] - 1) / 2;
  const answerStep = stepOf(data, data.sink[0]);
  const chosen: number[] = [];
  for (let i = 0; i < data.stepEdgeFlow.length && chosen.length < MOST_SENTENCE_ARCS; i++) {
    const source = middle(data.stepEdgeSource[i]);
    const target = middle(data.stepEdgeTarget[i]);
    if ((source >= from && source < to) || (target >= from && target < to)) chosen.push(i);
  }
  addGrouped(groups, chosen.length, 0.6, (i) => ({
    source: middle(data.stepEdgeSource[chosen[i]]),
    target: middle(data.stepEdgeTarget[chosen[i]]),
    flow: data.stepEdgeFlow[chosen[i]],
    ink:
      data.stepEdgeTarget[chosen[i]] === answerStep
        ? "answer"
        : data.stepStop[data.stepEdgeSource[chosen[i]]] <= data.response[0]
          ? "prompt"
          : "reasoning",
  }));
  return chosen.length;
}

interface Drawable {
  source: number;
  target: number;
  flow: number;
  ink: Ink;
}

/** Group arcs, given largest first, by ink and by octaves below the largest; weak groups are drawn first. */
function addGrouped(groups: ArcGroup[], count: number, thin: number, arc: (i: number) => Drawable): void {
  const found = new Map<string, ArcGroup>();
  const largest = count > 0 ? arc(0).flow : 1;
  for (let i = count - 1; i >= 0; i--) {
    const { source, target, flow, ink } = arc(i);
    const octave = Math.min(OCTAVES, Math.floor(Math.log2(largest / flow)));
    const key = `${octave} ${ink}`;
    let group = found.get(key);
    if (!group) {
      const strength = 2 ** (-octave / 2);
      group = { ink, width: 0.7 + 3.1 * strength, alpha: Math.max(0.07, 0.9 * thin * strength ** 0.8), ends: [] };
      found.set(key, group);
    }
    group.ends.push(source, target);
  }
  groups.push(...found.values());
}

export function inkOf(data: TraceData, source: number, target: number): Ink {
  if (target >= data.sink[0] && target < data.sink[1]) return "answer";
  return regionOf(data, source) === "prompt" ? "prompt" : "reasoning";
}

function hubMarks(data: TraceData, text: TokenText, from: number, to: number): Mark[] {
  const marks: Mark[] = data.hubs.map((hub, rank) => ({
    token: hub.token,
    text: shown(hub.label),
    weight: 1000 - rank,
    strong: true,
  }));
  const [start, stop] = data.answer;
  if (stop > start) marks.push({ token: start, text: text.label(start), weight: 2000, strong: true });
  if (to - from <= NAMED_TOKENS) {
    const known = new Set(marks.map((mark) => mark.token));
    // In a comparison the view may reach beyond the shorter of the two.
    for (let token = Math.floor(from); token < Math.min(to, data.flow.length); token++) {
      if (!known.has(token)) {
        const piece = text.label(token);
        marks.push({ token, text: piece, weight: data.flow[token], strong: false });
      }
    }
  }
  return marks.filter((mark) => mark.token >= from && mark.token < to);
}

/** Labels that fit beside each other, most important first, each with its place. */
export function placeMarks(
  marks: Mark[],
  frame: Frame,
  widthOf: (text: string, strong: boolean) => number,
): { mark: Mark; x: number; row: number }[] {
  const placed: { mark: Mark; x: number; row: number; left: number; right: number }[] = [];
  for (const mark of [...marks].sort((a, b) => b.weight - a.weight)) {
    const half = widthOf(mark.text, mark.strong) / 2;
    const x = Math.min(Math.max(frame.x(mark.token), half + 2), frame.width - half - 2);
    const gap = mark.strong ? 5 : 4;
    const free = (row: number) =>
      placed.every((other) => other.row !== row || x + half + gap < other.left || x - half - gap > other.right);
    for (let row = 0; row < (mark.strong ? LABEL_ROWS : 1); row++) {
      if (!free(row)) continue;
      placed.push({ mark, x, row, left: x - half, right: x + half });
      break;
    }
  }
  return placed;
}

/** Height in [0, 1] and level of the credit bar over each pixel column: the strongest token there. */
export function creditBars(
  data: TraceData,
  levels: Uint8Array,
  frame: Frame,
): { token: number; x: number; width: number; height: number; level: number }[] {
  let largest = 1e-30;
  for (let t = 0; t < data.length; t++) {
    if (regionOf(data, t) === "reasoning" && data.flow[t] > largest) largest = data.flow[t];
  }
  const bars = [];
  const step = Math.max(1, Math.ceil(1.5 / frame.tokenWidth));
  const first = Math.max(0, Math.floor(frame.from));
  for (let token = first - (first % step); token < Math.min(data.length, frame.to); token += step) {
    let best = token;
    for (let other = token; other < Math.min(token + step, data.length); other++) {
      if (data.flow[other] > data.flow[best]) best = other;
    }
    if (data.flow[best] <= 0) continue;
    const width = Math.max(1, frame.tokenWidth * step - (frame.tokenWidth * step > 3 ? 1 : 0));
    bars.push({
      token: best,
      x: frame.x(token) - frame.tokenWidth / 2,
      width,
      height: Math.min(1, Math.sqrt(data.flow[best] / largest)),
      level: levels[best],
    });
  }
  return bars;
}
