// Hands: the buttons, and the keys A, R, J and K. A key that is held down decides once, or a stuck
// key would approve everything; keys do nothing while something is typed or a dialog is open.

import { byId } from './view.js'

export interface Hands {
  /** Both explain themselves when they cannot be done now. */
  approve (): void
  ask (): void
  move (step: 1 | -1): void
  /** A dialog has the keyboard. */
  isBusy (): boolean
}

export function installKeys (hands: Hands): void {
  byId('approve').addEventListener('click', () => hands.approve())
  byId('reject').addEventListener('click', () => hands.ask())
  byId('previous').addEventListener('click', () => hands.move(-1))
  byId('next').addEventListener('click', () => hands.move(1))

  document.addEventListener('keydown', event => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || hands.isBusy()) return
    const key = event.key.toLowerCase()
    if (key === 'a') hands.approve()
    else if (key === 'r') hands.ask()
    else if (key === 'j') hands.move(1)
    else if (key === 'k') hands.move(-1)
    else return
    event.preventDefault()
  })
}
