import { registerHooks } from 'node:module'

/*
 * For child processes of tests: node --import <this file> some.ts. Node strips the types by itself, but takes './x.js'
 * literally, which in our sources stands for './x.ts'.
 */
registerHooks({
  resolve(specifier, context, nextResolve) {
    const own = context.parentURL?.endsWith('.ts') && /^\.{1,2}\/.*\.js$/.test(specifier)
    return nextResolve(own ? specifier.replace(/\.js$/, '.ts') : specifier, context)
  },
})
