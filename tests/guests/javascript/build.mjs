// node build.mjs SOURCE WIT WORLD OUTPUT: makes a component of one JavaScript file. Runs from the folder of its tools, where
// build.sh copies it, because that is where Node looks for a package.
import { readFile, writeFile } from "node:fs/promises";

import { componentize } from "@bytecodealliance/componentize-js";

const [source, witPath, worldName, output] = process.argv.slice(2);
const { component } = await componentize(await readFile(source, "utf8"), {
  witPath,
  worldName,
  // The collector reads no clock, no random numbers and no network, and so imports none.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
await writeFile(output, component);
