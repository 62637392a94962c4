// Reads tables, headings and code of the documents, so that tests can hold them to the code.

export interface Table {
  /** Text of the nearest heading above. */
  readonly heading: string
  readonly header: string[]
  /** Cells without code marks. */
  readonly rows: string[][]
}

export function readTables (markdown: string): Table[] {
  const tables: Table[] = []
  let heading = ''
  let open: Table | undefined
  for (const line of withoutCode(markdown)) {
    if (line.startsWith('#')) heading = plain(line.replace(/^#+ /, ''))
    if (!line.startsWith('|')) {
      open = undefined
      continue
    }
    const cells = line.slice(1, line.lastIndexOf('|')).split('|').map(cell => plain(cell.trim()))
    if (open === undefined) tables.push(open = { heading, header: cells, rows: [] })
    else if (!cells.every(cell => /^:?-+:?$/.test(cell))) open.rows.push(cells)
  }
  return tables
}

/** The table under a heading. */
export function tableUnder (markdown: string, heading: string): Table {
  const found = readTables(markdown).find(table => table.heading === heading)
  if (found === undefined) throw new Error(`no table under the heading ${JSON.stringify(heading)}`)
  return found
}

export function readHeadings (markdown: string): string[] {
  return withoutCode(markdown).filter(line => line.startsWith('#')).map(line => plain(line.replace(/^#+ /, '')))
}

/** The fenced blocks of a language. */
export function readBlocks (markdown: string, language: string): string[] {
  return [...markdown.matchAll(/^```(\w*)\n(.*?)^```$/gms)].filter(([, name]) => name === language).map(([
    , , text
  ]) => text as string)
}

function withoutCode (markdown: string): string[] {
  return markdown.replace(/^```.*?^```$/gms, '').split('\n')
}

function plain (text: string): string {
  return text.replaceAll('`', '')
}
