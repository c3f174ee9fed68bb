// A canvas that follows the size of its box and the density of the screen, and draws at most once a frame.

export class Surface {
  width = 0;
  height = 0;
  private readonly context: CanvasRenderingContext2D;
  private pending = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly draw: (context: CanvasRenderingContext2D, width: number, height: number) => void,
  ) {
    this.context = canvas.getContext("2d")!;
    // Tells the first size as well, once whoever draws is complete.
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement!);
  }

  redraw(): void {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
    });
  }

  private resize(): void {
    const box = this.canvas.parentElement!.getBoundingClientRect();
    if (box.width === this.width && box.height === this.height) return;
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.round(box.width * devicePixelRatio);
    this.canvas.height = Math.round(box.height * devicePixelRatio);
    this.paint();
  }

  private paint(): void {
    if (this.width === 0 || this.height === 0) return;
    const { context } = this;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.draw(context, this.width, this.height);
  }
}
