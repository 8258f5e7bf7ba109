/* `npm run demo [-- --quiet]` and `npm run demo:load [-- --orders 200]`, on a fresh clone too. */
import { start } from '../../begin.mjs'

const [name, args] =
  process.argv[2] === 'load' ? ['load', process.argv.slice(3)] : ['demo', process.argv.slice(2)]
start(new URL(`${name}.ts`, import.meta.url), args)
