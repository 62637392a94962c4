// A token on its way to the server, and what it says of whom it was issued to.

/** Base64 to base64url, and back. */
const OTHER: Record<string, string> = { '+': '-', '/': '_', '-': '+', _: '/', '=': '' }
const swap = (text: string): string => text.replace(/[-+/_=]/g, character => OTHER[character]!)

/**
 * P-3: a JWT stands for itself, any other token travels as base64url. `auth64` is younger, and used
 * only where it must.
 */
export function authEntry (token: string): string {
  if (/^[\w-]*\.[\w.-]*$/.test(token)) return 'auth.' + token
  const base64 = btoa(String.fromCharCode(...new TextEncoder().encode(token)))
  return (token.includes('.') ? 'auth64.' : 'auth.') + swap(base64)
}

/** Whom a JWT was issued to; undefined for any other token. */
export function subjectOf (token: string | undefined): string | undefined {
  try {
    const { sub } = JSON.parse(atob(swap(token!.split('.')[1]!))) as { sub?: unknown }
    return typeof sub === 'string' ? sub : undefined
  } catch {
    return undefined
  }
}
