// Hands: the two buttons, the dialog that asks for a reason, and the keys A, R, J and K. A key that is held down decides once, or a stuck key would approve
// everything; keys do nothing while something is typed.

import type { Draft } from '../commands.js'
import { byId } from './view.js'

export interface Hands {
  selected (): Draft | undefined
  canDecide (): boolean
  approve (): void
  reject (draft: Draft, reason: string): void
  move (step: 1 | -1): void
}

export function installKeys (hands: Hands): void {
  const dialog = byId<HTMLDialogElement>('reject-dialog')
  const reason = byId<HTMLTextAreaElement>('reason')
  /** The draft the dialog is about, whatever is selected when it is closed. */
  let asked: Draft | undefined

  function ask (): void {
    asked = hands.selected()
    if (asked === undefined || !hands.canDecide() || dialog.open) return
    byId('reject-topic').textContent = `#${asked.id} ${asked.topic}`
    reason.value = ''
    dialog.showModal()
    reason.focus()
  }

  byId('approve').addEventListener('click', () => hands.approve())
  byId('reject').addEventListener('click', ask)
  byId('reject-cancel').addEventListener('click', () => dialog.close())
  for (const preset of dialog.querySelectorAll<HTMLButtonElement>('[data-reason]')) {
    preset.addEventListener('click', () => {
      reason.value = preset.dataset['reason'] ?? ''
      reason.focus()
    })
  }
  byId<HTMLFormElement>('reject-form').addEventListener('submit', () => {
    if (asked !== undefined) hands.reject(asked, reason.value.trim())
  })
  reason.addEventListener('input', () => reason.setCustomValidity(reason.value.trim().length < reason.minLength ? 'Please give a reason of at least three characters.' : ''))
  reason.addEventListener('keydown', event => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId<HTMLFormElement>('reject-form').requestSubmit()
  })

  document.addEventListener('keydown', event => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return
    const key = event.key.toLowerCase()
    if (key === 'a' && hands.canDecide()) hands.approve()
    else if (key === 'r') ask()
    else if (key === 'j') hands.move(1)
    else if (key === 'k') hands.move(-1)
    else return
    event.preventDefault()
  })
}
