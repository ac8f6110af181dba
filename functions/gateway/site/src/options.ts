/** How files are converted: a preset, and what the editor changes of one file (docs/options.md has all options). */
import { computed, signal } from "@preact/signals";
import { load, save } from "./stored";

/** What a preset says: the bit rate in kbit/s, and what is done with the sound. */
export interface Sound {
  bitrate: number;
  isMono: boolean;
  isNormalized: boolean;
}

/** What is made of one file. Times are seconds; null is the beginning, the end, or no picture of the video. */
export interface Edit extends Sound {
  start: number | null;
  end: number | null;
  fadeIn: number;
  fadeOut: number;
  cover: number | null;
}

export const PRESETS = {
  standard: { bitrate: 192, isMono: false, isNormalized: false },
  speech: { bitrate: 96, isMono: true, isNormalized: true },
  music: { bitrate: 256, isMono: false, isNormalized: false },
  best: { bitrate: 320, isMono: false, isNormalized: false },
  smallest: { bitrate: 64, isMono: true, isNormalized: false },
} satisfies Record<string, Sound>;
export type Preset = keyof typeof PRESETS;
/** The bit rates that the server knows. */
export const BITRATES = [64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
/** Seconds of the longest fade that the server accepts. */
export const LONGEST_FADE = 3600;
/** Before the names of users' own presets. */
const OWN = "own:";

const isPreset = (value: unknown): value is Preset => typeof value === "string" && value in PRESETS;
const isText = (value: unknown): value is string => typeof value === "string";
const isBoolean = (value: unknown): value is boolean => typeof value === "boolean";
const isSound = (value: unknown) => BITRATES.includes((value as Partial<Sound> | null)?.bitrate ?? 0);
const areOwn = (value: unknown): value is Record<string, Sound> =>
  typeof value === "object" && value !== null && Object.values(value).every(isSound);

/** The user's own presets by their names. */
export const own = signal<Readonly<Record<string, Sound>>>(load("presets", {}, areOwn));
/** A preset's name; `own:` and the name of one of the user's own. */
export const preset = signal(load<string>("preset", "standard", isText));
/** Whether new files wait until they were looked at in the editor. */
export const editsFirst = signal(load("editsFirst", false, isBoolean));

/** Every preset that there is, by the value of `preset`. */
export const presets = computed<Readonly<Record<string, Sound>>>(() => ({
  ...PRESETS,
  ...Object.fromEntries(Object.entries(own.value).map(([name, sound]) => [OWN + name, sound])),
}));
export const current = computed<Sound>(() => presets.value[preset.value] ?? PRESETS.standard);
/** The options of the next upload, as the server expects them. */
export const chosen = computed(() => toOptions(unedited(current.value)));

/** Returns the name of a preset of the user's own, or null. */
export const ownName = (name: string) => (name.startsWith(OWN) ? name.slice(OWN.length) : null);
export const builtIn = (name: string) => (isPreset(name) ? name : null);

export function choosePreset(name: string): void {
  preset.value = name;
  save("preset", name);
}

export function keepPreset(name: string, { bitrate, isMono, isNormalized }: Sound): void {
  own.value = { ...own.peek(), [name]: { bitrate, isMono, isNormalized } };
  save("presets", own.peek());
}

export function removePreset(name: string): void {
  const { [name]: _, ...others } = own.peek();
  own.value = others;
  save("presets", others);
  choosePreset("standard");
}

export function chooseEditsFirst(wants: boolean): void {
  editsFirst.value = wants;
  save("editsFirst", wants);
}

export const unedited = (sound: Sound): Edit => ({
  ...sound,
  start: null,
  end: null,
  fadeIn: 0,
  fadeOut: 0,
  cover: null,
});

export function toOptions(edit: Edit): Record<string, string> {
  const options: Record<string, string> = { bitrate: `${edit.bitrate}k` };
  if (edit.isMono) options.mono = "true";
  if (edit.isNormalized) options.normalize = "true";
  if (edit.start) options.start = decimal(edit.start);
  if (edit.end !== null) options.end = decimal(edit.end);
  if (edit.fadeIn > 0) options.fade_in = decimal(edit.fadeIn);
  if (edit.fadeOut > 0) options.fade_out = decimal(edit.fadeOut);
  if (edit.cover !== null) options.cover = decimal(edit.cover);
  return options;
}

/** Returns whether the times fit together, and into a file of so many seconds; null if its length is not known. */
export function areTimesValid({ start, end, fadeIn, fadeOut }: Edit, duration: number | null): boolean {
  const from = start ?? 0;
  const to = end ?? duration ?? Infinity;
  const areFadesValid = [fadeIn, fadeOut].every((fade) => fade <= LONGEST_FADE) && fadeIn + fadeOut <= to - from;
  return Number.isFinite(from) && from < to && from < (duration ?? Infinity) && areFadesValid;
}

/** Returns fades that fit into so many seconds: both are shortened in proportion if they do not. */
export function fittedFades({ fadeIn, fadeOut }: Pick<Edit, "fadeIn" | "fadeOut">, length: number) {
  const part = length / (fadeIn + fadeOut);
  if (!(part < 1)) return { fadeIn, fadeOut };
  return { fadeIn: floored(fadeIn * part), fadeOut: floored(fadeOut * part) };
}

/** Returns the seconds rounded down to milliseconds, which are what is sent. */
export const floored = (seconds: number) => Math.floor(seconds * 1000) / 1000;

/** Bytes of so many seconds of MP3. */
export const bytesOf = ({ bitrate }: Sound, seconds: number) => (bitrate * 1000 * seconds) / 8;

const decimal = (seconds: number) => String(Number(seconds.toFixed(3)));
