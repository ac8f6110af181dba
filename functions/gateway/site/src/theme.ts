/** Light, dark, or as the system says. */
import { effect, signal } from "@preact/signals";
import { load, save } from "./stored";

export type Theme = "system" | "light" | "dark";
export const THEMES: readonly Theme[] = ["system", "light", "dark"];

const isTheme = (value: unknown): value is Theme => THEMES.includes(value as Theme);
export const theme = signal<Theme>(load("theme", "system", isTheme));

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function choose(chosen: Theme): void {
  theme.value = chosen;
  save("theme", chosen);
}
