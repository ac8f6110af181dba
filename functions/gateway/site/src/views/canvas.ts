/** A canvas to draw on in pixels of the page, and its style, which has the colors. */
export interface Prepared {
  context: CanvasRenderingContext2D;
  style: CSSStyleDeclaration;
  width: number;
  height: number;
}

/** Empties a canvas and gives it the resolution of the screen; null if it cannot be drawn on. */
export function prepare(canvas: HTMLCanvasElement): Prepared | null {
  const scale = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.scale(scale, scale);
  return { context, style: getComputedStyle(canvas), width, height };
}
