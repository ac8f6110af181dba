import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Problem } from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import { Media, type Peaks, type Selection } from "../media";
import { announce } from "../notices";
import * as options from "../options";
import { parsed, written } from "../times";
import * as uploads from "../uploads";
import { Dialog } from "./dialog";
import { presetName } from "./drop-zone";
import { Form, sentence } from "./form";
import { Pause, Play } from "./icons";
import { Waveform } from "./waveform";

/** Bars of the waveform. */
const BARS = 480;
/** Pixels of the height of a cover's preview. */
const PREVIEW = 180;

type Setting = <Name extends keyof options.Edit>(name: Name, value: options.Edit[Name]) => void;

interface PartProps {
  edit: options.Edit;
  set: Setting;
}

/** Changes what is made of a file before it is sent. */
export function Editor({ upload, onClose }: { upload: uploads.Upload; onClose: () => void }) {
  const s = strings.value;
  const edit = useSignal(upload.edit ?? options.unedited(options.current.peek()));
  const media = useSignal<Media | null | undefined>(undefined);
  const others = uploads.uploads.value.filter((each) => each.state === "held" && each.key !== upload.key).length;
  useEffect(() => {
    const file = uploads.fileOf(upload.key);
    let isClosed = false;
    void (file ? Media.open(file) : Promise.resolve(null)).then((opened) => {
      if (isClosed) opened?.close();
      else media.value = opened;
    });
    return () => {
      isClosed = true;
      media.peek()?.close();
    };
  }, []);

  const set: Setting = (name, value) => (edit.value = { ...edit.peek(), [name]: value });
  const submit = async () => {
    const isValid = options.areTimesValid(edit.peek(), media.peek()?.duration ?? null);
    if (!isValid) throw new Problem(0, strings.peek().timesInvalid, null);
    uploads.start(upload.key, edit.peek());
    onClose();
  };
  const duration = media.value?.duration ?? null;
  return (
    <Dialog title={s.edit} onClose={onClose}>
      <p class="faint ellipsis">{upload.name}</p>
      {media.value === undefined && <p aria-busy="true">{s.opening}</p>}
      {(media.value === null || media.value?.isAudible === false) && <p class="faint">{s.cannotOpen}</p>}
      <Form action={s.saveAndStart} submit={submit}>
        {media.value && <Trim media={media.value} edit={edit.value} set={set} />}
        <Times edit={edit.value} set={set} duration={duration} />
        <Estimate edit={edit.value} duration={duration} />
        <SoundSettings edit={edit} />
        {media.value !== null && <Cover media={media.value ?? null} edit={edit.value} set={set} />}
        {others > 0 && (
          <button
            type="button"
            onClick={() => {
              uploads.applyToHeld(soundOf(edit.peek()));
              announce((each) => each.applied);
            }}
          >
            {s.applyToAll(others)}
          </button>
        )}
      </Form>
    </Dialog>
  );
}

const soundOf = ({ bitrate, isMono, isNormalized, more }: options.Sound): options.Sound => ({
  bitrate,
  isMono,
  isNormalized,
  more,
});

/** The waveform with its handles, and what plays the selection. */
function Trim({ media, edit, set }: PartProps & { media: Media }) {
  const s = strings.value;
  const peaks = useRef<Peaks>(new Float32Array(BARS)).current;
  const drawn = useSignal(0);
  const position = useSignal<number | null>(null);
  useEffect(() => {
    // A damaged file has a waveform up to the damage.
    media.draw(peaks, () => (drawn.value += 1)).catch(() => undefined);
  }, []);
  const selection: Selection = {
    start: edit.start ?? 0,
    end: Math.min(edit.end ?? media.duration, media.duration),
    fadeIn: edit.fadeIn,
    fadeOut: edit.fadeOut,
  };
  const change = (name: keyof Selection, moved: Selection) => {
    const value = moved[name];
    if (name === "start") set("start", value > 0 ? value : null);
    else if (name === "end") set("end", value < media.duration ? value : null);
    else set(name, value);
    if (name === "start" || name === "end") {
      const { fadeIn, fadeOut } = options.fittedFades(moved, moved.end - moved.start);
      set("fadeIn", fadeIn);
      set("fadeOut", fadeOut);
    }
  };
  const play = () => {
    if (position.peek() !== null) media.pause();
    else media.play(selection, (seconds) => (position.value = seconds)).catch(() => (position.value = null));
  };
  return (
    <div>
      <Waveform
        peaks={peaks}
        drawn={drawn.value}
        duration={media.duration}
        selection={selection}
        position={position.value}
        change={change}
      />
      {media.isAudible && (
        <button type="button" onClick={play}>
          {position.value === null ? <Play /> : <Pause />}
          {position.value === null ? s.playSelection : s.pauseSound}
        </button>
      )}
      <p class="faint small for-mouse">{s.nudges}</p>
    </div>
  );
}

function Times({ edit, set, duration }: PartProps & { duration: number | null }) {
  const s = strings.value;
  const orNaN = (text: string) => (text.trim() ? (parsed(text) ?? NaN) : null);
  return (
    <div class="row">
      <Time label={s.from} value={edit.start} set={(text) => set("start", orNaN(text))} />
      <Time label={s.to} value={edit.end} unset={duration} set={(text) => set("end", orNaN(text))} />
      <Time label={s.fadeIn} value={edit.fadeIn || null} set={(text) => set("fadeIn", orNaN(text) ?? 0)} />
      <Time label={s.fadeOut} value={edit.fadeOut || null} set={(text) => set("fadeOut", orNaN(text) ?? 0)} />
    </div>
  );
}

interface TimeProps {
  label: string;
  value: number | null;
  /** What applies where nothing is typed. */
  unset?: number | null;
  set: (text: string) => void;
}

/** A time as text, which keeps what is typed while it is typed. */
function Time({ label, value, unset = 0, set }: TimeProps) {
  const typed = useSignal<string | null>(null);
  const isInvalid = typed.value ? parsed(typed.value) === null : Number.isNaN(value);
  return (
    <label class="field time">
      <span>{label}</span>
      <input
        type="text"
        autocomplete="off"
        maxLength={16}
        placeholder={unset === null ? "" : written(unset)}
        aria-invalid={isInvalid}
        value={typed.value ?? (value === null || Number.isNaN(value) ? "" : written(value))}
        onInput={(event) => {
          typed.value = event.currentTarget.value;
          set(typed.value);
        }}
        onBlur={() => {
          if (!isInvalid) typed.value = null;
        }}
      />
    </label>
  );
}

function Estimate({ edit, duration }: { edit: options.Edit; duration: number | null }) {
  if (duration === null || !options.areTimesValid(edit, duration)) return null;
  const seconds = Math.min(edit.end ?? duration, duration) - (edit.start ?? 0);
  return (
    <p class="faint" role="status">
      {strings.value.estimated(i18n.clock(seconds), i18n.size(options.bytesOf(edit, seconds)))}
    </p>
  );
}

/** The bit rate and the sound, of a preset or by hand. */
function SoundSettings({ edit }: { edit: Signal<options.Edit> }) {
  const s = strings.value;
  const change = (changes: Partial<options.Sound>) => (edit.value = { ...edit.value, ...changes });
  const isCurrent = ([, sound]: [string, options.Sound]) =>
    JSON.stringify(soundOf(sound)) === JSON.stringify(soundOf(edit.value));
  const current = Object.entries(options.presets.value).find(isCurrent)?.[0] ?? "";
  return (
    <>
      <div class="row">
        <label class="field">
          <span>{s.quality}</span>
          <select
            value={current}
            onChange={(event) => {
              const preset = options.presets.value[event.currentTarget.value];
              if (preset) change(soundOf(preset));
            }}
          >
            {!current && <option value="">{s.customSound}</option>}
            {Object.keys(options.presets.value).map((name) => (
              <option key={name} value={name}>
                {presetName(name)}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>kbit/s</span>
          <select
            value={edit.value.bitrate}
            onChange={(event) => {
              const { vbr: _, ...more } = edit.peek().more ?? {};
              change({ bitrate: Number(event.currentTarget.value), more: Object.keys(more).length ? more : undefined });
            }}
          >
            {edit.value.more?.vbr && <option value={edit.value.bitrate}>VBR {edit.value.more.vbr}</option>}
            {options.BITRATES.map((rate) => (
              <option key={rate} value={rate}>
                {rate}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div class="checks">
        <Check
          label={s.wantsEvenLoudness}
          checked={edit.value.isNormalized}
          set={(isNormalized) => change({ isNormalized })}
        />
        <Check label={s.wantsMono} checked={edit.value.isMono} set={(isMono) => change({ isMono })} />
      </div>
      {!current && <Keep sound={soundOf(edit.value)} />}
    </>
  );
}

/** Keeps settings that are no preset yet under a name. */
function Keep({ sound }: { sound: options.Sound }) {
  const s = strings.value;
  const name = useSignal("");
  const keep = async () => {
    const kept = name.peek().trim();
    try {
      await options.keepPreset(kept, sound);
      announce((each) => each.presetKept(kept));
    } catch (error) {
      announce(() => sentence(error));
    }
  };
  return (
    <div class="row narrow">
      <label class="field">
        <span>{s.presetName}</span>
        <input
          type="text"
          autocomplete="off"
          maxLength={40}
          value={name.value}
          onInput={(event) => (name.value = event.currentTarget.value)}
        />
      </label>
      <button type="button" disabled={!name.value.trim()} onClick={() => void keep()}>
        {s.keepPreset}
      </button>
    </div>
  );
}

/** A picture of the video as the cover: of which second, if the browser can show it. */
function Cover({ media, edit, set }: PartProps & { media: Media | null }) {
  const s = strings.value;
  const canvas = useRef<HTMLCanvasElement>(null);
  const pictures = media?.pictures ?? 0;
  const { cover } = edit;
  useEffect(() => {
    if (canvas.current && cover !== null) media?.picture(canvas.current, cover).catch(() => undefined);
  }, [cover, media]);
  if (!pictures) return null;
  return (
    <>
      <Check label={s.frameCover} checked={cover !== null} set={(wants) => set("cover", wants ? pictures / 3 : null)} />
      {cover !== null && (
        <div class="frame">
          <canvas ref={canvas} height={PREVIEW} role="img" aria-label={s.cover} />
          <label class="field">
            <span>
              {s.frameAt} {written(cover)}
            </span>
            <input
              type="range"
              min={0}
              max={pictures}
              step={0.1}
              value={cover}
              aria-valuetext={written(cover)}
              onInput={(event) => set("cover", Number(event.currentTarget.value))}
            />
          </label>
        </div>
      )}
    </>
  );
}

function Check({ label, checked, set }: { label: string; checked: boolean; set: (checked: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={checked} onChange={(event) => set(event.currentTarget.checked)} />
      <span>{label}</span>
    </label>
  );
}
