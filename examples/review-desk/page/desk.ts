// What the reviewer sees, as data: the drafts that wait, the decisions and how far each has come,
// and which draft is open. Pure: it is told what happened and draws nothing, so its rules can be
// read in one place.
//
// A decision leaves the list at once (optimistic) and is settled by the real answer alone. What
// nobody can know is called unknown until the platform's record says more. The desk that `open`
// brings replaces what was known; events change it from there. A reason that was typed stays with
// its entry, also when another reviewer's decision is the one that counts.

import type { Decision, Desk, Draft, Verdict } from '../commands.js'

/**
 * How far a decision has come. `queued`: waits for a connection. `sending`: on its way, or waiting
 * for the answer. `recorded`: the platform has it. `refused`: the platform said no. `unsent`: it
 * never left this page. `unknown`: it may have been recorded, or not.
 */
export type Phase = 'queued' | 'sending' | 'recorded' | 'refused' | 'unsent' | 'unknown'

export interface Entry {
  readonly key: number
  readonly draft: number
  readonly topic: string
  verdict: Verdict
  reason: string | null
  phase: Phase
  /** Decided on this page. */
  isMine: boolean
  /** Whose recorded decision it is; null while it is not recorded. */
  reviewer: string | null
  /** Made by the page before a reload: its answer comes without a promise. */
  isRestored: boolean
  /** Answered by what a reconnect brought. */
  isLate: boolean
  /** Page clock at the click; NaN if nobody clicked here. */
  readonly startedAtMs: number
  latencyMs: number | null
  note: string | null
}

export interface DeskState {
  readonly waiting: readonly Draft[]
  /** Newest first. */
  readonly entries: readonly Entry[]
  readonly selected: Draft | undefined
  /** Drafts that arrived while the connection was gone and have not been opened since. */
  readonly arrivedAway: ReadonlySet<number>
  readonly isLoaded: boolean
  /** Decisions that the platform has recorded. */
  readonly total: number
}

/**
 * What a reload leaves behind: every decision of this page that the platform is not known to have.
 */
export type SavedEntry = Pick<Entry, 'draft' | 'topic' | 'verdict' | 'reason' | 'phase' | 'note'>

const MAX_ENTRIES = 200
const MAYBE_RUN = new Set([
  'OUTCOME_UNKNOWN', 'TIMEOUT', 'RESULT_EXPIRED', 'COMMAND_TIMEOUT', 'INTERNAL', 'INVALID_RESULT', 'CORE_UNAVAILABLE'
])
const NEVER_SENT = new Set([
  'SESSION_ENDED', 'DISPOSED', 'USER_CHANGED', 'QUEUE_FULL', 'MESSAGE_TOO_LARGE', 'BAD_PAYLOAD', 'ABORTED'
])
/** What the client's own codes mean to a person; the platform's come with a sentence. */
const NOTES: Partial<Record<string, string>> = {
  OUTCOME_UNKNOWN: 'The connection was lost for good before the answer came. It may have been recorded, or not.',
  TIMEOUT: 'No answer came in time. It may have been recorded, or not.',
  RESULT_EXPIRED: 'The answer came too late to be kept. It was most likely recorded.',
  SESSION_ENDED: 'You were disconnected before it could be sent. Decide again.',
  DISPOSED: 'You were disconnected before it could be sent. Decide again.',
  USER_CHANGED: 'Somebody else signed in before it could be sent.',
  QUEUE_FULL: 'Too many decisions are waiting to be sent. Decide again later.'
}
const NEVER_SENT_NOTE = 'The page was reloaded before it could be sent. Decide again.'
const GONE_NOTE = 'The platform no longer has this draft.'

export function createDeskModel (nowMs: () => number) {
  const drafts = new Map<number, Draft>()
  const arrivedAway = new Set<number>()
  let entries: Entry[] = []
  let selectedId: number | undefined
  let nextKey = 1
  let isLoaded = false
  let total = 0

  const isPending = (entry: Entry): boolean => entry.phase === 'queued' || entry.phase === 'sending'
  const isSettled = (entry: Entry): boolean => entry.phase === 'recorded'
  const entryOf = (draft: number): Entry | undefined => entries.find(entry => entry.draft === draft)

  function waiting (): Draft[] {
    const gone = new Set(entries.filter(isPending).map(({ draft }) => draft))
    return [...drafts.values()].filter(({ id }) => !gone.has(id))
  }

  type NewEntry = Omit<Entry, 'key' | 'latencyMs' | 'isLate' | 'isRestored' | 'note' | 'reviewer'> & Partial<Entry>
  function push (entry: NewEntry): Entry {
    const created: Entry = {
      key: nextKey++,
      latencyMs: null,
      isLate: false,
      isRestored: false,
      note: null,
      reviewer: null,
      ...entry
    }
    entries = [created, ...entries].slice(0, MAX_ENTRIES)
    return created
  }

  /** The draft that takes the place of one that leaves the list. */
  function leave (id: number): void {
    if (selectedId !== id) return
    const list = waiting()
    const at = list.findIndex(draft => draft.id === id)
    selectedId = (list[at + 1] ?? list[at - 1])?.id
  }

  function keepSelection (): void {
    const list = waiting()
    if (!list.some(({ id }) => id === selectedId)) selectedId = list[0]?.id
  }

  function settle (entry: Entry, decision: Decision, isMine: boolean, isLate: boolean): void {
    const { verdict: asked, reason: typed } = entry
    const { verdict, reason, reviewer } = decision
    Object.assign(entry, { verdict, reason, reviewer, phase: 'recorded', isMine, isLate })
    const yours = typed === null || typed === reason ? '' : ` Your reason was: “${typed}”`
    entry.note = isMine || (asked === verdict && yours === '')
      ? null
      : `You had ${asked} it; another reviewer was first.${yours}`
    if (isMine && !Number.isNaN(entry.startedAtMs)) entry.latencyMs = nowMs() - entry.startedAtMs
  }

  /** Something says how a draft was decided: an event, the desk, or an answer after a reload. */
  function record (decision: Decision, isMine: boolean, isLate: boolean): void {
    leave(decision.draft)
    drafts.delete(decision.draft)
    arrivedAway.delete(decision.draft)
    const entry = entryOf(decision.draft)
    if (entry === undefined) {
      const { draft, topic, verdict, reason, reviewer } = decision
      push({ draft, topic, verdict, reason, reviewer, phase: 'recorded', isMine, startedAtMs: NaN, isLate })
    } else if (entry.phase !== 'recorded' && (!isPending(entry) || entry.isRestored)) {
      // A pending one with a promise is settled by its own answer.
      settle(entry, decision, isMine, isLate)
    }
    keepSelection()
  }

  return {
    get state (): DeskState {
      const list = waiting()
      return {
        waiting: list,
        entries,
        selected: list.find(({ id }) => id === selectedId),
        arrivedAway,
        isLoaded,
        total
      }
    },

    open (desk: Desk, sessionId: string | undefined) {
      drafts.clear()
      for (const draft of desk.waiting) drafts.set(draft.id, draft)
      for (const decision of desk.decided) record(decision, decision.sessionId === sessionId, false)
      for (const entry of entries) {
        if (entry.phase === 'unknown') {
          entry.note = drafts.has(entry.draft)
            ? 'The platform has no record of it so far. You can decide again: a draft is decided once.'
            : GONE_NOTE
        } else if (!isSettled(entry) && !isPending(entry) && !drafts.has(entry.draft)) entry.note = GONE_NOTE
      }
      for (const id of arrivedAway) if (!drafts.has(id)) arrivedAway.delete(id)
      isLoaded = true
      total = desk.total
      keepSelection()
    },

    add (draft: Draft, isLate: boolean) {
      drafts.set(draft.id, draft)
      if (isLate) arrivedAway.add(draft.id)
      keepSelection()
    },

    decided (decision: Decision, sessionId: string | undefined, isLate: boolean) {
      total++
      record(decision, decision.sessionId === sessionId, isLate)
    },

    /** The answer to a decision of the page before. */
    confirmed: (decision: Decision) => record(decision, true, true),

    /** Takes the draft off the list; the key is for its answer. */
    submit (draft: Draft, verdict: Verdict, reason: string | null, isLive: boolean): number {
      leave(draft.id)
      arrivedAway.delete(draft.id)
      const phase = isLive ? 'sending' : 'queued'
      // What became of an earlier attempt is told by the new one.
      entries = entries.filter(entry => entry.draft !== draft.id || isPending(entry) || isSettled(entry))
      const { key } = push({
        draft: draft.id, topic: draft.topic, verdict, reason, phase, isMine: true, startedAtMs: nowMs()
      })
      keepSelection()
      return key
    },

    answered (key: number, decision: Decision, isLate: boolean) {
      const entry = entries.find(each => each.key === key)
      drafts.delete(decision.draft)
      if (entry !== undefined) settle(entry, decision, true, isLate)
      keepSelection()
    },

    failed (key: number, code: string, message: string) {
      const entry = entries.find(each => each.key === key)
      if (entry === undefined) return
      entry.phase = MAYBE_RUN.has(code) ? 'unknown' : NEVER_SENT.has(code) ? 'unsent' : 'refused'
      entry.note = NOTES[code] ?? message
      // Whoever was first is told by the event, which may have come before this answer.
      if (code === 'ALREADY_DECIDED') drafts.delete(entry.draft)
      keepSelection()
    },

    /** The connection is there: what waited is on its way. */
    flow () {
      for (const entry of entries) if (entry.phase === 'queued' && !entry.isRestored) entry.phase = 'sending'
    },

    restore (saved: readonly SavedEntry[]) {
      for (const entry of saved) push({ ...entry, isMine: true, isRestored: true, startedAtMs: NaN })
    },

    /**
     * What became of the decisions of the page before: nothing is known of those that waited. What
     * a copied tab finds pending belongs to the tab that it was made of.
     */
    claimRestored (isOurs: boolean) {
      if (!isOurs) entries = entries.filter(entry => !entry.isRestored || !isPending(entry))
      for (const entry of entries) {
        if (!entry.isRestored || entry.phase !== 'queued') continue
        entry.phase = 'unsent'
        entry.note = NEVER_SENT_NOTE
      }
      keepSelection()
    },

    /**
     * A reason was typed for a draft that is neither waiting nor among the decisions: it is shown,
     * not dropped.
     */
    orphan (draft: number, topic: string, reason: string) {
      push({
        draft, topic, verdict: 'rejected', reason, phase: 'unsent', isMine: true, startedAtMs: NaN, note: GONE_NOTE
      })
    },

    /**
     * The answers without a promise, by verdict: such an error does not say which decision it is
     * about.
     */
    restoredPending: (verdict: Verdict): number[] => entries
      .filter(entry => entry.isRestored && entry.phase === 'sending' && entry.verdict === verdict)
      .map(({ key }) => key),

    unsettled: (): SavedEntry[] => entries
      .filter(entry => entry.isMine && !isSettled(entry))
      .reverse()
      .map(({ draft, topic, verdict, reason, phase, note }) => ({ draft, topic, verdict, reason, phase, note })),

    waits: (id: number): Draft | undefined => waiting().find(draft => draft.id === id),
    entryOf,

    select (id: number) {
      selectedId = id
      arrivedAway.delete(id)
    },

    /** Opens the next draft, or the previous one; at an end it stays. */
    move (step: 1 | -1) {
      const list = waiting()
      const at = list.findIndex(({ id }) => id === selectedId)
      const next = list[Math.min(list.length - 1, Math.max(0, at + step))]
      if (next === undefined) return
      selectedId = next.id
      arrivedAway.delete(next.id)
    }
  }
}

export type DeskModel = ReturnType<typeof createDeskModel>
