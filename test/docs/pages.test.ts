import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { page, root } from './pages.js'

const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.md'], {
  cwd: fileURLToPath(root),
  encoding: 'utf8',
})
const pages = listed.split('\n').filter((file) => file !== '' && existsSync(new URL(file, root)))

/** What GitHub makes of a heading. */
function anchorOf(heading: string): string {
  const plain = heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '')
  return plain.trim().replaceAll(' ', '-')
}

function linksOf(text: string): string[] {
  const prose = text.replace(/^```.*?^```$/gms, '').replace(/`[^`\n]*`/g, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target as string)
}

function isDead(target: string, file: string): boolean {
  if (/^[a-z]+:/.test(target)) return false
  const [path = '', anchor] = target.split('#')
  const url = path === '' ? new URL(file, root) : new URL(path, new URL(file, root))
  if (!existsSync(url)) return true
  if (anchor === undefined) return false
  const headings = readFileSync(url, 'utf8').match(/^#+ .*$/gm) ?? []
  return !headings.some((heading) => anchorOf(heading.replace(/^#+ /, '')) === anchor)
}

describe('the pages', () => {
  it('link to nothing that is not there', () => {
    const dead = pages.flatMap((file) =>
      linksOf(page(file))
        .filter((target) => isDead(target, file))
        .map((target) => `${file}: ${target}`),
    )
    expect(dead).toEqual([])
  })

  it('are all reached from the README', () => {
    const linked = new Set(linksOf(page('README.md')).map((target) => target.split('#')[0]))
    const guides = pages.filter((file) => /^(docs\/[^/]+|CONTRIBUTING)\.md$/.test(file))
    expect(guides.filter((file) => !linked.has(file))).toEqual([])
  })

  it('begin with a README of less than 120 lines that says at least once in its first paragraph', () => {
    const text = page('README.md')
    expect(text.split('\n').length).toBeLessThan(120)
    expect(text.split('\n\n')[1]).toContain('at least once')
  })

  it('name each command that the README shows as npm scripts do', () => {
    const { scripts } = JSON.parse(page('package.json')) as { scripts: Record<string, string> }
    const named = [...page('README.md').matchAll(/npm (?:run )?(demo|test|check)\b/g)].map(([, name]) => name)
    expect(named.filter((name) => scripts[name as string] === undefined)).toEqual([])
  })
})
