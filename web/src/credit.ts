// Credit as a reader sees it: the rank of a token's flow among the reasoning tokens, in the levels that the terminal
// shows as well. The widest level is the share of tokens that flow credit boosts by default. The prompt gets no credit
// and all flow passes it, so its tokens are ranked among themselves and shown in grey. So are the patches of its images.

import type { TraceData } from "./data";
import { signed } from "./format";

export const LEVELS = [0.4, 0.2, 0.1, 0.05] as const;

/** 0 for little flow, 4 for the top level: of the reasoning, or of the prompt. */
export function creditLevels(data: TraceData): Uint8Array {
  const border = data.response[0];
  const isPatch = (token: number) => data.imageOf[token] > 0;
  const prompt = thresholds(data.flow.slice(0, border).filter((_, token) => !isPatch(token)));
  const patches = thresholds(data.flow.filter((_, token) => isPatch(token)));
  const reasoning = thresholds(data.flow.slice(border, Math.max(border, data.answer[0])));
  return Uint8Array.from(data.flow, (flow, token) => {
    const limits = isPatch(token) ? patches : token < border ? prompt : reasoning;
    return flow > 0 ? limits.reduce((level, limit) => level + Number(flow >= limit), 0) : 0;
  });
}

function thresholds(flow: Float32Array): number[] {
  const ranked = flow.sort().reverse();
  return LEVELS.map((share) => ranked[Math.max(0, Math.ceil(share * ranked.length) - 1)] ?? Infinity);
}

/** What a token entered a trainer's loss with; null where it did not. */
export function lossOf({ trained, factor, tokenAdvantage }: TraceData, token: number): string | null {
  if (trained === null || tokenAdvantage[token] === 0) return null;
  const credit = Number(factor[token].toPrecision(4));
  return `advantage ${signed(trained.advantage)} \u00d7 credit ${credit} = ${signed(tokenAdvantage[token])} in the loss`;
}

export type Region = "prompt" | "reasoning" | "answer" | "after";

export function regionOf(data: TraceData, token: number): Region {
  if (token < data.response[0]) return "prompt";
  if (token < data.answer[0]) return "reasoning";
  return token < data.answer[1] ? "answer" : "after";
}

export function stepOf(data: TraceData, token: number): number {
  let low = 0;
  let high = data.stepStart.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (data.stepStart[middle] <= token) low = middle;
    else high = middle - 1;
  }
  return low;
}
