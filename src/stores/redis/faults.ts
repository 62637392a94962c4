// What an error of Redis means to whoever runs it.

const SENTENCES: readonly (readonly [RegExp, string])[] = [
  [/^OOM/, 'Redis has reached maxmemory and takes no writes. Raise maxmemory, or end sessions.'],
  [
    /^READONLY/,
    'This Redis is a read-only replica. Point HOLDFAST_REDIS_URL at the primary, or use a sentinel or cluster URL.'
  ],
  [/^LOADING/, 'Redis loads its data and answers when it is done.'],
  [
    /^(CLUSTERDOWN|TRYAGAIN)/,
    'The Redis cluster does not serve all slots. Check CLUSTER INFO; a failover takes some seconds.'
  ],
  [/^MASTERDOWN/, 'The Redis replica has lost its primary. Check the primary.'],
  [/^MISCONF/, 'Redis cannot write to its disk and takes no writes. Check the disk of the Redis host.'],
  [
    /^NOREPLICAS/,
    'Redis has fewer replicas than min-replicas-to-write asks for, and takes no writes. Check the replicas.'
  ],
  [/^(NOAUTH|WRONGPASS)/, 'Redis refuses the name or the password. Correct them in HOLDFAST_REDIS_URL.'],
  [/^NOPERM/, 'The Redis user may not run a command that is needed. See docs/stores.md for its permissions.'],
  [/^BUSY/, 'Redis is busy with a script that runs too long.'],
  [
    /^(ERR unknown command|ERR .*CROSSSLOT|CROSSSLOT)/,
    'This server does not do what is needed. Redis from 7.0 or Valkey from 7.2 on will do.'
  ],
  [
    /self-signed certificate|unable to (get local issuer|verify the first) certificate/,
    'The certificate of Redis is not signed by an authority that is trusted here. Name the file of that authority ' +
      'in HOLDFAST_REDIS_CA_FILE.'
  ],
  [
    /does not match certificate's altnames/,
    'The certificate of Redis is for another name. Write a name that is in it into HOLDFAST_REDIS_URL.'
  ],
  [/certificate has expired/, 'The certificate of Redis has expired. Renew it.']
]

/** One or two sentences: what is wrong, and what to do. */
export function sentenceOf (error: unknown): string {
  const { message = '', code } = (error ?? {}) as { message?: string, code?: unknown }
  for (const [pattern, sentence] of SENTENCES) {
    if (pattern.test(message)) return sentence
  }
  if (/WRONGPASS|invalid username-password/.test(message)) return SENTENCES[7]?.[1] ?? message
  const detail = typeof code === 'string' && !message.includes(code) ? `${code} ${message}` : message
  return `Redis cannot be reached or has failed: ${detail.slice(0, 200)}`
}
