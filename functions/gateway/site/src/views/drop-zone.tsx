import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as jobs from "../jobs";
import * as options from "../options";
import { session } from "../session";
import { hasAccount } from "../stored";
import * as uploads from "../uploads";
import { Burst } from "./icons";

/** Where files are chosen: large for a newcomer, small once there is something to look at. */
export function DropZone() {
  const s = strings.value;
  const isNew =
    !uploads.uploads.value.length && !jobs.done.value.length && !jobs.working.value.length && !mayHaveMp3s();
  return (
    <section class={isNew ? "drop hero" : "drop"}>
      {isNew && <Burst />}
      {isNew ? <h1>{s.headline}</h1> : <h1 class="hidden">mp3burst</h1>}
      {isNew && <p class="pitch">{s.pitch}</p>}
      <div class="choose">
        <label class="button primary large">
          <input
            type="file"
            multiple
            accept="video/*,audio/*,.mkv,.mxf,.ts,.mts,.vob"
            onChange={(event) => {
              const input = event.currentTarget;
              uploads.add([...(input.files ?? [])].map((file) => ({ file, handle: null })));
              input.value = ""; // so that the same file can be chosen again
            }}
          />
          {isNew ? s.choose : s.addMore}
        </label>
        <span class="faint for-mouse">{s.orDrop}</span>
      </div>
      <Options />
    </section>
  );
}

/** Returns whether MP3s may be on their way to the page, which would move down all that is below. */
function mayHaveMp3s(): boolean {
  const { state } = session.value;
  return state === "in" ? jobs.loading.value === "loading" : state === "unknown" && hasAccount();
}

function Options() {
  const s = strings.value;
  const chosen = options.chosenPreset.value;
  const own = options.ownName(chosen);
  const builtIn = options.builtIn(chosen);
  return (
    <div class="options">
      <fieldset class="presets">
        <legend class="hidden">{s.quality}</legend>
        {Object.keys(options.presets.value).map((name) => (
          <label key={name} class="preset">
            <input type="radio" name="preset" checked={chosen === name} onChange={() => options.choosePreset(name)} />
            <span class="ellipsis">{presetName(name)}</span>
          </label>
        ))}
      </fieldset>
      <p class="faint small" aria-live="polite">
        {builtIn && (
          <span class="hint">
            {s.presetHints[builtIn]}
            <span class="for-wide"> · </span>
          </span>
        )}
        {described(options.current.value)}
      </p>
      {own !== null && (
        <button class="quiet small" onClick={() => void options.removePreset(own)}>
          {s.actionOn(s.removePreset, own)}
        </button>
      )}
      <label class="check">
        <input
          type="checkbox"
          checked={options.editsFirst.value}
          onChange={(event) => options.chooseEditsFirst(event.currentTarget.checked)}
        />
        <span>{s.editFirst}</span>
      </label>
    </div>
  );
}

export const presetName = (name: string) => {
  const builtIn = options.builtIn(name);
  return builtIn ? strings.value.presets[builtIn] : (options.ownName(name) ?? name);
};

function described(sound: options.Sound): string {
  const s = strings.value;
  const facts = [sound.more?.vbr ? `VBR\u00a0${sound.more.vbr}` : `${sound.bitrate}\u00a0kbit/s`];
  if (sound.isMono) facts.push(s.mono);
  if (sound.isNormalized) facts.push(s.evenLoudness);
  return [...facts, s.perMinute(i18n.size(options.bytesOf(sound, 60)))].join(" · ");
}
