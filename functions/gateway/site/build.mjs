// Bundles the page into dist/: index.html, and assets/ with a digest of the contents in every name, so that browsers may
// keep them for good; and share/worker.js. Nothing in it refers to another host. What dist/ had before stays until all of it is there.
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(here, "dist");
const built = path.join(here, "dist.new");
const assets = path.join(built, "assets");

/** The first with popover, light-dark() and all else that the page needs. docs/page.md says so. */
const target = ["chrome123", "firefox125", "safari17.5"];

await rm(built, { recursive: true, force: true });
await mkdir(assets, { recursive: true });

const result = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx", style: "src/style.css" },
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  outdir: assets,
  bundle: true,
  minify: true,
  format: "esm",
  splitting: true,
  target,
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
});

// A worker keeps its address, by which browsers look for a newer one.
await build({
  absWorkingDir: here,
  entryPoints: ["src/share-worker.ts"],
  outfile: path.join(built, "share/worker.js"),
  bundle: true,
  minify: true,
  format: "iife",
  target,
  legalComments: "none",
});

const named = {};
for (const [file, { entryPoint }] of Object.entries(result.metafile.outputs)) {
  if (entryPoint === "src/main.tsx" || entryPoint === "src/style.css") {
    named[path.basename(entryPoint)] = `/assets/${path.basename(file)}`;
  }
}
named["icon.svg"] = await copy("icon", ".svg", await readFile(path.join(here, "public/icon.svg"), "utf8"));
const manifest = await readFile(path.join(here, "public/manifest.webmanifest"), "utf8");
named["manifest.webmanifest"] = await copy("manifest", ".webmanifest", filled(manifest));
await writeFile(path.join(built, "index.html"), filled(await readFile(path.join(here, "public/index.html"), "utf8")));
await rm(dist, { recursive: true, force: true });
await rename(built, dist);

/** Replaces every {{NAME}} by the address of that asset. */
function filled(text) {
  return text.replace(/\{\{(.+?)\}\}/g, (_, name) => {
    if (!named[name]) throw new Error(`No asset is named ${name}.`);
    return named[name];
  });
}

async function copy(name, suffix, text) {
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 8);
  await writeFile(path.join(assets, `${name}-${digest}${suffix}`), text);
  return `/assets/${name}-${digest}${suffix}`;
}
