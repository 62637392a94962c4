// Runs the checks against one server and reports. The order: connect once per profile to learn the
// server's limits, start the core, run the checks side by side (slow ones first, `last` ones alone
// at the end), print one line for each rule. A rule holds if none of its checks failed and no
// connection of the whole run showed a breach of it.

import { createAdmin } from './admin.js'
import { RULES, type Check } from './check.js'
import { startCore } from './core.js'
import { Failure, NotTested, show } from './expect.js'
import { createScope, type Facts, type ScopeParts } from './kit.js'
import type { KitOptions } from './options.js'
import type { Profile } from './peer.js'
import { commandChecks } from './rules/commands.js'
import { coreChecks } from './rules/core-commands.js'
import { endingChecks } from './rules/endings.js'
import { frameChecks } from './rules/frames.js'
import { handshakeChecks } from './rules/handshake.js'
import { livenessChecks } from './rules/liveness.js'
import { outputChecks } from './rules/output.js'
import { overflowChecks } from './rules/overflow.js'
import { refusedResumeChecks } from './rules/refused-resume.js'
import { resumeChecks } from './rules/resume.js'
import { takeoverChecks } from './rules/takeover.js'

export const CHECKS: readonly Check[] = [
  ...handshakeChecks, ...frameChecks, ...commandChecks, ...coreChecks, ...outputChecks, ...overflowChecks,
  ...resumeChecks, ...refusedResumeChecks, ...takeoverChecks, ...endingChecks, ...livenessChecks
]

export interface Outcome {
  readonly rule: string
  readonly profile: Profile
  readonly title: string
  readonly state: 'ok' | 'failed' | 'not tested'
  readonly sentence: string
  readonly tookMs: number
}

export interface Report {
  readonly outcomes: readonly Outcome[]
  readonly failedRules: readonly string[]
  readonly untestedRules: readonly string[]
  readonly lines: readonly string[]
  readonly exitCode: 0 | 1
}

const CHECK_DEADLINE_MS = 90_000

/**
 * Tests every rule that the options select. Rejects only if the server cannot be reached or the
 * core's address cannot be used.
 */
export async function runChecks (options: KitOptions): Promise<Report> {
  const { serialCommand } = options
  const core = options.core === undefined
    ? undefined
    : await startCore(options.core.host, options.core.port, options.timeoutMs, { serialCommand })
  const admin = options.admin === undefined
    ? undefined
    : createAdmin(options.admin, options.adminToken, options.timeoutMs)
  try {
    const outcomes: Outcome[] = []
    const facts = await learnFacts(options)
    const jobs = CHECKS
      .filter(({ rule }) => options.only === undefined || options.only.includes(rule))
      .flatMap((check) => check.profiles.filter((profile) => options.profiles.includes(profile)).map((profile) => ({
        check, profile
      })))
    const run = async ({ check, profile }: (typeof jobs)[number]) => {
      outcomes.push(...await runCheck(check, { options, profile, facts: facts[profile]!, core, admin }))
    }
    const beside = jobs.filter(({ check }) => !check.last).sort((a, b) => Number(b.check.slow) - Number(a.check.slow))
    await Promise.all(Array.from({ length: options.parallel }, async () => {
      for (let job = beside.shift(); job !== undefined; job = beside.shift()) await run(job)
    }))
    for (const job of jobs) if (job.check.last) await run(job)
    return report(options, outcomes)
  } finally {
    await core?.close()
  }
}

async function learnFacts (options: KitOptions): Promise<Partial<Record<Profile, Facts>>> {
  const all: Partial<Record<Profile, Facts>> = {}
  for (const profile of options.profiles) {
    const { scope, end } = createScope({
      options,
      profile,
      facts: readFacts({}),
      core: undefined,
      admin: undefined,
      breach: () => {}
    })
    try {
      all[profile] = readFacts((await scope.connect()).facts)
    } finally {
      end()
    }
  }
  return all
}

function readFacts (told: Record<string, any>): Facts {
  const number = (value: unknown) => typeof value === 'number' ? value : Number.POSITIVE_INFINITY
  return {
    idleTimeoutMs: number(told['idleTimeoutMs']),
    heartbeatMs: number(told['heartbeatMs']),
    resumeWindowMs: typeof told['resumeWindowMs'] === 'number' ? told['resumeWindowMs'] : 0,
    maxMessageBytes: number(told['limits']?.maxMessageBytes),
    commandsPerSecond: number(told['limits']?.commandsPerSecond),
    maxInFlight: number(told['limits']?.maxInFlight)
  }
}

async function runCheck (check: Check, parts: Omit<ScopeParts, 'breach'>): Promise<Outcome[]> {
  const breaches = new Map<string, string>()
  const { scope, end } = createScope({
    ...parts,
    breach: (rule, sentence) => { if (!breaches.has(rule)) breaches.set(rule, sentence) }
  })
  const startedAt = performance.now()
  let state: Outcome['state'] = 'ok'
  let sentence = ''
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new Failure(`expected the check to end, got no end within ${CHECK_DEADLINE_MS} ms`)),
      CHECK_DEADLINE_MS
    )
  })
  try {
    await Promise.race([check.run(scope), late])
  } catch (error) {
    state = error instanceof NotTested ? 'not tested' : 'failed'
    sentence = error instanceof Failure || error instanceof NotTested
      ? error.message
      : `expected the check to end, got ${show(error)}`
  } finally {
    clearTimeout(timer)
    end()
  }
  const base = { profile: parts.profile, title: check.title, tookMs: performance.now() - startedAt }
  const own = breaches.get(check.rule)
  const outcomes: Outcome[] = [{
    ...base,
    rule: check.rule,
    state: state === 'ok' && own !== undefined ? 'failed' : state,
    sentence: sentence === '' ? own ?? '' : sentence
  }]
  for (const [rule, broken] of breaches) {
    if (rule !== check.rule) outcomes.push({ ...base, rule, state: 'failed', sentence: broken })
  }
  return outcomes
}

function report (options: KitOptions, outcomes: readonly Outcome[]): Report {
  const rules = Object.keys(RULES).filter((rule) => options.only?.includes(rule) ?? true)
  const seen = [...new Set([...rules, ...outcomes.map(({ rule }) => rule)])].sort((a, b) => Number(a.slice(
    2
  )) - Number(b.slice(2)))
  const lines: string[] = []
  const failedRules: string[] = []
  const untestedRules: string[] = []
  for (const rule of seen) {
    const own = outcomes.filter((outcome) => outcome.rule === rule)
    const failed = own.filter(({ state }) => state === 'failed')
    const passed = own.filter(({ state }) => state === 'ok')
    const missing = own.filter(({ state }) => state === 'not tested')
    const reasons = [...new Set(missing.map(({ sentence }) => sentence))].join('; ')
    if (failed.length > 0) failedRules.push(rule)
    else if (passed.length === 0 || (missing.length > 0 && options.requireAll)) untestedRules.push(rule)
    for (const { profile, title, sentence } of failed) lines.push(`FAIL ${rule} ${title} (${profile}): ${sentence}`)
    if (options.verbose) {
      for (const { profile, title, tookMs } of passed) {
        lines.push(`ok ${rule} ${title} (${profile}, ${Math.round(tookMs)} ms)`)
      }
      for (const { profile, title, sentence } of missing) {
        lines.push(`not tested ${rule} ${title} (${profile}): ${sentence}`)
      }
    } else if (failed.length === 0 && passed.length > 0) {
      lines.push(
        `ok ${rule} ${RULES[rule]} ` +
          `(${count(passed.length, 'check')}${missing.length === 0 ? '' : `; ${missing.length} not made: ${reasons}`})`
      )
    }
    if (passed.length + failed.length === 0 && !(options.verbose && missing.length > 0)) {
      lines.push(`not tested ${rule}: ${reasons === '' ? 'no check in this profile' : reasons}`)
    }
  }
  const checks = outcomes.filter(({ state }) => state === 'ok').length
  lines.push(
    `${rules.length -
      failedRules.length - untestedRules.length} of ${rules.length} rules hold in ${count(checks, 'check')}, ` +
      `${failedRules.length} failed${failedRules.length === 0 ? '' : ` (${failedRules.join(', ')})`}, ` +
      `${untestedRules.length} not tested${untestedRules.length === 0 ? '' : ` (${untestedRules.join(', ')})`}`
  )
  const bad = failedRules.length > 0 || (options.requireAll && untestedRules.length > 0)
  return { outcomes, failedRules, untestedRules, lines, exitCode: bad ? 1 : 0 }
}

const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`
