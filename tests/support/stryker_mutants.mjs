// Write a program with all of Stryker's mutants in it, one chosen by the environment, and print the list of them.
// node stryker_mutants.mjs FOLDER_OF_NODE_MODULES PROGRAM WRITTEN
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, program, written] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "any.js"));
const imported = (name) => import(pathToFileURL(require.resolve(name)));
const { createInjector } = await imported("typed-inject");
const { createInstrumenter } = await imported("@stryker-mutator/instrumenter");

const silent = () => {};
const logger = { debug: silent, info: silent, warn: silent, trace: silent, error: console.error, isDebugEnabled: () => false };
const injector = createInjector().provideValue("getLogger", () => logger).provideValue("logger", logger);
const content = fs.readFileSync(program, "utf8");
const { files, mutants } = await injector
  .injectFunction(createInstrumenter)
  .instrument([{ name: program, content, mutate: true }], { plugins: null, excludedMutations: [], ignorers: [] });
fs.writeFileSync(written, files[0].content);

// Where in the text a mutant begins and ends, and what stands there instead.
const starts = [0];
for (const line of content.split("\n")) starts.push(starts[starts.length - 1] + line.length + 1);
const offset = ({ line, column }) => starts[line] + column;
console.log(
  JSON.stringify(
    mutants.map(({ id, location, replacement }) => [id, offset(location.start), offset(location.end), replacement]),
  ),
);
