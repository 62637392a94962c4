// The README, run: every block of code against a server, in the order of the page, and every
// promise it makes about files.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { freePort } from '../helpers/free-port.js'
import { startServer } from '../helpers/server.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
const manifest = JSON.parse(readFileSync(
  new URL('../../package.json', import.meta.url), 'utf8'
)) as { scripts: Record<string, string>, engines: { node: string }, version: string }

const blocks = [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
  language: language as string, code: code as string
}))

/** The block of a language that contains a text. */
function blockWith (language: string, text: string): string {
  const found = blocks.find(block => block.language === language && block.code.includes(text))
  if (found === undefined) throw new Error(`README.md has no ${language} block with ${text}`)
  return found.code
}

interface Running {
  output: () => string
  exit: Promise<number | null>
  until: (text: string) => Promise<void>
  stop: () => void
}

/** Runs a block as a reader would paste it, with the port of the test's server. */
function launch (t: Test, command: 'bash' | 'node', code: string, ports: Record<number, number>): Running {
  const text = Object.entries(ports).reduce((rest, [from, to]) => rest.replaceAll(from, String(to)), code)
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TAP|NODE_OPTIONS|NODE_V8)/.test(
    name
  )))
  // The shell's standard input stays open, as a terminal's would: wscat leaves when it ends.
  const argv = command === 'bash' ? ['-e', '-c', text] : ['--input-type=module']
  const child = spawn(command === 'node' ? process.execPath : command, argv, {
    cwd: root, env, stdio: ['pipe', 'pipe', 'pipe']
  })
  t.teardown(() => { child.kill('SIGKILL') })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (data: string) => { output += data })
  }
  if (command === 'node') child.stdin.end(text)
  const exit = new Promise<number | null>(resolve => { child.on('close', resolve) })
  return {
    output: () => output,
    exit,
    stop: () => { child.kill() },
    until: async wanted => {
      await new Promise<void>((resolve, reject) => {
        const look = (): void => { if (output.includes(wanted)) resolve() }
        child.stdout.on('data', look)
        child.on('close', () => { reject(new Error(`it ended without "${wanted}":\n${output}`)) })
        look()
      })
    }
  }
}

function runNode (t: Test, code: string, ports: Record<number, number>): Running {
  return launch(t, 'node', code, ports)
}

t.test('a first session goes as the page says', async t => {
  const server = await startServer()
  t.teardown(() => server.stop('SIGKILL'))
  const ports = { 3000: server.port }

  await t.test('wscat gets a session and its echo', async t => {
    // A reader's machine has nothing else to do in the second that wscat waits for answers.
    const shell = launch(t, 'bash', blockWith('sh', 'wscat').replace('-w 1 ', '-w 5 '), ports)
    t.equal(await shell.exit, 0)
    // What the page shows is what is printed, line by line; … stands for anything.
    const shown = blockWith('', '"type":"session_created"').trim().split('\n')
    const printed = shell.output().trim().split('\n')
    t.equal(printed.length, shown.length)
    for (const [i, line] of shown.entries()) {
      const pattern = line.split('…').map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')
      t.match(printed[i], new RegExp(`^${pattern}$`))
    }
  })

  await t.test('a cut line is resumed, and the answer comes again', async t => {
    const script = runNode(t, blockWith('js', 'resume.'), ports)
    t.equal(await script.exit, 0)
    const frames = script.output().trim().split('\n').map(line => JSON.parse(
      line
    ) as { type: string, seq?: number, payload?: { replay?: object } })
    t.same(frames.map(({ type }) => type), ['session_resumed', 'result', 'live'])
    t.same(frames[0]?.payload?.replay, { from: 1, to: 1 })
    t.equal(frames[1]?.seq, 1)
  })

  await t.test('operators see the session, write to it and end it', async t => {
    const shell = launch(t, 'bash', blockWith('sh', 'curl'), ports)
    t.equal(await shell.exit, 0)
    t.match(shell.output(), /"userId":"human_reviewer_1"/)
    t.match(shell.output(), /\{"seq":2\}/)
    t.match(shell.output(), /"statusCode":410.*"code":"SESSION_ENDED"|"code":"SESSION_ENDED".*"statusCode":410/)
    t.match(shell.output(), /"note":"finished"/)
  })
})

t.test('an application of some 15 lines answers the typed client', async t => {
  const lines = blockWith('js', 'desk.mjs').trim().split('\n').filter(line => line !== '' && !line.startsWith('//'))
  t.ok(lines.length <= 16, `${lines.length} lines`)
  const port = await freePort()
  const application = runNode(t, blockWith('js', 'desk.mjs'), { 3001: port })
  await application.until(String(port))
  const client = runNode(t, blockWith('js', 'holdfast/client'), { 3001: port })
  t.equal(await client.exit, 0)
  t.match(client.output(), /^\{ draft: 7 \}\n\{ draft: 7, state: 'filed' \}\n\{ approved: 7 \}\n$/)
  application.stop()
})

t.test('every block is one that is run here, or is output', async t => {
  const run = ['npm ci && npm start', 'wscat', 'resume.', 'curl', 'desk.mjs', 'holdfast/client']
  for (const { language, code } of blocks) t.ok(language === '' || run.some(text => code.includes(text)), code)
})

t.test('it stays under 200 lines', async t => {
  t.ok(readme.split('\n').length < 200)
})

t.test('every file that it links to exists', async t => {
  for (const [, path] of readme.matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g)) {
    t.ok(existsSync(`${root}${path}`), path ?? '')
  }
})

t.test('every npm script that it names exists', async t => {
  for (const [, name] of readme.matchAll(/npm run ([\w:]+)/g)) {
    t.ok(name !== undefined && name in manifest.scripts, name ?? '')
  }
  t.ok('start' in manifest.scripts && 'test' in manifest.scripts)
})

t.test('it names the version of Node.js that the package asks for', async t => {
  t.ok(readme.includes(`Node.js ${manifest.engines.node.replace('>=', '')}`))
  t.ok(readme.includes(`Version ${manifest.version.split('.').slice(0, 2).join('.')}`))
})
