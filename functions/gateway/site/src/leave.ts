/** The end of a session that the user wants. */
import { Problem } from "./api";
import { flushDeletions } from "./jobs";
import { announce } from "./notices";
import { leave as endSession } from "./session";
import { abandon } from "./uploads";

/** Logs out, here or everywhere, after what was deleted is gone. What is still being uploaded is, too. */
export async function leave(everywhere: boolean): Promise<void> {
  await abandon();
  await flushDeletions();
  try {
    await endSession(everywhere);
  } catch (error) {
    announce((strings) => (error instanceof Problem && error.detail) || strings.somethingWrong);
  }
}
