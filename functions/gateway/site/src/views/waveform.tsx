import { useEffect, useRef } from "preact/hooks";
import { strings } from "../i18n";
import type { Peaks, Selection } from "../media";
import { floored, LONGEST_FADE } from "../options";
import { written } from "../times";
import { prepare } from "./canvas";

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
  /** Gets what was moved, and the selection as it is then. */
  change: (name: keyof Selection, selection: Selection) => void;
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
  /** What the handles have moved to. Keys may come faster than the page is drawn. */
  const latest = useRef(selection);
  latest.current = selection;
  const move = (name: keyof Selection, value: number, least: number, most: number) => {
    const moved = Math.round(Math.min(Math.max(value, least), most) * 1000) / 1000;
    latest.current = { ...latest.current, [name]: moved };
    change(name, latest.current);
  };
  const longest = (other: number) =>
    Math.min(floored(latest.current.end - latest.current.start) - other, LONGEST_FADE);
  const shared = { latest, duration };
  return (
    <div class="wave" role="group" aria-label={s.waveform}>
      <canvas ref={canvas} />
      <Handle
        kind="edge"
        {...shared}
        label={s.from}
        value={({ start }) => start}
        move={(value) => move("start", value, 0, Math.max(0, latest.current.end - STEP))}
      />
      <Handle
        kind="edge"
        {...shared}
        label={s.to}
        value={({ end }) => end}
        move={(value) => move("end", value, latest.current.start + STEP, duration)}
      />
      <Handle
        kind="fade"
        {...shared}
        label={s.fadeIn}
        value={({ start, fadeIn }) => start + fadeIn}
        move={(value) => move("fadeIn", value - latest.current.start, 0, longest(latest.current.fadeOut))}
      />
      <Handle
        kind="fade"
        {...shared}
        label={s.fadeOut}
        value={({ end, fadeOut }) => end - fadeOut}
        move={(value) => move("fadeOut", latest.current.end - value, 0, longest(latest.current.fadeIn))}
      />
    </div>
  );
}

interface HandleProps {
  kind: "edge" | "fade";
  label: string;
  latest: { readonly current: Selection };
  value: (selection: Selection) => number;
  duration: number;
  move: (value: number) => void;
}

function Handle({ kind, label, latest, value, duration, move }: HandleProps) {
  const shown = value(latest.current);
  const press = (event: KeyboardEvent) => {
    const direction = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!direction) return;
    event.preventDefault();
    move(value(latest.current) + direction * (event.shiftKey ? LARGE_STEP : STEP));
  };
  return (
    <input
      type="range"
      class={kind}
      aria-label={label}
      aria-valuetext={written(shown)}
      min={0}
      max={duration}
      step="any"
      value={shown}
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
  const prepared = prepare(canvas);
  if (!prepared) return;
  const { context, style, width, height } = prepared;
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
