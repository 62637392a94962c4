// Shared notes: who signs in, what others write as they write it, and one line that says how the
// connection fares.

import { useCallback, useState, type FormEvent } from 'react'
import type { CommandError, Reason } from '../../../src/client/client.js'
import type { Commands, Note, events } from '../commands.js'
import { useSession, type Status } from './use-session.js'

type Events = typeof events

const WORDS: Partial<Record<Reason, string>> = {
  offline: 'You are offline.',
  draining: 'The server is restarting.',
  replaced: 'These notes are open in another tab, which has taken over.',
  ended_by_operator: 'An operator ended this session.',
  unauthenticated: 'The server does not accept your sign-in.',
  credentials_expired: 'Your sign-in has expired.'
}

function describe ({ state, reason }: Status): string {
  if (state === 'live') return 'Live'
  if (reason === null) return 'Connecting…'
  return WORDS[reason] ?? (state === 'ended' ? 'The session has ended.' : 'The connection was lost.')
}

export function App () {
  const [user, setUser] = useState(() => sessionStorage.getItem('user'))
  const signIn = (name: string | null): void => {
    if (name === null) sessionStorage.removeItem('user')
    else sessionStorage.setItem('user', name)
    setUser(name)
  }
  if (user !== null) return <Notes user={user} onSignOut={() => signIn(null)} />
  return (
    <main>
      <h1>Notes</h1>
      <p>Who are you?</p>
      {['ada', 'ben'].map(name => <button key={name} onClick={() => signIn(name)}>{name}</button>)}
    </main>
  )
}

export function Notes ({ user, onSignOut }: { user: string, onSignOut: () => void }) {
  const [notes, setNotes] = useState<readonly Note[]>([])
  const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`

  const { status, send, retry, close } = useSession<Commands, Events>(url, {
    user,
    token: () => user,
    messages: { 'note.added': note => setNotes(known => merge(known, [note])) },
    load: () => { send('notes.list').then(all => setNotes(known => merge(known, all)), () => {}) }
  })
  const add = useCallback((text: string) => send('note.add', { text }), [send])

  return (
    <main>
      <header>
        <h1>Notes of {user}</h1>
        <button onClick={() => { close(); onSignOut() }}>Sign out</button>
      </header>
      <div id='connection'>
        <p id='status' role='status' data-state={status.state}>{describe(status)}</p>
        {status.state === 'detached' && <button onClick={retry}>Try now</button>}
        {status.state === 'ended' && <button onClick={retry}>Start again</button>}
      </div>
      <ul id='notes'>{notes.map(({ id, author, text }) => <li key={id}><b>{author}</b> {text}</li>)}</ul>
      <NoteForm add={add} isLive={status.state === 'live'} />
    </main>
  )
}

/** Ordered by id, each once: what was loaded and what was told may overlap. */
function merge (known: readonly Note[], more: readonly Note[]): readonly Note[] {
  const byId = new Map([...known, ...more].map(note => [note.id, note]))
  return [...byId.values()].sort((a, b) => a.id - b.id)
}

/** The text stays in its field until the server has it. */
function NoteForm ({ add, isLive }: { add: (text: string) => Promise<unknown>, isLive: boolean }) {
  const [text, setText] = useState('')
  const [isSending, setIsSending] = useState(false)
  const [problem, setProblem] = useState('')

  async function submit (event: FormEvent): Promise<void> {
    event.preventDefault()
    setIsSending(true)
    setProblem('')
    try {
      await add(text)
      setText('')
    } catch (error) {
      const { code } = error as CommandError
      setProblem(code === 'OUTCOME_UNKNOWN' || code === 'DISPOSED'
        ? 'It is not known whether this was saved; look at the notes before you send it again.'
        : 'This was not saved. Try again.')
    }
    setIsSending(false)
  }
  return (
    <form onSubmit={event => { void submit(event) }}>
      <label htmlFor='text'>New note</label>
      <input
        id='text' required maxLength={200} value={text} readOnly={isSending}
        onChange={event => setText(event.target.value)}
      />
      <button disabled={isSending}>Add</button>
      <p id='problem' role='status'>
        {isSending && !isLive ? 'Waits for the connection; it is sent once it is back.' : problem}
      </p>
    </form>
  )
}
