/** What both formats need to read a file. */

/** The pictures cannot be left out of this file for certain: it is uploaded as it is. */
export class UnsupportedLayout extends Error {}

/** Returns bytes of a file, fewer at its end. */
export async function read(file: Blob, start: number, size: number): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await file.slice(start, start + size).arrayBuffer());
}

/** Returns how many of the numbers, which are sorted, are at most `value`. */
export function countUpTo(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as number) <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
