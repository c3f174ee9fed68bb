// Token text as a reader may see it. It is hostile input: it only ever reaches the page as text, and what would steer
// the display (controls, direction marks, halves of surrogate pairs) is made visible instead.

import { regionOf } from "./credit";
import type { TraceData } from "./data";
import { element } from "./format";
import { patchNames, type PatchName } from "./images";

const LONGEST_PIECE = 400;
const LONGEST_LABEL = 20;
const STEERING =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu;
const LONE_HALF = /\p{Surrogate}/gu;

function visible(char: string): string {
  const code = char.codePointAt(0)!;
  if (code === 9) return "\u21e5\t";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return `\u2039U+${code.toString(16).toUpperCase().padStart(4, "0")}\u203a`;
}

/** Text with nothing in it that could steer the display; line breaks stay. */
export function shown(text: string): string {
  return text.replace(LONE_HALF, "\ufffd").replace(STEERING, visible);
}

/** Text cut to what a page can lay out, with its length. */
export function cut(text: string, longest = LONGEST_PIECE): string {
  if (text.length <= longest) return text;
  const whole = text.slice(0, longest).replace(/[\ud800-\udbff]$/, "");
  return `${whole}\u2026 (${text.length.toLocaleString("en")} characters)`;
}

export class TokenText {
  /** Text of each token, without what an earlier token spells already. */
  readonly pieces: string[] = [];
  /** The token whose piece holds this token's text: itself, or an earlier one that spells the same characters. */
  readonly owner: Uint32Array;
  private readonly patches: Map<number, PatchName>;

  constructor(private readonly data: TraceData) {
    this.patches = patchNames(data);
    this.owner = new Uint32Array(data.length);
    let reached = 0;
    let owner = 0;
    for (let token = 0; token < data.length; token++) {
      const stop = data.tokenStop[token];
      const image = data.imageOf[token] ?? 0;
      const begins = image > 0 && image !== data.imageOf[token - 1] && data.imageOf.indexOf(image) === token;
      const own = image > 0 ? (begins ? `[image ${image}]` : "") : data.text.slice(reached, stop);
      const piece = stop > reached ? own : "";
      if (piece !== "") owner = token;
      this.pieces.push(piece);
      this.owner[token] = owner;
      reached = Math.max(reached, stop);
    }
  }

  /** The token as the model reads it; of an image, which patch it is. */
  raw(token: number): string {
    const patch = this.patches.get(token);
    if (patch) return patch.long;
    return this.data.text.slice(this.data.tokenStart[token], this.data.tokenStop[token]);
  }

  /** Whether a token is a patch of an image. */
  isPatch(token: number): boolean {
    return this.patches.has(token);
  }

  /** The word or number that a token is part of, or the mark or the patch that it is. */
  label(token: number): string {
    const patch = this.patches.get(token);
    if (patch) return patch.short;
    const { text } = this.data;
    let start = this.data.tokenStart[token];
    let stop = this.data.tokenStop[token];
    while (text[start] === " " && start < stop) start++;
    while (text[stop - 1] === " " && stop > start) stop--;
    const isWord = (at: number) => /[\p{L}\p{N}]/u.test(text[at] ?? "");
    if (start < stop && stop - start <= LONGEST_LABEL && /^[\p{L}\p{N}]+$/u.test(text.slice(start, stop))) {
      while (start > 0 && isWord(start - 1) && stop - start < LONGEST_LABEL) start--;
      while (stop < text.length && isWord(stop) && stop - start < LONGEST_LABEL) stop++;
    }
    return shown(text.slice(start, Math.min(stop, start + LONGEST_LABEL))).replaceAll("\n", "\u21b5") || "\u2423";
  }
}

/** One element for each token of `[start, stop)` that spells something of its own. */
export function tokenSpans(
  text: TokenText,
  start: number,
  stop: number,
  classOf: (token: number) => string,
): HTMLSpanElement[] {
  const spans = [];
  for (let token = start; token < stop; token++) {
    if (text.pieces[token] === "") continue;
    const span = element("span", classOf(token));
    span.textContent = shown(cut(text.pieces[token])).replaceAll("\n", "\u21b5\n");
    span.dataset.t = String(token);
    spans.push(span);
  }
  return spans;
}

/** Classes of a token by its credit: a level, a hub, the answer. */
export function creditClass(data: TraceData, levels: Uint8Array, token: number): string {
  const names = [];
  const region = regionOf(data, token);
  if (levels[token] > 0) names.push(`${region === "prompt" ? "q" : "c"}${levels[token]}`);
  if (data.hubs.some((hub) => hub.start <= token && token < hub.stop)) names.push("hub");
  if (region === "answer") names.push("final");
  return names.join(" ");
}
