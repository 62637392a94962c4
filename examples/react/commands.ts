// What server and page agree on: two commands and one event. The page takes its types from here,
// and nothing else.

import { Type, type Static } from 'typebox'
import { defineCommand } from '../../src/io/dispatcher/command.js'

export const Note = Type.Object({ id: Type.Integer(), author: Type.String(), text: Type.String() })
export type Note = Static<typeof Note>

export const events = { 'note.added': Note }

/** @param added  hears of every new note */
export function createCommands (added: (note: Note) => void) {
  const notes: Note[] = []
  return {
    'notes.list': defineCommand({ payload: Type.Null(), result: Type.Array(Note) }, () => notes.slice(-100)),

    'note.add': defineCommand({
      payload: Type.Object({ text: Type.String({ minLength: 1, maxLength: 200 }) }),
      result: Note
    }, ({ payload, session }) => {
      const note = { id: notes.length + 1, author: session.userId, text: payload.text }
      notes.push(note)
      added(note)
      return note
    })
  }
}

export type Commands = ReturnType<typeof createCommands>
