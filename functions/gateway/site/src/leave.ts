/** The end of a session that the user wants. */
import { Problem } from "./api";
import { flushDeletions } from "./jobs";
import { announce } from "./notices";
import { leave as endSession } from "./session";

/** Logs out, here or everywhere, after what was deleted is gone. */
export async function leave(everywhere: boolean): Promise<void> {
  await flushDeletions();
  try {
    await endSession(everywhere);
  } catch (error) {
    announce((strings) => (error instanceof Problem && error.detail) || strings.somethingWrong);
  }
}
