// The dialog that asks why a draft is rejected. It stays open, with its text, until the decision is
// on its way: whatever happens to the session or to the draft meanwhile is said inside it, and
// decides what Ctrl+Enter does.

import type { Draft } from '../commands.js'
import type { Reasons } from './reasons.js'
import { byId, setText } from './view.js'

/**
 * Why a decision about a draft cannot be made now, in words; `action` is the way out, if the page
 * has one.
 */
export interface Obstacle { readonly text: string, readonly action?: string, readonly run?: () => void }

export interface RejectDialogPort {
  readonly reasons: Reasons
  /** Undefined if a decision about this draft can be made. */
  obstacle (draft: Draft): Obstacle | undefined
  /** How the connection fares, where that is worth a sentence; empty if all is well. */
  remark (): string
  reject (draft: Draft, reason: string): void
}

export interface RejectDialog {
  readonly isOpen: boolean
  open (draft: Draft): void
  /** Something happened to the session or to the draft: says it where it matters now. */
  refresh (): void
}

const TOO_SHORT = 'Please give a reason of at least three characters.'

export function createRejectDialog ({ reasons, obstacle, remark, reject }: RejectDialogPort): RejectDialog {
  const dialog = byId<HTMLDialogElement>('reject-dialog')
  const form = byId<HTMLFormElement>('reject-form')
  const field = byId<HTMLTextAreaElement>('reason')
  const notice = byId('reject-notice')
  const action = byId<HTMLButtonElement>('reject-action')
  const presets = [...dialog.querySelectorAll<HTMLButtonElement>('[data-reason]')]
  /** The draft that the dialog is about, whatever is selected when it is closed. */
  let asked: Draft | undefined
  let way: (() => void) | undefined

  function check (): void {
    field.setCustomValidity(field.value.trim().length < field.minLength ? TOO_SHORT : '')
  }

  function refresh (): void {
    if (asked === undefined) return
    const found = obstacle(asked)
    way = found?.run
    dialog.dataset['blocked'] = String(found !== undefined)
    setText(notice, found?.text ?? remark())
    setText(action, found?.action ?? '')
    action.hidden = found?.action === undefined
    byId('reject-send').setAttribute('aria-disabled', String(found !== undefined))
  }

  /**
   * Says the same again to whoever tries again, also to a screen reader, which reads out changes
   * only.
   */
  function insist (): void {
    const { textContent } = notice
    notice.textContent = ''
    setTimeout(() => { notice.textContent ||= textContent })
    const frame = byId('reject-obstacle')
    frame.classList.remove('insist')
    void frame.offsetWidth
    frame.classList.add('insist')
  }

  function leave (): void {
    asked = undefined
    reasons.asking = null
    dialog.close()
  }

  form.addEventListener('submit', event => {
    event.preventDefault()
    if (asked === undefined) return
    refresh()
    if (obstacle(asked) !== undefined) return insist()
    const draft = asked
    leave()
    reject(draft, field.value.trim())
  })
  // Also fired by Esc; late enough for the next opening to have come before it.
  dialog.addEventListener('close', () => { if (!dialog.open) leave() })
  field.addEventListener('input', () => {
    check()
    if (asked !== undefined) reasons.keep(asked, field.value)
  })
  field.addEventListener('keydown', event => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit()
  })
  byId('reject-cancel').addEventListener('click', leave)
  action.addEventListener('click', () => {
    way?.()
    refresh()
    field.focus()
  })
  for (const preset of presets) {
    preset.addEventListener('click', () => {
      // Takes the place of another preset, and leaves alone what was typed behind it.
      const typed = presets.reduce(
        (rest, { dataset }) => rest.startsWith(dataset['reason'] ?? '') ? rest.slice(dataset['reason']?.length) : rest,
        field.value
      )
      field.value = `${preset.dataset['reason']}${typed}`.slice(0, field.maxLength)
      field.dispatchEvent(new Event('input'))
      field.focus()
    })
  }

  return {
    get isOpen () { return dialog.open },
    open (draft) {
      if (dialog.open) return
      asked = draft
      reasons.asking = draft.id
      setText(byId('reject-topic'), `#${draft.id} ${draft.topic}`)
      field.value = reasons.of(draft)
      check()
      refresh()
      dialog.showModal()
      field.focus()
      field.setSelectionRange(field.value.length, field.value.length)
    },
    refresh
  }
}
