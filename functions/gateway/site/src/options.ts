/** How files are converted: a preset, and what people change most (docs/options.md has all options). */
import { computed, signal } from "@preact/signals";
import { load, save } from "./stored";

export type Preset = "standard" | "speech" | "music" | "best" | "smallest";

/** Bit rates in kbit/s, and whether all channels are mixed into one. */
export const PRESETS: Record<Preset, { bitrate: number; isMono: boolean; isNormalized: boolean }> = {
  standard: { bitrate: 192, isMono: false, isNormalized: false },
  speech: { bitrate: 96, isMono: true, isNormalized: true },
  music: { bitrate: 256, isMono: false, isNormalized: false },
  best: { bitrate: 320, isMono: false, isNormalized: false },
  smallest: { bitrate: 64, isMono: true, isNormalized: false },
};

const isPreset = (value: unknown): value is Preset => typeof value === "string" && value in PRESETS;

export const preset = signal(load<Preset>("preset", "standard", isPreset));
/** What applies to the next files only, as it was typed. */
export const start = signal("");
export const end = signal("");
export const wantsFrame = signal(false);

/** The options of the next upload, as the server expects them. */
export const chosen = computed<Record<string, string>>(() => {
  const { bitrate, isMono, isNormalized } = PRESETS[preset.value];
  const options: Record<string, string> = { bitrate: `${bitrate}k` };
  if (isMono) options.mono = "true";
  if (isNormalized) options.normalize = "true";
  if (start.value.trim()) options.start = start.value.trim();
  if (end.value.trim()) options.end = end.value.trim();
  if (wantsFrame.value) options.cover = "frame";
  return options;
});

export function choosePreset(name: Preset): void {
  preset.value = name;
  save("preset", name);
}

/** Bytes of a minute of MP3 with this preset. */
export const bytesPerMinute = (name: Preset) => (PRESETS[name].bitrate * 1000 * 60) / 8;
