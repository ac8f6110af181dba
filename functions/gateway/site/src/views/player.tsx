import { useEffect, useRef, useState } from "preact/hooks";
import type { Waveform } from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as player from "../player";
import { theme } from "../theme";
import { prepare } from "./canvas";
import { Cross, Pause, Play } from "./icons";

/** Pixels from one bar of the waveform to the next, and of the gap between them. */
const PITCH = 3;
const GAP = 1;

/** The bar at the bottom that plays one MP3. */
export function Player() {
  const s = strings.value;
  const job = player.current.value;
  if (!job) return null;
  const position = player.position.value;
  const length = player.length.value;
  const waveform = player.waveform.value;
  const played = position / Math.max(length, position, 1);
  return (
    <aside class="player" aria-label={s.player}>
      <button
        class="icon round"
        aria-label={player.isPlaying.value ? s.pauseSound : s.play}
        onClick={() => player.toggle(job)}
      >
        {player.isPlaying.value ? <Pause /> : <Play />}
      </button>
      <div class="text">
        <p class="name ellipsis">{player.title(job)}</p>
        <div class={waveform ? "seek drawn" : "seek"}>
          {waveform && <Drawing waveform={waveform} played={played} />}
          <input
            type="range"
            aria-label={s.position}
            aria-valuetext={`${i18n.clock(position)} / ${i18n.clock(length)}`}
            min={0}
            max={Math.max(length, position, 1)}
            step={1}
            value={position}
            style={{ "--played": played }}
            onInput={(event) => player.seek(Number(event.currentTarget.value))}
          />
        </div>
      </div>
      <p class="faint small times">
        {i18n.clock(position)} / {i18n.clock(length)}
      </p>
      <button class="icon" aria-label={s.close} onClick={player.close}>
        <Cross />
      </button>
    </aside>
  );
}

/** The waveform behind the slider, up to the position in another color. */
function Drawing({ waveform, played }: { waveform: Waveform; played: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [changes, setChanges] = useState(0);
  const chosen = theme.value;
  useEffect(() => {
    const changed = () => setChanges((count) => count + 1);
    const size = new ResizeObserver(changed);
    if (canvas.current) size.observe(canvas.current);
    const colors = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
    for (const each of colors) each.addEventListener("change", changed);
    return () => {
      size.disconnect();
      for (const each of colors) each.removeEventListener("change", changed);
    };
  }, []);
  useEffect(() => {
    if (canvas.current) draw(canvas.current, waveform, played);
  }, [waveform, played, chosen, changes]);
  return <canvas ref={canvas} aria-hidden="true" />;
}

function draw(canvas: HTMLCanvasElement, waveform: Waveform, played: number): void {
  const prepared = prepare(canvas);
  if (!prepared) return;
  const { context, style, width, height } = prepared;
  const bars = loudness(waveform, Math.floor((width + GAP) / PITCH));
  const most = Math.max(...bars, 1);
  context.fillStyle = style.outlineColor;
  bars.forEach((loudest, n) => {
    const size = Math.max(2, (loudest / most) * height);
    context.fillRect(n * PITCH, (height - size) / 2, PITCH - GAP, size);
  });
  context.globalCompositeOperation = "source-atop";
  context.fillStyle = style.color;
  context.fillRect(0, 0, played * width, height);
  context.globalCompositeOperation = "source-over";
  context.fillStyle = style.caretColor;
  context.fillRect(Math.min(Math.max(played * width - 1, 0), width - 2), 0, 2, height);
}

/** Returns the loudest sample of each of so many parts of a waveform. */
function loudness({ length, data }: Waveform, parts: number): number[] {
  return Array.from({ length: parts }, (_, n) => {
    const first = Math.floor((n * length) / parts);
    const last = Math.max(first + 1, Math.floor(((n + 1) * length) / parts));
    return Math.max(...data.slice(2 * first, 2 * last).map(Math.abs));
  });
}
