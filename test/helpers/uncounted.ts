/**
 * For the environment of a process that runs TypeScript through tsx: it is not counted for
 * coverage. tsx prints other JavaScript than the test runner, and the counts of both would be taken
 * for one.
 */
export const UNCOUNTED = { _TAPJS_PROCESSINFO_COVERAGE_: '0' }
