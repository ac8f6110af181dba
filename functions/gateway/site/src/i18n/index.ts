/** The languages of the page, and numbers, sizes and times as people of the language write them. */
import { computed, effect, signal } from "@preact/signals";
import { load, save } from "../stored";
import { en } from "./en";

export type Strings = typeof en;
export type Language = "en" | "de" | "es";

/** The languages by their own names. */
export const LANGUAGES: Record<Language, string> = { en: "English", de: "Deutsch", es: "Español" };

const LOADERS: Record<Exclude<Language, "en">, () => Promise<Strings>> = {
  de: async () => (await import("./de")).de,
  es: async () => (await import("./es")).es,
};

export const language = signal<Language>("en");
export const strings = signal<Strings>(en);

const isLanguage = (value: unknown): value is Language => typeof value === "string" && value in LANGUAGES;

/** Shows the page in the language that was chosen by hand, or else in the first that the browser asks for. */
export async function begin(): Promise<void> {
  const asked = navigator.languages.map((tag) => tag.split("-")[0]).find(isLanguage);
  await show(load<Language>("language", asked ?? "en", isLanguage));
  effect(() => {
    document.documentElement.lang = language.value;
  });
}

export async function choose(chosen: Language): Promise<void> {
  save("language", chosen);
  await show(chosen);
}

async function show(chosen: Language): Promise<void> {
  try {
    strings.value = chosen === "en" ? en : await LOADERS[chosen]();
    language.value = chosen;
  } catch {
    // The file did not arrive: the page stays as it is.
  }
}

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;

/** Returns bytes as people write them: "3.4 MB". */
export function size(bytes: number): string {
  let unit = 1;
  let value = bytes / 1000;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit > 1 && value < 9.95 ? 1 : 0;
  const text = new Intl.NumberFormat(language.value, {
    style: "unit",
    unit: UNITS[unit] ?? "kilobyte",
    unitDisplay: "short",
    maximumFractionDigits: digits,
  }).format(value);
  return text.replace(" ", "\u00a0");
}

const percentFormat = computed(() => new Intl.NumberFormat(language.value, { style: "percent" }));
export const percent = (part: number) => percentFormat.value.format(Math.floor(part * 100) / 100);

const dateFormat = computed(() => new Intl.DateTimeFormat(language.value, { dateStyle: "medium" }));
export const date = (iso: string) => dateFormat.value.format(new Date(iso));

const momentFormat = computed(
  () => new Intl.DateTimeFormat(language.value, { dateStyle: "medium", timeStyle: "short" }),
);
/** Returns a date with the time of day. */
export const moment = (iso: string) => momentFormat.value.format(new Date(iso));

const countFormat = computed(() => new Intl.NumberFormat(language.value));
export const count = (number: number) => countFormat.value.format(number);

const listFormat = computed(() => new Intl.ListFormat(language.value, { type: "conjunction" }));
/** Returns several names as one text: "Videos and MP3s". */
export const list = (names: readonly string[]) => listFormat.value.format(names);

const dayFormat = computed(() => new Intl.DateTimeFormat(language.value, { dateStyle: "medium", timeZone: "UTC" }));
/** Returns a day that the server counts in UTC, such as 2026-11-27. */
export const day = (iso: string) => dayFormat.value.format(new Date(iso));

/** Returns a number of days: "30 days". */
export const days = (count: number) =>
  new Intl.NumberFormat(language.value, { style: "unit", unit: "day", unitDisplay: "long" }).format(count);

/** Returns a position or a length in a recording: 1:02:03 or 2:03. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${parts.join(":")}` : parts.join(":").replace(/^0/, "");
}

/** Returns a time to wait, rounded as an estimate deserves: "40 sec", "3 min". */
export function wait(seconds: number): string {
  const format = (value: number, unit: "second" | "minute" | "hour") =>
    new Intl.NumberFormat(language.value, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: 1 }).format(
      value,
    );
  if (seconds < 10) return format(Math.max(1, Math.ceil(seconds)), "second");
  if (seconds < 60) return format(Math.ceil(seconds / 5) * 5, "second");
  if (seconds < 3600) return format(Math.ceil(seconds / 60), "minute");
  return format(Math.round(seconds / 360) / 10, "hour");
}
