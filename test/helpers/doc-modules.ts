// The programs that a document shows: blocks of JavaScript whose first line names a file. They are
// written side by side into a folder of the checkout, where `holdfast` is the built package, as it
// is for a reader who installed it.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import { readBlocks } from './markdown.js'

export interface DocModules {
  readonly folder: string
  readonly names: string[]
  /** Runs a program and returns what it exports. */
  load (name: string): Promise<any>
}

/**
 * @param replace  what stands in the document, and what the test has in its place, such as an
 * address
 */
export function writeDocModules (t: Test, path: string, replace: Record<string, string> = {}): DocModules {
  mkdirSync('.tap', { recursive: true })
  const folder = mkdtempSync(resolve('.tap', 'doc-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const names: string[] = []
  for (const block of readBlocks(readFileSync(path, 'utf8'), 'js')) {
    const [, name] = /^\/\/ ([\w.-]+\.js)\n/.exec(block) ?? []
    if (name === undefined) throw new Error(`${path}: a block without the name of its file:\n${block}`)
    if (names.includes(name)) throw new Error(`${path}: two blocks are ${name}`)
    names.push(name)
    const code = Object.entries(replace).reduce((text, [from, to]) => text.replaceAll(from, to), block)
    writeFileSync(join(folder, name), code)
  }
  return { folder, names, load: async name => await import(pathToFileURL(join(folder, name)).href) }
}
