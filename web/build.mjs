// Bundle the page into the one asset that the Python package ships.
//
//     npm ci && npm run build        (or `make page`)
//
// The first line carries a digest of the sources, so that a check without node can tell a stale bundle from a current
// one: `web_digest` in tests/report/test_assets.py computes the same.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const folder = new URL("src/", import.meta.url);
const digest = createHash("sha256");
for (const name of readdirSync(folder).sort()) {
  const content = readFileSync(new URL(name, folder));
  digest.update(`${name} ${content.length}\n`).update(content);
}

const bundled = await build({
  entryPoints: [new URL("main.ts", folder).pathname],
  bundle: true,
  write: false,
  minify: true,
  charset: "ascii",
  format: "iife",
  target: "es2022",
  legalComments: "none",
  loader: { ".css": "text" },
  plugins: [
    {
      name: "css",
      setup(builder) {
        builder.onLoad({ filter: /\.css$/ }, async ({ path }) => {
          const { transform } = await import("esbuild");
          const { code } = await transform(readFileSync(path, "utf8"), { loader: "css", minify: true });
          return { contents: code, loader: "text" };
        });
      },
    },
  ],
});
const target = process.argv[2] ?? new URL("../src/flowtracer/report/page/assets/page.js", import.meta.url).pathname;
writeFileSync(target, `/* FlowTracer page, sources ${digest.digest("hex")} */\n${bundled.outputFiles[0].text}`);
