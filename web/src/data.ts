// The page's data: unpacks what report/payload.py packed, and names its parts.

export interface Hub {
  label: string;
  /** What it is: word, number, operator, or what ends a sentence. */
  unit: string;
  step: number;
  /** The token of it that carries most. */
  token: number;
  /** Its tokens, [start, stop). */
  start: number;
  stop: number;
  /** Probability that a walk from question to answer passes it. */
  flow: number;
  /** What its place alone would carry; null where that is not known. */
  expected: number | null;
  kind: string;
  fan_in: number;
  fan_out: number;
  /** Change of log p(answer), in nats, with the hub hidden from all later tokens; null where it was not measured. */
  effect: number | null;
}

/** What a path passes. */
export interface Stop {
  label: string;
  unit: string;
  step: number;
  start: number;
  stop: number;
}

export interface Path {
  level: "steps" | "words";
  /** The token of each stop that carries most. */
  tokens: number[];
  units: Stop[];
  share: number;
  exact: boolean;
}

/** A picture of the prompt; its patches are tokens. */
export interface PromptImage {
  /** A data URL. */
  picture: string;
  /** Whether it is known where patches lie; if not, the one view is a row of them in their order. */
  placed: boolean;
  /** Rows and columns of each view, the finest first. */
  views: [rows: number, columns: number][];
  /** Probability that a walk leaves the prompt from it; a lower bound where edges were cut. */
  share: number;
}

export type Span = [start: number, stop: number];
export type Numbers = Uint8Array | Uint16Array | Uint32Array | Float32Array;

export interface TraceHeader {
  text: string;
  summary: string;
  answer_text: string;
  answer_rule: string;
  verdict: "right" | "wrong" | null;
  share_kept: number;
  complete: boolean;
  model: string;
  layers: number[];
  heads_per_edge: number;
  at: string;
  /** Where a trainer learned from this very response. */
  trained: { step: number; advantage: number } | null;
  metadata: Record<string, string | number | boolean | null>;
  question: Span;
  response: Span;
  answer: Span;
  sink: Span;
  images: PromptImage[];
  hubs: Hub[];
  paths: Path[];
}

export interface TraceData extends TraceHeader {
  length: number;
  tokenStart: Numbers;
  tokenStop: Numbers;
  flow: Float32Array;
  source: Float32Array;
  fanIn: Float32Array;
  fanOut: Float32Array;
  edgeSource: Uint32Array;
  edgeTarget: Numbers;
  edgeFlow: Float32Array;
  stepStart: Numbers;
  stepStop: Numbers;
  /** Probability that a walk from question to answer passes the sentence. */
  stepShare: Float32Array;
  stepEdgeSource: Numbers;
  stepEdgeTarget: Numbers;
  stepEdgeFlow: Float32Array;
  /** Share of the whole flow that each head of each layer gives, layer by layer; empty if it was not looked at. */
  headFlow: Float32Array;
  /** Places in `headFlow` of the heads that give most to the largest edges: all first ones, then all second ones. */
  edgeHead: Numbers;
  /** Share of the edge that each of them gives, in 255ths. */
  edgeHeadShare: Numbers;
  /** What each token's advantage was multiplied by, and the product as it entered the loss; empty if not trained on. */
  factor: Float32Array;
  tokenAdvantage: Float32Array;
  /** Number of the image that each token is of, from 1 on, or that it frames; empty where there are no images. */
  imageOf: Numbers;
  frameOf: Numbers;
  /** Tokens of every view, image by image and row by row. */
  patchToken: Numbers;
}

interface ArrayNote {
  name: string;
  kind: "u1" | "u2" | "u4" | "f4";
  length: number;
  differences: boolean;
}

export interface Unpacked {
  header: Record<string, unknown>;
  arrays: Record<string, Numbers>;
}

/** Undo `pack` of report/payload.py. */
export async function unpack(base64: string): Promise<Unpacked> {
  const packed = Uint8Array.from(atob(base64.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const headerLength = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headerLength)));
  const arrays: Record<string, Numbers> = {};
  let at = 4 + headerLength;
  for (const note of header.arrays as ArrayNote[]) {
    const width = Number(note.kind[1]);
    arrays[note.name] = readPlanes(bytes.subarray(at, at + width * note.length), note, width);
    at += width * note.length;
  }
  return { header, arrays };
}

function readPlanes(planes: Uint8Array, note: ArrayNote, width: number): Numbers {
  const values = new { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[width as 1 | 2 | 4](note.length);
  for (let plane = 0; plane < width; plane++) {
    const start = plane * note.length;
    for (let i = 0; i < note.length; i++) values[i] |= planes[start + i] << (8 * plane);
  }
  if (note.differences) for (let i = 1; i < values.length; i++) values[i] += values[i - 1];
  return note.kind === "f4" ? new Float32Array(values.buffer) : values;
}

export async function unpackTrace(base64: string): Promise<TraceData> {
  const { header, arrays } = await unpack(base64);
  const target = arrays.edge_target;
  const distance = arrays.edge_distance;
  return {
    ...(header as unknown as TraceHeader),
    length: arrays.flow.length,
    tokenStart: arrays.token_start,
    tokenStop: arrays.token_stop,
    flow: arrays.flow as Float32Array,
    source: arrays.source as Float32Array,
    fanIn: arrays.fan_in as Float32Array,
    fanOut: arrays.fan_out as Float32Array,
    edgeSource: Uint32Array.from(target, (k, e) => k - distance[e]),
    edgeTarget: target,
    edgeFlow: arrays.edge_flow as Float32Array,
    stepStart: arrays.step_start,
    stepStop: arrays.step_stop,
    stepShare: arrays.step_share as Float32Array,
    stepEdgeSource: arrays.step_edge_source,
    stepEdgeTarget: arrays.step_edge_target,
    stepEdgeFlow: arrays.step_edge_flow as Float32Array,
    headFlow: arrays.head_flow as Float32Array,
    edgeHead: arrays.edge_head,
    edgeHeadShare: arrays.edge_head_share,
    factor: (arrays.factor ?? new Float32Array(0)) as Float32Array,
    tokenAdvantage: (arrays.token_advantage ?? new Float32Array(0)) as Float32Array,
    imageOf: arrays.image_of ?? new Uint8Array(0),
    frameOf: arrays.frame_of ?? new Uint8Array(0),
    patchToken: arrays.patch_token ?? new Uint8Array(0),
  };
}
