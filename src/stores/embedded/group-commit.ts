// Many writes, few visits to the disk: all writes of a turn, and all that come while a group is
// being written, form the next group. Groups are written one after another, so a write is never
// kept without the ones before it.

import type { SessionId } from '../../io/types.js'
import type { Group } from './journal.js'

/** One write of a group. */
export interface Member {
  /** Whose state is in doubt if the group fails. */
  readonly id: SessionId
  /** Told once: whether it is kept. */
  readonly settle: (kept: boolean) => void
}

export interface GroupCommit {
  /** Joins the group that is being made. Throws what the journal throws. */
  join(id: SessionId, fill: (group: Group) => void, settle: (kept: boolean) => void): void
  /** Resolves when nothing is waiting. */
  idle(): Promise<void>
  /**
   * Everything that waits is told that it is not kept, although it may be: for a disk that does not
   * answer.
   */
  giveUp(): void
}

export interface GroupCommitDeps {
  /** A new group. */
  begin(): Group
  /** Keeps a group, or rejects. */
  write(group: Group): Promise<void>
  /** Calls back at the end of this turn of the event loop. */
  defer(callback: () => void): void
  /** The group was not kept, and nothing after it. These writes are told so already. */
  failed(error: unknown, members: readonly Member[]): void
}

interface Open { readonly group: Group, members: Member[] }

export function createGroupCommit ({ begin, write, defer, failed }: GroupCommitDeps): GroupCommit {
  let open: Open | undefined
  let writing: Open | undefined
  let waiting: (() => void)[] = []

  function settleAll (members: readonly Member[], kept: boolean): void {
    for (const { settle } of members) settle(kept)
  }

  function flush (): void {
    if (writing !== undefined || open === undefined) return
    const current = writing = open
    open = undefined
    write(current.group).then(() => {
      writing = undefined
      settleAll(current.members, true)
      next()
    }, (error: unknown) => {
      // What was collected meanwhile builds on what is lost.
      const members = open === undefined ? current.members : current.members.concat(open.members)
      writing = open = undefined
      settleAll(members, false)
      failed(error, members)
      next()
    })
  }

  function next (): void {
    if (open !== undefined) return flush()
    const callbacks = waiting
    waiting = []
    for (const callback of callbacks) callback()
  }

  return {
    join (id, fill, settle) {
      const isFirst = open === undefined
      open ??= { group: begin(), members: [] }
      fill(open.group)
      open.members.push({ id, settle })
      if (isFirst && writing === undefined) defer(flush)
    },
    async idle () {
      if (open === undefined && writing === undefined) return
      await new Promise<void>(resolve => { waiting.push(resolve) })
    },
    giveUp () {
      for (const part of [writing, open]) {
        if (part === undefined) continue
        settleAll(part.members, false)
        // Still in doubt if the group fails after all.
        part.members = part.members.map(({ id }) => ({ id, settle () {} }))
      }
    }
  }
}
