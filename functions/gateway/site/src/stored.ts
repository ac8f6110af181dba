/** What this browser keeps for the page. Without storage (private windows) the page works and forgets. */

const PREFIX = "mp3burst.";

/** Returns what was stored under this name, or the fallback if there is nothing that is valid. */
export function load<T>(name: string, fallback: T, isValid: (value: unknown) => value is T): T {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(PREFIX + name) ?? "null");
    return isValid(value) ? value : fallback;
  } catch {
    return fallback;
  }
}

export function save(name: string, value: unknown): void {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Storage is full or not allowed.
  }
}

const isBoolean = (value: unknown): value is boolean => typeof value === "boolean";

/** Returns whether somebody has logged in here before. */
export const hasAccount = () => load("hasAccount", false, isBoolean);
