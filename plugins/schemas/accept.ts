// Which of two forms of one answer a client wants (RFC 9110, section 12.5.1).

/**
 * Whether a client asks for a page rather than for JSON. Browsers name text/html; programs say that
 * anything will do, or nothing, and want what a program can read.
 */
export function wantsHtml (accept: string | undefined): boolean {
  const ranges = (accept ?? '').toLowerCase().split(',').map(range => range.split(';').map(part => part.trim()))
  const qualityOf = (...types: string[]): number => {
    const parameters = types.map(type => ranges.find(([name]) => name === type)).find(range => range !== undefined)
    if (parameters === undefined) return 0
    return Number(parameters.find(part => part.startsWith('q='))?.slice(2) ?? 1) || 0
  }
  const html = qualityOf('text/html')
  return html > 0 && html >= qualityOf('application/json', 'application/*', '*/*')
}
