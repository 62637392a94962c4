// Keeps an idle server small. While a process starts, V8 lets the space of young objects grow to its largest size, 32 MiB, for
// what is garbage a second later, and an idle process never gives it back. So it may not grow while the server starts.
// Under load it grows as ever.

import { setFlagsFromString } from 'node:v8'

/** To be called before large modules are loaded. V8 reads the flag each time it considers growing; 1 is not at all. */
export function holdHeap (): void {
  setFlagsFromString('--semi-space-growth-factor=1')
}

/** To be called when the server has started: back to V8's default. */
export function letHeapGrow (): void {
  setFlagsFromString('--semi-space-growth-factor=2')
}
