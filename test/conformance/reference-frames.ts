// What a client may send, read from section 3.2 of docs/protocol.md: one function that gives the
// frame, or undefined for anything malformed.

export type ClientFrame =
  & { sessionId: string | undefined, ack: number | undefined }
  & ({ kind: 'command', command: string, payload: unknown, id: number | string | undefined } | { kind: 'ack' }
    | { kind: 'end' } | { kind: 'ping' })

const MAX_DEPTH = 32
const MAX_MEMBERS = 32_768

export function readClientFrame (
  text: string, { lenient, rounds, counts }: { lenient: boolean, rounds: boolean, counts: boolean }
): ClientFrame | undefined {
  let value: any
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value) || !isSafe(value, counts)) return undefined
  if (!rounds && !isCarried(text, value)) return undefined
  const { sessionId, command, payload = null, id, ack, type, seq } = value
  if (sessionId !== undefined && typeof sessionId !== 'string') return undefined
  if (ack !== undefined && !isCount(ack)) return undefined
  const has = (...names: string[]) => lenient || Object.keys(value).every((name) => names.includes(name))
  const common = { sessionId, ack }
  if (type === 'ack') {
    return has('type', 'seq', 'sessionId') && isCount(seq) ? { kind: 'ack', sessionId, ack: seq } : undefined
  }
  if (type === 'end') return has('type', 'sessionId', 'ack') ? { kind: 'end', ...common } : undefined
  if (type === 'ping') return has('type', 'sessionId') ? { kind: 'ping', ...common } : undefined
  if (type !== undefined || !isText(command) || !has('command', 'payload', 'sessionId', 'id', 'ack')) return undefined
  if (id !== undefined && !isText(id) && !isCount(id)) return undefined
  return { kind: 'command', command, payload, id, ...common }
}

/**
 * Neither a key twice nor a number that a double changes. Coarser than the rule allows: a fraction
 * of 17 digits is taken for that of a double.
 */
function isCarried (text: string, value: object): boolean {
  const bare = text.replace(/"(?:[^"\\]|\\.)*"/g, '""')
  if (bare.split(':').length - 1 !== countKeys(value)) return false
  return (bare.match(/\d[\d.eE+-]*/g) ?? []).every((literal) => {
    const number = Number(literal)
    if (/^\d+$/.test(literal)) return String(number).includes('e') || BigInt(String(number)) === BigInt(literal)
    const digits = literal.replace(/[eE].*/, '').replace('.', '').replace(/^0+|0+$/g, '')
    return Number.isFinite(number) && digits.length <= 17 && (number !== 0 || digits === '')
  })
}

function countKeys (value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  const inner = Object.values(value).reduce((sum: number, member) => sum + countKeys(member), 0)
  return Array.isArray(value) ? inner : inner + Object.keys(value).length
}

/** The id of a command in a text that is no frame, which may not even be JSON. */
export function readId (text: string): number | string | undefined {
  try {
    const { id } = JSON.parse(text)
    return isText(id) || (isCount(id) && id > 0) ? id : undefined
  } catch {
    return /^\{[^{}[\]]*"id":(\d+)[,}]/.test(text) ? Number(/"id":(\d+)/.exec(text)![1]) : undefined
  }
}

const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
const isText = (value: unknown) => typeof value === 'string' && value.length >= 1 && value.length <= 128

/**
 * Neither nested too deep, nor too large, nor with a key that could reach a prototype. Walks
 * without recursion, since the depth is the question.
 */
function isSafe (root: object, counts: boolean): boolean {
  let members = 0
  const open: [value: object, depth: number][] = [[root, 1]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [value, depth] = next
    if (depth > MAX_DEPTH || (counts && ++members > MAX_MEMBERS)) return false
    for (const name of Object.keys(value)) {
      if (name === '__proto__') return false
      const inner = (value as Record<string, unknown>)[name]
      if (typeof inner === 'object' && inner !== null) open.push([inner, depth + 1])
    }
  }
  return true
}
