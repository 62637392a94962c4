// The page as the browser gets it: markup, stylesheet, and one script, into which esbuild puts the
// page's code and the typed client. Made once at the start and served from memory; the commands'
// types are gone by then, so neither a schema nor anything of the server reaches the browser.

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

/** By the path they are served under. */
export type PageFiles = Record<string, { readonly type: string, readonly body: string }>

const here = (name: string): string => fileURLToPath(new URL(`./page/${name}`, import.meta.url))

export async function buildPage (): Promise<PageFiles> {
  const [html, css, script] = await Promise.all([
    readFile(here('index.html'), 'utf8'),
    readFile(here('style.css'), 'utf8'),
    build({
      entryPoints: [here('main.ts')],
      bundle: true,
      write: false,
      format: 'esm',
      target: 'es2022',
      minify: true,
      logLevel: 'silent'
    })
  ])
  return {
    '/': { type: 'text/html; charset=utf-8', body: html },
    '/style.css': { type: 'text/css; charset=utf-8', body: css },
    '/main.js': { type: 'text/javascript; charset=utf-8', body: script.outputFiles[0]?.text ?? '' }
  }
}
