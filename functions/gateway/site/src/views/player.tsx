import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as player from "../player";
import { Cross, Pause, Play } from "./icons";

/** The bar at the bottom that plays one MP3. */
export function Player() {
  const s = strings.value;
  const job = player.current.value;
  if (!job) return null;
  const position = player.position.value;
  const length = player.length.value;
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
        <input
          type="range"
          aria-label={s.position}
          aria-valuetext={`${i18n.clock(position)} / ${i18n.clock(length)}`}
          min={0}
          max={Math.max(length, position, 1)}
          step={1}
          value={position}
          style={{ "--played": position / Math.max(length, position, 1) }}
          onInput={(event) => player.seek(Number(event.currentTarget.value))}
        />
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
