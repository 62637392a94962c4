// What can go wrong under a journal, in sentences for operators, and whether waiting can help.

export interface Fault {
  /** `heals`: trying again is safe and can succeed. `ends`: this process may not write any more. */
  readonly kind: 'heals' | 'ends'
  /** What has happened, and what to do. */
  readonly message: string
}

const RETRIES = 'The store tries again by itself.'

interface Row { readonly pattern: RegExp, readonly kind: Fault['kind'], readonly says: (directory: string) => string }

/** The first row that matches the text of the error or of its cause. */
const ROWS: readonly Row[] = [
  {
    pattern: /LEVEL_LOCKED|already held by process|lock .*LOCK/,
    kind: 'ends',
    says: directory => `The data directory ${directory} is used by another process. ` +
      'Stop that one, or give each its own HOLDFAST_DATA_DIR.'
  },
  {
    pattern: /No space left|ENOSPC|quota exceeded|EDQUOT/i,
    kind: 'heals',
    says: directory => `No space is left on the disk of ${directory}. Free some. ${RETRIES}`
  },
  {
    pattern: /Read-only file system|EROFS/i,
    kind: 'heals',
    says: directory => `The file system of ${directory} is read-only. Mount it writable. ${RETRIES}`
  },
  {
    pattern: /Permission denied|EACCES|EPERM|not permitted/i,
    kind: 'heals',
    says: directory => `The data directory ${directory} may not be written by this user. ` +
      `Give it to the user that runs the server. ${RETRIES}`
  },
  {
    pattern: /Too many open files|EMFILE|ENFILE/i,
    kind: 'heals',
    says: directory => `The process may not open more files, so ${directory} cannot be written. ` +
      `Raise its limit (ulimit -n). ${RETRIES}`
  },
  {
    pattern: /ENOTDIR|EEXIST|Not a directory/i,
    kind: 'ends',
    says: directory => `The data directory ${directory} is not a directory. Choose another HOLDFAST_DATA_DIR.`
  },
  {
    pattern: /does not exist|No such file|ENOENT/i,
    kind: 'ends',
    says: directory => goneMessage(directory)
  },
  {
    pattern: /LEVEL_CORRUPTION|Corruption/i,
    kind: 'ends',
    says: directory => `The data in ${directory} is damaged. Stop the server and restore the directory ` +
      'from a backup, or move it away to start without sessions.'
  }
]

export function goneMessage (directory: string): string {
  return `The data directory ${directory} was removed or replaced while the server ran; what is written now would ` +
    'be lost. Restore it if there is a backup, and start the server again.'
}

export function takenMessage (directory: string): string {
  return `Another process has used the data directory ${directory} while this one could not write to it. ` +
    'End one of the two, and start the other again.'
}

export function stalledMessage (directory: string, seconds: number): string {
  return `The disk of ${directory} has not answered a write for ${seconds} s. The store goes on by itself when it does.`
}

export function describeFault (error: unknown, directory: string): Fault {
  const text = textsOf(error).join('\n')
  const row = ROWS.find(({ pattern }) => pattern.test(text))
  if (row !== undefined) return { kind: row.kind, message: row.says(directory) }
  return { kind: 'heals', message: `${directory} cannot be written: ${lastTextOf(error)}. ${RETRIES}` }
}

/** For an opening, which is not repeated. */
export function withoutRetries (message: string): string {
  return message.replace(` ${RETRIES}`, '')
}

/** Codes and messages of an error and its causes. */
function textsOf (error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)]
  const { code } = error as { code?: unknown }
  const texts = [typeof code === 'string' ? code : '', error.message]
  return error.cause === undefined ? texts : [...texts, ...textsOf(error.cause)]
}

function lastTextOf (error: unknown): string {
  return (textsOf(error).at(-1) ?? '').replace(/\.$/, '')
}
