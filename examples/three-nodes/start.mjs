/*
 * `npm run demo:cluster`, on a fresh clone too: installs and builds what is missing, then starts the nodes with the Node of
 * devDependencies, which reads TypeScript as it is.
 */
import { start } from '../begin.mjs'

start(new URL('cluster.ts', import.meta.url))
