// The state of one session towards its store: what is to be kept, what is, and who waits for it.
//
// Invariant: a waiter is settled once, also when its session ends or is lost.

import type { Seq } from '../types.js'
import type { JournalState } from './record.js'
import type { Fence } from './store.js'

export function createJournal (fence: Fence, storedSeq: Seq): JournalState {
  return {
    fence,
    storedSeq,
    version: 0,
    keptVersion: 0,
    isRunning: false,
    isListed: false,
    contextChanged: false,
    accessChanged: false,
    waiters: null,
    inboxTo: 0,
    parting: null,
    ahead: null
  }
}

/** A promise of whether everything until now is kept. */
export function waitUntilKept (journal: JournalState): Promise<boolean> {
  return new Promise(resolve => { (journal.waiters ??= []).push({ version: journal.version, settle: resolve }) })
}

/** Settles what waits for a version up to this one. */
export function settleWaiters (journal: JournalState, version: number, isKept: boolean): void {
  const { waiters } = journal
  if (waiters === null) return
  const due = waiters.filter(waiter => waiter.version <= version)
  const rest = waiters.filter(waiter => waiter.version > version)
  journal.waiters = rest.length === 0 ? null : rest
  for (const waiter of due) waiter.settle(isKept)
}

/** Nothing more comes of the session here. */
export function settleAll (journal: JournalState, isKept: boolean): void {
  settleWaiters(journal, Infinity, isKept)
  for (const settled of journal.parting?.settled.splice(0) ?? []) settled()
}
