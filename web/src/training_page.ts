// Training: a slider over the kept steps. The text shows advantage times credit as it entered the loss, on one scale
// over all steps, so that what looks stronger was stronger; or the flow alone. A trace is unpacked when it is shown.

import { Surface } from "./canvas";
import { lossOf } from "./credit";
import { unpack } from "./data";
import { LABEL_FONT } from "./draw";
import { count, element, find, percent, signed } from "./format";
import { readPalette } from "./palette";
import { connectTheme, packedTraces, readTrace, smallPicture, type SmallTrace } from "./small";
import { creditClass, cut, shown, tokenSpans } from "./text";

interface Entry {
  step: number;
  group: string;
  response: string;
  /** Place among the packed traces; null where there is no trace. */
  at: number | null;
  reason?: string;
  /** Whether the response was trained on; else it was answered greedily. */
  trained?: boolean;
  answer?: string;
  verdict?: string | null;
  reward?: number | null;
  tokens?: number;
  concentration?: number;
  hubs?: number;
}

interface Run {
  steps: number[];
  entries: Entry[];
  /** The largest number that entered the loss, whatever its sign. */
  largest: number;
}

type Colour = "loss" | "flow";
const COLOURS: Record<Colour, string> = { loss: "advantage \u00d7 credit", flow: "flow" };
/** The faintest shade, so that every token that entered the loss is seen to have. */
const FAINTEST = 0.16;
const MARGIN = { top: 24, bottom: 6, side: 8 };

class TrainingPage {
  private group: string;
  private response = "";
  private step: number;
  private colour: Colour = "loss";
  private readonly packed = packedTraces();
  private readonly read = new Map<number, Promise<SmallTrace>>();
  private readonly curve: Surface;
  private repaints: (() => void)[] = [];
  private drawing = 0;

  constructor(private readonly run: Run) {
    this.group = this.groups()[0];
    this.step = run.steps[0];
    this.readHash();
    this.curve = new Surface(find("#curve canvas"), (context, width, height) => this.drawCurve(context, width, height));
    this.listen();
  }

  private groups(): string[] {
    return [...new Set(this.run.entries.map((entry) => entry.group))].sort(
      (a, b) => Number(a === "batch") - Number(b === "batch") || a.localeCompare(b),
    );
  }

  /** What was kept of the chosen prompt at a step. */
  private at(step: number): Entry[] {
    return this.run.entries.filter((entry) => entry.step === step && entry.group === this.group);
  }

  private entry(): Entry | undefined {
    const entries = this.at(this.step);
    return entries.find((entry) => entry.response === this.response) ?? entries[0];
  }

  /** Show the present choice; an answer that arrives after a newer choice is dropped. */
  async show(): Promise<void> {
    const drawing = ++this.drawing;
    const entry = this.entry();
    this.showChoices(entry);
    this.curve.redraw();
    if (location.protocol !== "about:") history.replaceState(null, "", `#${this.toHash()}`);
    if (!entry || entry.at === null) {
      find("#sentence").textContent = `Step ${this.step} \u00b7 ${this.whyNothing(entry)}`;
      find("#arcs-of").replaceChildren();
      find<HTMLElement>("#text-card").hidden = true;
      return;
    }
    find<HTMLElement>("#text-card").hidden = false;
    const place = entry.at;
    if (!this.read.has(place)) this.read.set(place, readTrace(this.packed[place]));
    const trace = await this.read.get(place)!;
    if (drawing !== this.drawing) return;
    this.showSentence(entry, trace);
    this.repaints = [];
    find("#arcs-of").replaceChildren(smallPicture(trace, trace.data.length, null, this.repaints));
    this.showText(trace);
  }

  private whyNothing(entry: Entry | undefined): string {
    if (entry) return `no trace: ${(entry.reason ?? "").replaceAll("_", " ")}`;
    const here = this.run.entries.filter((one) => one.step === this.step && one.trained);
    const groups = [...new Set(here.map((one) => groupLabel(one.group)))];
    return `nothing kept of ${groupLabel(this.group)}${groups.length ? `; trained on: ${groups.join(", ")}` : ""}`;
  }

  private showSentence(entry: Entry, { data }: SmallTrace): void {
    const parts = [
      `Step ${this.step}`,
      `answer ${shown(cut(data.answer_text, 40))}${entry.verdict ? ` (${entry.verdict})` : ""}`,
    ];
    if (typeof entry.reward === "number") parts.push(`reward ${Number(entry.reward.toPrecision(4))}`);
    if (data.trained === null) {
      parts.push("answered greedily, not trained on");
    } else {
      const entered = data.tokenAdvantage.filter((value) => value !== 0);
      parts.push(`advantage ${signed(data.trained.advantage)}`);
      if (entered.length === 0) parts.push("nothing entered the loss");
      else
        parts.push(`tokens entered the loss with ${signed(Math.min(...entered))} to ${signed(Math.max(...entered))}`);
    }
    parts.push(`${percent(entry.hubs ?? 0)} of the flow through the top hubs`);
    find("#sentence").textContent = parts.join(" \u00b7 ");
  }

  private showText(trace: SmallTrace): void {
    const { data, levels, text } = trace;
    const byLoss = this.colour === "loss" && data.trained !== null;
    const classOf = (token: number) => {
      if (!byLoss) return creditClass(data, levels, token);
      const value = data.tokenAdvantage[token];
      if (value === 0) return "";
      return `${value > 0 ? "gain" : "loss"}${data.factor[token] > 1 ? " boosted" : ""}`;
    };
    const rows = Array.from(data.stepStart, (start, step) => {
      const spans = tokenSpans(text, start, data.stepStop[step], classOf);
      if (byLoss) for (const span of spans) this.shade(span, data.tokenAdvantage[Number(span.dataset.t)]);
      const row = element(
        "div",
        "sentence",
        {},
        element("span", "gutter", {}, element("b", "", {}, String(step))),
        element("p", "", { dir: "auto" }, ...spans),
      );
      if (step > 0) return row;
      // Nothing of the prompt enters a loss.
      return element("details", "", {}, element("summary", "", {}, `Prompt, ${count(data.response[0])} tokens`), row);
    });
    const body = find<HTMLElement>("#response-text");
    const open = body.querySelector("details")?.open ?? false;
    body.replaceChildren(...rows);
    const prompt = body.querySelector("details");
    if (prompt) prompt.open = open;
    this.showScale(byLoss);
    this.tellTokens(body, trace);
  }

  private shade(element: HTMLElement, value: number): void {
    const part = Math.abs(value) / (this.run.largest || 1);
    element.style.setProperty("--shade", `${Math.round(70 * (FAINTEST + (1 - FAINTEST) * part))}%`);
  }

  private showScale(byLoss: boolean): void {
    const swatch = (name: string, text: string) => element("i", name, {}, text);
    const shaded = (part: number) => {
      const value = part * this.run.largest;
      const made = swatch(part > 0 ? "gain" : "loss", signed(value));
      this.shade(made, value);
      return made;
    };
    find("#scale").replaceChildren(
      ...(byLoss
        ? ["in the loss", shaded(-1), shaded(-0.5), shaded(0.5), shaded(1), swatch("boosted", "credit above 1")]
        : [
            "flow ",
            swatch("c1", "top 40 %"),
            swatch("c2", "20 %"),
            swatch("c3", "10 %"),
            swatch("c4", "5 %"),
            swatch("final", "answer"),
          ]),
    );
  }

  private tellTokens(body: HTMLElement, { data, text }: SmallTrace): void {
    body.onpointerover = (event) => {
      const at = (event.target as Element).closest<HTMLElement>("[data-t]")?.dataset.t;
      if (at === undefined) return;
      const token = Number(at);
      const entered = lossOf(data, token) ?? "not in the loss";
      find("#token-value").textContent =
        `\u201c${text.label(token)}\u201d: ${entered} \u00b7 ${percent(data.flow[token])} of the flow`;
    };
  }

  private showChoices(entry: Entry | undefined): void {
    const buttons = (id: string, names: [string, string][], chosen: string, choose: (name: string) => void) => {
      find(id).replaceChildren(
        ...names.map(([name, label]) => {
          const button = element("button", "", { type: "button", ariaPressed: String(name === chosen) }, label);
          button.dataset.name = name;
          button.addEventListener("click", () => {
            choose(name);
            void this.show();
            document.querySelector<HTMLElement>(`${id} [data-name="${CSS.escape(name)}"]`)?.focus();
          });
          return button;
        }),
      );
    };
    const here = new Set(this.run.entries.filter((one) => one.step === this.step).map((one) => one.group));
    buttons(
      "#groups",
      this.groups().map((name) => [name, groupLabel(name)]),
      this.group,
      (name) => (this.group = name),
    );
    for (const button of document.querySelectorAll<HTMLElement>("#groups button")) {
      button.classList.toggle("empty", !here.has(button.dataset.name ?? ""));
    }
    const responses = this.at(this.step).map((one): [string, string] => [one.response, responseLabel(one)]);
    buttons("#responses", responses, entry?.response ?? "", (name) => (this.response = name));
    buttons("#colours", Object.entries(COLOURS), this.colour, (name) => (this.colour = name as Colour));
    const slider = find<HTMLInputElement>("#step");
    slider.max = String(this.run.steps.length - 1);
    slider.value = String(this.run.steps.indexOf(this.step));
    find("#step-value").textContent = `step ${this.step}`;
  }

  /** Rewards as dots, and the share through the top hubs as a line, over the kept steps of the chosen prompt. */
  private drawCurve(context: CanvasRenderingContext2D, width: number, height: number): void {
    const palette = readPalette();
    const { steps } = this.run;
    const last = steps[steps.length - 1];
    const span = Math.max(1, last - steps[0]);
    const x = (step: number) => MARGIN.side + ((step - steps[0]) / span) * (width - 2 * MARGIN.side);
    const y = (share: number) => height - MARGIN.bottom - share * (height - MARGIN.top - MARGIN.bottom);
    const entries = this.run.entries.filter((entry) => entry.group === this.group);
    const rewards = entries.flatMap((entry) => (typeof entry.reward === "number" ? [entry.reward] : []));
    const [low, high] = [Math.min(0, ...rewards), Math.max(...rewards, 1e-9)];
    context.fillStyle = palette.line;
    context.fillRect(x(this.step) - 1, 0, 2, height);
    context.strokeStyle = palette.reasoning;
    context.lineWidth = 1.75;
    context.beginPath();
    for (const step of steps) {
      const shares = entries.flatMap((entry) => (entry.step === step && entry.hubs !== undefined ? [entry.hubs] : []));
      if (shares.length > 0) context.lineTo(x(step), y(shares.reduce((a, b) => a + b, 0) / shares.length));
    }
    context.stroke();
    context.globalAlpha = 0.75;
    context.fillStyle = palette.answer;
    for (const entry of entries) {
      if (typeof entry.reward !== "number") continue;
      context.beginPath();
      context.arc(x(entry.step), y((entry.reward - low) / (high - low)), 3.5, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
    context.font = LABEL_FONT;
    context.fillStyle = palette.reasoning;
    context.fillText("share of the flow through the top hubs", MARGIN.side, 11);
    if (rewards.length === 0) return;
    const note = `reward, ${Number(low.toPrecision(3))} to ${Number(high.toPrecision(3))}`;
    context.fillStyle = palette.answer;
    context.fillText(note, width - MARGIN.side - context.measureText(note).width, 11);
  }

  private listen(): void {
    const slider = find<HTMLInputElement>("#step");
    slider.addEventListener("input", () => this.goTo(Number(slider.value)));
    find("#curve").addEventListener("click", (event) => {
      const box = find("#curve").getBoundingClientRect();
      const part = ((event as MouseEvent).clientX - box.left - MARGIN.side) / Math.max(1, box.width - 2 * MARGIN.side);
      const { steps } = this.run;
      const wanted = steps[0] + part * (steps[steps.length - 1] - steps[0]);
      this.goTo(
        steps.reduce((best, step, at) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? at : best), 0),
      );
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || (event.target as Element).closest("input")) return;
      const keys: Record<string, () => void> = {
        ArrowRight: () => this.goTo(this.run.steps.indexOf(this.step) + 1),
        ArrowLeft: () => this.goTo(this.run.steps.indexOf(this.step) - 1),
        ArrowDown: () => this.nextResponse(1),
        ArrowUp: () => this.nextResponse(-1),
        c: () => {
          this.colour = this.colour === "loss" ? "flow" : "loss";
          void this.show();
        },
      };
      if (!(event.key in keys)) return;
      event.preventDefault();
      keys[event.key]();
    });
    connectTheme([() => this.curve.redraw(), () => this.repaints.forEach((paint) => paint())]);
  }

  private goTo(place: number): void {
    const { steps } = this.run;
    this.step = steps[Math.min(Math.max(place, 0), steps.length - 1)];
    void this.show();
  }

  private nextResponse(by: number): void {
    const responses = this.at(this.step).map((entry) => entry.response);
    const at = responses.indexOf(this.entry()?.response ?? "");
    this.response = responses[(at + by + responses.length) % responses.length] ?? "";
    void this.show();
  }

  private toHash(): string {
    return new URLSearchParams({
      step: String(this.step),
      group: this.group,
      response: this.entry()?.response ?? "",
      colour: this.colour,
    }).toString();
  }

  private readHash(): void {
    const given = new URLSearchParams(location.hash.slice(1));
    const step = Number(given.get("step") ?? NaN);
    if (this.run.steps.includes(step)) this.step = step;
    if (this.groups().includes(given.get("group") ?? "")) this.group = given.get("group")!;
    this.response = given.get("response") ?? "";
    if (given.get("colour") === "flow") this.colour = "flow";
  }
}

/** "prompt-03" as "prompt 3"; "batch" is the first prompt of the batch. */
function groupLabel(group: string): string {
  return group === "batch" ? "batch" : group.replace(/-0*(?=\d)/, " ");
}

function responseLabel(entry: Entry): string {
  const reward = typeof entry.reward === "number" ? ` (${Number(entry.reward.toPrecision(2))})` : "";
  return `${Number(entry.response)}${reward}`;
}

export async function openTrainingPage(): Promise<void> {
  const { header } = await unpack(find("#training-data").textContent ?? "");
  await new TrainingPage(header as unknown as Run).show();
}
