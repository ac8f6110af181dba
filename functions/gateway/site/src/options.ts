/** How files are converted: a preset, and what the editor changes of one file (docs/options.md has all options). */
import { computed, signal } from "@preact/signals";
import * as api from "./api";
import { announce } from "./notices";
import { load, save } from "./stored";

/** What a preset says: the bit rate in kbit/s, and what is done with the sound. */
export interface Sound {
  /** With a variable bit rate, what it is about. */
  bitrate: number;
  isMono: boolean;
  isNormalized: boolean;
  /** Options of a server's preset for which the page has no field, such as `vbr`. */
  more?: Readonly<Record<string, string>> | undefined;
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
/** kbit/s that V0 to V9 are about, as functions/options.py has them. */
const VBR_BITRATES = [245, 225, 190, 175, 165, 130, 115, 100, 85, 65];
/** How options say yes. */
const YES = ["true", "yes", "on", "1"];
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

/** What the server has: everyone's presets and the user's own; null before a login, when the built-in ones apply. */
const served = signal<readonly api.Preset[] | null>(null);
/** Another object for each user: a response to what was asked before is another user's. */
let latest = {};
/** Presets that a newcomer has kept: they move to the server with the first login. */
const own = signal<Readonly<Record<string, Sound>>>(load("presets", {}, areOwn));
/** A preset's name; `own:` and the name of one of the user's own. */
export const preset = signal(load<string>("preset", "standard", isText));
/** Whether new files wait until they were looked at in the editor. */
export const editsFirst = signal(load("editsFirst", false, isBoolean));

/** Every preset that there is, by the value of `preset`. */
export const presets = computed<Readonly<Record<string, Sound>>>(() => {
  const mine = Object.entries(own.value).map(([name, sound]) => [OWN + name, sound] as const);
  if (!served.value) return { ...PRESETS, ...Object.fromEntries(mine) };
  const named = (origin: api.Preset["origin"], prefix: string) =>
    (served.value ?? []).filter((each) => each.origin === origin).map((each) => [prefix + each.name, toSound(each.options)]);
  return Object.fromEntries([...named("server", ""), ...named("user", OWN), ...mine]);
});
/** The name of the preset that applies: the one that was chosen, or the first if it is gone. */
export const chosenPreset = computed(() =>
  preset.value in presets.value ? preset.value : (Object.keys(presets.value)[0] ?? "standard"),
);
export const current = computed<Sound>(() => presets.value[chosenPreset.value] ?? PRESETS.standard);
/** The options of the next upload, as the server expects them. */
export const chosen = computed(() => toOptions(unedited(current.value)));

/** Returns the name of a preset of the user's own, or null. */
export const ownName = (name: string) => (name.startsWith(OWN) ? name.slice(OWN.length) : null);
export const builtIn = (name: string) => (isPreset(name) ? name : null);

export function choosePreset(name: string): void {
  preset.value = name;
  save("preset", name);
}

/** Fetches the presets of the server, after those of this browser have moved there. */
export async function begin(): Promise<void> {
  const asked = {};
  latest = asked;
  try {
    for (const [name, sound] of Object.entries(own.peek())) await move(name, sound);
    const found = await api.getPresets();
    if (latest === asked) served.value = found;
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error; // without an answer the built-in ones apply
  }
}

/** Moves a preset to the server. One that it does not take, such as for its name, stays in this browser. */
async function move(name: string, sound: Sound): Promise<void> {
  try {
    await api.putPreset(name, toOptions(unedited(sound)));
    forget(name);
  } catch (error) {
    if (!(error instanceof api.Problem) || ![400, 409, 422].includes(error.status)) throw error;
  }
}

/** Forgets what belongs to the user. */
export function end(): void {
  latest = {};
  served.value = null;
}

/** Keeps a preset on the server; in this browser before a login. Throws `Problem` if the server refuses. */
export async function keepPreset(name: string, sound: Sound): Promise<void> {
  if (!served.peek()) {
    own.value = { ...own.peek(), [name]: sound };
    save("presets", own.peek());
    return;
  }
  await api.putPreset(name, toOptions(unedited(sound)));
  await fetchPresets();
}

async function fetchPresets(): Promise<void> {
  const asked = latest;
  const found = await api.getPresets();
  if (latest === asked) served.value = found; // or the user has logged out
}

export async function removePreset(name: string): Promise<void> {
  if (name in own.peek()) {
    forget(name);
  } else {
    try {
      await api.deletePreset(name);
      await fetchPresets();
    } catch (error) {
      announce((strings) => (error instanceof api.Problem && error.detail) || strings.somethingWrong);
      return;
    }
  }
  choosePreset("standard");
}

function forget(name: string): void {
  const { [name]: _, ...others } = own.peek();
  own.value = others;
  save("presets", others);
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
  const options: Record<string, string> = { ...edit.more };
  if (!options.vbr) options.bitrate = `${edit.bitrate}k`;
  if (edit.isMono) options.mono = "true";
  if (edit.isNormalized) options.normalize = "true";
  if (edit.start) options.start = decimal(edit.start);
  if (edit.end !== null) options.end = decimal(edit.end);
  if (edit.fadeIn > 0) options.fade_in = decimal(edit.fadeIn);
  if (edit.fadeOut > 0) options.fade_out = decimal(edit.fadeOut);
  if (edit.cover !== null) options.cover = decimal(edit.cover);
  return options;
}

function toSound({ bitrate = "192", mono = "", normalize = "", ...more }: Readonly<Record<string, string>>): Sound {
  return {
    bitrate: more.vbr ? (VBR_BITRATES[Number(more.vbr)] ?? 192) : parseInt(bitrate, 10),
    isMono: YES.includes(mono.trim().toLowerCase()),
    isNormalized: YES.includes(normalize.trim().toLowerCase()),
    more: Object.keys(more).length ? more : undefined,
  };
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
