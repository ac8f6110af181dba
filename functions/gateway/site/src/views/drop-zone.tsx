import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as jobs from "../jobs";
import * as options from "../options";
import * as uploads from "../uploads";
import { Burst } from "./icons";

/** Where files are chosen: large for a newcomer, small once there is something to look at. */
export function DropZone() {
  const s = strings.value;
  const isNew = !uploads.uploads.value.length && !jobs.done.value.length && !jobs.working.value.length;
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

function Options() {
  const s = strings.value;
  return (
    <div class="options">
      <fieldset class="presets">
        <legend class="hidden">{s.quality}</legend>
        {(Object.keys(options.PRESETS) as options.Preset[]).map((name) => (
          <label key={name} class="preset">
            <input
              type="radio"
              name="preset"
              checked={options.preset.value === name}
              onChange={() => options.choosePreset(name)}
            />
            <span>{s.presets[name]}</span>
          </label>
        ))}
      </fieldset>
      <p class="faint small" aria-live="polite">
        {s.presetHints[options.preset.value]} · {described(options.preset.value)}
      </p>
      <details class="more-options">
        <summary>{s.moreOptions}</summary>
        <div class="row">
          <Time label={s.from} value={options.start} />
          <Time label={s.to} value={options.end} />
        </div>
        <label class="check">
          <input
            type="checkbox"
            checked={options.wantsFrame.value}
            onChange={(event) => (options.wantsFrame.value = event.currentTarget.checked)}
          />
          <span>{s.frameCover}</span>
        </label>
        <p class="faint small">{s.appliesToNext}</p>
      </details>
    </div>
  );
}

function Time({ label, value }: { label: string; value: { value: string } }) {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="text"
        autocomplete="off"
        maxLength={16}
        placeholder={strings.value.timeHint}
        pattern="([0-9]+:)?([0-9]+:)?[0-9]+([.][0-9]+)?"
        value={value.value}
        onInput={(event) => (value.value = event.currentTarget.value)}
      />
    </label>
  );
}

function described(name: options.Preset): string {
  const { bitrate, isMono } = options.PRESETS[name];
  const size = strings.value.perMinute(i18n.size(options.bytesPerMinute(name)));
  return [`${bitrate}\u00a0kbit/s`, ...(isMono ? [strings.value.mono] : []), size].join(" · ");
}
