/** Positions in a recording as people type them, and as the server reads them (docs/options.md). */

const PATTERN = /^(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)$/;

/** Returns the seconds of "83.5", "1:23.5" or "1:02:03"; null of anything else. */
export function parsed(text: string): number | null {
  const found = PATTERN.exec(text.trim());
  if (!found) return null;
  const [hours, minutes, seconds] = found.slice(1).map((each) => Number((each ?? "0").replace(",", ".")));
  return (hours ?? 0) * 3600 + (minutes ?? 0) * 60 + (seconds ?? 0);
}

/** Returns a position exact to a hundredth: 1:02:03.45 or 2:03. */
export function written(seconds: number): string {
  const hundredths = Math.round(seconds * 100);
  const [hours, minutes] = [Math.floor(hundredths / 360_000), Math.floor(hundredths / 6_000) % 60];
  const rest = String((hundredths % 6_000) / 100);
  const padded = rest.replace(/^\d(?!\d)/, "0$&");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}
