import { useEffect, useRef } from "preact/hooks";
import { strings } from "../i18n";
import type { Peaks, Selection } from "../media";
import { floored, LONGEST_FADE } from "../options";
import { written } from "../times";

/** Seconds that an arrow key moves a handle, alone and with Shift. */
const STEP = 0.1;
const LARGE_STEP = 1;

interface WaveformProps {
  peaks: Peaks;
  /** Changes whenever the peaks have. */
  drawn: number;
  duration: number;
  selection: Selection;
  /** The second that is heard, or null. */
  position: number | null;
  change: (name: keyof Selection, value: number) => void;
}

/**
 * A waveform with four handles: where the selection begins and ends, and how far its fades reach. wavesurfer.js cannot
 * be used: it writes HTML and styles as text, which the page's Content-Security-Policy refuses.
 */
export function Waveform({ peaks, drawn, duration, selection, position, change }: WaveformProps) {
  const s = strings.value;
  const canvas = useRef<HTMLCanvasElement>(null);
  const { start, end, fadeIn, fadeOut } = selection;
  useEffect(() => {
    if (canvas.current) draw(canvas.current, { peaks, duration, selection, position });
  }, [drawn, start, end, fadeIn, fadeOut, position]);
  const limited = (value: number, least: number, most: number) =>
    Math.round(Math.min(Math.max(value, least), most) * 1000) / 1000;
  const longest = (other: number) => Math.min(floored(end - start) - other, LONGEST_FADE);
  return (
    <div class="wave" role="group" aria-label={s.waveform}>
      <canvas ref={canvas} />
      <Handle
        kind="fade"
        label={s.fadeIn}
        value={start + fadeIn}
        duration={duration}
        move={(value) => change("fadeIn", limited(value - start, 0, longest(fadeOut)))}
      />
      <Handle
        kind="fade"
        label={s.fadeOut}
        value={end - fadeOut}
        duration={duration}
        move={(value) => change("fadeOut", limited(end - value, 0, longest(fadeIn)))}
      />
      <Handle
        kind="edge"
        label={s.from}
        value={start}
        duration={duration}
        move={(value) => change("start", limited(value, 0, Math.max(0, end - STEP)))}
      />
      <Handle
        kind="edge"
        label={s.to}
        value={end}
        duration={duration}
        move={(value) => change("end", limited(value, start + STEP, duration))}
      />
    </div>
  );
}

interface HandleProps {
  kind: "edge" | "fade";
  label: string;
  value: number;
  duration: number;
  move: (value: number) => void;
}

function Handle({ kind, label, value, duration, move }: HandleProps) {
  const press = (event: KeyboardEvent) => {
    const direction = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!direction) return;
    event.preventDefault();
    move(value + direction * (event.shiftKey ? LARGE_STEP : STEP));
  };
  return (
    <input
      type="range"
      class={kind}
      aria-label={label}
      aria-valuetext={written(value)}
      min={0}
      max={duration}
      step="any"
      value={value}
      onKeyDown={press}
      onInput={(event) => {
        move(Number(event.currentTarget.value));
      }}
    />
  );
}

type Drawing = Pick<WaveformProps, "peaks" | "duration" | "selection" | "position">;

function draw(canvas: HTMLCanvasElement, { peaks, duration, selection, position }: Drawing): void {
  const { start, end, fadeIn, fadeOut } = selection;
  const scale = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const x = (seconds: number) => (seconds / duration) * width;
  const bar = width / peaks.length;
  peaks.forEach((peak, n) => {
    const at = ((n + 0.5) / peaks.length) * duration;
    const faded = Math.min(1, (at - start) / (fadeIn || 1e-9), (end - at) / (fadeOut || 1e-9));
    const isSelected = at >= start && at <= end;
    context.fillStyle = isSelected ? style.color : style.outlineColor;
    const size = Math.max(1, peak * (isSelected ? Math.max(0, faded) : 1) * height);
    context.fillRect(n * bar, (height - size) / 2, Math.max(1, bar * 0.7), size);
  });
  context.strokeStyle = style.color;
  context.beginPath();
  context.moveTo(x(start), height);
  context.lineTo(x(start + fadeIn), 0);
  context.lineTo(x(end - fadeOut), 0);
  context.lineTo(x(end), height);
  context.stroke();
  if (position !== null) {
    context.fillStyle = style.caretColor;
    context.fillRect(x(position) - 1, 0, 2, height);
  }
}
