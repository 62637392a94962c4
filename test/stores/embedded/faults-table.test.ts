import t from 'tap'
import { describeFault, withoutRetries } from '../../../src/stores/embedded/faults.js'

const coded = (code: string, message = '', cause?: Error) => Object.assign(new Error(message, { cause }), { code })
const io = (text: string) => coded('LEVEL_IO_ERROR', `IO error: /data/journal/000003.log: ${text}`)

const CASES: [name: string, error: unknown, kind: 'heals' | 'ends', message: RegExp][] = [
  ['full disk', io('No space left on device'), 'heals', /^No space is left on the disk of \/data\. Free some\./],
  ['quota', io('Disk quota exceeded'), 'heals', /^No space is left/],
  ['read-only', io('Read-only file system'), 'heals', /^The file system of \/data is read-only\. Mount it writable\./],
  ['permissions', coded('EACCES', 'mkdir'), 'heals', /may not be written by this user\. Give it to the user/],
  ['files', io('Too many open files'), 'heals', /may not open more files.*ulimit -n/],
  ['broken disk', io('Input/output error'), 'heals', /^\/data cannot be written: .*Input\/output error\. The/],
  [
    'lock',
    coded('LEVEL_DATABASE_NOT_OPEN', 'Database failed to open', coded('LEVEL_LOCKED', 'IO error: lock')),
    'ends',
    /^The data directory \/data is used by another process\./
  ],
  ['damage', coded('LEVEL_CORRUPTION', 'Corruption: bad block'), 'ends', /damaged\. Stop the server and restore/],
  ['a file', coded('ENOTDIR', 'not a directory'), 'ends', /is not a directory\. Choose another/],
  ['gone', io('No such file or directory'), 'ends', /was removed or replaced/],
  ['no error at all', 'boom', 'heals', /^\/data cannot be written: boom\. The store tries again by itself\.$/]
]

for (const [name, error, kind, message] of CASES) {
  t.test(`what is said of ${name}`, async t => {
    const fault = describeFault(error, '/data')
    t.match(fault, { kind, message })
    t.notMatch(withoutRetries(fault.message), /tries again/)
  })
}
