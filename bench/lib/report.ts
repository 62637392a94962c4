// Tables for people, and the same rows as JSON for comparisons between runs.

import type { Row } from './turns.js'

function cell (value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return '–'
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en')
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2)
}

/** A Markdown table: one line per row, one column per figure that any row has. */
export function table (rows: readonly Row[], corner = 'server'): string {
  const columns = [...new Set(rows.flatMap(row => Object.keys(row.figures)))]
  const cells = [
    [corner, ...columns],
    ...rows.map(row => [row.server, ...columns.map(column => cell(row.figures[column]))])
  ]
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map(line => line[column]!.length)))
  const lines = cells.map(
    line =>
      `| ${line.map((text, column) => column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!))
        .join(' | ')} |`
  )
  lines.splice(1, 0, `| ${widths.map(width => '-'.repeat(width)).join(' | ')} |`)
  return lines.join('\n')
}
