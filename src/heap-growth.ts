// Keeps an idle server small. While a process starts, V8 lets the space of young objects grow to
// its largest size, 32 MiB, for what is garbage a second later, and an idle process never gives it
// back. So it may not grow while the server starts. Under load it grows to that size in one step:
// by V8's own steps a server of few connections kept the small one for minutes, and its collections
// cost it 2.5 % of its time.

import { setFlagsFromString } from 'node:v8'

/**
 * To be called before large modules are loaded. V8 reads the flag each time it considers growing; 1
 * is not at all.
 */
export function holdHeap (): void {
  setFlagsFromString('--semi-space-growth-factor=1')
}

/** To be called when the server has started. V8 keeps to its own largest size. */
export function letHeapGrow (): void {
  setFlagsFromString('--semi-space-growth-factor=16')
}
