/** Leaves the pictures out of a video before it is uploaded, if the MP3 is certain to be the same. */
import { UnsupportedLayout } from "./file";
import * as matroska from "./matroska";
import * as mp4 from "./mp4";

/** More than this part of the file is not worth it. */
const WORTHWHILE = 0.9;

/** Returns the video without its pictures, or null: it has to be uploaded as it is. */
export async function soundOf(file: Blob, worthwhile = WORTHWHILE): Promise<Blob | null> {
  for (const format of [mp4, matroska]) {
    try {
      const sound = await format.withoutPictures(file);
      if (sound.size <= worthwhile * file.size) return sound;
    } catch (error) {
      if (!(error instanceof UnsupportedLayout)) throw error;
    }
  }
  return null;
}
