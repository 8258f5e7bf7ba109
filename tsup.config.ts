import { defineConfig, type Options } from 'tsup'

const faces = {
  index: 'src/index.ts',
  testing: 'src/testing/index.ts',
  embedded: 'src/embedded/index.ts',
}

// Started by file name, hence an entry of its own; from both builds in this one form.
const threads = { 'pulse-thread': 'src/cluster/pulse-thread.ts' }

/*
 * Every entry lies flat in dist, so that a relative path from any chunk to a sibling file has one depth.
 * Splitting lets the CommonJS entries share one copy of the state as well. `clean` stays off: it would wipe what other
 * build steps put into dist; the build script removes the folder first.
 */
const common = {
  outDir: 'dist',
  target: 'node20',
  platform: 'node',
  splitting: true,
  shims: true,
  removeNodeProtocol: false,
  clean: false,
  // Every process keeps the text of what it loads: without indentation, and in one byte per character, it takes 1.5 MiB less.
  // Names and lines stay, so that a stack trace says where.
  minifyWhitespace: true,
  esbuildOptions: (options) => {
    options.charset = 'ascii'
    options.lineLimit = 120
  },
  dts: { entry: faces },
  // Nothing of node_modules is ever copied into dist: an import that is not a declared dependency stays visible there,
  // and the package check names it.
  skipNodeModulesBundle: true,
} satisfies Options

export default defineConfig([
  { ...common, format: ['esm'], entry: { ...faces, cli: 'src/cli/main.ts' } },
  { ...common, format: ['cjs'], entry: { ...faces, ...threads } },
])
